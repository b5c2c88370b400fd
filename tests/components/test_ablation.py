"""Components held at their means, against models whose losses are known."""

import pytest
import torch
from toy_models import SMALL, Toy, dyck_functions, table, toy_functions

from polymorph.components.ablation import (
    ablations_of,
    component_names,
    documents_of,
    kinds_of,
    parts_of,
)
from polymorph.components.naming import PARTS, points_of
from polymorph.errors import RequestError
from polymorph.models.dyck_transformer.model import DyckTransformer


def two_blocks() -> Toy:
    first, second = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(2)).unbind()
    return Toy([lambda x: x @ first, lambda x: x @ second], lambda x: x.sum(-1), table())


def test_components_are_named_in_the_order_of_the_computation():
    functions = dyck_functions([DyckTransformer(SMALL, 0)])
    parts = parts_of(functions, 0)
    assert [c.name for c in parts.of(*PARTS)] == [
        *("L0H0", "L0H1", "L0H2", "L0H3", "L0MLP"),
        *("L1H0", "L1H1", "L1H2", "L1H3", "L1MLP"),
    ]
    assert [(c.name, c.kind) for c in parts.of("block", "stream")] == [
        *(("L0", "block"), ("L0", "stream"), ("L1", "block"), ("L1", "stream"))
    ]
    assert list(kinds_of(parts.components)) == ["parts", "block", "stream"]
    parts_and_blocks = [*(c.name for c in parts.of(*PARTS)), "L0", "L1"]
    assert sorted(component_names(functions, 0)) == sorted(parts_and_blocks)


def test_a_model_without_components_is_refused_naming_its_hook_points():
    empty = Toy([], lambda x: x.sum(-1), table())
    with pytest.raises(RequestError, match=r"no component was found.*the hook points are none"):
        points_of(empty)


def test_what_is_ablated_is_at_its_mean_over_the_fit_split():
    """A block's contribution is replaced with the stream before it going on; a stream with all that came before it."""
    toy = two_blocks()
    functions = toy_functions([toy])
    ablations = ablations_of(functions, 0, documents_of(functions, 10**6, 8))
    (fit,), (held,) = functions.inputs("fit"), functions.inputs("eval")

    def streams(chunk):
        x = toy.table[chunk.arguments[0]]
        one = x @ torch.eye(3) + toy.blocks[0].add(x)
        return x, one, one + toy.blocks[1].add(one)

    before, after, _ = (own[fit.kept].mean(0) for own in streams(fit))
    x, one, two = streams(held)
    moved = {
        ("L0", "block"): x + (after - before),
        ("L0", "stream"): after.expand_as(one),
        ("L0MLP", "mlp"): x + (after - before),
    }
    for component in ablations.parts.components:
        if (component.name, component.kind) in moved:
            own = moved[component.name, component.kind]
            changed = (own + toy.blocks[1].add(own) - two).sum(-1)[held.kept]
            expected = torch.zeros(8).index_add(0, held.document, changed)
            # losses are near 160 a document: their last place in float32 is 1.5e-5
            assert ablations.effect([component]) == pytest.approx(expected.double(), abs=2e-4)
    last = next(c for c in ablations.parts.components if (c.name, c.kind) == ("L1", "stream"))
    per_token = ablations.total([last]) / ablations.documents.tokens
    assert per_token == pytest.approx(float(per_token[0]), abs=1e-5)  # nothing of a document is left
    block = next(c for c in ablations.parts.components if (c.name, c.kind) == ("L1", "block"))
    assert float((ablations.total([block]) / ablations.documents.tokens).std()) > 0.1


def test_heads_are_replaced_one_by_one_and_together():
    functions = dyck_functions([DyckTransformer(SMALL, 5)])
    ablations = ablations_of(functions, 0, documents_of(functions, 400, 2))
    heads = [c for c in ablations.parts.of("head") if c.layer == 0]
    mean = ablations.parts.means["blocks.0.attn.hook_z"].float()
    for some in ([heads[2]], heads[1:], heads):
        chosen = [c.head for c in some]

        def replaced(values, hook, chosen=chosen):
            values = values.clone()
            values[..., chosen, :] = mean[chosen]
            return values

        expected = torch.zeros(len(ablations.documents.tokens), dtype=torch.float64)
        for chunk in ablations.documents.chunks:
            logits = functions.hooked_logits(0, chunk, [("blocks.0.attn.hook_z", replaced)])
            for head, own in logits.items():
                label = chunk.labels[head][chunk.kept]
                each = torch.nn.functional.cross_entropy(own, label, reduction="none").double()
                expected.index_add_(0, chunk.document, each)
        assert ablations.total(some) == pytest.approx(expected, rel=1e-5)  # sums of float32 losses
    assert ablations.effect(heads[::-1]) is not None
    assert torch.equal(ablations.effect(heads), ablations.effect(heads[::-1]))
    assert float(ablations.effect(heads[:1]).abs().sum()) > 0


def test_nothing_ablated_has_no_effect_and_observing_changes_nothing():
    model = DyckTransformer(SMALL, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    functions = dyck_functions([model])
    ablations = ablations_of(functions, 0, documents_of(functions, 200, 2))
    ablations.effect(ablations.parts.of("mlp"))
    assert float(ablations.effect([]).abs().max()) == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(point.has_hooks(dir="both") for point in model.hook_dict.values())


def test_documents_are_whole_few_and_never_fewer_than_asked():
    functions = dyck_functions([DyckTransformer(SMALL, 0)])
    some, least, every = (documents_of(functions, *of) for of in ((200, 2), (1, 5), (10**6, 2)))
    assert some.n_tokens <= 200 < some.n_tokens + 64
    assert len(least.tokens) == 5
    assert len(every.tokens) == 24
    assert torch.equal(every.tokens[: len(some.tokens)], some.tokens)  # the first ones
