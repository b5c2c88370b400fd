from collections import Counter

import pytest
import torch
from scipy.stats import t as student

from polymorph.alignment import FITS, fit_orthogonal
from polymorph.alignment.accumulator import pair_moments
from polymorph.alignment.collect import Collected
from polymorph.alignment.gaps import GAPS
from polymorph.alignment.moments import explained_variance
from polymorph.alignment.rotation import eigenvalue_angles
from polymorph.errors import RunError
from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import Row, table
from polymorph.models.activations import Activations
from polymorph.studies.angles import rows as angles
from polymorph.studies.ladder.rows import UNPAIRED, ladder_rows
from polymorph.studies.registry import STUDIES

D, DOCUMENTS, LENGTH, BLOCKS = 6, 96, 10, 8
PAIRS = [(0, 1), (0, 2), (2, 1), (0, 3)]
LABELS = [
    PairLabel.between(0, 1, 9, 9),
    PairLabel.between(0, 2, 9, 9),
    PairLabel.between(2, 1, 9, 9),
    PairLabel.between(0, 0, 9, 10),
]


def planted(generator: torch.Generator) -> torch.Tensor:
    """Members [4 n d]: 1 is 0 rotated with noise, 2 is unrelated, 3 is 0 with a little noise."""
    n = DOCUMENTS * LENGTH
    x, other, noise = torch.randn(3, n, D, generator=generator, dtype=torch.float64)
    R = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    return torch.stack([x, x @ R + 0.2 * noise + 5, other, x + 0.1 * noise])


def collect(x: torch.Tensor, evaluated: torch.Tensor | None = None, seed: int = 0) -> Collected:
    document = torch.arange(DOCUMENTS).repeat_interleave(LENGTH)
    position = torch.arange(LENGTH).repeat(DOCUMENTS)
    moments = Collected(PAIRS, ["site"], blocks=BLOCKS, seed=seed)
    score = x if evaluated is None else evaluated
    for tokens in torch.arange(len(document)).split(16 * LENGTH):
        own = document[tokens], position[tokens]
        moments.update_fit(Activations({"site": x[:, tokens]}, *own))
        moments.update_eval(Activations({"site": score[:, tokens]}, *own))
    return moments


def rows_of(moments: Collected) -> list[Row]:
    documents = {"fit_documents": DOCUMENTS, "eval_documents": DOCUMENTS}
    return ladder_rows(moments.result(), LABELS, "planted", **documents)


def find(rows: list[Row], source: int, target: int, metric: str = "r2", **about: object) -> list[Row]:
    about = {"source": source, "target": target, "metric": metric} | about
    control = about.pop("control", None)
    chosen = [row for row in rows if row.extra.get("control") == control]
    return [row for row in chosen if all(getattr(row, key) == value for key, value in about.items())]


def test_every_rung_has_the_score_of_its_map_on_tokens(generator):
    x = planted(generator)
    y = planted(generator)
    rows = rows_of(collect(x, y))
    for i, j in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]:
        for name, fit in FITS.items():
            (row,) = find(rows, i, j, map=name, split="eval", role="estimate")
            wanted = explained_variance(fit(pair_moments(x[i], x[j]))(y[i]), y[j])
            if name == "affine":  # its ridge is cross-validated, which is no worse
                assert wanted - 1e-3 <= row.value <= wanted + 0.02
            else:
                assert row.value == pytest.approx(wanted, abs=1e-10)
            assert (row.n_documents, row.n_tokens, row.n_seeds) == (DOCUMENTS, DOCUMENTS * LENGTH, 2)


def test_the_interval_is_the_jackknife_over_document_blocks(generator):
    x = planted(generator)
    (row,) = find(rows_of(collect(x)), 0, 1, map="orthogonal")
    R = fit_orthogonal(x[0], x[1])
    block = torch.arange(DOCUMENTS).repeat_interleave(LENGTH) % BLOCKS
    parts = torch.tensor(
        [explained_variance(R(x[0, block != b]), x[1, block != b]) for b in range(BLOCKS)],
        dtype=torch.float64,
    )
    error = ((parts - parts.mean()).square().sum() * (BLOCKS - 1) / BLOCKS).sqrt()
    half = float(student.ppf(0.975, BLOCKS - 1) * error)
    assert row.low == pytest.approx(row.value - half)
    assert row.high == pytest.approx(row.value + half)


def test_controls_lie_low_where_the_pairing_matters_and_only_there(generator):
    rows = rows_of(collect(planted(generator)))
    for control in ("tokens_permuted", "documents_permuted"):
        for name in ("orthogonal", "affine"):
            (floor,) = find(rows, 0, 1, map=name, control=control)
            (estimate,) = find(rows, 0, 1, map=name)
            assert floor.role == "control"
            # R² of a map fitted to noise has a standard deviation of about 2/√(n d) = 0.026 here
            assert floor.value < 0.13 < 0.9 < estimate.value
    (unrelated,) = find(rows, 0, 2, map="affine")
    assert unrelated.value < 0.1  # d/n = 0.006 in expectation


def test_what_position_explains_is_left_by_the_document_shuffle_alone(generator):
    x = planted(generator)
    by_position = 3 * torch.randn(LENGTH, D, generator=generator, dtype=torch.float64).repeat(DOCUMENTS, 1)
    rows = rows_of(collect(x + by_position))
    (tokens,) = find(rows, 0, 2, map="affine", control="tokens_permuted")
    (documents,) = find(rows, 0, 2, map="affine", control="documents_permuted")
    assert tokens.value < 0.25
    assert documents.value > 0.5


def test_both_directions_of_a_pair_and_one_of_a_ceiling(generator):
    rows = rows_of(collect(planted(generator)))
    counted = Counter(
        (row.source, row.target) for row in rows if row.metric == "r2" and row.role == "estimate"
    )
    assert counted == dict.fromkeys([(0, 1), (1, 0), (0, 2), (2, 0), (2, 1), (1, 2)], len(FITS) + 1)
    ceilings = [row for row in rows if row.source == row.target]
    assert {(row.role, row.n_seeds, row.source_step, row.target_step) for row in ceilings} == {
        ("ceiling", 1, 9, 10)
    }
    assert table(rows, STUDIES["ladder"].columns).height == len(rows)


def test_geometry_stands_beside_its_scale(generator):
    x = planted(generator)
    rows = rows_of(collect(x))
    R = fit_orthogonal(x[0], x[1]).weight
    values = {
        "frobenius_from_identity": float((R - torch.eye(D)).norm()),
        "frobenius_haar_scale": (2 * D) ** 0.5,
        "determinant": float(torch.linalg.det(R)),
        "trace": float(R.trace()),
    }
    for metric, value in values.items():
        (row,) = find(rows, 0, 1, metric, map="orthogonal", split="fit")
        assert row.value == pytest.approx(value)
    (ratio,) = find(rows, 0, 1, "participation_ratio_target", split="eval")
    assert 1 < ratio.value <= D


def test_angles_are_those_of_the_fitted_map(generator):
    x = planted(generator)
    rows = angles.angle_rows(collect(x).result(), LABELS, "planted", fit_documents=DOCUMENTS)
    mine = sorted(find(rows, 2, 1, "eigenvalue_angle"), key=lambda row: row.extra["index"])
    wanted = eigenvalue_angles(fit_orthogonal(x[2], x[1]).weight)
    assert [row.value for row in mine] == pytest.approx(wanted.tolist())
    assert table(rows, STUDIES["angles"].columns).height == len(LABELS) * D


def test_the_same_chunks_give_the_same_rows_and_another_seed_other_controls(generator):
    x = planted(generator)
    first, again, other = (rows_of(collect(x, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    changed = {(row.role, row.metric) for row, was in zip(other, first, strict=True) if row != was}
    assert changed == {("control", "r2"), ("estimate", "ladder_share")}


def test_collecting_counts_documents_and_leaves_the_activations_alone(generator):
    x = planted(generator)
    before = x.clone()
    moments = collect(x)
    assert (moments.fit_documents, moments.eval_documents) == (DOCUMENTS, DOCUMENTS)
    assert torch.equal(x, before)
    assert float(moments.at("site").fit_tokens_permuted.n[0, 0]) == DOCUMENTS * LENGTH


def test_a_low_rank_site_has_its_rows(generator):
    x = planted(generator)
    flat = x @ torch.diag(torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64))
    turned = flat @ torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    (row,) = find(rows_of(collect(turned)), 0, 0, map="affine")
    assert row.value > 0.9


def test_a_constant_dimension_leaves_r_undetermined(generator):
    """Everything can be fitted, and what is said of the whole matrix says that it is not determined."""
    x = planted(generator)
    x[1] = x[0] @ torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    x[:2, :, 4] = 0.1
    rows = rows_of(collect(x))
    (r,) = find(rows, 0, 1, "determined_dimension")
    assert r.value < D
    for metric in ("frobenius_from_identity", "determinant", "trace"):
        (row,) = find(rows, 0, 1, metric)
        assert row.convention == "undetermined"


def test_a_determined_matrix_is_called_so(generator):
    rows = rows_of(collect(planted(generator)))
    (r,) = find(rows, 0, 1, "determined_dimension")
    (row,) = find(rows, 0, 1, "trace")
    assert (r.value, row.convention) == (D, "determined")
    (unrelated,) = find(rows, 0, 2, "determined_dimension")
    assert unrelated.value < D


def test_a_member_that_does_not_vary_is_refused_by_name(generator):
    x = planted(generator)
    x[2] = 0.1
    with pytest.raises(RunError, match="site: every dimension of seed 2"):
        rows_of(collect(x))


def test_gaps_are_differences_of_the_rungs(generator):
    rows = rows_of(collect(planted(generator), planted(generator)))
    for metric, (freer, tighter) in GAPS.items():
        (gap,) = find(rows, 0, 1, metric)
        (more,), (less,) = (find(rows, 0, 1, map=name) for name in (freer, tighter))
        assert gap.value == pytest.approx(more.value - less.value, abs=1e-12)
        assert gap.low < gap.value < gap.high


def test_controls_do_not_depend_on_the_pairs_computed_beside(generator):
    """What is drawn at random is drawn from the pair's own label."""
    x = planted(generator)
    rows = rows_of(collect(x))
    moments = Collected([(2, 1)], ["site"], blocks=BLOCKS)
    document = torch.arange(DOCUMENTS).repeat_interleave(LENGTH)
    chunk = Activations({"site": x}, document, torch.arange(LENGTH).repeat(DOCUMENTS))
    moments.update_fit(chunk)
    moments.update_eval(chunk)
    documents = {"fit_documents": DOCUMENTS, "eval_documents": DOCUMENTS}
    alone = ladder_rows(moments.result(), [LABELS[2]], "planted", **documents)
    for control in UNPAIRED:
        (one,) = find(alone, 2, 1, map="orthogonal", control=control)
        (other,) = find(rows, 2, 1, map="orthogonal", control=control)
        assert one.value == pytest.approx(other.value, abs=1e-9)


def test_one_block_of_documents_has_no_interval(generator):
    moments = Collected(PAIRS, ["site"], blocks=1)
    document = torch.arange(DOCUMENTS).repeat_interleave(LENGTH)
    x = {"site": planted(generator)}
    chunk = Activations(x, document, torch.arange(LENGTH).repeat(DOCUMENTS))
    moments.update_fit(chunk)
    moments.update_eval(chunk)
    assert {(row.low, row.high) for row in rows_of(moments)} == {(None, None)}


def test_requests_that_do_not_fit_are_refused(generator):
    result = collect(planted(generator)).result()
    with pytest.raises(ValueError, match="3 labels for moments of 4 pairs"):
        ladder_rows(result, LABELS[:3], "c", fit_documents=1, eval_documents=1)
    with pytest.raises(ValueError, match="rising steps"):
        PairLabel.between(0, 0, 10, 9)
    with pytest.raises(ValueError, match="a pair is two seeds"):
        PairLabel(0, 0, 1, 2, "estimate")


def test_too_few_tokens_name_the_site(generator):
    moments = Collected(PAIRS, ["early"], blocks=2)
    x = {"early": planted(generator)[:, :D]}
    document = torch.arange(D) // 3
    chunk = Activations(x, document, torch.arange(D) % 3)
    moments.update_fit(chunk)
    moments.update_eval(chunk)
    with pytest.raises(RunError, match="early: too few tokens to fit a map: 6 tokens in 6"):
        rows_of(moments)
