"""An analysis request carried out: from a cohort on disk to tables, figures, a page and a W&B run."""

import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

from polymorph.checks import nearest
from polymorph.cli.analysis_run import log_analysis
from polymorph.cli.config import AnalyzeConfig, seeds_of
from polymorph.cli.ending import DONE, FAILED, WRONG
from polymorph.code_version import code_version
from polymorph.errors import RequestError, RunError
from polymorph.evidence.planted import Planted
from polymorph.papers.mccann2026 import outputs as paper
from polymorph.papers.mccann2026.ledger_text import ledger_lines
from polymorph.pipeline.analysis import Analysis, Findings
from polymorph.pipeline.analysis_report import report_of
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.planted_cohort import PlantedCohort
from polymorph.pipeline.porting import PortRequest, port
from polymorph.pipeline.study_cache import ResultsCache, records
from polymorph.pipeline.trained_cohort import TrainedCohort
from polymorph.progress import on_terminal
from polymorph.report.bundle import CLAIMS, PAGE, bundle
from polymorph.report.page import left_out
from polymorph.store import Results, check_writable
from polymorph.store.search import find_cohort
from polymorph.studies.registry import STUDIES
from polymorph.tracking.config import resolve_mode
from polymorph.training.numerics import algebra_threads, device_of, prepare_process

_PLANTED = "planted:"
_PACKAGES = ("torch", "polars", "matplotlib", "safetensors")


def prepare(config: AnalyzeConfig) -> Analysis:
    """The analysis that is asked for, nothing computed yet; `RequestError` if it cannot be right."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    source = _planted(config) if config.cohort.startswith(_PLANTED) else _trained(config)
    return Analysis(
        source=source,
        studies=_studies(config.study),
        memory_gib=config.memory_gib,
        provenance={
            "command": f"python analyze.py cohort={config.cohort} root={config.root} name={config.name}",
            "code version": code_version(),
            "package versions": packages,
        },
        progress=on_terminal(),
        cache=ResultsCache(Results(source.folder, config.name)),
    )


def _trained(config: AnalyzeConfig) -> TrainedCohort:
    return TrainedCohort(
        cohort=find_cohort(config.cohort, config.root),
        device=device_of(config.accelerator),
        seeds=None if config.seeds == "all" else _seeds(config.seeds),
        steps=_steps(config.step),
        scheme=config.pairs,
        memory_gib=config.memory_gib,
        options=config.options,
        progress=on_terminal(),
    )


def _planted(config: AnalyzeConfig) -> PlantedCohort:
    if config.seeds != "all" or config.step != "all":
        raise RequestError(f"cohort={config.cohort}: a planted cohort has planted.members, not seeds or step")
    for name, options in config.options.items():
        if not STUDIES[name].is_of("planted") and options != type(options)():
            raise RequestError(
                f"cohort={config.cohort}: a planted cohort has no study {name}, of which something is asked"
            )
    try:
        planted = Planted(config.cohort.removeprefix(_PLANTED), config.planted)
    except ValueError as error:
        raise RequestError(f"cohort={config.cohort}: {error}") from error
    return PlantedCohort(planted, Path(config.root) / planted.name, config.pairs, config.memory_gib)


def check(jobs: Sequence[AnalyzeConfig]) -> None:
    for job in jobs:
        _check_paper(job)
        if job.dashboard is not None:
            check_dashboard(job)
            continue
        if job.port is not None:
            PortRequest.of(job.port)
            if job.cohort.startswith(_PLANTED):
                raise RequestError(
                    f"port: {job.cohort} has no SAEs; only those of a trained cohort can be ported"
                )
        check_writable(Results(prepare(job).source.folder, job.name).folder, "root")


def _check_paper(job: AnalyzeConfig) -> None:
    """The paper's claims and figures are about trained members, and read a whole analysis."""
    asked = [f"{key}=paper" for key in ("ledger", "figures") if getattr(job, key) is not None]
    if asked and job.cohort.startswith(_PLANTED):
        raise RequestError(f"{asked[0]}: {job.cohort} is planted; the paper's numbers are of trained members")
    if asked and job.port is not None:
        raise RequestError(f"{asked[0]}: with port=… nothing is analysed; ask for one of them")


def check_dashboard(job: AnalyzeConfig) -> None:
    if job.cohort.startswith(_PLANTED):
        raise RequestError(f"dashboard={job.dashboard}: {job.cohort} was not trained; it has no runs to draw")
    check_writable(find_cohort(job.cohort, job.root).folder, "root")
    if job.dashboard == "push" and resolve_mode(job.logger.mode) != "online":
        raise RequestError(
            "dashboard=push: W&B has no key on this machine, or is offline: run `wandb login` first"
        )


def perform(config: AnalyzeConfig, before: Sequence[int] = ()) -> int:
    """Carry out one request; its exit status."""
    return run(config)


def finish(jobs: Sequence[AnalyzeConfig], endings: Sequence[int]) -> int:
    """The worst exit status of all jobs; one that did not come to its end has failed."""
    return max([*endings, *[FAILED] * (len(jobs) - len(endings))])


def run(config: AnalyzeConfig) -> int:
    """Bring the results up to date; says what was done and where they are."""
    if config.dashboard is not None:
        return _dashboard(config)
    if config.port is not None:
        return _port(config)
    analysis = prepare(config)
    prepare_process(algebra_threads(analysis.source.d) if config.threads is None else config.threads)
    results = Results(analysis.source.folder, config.name)
    try:
        return _bring_up_to_date(config, analysis, results)
    except RequestError as error:
        print(f"analyze: {error}", file=sys.stderr)
        return WRONG
    except RunError as error:
        print(f"analyze: {error}", file=sys.stderr)
        return FAILED


def _bring_up_to_date(config: AnalyzeConfig, analysis: Analysis, results: Results) -> int:
    key, page = analysis.key(), results.folder / PAGE
    if results.made_from(key):
        print(f"nothing new: {page} is up to date ({len(analysis.source.pairs)} pairs)")
        if config.logger.media or config.logger.artifacts or config.every_checkpoint:  # asked for after all
            log_analysis(config, analysis, results.folder)
        return _paper(config, analysis, results)
    found = analysis.run()
    results.write(bundle(report_of(analysis, found), analysis.studies), key, records(found.studies))
    _tell(analysis, found)
    log_analysis(config, analysis, results.folder)
    print(f"report: {page}")
    done = _paper(config, analysis, results)
    on_terminal().summary("what is where", summary(analysis.source.folder, results.folder))
    return done


def _tell(analysis: Analysis, found: Findings) -> None:
    """What was computed, who is left out, and the verdicts."""
    pairs = len(analysis.source.pairs)
    print(f"{pairs} pairs: {found.pairs_computed} computed now, {pairs - found.pairs_computed} from before")
    if kept := len(found.studies) - len(found.computed):
        computed = ", ".join(found.computed) or "none"
        print(f"studies: {computed} computed now, {kept} from before")
    for name, reason in left_out(found.left_out):
        print(f"left out: {name}: {reason}")
    for claim in found.claims:
        if claim.kind == "verdict":
            print(claim.statement)


def _paper(config: AnalyzeConfig, analysis: Analysis, results: Results) -> int:
    """What is asked for of the paper, from the results as they lie there."""
    source = analysis.source
    if not isinstance(source, TrainedCohort):  # `check` has refused it of any other
        return DONE
    try:
        if config.ledger is not None:
            judged, page = paper.write_ledger_of(source.cohort, results, analysis.provenance)
            for line in ledger_lines(judged, shutil.get_terminal_size((140, 24)).columns):
                print(line)
            print(f"ledger: {page}")
        if config.figures is not None:
            for line in paper.write_figures(results):
                print(line)
    except RunError as error:
        print(f"analyze: {error}", file=sys.stderr)
        return FAILED
    return DONE


def summary(cohort: Path, results: Path) -> list[tuple[str, str]]:
    """Where the tables and the runs are, and how the page is opened; the page has said its own line."""
    lines = [("tables", f"{results}/*.parquet"), ("claims", str(results / CLAIMS))]
    if any((cohort / "wandb").glob("*run-*")):
        lines.append(("W&B runs", f"wandb leet {cohort / 'wandb'}"))
    return [*lines, ("next", f"open {results / PAGE} in a browser")]


def _dashboard(config: AnalyzeConfig) -> int:
    """The workspace; needed by nothing else, so that nothing else waits for what makes it."""
    from polymorph.cli import dashboard

    try:
        dashboard.run(config)
    except RequestError as error:
        print(f"analyze: {error}", file=sys.stderr)
        return WRONG
    except Exception as error:  # of the network and of W&B, in whatever way they like
        print(f"analyze: no dashboard: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    return DONE


def _port(config: AnalyzeConfig) -> int:
    """Port one SAE, and say what it is worth there."""
    request = PortRequest.of(config.port)
    comparison = Comparison.of(find_cohort(config.cohort, config.root), device_of(config.accelerator))
    prepare_process(algebra_threads(comparison.d) if config.threads is None else config.threads)
    try:
        ported = port(comparison, request)
    except RequestError as error:
        print(f"analyze: {error}", file=sys.stderr)
        return WRONG
    except RunError as error:
        print(f"analyze: {error}", file=sys.stderr)
        return FAILED
    print(
        f"explained variance: {ported.own:.3f} on its own member, {ported.naive:.3f} on seed {request.target} as it "
        f"is, {ported.mapped:.3f} ported with the {request.map} map"
    )
    print(f"ported: {ported.folder}")
    return DONE


def _seeds(seeds: Any) -> list[int]:
    try:
        return seeds_of(seeds)
    except ValueError as error:
        raise RequestError(f"seeds: {error}") from error


def _steps(step: Any) -> list[int] | Literal["all", "last"]:
    if step == "all" or step == "last":
        return cast(Literal["all", "last"], step)
    steps = list(step) if isinstance(step, list | tuple) else [step]
    if not steps or any(type(value) is not int or value < 0 for value in steps):
        raise RequestError(f"step={step!r}: all, last, or a list of steps such as [0,1000]")
    return sorted(set(steps))


def _studies(study: Any) -> list[str]:
    asked = list(STUDIES) if study == "all" else list(study) if isinstance(study, list | tuple) else [study]
    for name in asked:
        if name not in STUDIES:
            raise RequestError(f"study={name!r}{nearest(str(name), STUDIES)}: one of {', '.join(STUDIES)}")
    return asked
