"""Rows of a checkpoint as charts: what is drawn is what the rows say, and the law beside ‖R − I‖ is Haar's."""

from collections.abc import Mapping
from dataclasses import replace

import polars as pl
import pytest
import torch
from planted_report import tables

from polymorph.alignment.haar import haar
from polymorph.alignment.rotation import frobenius_from_identity, frobenius_haar_band
from polymorph.evidence.rows import Row
from polymorph.plotting.table_rows import at_last_steps
from polymorph.studies.claims import claims_of
from polymorph.tracking.charts import REGIMES, by_checkpoint, combined, metrics_of
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.words import WORDS

STEPS = [0, 100]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    ladder, _ = tables(3, STEPS)
    return [Row.from_dict(row) for row in ladder.iter_rows(named=True)]


@pytest.mark.parametrize("d", [8, 16, 64])
def test_the_band_holds_95_percent_of_haar_matrices_and_the_mean_is_theirs(d: int) -> None:
    drawn = frobenius_from_identity(haar(d, 4000, torch.Generator().manual_seed(d)))
    mean, low, high = frobenius_haar_band(d)
    assert float(drawn.mean()) == pytest.approx(mean, abs=4 * float(drawn.std()) / 4000**0.5 + 0.003)
    assert float(((low < drawn) & (drawn < high)).double().mean()) == pytest.approx(0.95, abs=0.015)
    assert (
        float(((low < 0.9 * drawn) & (0.9 * drawn < high)).double().mean()) < 0.9
    )  # a law of another scale is told


def test_every_checkpoint_has_r2_by_map_the_distance_beside_its_law_and_a_verdict_at_every_site(
    rows: list[Row],
) -> None:
    sites = sorted({row.site for row in rows if row.site})
    found = by_checkpoint(rows)
    assert [step for step, _ in found] == STEPS
    for _, own in found:
        metrics = metrics_of(own)
        for site in sites:
            for name in ("identity", "orthogonal", "affine", "orthogonal_documents_permuted"):
                assert isinstance(metrics[f"compare/{site}/r2/{name}"], float)
            low, mean, high = (
                metrics[f"compare/{site}/frobenius_haar/{part}"] for part in ("low", "mean", "high")
            )
            assert low < mean < high
            word = metrics[f"compare/{site}/verdict_word"]
            assert WORDS[word].code == metrics[f"compare/{site}/verdict"]


def test_the_verdict_is_that_of_the_claims(rows: list[Row]) -> None:
    ladder, _ = tables(3, STEPS)
    claims = claims_of({"ladder": at_last_steps(ladder)})
    said = {claim.site: claim.verdict for claim in claims if claim.kind == "verdict"}
    metrics = metrics_of(dict(by_checkpoint(rows))[STEPS[-1]])
    assert said == {site: metrics[f"compare/{site}/verdict_word"] for site in said}


def test_an_unknown_word_is_charted_as_unknown_and_loses_nothing(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = dict(by_checkpoint(rows))[STEPS[-1]]
    known = metrics_of(last)

    def quixotic(tables: Mapping[str, pl.DataFrame]) -> list[Claim]:
        word = {"word": "quixotic"}
        return [replace(claim, finding=replace(claim.finding, **word)) for claim in claims_of(tables)]

    monkeypatch.setattr("polymorph.tracking.charts.claims_of", quixotic)
    metrics = metrics_of(last)
    assert metrics.keys() == known.keys()
    for name, value in metrics.items():
        wanted = {"verdict": -1.0, "verdict_word": "unknown"}.get(name.rpartition("/")[2], known[name])
        assert value == wanted


def test_without_a_relation_the_verdict_says_so(rows: list[Row]) -> None:
    last = dict(by_checkpoint(rows))[STEPS[-1]]
    site = next(row.site for row in last if row.site)
    pair = next(row for row in last if row.site == site and row.role == "estimate")
    for p, related in ((0.6, False), (0.001, True)):
        test = replace(pair, study="pairing", metric="p_value", map=None, value=p, extra={"statistic": "rv"})
        word = metrics_of([*last, test])[f"compare/{site}/verdict_word"]
        assert (word != "unrelated") is related


def test_tests_of_pairs_are_combined_by_rueger_unless_there_is_one_of_all(rows: list[Row]) -> None:
    one = replace(rows[0], study="pairing", metric="p_value", value=0.5, extra={"statistic": "rv"})
    pairs = [replace(one, source=0, target=target, value=p) for target, p in ((1, 0.01), (2, 0.02), (3, 0.9))]
    assert [row.value for row in combined(pairs)] == [pytest.approx(3 / 2 * 0.02)]
    assert [row.value for row in combined(pairs[:1])] == [0.01]
    whole = replace(one, source=None, target=None, value=0.4)
    assert [row.value for row in combined([*pairs, whole])] == [0.4]


def test_the_combination_is_a_p_value_for_pairs_that_hang_together() -> None:
    """Under the null at most a share α of all draws falls to α, independent or not."""
    generator = torch.Generator().manual_seed(3)
    alone = torch.rand(4000, 3, generator=generator)
    together = alone[:, :1].expand(-1, 3)
    for draws in (alone, together):
        p = (3 / 2 * draws.sort(-1).values[:, 1]).clamp(max=1)
        assert float((p <= 0.05).double().mean()) <= 0.05 + 0.011  # three standard errors


def regime(word: str, dose: float = 1.0, group: str = "named", value: float = 0.01) -> Row:
    extra = {"regime": word, "dose": dose, "group": group, "contrast": "depth"}
    return Row(cohort="c", study="steering", role="estimate", metric="regime", value=value, source=0, target=1,
               source_step=5, target_step=5, site="s", map="orthogonal", extra=extra)  # fmt: skip


def test_regimes_are_shares_of_named_contrasts(rows: list[Row]) -> None:
    own = [
        regime("clean"),
        regime("clean"),
        regime("none"),
        regime("inverted"),
        regime("none", group="systematic"),
    ]
    metrics = metrics_of(own)
    shares = {name: metrics[f"compare/s/steering_regime/orthogonal/{name}"] for name in REGIMES}
    assert sum(shares.values()) == 1
    assert (shares["clean"], shares["none"], shares["partial"]) == (0.5, 0.25, 0)


def test_efficiencies_are_those_of_the_dose_that_has_regimes() -> None:
    extra = {"group": "named", "contrast": "depth"}
    efficient = [
        replace(regime("clean"), metric="transfer_efficiency", value=value, extra={**extra, "dose": dose})
        for value, dose in ((0.9, 1.0), (9.0, 4.0))
    ]
    assert metrics_of([regime("clean"), *efficient])["compare/s/steering_efficiency/orthogonal"] == 0.9


def test_saes_are_own_naive_and_mapped() -> None:
    def row(role: str, name: str | None, value: float, control: str | None = None) -> Row:
        extra = {"sae": "quick", **({} if control is None else {"control": control})}
        return Row(cohort="c", study="sae_transfer", role=role, metric="explained_variance", value=value, source=0,
                   target=1, target_step=5, site="s", map=name, convention="centred", extra=extra)  # fmt: skip

    own = [
        row("ceiling", None, 0.9),
        row("estimate", "identity", 0.1),
        row("estimate", "orthogonal", 0.8),
        row("control", "orthogonal", 0.3, "covariance_only"),
        row("control", None, 0.0, "predict_mean"),
    ]
    at = "compare/s/explained_variance/quick"
    expected = {"own": 0.9, "naive": 0.1, "mapped": 0.8, "mapped_covariance_only": 0.3}
    assert metrics_of(own) == {f"{at}/{name}": value for name, value in expected.items()}
