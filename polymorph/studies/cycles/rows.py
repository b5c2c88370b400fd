"""Do the maps of a cohort agree round a cycle, so that one frame serves all members?"""

from collections.abc import Iterator

from torch import Tensor

from polymorph.alignment.accumulator import MomentAccumulator
from polymorph.alignment.cycles import cycle_coherence, support_basis, triangles
from polymorph.alignment.fit import orthogonal
from polymorph.alignment.gaps import Scores
from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.permutation import permuted_members
from polymorph.alignment.synchronise import Frames, leave_one_out_r2, synchronise
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row
from polymorph.studies.haar.rows import least_determined

STUDY = "cycles"


def applies(evidence: Evidence) -> bool:
    """Cycles need three members, and all their pairs."""
    return evidence.complete and len(evidence.ends) > 2


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """`cycle_coherence` of every triangle (source, target, third), `r2` of the synchronised maps beside that of
    pairwise ones, and how well the consensus of the others predicts each member (`consensus_r2`).

    The coherence is that on the `determined_dimension` r, the least of all pairs; where r = 0 there is none.
    """
    for site in evidence.sites:
        fit, score = evidence.totals(site)
        r, _ = least_determined(evidence, site)
        yield evidence.row(STUDY, site, "fit", "determined_dimension", float(r), map="orthogonal")
        if r:
            basis = support_basis(fit, evidence.index, r)
            yield from _coherence(evidence, site, orthogonal(fit).weight, basis, "estimate")
            yield from _coherence(evidence, site, _unrelated(evidence, site), basis, "control")
        yield from _synchronised(evidence, site, synchronise(fit, evidence.index))
        values = leave_one_out_r2(fit, score, evidence.index)
        for (seed, step), value in zip(evidence.ends, values.tolist(), strict=True):
            label = {"target": seed, "target_step": step, "map": "orthogonal"}
            yield evidence.row(STUDY, site, "eval", "consensus_r2", value, **label)


def _unrelated(evidence: Evidence, site: str) -> Tensor:
    """Maps fitted to the tokens kept, with every member's documents permuted once for all its pairs."""
    generator = chunk_generator(evidence.seed, 2**29, evidence.sites.index(site))
    values, document = permuted_members(evidence.kept(site), site, generator)
    moments = MomentAccumulator(evidence.index, blocks=1)
    moments.update(values, document)
    return orthogonal(moments.total()).weight


def _coherence(evidence: Evidence, site: str, R: Tensor, basis: Tensor, role: str) -> Iterator[Row]:
    values = cycle_coherence(R, evidence.index, basis)
    seeds = [seed for seed, _ in evidence.ends]
    for (i, j, k), value in zip(triangles(len(seeds)).tolist(), values.tolist(), strict=True):
        label = {"source": seeds[i], "target": seeds[j], "extra": {"third": seeds[k]}}
        yield evidence.row(
            STUDY, site, "fit", "cycle_coherence", value, **label, role=role, map="orthogonal", n_seeds=3
        )
    yield evidence.row(STUDY, site, "fit", "mean_cycle_coherence", float(values.mean()), role=role)


def _synchronised(evidence: Evidence, site: str, frames: Frames) -> Iterator[Row]:
    """R² on the eval split of both kinds of map, each with its interval over document blocks."""
    yield evidence.row(STUDY, site, "fit", "synchronisation_objective", frames.objective)
    for part in evidence.by_pairs():
        moments = part.at(site)
        for backward, side in ((False, moments), (True, moments.swap())):
            pairs = [pair[::-1] for pair in part.index] if backward else part.index
            maps = {"synchronised": frames.maps(pairs), "pairwise": orthogonal(side.fit.total())}
            scores = Scores(side.eval)
            for name, fitted in maps.items():
                value, bounds = scores.r2(fitted)
                about = {"backward": backward, "map": "orthogonal"}
                yield from part.pair_rows(STUDY, site, "eval", f"{name}_r2", value, bounds, **about)  # type: ignore[arg-type]
