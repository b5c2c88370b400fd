"""Is there any relation between members, beyond what the position in a document explains?

Under the null, documents of one member are exchangeable for another's: permuting them, with positions kept,
changes nothing. To be exact the test needs documents of one length, so documents are sorted by length, taken in
groups, and cut to the shortest of their group, for the observed pairing and for every permuted one alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.models.activations import Activations

COMPONENTS = 64
DRAWS_AT_ONCE = 64
_GROUP = 8  # documents, at least: 8! orders in the smallest group
_TOKENS = 4096  # used at most; whole documents


@dataclass(frozen=True)
class PairingTest:
    """The RV coefficient ‖C_xy‖²/(‖C_xx‖ ‖C_yy‖) of every pair, and its values under permuted documents."""

    observed: Float[Tensor, "pairs"]
    null: Float[Tensor, "draws pairs"]
    tokens: int
    documents: int

    @property
    def p_values(self) -> Float[Tensor, "pairs"]:
        """(1 + #{T* ≥ T}) / (draws + 1) of each pair."""
        return self._p(self.observed, self.null)

    @property
    def p_value(self) -> float:
        """Of all pairs together: the statistic is the mean of theirs, permuted jointly."""
        return float(self._p(self.observed.mean(), self.null.mean(-1)))

    @staticmethod
    def _p(observed: Tensor, null: Tensor) -> Tensor:
        reached = (null >= observed * (1 - 1e-6)).sum(0)  # float32 sums: equal up to rounding is reached
        return (1 + reached) / (1 + null.shape[0])


def pairing_test(
    tokens: Activations,
    site: str,
    pairs: Sequence[tuple[int, int]],
    draws: int,
    generator: torch.Generator,
    components: int = COMPONENTS,
) -> PairingTest:
    """The test on some tokens of all members; every member's documents are permuted independently.

    Each member is reduced to its leading principal components (64, if not said otherwise), which do not know the
    pairing, so the test stays exact. `ValueError` with fewer than two documents.
    """
    groups = _groups(tokens.document)
    if sum(len(group) for group in groups) < 2:
        raise ValueError("a pairing test needs at least two documents")
    parts = [_components(tokens.values[site], group) for group in groups]
    values = torch.cat([part.flatten(1, 2) for part in parts], dim=1)
    centre = values.mean(1)
    scores = [part - centre[:, None, None] for part in parts]
    basis = torch.linalg.eigh((values - centre[:, None]).mT @ (values - centre[:, None])).eigenvectors
    scores = [(part @ basis[:, None, :, -components:]).float() for part in scores]
    flat = torch.cat([part.flatten(1, 2) for part in scores], dim=1)
    sizes = (flat.mT @ flat).square().sum((-2, -1)).sqrt()
    null = _null(scores, pairs, sizes, draws, generator)
    documents = sum(part.shape[1] for part in parts)
    return PairingTest(_rv(scores, pairs, sizes), null, flat.shape[1], documents)


def _null(
    parts: list[Tensor],
    pairs: Sequence[tuple[int, int]],
    sizes: Tensor,
    draws: int,
    generator: torch.Generator,
) -> Float[Tensor, "draws pairs"]:
    """The RV coefficients of permuted documents.

    C_xy is a sum over documents, X_{π(p)}ᵀ Y_{ρ(p)} over places p: the products of all two documents of a group are
    made once, and every draw adds up as many of them as there are documents.
    """
    drawn = [[_order(part, generator) for part in parts] for _ in range(draws)]
    orders = [torch.stack(own) for own in zip(*drawn, strict=True)]
    null = torch.empty(draws, len(pairs))
    for place, (i, j) in enumerate(pairs):
        cross = torch.zeros(draws, parts[0].shape[-1], parts[0].shape[-1])
        for part, order in zip(parts, orders, strict=True):
            products = torch.einsum("alk,blm->abkm", part[i], part[j])
            for some in torch.arange(draws).split(DRAWS_AT_ONCE):
                cross[some] += products[order[some, i], order[some, j]].sum(1)
        null[:, place] = cross.square().sum((-2, -1)) / (sizes[i] * sizes[j])
    return null


def permuted_members(
    tokens: Activations, site: str, generator: torch.Generator
) -> tuple[Float[Tensor, "members n d"], Tensor]:
    """The tokens with every member's documents permuted, one order a member for all its pairs; and documents.

    What a whole cohort is like when nobody has anything to do with anybody: unlike shuffles of single pairs,
    this keeps that R_ij, R_jk and R_ki have seen the same tokens.
    """
    groups = _groups(tokens.document)
    parts = [_permuted(_components(tokens.values[site], group), generator) for group in groups]
    lengths = [part.shape[2] for part in parts for _ in range(part.shape[1])]
    document = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    return torch.cat([part.flatten(1, 2) for part in parts], dim=1), document


def _groups(document: Tensor) -> list[list[Tensor]]:
    """Tokens of each document, documents of similar length together; a small rest joins the group before."""
    counts = document.unique(return_counts=True)[1]
    tokens = list(torch.argsort(document, stable=True).split(counts.tolist()))
    kept = max(2, int((counts.cumsum(0) <= _TOKENS).sum()))
    ordered = sorted(tokens[:kept], key=len)
    groups = [ordered[first : first + _GROUP] for first in range(0, len(ordered), _GROUP)]
    if len(groups) > 1 and len(groups[-1]) < _GROUP:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def _components(values: Tensor, group: list[Tensor]) -> Float[Tensor, "members documents length d"]:
    shortest = min(len(tokens) for tokens in group)
    return values[:, torch.stack([tokens[:shortest] for tokens in group])]


def _order(part: Tensor, generator: torch.Generator) -> Tensor:
    members, documents = part.shape[:2]
    return torch.rand(members, documents, generator=generator).argsort(-1)


def _permuted(part: Tensor, generator: torch.Generator) -> Tensor:
    return part.gather(1, _order(part, generator)[:, :, None, None].expand_as(part))


def _rv(parts: list[Tensor], pairs: Sequence[tuple[int, int]], sizes: Tensor) -> Float[Tensor, "pairs"]:
    flat = torch.cat([part.flatten(1, 2) for part in parts], dim=1)
    cross = torch.stack([(flat[i].T @ flat[j]).square().sum() for i, j in pairs])
    first, second = zip(*pairs, strict=True)
    return cross / (sizes[list(first)] * sizes[list(second)])
