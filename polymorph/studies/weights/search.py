"""One member's weights aligned to another's by the symmetries of their architecture."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.gauge import Aligned, Canonical, Used, align, apply_gauge, random_gauge
from polymorph.alignment.gauge_measures import MAX, paper_mse, products, relative_mse
from polymorph.alignment.gauge_residual import eigenvector_start
from polymorph.alignment.haar import haar
from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.polar import polar
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Row
from polymorph.models.architecture import Weights
from polymorph.models.functions import Functions
from polymorph.models.symmetries import Symmetries
from polymorph.saes.scores import bounded
from polymorph.studies.weights.interpolation import FRACTIONS, Between, chunks_of
from polymorph.tasks.task import IGNORED, SPLITS

STUDY = "weights"


RESTARTS, RESTARTS_OF_NULLS = 32, 8


DOCUMENTS = 128
"""Eval documents on which models between members are run."""


DRAWS = 7
"""First part of the key of every random draw of this study."""


OWN_ROTATIONS, UNTRAINED, COPY, HEADS = "own_rotations", "untrained", "gauge_copy", "heads_permuted"


IDENTITY, GAUGE, STREAM, ORTHOGONAL = "identity", "gauge", "stream", "orthogonal"


EIGENVECTORS, ACTIVATIONS = "eigenvectors", "activations"


Starts = Mapping[str, Float[Tensor, "d d"]]


def searches(evidence: Evidence) -> list["Search"]:
    """The source of every pair aligned to its target, once for all who ask."""

    def made() -> list[Search]:
        models, streams = Models(evidence), _stream_maps(evidence)
        return [
            Search(models, pair.ends, {ACTIVATIONS: R}, RESTARTS)
            for pair, R in zip(evidence.pairs, streams, strict=True)
        ]

    return evidence.once("models over the full gauge", made)


@dataclass(frozen=True)
class Models:
    """Folded weights of members at checkpoints, and what they are run on."""

    evidence: Evidence
    known: dict[End, tuple[dict[str, Tensor], Tensor]] = field(default_factory=dict)

    @cached_property
    def functions(self) -> Functions:
        assert self.evidence.functions is not None
        return self.evidence.functions(self.evidence.ends[:1])

    @cached_property
    def symmetries(self) -> Symmetries:
        found = self.functions.symmetries
        if found is None:
            raise ValueError("there is no table of symmetries for this architecture")
        return found

    @cached_property
    def used(self) -> Used:
        """The tokens and the classes that occur in the probe."""
        seen: dict[str, Tensor] = {}
        for split in SPLITS:
            for chunk in self.functions.inputs(split):
                labels = {f"class {head}": label[chunk.kept] for head, label in chunk.labels.items()}
                for kind, ids in {"tokens": chunk.arguments[0][chunk.kept], **labels}.items():
                    own = ids[ids != IGNORED].cpu()
                    seen[kind] = torch.cat([seen.get(kind, own), own]).unique()
        writes = {name: seen[kind] for name, kind in self.symmetries.writes.items() if kind in seen}
        reads = {name: seen[f"class {head}"] for name, head in self.symmetries.reads.items()}
        return writes | reads

    @cached_property
    def between(self) -> Between:
        return Between(self.functions, chunks_of(self.functions, DOCUMENTS), self.evidence.blocks)

    def weights(self, end: End) -> dict[str, Tensor]:
        """Folded, in float64, on the CPU."""
        return self._read(end)[0]

    def loss(self, end: End) -> Float[Tensor, "score"]:
        """What every copy of this model has for its loss."""
        return self._read(end)[1]

    def _read(self, end: End) -> tuple[dict[str, Tensor], Tensor]:
        if end not in self.known:
            assert self.evidence.functions is not None
            raw = self.evidence.functions([end]).weights(0)
            own = self.symmetries.folded({name: value.double().cpu() for name, value in raw.items()})
            self.known[end] = own, self.between.loss(own)
        return self.known[end]

    def step_of(self, end: End, last: bool) -> End | None:
        """The member's checkpoint before this one, or the untrained one it began as; None without that."""
        steps = next((own.steps for own in self.evidence.histories if own.seed == end[0]), ())
        before = [step for step in steps if step < end[1] and (step > 0) == last]
        return (end[0], before[-1]) if before else None

    def row(self, metric: str, value: float, about: Mapping[str, Any], **extra: Any) -> Row:
        """A row without a site; one about weights alone has neither a split nor documents."""
        own = {"n_documents": None, **about, "extra": dict(extra)}
        row = self.evidence.row(STUDY, None, "eval", metric, value, **own)
        return row if row.n_documents is not None else replace(row, split=None)


@dataclass(frozen=True)
class Search:
    """One source aligned to one target, from named starts for R and random ones."""

    models: Models
    ends: tuple[End, End]
    further: Starts
    restarts: int
    source: Mapping[str, Tensor] = field(default_factory=dict)
    """In place of the weights at the first end."""

    @cached_property
    def weights(self) -> tuple[Weights, Weights]:
        first, second = (self.models.weights(end) for end in self.ends)
        return self.source or first, second

    @cached_property
    def starts(self) -> dict[str, Tensor]:
        """By name; random ones are drawn from the ends."""
        known, symmetries = self.models, self.models.symmetries
        source, target = (Canonical.of(own, symmetries, known.used).blocks for own in self.weights)
        named = {IDENTITY: torch.eye(symmetries.d_model, dtype=torch.float64), **self.further}
        named[EIGENVECTORS] = eigenvector_start(source, target)[0]
        (seed, step), (other, its) = self.ends
        generator = chunk_generator(DRAWS, seed, step, other, its)
        drawn = haar(symmetries.d_model, self.restarts, generator) if self.restarts else ()
        return named | {f"random {place}": R for place, R in enumerate(drawn)}

    @cached_property
    def aligned(self) -> Aligned:
        starts = torch.stack(list(self.starts.values()))
        return align(*self.weights, self.models.symmetries, starts, self.models.used)

    @cached_property
    def moved(self) -> dict[str, Weights]:
        """The source's weights as they are, as activations would turn its stream, and aligned."""
        symmetries, (source, target) = self.models.symmetries, self.weights
        found: dict[str, Weights] = {IDENTITY: source}
        if ACTIVATIONS in self.further:
            R = self.further[ACTIVATIONS][None]
            fixed = align(source, target, symmetries, R, self.models.used, follow=False)
            found[STREAM] = apply_gauge(source, symmetries, fixed.gauge)
        return found | {GAUGE: apply_gauge(source, symmetries, self.aligned.gauge)}

    def rows(self, about: Mapping[str, Any]) -> Iterator[Row]:
        """Everything about the pair but what its nulls say."""
        yield from self.similarities(about)
        for name in self.moved:
            yield from self.errors({**about, "map": name})
        yield from self.paths(about)

    def similarities(self, about: Mapping[str, Any], starts: bool = True) -> Iterator[Row]:
        """The mean cosine that was reached, and where every named start, and the random ones, have ended."""
        values = dict(zip(self.starts, self.aligned.similarity.tolist(), strict=True))
        own = {**about, "map": GAUGE}
        yield self.models.row("weight_similarity", max(values.values()), own)
        drawn = sorted(value for name, value in values.items() if name.startswith("random"))
        ended = {name: value for name, value in values.items() if not name.startswith("random")}
        if drawn:
            spread = {"best": drawn[-1], "median": drawn[len(drawn) // 2], "worst": drawn[0]}
            ended |= {f"random_{which}": value for which, value in spread.items()}
        for name, value in ended.items() if starts else ():
            yield self.models.row("weight_similarity", value, own, start=name)

    def errors(self, about: Mapping[str, Any], summary: bool = False) -> Iterator[Row]:
        """Relative and gauge-invariant by group, and in the paper's formula by tensor."""
        symmetries, used = self.models.symmetries, self.models.used
        moved, target = self.moved[about["map"]], self.weights[1]
        relative = relative_mse(*(products(own, symmetries, used) for own in (moved, target)))
        for group, value in relative.items():
            yield self.models.row("relative_mse", value, about, group=group)
        for group, value in paper_mse(moved, target, symmetries, used).items():
            if group == MAX or not summary:
                yield self.models.row("mse", value, {**about, "convention": "paper"}, group=group)

    def paths(self, about: Mapping[str, Any]) -> Iterator[Row]:
        """Losses on the way from the moved source to the target, and the barrier."""
        between, ends = self.models.between, (self.models.loss(self.ends[0]), self.models.loss(self.ends[1]))
        counts = {"n_documents": between.documents, "n_tokens": between.tokens}
        for name, moved in self.moved.items():
            path = between.path(moved, self.weights[1], ends)
            for metric, scores, extra in (
                ("loss_barrier", path.barrier, {}),
                *(("interpolated_loss", path.losses[:, i], {"fraction": f}) for i, f in enumerate(FRACTIONS)),
            ):
                value, low, high = bounded(scores)
                own = {**about, **counts, "map": name, "low": low, "high": high}
                yield self.models.row(metric, value, own, **extra)

    def heads_permuted(self, about: Mapping[str, Any]) -> Iterator[Row]:
        """The control of the assignment: R as found, and every head compared with another, in the mean over shifts."""
        symmetries = self.models.symmetries
        moved, target = (products(own, symmetries, {}) for own in (self.moved[GAUGE], self.weights[1]))
        of_heads = [f"{heads.name}.{kind}" for heads in symmetries.heads for kind in ("qk", "vo")]
        for group in of_heads:
            own, other = moved[group], {group: target[group]}
            shifted = [own.roll(by, 0) for by in range(1, len(own))]
            errors = [relative_mse({group: wrong}, other)[group] for wrong in shifted]
            if errors:
                value = sum(errors) / len(errors)
                yield self.models.row(
                    "relative_mse", value, {**about, "map": GAUGE}, group=group, control=HEADS
                )


def copy_search(models: Models, end: End) -> Search:
    """A copy under a random element of the gauge, aligned to the member that it was made from."""
    weights, symmetries = models.weights(end), models.symmetries
    element = random_gauge(weights, symmetries, chunk_generator(DRAWS, *end, 2))
    return Search(models, (end, end), {}, 0, apply_gauge(weights, symmetries, element))


def _stream_maps(evidence: Evidence) -> Float[Tensor, "pair d d"]:
    """The one R that turns the activations of every site, mean included, as each site has its own share.

    Σ x yᵀ of the fit split, of every site in units of the lengths of both sides.
    """
    crosses = []
    for site in evidence.sites:
        fit = evidence.at(site).fit.total()
        n, mean_x, mean_y = fit.n[..., None, None], fit.mean_x, fit.mean_y
        cross = fit.xy + n * mean_x.unsqueeze(-1) * mean_y.unsqueeze(-2)
        sizes = [
            spread.diagonal(dim1=-2, dim2=-1).sum(-1) + fit.n * mean.square().sum(-1)
            for spread, mean in ((fit.xx, mean_x), (fit.yy, mean_y))
        ]
        crosses.append(cross / (sizes[0] * sizes[1]).sqrt()[..., None, None])
    return polar(torch.stack(crosses).sum(0)).cpu()
