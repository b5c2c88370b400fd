"""One pass over activations that leaves, site by site, all that the studies need."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from polymorph.alignment.accumulator import MomentAccumulator
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.pairings import chunk_generator, deranged_documents, permuted_tokens
from polymorph.models.activations import Activations, ActivationSource

KEPT_TOKENS = 8192
"""Tokens of the fit split that stay in memory, for what no moment can say."""


@dataclass(frozen=True)
class SiteMoments:
    """The moments of all pairs at one site, each [blocks, pairs]; the shuffled ones have a single block.

    `fit_tokens_permuted` and `fit_documents_permuted` are the fit tokens with the source side shuffled.
    """

    fit: PairMoments
    fit_tokens_permuted: PairMoments
    fit_documents_permuted: PairMoments
    eval: PairMoments

    def swap(self) -> "SiteMoments":
        """Every pair the other way round; what is solved there is kept there."""
        if "_swapped" not in self.__dict__:
            self.__dict__["_swapped"] = SiteMoments(*(getattr(self, f.name).swap() for f in fields(self)))
        swapped: SiteMoments = self.__dict__["_swapped"]
        return swapped

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, f.name).nbytes for f in fields(self))


class Collected:
    """Turns chunks of activations into `SiteMoments`, in memory that does not depend on the number of tokens.

    Chunks hold whole documents. The shuffles are drawn inside a chunk, from (seed, chunk number): the same
    chunks in the same order give the same controls. `pairs` index the members axis of the activations.
    Without `controls` the shuffled moments are those of the true pairs, for pairs that report no controls.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        sites: Sequence[str],
        blocks: int = 16,
        seed: int = 0,
        controls: bool = True,
    ) -> None:
        self.sites, self.seed, self.controls = tuple(sites), seed, controls
        self._fit = {site: MomentAccumulator(pairs, blocks) for site in sites}
        self._tokens = {site: MomentAccumulator(pairs, blocks=1) for site in sites}
        self._documents = {site: MomentAccumulator(pairs, blocks=1) for site in sites}
        self._eval = {site: MomentAccumulator(pairs, blocks) for site in sites}
        self._seen: tuple[set[int], set[int]] = (set(), set())
        self._chunk = 0

    @property
    def fit_documents(self) -> int:
        """Distinct documents given to `update_fit`."""
        return len(self._seen[0])

    @property
    def eval_documents(self) -> int:
        """Distinct documents given to `update_eval`."""
        return len(self._seen[1])

    def update_fit(self, chunk: Activations) -> None:
        """Add a chunk of the fit split: every site on the same tokens, with their documents and positions."""
        document, position = chunk.document, chunk.position
        generator = chunk_generator(self.seed, self._chunk)
        tokens = permuted_tokens(len(document), generator), torch.arange(len(document))
        documents = deranged_documents(document, position, generator)
        for site in self.sites:
            x = chunk.values[site]
            self._fit[site].update(x, document)
            if not self.controls:
                continue
            _update_shuffled(self._tokens[site], x, document, *tokens)
            _update_shuffled(self._documents[site], x, document, *documents)
        self._seen[0].update(document.unique().tolist())
        self._chunk += 1

    def update_eval(self, chunk: Activations) -> None:
        """Add a chunk of the eval split."""
        for site in self.sites:
            self._eval[site].update(chunk.values[site], chunk.document)
        self._seen[1].update(chunk.document.unique().tolist())

    def result(self) -> Mapping[str, SiteMoments]:
        """Site → moments; each is put together when it is asked for."""
        return _Sites(self)

    def at(self, site: str, places: Sequence[int] | None = None) -> SiteMoments:
        """The moments of one site, of all pairs or of those at some places among them."""
        shuffled = (self._tokens[site], self._documents[site]) if self.controls else (self._fit[site],) * 2
        first, second = (moments.result(places) for moments in shuffled)
        return SiteMoments(self._fit[site].result(places), first, second, self._eval[site].result(places))

    def totals(self, site: str) -> tuple[PairMoments, PairMoments]:
        """The moments [pairs] of the fit split and of the eval split, without blocks."""
        return self._fit[site].total(), self._eval[site].total()


class _Sites(Mapping[str, SiteMoments]):
    """A view of `Collected`: pairs × blocks × d² numbers of one site at a time, not of all."""

    def __init__(self, collected: Collected) -> None:
        self._collected = collected

    def __getitem__(self, site: str) -> SiteMoments:
        return self._collected.at(site)

    def __iter__(self) -> Iterator[str]:
        return iter(self._collected.sites)

    def __len__(self) -> int:
        return len(self._collected.sites)


def collect(
    source: ActivationSource,
    pairs: Sequence[tuple[int, int]],
    blocks: int,
    seed: int,
    *,
    controls: bool = True,
) -> Collected:
    """Both splits of the probe, read once."""
    collected = Collected(pairs, source.sites, blocks, seed, controls)
    for chunk in source.chunks("fit"):
        collected.update_fit(chunk)
    for chunk in source.chunks("eval"):
        collected.update_eval(chunk)
    return collected


def keep(source: ActivationSource, tokens: int = KEPT_TOKENS) -> Activations:
    """The first documents of the fit split, whole, up to so many tokens in all; in order, on the CPU, float64."""
    kept: list[Activations] = []
    for chunk in source.chunks("fit"):
        documents, sizes = chunk.document.unique(return_counts=True)
        fits = sizes.cumsum(0) <= tokens
        tokens -= int(sizes[fits].sum())
        kept.append(_of_documents(chunk, documents[fits]))
        if not bool(fits.all()):
            break
    values = {site: torch.cat([chunk.values[site] for chunk in kept], dim=1) for site in source.sites}
    return Activations(
        values, torch.cat([chunk.document for chunk in kept]), torch.cat([chunk.position for chunk in kept])
    )


def _of_documents(chunk: Activations, documents: Tensor) -> Activations:
    tokens = torch.nonzero(torch.isin(chunk.document, documents)).squeeze(1)
    document, position = chunk.document[tokens], chunk.position[tokens]
    width = int(position.max()) + 1 if len(position) else 1
    order = (document * width + position).argsort()
    values = {site: x[:, tokens[order]].double().cpu() for site, x in chunk.values.items()}
    return Activations(values, document[order].cpu(), position[order].cpu())


def _update_shuffled(
    accumulator: MomentAccumulator, x: Tensor, document: Tensor, source: Tensor, target: Tensor
) -> None:
    """Pair the `source` tokens of left members with the `target` tokens of right ones."""
    source, target = source.to(x.device), target.to(x.device)
    if len(target):
        accumulator.update(x[:, source], document.to(x.device)[target], right=x[:, target])
