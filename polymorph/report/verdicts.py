"""The claims of an analysis as the page shows them: a verdict a site, and beside it what else was decided there."""

from collections.abc import Sequence
from dataclasses import dataclass

from polymorph.alignment.multiplicity import LEVEL
from polymorph.plotting.wording import counted
from polymorph.studies.bars.claims import EVERYWHERE
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.site import BEYOND_AFFINE, GAP

COLOURS = {
    "rotation": "isometric",
    "orthogonal": "isometric",
    "similarity": "looser",
    "affine": "looser",
    "related, beyond affine": "beyond",
    "unrelated": "beyond",
}
"""Verdict → the class of its mark; any other, `undetermined` among them, is grey."""

DECIDED = (
    "A verdict is the first of these that holds: unrelated, where the pairing test is not rejected "
    f"(p ≥ {LEVEL}); undetermined, where the data determine fewer dimensions of R than there are; related, beyond "
    f"affine, where the affine map stays more than {BEYOND_AFFINE} of R² below the ceiling; affine, where it gains "
    f"more than {GAP} over a similarity; similarity, where that gains more than {GAP} over an orthogonal map; else "
    "rotation, or orthogonal where a pair has det R = −1. A bound counts as passed, or not, where every pair agrees "
    "with its whole interval or the interval of the mean over seeds does, and otherwise the verdict is "
    "undetermined; p-values of the primary family (pairing and the registered Haar tests of every site) are "
    "adjusted with Holm, all others with Benjamini–Hochberg"
)


@dataclass(frozen=True)
class Verdict:
    """One site: its sentence in three parts, of which the middle one is the verdict, and its other claims."""

    site: str
    before: str
    word: str
    after: str
    colour: str
    error_rate: str
    """How often this verdict is wrong on planted truth, a sentence; empty where that is not known."""
    others: tuple[tuple[str, str, str], ...]
    """Which test, its verdict, its reason."""


def verdicts_of(claims: Sequence[Claim]) -> list[Verdict]:
    """One for every site, in the order of the claims."""
    kinds = [(claim.id.partition(":")[0], claim) for claim in claims]
    return [
        _verdict(
            claim,
            tuple(
                (other, c.verdict, c.reason)
                for other, c in kinds
                if other != "verdict" and c.site == claim.site
            ),
        )
        for kind, claim in kinds
        if kind == "verdict"
    ]


def bars_of(claims: Sequence[Claim]) -> list[Claim]:
    """Those about whole members, which no site has."""
    return [claim for claim in claims if claim.site == EVERYWHERE]


def how_decided(seeds: int) -> str:
    """Order, bounds and adjustments, and what n is."""
    return (
        f"{DECIDED}. The n of a cohort is its seeds, here {counted(seeds, 'seed')}, never its pairs or sites."
    )


def _verdict(claim: Claim, others: tuple[tuple[str, str, str], ...]) -> Verdict:
    head, tail = claim.statement[: len(claim.site)], claim.statement[len(claim.site) :]
    before, word, after = tail.partition(claim.verdict)
    if not word:  # a sentence that does not name its verdict is marked in front
        before, word, after = "", claim.verdict, f": {claim.statement}"
        head = ""
    colour, rate = COLOURS.get(claim.verdict, "open"), claim.error_rate.sentence if claim.error_rate else ""
    return Verdict(claim.site, head + before, word, after, colour, rate, others)
