import pytest
import torch
from plain_transformer import gained, plain_logits

from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.tasks.dyck.task import Dyck

HEADS = {"tok": 40, "depth": 9, "valid": 2}
# Both sides are float64 with logits of order 1; rounding is about 1e-14, a wrong factor about 0.1.
CLOSE = {"rtol": 0.0, "atol": 1e-10}


@pytest.fixture(scope="module")
def model():
    return gained()


@pytest.fixture
def tokens(generator):
    return torch.randint(0, 40, (5, 64), generator=generator)


def positions_in(layout):
    """Positions of one packed row; they restart in every sequence."""
    return torch.cat([torch.arange(length).repeat(rows) for rows, length in layout])[None]


def test_logits_are_those_of_the_plain_forward_pass(model, tokens):
    logits = model(tokens)
    assert {head: value.shape for head, value in logits.items()} == {h: (5, 64, n) for h, n in HEADS.items()}
    for head, wanted in plain_logits(dict(model.state_dict()), tokens).items():
        torch.testing.assert_close(logits[head], wanted, **CLOSE)
        assert float(wanted.std()) > 0.3


@pytest.mark.parametrize(
    "name", ["W_pos", "blocks.0.ln1.w", "blocks.1.ln2.w", "ln_final.w", "blocks.1.attn.W_K"]
)
def test_every_weight_shows_in_the_logits(model, tokens, name):
    """The opposite: a plain pass with one weight altered disagrees, so agreement is not empty."""
    weights = dict(model.state_dict())
    weights[name] = weights[name] * 1.01
    difference = model(tokens)["depth"].detach() - plain_logits(weights, tokens)["depth"]
    assert float(difference.abs().max()) > 1e-4


def test_float32_logits_are_the_plain_ones_to_rounding(tokens):
    model = DyckTransformer(DyckTransformerConfig(), 3)
    wanted = plain_logits({name: w.double() for name, w in model.state_dict().items()}, tokens)
    for head, value in model(tokens).items():
        # Logits of a fresh model are of order 0.2, so this is some hundred roundings.
        torch.testing.assert_close(value.double(), wanted[head], rtol=0, atol=1e-5)


def test_other_depths_widths_and_short_rows(generator):
    model = gained(n_layers=3, d_model=10, n_heads=3, d_head=4, d_mlp=7, d_vocab=9, n_ctx=12)
    tokens = torch.randint(0, 9, (2, 5), generator=generator)
    wanted = plain_logits(dict(model.state_dict()), tokens, n_layers=3)
    for head, value in model(tokens).items():
        torch.testing.assert_close(value, wanted[head], **CLOSE)


def test_packed_rows_equal_padded_rows_token_by_token(model, generator):
    layout = ((2, 9), (1, 4), (3, 1), (2, 4))
    rows = [torch.randint(0, 9, shape, generator=generator) for shape in layout]
    tokens, positions = torch.cat([row.flatten() for row in rows])[None], positions_in(layout)
    packed = model(tokens, positions, layout)
    for head, value in packed.items():
        alone = torch.cat([model(row)[head].flatten(0, 1) for row in rows])
        torch.testing.assert_close(value[0], alone, **CLOSE)
    # The opposite: without the layout, sequences see those before them.
    assert float((model(tokens, positions)["depth"] - packed["depth"]).detach().abs().max()) > 0.01


def test_pad_at_the_end_does_not_reach_earlier_logits(model):
    batch = Dyck().batches(torch.tensor([0]), torch.tensor([0]), 4)[0][0]
    other = torch.where(batch.mask(), batch.tokens, 7)
    cut = batch.lengths.min()
    for head, value in model(batch.tokens).items():
        for changed in (model(other)[head], model(batch.tokens[:, :cut])[head]):
            mask = batch.mask()[:, : changed.shape[1]]
            torch.testing.assert_close(value[:, : changed.shape[1]][mask], changed[mask], **CLOSE)
    first = batch.tokens.clone()
    first[:, 0] = 7  # the opposite: what comes first reaches everything
    assert bool((model(first)["depth"] != model(batch.tokens)["depth"])[batch.mask()].all())


def reach(model, tokens, *where):
    """For every position, which embeddings have a gradient from its logits: [position, embedding]."""
    embedded = []

    def leaf(value, hook):
        embedded.append(value.detach().requires_grad_())
        return embedded[0]

    logits = model.run_with_hooks(tokens, *where, fwd_hooks=[("hook_embed", leaf)])
    rows = []
    for t in range(tokens.shape[1]):
        here = sum(value[0, t].square().sum() for value in logits.values())
        (gradient,) = torch.autograd.grad(here, embedded, retain_graph=True)
        rows.append(gradient[0].abs().sum(-1))
    return torch.stack(rows)


def test_no_position_sees_the_future_and_every_one_sees_all_its_past(model, tokens):
    seen = reach(model, tokens[:1, :20])
    assert bool((seen.triu(1) == 0).all())
    assert bool((seen[torch.ones(20, 20).tril().bool()] > 0).all())


def test_packed_sequences_do_not_see_each_other(model, tokens):
    layout = ((2, 5), (3, 2))
    seen = reach(model, tokens[:1, :16], positions_in(layout), layout)
    sequence = torch.tensor([0] * 5 + [1] * 5 + [2, 2, 3, 3, 4, 4])
    visible = (sequence[:, None] == sequence) & torch.ones(16, 16).tril().bool()
    assert bool(((seen > 0) == visible).all())
