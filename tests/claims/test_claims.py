"""Verdicts from hand-made tables, in their order; estimates over seeds; many tests at once."""

import ast
import json
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import polars as pl
import pytest
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from polymorph.alignment.multiplicity import benjamini_hochberg, holm
from polymorph.evidence.rows import ON_SUPPORT, Row, table
from polymorph.studies.claims import claims_of
from polymorph.studies.registry import STUDIES
from polymorph.verdicts.claim import Claim, write_claims
from polymorph.verdicts.error_rate import ErrorRate, _given, error_rate
from polymorph.verdicts.estimate import Estimate, estimate
from polymorph.verdicts.findings import Finding, Measured
from polymorph.verdicts.words import UNKNOWN, WORDS, entry_of

PACKAGE = Path(__file__).parents[2] / "polymorph"

# Many tests.


def test_holm_by_hand():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_holm_never_falls_and_never_passes_one():
    assert holm({"a": 0.02, "b": 0.021}) == pytest.approx({"a": 0.04, "b": 0.04})
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.2}) == {"a": 0.2}
    assert holm({}) == {}


def test_benjamini_hochberg_by_hand():
    adjusted = benjamini_hochberg({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.02, "c": 0.04, "b": 0.04})
    assert benjamini_hochberg({}) == {}


def test_benjamini_hochberg_is_scipys_in_the_order_given():
    values = [0.9, 0.001, 0.04, 0.5, 0.03, 0.03]
    adjusted = benjamini_hochberg(dict(enumerate(values)))
    assert list(adjusted) == list(range(6))
    assert list(adjusted.values()) == pytest.approx(false_discovery_control(values).tolist())


def test_holm_is_the_stricter():
    tests = dict(enumerate([0.001, 0.012, 0.02, 0.03, 0.4]))
    family, share = holm(tests), benjamini_hochberg(tests)
    assert all(share[key] <= family[key] for key in tests)
    assert sum(p < 0.05 for p in share.values()) > sum(p < 0.05 for p in family.values())


# Estimates.


def pairs(values: dict[tuple[int, int], float], half: float | None = 0.001) -> pl.DataFrame:
    low, high = (
        [None] * len(values) if half is None else [v + s * half for v in values.values()] for s in (-1, 1)
    )
    source, target = zip(*values, strict=True)
    schema = {
        "source": pl.Int64,
        "target": pl.Int64,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
    return pl.DataFrame([source, target, list(values.values()), low, high], schema=schema)


def directed(seeds: int, value: Any) -> dict[tuple[int, int], float]:
    both = [pair for i, j in combinations(range(seeds), 2) for pair in ((i, j), (j, i))]
    return {pair: value(*pair) for pair in both}


def test_an_estimate_is_the_mean_with_a_jackknife_over_seeds():
    effects = [0.1, 0.4, 0.2, 0.9, 0.3]
    values = directed(5, lambda i, j: effects[i] + 2 * effects[j] + 0.01 * i * j)
    without = [mean(v for pair, v in values.items() if seed not in pair) for seed in range(5)]
    error = stdev(without) * 4 / math.sqrt(5)  # √((n−1)/n · Σ(θ − mean θ)²)
    half = math.hypot(0.02, float(student.ppf(0.975, 4)) * error)
    found = estimate(pairs(values, 0.02))
    assert found.value == pytest.approx(mean(values.values()))
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))
    assert len(found.pairs) == 20


def test_the_unit_is_the_seed_and_not_the_pair():
    """The opposite: twenty pairs taken for independent would make the interval far too narrow."""
    effects = [0.1, 0.4, 0.2, 0.9, 0.3]
    values = directed(5, lambda i, j: effects[i] + effects[j])
    naive = float(student.ppf(0.975, 19)) * stdev(values.values()) / math.sqrt(20)
    found = estimate(pairs(values, 0.0))
    assert found.high - found.value > 2 * naive


def test_two_seeds_have_the_interval_of_their_documents():
    found = estimate(pairs({(0, 1): 0.5, (1, 0): 0.7}, 0.01))
    assert (found.low, found.high) == pytest.approx((0.59, 0.61))


def test_without_rows_there_is_no_estimate():
    assert estimate(pairs({(0, 1): 0.5}).clear()) is None


def test_rows_without_intervals_have_an_estimate_without_one():
    found = estimate(pairs({(0, 1): 0.5, (1, 0): 0.7}, None))
    assert (found.value, found.low, found.high) == (pytest.approx(0.6), None, None)
    assert found.above(0.0) is None  # far above, and still nothing is settled


@pytest.mark.parametrize(
    ("measured", "settled"),
    [
        (Estimate(0.5, 0.4, 0.6), True),
        (Estimate(-0.5, -0.6, -0.4), False),
        (Estimate(0.02, -0.1, 0.14), None),
        (Estimate(0.0, -0.1, 0.01), False),  # up to the threshold is not above it
        (Estimate(0.5, -0.5, 1.5, ((0.1, 0.2), (0.8, 0.9))), True),  # every pair, by different amounts
        (Estimate(-0.5, -1.5, 0.5, ((-0.2, -0.1), (-0.9, 0.01))), False),
        (Estimate(0.5, -0.5, 1.5, ((0.1, 0.2), (0.005, 0.9))), None),  # one pair straddles
        (Estimate(0.5, 0.3, 0.7, ((0.1, 0.2), (0.005, 0.9))), True),  # and the mean is settled all the same
        (Estimate(0.5, None, None, ((0.1, 0.2),)), None),
    ],
)
def test_a_bound_is_passed_by_intervals(measured, settled):
    assert measured.above(0.01) is settled


def test_below_a_ceiling_the_interval_is_turned_round():
    found = Estimate(0.7, 0.6, 0.9, ((0.65, 0.8),)).below(1.0)
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.1, 0.4))
    assert found.pairs == (pytest.approx((0.2, 0.35)),)


# Verdicts.

SITE = "blocks.0.hook_resid_post"
R2 = {"orthogonal": 0.99, "similarity": 0.99, "affine": 0.99}


def row(study: str, metric: str, value: float, pair: tuple[int, int] | None, **about: Any) -> Row:
    ends = {} if pair is None else dict(zip(("source", "target"), pair, strict=True))
    steps = {} if pair is None else {"source_step": about.pop("source_step", 9), "target_step": 9}
    fixed = {"cohort": "made", "study": study, "role": "estimate", "site": SITE}
    return Row(**{**fixed, **ends, **steps, "metric": metric, "value": value, **about})


def made(
    r2: dict[str, float] = R2,
    half: float | None = 0.001,
    spread: float = 0.0,
    determinant: float = 1.0,
    p: float | None = 0.001,
    determined: int | None = 8,
    on_support: dict[str, float] | None = None,
    ceiling: float | None = None,
    haar_p: float | None = None,
    seeds: int = 3,
    site: str = SITE,
    d: int = 8,
) -> dict[str, pl.DataFrame]:
    """Tables of a cohort whose maps have these R²; `spread` is that between pairs, `half` that of documents."""
    both = [pair for i, j in combinations(range(seeds), 2) for pair in ((i, j), (j, i))]
    shift = {pair: spread * (sum(pair) - seeds + 1) for pair in both}

    def bounds(value: float) -> dict[str, float]:
        return {} if half is None else {"low": value - half, "high": value + half}

    def family(study: str, scores: dict[str, float], **about: Any) -> list[Row]:
        gaps = {
            "orthogonality_gap": scores["affine"] - scores["orthogonal"],
            "similarity_gap": scores["affine"] - scores["similarity"],
            "scale_gap": scores["similarity"] - scores["orthogonal"],
        }
        named = [(metric, value, {}) for metric, value in gaps.items()]
        if study == "ladder":
            named += [("r2", value, {"map": name}) for name, value in scores.items()]
        else:
            named += [(f"r2_{name}", value, {}) for name, value in scores.items()]
        return [
            row(study, metric, value + shift[pair], pair, **bounds(value + shift[pair]), **own, **about)
            for metric, value, own in named
            for pair in both
        ]

    rungs = family("ladder", r2)
    rungs += [row("ladder", "determinant", determinant, pair, map="orthogonal") for pair in both]
    rungs += [row("ladder", "r2", -0.9, pair, map="affine", role="control") for pair in both]
    if ceiling is not None:
        own = {"source_step": 5, "role": "ceiling", "map": "affine"}
        rungs += [row("ladder", "r2", ceiling, (i, i), **bounds(ceiling), **own) for i in range(seeds)]
    tables = {"ladder": table(rungs, STUDIES["ladder"].columns)}
    if determined is not None:
        rows = [row("support", "determined_dimension", float(determined), pair) for pair in both[:-1]]
        rows += [row("support", "determined_dimension", float(d), both[-1])]  # the least of all pairs counts
        rows += [row("support", "dimension", float(d), pair) for pair in both]
        own = {"source_step": 9, "role": "ceiling"}
        rows += [row("support", "determined_dimension", 1.0, (0, 0), **own)]  # of a member, not of a pair
        rows += [] if on_support is None else family("support", on_support, convention=ON_SUPPORT)
        tables["support"] = table(rows, STUDIES["support"].columns)
    if p is not None:
        rv = {"extra": {"statistic": "rv"}}
        rows = [row("pairing", "p_value", p, None, **rv), row("pairing", "p_value", 0.9, (0, 1), **rv)]
        tables["pairing"] = table(rows, STUDIES["pairing"].columns)
    if haar_p is not None:
        rows = [row("haar", "determined_dimension", float(determined or 0), None)]
        rows += [row("haar", "dimension", float(d), None)]
        for law, value in (("exact", 0.9), ("refit", haar_p)):
            rows += [row("haar", "p_value", value, None, extra={"statistic": "registered", "law": law})]
            rows += [row("haar", "p_value", value, None, extra={"statistic": "trace", "law": law})]
        tables["haar"] = table(rows, STUDIES["haar"].columns)
    return {name: frame.with_columns(site=pl.lit(site)) for name, frame in tables.items()}


def claim(kind: str, claims: Sequence[Claim]) -> Claim:
    (found,) = (own for own in claims if own.id == f"{kind}:{SITE}")
    return found


def verdict(**about: Any) -> Claim:
    return claim("verdict", claims_of(made(**about)))


CASES = {
    "unrelated": ({"p": 0.05}, "p = 0.05"),
    "rotation": ({}, "no freer map gains more than 0.01"),
    "orthogonal": ({"determinant": -1.0}, "det R = −1 in 3 of 3 pairs"),
    "similarity": (
        {"r2": {"orthogonal": 0.9, "similarity": 0.99, "affine": 0.995}},
        "similarity over orthogonal",
    ),
    "affine": ({"r2": {"orthogonal": 0.9, "similarity": 0.9, "affine": 0.99}}, "affine over similarity"),
    "related, beyond affine": ({"r2": dict.fromkeys(R2, 0.9)}, "below the ceiling (1, no member"),
    "undetermined": ({"determined": 5}, "the data determine 5 of 8 dimensions; nothing can be said"),
}


@pytest.mark.parametrize("wanted", CASES)
def test_every_verdict_is_reached(wanted):
    about, reason = CASES[wanted]
    found = verdict(**about)
    assert found.verdict == wanted
    assert reason in found.reason
    assert found.statement.startswith(f"{SITE}: {wanted}. ")


ORDERED = (
    ("unrelated", {"p": 0.2}),
    ("undetermined", {"determined": 5}),
    ("related, beyond affine", {"affine": 0.8}),
    ("affine", {"similarity": 0.7}),
    ("similarity", {"orthogonal": 0.6}),
    ("orthogonal", {"determinant": -1.0}),
)


@pytest.mark.parametrize("first", range(len(ORDERED)))
def test_they_are_decided_in_their_order(first):
    """Every reason from this one on applies: this one is given."""
    wanted, scores, about = ORDERED[first][0], dict(R2), {}
    for _, change in ORDERED[first:]:
        own = {key: value for key, value in change.items() if key in scores}
        scores |= own
        about |= {key: value for key, value in change.items() if key not in own}
    assert verdict(r2=scores, **about).verdict == wanted


@pytest.mark.parametrize(
    ("scores", "half", "what"),
    [
        ({"orthogonal": 0.97, "similarity": 0.97, "affine": 0.97}, 0.03, "R² of affine below the ceiling"),
        ({"orthogonal": 0.98, "similarity": 0.98, "affine": 0.99}, 0.005, "gap of affine over similarity"),
        (
            {"orthogonal": 0.98, "similarity": 0.99, "affine": 0.99},
            0.005,
            "gap of similarity over orthogonal",
        ),
    ],
)
def test_an_interval_that_straddles_a_bound_settles_nothing(scores, half, what):
    found = verdict(r2=scores, half=half)
    assert found.verdict == "undetermined"
    assert what in found.reason
    assert "does not settle" in found.reason
    assert found.low < found.threshold < found.high


def test_without_intervals_nothing_is_settled():
    found = verdict(half=None)
    assert found.verdict == "undetermined"
    assert "without an interval" in found.reason
    assert (found.low, found.high) == (None, None)


def test_pairs_that_agree_settle_what_their_mean_does_not():
    scores = {"orthogonal": 0.6, "similarity": 0.99, "affine": 0.99}
    found = verdict(r2=scores | {"orthogonal": 0.7}, spread=0.0)
    assert found.verdict == "similarity"
    wide = estimate(pairs(directed(3, lambda i, j: 0.05 + 0.2 * (i + j)), 0.001))
    assert wide.low < 0.01 < min(low for low, _ in wide.pairs)
    assert wide.above(0.01)


def test_the_ceiling_is_what_a_member_reaches_with_itself():
    scores = dict.fromkeys(R2, 0.9)
    beyond, within = (verdict(r2=scores, ceiling=ceiling) for ceiling in (0.99, 0.92))
    assert beyond.verdict == "related, beyond affine"
    assert beyond.value == pytest.approx(0.09)
    assert "that of one member at neighbouring" in beyond.reason
    assert within.verdict == "rotation"


def test_beside_an_undetermined_r_stands_the_verdict_on_its_support():
    low = {"orthogonal": 0.5, "similarity": 0.5, "affine": 0.9}
    found = verdict(determined=5, r2=low, on_support=R2)
    assert found.verdict == "undetermined"
    assert "the data determine 5 of 8 dimensions; on those: rotation, because" in found.reason
    assert (found.value, found.threshold) == (5.0, 8.0)
    bent = verdict(determined=5, r2=R2, on_support=low | {"affine": 0.99})
    assert "on those: affine" in bent.reason
    none = verdict(determined=0, on_support=R2)
    assert "0 of 8 dimensions; nothing can be said of it" in none.reason


def test_what_was_not_asked_for_is_not_claimed():
    claims = claims_of(made(p=None, determined=None))
    assert [own.kind for own in claims] == ["verdict", "isometry"]
    assert claims[0].verdict == "rotation"
    assert claims_of({}) == []


# The other claims.


def test_the_isometry_is_rejected_by_the_lower_bound():
    verdicts = [
        claim("isometry", claims_of(made(r2=R2 | {"orthogonal": 0.99 - gap}, half=0.004))).verdict
        for gap in (0.0, 0.012, 0.03)
    ]
    assert verdicts == ["not rejected", "undetermined", "rejected"]


def test_of_unrelated_members_no_isometry_is_claimed():
    ids = [own.kind for own in claims_of(made(p=0.5, haar_p=0.5))]
    assert ids == ["verdict", "pairing", "haar"]


def test_the_primary_family_is_adjusted_together():
    """Two sites with two tests each: four in all."""
    first = made(p=0.01, haar_p=0.02, d=16, determined=16)
    second = made(p=0.04, haar_p=0.5, d=16, determined=16, site="other")
    tables = {name: pl.concat([first[name], second[name]]) for name in first}
    found = {own.id: own for own in claims_of(tables)}
    wanted = holm({"a": 0.01, "b": 0.02, "c": 0.04, "d": 0.5})
    assert found[f"pairing:{SITE}"].value == pytest.approx(wanted["a"])
    assert found[f"haar:{SITE}"].value == pytest.approx(wanted["b"])
    assert found["pairing:other"].value == pytest.approx(wanted["c"])
    assert found["pairing:other"].verdict == "not shown"
    assert found["verdict:other"].verdict == "unrelated"
    assert "Holm" in found["verdict:other"].reason
    assert len({own.id for own in claims_of(tables)}) == len(claims_of(tables))


@pytest.mark.parametrize(
    ("about", "wanted", "reason"),
    [
        ({"haar_p": 0.5}, "not distinguished from Haar", "p = 0.5"),
        ({"haar_p": 0.01}, "departs from Haar", "trace (p = 0.01)"),
        ({"haar_p": 0.5, "p": 0.5}, "refused", "not shown to be related"),
        ({"haar_p": 0.01, "p": 0.5}, "refused", "not shown to be related"),
        ({"haar_p": 0.5, "determined": 15}, "refused", "15 of 16 dimensions"),
        ({"haar_p": 0.01, "determined": 15}, "refused", "15 of 16 dimensions"),
        ({"haar_p": 0.5, "determined": 8, "d": 8}, "refused", "too little power"),
        ({"haar_p": 0.001, "determined": 8, "d": 8}, "departs from Haar", "p = 0.00"),
    ],
)
def test_what_may_be_said_of_haar(about, wanted, reason):
    """The law with the estimation repeated is taken, not the exact one, whose p is 0.9 here."""
    found = claim("haar", claims_of(made(**({"d": 16, "determined": 16} | about))))
    assert found.verdict == wanted
    assert reason in found.reason


FIRST = ("id", "site", "statement", "verdict", "reason", "value", "low", "high", "threshold", "error_rate")


def test_claims_are_written_with_all_they_rest_on():
    claims = claims_of(made(determinant=-1.0, haar_p=0.5))
    written = json.loads(write_claims(claims))
    for entry, claim in zip(written, claims, strict=True):
        assert tuple(entry)[: len(FIRST)] == FIRST
        assert {name: entry[name] for name in FIRST[:-1]} == {
            name: getattr(claim, name) for name in FIRST[:-1]
        }
        assert (entry["error_rate"] and ErrorRate(**entry["error_rate"])) == claim.error_rate
        assert entry["kind"] == claim.kind
        decided = Measured(**entry["decided_by"])
        assert decided == claim.finding.decided_by
        assert (decided.value, decided.bound) == (entry["value"], entry["threshold"])
    assert "−" in write_claims(claims).decode()  # readable as it is
    assert write_claims([]).strip() == b"[]"
    assert all(entry["site"] == SITE and entry["id"].endswith(SITE) for entry in written)
    decided = written[0]
    assert decided["low"] <= decided["value"] <= decided["high"] <= decided["threshold"]


def test_a_verdict_is_written_with_its_fields_and_null_where_nothing_was_measured():
    part = {"determined": 5, "r2": R2 | {"identity": 0.1, "rotation": 0.9}, "on_support": R2}
    partly, whole, bare = (
        json.loads(write_claims([verdict(**about)]))[0]
        for about in (part | {"ceiling": 0.99}, {"determined": 8}, {"determined": None})
    )
    assert (partly["verdict"], partly["reason_code"]) == ("undetermined", "partly_determined")
    assert (partly["relation_on_support"], partly["decided_on_support_by"]["statistic"]) == (
        "rotation",
        "scale_gap",
    )
    assert (partly["determined_dimension"], partly["dimension"]) == (5, 8)
    assert (partly["r2_identity"], partly["r2_rotation"], partly["r2_ceiling"]) == (0.1, 0.9, 0.99)
    assert partly["share_of_variance"] is None
    assert (whole["relation_on_support"], whole["share_of_variance"]) == ("rotation", 1.0)
    assert whole["r2_affine"] == pytest.approx(R2["affine"])
    nothing = ("relation_on_support", "determined_dimension", "dimension", "share_of_variance", "r2_identity")
    assert [bare[name] for name in (*nothing, "r2_ceiling")] == [None] * 6


def test_the_words_have_codes_of_their_own_and_an_unknown_one_has_none():
    assert [entry.code for entry in WORDS.values()] == list(range(len(WORDS)))
    assert set(CASES) == set(WORDS)
    assert entry_of("quixotic") is UNKNOWN
    assert UNKNOWN.code not in [entry.code for entry in WORDS.values()]


def test_the_documents_have_the_table_of_words():
    docs = Path(__file__).parents[2] / "docs"
    rows = [f"| {entry.code} | {entry.word} | {entry.meaning} |" for entry in WORDS.values()]
    assert "\n".join(rows) in (docs / "statistics.md").read_text(encoding="utf-8")
    words = " | ".join(entry.word for entry in WORDS.values())
    assert f"| word | {words} |" in (docs / "dashboards.md").read_text(encoding="utf-8")


def test_a_finding_without_a_sentence_is_refused():
    claim = Claim(site=SITE, finding=Finding(word="so"))
    for name in ("statement", "reason"):
        with pytest.raises(TypeError, match="Finding"):
            getattr(claim, name)


@pytest.mark.parametrize("path", sorted((PACKAGE / "report").rglob("*.py")), ids=lambda path: path.stem)
def test_the_page_takes_nothing_from_a_sentence(path):
    """No claim's text is searched or cut: words and numbers are fields."""
    assert not parsed(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "line",
    [
        're.search(r"on those: (.+?), because", claim.reason)',
        'claim.reason.startswith("R is undetermined")',
        "tail.partition(claim.verdict)",
        'claim.id.partition(":")',
    ],
)
def test_a_sentence_that_is_read_back_is_seen(line):
    assert parsed(line)


def parsed(source: str) -> bool:
    """Whether a call that takes text apart stands on a claim's text."""
    texts = {"reason", "statement", "verdict", "id"}
    apart = {
        "search",
        "match",
        "findall",
        "startswith",
        "endswith",
        "partition",
        "rpartition",
        "split",
        "index",
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in apart:
            parts = (node.func.value, *node.args)
            if any(isinstance(one, ast.Attribute) and one.attr in texts for one in parts):
                return True
    return False


# How often a verdict is wrong.


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Ten cohorts with two truths, judged."""
    rates = tmp_path / "rates.json"
    rates.write_text(
        '{"affine": {"affine": 5, "rotation": 1}, "rotation": {"rotation": 2, "undetermined": 2}}'
    )
    monkeypatch.setattr("polymorph.verdicts.error_rate.RATES", rates)
    _given.cache_clear()
    yield
    _given.cache_clear()


def test_an_error_rate_counts_both_ways_of_being_wrong(judged):
    assert error_rate("rotation") == ErrorRate(wrongly=1, of_others=6, missed=2, of_its_own=4)
    assert error_rate("affine") == ErrorRate(wrongly=0, of_others=4, missed=1, of_its_own=6)
    assert error_rate("undetermined") == ErrorRate(wrongly=2, of_others=10, missed=0, of_its_own=0)
    assert error_rate("rotation").sentence == (
        "On planted truth given to 1 of 6 cohorts of which it is false, missed in 2 of 4 of which it is true"
    )
    assert "missed" not in error_rate("undetermined").sentence


def test_every_verdict_tells_its_error_rate_and_nothing_else_does(judged):
    for claim in claims_of(made()):
        assert claim.error_rate == (error_rate(claim.verdict) if claim.kind == "verdict" else None)


def test_where_nothing_was_judged_nothing_is_told():
    assert ErrorRate(0, 0, 0, 0).sentence == ""


def test_the_rates_of_the_package_are_of_every_verdict():
    verdicts = {"rotation", "orthogonal", "similarity", "affine", "undetermined", "unrelated"}
    for verdict in verdicts | {"related, beyond affine"}:
        rate = error_rate(verdict)
        assert rate.of_its_own >= 20
        assert rate.missed / rate.of_its_own <= 0.15
        assert rate.wrongly / rate.of_others <= 0.05


def test_a_seed_in_every_pair_cannot_be_left_out_and_the_others_speak_for_the_seeds() -> None:
    """Pairs with one seed alone (`pairs=anchor`): leaving that one out would leave nothing."""
    from polymorph.verdicts.estimate import estimate

    star = pl.DataFrame(
        {
            "source": [0, 0, 0],
            "target": [1, 2, 3],
            "value": [0.1, 0.2, 0.6],
            "low": [0.1, 0.2, 0.6],
            "high": [0.1, 0.2, 0.6],
        }
    )
    found = estimate(star)
    assert found is not None
    assert found.low is not None
    standard_error = star["value"].std() / 3**0.5
    assert found.value - found.low == pytest.approx(
        4.302653 * standard_error
    )  # Student's t, 2 degrees of freedom
