"""Gradients against ablation, on models where one of them is right and the other is not."""

import pytest
import torch
from toy_models import SMALL, Toy, dyck_functions, toy_functions

from polymorph.components.ablation import ablations_of, documents_of
from polymorph.components.attribution import (
    FEWEST_POINTS,
    MOST_POINTS,
    PAPER_POINTS,
    TOLERANCE,
    attributed,
    attributions,
    integrated_roughly,
    midpoints,
    slopes_of,
)
from polymorph.models.dyck_transformer.model import DyckTransformer


def ablations(read):
    """One block that copies the first number of the stream; the loss is `read` of the copy, of 0.1 … 1 a token."""
    values = torch.linspace(0.1, 1, 10)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    toy = Toy([lambda x: x.roll(1, -1)], lambda x: read(x[..., 1]), values)
    functions = toy_functions([toy], documents=16)
    return ablations_of(functions, 0, documents_of(functions, 10**6, 8))


def found(of):
    (mlp,) = of.parts.of("mlp")
    (attribution,) = attributions(of, [mlp])
    return attribution, of.effect([mlp])


def test_on_a_linear_model_one_slope_is_the_whole_effect():
    attribution, effect = found(ablations(lambda v: 3 * v - 1))
    # the loss is near 40: its last place in float32 is 4e-6, four tokens a document
    for own in (attribution.patching, attribution.integrated, attribution.paper):
        assert own == pytest.approx(effect, abs=1e-4)
    assert attribution.points == FEWEST_POINTS
    assert float(effect.abs().max()) > 0.5


def test_on_a_saturating_model_the_slope_is_wrong_and_integrated_gradients_are_right():
    """Members are at a plateau, their mean over other tokens is not: what near convergence happens to all of them."""
    of = ablations(lambda v: torch.tanh(20 * (v - 0.75)))
    attribution, _ = found(of)
    (mlp,) = of.parts.of("mlp")
    scale = float(of.effect([mlp]).abs().sum())
    assert float((attribution.integrated - of.effect([mlp])).abs().sum()) < 0.05 * scale
    assert float((attribution.patching - of.effect([mlp])).abs().sum()) > 0.5 * scale
    assert attribution.error <= TOLERANCE


def test_points_are_doubled_until_the_error_is_small_and_the_paper_takes_the_clean_end():
    of = ablations(lambda v: torch.sigmoid(400 * (v - 0.553)))
    (mlp,) = of.parts.of("mlp")
    slopes = slopes_of(of.functions, 0, of.parts, of.documents, mlp)
    attribution, effect = found(of)
    assert attribution.points > FEWEST_POINTS
    assert attribution.error <= TOLERANCE
    assert float(attribution.integrated.sum()) == pytest.approx(float(effect.sum()), rel=TOLERANCE)
    left = slopes([j / PAPER_POINTS for j in range(PAPER_POINTS)])
    assert torch.equal(attribution.paper, left.mean(0))
    assert torch.equal(attribution.patching, slopes([0.0])[0])
    assert float(attribution.paper.sum()) != pytest.approx(float(effect.sum()), rel=TOLERANCE)


def test_where_no_number_of_points_is_enough_the_error_says_so():
    asked = []

    def slopes(points):
        asked.append(len(points))
        return torch.zeros(len(points), 5, dtype=torch.float64)

    attribution = attributed(slopes, torch.ones(5, dtype=torch.float64), 5.0)
    assert asked == [PAPER_POINTS, *(2**k for k in range(5, 11))]
    assert attribution.points == MOST_POINTS
    assert attribution.error == pytest.approx(1.0)
    small = attributed(slopes, torch.full((5,), 1e-3, dtype=torch.float64), 500.0)
    assert small.points == FEWEST_POINTS  # 0.005 of 50: small beside a tenth of the largest effect


def test_the_fewest_midpoints_are_among_the_papers_points():
    paper = [j / PAPER_POINTS for j in range(PAPER_POINTS)]
    assert midpoints(FEWEST_POINTS) == paper[1::2]
    of = ablations(lambda v: torch.tanh(3 * v))
    (mlp,) = of.parts.of("mlp")
    attribution, _ = found(of)
    assert integrated_roughly(of, [mlp])[0] == pytest.approx(attribution.integrated, abs=1e-12)


def test_every_component_of_a_transformer_agrees_with_its_ablation():
    """Of heads, MLPs, blocks and streams; slopes do not."""
    functions = dyck_functions([DyckTransformer(SMALL, 7)])
    of = ablations_of(functions, 0, documents_of(functions, 300, 4))
    for kinds in (("head", "mlp"), ("block",), ("stream",)):
        some = of.parts.of(*kinds)
        effects = [float(of.effect([c]).sum()) for c in some]
        each = attributions(of, some)
        largest = max(map(abs, effects))
        for effect, one in zip(effects, each, strict=True):
            assert abs(float(one.integrated.sum()) - effect) <= TOLERANCE * max(abs(effect), largest / 10)
        assert any(
            abs(float(one.patching.sum()) - effect) > 10 * TOLERANCE * max(abs(effect), largest / 10)
            for effect, one in zip(effects, each, strict=True)
        )
