"""The claims of an analysis as the page shows them: a verdict a site, and beside it what else was decided there."""

from collections.abc import Sequence
from dataclasses import dataclass

from polymorph.plotting.wording import counted
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.findings import Verdict
from polymorph.verdicts.sentences import DECIDED, around_the_word
from polymorph.verdicts.words import Colour, entry_of


@dataclass(frozen=True)
class SiteVerdict:
    """One site: its sentence in three parts, of which the middle one is the verdict, and its other claims."""

    site: str
    before: str
    word: str
    after: str
    colour: Colour
    error_rate: str
    """How often this verdict is wrong on planted truth, a sentence; empty where that is not known."""
    others: tuple[tuple[str, str, str], ...]
    """Which test, its verdict, its reason."""


def verdicts_of(claims: Sequence[Claim]) -> list[SiteVerdict]:
    """One for every site, in the order of the claims."""
    return [_at_site(claim, claim.finding, claims) for claim in claims if isinstance(claim.finding, Verdict)]


def bars_of(claims: Sequence[Claim]) -> list[Claim]:
    """Those about whole members, which no site has."""
    return [claim for claim in claims if claim.kind == "bar"]


def how_decided(seeds: int) -> str:
    """Order, bounds and adjustments, and what n is."""
    return (
        f"{DECIDED}. The n of a cohort is its seeds, here {counted(seeds, 'seed')}, never its pairs or sites."
    )


def _at_site(claim: Claim, verdict: Verdict, claims: Sequence[Claim]) -> SiteVerdict:
    before, after = around_the_word(verdict, claim.site)
    beside = [one for one in claims if one.site == claim.site and one.kind != "verdict"]
    return SiteVerdict(
        site=claim.site,
        before=before,
        word=verdict.word,
        after=after,
        colour=entry_of(verdict.word).colour,
        error_rate="" if claim.error_rate is None else claim.error_rate.sentence,
        others=tuple((one.kind, one.verdict, one.reason) for one in beside),
    )
