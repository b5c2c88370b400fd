"""What the studies of one comparison read: who is compared with whom, and one pass over their activations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor

from polymorph.alignment.accumulator import moment_bytes
from polymorph.alignment.collect import Collected, SiteMoments, collect, keep
from polymorph.alignment.moments import PairMoments
from polymorph.errors import RequestError
from polymorph.evidence.bounded_cache import BoundedCache
from polymorph.evidence.pairs import End, PairLabel, pairs_of
from polymorph.evidence.planted import Planted
from polymorph.evidence.rows import Role, Row
from polymorph.models.activations import Activations, ActivationSource, Coordinates
from polymorph.models.functions import Functions
from polymorph.saes.trained import Dictionaries, GivenDictionaries

BLOCKS = 16
"""Blocks of documents: 15 degrees of freedom for every interval."""
T = TypeVar("T")
HELD_GIB, HELD_SHARE = 1.0, 1 / 8
"""Of the memory, for moments of sites that several studies read, and for what was solved from them."""
LINED_UP = 2**27
"""float64 numbers of pairs in blocks, lined up for the algebra: a gigabyte for each split."""


@dataclass(frozen=True)
class History:
    """The checkpoints of one member, and how its activations at some of them are read."""

    seed: int
    steps: Sequence[int]
    source: Callable[[Sequence[int]], ActivationSource]


@dataclass(frozen=True)
class Evidence:
    """Members at one checkpoint each, and the pairs among them that are compared.

    `ends` are the members in the order of the members axis of `source`; `pairs` are unordered, between
    different seeds. Activations are read once, when a study first asks.
    """

    cohort: str
    ends: Sequence[End]
    pairs: Sequence[PairLabel]
    source: ActivationSource
    seed: int = 0
    blocks: int = BLOCKS
    histories: Sequence[History] = ()
    again: ActivationSource | None = None
    """Members whose ceiling is a second reading of themselves: [2 × members], the readings after the members."""
    parent: "Evidence | None" = None
    """Of a part, the whole that it is a part of."""
    coordinates: Coordinates | None = None
    """The columns [axes d] in which the residual stream's own axes are read; None where they are the activations'."""
    functions: Callable[[Sequence[End]], Functions] | None = None
    """Opens members at checkpoints for what they compute; None where there are only activations."""
    dictionaries: Dictionaries = field(default_factory=GivenDictionaries)
    """The SAEs of the members; those of earlier checkpoints are found under the steps of `histories`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """By study, what is asked of it; one that has options and is not named here does all that is built in."""
    _made: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _moments: BoundedCache[tuple[str, tuple[int, ...]], SiteMoments] = field(
        default_factory=lambda: BoundedCache(int(HELD_GIB * 2**30)), init=False, repr=False, compare=False
    )

    def once(self, what: str, make: Callable[[], T]) -> T:
        """What several studies read of the members, made by the first that asks."""
        if what not in self._made:
            self._made[what] = make()
        found: T = self._made[what]
        return found

    @property
    def sites(self) -> Sequence[str]:
        return self.source.sites

    @property
    def root(self) -> "Evidence":
        """The whole that this is a part of, or itself."""
        return self if self.parent is None else self.parent.root

    @property
    def index(self) -> list[tuple[int, int]]:
        """The pairs as places in `ends`."""
        place = {end: i for i, end in enumerate(self.ends)}
        return [(place[first], place[second]) for first, second in (pair.ends for pair in self.pairs)]

    @property
    def complete(self) -> bool:
        """Whether every two members are compared."""
        return len(set(self.index)) == len(self.ends) * (len(self.ends) - 1) // 2

    @cached_property
    def collected(self) -> Collected:
        if self.parent is not None and self.parent.sites == self.sites:
            return self.parent.collected
        return collect(self.source, self.root.index, self.blocks, self.seed)

    @cached_property
    def _tokens(self) -> Activations:
        return keep(self.source)

    def at(self, site: str) -> SiteMoments:
        """The moments of the pairs, in their order. Studies share them, and with them all that is solved from them."""
        places = [self.root.pairs.index(pair) for pair in self.pairs]
        key = (site, tuple(places))
        return self.root._moments.once(key, lambda: self.collected.at(site, places), lambda own: own.nbytes)

    def totals(self, site: str) -> tuple[PairMoments, PairMoments]:
        """Fit and eval moments [pairs] without blocks, of all pairs of the whole."""
        return self.collected.totals(site)

    def kept(self, site: str) -> Activations:
        """Tokens of the fit split [members n d], the same at every site."""
        tokens = self.root._tokens
        return Activations({site: tokens.values[site]}, tokens.document, tokens.position)

    @property
    def dimension(self) -> int:
        """d of the activations."""
        return self.kept(self.sites[0]).values[self.sites[0]].shape[-1]

    def by_sites(self, memory_gib: float) -> Iterator["Evidence"]:
        """Parts with as many sites each as their moments fit into the memory; `RequestError` if one does not."""
        check_size(len(self.ends), len(self.pairs), self.dimension, memory_gib)
        self._moments.limit = int(min(HELD_GIB, memory_gib * HELD_SHARE) * 2**30)
        beside = memory_gib - self._moments.limit / 2**30
        at_once = max(1, int(beside / site_gib(len(self.ends), len(self.pairs), self.dimension)))
        for first in range(0, len(self.sites), at_once):
            sites = self.sites[first : first + at_once]
            source = replace(self.source, sites=sites)  # type: ignore[type-var]  # every source is a dataclass
            yield self if len(sites) == len(self.sites) else replace(self, source=source, parent=self)

    def by_pairs(self) -> Iterator["Evidence"]:
        """Parts with so many pairs each that their blocks, lined up, are about a gigabyte."""
        at_once = max(1, LINED_UP // (self.blocks * 3 * self.dimension**2))
        for first in range(0, len(self.pairs), at_once):
            yield replace(self, pairs=self.pairs[first : first + at_once], parent=self)

    def new_members(self) -> list[int]:
        """The members whose first pair is in this part: over all parts, each member once."""
        whole = self.root.index
        first = {member: next(pair for pair in whole if member in pair) for member in range(len(self.ends))}
        return [member for member, pair in first.items() if pair in self.index]

    def member_blocks(self, moments: PairMoments, member: int) -> PairMoments:
        """The moments [blocks] of a member with itself, out of a pair that it takes part in."""
        place = next(p for p, pair in enumerate(self.index) if member in pair)
        own = moments[:, place]
        own = own if self.index[place][0] == member else own.swap()
        return PairMoments(own.n, own.mean_x, own.mean_x, own.xx, own.xx, own.xx)

    def row(self, study: str, site: str | None, split: str, metric: str, value: float, **about: Any) -> Row:
        """A row with the counts of its split; `about` are further columns."""
        n_documents = self.source.documents["fit" if split == "fit" else "eval"]
        default = {"role": "estimate", "n_seeds": len(self.ends), "n_documents": n_documents}
        own = {"cohort": self.cohort, "study": study, "site": site, "split": split, "metric": metric}
        return Row(**{**default, **about, **own, "value": value})

    def pair_rows(
        self,
        study: str,
        site: str,
        split: str,
        metric: str,
        values: Tensor,
        bounds: tuple[Tensor, Tensor] | None = None,
        *,
        backward: bool = False,
        role: Role = "estimate",
        **about: Any,
    ) -> Iterator[Row]:
        """One row a pair from values [pairs]; `backward` labels them the other way round."""
        low, high = (bound.tolist() for bound in bounds) if bounds else ([None] * len(values),) * 2
        for i, pair in enumerate(self.pairs):
            label = pair.reverse() if backward else pair
            named = {**label.columns(role), **about}
            yield self.row(study, site, split, metric, float(values[i]), low=low[i], high=high[i], **named)


def planted_evidence(planted: Planted, scheme: str = "all") -> Evidence:
    """The members of a planted cohort, with a second reading of each for the ceiling."""
    ends = [(member, 0) for member in range(planted.config.members)]
    again = replace(planted, again=True)
    return Evidence(planted.name, ends, pairs_of(ends, scheme), planted, planted.config.seed, again=again)


def site_gib(members: int, pairs: int, d: int) -> float:
    """GiB of the moments of all pairs at one site: both splits in blocks, and two shuffles."""
    blocks, shuffles = moment_bytes(members, pairs, d, BLOCKS), moment_bytes(2 * members, pairs, d, 1)
    return 2 * (blocks + shuffles) / 2**30


def check_size(members: int, pairs: int, d: int, limit: float) -> None:
    """Refuse a comparison one site of which would take more than `limit` GiB; says how much it needs."""
    if (needed := site_gib(members, pairs, d)) > limit:
        raise RequestError(
            f"memory_gib={limit:g}: the moments of {pairs} pairs of {members} members with d = {d} need "
            f"{needed:.1f} GiB a site; raise memory_gib, or compare fewer pairs with pairs=anchor or "
            "pairs=chain, or fewer members with seeds=[…]"
        )
