"""What a cohort has made, as W&B artifacts that know what they are from: checkpoint → SAE → report."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from polymorph.alignment.families import FITS
from polymorph.pipeline.comparison import Comparison
from polymorph.report.bundle import CLAIMS, PAGE
from polymorph.store import Cohort, Member
from polymorph.store.names import step_name
from polymorph.tracking.loggers import Breaker, Tracking
from polymorph.tracking.runs import Artifact

MANIFEST = "manifest.json"
MAP = "orthogonal"
MAPS = "maps"


def keep_artifacts(
    tracking: Tracking, logger: Breaker, comparison: Comparison, seeds: Sequence[int], folder: Path
) -> None:
    """SAEs from their checkpoints, each member's in a run of its own; maps and the report in that of the analysis.

    `folder` holds the results of the analysis; the maps are put beside them.
    """
    cohort = comparison.cohort
    saes = [each for seed in seeds for each in _keep_saes(tracking, cohort, cohort.member(seed))]
    checkpoints = [checkpoint_artifact(cohort, seed, step) for seed, step in comparison.last_ends(seeds)]
    maps = _maps(comparison, seeds, folder)
    report = Artifact(
        f"{cohort.name}-report-{folder.name}", "report", _files(folder, (PAGE, CLAIMS)), lasting=False
    )
    logger.show(lambda run: run.log_artifact(maps, checkpoints))
    logger.show(lambda run: run.log_artifact(report, saes))


def checkpoint_artifact(cohort: Cohort, seed: int, step: int) -> Artifact:
    """The manifest of a checkpoint, which fixes the weights by their SHA-256; they stay where they are."""
    member = cohort.member(seed)
    facts = {"seed": seed, "step": step, "digest": member.read_step(step).digest}
    files = _files(member.folder / "steps" / step_name(step), (MANIFEST,))
    return Artifact(f"{cohort.name}-{member.name}-step-{step}", "checkpoint", files, facts)


def _keep_saes(tracking: Tracking, cohort: Cohort, member: Member) -> list[Artifact]:
    """The SAEs of a member's last step that has any."""
    places = member.saes()
    last = max((step for step, _, _ in places), default=-1)
    own = [_sae(cohort, member, last, site, name) for step, site, name in places if step == last]
    if own and (run := tracking.open(f"saes-{member.name}", "sae", {"seed": member.seed})) is not None:
        made_from = [checkpoint_artifact(cohort, member.seed, last)]
        for artifact in own:
            _log(run, artifact, made_from)
        run.finish(0)
    return own


def _log(run: Breaker, artifact: Artifact, made_from: Sequence[Artifact]) -> None:
    run.show(lambda each: each.log_artifact(artifact, made_from))


def _sae(cohort: Cohort, member: Member, step: int, site: str, name: str) -> Artifact:
    manifest = member.read_sae(step, site, name).manifest
    facts = {"seed": member.seed, "step": step, "site": site, "sae": name, "digest": manifest.digest}
    files = _files(member.sae_path(step, site, name), (*manifest.files, MANIFEST))
    return Artifact(f"{cohort.name}-{member.name}-step-{step}-{site}-{name}", "sae", files, facts)


def _maps(comparison: Comparison, seeds: Sequence[int], folder: Path) -> Artifact:
    """The orthogonal map of every pair and site at the last checkpoints, fitted on the fit split of the probe."""
    pairs = comparison.final_pairs(seeds)
    (folder / MAPS).mkdir(exist_ok=True)
    names = []
    for site, moments in comparison.moments(pairs).result().items():
        fitted = FITS[MAP](moments.fit.total())
        for place, pair in enumerate(pairs):
            names.append(f"{site}-seed-{pair.source:04d}-to-seed-{pair.target:04d}.safetensors")
            fitted[place].save(folder / MAPS / names[-1])
    facts = {"map": MAP, "probe": comparison.probe.identity()}
    name = f"{comparison.cohort.name}-maps-{folder.name}"
    return Artifact(name, "maps", _files(folder / MAPS, names), facts, lasting=False)


def _files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    return {name: folder / name for name in names if (folder / name).is_file()}
