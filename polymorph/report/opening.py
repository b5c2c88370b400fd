"""The verdict on a whole cohort in plain sentences with numbers: what a page says first."""

from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.table_rows import at_site, dimension, measured, scores
from polymorph.plotting.wording import DASH, listed, number
from polymorph.verdicts.bounds import GAP
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.estimate import Estimate, estimate
from polymorph.verdicts.findings import Verdict
from polymorph.verdicts.words import entry_of

PART = (
    "the data determine only part of R, the best rotation or reflection of one member onto another, and of the whole "
    "of R nothing is said"
)
"""What `undetermined` says where R is not determined as a whole."""
MOST_SITES = 4  # that a sentence names


COLUMNS = (
    ("nothing done", "identity", "estimate", None),
    ("orthogonal", "orthogonal", "estimate", None),
    ("any affine", "affine", "estimate", None),
    ("no pairing", "orthogonal", "control", "covariance_only"),
    ("ceiling", "orthogonal", "ceiling", None),
)
"""Heading, map, role and control of the cells of `beside`, before the determined dimensions."""


def opening_of(claims: Sequence[Claim], last: pl.DataFrame) -> list[str]:
    """The verdict in paragraphs: where it holds; what was ruled out; the numbers behind it, at one site and at all.

    `last` holds the ladder rows of the last steps; nothing is said where nothing was compared.
    """
    sites = sites_in_order(last.filter(pl.col("role") == "estimate"))
    if not sites:
        return []
    paragraphs = (_verdicts(claims), _ruled_out(claims), _numbers(last, sites), _everywhere(last, sites))
    return [text for sentences in paragraphs if (text := " ".join(sentences))]


def _verdicts(claims: Sequence[Claim]) -> Iterator[str]:
    told = {claim.site: claim.finding for claim in claims if isinstance(claim.finding, Verdict)}
    for word, sites in _by_word((verdict.word, site) for site, verdict in told.items()):
        partly = all(told[site].reason_code == "partly_determined" for site in sites)
        meaning = PART if partly else entry_of(word).meaning
        yield f"The verdict is {word} {_at(sites, len(told))}: {meaning}."


def _ruled_out(claims: Sequence[Claim]) -> Iterator[str]:
    """What holds on the determined dimensions, and where a rotation alone is rejected."""
    beside = [
        (claim.finding.on_support.word, claim.site)
        for claim in claims
        if isinstance(claim.finding, Verdict) and claim.finding.on_support is not None
    ]
    if beside:
        each = [f"{word} {_at(sites, len(beside))}" for word, sites in _by_word(beside)]
        yield f"On the dimensions that the data do determine, the same rule says {'; '.join(each)}."
    tests = [claim for claim in claims if claim.kind == "isometry"]
    rejected = [claim.site for claim in tests if claim.verdict == "rejected"]
    if rejected:
        yield (
            f"A difference by a rotation or reflection alone is rejected {_at(rejected, len(tests))}: a general "
            f"linear map gains more than {GAP} of R²."
        )
    elif tests:
        yield "A difference by a rotation or reflection alone is rejected nowhere."


def _by_word(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Word → the sites that have it, in the order of the first."""
    found: dict[str, list[str]] = {}
    for word, site in pairs:
        found.setdefault(word, []).append(site)
    return list(found.items())


def _at(sites: Sequence[str], all_sites: int) -> str:
    if len(sites) == all_sites:
        return f"at {sites[0]}" if all_sites == 1 else f"at all {all_sites} sites"
    return f"at {listed(sites, MOST_SITES)} ({len(sites)} of {all_sites} sites)"


def _numbers(last: pl.DataFrame, sites: Sequence[str]) -> Iterator[str]:
    """What the orthogonal map explains, where the data determine most of R, between its control and its ceiling."""
    known = _explained(last, sites)
    if not known:
        return
    most = max(known, key=lambda site: (_least_determined(last, site) or 0, known[site].value))
    one, rows = known[most], at_site(last, most)
    interval = "" if one.low is None else f" [{number(one.low, 2)}, {number(min(one.high or 1.0, 1.0), 2)}]"
    why = ", where the data determine most of it," if len(known) > 1 else ""
    yield (
        f"At {most}{why} the best rotation or reflection explains R² {number(one.value, 2)}{interval} of another "
        "member's activations, on documents that did not fit it; 1 is all of them, 0 is no better than their mean."
    )
    others = list(_compared(rows))
    if others:
        yield f"Beside it there: {'; '.join(others)}."


def _everywhere(last: pl.DataFrame, sites: Sequence[str]) -> Iterator[str]:
    """The same over all sites, and how much of R the data determine."""
    values = [one.value for one in _explained(last, sites).values()]
    if len(values) > 1:
        low, high = number(min(values), 2), number(max(values), 2)
        lies = f"is {low}" if low == high else f"lies between {low} and {high}"
        yield f"Over all {len(values)} sites, the R² of such a map {lies}."
    if (support := _support(last, sites)) is not None:
        yield support


def _explained(last: pl.DataFrame, sites: Sequence[str]) -> dict[str, Estimate]:
    """R² of the orthogonal map at every site where it was scored."""
    found = {site: estimate(scores(at_site(last, site), "orthogonal")) for site in sites}
    return {site: one for site, one in found.items() if one is not None}


def _compared(rows: pl.DataFrame) -> Iterator[str]:
    """Other maps at one site, in words."""
    words = {
        "nothing done": "doing nothing gives {}",
        "any affine": "any affine map {}",
        "no pairing": "a map that has seen both covariances but no pairing {}",
        "ceiling": "one member against another reading of itself, which is the ceiling, {}",
    }
    for heading, name, role, control in COLUMNS:
        found = estimate(scores(rows, name, role, control))
        if heading in words and found is not None:
            yield words[heading].format(number(found.value, 2))


def _support(last: pl.DataFrame, sites: Sequence[str]) -> str | None:
    """How many dimensions of R the data determine: at the least and the greatest site."""
    d = dimension(last)
    known = [r for site in sites if (r := _least_determined(last, site)) is not None]
    if d is None or not known:
        return None
    low, high = min(known), max(known)
    if low >= d:
        return f"The data determine all {d} dimensions of R{' at every site' if len(sites) > 1 else ''}."
    told = f"{low}" if low == high else f"{low} to {high}, depending on the site,"
    return f"The data determine {told} of the {d} dimensions of R, in the pair with fewest."


def _least_determined(last: pl.DataFrame, site: str) -> int | None:
    """r in the pair with fewest; None where it was not measured."""
    r = measured(at_site(last, site), "determined_dimension")["value"].to_list()
    return int(min(r)) if r else None


def beside(last: pl.DataFrame, site: str) -> tuple[str, ...]:
    """The cells of a site: mean R² of `COLUMNS`, and `r of d`."""
    rows = at_site(last, site)
    means = [estimate(scores(rows, name, role, control)) for _, name, role, control in COLUMNS]
    r, d = _least_determined(last, site), dimension(rows)
    determined = DASH if r is None or d is None else f"{r} of {d}"
    return (*(number(None if one is None else one.value, 2) for one in means), determined)
