"""Reports for tests: rows of the real studies on planted activations, and what else a page needs."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl
import torch
from torch import Tensor

from polymorph.activations import Activations, Split
from polymorph.alignment.collect import Collected
from polymorph.claims import claims_of
from polymorph.report.data import MemberSummary, ReportData
from polymorph.report.reading import at_last_steps
from polymorph.studies import angles, ladder
from polymorph.studies.evidence import Evidence, History
from polymorph.studies.pairs import PairLabel, pairs_of
from polymorph.studies.registry import STUDIES
from polymorph.studies.rows import Row, table

DOCUMENTS, LENGTH, DISTRIBUTIONS = 60, 8, ("train", "compositional", "long")
SITES = {"blocks.0.hook_resid_mid": 0.3, "blocks.0.hook_resid_post": 0.7, "blocks.1.hook_resid_mid": 1.0}
"""Sites, and the share of the dimensions in which activations live."""


def activations(seeds: int, d: int, share: float, step: int, last: int, shift: int = 0) -> Tensor:
    """Members [seeds n d]: one signal, turned by a matrix of their own, under noise that training lowers."""
    generator = torch.Generator().manual_seed(7 + shift)
    turns = torch.Generator().manual_seed(11)
    signal = torch.randn(DOCUMENTS * LENGTH, d, generator=generator, dtype=torch.float64)
    signal *= torch.where(torch.arange(d) < max(1, share * d), 1.0, 0.02)
    signal += signal.std() * torch.linspace(0, 1, LENGTH, dtype=torch.float64).repeat(DOCUMENTS)[:, None]
    noise = 0.15 + 1.2 * (1 - math.log1p(step) / math.log1p(last))
    members = []
    for _ in range(seeds):
        R = torch.linalg.qr(torch.randn(d, d, generator=turns, dtype=torch.float64)).Q
        own = torch.randn(signal.shape, generator=generator, dtype=torch.float64)
        members.append((signal + noise * signal.std() * own) @ R)
    return torch.stack(members)


def tables(
    seeds: int, steps: list[int], d: int = 16, sites: dict[str, float] | None = None, name: str = "planted"
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The ladder and angle tables of a planted cohort, with ceilings from each step to the next."""
    sites = SITES if sites is None else sites
    pairs = list(itertools.combinations(range(seeds), 2))
    found: tuple[list[Row], list[Row]] = ([], [])
    for before, step in zip([None, *steps], steps, strict=False):
        wanted = [*pairs, *(() if before is None else ((seeds + s, s) for s in range(seeds)))]
        labels = [
            PairLabel.between(i % seeds, j, before if i >= seeds else step, step)  # type: ignore[arg-type]
            for i, j in wanted
        ]
        moments = _collected(wanted, seeds, d, sites, step, before, steps[-1])
        result, documents = moments.result(), {"fit_documents": DOCUMENTS}
        found[0].extend(ladder.ladder_rows(result, labels, name, eval_documents=DOCUMENTS, **documents))
        found[1].extend(angles.angle_rows(result, labels, name, **documents))
    return table(found[0], ladder.EXTRA_COLUMNS), table(found[1], angles.EXTRA_COLUMNS)


def _collected(
    pairs: list[tuple[int, int]],
    seeds: int,
    d: int,
    sites: dict[str, float],
    step: int,
    before: int | None,
    last: int,
) -> Collected:
    document = torch.arange(DOCUMENTS).repeat_interleave(LENGTH)
    position = torch.arange(LENGTH).repeat(DOCUMENTS)
    moments = Collected(pairs, list(sites), blocks=8)
    splits = [
        {
            site: torch.cat(
                [activations(seeds, d, share, at, last, shift) for at in (step, before) if at is not None]
            )
            for site, share in sites.items()
        }
        for shift in (0, 1)
    ]
    moments.update_fit(Activations(splits[0], document, position))
    moments.update_eval(Activations(splits[1], document, position))
    return moments


@dataclass(frozen=True)
class Source:
    """The planted members `ends`, each a seed at a step, read back in one chunk a split."""

    ends: tuple[tuple[int, int], ...]
    last: int
    d: int = 16
    sites: Sequence[str] = tuple(SITES)

    @property
    def documents(self) -> Mapping[Split, int]:
        return {"fit": DOCUMENTS, "eval": DOCUMENTS}

    def chunks(self, split: Split) -> Iterator[Activations]:
        document = torch.arange(DOCUMENTS).repeat_interleave(LENGTH)
        position = torch.arange(LENGTH).repeat(DOCUMENTS)
        seeds = 1 + max(seed for seed, _ in self.ends)
        values = {
            site: torch.stack(
                [
                    activations(seeds, self.d, SITES[site], step, self.last, int(split == "eval"))[seed]
                    for seed, step in self.ends
                ]
            )
            for site in self.sites
        }
        yield Activations(values, document, position)


def with_studies(given: ReportData) -> ReportData:
    """The same report with the tables of every study but the two that it has, and the claims."""
    seeds, last = [member.seed for member in given.members], given.members[0].last_step
    steps = sorted(set(given.ladder["target_step"]))

    def ends_of(seed: int, at: Sequence[int]) -> Source:
        return Source(tuple((seed, step) for step in at), last)

    histories = [History(seed, steps, lambda at, own=seed: ends_of(own, at)) for seed in seeds]
    ends = [(seed, last) for seed in seeds]
    source = Source(tuple(ends), last)
    evidence = Evidence(given.cohort, ends, pairs_of(ends), source, blocks=8, histories=histories)
    made = {"ladder": given.ladder, "angles": given.angles}
    others = {name: study for name, study in STUDIES.items() if name not in made}
    made |= {name: table(study.rows(evidence), study.columns) for name, study in others.items()}
    claims = claims_of({**made, "ladder": at_last_steps(given.ladder)})
    return replace(given, tables=made, claims=claims)


def history(seeds: int, steps: list[int]) -> pl.DataFrame:
    """Curves that rise to 1 and fall to 0.01, a little apart."""
    cells = itertools.product(range(seeds), steps, enumerate(DISTRIBUTIONS), ("tok", "depth", "valid"))
    rows = []
    for seed, step, (hard, distribution), head in cells:
        done = 1 / (1 + math.exp(4 - 1.2 * math.log1p(step) + 0.5 * hard + 0.2 * seed))
        about = {"seed": seed, "step": step, "distribution": distribution, "head": head}
        rows.append(about | {"metric": "accuracy", "value": 0.11 + 0.89 * done})
        rows.append(about | {"metric": "loss", "value": 0.01 + 2.2 * (1 - done)})
    return pl.DataFrame(rows)


def report(
    seeds: int = 3, steps: tuple[int, ...] = (0, 4, 64), name: str = "planted", d: int = 16
) -> ReportData:
    """A whole report; seed 7 is left out of it."""
    ladder_table, angle_table = tables(seeds, list(steps), d, name=name)
    accuracies = {"train": 1.0, "compositional": 0.99998, "long": None}
    return ReportData(
        cohort=name,
        task={"name": "dyck3", "context": 64, "max_depth": 8},
        architecture={"d_model": d, "n_layers": 2, "sites": list(SITES)},
        members=[MemberSummary(seed, "completed", steps[-1], None, accuracies) for seed in range(seeds)],
        left_out=[("seed 7", "diverged at step 12")],
        ladder=ladder_table,
        angles=angle_table,
        history=history(seeds, list(steps)),
        provenance={
            "command": "python analyze.py cohort=planted",
            "code version": "0.1.0 (0123abc)",
            "config": "seed: [0, 1, 2]\nexperiment: quick",
            "package versions": "torch 2.13, polars 2.1",
        },
    )
