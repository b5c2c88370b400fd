"""What an SAE is worth on activations, its own member's or another's through maps, in sums that stream.

SAE_a of member a is used on member b through there: b → a and back: a → b, as x̂ = back(SAE_a(there(x))).

A score is a tensor [1 + blocks]: of all tokens, then without each block of documents in turn. Scores combine by
plain arithmetic, and `bounded` makes a number with its jackknife interval of the result. Block b holds the
documents whose index is b modulo the number of blocks, as in the moments. Sums are float64; an SAE computes in
its own dtype.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polymorph.alignment.families import FAMILIES
from polymorph.alignment.jackknife import jackknife_interval
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import explained_variance_from_sums
from polymorph.models.activations import DocumentLosses, Edit, Spliceable

if TYPE_CHECKING:
    from sae_lens import SAE

Convention = Literal["centred", "paper"]
Metric = tuple[str, Convention | None]
AT_ONCE = 512
"""Tokens whose features are in memory together: few enough to stay in the cache."""
LEAST_LACK = 0.01
"""Of EV: where the covariance alone may be as near to the ceiling as this, nothing is said of the pairing."""
LEAST_LOSS = 1e-6
"""Nats a token: where ablation may cost no more than this, nothing is said of what is recovered."""


@dataclass(frozen=True)
class Route:
    """From the member on which an SAE is used to the SAE's own, and back."""

    there: Map
    back: Map

    @classmethod
    def of(cls, there: Map, other_way: Map) -> "Route":
        """The way back: the inverse of an isometry or a similarity, else the map fitted the other way round.

        The inverse of a regression would blow up the directions that the regression shrinks.
        """
        family = FAMILIES.get(there.name)
        return cls(there, there.inv if family is not None and family.inverse else other_way)


@dataclass(frozen=True)
class Passed:
    """What an SAE did with n tokens: what it saw, its features, what it made of them, and that brought back."""

    seen: Float[Tensor, "n d_in"]
    features: Float[Tensor, "n d_sae"]
    rebuilt: Float[Tensor, "n d_in"]
    returned: Float[Tensor, "n d"]


@torch.no_grad()
def pass_through(sae: "SAE[Any]", x: Float[Tensor, "n d"], route: Route | None = None) -> Passed:
    """One SAE on tokens of its own member, or through a route on another's; `rebuilt` is `sae(seen)`.

    An SAE with an error term is scored without it: with it every reconstruction is perfect.
    """
    seen = x if route is None else route.there(x)
    features = sae.encode(seen.to(sae.dtype))
    rebuilt = sae.decode(features)
    return Passed(seen, features, rebuilt, rebuilt if route is None else route.back(rebuilt))


def reconstruction(
    sae: "SAE[Any]", x: Float[Tensor, "n d"], route: Route | None = None
) -> Float[Tensor, "n d"]:
    """x̂, some tokens at a time."""
    return torch.cat([pass_through(sae, some, route).returned for some in x.split(AT_ONCE)])


def placed(sae: "SAE[Any]", device: torch.device) -> "SAE[Any]":
    """The SAE, or, if it is on another device, a copy of it on this one."""
    return sae if sae.W_dec.device == device else copy.deepcopy(sae).to(str(device))


def with_and_without(sums: Float[Tensor, "blocks *rest"]) -> Float[Tensor, "scores *rest"]:
    """The sum of all blocks, then of all but each; a single block has no other to be left with.

    Each is added up anew: a difference would leave rounding where the sum without a block is 0.
    """
    blocks = len(sums)
    chosen = torch.ones(1, blocks).to(sums)
    if blocks > 1:
        chosen = torch.cat([chosen, 1 - torch.eye(blocks).to(sums)])
    return torch.tensordot(chosen, sums, 1)


def bounded(scores: Float[Tensor, "scores"]) -> tuple[float, float | None, float | None]:
    """The value and its 95 % interval, which is None with fewer than two blocks."""
    if len(scores) < 3:
        return float(scores[0]), None, None
    low, high = jackknife_interval(scores[0], scores[1:])
    return float(scores[0]), float(low), float(high)


def by_block(
    values: Float[Tensor, "n *rest"], document: Int[Tensor, "n"], blocks: int
) -> Float[Tensor, "blocks *rest"]:
    """Float64 sums of the rows of each block of documents."""
    sums = torch.zeros(blocks, *values.shape[1:], dtype=torch.float64, device=values.device)
    return sums.index_add_(0, (document % blocks).to(values.device), values.double())


class Reconstruction:
    """Sums by document block behind the explained variance of reconstructions."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._origin: Tensor | None = None
        self._sums: list[Tensor] = []

    def update(
        self, x: Float[Tensor, "n d"], x_hat: Float[Tensor, "n d"], document: Int[Tensor, "n"]
    ) -> None:
        """Add tokens; every chunk has the same d."""
        if x.shape != x_hat.shape or x.ndim != 2 or len(document) != len(x):
            raise ValueError(
                f"x {tuple(x.shape)} and its reconstruction {tuple(x_hat.shape)} must be one [n d], with "
                f"{len(x)} documents, not {len(document)}"
            )
        if not len(x):
            return
        x = x.double()
        if self._origin is None:  # a token: squares about it do not cancel, and a constant gives exactly 0
            self._origin = x[0]
        away = x - self._origin
        rows = (torch.ones_like(x[:, 0]), (x - x_hat).square().sum(-1), away, away.square())
        added = [by_block(values, document, self.blocks) for values in rows]
        self._sums = [a + b for a, b in zip(self._sums, added, strict=True)] if self._sums else added

    @property
    def tokens(self) -> int:
        return int(self._sums[0].sum()) if self._sums else 0

    def explained_variance(self, convention: Convention) -> Float[Tensor, "scores"]:
        """`centred`: 1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², with x̄ the mean of each dimension.

        `paper`: 1 − mean squared error / variance over all entries, which have one global mean.
        """
        residual, centred, entries = self._totals()
        return explained_variance_from_sums(residual, centred if convention == "centred" else entries)

    def of_the_mean(self, convention: Convention) -> Float[Tensor, "scores"]:
        """The same number where x̂ is the mean of each dimension: 0 if `centred`, and not if `paper`."""
        _, centred, entries = self._totals()
        return explained_variance_from_sums(centred, centred if convention == "centred" else entries)

    def _totals(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of squares [scores]: residuals, about the mean of each dimension, about the mean of all entries.

        The last is Σ‖x − x̄‖² + n Σ_i (x̄_i − mean of x̄)²: how far the means of the dimensions lie apart counts
        as variance there, and a constant that hits them explains it.
        """
        if not self._sums or self._origin is None:
            raise ValueError("no tokens were given: there is nothing to score")
        filled = self._sums[0] > 0
        n, residual, first, second = (with_and_without(sums[filled]) for sums in self._sums)
        mean = first / n[:, None]
        centred = (second - n[:, None] * mean.square()).clamp(min=0).sum(-1)
        levels = self._origin + mean
        return residual, centred, centred + n * (levels - levels.mean(-1, keepdim=True)).square().sum(-1)


class Firing:
    """How many features fire, and which ones ever did."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._sums: Tensor | None = None
        self._live: Tensor | None = None

    def update(self, features: Float[Tensor, "n d_sae"], document: Int[Tensor, "n"]) -> None:
        """Add the features of some tokens; a feature fires where it is not 0."""
        fires = features != 0
        counts = torch.stack([torch.ones(len(fires), device=fires.device), fires.sum(-1)], -1)
        added, live = by_block(counts, document, self.blocks), fires.any(0)
        self._sums = added if self._sums is None else self._sums + added
        self._live = live if self._live is None else self._live | live

    def l0(self) -> Float[Tensor, "scores"]:
        """Mean number of features that fire on a token."""
        if self._sums is None:
            raise ValueError("no tokens were given: there is nothing to score")
        sums = with_and_without(self._sums[self._sums[:, 0] > 0])
        return sums[:, 1] / sums[:, 0]

    def live_fraction(self) -> Float[Tensor, "one"]:
        """Share of the features that fire at least once on these tokens; the jackknife does not hold for it."""
        if self._live is None:
            raise ValueError("no tokens were given: there is nothing to score")
        return self._live.double().mean()[None]


class SAEScores:
    """All that is reported of one SAE on one member.

    `paper` scores what the SAE saw against what it made of it, in its own space, as the paper did. `centred`
    scores x̂ in the space of the member, where 0 is what its mean explains; an error of the maps counts there.
    The paper's number never stands alone, because a constant can score high in it.
    """

    def __init__(self, blocks: int) -> None:
        self._own = Reconstruction(blocks)
        self._target = Reconstruction(blocks)
        self._firing = Firing(blocks)

    def update(
        self, sae: "SAE[Any]", x: Float[Tensor, "n d"], document: Int[Tensor, "n"], route: Route | None = None
    ) -> None:
        """Add tokens of a member, which the SAE reads through the route."""
        for some, theirs in zip(x.split(AT_ONCE), document.split(AT_ONCE), strict=True):
            passed = pass_through(sae, some, route)
            self._own.update(passed.seen, passed.rebuilt, theirs)
            self._target.update(some, passed.returned, theirs)
            self._firing.update(passed.features, theirs)

    @property
    def tokens(self) -> int:
        return self._target.tokens

    def metrics(self) -> dict[Metric, Float[Tensor, "scores"]]:
        """Every score by its metric and convention."""
        centred = self._target.explained_variance("centred")
        return {
            ("explained_variance", "centred"): centred,
            ("explained_variance", "paper"): self._own.explained_variance("paper"),
            ("fvu", "centred"): 1 - centred,
            ("l0", None): self._firing.l0(),
            ("live_fraction", None): self._firing.live_fraction(),
        }

    def of_the_mean(self) -> dict[Metric, Float[Tensor, "scores"]]:
        """What a constant, the mean of each dimension, would score in place of the reconstructions."""
        return {
            ("explained_variance", "centred"): self._target.of_the_mean("centred"),
            ("explained_variance", "paper"): self._own.of_the_mean("paper"),
        }


def mean_metrics(draws: Sequence[SAEScores]) -> dict[Metric, Float[Tensor, "scores"]]:
    """The mean of every score over draws of a random map, on the same tokens."""
    each = [draw.metrics() for draw in draws]
    return {metric: torch.stack([one[metric] for one in each]).mean(0) for metric in each[0]}


def pairing_gain(
    mapped: Float[Tensor, "scores"], unpaired: Float[Tensor, "scores"], own: Float[Tensor, "scores"]
) -> Float[Tensor, "scores"] | None:
    """[EV(R) − EV(R_cov)] / [EV_own − EV(R_cov)]: 1 if the pairing gives back all that the covariance alone lacks.

    None where hardly anything is lacking, as with any SAE on Gaussian activations: turning eigenvectors of the
    covariance round leaves a Gaussian what it was.
    """
    return clear_ratio(mapped - unpaired, own - unpaired, LEAST_LACK)


def clear_ratio(part: Float[Tensor, "scores"], whole: Float[Tensor, "scores"], least: float) -> Tensor | None:
    """part / whole [scores]; None unless the whole is at least so much, with its interval and without any block."""
    value, low, _ = bounded(whole)
    lowest = min(float(whole.min()), value if low is None else low)
    return part / whole if lowest >= least else None


def token_loss(losses: DocumentLosses, blocks: int) -> Float[Tensor, "scores"]:
    """Loss in nats a token."""
    document = torch.arange(len(losses.total), device=losses.total.device)
    sums = by_block(torch.stack([losses.total.double(), losses.tokens.double()], -1), document, blocks)
    sums = with_and_without(sums[sums[:, 1] > 0])
    return sums[:, 0] / sums[:, 1]


class Spliced:
    """The loss of one member in nats a token, as it is and with its site edited.

    `mean` [d] is what the site is ablated with: where nothing of the token is left, nothing is recovered.
    """

    def __init__(
        self, source: Spliceable, member: int, site: str, mean: Float[Tensor, "d"], blocks: int
    ) -> None:
        self._read = partial(source.losses, member, "eval")
        self._site, self._blocks = site, blocks
        clean = self._read()
        self.tokens = int(clean.tokens.sum())
        self.clean = token_loss(clean, blocks)
        self.ablated = self.loss(lambda x: mean.to(x).expand_as(x))

    def loss(self, edit: Edit) -> Float[Tensor, "scores"]:
        """With `edit` done at the site."""
        return token_loss(self._read(self._site, edit), self._blocks)

    def metrics(self, loss: Float[Tensor, "scores"]) -> dict[Metric, Float[Tensor, "scores"]]:
        """`delta_ce` = CE − CE_clean, and `loss_recovered` = (CE_ablated − CE) / (CE_ablated − CE_clean).

        The second is missing where ablation costs nothing.
        """
        found: dict[Metric, Tensor] = {("delta_ce", None): loss - self.clean}
        recovered = clear_ratio(self.ablated - loss, self.ablated - self.clean, LEAST_LOSS)
        return found if recovered is None else {**found, ("loss_recovered", None): recovered}
