"""Do steering vectors of one member work on another, and through which map?

A steering vector is a difference of means on fit documents. Added at every token of eval documents it should raise the
log-odds of its target. The vector of one member is carried to another by the weight of a map (a direction has no mean
to shift) and compared with that member's own: in effect, and in what it costs in KL from the unsteered output. Beside
it stand the same through a map that was fitted on permuted tokens, and random directions of the same norm.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.pairings import chunk_generator
from polymorph.errors import RequestError
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row
from polymorph.models.functions import Functions
from polymorph.steering.contrasts import (
    LEAST,
    Contrast,
    LabelContrast,
    PromptContrast,
    paper_contrasts,
    prompt_contrasts,
    systematic_contrasts,
)
from polymorph.steering.documents import FEWEST, Resamples
from polymorph.steering.effects import (
    MOST_DOCUMENTS,
    MOST_TOKENS,
    Aim,
    Meter,
    Null,
    documents_concerned,
    first_documents,
    null_norms,
)
from polymorph.steering.regimes import p_values
from polymorph.steering.vectors import (
    ReadsPrompts,
    check_prompts,
    label_vectors,
    positions,
    prompt_vectors,
    target_of,
)
from polymorph.studies.steering.bench import (
    FEW_MAPS,
    MAPS,
    NAMED,
    SHUFFLED,
    SOME_DOCUMENTS,
    SOME_TOKENS,
    STUDY,
    Bench,
    Case,
    Read,
    Way,
    carriers,
    columns_of,
    null_of,
    steering_of,
)
from polymorph.studies.steering.directions import SystematicRows

LABELS_OF_DYCK = frozenset({"tok", "depth", "valid"})
__all__ = ["STUDY", "study_rows"]


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Named contrasts at all doses with their regimes, then the systematic ones and what foretells their regimes.

    `ValueError` where the task has none, or where a contrast that was asked for cannot be made.
    """
    if evidence.functions is None:
        return
    functions = evidence.functions(evidence.ends)
    site = steering_of(evidence).place(functions.sites)
    named, aims = _named(evidence, functions)
    systematic = [] if steering_of(evidence).brief else _possible(functions, systematic_contrasts())
    if not named and not systematic:
        raise RequestError(
            "no contrast: the task has neither the labels of Dyck, nor are there prompts of text for it; give "
            "contrasts=[{name:…, positive:…, negative:…}]"
        )
    bench = Bench(evidence, functions, site, carriers(evidence, site))
    if named:
        yield from _NamedRows(bench, aims, _vectors(functions, site, named)).rows()
    if systematic:
        vectors = label_vectors(functions, site, systematic)
        yield from SystematicRows(bench, [Aim.of(one) for one in systematic], vectors).rows()


def _named(evidence: Evidence, functions: Functions) -> tuple[list[Contrast], list[Aim]]:
    """What is asked for, and of what is built in all that the task and its text have room for."""
    asked = list(steering_of(evidence).contrasts)
    steering_of(evidence).check(functions)
    names = {one.name for one in asked}
    some = first_documents(functions, *_size(evidence))
    paper = _possible(functions, paper_contrasts())
    built_in: list[Contrast] = [one for one in paper if documents_concerned(some, Aim.of(one)) >= FEWEST]
    if isinstance(functions.task, ReadsPrompts) and some.probe.eval >= FEWEST:
        built_in += [one for one in prompt_contrasts() if target_of(one, functions.task) is not None]
    contrasts = [one for one in built_in if one.name not in names] + asked
    aims = [
        Aim.of(one)
        if isinstance(one, LabelContrast)
        else Aim(one.name, check_prompts(one, functions.task), one.sign)
        for one in contrasts
    ]
    return contrasts, aims


def _possible(functions: Functions, contrasts: Sequence[LabelContrast]) -> list[LabelContrast]:
    """Those with enough positions, where labels are those of Dyck: another task's `tok` has other tokens."""
    chunks = list(functions.inputs("fit"))
    there = list(contrasts) if set(chunks[0].labels) >= LABELS_OF_DYCK else []
    enough = (positions(there, chunks) >= LEAST).all(-1).tolist() if there else []
    return [one for one, fits in zip(there, enough, strict=True) if fits]


def _size(evidence: Evidence) -> tuple[int, int]:
    """Eval documents on which named contrasts are measured, and the tokens that they hold at most."""
    return (SOME_DOCUMENTS, SOME_TOKENS) if steering_of(evidence).brief else (MOST_DOCUMENTS, MOST_TOKENS)


def _vectors(
    functions: Functions, site: str, contrasts: Sequence[Contrast]
) -> Float[Tensor, "contrasts members d"]:
    by_labels = [one for one in contrasts if isinstance(one, LabelContrast)]
    by_prompts = [one for one in contrasts if isinstance(one, PromptContrast)]
    found: dict[str, Tensor] = {}
    if by_labels:
        made = label_vectors(functions, site, by_labels)
        found |= {one.name: v for one, v in zip(by_labels, made, strict=True)}
    if by_prompts:
        made = prompt_vectors(functions, site, by_prompts)
        found |= {one.name: v for one, v in zip(by_prompts, made, strict=True)}
    return torch.stack([found[one.name] for one in contrasts])


@dataclass
class _NamedRows:
    """Contrasts with a name: doses, all maps, and a null of their own norm."""

    bench: Bench
    aims: Sequence[Aim]
    vectors: Float[Tensor, "contrasts members d"]

    def rows(self) -> Iterator[Row]:
        cases: list[Case] = []
        for target in self.bench.targets:
            meter = self.bench.meter(target, *_size(self.bench.evidence))
            some = self.bench.meter(target, SOME_DOCUMENTS, SOME_TOKENS)
            draws = self.bench.evidence.seed, 2**28 + 1
            resamples = Resamples(meter.documents, chunk_generator(*draws))
            for place in range(len(self.aims)):
                yield from self._contrast(meter, some, resamples, place, target, cases)
        dose = steering_of(self.bench.evidence).tested
        yield from (row for _, _, row in self.bench.regime_rows(cases, self.aims, NAMED, dose))

    def _contrast(
        self, meter: Meter, some: Meter, resamples: Resamples, place: int, target: int, cases: list[Case]
    ) -> Iterator[Row]:
        aim, own, bench = self.aims[place], self.vectors[place, target], self.bench
        about = {**bench.ends((target, target)), "split": "fit", "role": "ceiling"}
        yield bench.row("vector_norm", float(own.norm()), aim, NAMED, **about)
        for source in bench.ways_to(target):
            way = (source, target)
            found = bench.geometry(way, self.vectors[place, source], own)
            yield from bench.geometry_rows(way, aim, NAMED, found)
        steering = steering_of(bench.evidence)
        for dose in steering.doses:
            carried = self._carried(place, target, dose == steering.tested)
            vectors = dose * torch.stack([own, *carried.values()])
            measured = meter.measure(vectors, [aim])
            reads = [Read.of(measured, k, 0) for k in range(len(vectors))]
            scored = _Scored(bench, resamples, aim, dose)
            yield from scored.rows((target, target), None, reads[0], None)
            for (source, name), read in zip(carried, reads[1:], strict=True):
                yield from scored.rows((source, target), name, read, reads[0])
            if dose == steering.tested:
                norms = vectors.norm(dim=-1).tolist()
                enough = int((some.documents_of(aim) > 0).sum()) >= FEWEST
                null = yield from self._null(some if enough else meter, target, aim, dose, norms)
                outcomes = [r.outcome(null.at(norm)) for r, norm in zip(reads, norms, strict=True)]
                cases += [
                    Case(place, (source, target), name, p_values(outcomes[0], outcome), reads[0].documents)
                    for (source, name), outcome in zip(carried, outcomes[1:], strict=True)
                ]

    def _carried(self, place: int, target: int, every: bool) -> dict[tuple[int, str], Tensor]:
        """Of every other member the vector through every map, or through few."""
        names = (*MAPS, SHUFFLED) if every else FEW_MAPS
        return {
            (source, name): self.vectors[place, source] @ self.bench.carriers[source, target][name]
            for source in self.bench.ways_to(target)
            for name in names
            if name in self.bench.carriers[source, target]
        }

    def _null(
        self, some: Meter, target: int, aim: Aim, dose: float, norms: Sequence[float]
    ) -> Generator[Row, None, Null]:
        """Random directions at the norm of the own vector, and at the least and the largest of all; the rows are of
        the first."""
        seed, step = self.bench.evidence.ends[target]
        at = null_norms(norms[0], norms)
        place = min(range(len(at)), key=lambda i: abs(at[i] - norms[0]))
        directions = self.bench.directions(target, self.vectors.shape[-1])
        every = torch.cat([norm * directions for norm in at])
        tau, kl = null_of(some.measure(every, [aim], on_target_only=True))
        about: dict[str, Any] = {"target": seed, "target_step": step, "n_seeds": 1, "role": "null"}
        here = slice(place * len(directions), (place + 1) * len(directions))
        concerned = int((some.documents_of(aim) > 0).sum())
        own = {"on_target": (tau[0, here], concerned), "kl": (kl[here], some.documents)}
        for metric, (values, documents) in own.items():
            mean, spread = float(values.mean()), float(values.std())
            bounds = {"low": mean - 2 * spread, "high": mean + 2 * spread, "n_documents": documents}
            yield self.bench.row(metric, mean, aim, NAMED, **about, **bounds, extra={"dose": dose})
        return Null(at, tau[0].view(len(at), -1))


@dataclass(frozen=True)
class _Scored:
    """Rows of one dose of one contrast, with bootstrap intervals over documents."""

    bench: Bench
    resamples: Resamples
    aim: Aim
    dose: float

    def rows(self, way: Way, name: str | None, read: Read, own: Read | None) -> Iterator[Row]:
        """What a vector does; beside the member's own, also in shares of that."""
        about = {**self.bench.ends(way), **columns_of(name), "n_documents": len(read.kl)}
        about["extra"] = {"dose": self.dose, **about.get("extra", {})}
        here = {**about, "n_documents": read.documents, "n_tokens": read.concerned}
        yield from self._row("on_target", read.tau * read.there, read.there, here)
        if bool((read.changed > 0).any()):
            yield from self._row("accuracy_loss", read.lost, read.changed, here, "paper")
        yield from self._row("kl", read.kl, torch.ones_like(read.kl), about)
        yield from self._row("kl_off_target", read.off, torch.ones_like(read.off), about)
        if own is not None:
            if self.resamples.surely_positive(own.tau * own.there):
                yield from self._row("transfer_efficiency", read.tau * read.there, own.tau * own.there, here)
            if self.resamples.surely_positive(own.kl):
                yield from self._row("cross_within_kl", read.kl, own.kl, about, "paper")
            if self.resamples.surely_positive(own.lost):
                yield from self._row("cross_within_accuracy", read.lost, own.lost, here, "paper")

    def _row(
        self,
        metric: str,
        above: Tensor,
        below: Tensor,
        about: Mapping[str, Any],
        convention: str | None = None,
    ) -> Iterator[Row]:
        value, low, high = self.resamples.ratio(above, below)
        own = {**about, "low": low, "high": high, "convention": convention}
        yield self.bench.row(metric, value, self.aim, NAMED, **own)
