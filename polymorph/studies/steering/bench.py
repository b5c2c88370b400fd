"""What all rows of steering are made from: maps that carry, members that are steered, and what is read of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.families import FITS
from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.regression import affine_cv
from polymorph.alignment.support import filled
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row
from polymorph.models.functions import Functions
from polymorph.steering.effects import Aim, Measured, Meter, first_documents, random_directions
from polymorph.steering.prediction import cosine, pinned_share
from polymorph.steering.regimes import Called, Outcome, PValues, corrected, regime
from polymorph.steering.request import Steering
from polymorph.studies.steering import STUDY as DECLARED

STUDY = "steering"
NAMED, SYSTEMATIC = "named", "systematic"
SHUFFLED = "tokens_permuted"
MAPS = ("identity", "orthogonal", "similarity", "affine")
FEW_MAPS = ("identity", "orthogonal")
"""At doses that are not tested, and for the systematic directions."""
SOME_DOCUMENTS, SOME_TOKENS = 32, 1152
"""Eval documents for random directions and the systematic ones, and the tokens that they hold at most."""
DIRECTIONS, SOME_DIRECTIONS = 100, 32
"""Random directions behind every null, and of a brief request."""
PREDICTORS = ("pinned_share", "cosine_turned", "cosine_mapped")
FEWEST_CONTRASTS = 20
"""Directions behind a regression."""
Way = tuple[int, int]
"""Source and target of a vector, as places in `ends`."""
Weights = Mapping[str, Float[Tensor, "d d"]]


def steering_of(evidence: Evidence) -> Steering:
    """What is asked of the study."""
    found: Steering = DECLARED.request(evidence)
    return found


def carriers(evidence: Evidence, site: str) -> dict[Way, dict[str, Tensor]]:
    """The weight of every map of every ordered pair, fitted by the ladder's code on the fit split."""
    found: dict[Way, dict[str, Tensor]] = {}
    names = FEW_MAPS if steering_of(evidence).brief else MAPS
    for part in _only(evidence, site).by_pairs():
        moments = part.at(site)
        for backward, side in ((False, moments), (True, moments.swap())):
            whole = side.fit.total()
            fitted = {name: FITS[name](whole) for name in names if name != "affine"}
            if "affine" in names:
                fitted["affine"] = affine_cv(filled(side.fit))
            fitted[SHUFFLED] = FITS["orthogonal"](side.fit_tokens_permuted.total())
            for place, (first, second) in enumerate(part.index):
                way = (second, first) if backward else (first, second)
                found[way] = {name: fit.weight[place] for name, fit in fitted.items()}
    return found


def _only(evidence: Evidence, site: str) -> Evidence:
    """The evidence of one site, unless that of all is there already: moments of all might not fit into memory."""
    if "collected" in vars(evidence):
        return evidence
    source = replace(evidence.source, sites=[site])  # type: ignore[type-var]  # every source is a dataclass
    return replace(evidence, source=source, parent=evidence)


@dataclass(frozen=True)
class Case:
    """One vector of another member, or a control, on a member: what is decided about it."""

    aim: int
    way: Way
    carrier: str
    raw: PValues
    documents: int


def columns_of(carrier: str | None) -> dict[str, Any]:
    """The columns of a row that say how a vector came to a member: its own, another's through a map, or a control."""
    if carrier is None:
        return {"role": "ceiling"}
    if carrier == SHUFFLED:
        return {"role": "control", "map": "orthogonal", "extra": {"control": SHUFFLED}}
    return {"role": "estimate", "map": carrier}


@dataclass(frozen=True)
class Read:
    """Of one vector with one aim, by document.

    `tau`, `kl` and `off` are means over tokens; `there` is 1 where a document has any that is concerned; `lost` counts
    right answers that are lost, of `changed` positions.
    """

    tau: Float[Tensor, " documents"]
    there: Float[Tensor, " documents"]
    kl: Float[Tensor, " documents"]
    off: Float[Tensor, " documents"]
    lost: Float[Tensor, " documents"]
    changed: Float[Tensor, " documents"]
    concerned: int

    @classmethod
    def of(cls, measured: Measured, k: int, aim: int) -> "Read":
        concerned, tokens = measured.concerned[aim], measured.tokens.clamp(min=1)
        return cls(
            (measured.tau[k, aim] / concerned.clamp(min=1)).cpu(),
            (concerned > 0).double().cpu(),
            (measured.kl[k] / tokens).cpu(),
            (measured.off[k, aim] / tokens).cpu(),
            measured.lost[k, aim].cpu(),
            measured.changed[aim].cpu(),
            int(concerned.sum()),
        )

    def outcome(self, null: Float[Tensor, " directions"]) -> Outcome:
        return Outcome(self.tau[self.there > 0], self.kl, null)

    @property
    def documents(self) -> int:
        return int(self.there.sum())


@dataclass(frozen=True)
class Bench:
    """What all rows are made from."""

    evidence: Evidence
    functions: Functions
    site: str
    carriers: Mapping[Way, Weights]

    def ways_to(self, target: int) -> list[int]:
        return sorted(source for source, other in self.carriers if other == target)

    @property
    def targets(self) -> list[int]:
        return sorted({target for _, target in self.carriers})

    def meter(self, member: int, documents: int, tokens: int) -> Meter:
        return Meter(first_documents(self.functions, documents, tokens), member, self.site)

    def directions(self, member: int, d: int) -> Tensor:
        seed, step = self.evidence.ends[member]
        generator = chunk_generator(self.evidence.seed, 2**28, seed, step)
        count = SOME_DIRECTIONS if steering_of(self.evidence).brief else DIRECTIONS
        return random_directions(count, d, generator).to(self.functions.device)

    def ends(self, way: Way) -> dict[str, Any]:
        """The columns that say whose vector it is, and on whom."""
        (source, source_step), (target, target_step) = (self.evidence.ends[place] for place in way)
        steps = {"source_step": source_step, "target_step": target_step}
        return {"source": source, "target": target, **steps, "n_seeds": len({source, target})}

    def row(self, metric: str, value: float, aim: Aim | None, group: str, **about: Any) -> Row:
        extra = {"group": group, **({} if aim is None else {"contrast": aim.name, "head": aim.target.head})}
        own = {"split": "eval", **about, "extra": {**extra, **about.get("extra", {})}}
        return self.evidence.row(STUDY, self.site, own.pop("split"), metric, value, **own)

    def regime_rows(
        self, cases: Sequence[Case], aims: Sequence[Aim], group: str, dose: float | None
    ) -> Iterator[tuple[Case, Called, Row]]:
        """All cases of a group decided together; `value` is the p-value on which the name rests."""
        members = len(self.evidence.ends)
        owners = [case.aim * members + case.way[1] for case in cases]
        for case, p in zip(cases, corrected([case.raw for case in cases], owners), strict=True):
            called = regime(p)
            about = {**self.ends(case.way), **columns_of(case.carrier), "n_documents": case.documents}
            extra = {"regime": called.regime, **about.pop("extra", {})}
            extra |= {} if dose is None else {"dose": dose}
            yield case, called, self.row("regime", called.p, aims[case.aim], group, **about, extra=extra)

    def geometry(self, way: Way, v: Tensor, own: Tensor) -> dict[str, float]:
        """Every predictor of a vector of the source, with the target's own vector of the contrast."""
        R = self.carriers[way]["orthogonal"]
        found = (pinned_share(R, v), cosine(v, v @ R), cosine(v @ R, own))
        return dict(zip(PREDICTORS, found, strict=True))

    def geometry_rows(self, way: Way, aim: Aim, group: str, found: Mapping[str, float]) -> Iterator[Row]:
        for metric, value in found.items():
            about = {**self.ends(way), "map": "orthogonal", "split": "fit"}
            yield self.row(metric, value, aim, group, **about)


def null_of(measured: Measured) -> tuple[Float[Tensor, "aims directions"], Float[Tensor, " directions"]]:
    """Of random directions, mean effects over documents that have any token concerned, and mean KL."""
    there = (measured.concerned > 0).double()
    by_document = measured.tau / measured.concerned.clamp(min=1)
    tau = (by_document * there).sum(-1) / there.sum(-1).clamp(min=1)
    return tau.mT.cpu(), (measured.kl / measured.tokens.clamp(min=1)).mean(-1).cpu()
