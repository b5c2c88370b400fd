"""Scores of SAEs are those of whole tensors, and each has a case in which it must be bad."""

from dataclasses import dataclass

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from torch import Tensor

from polymorph.alignment.accumulator import pair_moments
from polymorph.alignment.families import FITS
from polymorph.alignment.fit import orthogonal
from polymorph.alignment.jackknife import jackknife_interval
from polymorph.alignment.moments import explained_variance
from polymorph.alignment.regression import affine, reduced_rank
from polymorph.models.activations import DocumentLosses, Edit, Spliceable, Split
from polymorph.saes.scores import (
    Firing,
    Reconstruction,
    Route,
    SAEScores,
    Spliced,
    bounded,
    mean_metrics,
    pairing_gain,
    pass_through,
    placed,
    reconstruction,
    token_loss,
    with_and_without,
)

D, DOCUMENTS, LENGTH, BLOCKS = 6, 40, 12, 8
N = DOCUMENTS * LENGTH


def sae(generator: torch.Generator, **options: object) -> StandardSAE:
    """Random weights, float64, so that two ways to one number agree to rounding."""
    made = StandardSAE(StandardSAEConfig(d_in=D, d_sae=20, dtype="float64", **options))  # type: ignore[arg-type]
    for weights in made.parameters():
        weights.data = 0.5 * torch.randn(weights.shape, generator=generator, dtype=torch.float64)
    return made.eval()


@pytest.fixture
def document() -> Tensor:
    return torch.arange(DOCUMENTS).repeat_interleave(LENGTH)


def tokens(generator: torch.Generator) -> Tensor:
    """Dimensions with means far apart."""
    return torch.randn(N, D, generator=generator, dtype=torch.float64) + 3 * torch.arange(D)


def paper(x: Tensor, x_hat: Tensor) -> float:
    """The paper's own formula."""
    return float(1 - (x - x_hat).square().mean() / x.var(correction=0))


def accumulated(x: Tensor, x_hat: Tensor, document: Tensor, size: int = N) -> Reconstruction:
    sums = Reconstruction(BLOCKS)
    for some in torch.arange(len(x)).split(size):
        sums.update(x[some], x_hat[some], document[some])
    return sums


def test_both_conventions_are_their_formulas(generator, document):
    x = tokens(generator)
    x_hat = x + 0.5 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    sums = accumulated(x, x_hat, document)
    assert sums.tokens == N
    assert float(sums.explained_variance("centred")[0]) == pytest.approx(explained_variance(x_hat, x))
    assert float(sums.explained_variance("paper")[0]) == pytest.approx(paper(x, x_hat))
    assert paper(x, x_hat) > explained_variance(x_hat, x) + 0.1  # where the two differ


def test_every_block_is_left_out_in_turn(generator, document):
    x = tokens(generator)
    x_hat = x + 0.5 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    sums = accumulated(x, x_hat, document)
    for convention, formula in (("centred", lambda x, y: explained_variance(y, x)), ("paper", paper)):
        scores = sums.explained_variance(convention)
        rest = [document % BLOCKS != block for block in range(BLOCKS)]
        wanted = torch.tensor([formula(x[kept], x_hat[kept]) for kept in rest], dtype=torch.float64)
        assert torch.allclose(scores[1:], wanted, atol=1e-12)
        low, high = jackknife_interval(scores[0], wanted)
        assert bounded(scores) == pytest.approx((float(scores[0]), float(low), float(high)))
        assert float(high - low) > 0


@pytest.mark.parametrize("size", [1, 7, 100])
def test_chunks_do_not_matter(generator, document, size):
    x = tokens(generator)
    own, route = (
        sae(generator),
        Route.of(orthogonal(pair_moments(x, x.flip(0))), orthogonal(pair_moments(x, x))),
    )
    whole, parts = SAEScores(BLOCKS), SAEScores(BLOCKS)
    whole.update(own, x, document, route)
    for some in torch.arange(N).split(size):
        parts.update(own, x[some], document[some], route)
    for metric, scores in whole.metrics().items():
        assert torch.allclose(scores, parts.metrics()[metric], atol=1e-10), metric


def test_a_mean_far_away_costs_no_digits(generator, document):
    x = tokens(generator)
    x_hat = x + 0.5 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    far = float(accumulated(x + 1e6, x_hat + 1e6, document, 64).explained_variance("centred")[0])
    assert far == pytest.approx(explained_variance(x_hat, x), abs=1e-8)  # 1e6 has 1e-10 left of a unit


def test_the_mean_explains_nothing_but_in_the_papers_convention(generator, document):
    x = tokens(generator)
    sums = accumulated(x, x.mean(0).expand_as(x), document)
    assert float(sums.explained_variance("centred")[0]) == pytest.approx(0)
    assert torch.equal(sums.of_the_mean("centred"), torch.zeros(1 + BLOCKS).double())
    assert float(sums.of_the_mean("paper")[0]) == pytest.approx(paper(x, x.mean(0).expand_as(x)))
    assert float(sums.of_the_mean("paper")[0]) > 0.9  # 1 of 1 + 9 · 35/12 is within dimensions
    level = x - x.mean(0)
    assert float(accumulated(level, level, document).of_the_mean("paper")[0]) == pytest.approx(0)


def test_a_perfect_reconstruction_is_1_and_an_offset_is_below_0(generator, document):
    x = tokens(generator)
    assert torch.equal(
        accumulated(x, x, document).explained_variance("centred"), torch.ones(1 + BLOCKS).double()
    )
    assert float(accumulated(x, x + 5, document).explained_variance("centred")[0]) < -10


def test_what_cannot_be_scored_is_refused(generator, document):
    x = tokens(generator)
    with pytest.raises(ValueError, match=r"\(480, 6\).*\(480, 5\)"):
        Reconstruction(BLOCKS).update(x, x[:, :5], document)
    with pytest.raises(ValueError, match="not 479"):
        Reconstruction(BLOCKS).update(x, x, document[1:])
    constant = torch.full_like(x, 0.1)
    with pytest.raises(ValueError, match="no variance"):
        accumulated(constant, x, document).explained_variance("centred")
    for empty in (Reconstruction(BLOCKS).explained_variance, lambda _: Firing(BLOCKS).l0()):
        with pytest.raises(ValueError, match="no tokens"):
            empty("centred")


@pytest.mark.parametrize(
    "options", [{}, {"apply_b_dec_to_input": False}, {"normalize_activations": "layer_norm"}]
)
def test_what_is_scored_is_what_saelens_computes(generator, document, options):
    x, own = tokens(generator), sae(generator, **options)
    before = {name: weights.clone() for name, weights in own.state_dict().items()}
    scores = SAEScores(BLOCKS)
    scores.update(own, x, document)
    with torch.no_grad():
        wanted, features = own(x), own.encode(x)
    metrics = scores.metrics()
    assert float(metrics["explained_variance", "centred"][0]) == pytest.approx(explained_variance(wanted, x))
    assert float(metrics["explained_variance", "paper"][0]) == pytest.approx(paper(x, wanted))
    assert torch.allclose(metrics["fvu", "centred"], 1 - metrics["explained_variance", "centred"])
    assert float(metrics["l0", None][0]) == pytest.approx(float((features != 0).sum(-1).double().mean()))
    assert float(metrics["live_fraction", None][0]) == float((features != 0).any(0).double().mean())
    assert torch.allclose(reconstruction(own, x), wanted)
    assert all(torch.equal(own.state_dict()[name], weights) for name, weights in before.items())


def test_an_sae_that_adds_its_own_error_is_scored_without_it(generator):
    x, own = tokens(generator), sae(generator)
    plain = pass_through(own, x).returned
    own._use_error_term = True
    with torch.no_grad():
        assert torch.allclose(own(x), x)  # which would be a perfect score
    assert torch.equal(pass_through(own, x).returned, plain)


def test_an_isometry_has_one_score_in_both_spaces_and_a_regression_two(generator):
    x = tokens(generator)
    mix = torch.randn(D, D, generator=generator, dtype=torch.float64)
    y, own = x @ mix, sae(generator)
    moments = pair_moments(y, x)
    for name, fit in FITS.items():
        passed = pass_through(own, y, Route.of(fit(moments), fit(moments.swap())))
        there, back = explained_variance(passed.rebuilt, passed.seen), explained_variance(passed.returned, y)
        assert (abs(there - back) < 1e-9) == (name != "affine"), name


def test_the_way_back_of_a_regression_is_fitted_and_of_the_others_the_inverse(generator):
    x = tokens(generator)
    noisy = x + torch.randn(x.shape, generator=generator, dtype=torch.float64)
    moments = pair_moments(x, noisy)
    for name, fit in {**FITS, "reduced_rank": lambda given: reduced_rank(given, 3)}.items():
        there, other = fit(moments), fit(moments.swap())
        route = Route.of(there, other)
        if name in ("affine", "reduced_rank"):
            assert route.back is other
        else:
            assert torch.allclose(route.back(route.there(x)), x, atol=1e-9), name
    shrunk = Route.of(affine(moments), affine(moments.swap()))
    assert (
        shrunk.back(shrunk.there(x)).var(0).sum() < 0.4 * x.var(0).sum()
    )  # half each way; an inverse undoes it


def test_l0_and_live_features(document):
    features = torch.zeros(N, 4)
    features[:, 0] = 1
    features[: N // 2, 1] = -2  # of whatever sign
    features[3, 2] = 1e-9
    firing = Firing(BLOCKS)
    for some in torch.arange(N).split(50):
        firing.update(features[some], document[some])
    assert float(firing.l0()[0]) == pytest.approx(1.5 + 1 / N)
    assert float(firing.live_fraction()) == 0.75
    assert bounded(firing.live_fraction()) == (0.75, None, None)


def test_blocks_without_documents_do_not_count(generator):
    x = torch.randn(3, D, generator=generator, dtype=torch.float64)
    sums = Reconstruction(16)
    sums.update(x, 0.5 * x, torch.tensor([0, 5, 16]))
    assert len(sums.explained_variance("paper")) == 3  # all, and without each of the blocks 0 and 5
    alone = Reconstruction(16)
    alone.update(x, 0.5 * x, torch.tensor([3, 3, 3]))
    assert bounded(alone.explained_variance("paper"))[1:] == (None, None)


def test_sums_without_a_block_are_exact():
    sums = torch.tensor([1e20, 1.0, 2.0], dtype=torch.float64)
    assert with_and_without(sums)[1] == 3  # a difference would be 0


def test_the_mean_over_draws(generator, document):
    x = tokens(generator)
    draws = [SAEScores(BLOCKS) for _ in range(2)]
    for scores in draws:
        scores.update(sae(generator), x, document)
    key = ("explained_variance", "centred")
    wanted = (draws[0].metrics()[key] + draws[1].metrics()[key]) / 2
    assert torch.allclose(mean_metrics(draws)[key], wanted)


def test_the_pairing_gain_is_a_share_of_what_the_covariance_lacks():
    def scores(value: float) -> Tensor:
        return torch.tensor([value] * 5, dtype=torch.float64)

    own, floor = scores(0.9), scores(0.5)
    for mapped, wanted in ((0.9, 1.0), (0.5, 0.0), (0.7, 0.5), (0.1, -1.0)):
        gain = pairing_gain(scores(mapped), floor, own)
        assert gain is not None
        assert float(gain[0]) == pytest.approx(wanted)
    assert pairing_gain(scores(0.9), own, own) is None
    assert pairing_gain(scores(0.9), scores(0.95), own) is None
    unsure = torch.tensor(
        [0.9, 0.95, 0.85, 0.51, 1.2], dtype=torch.float64
    )  # above the floor, but not clearly
    assert pairing_gain(scores(0.7), floor, unsure) is None


def test_an_sae_stays_where_it_is(generator):
    own = sae(generator)
    assert placed(own, torch.device("cpu")) is own


@dataclass(frozen=True)
class ReadOut:
    """One member whose loss is the cross-entropy of a linear read-out against what it says of the true tokens."""

    x: Tensor
    document: Tensor
    weight: Tensor

    def losses(
        self, member: int, split: Split, site: str | None = None, edit: Edit | None = None
    ) -> DocumentLosses:
        labels = (self.x @ self.weight).argmax(-1)
        edited = self.x if edit is None else edit(self.x).to(self.x)
        each = torch.nn.functional.cross_entropy(edited @ self.weight, labels, reduction="none")
        total = torch.zeros(DOCUMENTS, dtype=torch.float64).index_add_(0, self.document, each)
        return DocumentLosses(total, torch.bincount(self.document, minlength=DOCUMENTS))


def test_a_perfect_reconstruction_recovers_the_loss_and_the_mean_nothing(generator, document):
    x = tokens(generator)
    source = ReadOut(x, document, torch.randn(D, 4, generator=generator, dtype=torch.float64))
    assert isinstance(source, Spliceable)
    spliced = Spliced(source, 0, "site", x.mean(0), BLOCKS)
    assert spliced.tokens == N
    for edit, recovered in ((lambda x: x, 1.0), (lambda x: x.mean(0).expand_as(x), 0.0)):
        metrics = spliced.metrics(spliced.loss(edit))
        assert float(metrics["loss_recovered", None][0]) == pytest.approx(recovered, abs=1e-12)
        lost = float(metrics["delta_ce", None][0])
        assert lost == pytest.approx(0) if recovered else lost > 0.1
    assert float(spliced.metrics(spliced.loss(lambda x: -x))["loss_recovered", None][0]) < 0


def test_nothing_is_recovered_where_ablation_costs_nothing(generator, document):
    x = tokens(generator)
    source = ReadOut(x, document, torch.zeros(D, 4, dtype=torch.float64))
    spliced = Spliced(source, 0, "site", x.mean(0), BLOCKS)
    assert spliced.metrics(spliced.loss(lambda x: x)).keys() == {("delta_ce", None)}


def test_the_loss_of_a_token_and_its_blocks():
    losses = DocumentLosses(torch.tensor([2.0, 6.0, 4.0, 0.0]), torch.tensor([1, 2, 1, 0]))
    assert token_loss(losses, 2).tolist() == [3.0, 3.0, 3.0]
    assert token_loss(losses, 3).tolist() == pytest.approx([3.0, 10 / 3, 3.0, 8 / 3])
