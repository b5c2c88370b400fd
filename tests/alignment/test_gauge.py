"""The full gauge: what it leaves alone, that it is found again, and that what is not in it is not."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from polymorph.alignment import gauge_heads, gauge_neurons
from polymorph.alignment.gauge import Aligned, Canonical, Gauge, align, apply_gauge, random_gauge
from polymorph.alignment.gauge_measures import MAX, own_rotations, paper_mse, products, relative_mse
from polymorph.alignment.gauge_residual import eigenvector_start, matches, search
from polymorph.alignment.haar import haar
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.models.gpt_neox.config import GPTNeoXArchitecture
from polymorph.models.symmetries import Symmetries, symmetries_of

PAPER = DyckTransformerConfig()
SMALL = DyckTransformerConfig(d_model=24, n_heads=3, d_head=8, d_mlp=32)
Weights = dict[str, Tensor]
# Sums of some thousand products of size 1 in float64, through elements of condition 9.
EXACT = 1e-10


def gained(config: DyckTransformerConfig, seed: int) -> Weights:
    """Weights that are large and gains that are not 1, so that every factor shows."""
    generator = torch.Generator().manual_seed(seed)
    model = DyckTransformer(config, seed).double()
    found = {name: value.detach().clone() for name, value in model.named_parameters()}
    for name, value in found.items():
        found[name] = (
            1 + 0.3 * torch.randn(value.shape, generator=generator).double()
            if name.endswith(".w")
            else 8 * value
        )
    return found | {"W_pos": model.W_pos}


def table_of(config: DyckTransformerConfig) -> Symmetries:
    table = symmetries_of(config)
    assert table is not None
    return table


def folded(config: DyckTransformerConfig, seed: int) -> Weights:
    return table_of(config).folded(gained(config, seed))


@torch.no_grad()
def logits(config: DyckTransformerConfig, weights: Weights, dtype: torch.dtype = torch.float64) -> Tensor:
    """Of three heads on the first nine tokens, after one another."""
    tokens = torch.randint(0, 9, (6, 30), generator=torch.Generator().manual_seed(9))
    own = {name: value.to(dtype) for name, value in weights.items()}
    return torch.cat(list(functional_call(DyckTransformer(config, 0), own, (tokens,)).values()), -1)


def difference(config: DyckTransformerConfig, one: Weights, other: Weights) -> float:
    return float((logits(config, one) - logits(config, other)).abs().max())


def found_again(
    config: DyckTransformerConfig, source: Weights, target: Weights, further: Tensor | None = None
) -> tuple[Aligned, Weights]:
    """Aligned from the eigenvectors, and other starts if there are any."""
    table = table_of(config)
    blocks = (Canonical.of(weights, table, {}).blocks for weights in (source, target))
    starts = eigenvector_start(*blocks)
    starts = starts if further is None else torch.cat([starts, further])
    aligned = align(source, target, table, starts, {})
    return aligned, apply_gauge(source, table, aligned.gauge)


def worst(config: DyckTransformerConfig, one: Weights, other: Weights) -> float:
    """Bar P."""
    return paper_mse(one, other, table_of(config), {})[MAX]


def test_folding_is_the_same_function_and_needed_before_a_turn(generator: torch.Generator) -> None:
    raw, table = gained(SMALL, 0), table_of(SMALL)
    own = table.folded(raw)
    assert difference(SMALL, raw, own) < EXACT
    assert float((raw["blocks.0.attn.W_Q"] - own["blocks.0.attn.W_Q"]).abs().max()) > 0.1
    element = random_gauge(raw, table, generator)
    with pytest.raises(ValueError, match=r"blocks.0.ln1.w is not 1 everywhere: fold"):
        apply_gauge(raw, table, element)
    with pytest.raises(ValueError, match="fold the norms first"):
        Canonical.of(raw, table, {})
    turned = dict(raw)  # what the refusal is for: a gain does not commute with a rotation
    for name in ("ln_final.w", *(f"blocks.{layer}.ln{n}.w" for layer in (0, 1) for n in (1, 2))):
        turned[name] = torch.ones_like(raw[name])
    turned = apply_gauge(turned, table, element) | {n: raw[n] for n in raw if n.endswith(".w")}
    assert difference(SMALL, raw, turned) > 0.1


def test_an_element_leaves_every_logit_and_no_weight_as_it_is(generator: torch.Generator) -> None:
    own, table = folded(SMALL, 0), table_of(SMALL)
    size = float(logits(SMALL, own).abs().max())
    for _ in range(5):
        copy = apply_gauge(own, table, random_gauge(own, table, generator))
        assert difference(SMALL, own, copy) < EXACT
        assert all(float((copy[n] - own[n]).abs().max()) > 0.1 for n in own if not n.endswith(".w"))
        # Rounding weights to float32 moves logits by a few times 6e-8 of their size, layer after layer.
        single = logits(SMALL, copy, torch.float32) - logits(SMALL, own)
        assert float(single.abs().max()) < 1e-5 * size


def test_what_is_not_in_the_gauge_changes_logits(generator: torch.Generator) -> None:
    own, table = folded(SMALL, 0), table_of(SMALL)
    right = random_gauge(own, table, generator)
    (name, heads), (layer, neurons) = (next(iter(part.items())) for part in (right.heads, right.neurons))
    scale = neurons.scale.clone()
    scale[:4] *= -1
    wrong = [
        replace(right, neurons={**right.neurons, layer: replace(neurons, scale=scale)}),
        replace(right, R=right.R * (1 + 0.1 * torch.arange(SMALL.d_model)[:, None])),
    ]
    for element in wrong:
        assert difference(SMALL, own, apply_gauge(own, table, element)) > 1e-3
    plain = dict(own)  # W_K A where W_K A⁻ᵀ would be right
    plain["blocks.0.attn.W_Q"] = own["blocks.0.attn.W_Q"] @ heads.A
    plain["blocks.0.attn.W_K"] = own["blocks.0.attn.W_K"] @ heads.A
    assert name == "blocks.0.attn"
    assert difference(SMALL, own, plain) > 1e-3


def planted(own: Weights, seed: int) -> tuple[Gauge, Weights]:
    table = table_of(PAPER)
    element = random_gauge(own, table, torch.Generator().manual_seed(seed))
    return element, apply_gauge(own, table, element)


def recovers(own: Weights, seed: int) -> bool:
    _, copy = planted(own, seed)
    _, back = found_again(PAPER, copy, own)
    return worst(PAPER, back, own) < 1e-10 and difference(PAPER, back, own) < 1e-5


def test_a_copy_is_found_again_with_every_part_of_its_element() -> None:
    own, table = folded(PAPER, 1), table_of(PAPER)
    for seed in range(10):
        element, copy = planted(own, seed)
        aligned, back = found_again(PAPER, copy, own)
        # Squares of rounding errors, of weights of size 1, through factors of condition 9.
        assert worst(PAPER, back, own) < 1e-20
        assert difference(PAPER, back, own) < EXACT
        assert float(aligned.similarity.max()) == pytest.approx(1, abs=1e-12)
        eye = torch.eye(PAPER.d_model, dtype=torch.float64)
        torch.testing.assert_close(element.R @ aligned.gauge.R, eye, rtol=0, atol=1e-10)
        for layer in table.heads:
            order = element.heads[layer.name].order[aligned.gauge.heads[layer.name].order]
            assert order.tolist() == [0, 1, 2, 3]
        for of in table.neurons:
            order = element.neurons[of.name].order[aligned.gauge.neurons[of.name].order]
            assert torch.equal(order, torch.arange(PAPER.d_mlp))


@pytest.mark.slow
def test_99_of_100_copies_are_found_again() -> None:
    own = folded(PAPER, 2)
    assert sum(recovers(own, 100 + draw) for draw in range(100)) >= 99


def test_r_transposed_is_wrong_and_far_from_0() -> None:
    """What the paper's code does: the difference stays, however good the search was."""
    own, table = folded(PAPER, 1), table_of(PAPER)
    _, copy = planted(own, 0)
    aligned, back = found_again(PAPER, copy, own)
    transposed = replace(aligned.gauge, R=aligned.gauge.R.mT.contiguous())
    wrong = apply_gauge(copy, table, transposed)
    assert worst(PAPER, back, own) < 1e-20
    assert worst(PAPER, wrong, own) > 0.01
    relative = relative_mse(products(wrong, table, {}), products(own, table, {}))
    assert relative["blocks.0.attn.qk"] == pytest.approx(2, abs=0.3)  # of no relation at all


def test_a_copy_with_noise_is_found_up_to_its_noise(generator: torch.Generator) -> None:
    own, table = folded(PAPER, 1), table_of(PAPER)
    element, copy = planted(own, 3)
    noisy = {n: w + 0.02 * w.std() * torch.randn(w.shape, generator=generator) for n, w in copy.items()}
    noisy |= {name: own[name] for name in own if name.endswith(".w")}
    aligned, back = found_again(PAPER, noisy, own)
    assert float(aligned.similarity.max()) > 0.999
    relative = relative_mse(products(back, table, {}), products(own, table, {}))
    # Each factor of a product brings 0.02² of its own squares, and elements of condition 9 stretch those.
    assert 1e-5 < relative[MAX] < 0.05
    off = element.R @ aligned.gauge.R - torch.eye(PAPER.d_model, dtype=torch.float64)
    assert float(off.norm()) < 0.02 * PAPER.d_model**0.5


def test_unrelated_models_and_scattered_ones_are_not_found(generator: torch.Generator) -> None:
    own, other, table = folded(PAPER, 1), folded(PAPER, 2), table_of(PAPER)
    scattered = own_rotations(own, table, generator)
    for source in (other, scattered):
        aligned, back = found_again(PAPER, source, own, haar(PAPER.d_model, 1, generator))
        assert aligned.similarity.max() < 0.8
        assert worst(PAPER, back, own) > 1e-3
        assert relative_mse(products(back, table, {}), products(own, table, {}))[MAX] > 0.5
        assert difference(PAPER, source, back) < EXACT  # whatever is found is an element


def test_scattered_models_keep_the_spectrum_of_every_weight_and_not_their_function(
    generator: torch.Generator,
) -> None:
    own, table = folded(SMALL, 0), table_of(SMALL)
    scattered = own_rotations(own, table, generator)
    for name in (n for n in own if not n.endswith(".w")):
        spectra = [torch.linalg.svdvals(weights[name]) for weights in (own, scattered)]
        torch.testing.assert_close(*spectra, rtol=0, atol=1e-10)
    assert difference(SMALL, own, scattered) > 0.1


def test_no_round_lowers_the_similarity(generator: torch.Generator) -> None:
    table = table_of(SMALL)
    source, target = (Canonical.of(folded(SMALL, seed), table, {}).blocks.unit() for seed in (1, 2))
    found = matches(source, target, haar(SMALL.d_model, 8, generator))
    for _ in range(20):
        after = matches(source, target, found.R)
        assert bool((after.similarity >= found.similarity - 1e-12).all())
        found = after
    started = haar(SMALL.d_model, 8, generator)
    whole = search(source, target, started)
    assert bool((whole.similarity >= matches(source, target, started).similarity - 1e-12).all())


def test_similarity_is_the_mean_cosine_of_the_aligned_models(generator: torch.Generator) -> None:
    """Computed once more, from the weights that the element gives."""
    table = table_of(SMALL)
    source, target = folded(SMALL, 1), folded(SMALL, 2)
    aligned, back = found_again(SMALL, source, target)
    moved, own = (Canonical.of(weights, table, {}).blocks.unit() for weights in (back, target))
    cosines = [float((moved.rows[name] * rows).sum()) for name, rows in own.rows.items()]
    cosines += [float((moved.neurons[name] * both).sum()) for name, both in own.neurons.items()]
    in_order = torch.arange(SMALL.n_heads)
    for name, both in own.heads.items():
        overlap = gauge_heads.overlaps(moved.heads[name][None], both)
        turns = gauge_heads.turns(overlap, in_order[None])[0]
        cosines += (overlap[0, :, in_order, in_order] * turns).sum((1, 2, 3)).tolist()
    assert len(cosines) == own.groups
    # Heads are turned once more here, after the last R: a start ends when that gains less than 1e-5.
    assert 0 <= sum(cosines) / len(cosines) - float(aligned.similarity.max()) < 1e-5


def test_factors_are_balanced_whatever_gauge_they_come_in(generator: torch.Generator) -> None:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    left, right, A = normal(3, 20, 5), normal(3, 20, 5), normal(3, 5, 5)
    pair, own = gauge_heads.balanced(left, right, "layer")
    again, _ = gauge_heads.balanced(left @ A, right @ torch.linalg.inv(A).mT, "layer")
    product = pair[:, :, 0].mT @ pair[:, :, 1]
    torch.testing.assert_close(product, left @ right.mT, rtol=0, atol=1e-10)
    torch.testing.assert_close(pair[:, :, 0] @ pair[:, :, 0].mT, pair[:, :, 1] @ pair[:, :, 1].mT)
    torch.testing.assert_close(left @ own, pair[:, :, 0].mT, rtol=0, atol=1e-10)
    # One head, up to a sign of every column: the Grams of the stacked factors agree.
    grams = [x.flatten(-2).mT @ x.flatten(-2) for x in (pair, again)]
    torch.testing.assert_close(*grams, rtol=0, atol=1e-9)
    unbalanced = torch.stack([left.mT, right.mT], -2).flatten(-2)
    assert float((unbalanced.mT @ unbalanced - grams[0]).abs().max()) > 0.1


@pytest.mark.parametrize("k", [5, 30])
def test_heads_without_full_rank_are_refused(generator: torch.Generator, k: int) -> None:
    left, right = (torch.randn(2, 20, k, generator=generator, dtype=torch.float64) for _ in range(2))
    if k == 5:
        right[1, :, 2] = right[1, :, 0]
    with pytest.raises(ValueError, match=f"a head of blocks.3.attn has a product of rank below d_head={k}"):
        gauge_heads.balanced(left, right, "blocks.3.attn")


def test_neurons_have_one_length_and_dead_ones_none(generator: torch.Generator) -> None:
    into = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    out_of = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    into[:, 2], out_of[3] = 0, 0
    pair, scale = gauge_neurons.balanced(into, out_of)
    torch.testing.assert_close(pair[:2, 0].norm(dim=-1), pair[:2, 1].norm(dim=-1))
    torch.testing.assert_close(into[:, :2] * scale[:2], pair[:2, 0].mT)
    assert float(pair[2:].abs().max()) == 0
    assert scale[2:].tolist() == [1, 1]
    scaled = torch.tensor([2.0, 0.1, 5.0, 3.0], dtype=torch.float64)
    again, _ = gauge_neurons.balanced(into * scaled, out_of / scaled[:, None])
    torch.testing.assert_close(again, pair)


def test_relative_differences_have_their_anchors_and_see_no_gauge(generator: torch.Generator) -> None:
    own, table = folded(SMALL, 0), table_of(SMALL)
    target = products(own, table, {})
    assert relative_mse(target, target)[MAX] == 0
    zeros = {name: torch.zeros_like(value) for name, value in target.items()}
    assert set(relative_mse(zeros, target).values()) == {1.0}
    other = relative_mse(products(folded(SMALL, 5), table, {}), target)
    assert other["mean"] > 1.3
    still = random_gauge(own, table, generator)
    heads = {n: replace(h, order=torch.arange(3)) for n, h in still.heads.items()}
    neurons = {n: replace(of, order=torch.arange(32)) for n, of in still.neurons.items()}
    inside = apply_gauge(own, table, Gauge(torch.eye(24, dtype=torch.float64), heads, neurons))
    assert relative_mse(products(inside, table, {}), target)[MAX] < 1e-20
    assert worst(SMALL, inside, own) > 0.01  # which the paper's formula does see
    assert worst(SMALL, own, own) == 0


def test_the_paper_s_number_has_the_units_of_weights_and_the_default_has_none() -> None:
    table = table_of(SMALL)
    one, other = folded(SMALL, 0), folded(SMALL, 1)
    smaller = [{n: w if n.endswith(".w") else w / 10 for n, w in each.items()} for each in (one, other)]
    assert worst(SMALL, *smaller) == pytest.approx(worst(SMALL, one, other) / 100)
    relative = [relative_mse(*(products(w, table, {}) for w in pair)) for pair in ((one, other), smaller)]
    assert relative[0] == pytest.approx(relative[1])


def changed(weights: Weights, name: str, change: Callable[[Tensor], object]) -> Weights:
    other = {**weights, name: weights[name].clone()}
    change(other[name])
    return other


def test_only_what_occurs_counts() -> None:
    table, own = table_of(SMALL), folded(SMALL, 0)
    used = {"W_E": torch.arange(1, 9), "unembed.tok.W_U": torch.arange(1, 9)}
    unseen = changed(own, "W_E", lambda rows: rows[20].add_(5))
    unsaid = changed(own, "unembed.tok.W_U", lambda classes: classes[:, 20].add_(5))
    for other in (unseen, unsaid):
        assert relative_mse(*(products(w, table, used) for w in (other, own)))[MAX] == 0
        assert paper_mse(other, own, table, used)[MAX] == 0
        assert relative_mse(*(products(w, table, {}) for w in (other, own)))[MAX] > 0
    seen = changed(own, "W_E", lambda rows: rows[3].add_(5))
    assert relative_mse(*(products(w, table, used) for w in (seen, own)))["W_E"] > 0.1


def test_a_constant_for_all_classes_changes_no_probability_and_no_relative_difference() -> None:
    table, own = table_of(SMALL), folded(SMALL, 0)
    other = changed(own, "unembed.depth.W_U", lambda classes: classes.add_(1))
    assert relative_mse(*(products(w, table, {}) for w in (other, own)))[MAX] < 1e-20
    assert worst(SMALL, other, own) == pytest.approx(1)
    assert difference(SMALL, other, own) > 0.1


def test_without_following_r_stays_as_it_starts(generator: torch.Generator) -> None:
    table, own = table_of(SMALL), folded(SMALL, 0)
    element = random_gauge(own, table, generator)
    copy = apply_gauge(own, table, element)
    right = align(copy, own, table, element.R.mT[None].contiguous(), {}, follow=False)
    assert torch.equal(right.gauge.R, element.R.mT)
    assert worst(SMALL, apply_gauge(copy, table, right.gauge), own) < 1e-20
    (start,) = haar(SMALL.d_model, 1, generator)
    wrong = align(copy, own, table, start[None], {}, follow=False)
    assert torch.equal(wrong.gauge.R, start)
    assert worst(SMALL, apply_gauge(copy, table, wrong.gauge), own) > 0.01


def test_there_is_a_table_only_where_it_is_exact() -> None:
    assert symmetries_of(GPTNeoXArchitecture()) is None
    table = table_of(PAPER)
    named = {name for norm in table.norms for name in (norm.gain, *norm.read_by)}
    named |= {
        *table.writes,
        *table.reads,
        *(h.output for h in table.heads),
        *(n.out_of for n in table.neurons),
    }
    model = DyckTransformer(PAPER, 0)
    assert named == {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
