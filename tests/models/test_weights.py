import math

import pytest
import torch
from scipy.stats import kstest

from polymorph.models.dyck_transformer.config import FINAL_GAIN, IO_PARAMETERS, DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer, analytic_positions


def model(seed: int = 0, **config: int) -> DyckTransformer:
    return DyckTransformer(DyckTransformerConfig(**config), seed)


def test_the_papers_model_has_104448_parameters_and_one_buffer():
    counts = {name: p.numel() for name, p in model().named_parameters()}
    assert sum(counts.values()) == 104_448
    # by hand: embeddings, two blocks of QKVO, MLP and two gains, final gain, three unembeddings
    assert 104_448 == 40 * 64 + 2 * (4 * 64 * 64 + 2 * 64 * 256 + 2 * 64) + 64 + 64 * (40 + 9 + 2)
    assert set(model().state_dict()) - set(counts) == {"W_pos"}
    assert {*IO_PARAMETERS, FINAL_GAIN} <= set(counts)
    assert not any("b" in name.split(".")[-1] for name in counts)  # no biases


def test_the_position_table_is_the_papers():
    table = analytic_positions(64, 64)
    for t in range(64):
        turn = 2 * math.pi * t / 64
        wanted = [
            t / 64,
            1 / (t + 1),
            math.log(t + 1) / math.log(64),
            float(t == 0),
            math.cos(turn),
            math.sin(turn),
        ]
        assert table[t, :6].tolist() == pytest.approx(wanted, abs=1e-7)  # one float32 rounding
    assert not bool(table[:, 6:].any())
    assert torch.equal(model().W_pos, table)


def test_initial_weights_are_normal_and_gains_are_one():
    weights = [p.detach() for name, p in model().named_parameters() if not name.endswith(".w")]
    gains = [p.detach() for name, p in model().named_parameters() if name.endswith(".w")]
    assert len(gains) == 5
    assert all(bool((gain == 1).all()) for gain in gains)
    drawn = torch.cat([weight.flatten() for weight in weights]).numpy()
    # One correct seed in a million has so small a p-value; a spread 2 % too large is seen.
    assert kstest(drawn, "norm", (0, 0.02)).pvalue > 1e-6
    assert kstest(1.02 * drawn, "norm", (0, 0.02)).pvalue < 1e-3
    for weight in weights:  # each by itself: five standard errors of its standard deviation
        assert float(weight.std()) == pytest.approx(0.02, rel=5 / math.sqrt(2 * weight.numel()))


def test_no_weights_are_copies_of_each_other():
    weights = [p.detach().flatten()[:64] for name, p in model().named_parameters() if not name.endswith(".w")]
    assert len({tuple(weight.tolist()) for weight in weights}) == len(weights)


def same_bits(a: DyckTransformer, b: DyckTransformer) -> list[bool]:
    pairs = zip(a.named_parameters(), b.named_parameters(), strict=True)
    return [torch.equal(p, q) for (name, p), (_, q) in pairs if not name.endswith(".w")]


def test_a_seed_decides_every_bit_and_another_seed_every_tensor():
    torch.manual_seed(1)
    first = model(7)
    before = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert all(same_bits(first, model(7)))
    assert not any(same_bits(first, model(8)))
    assert not any(same_bits(model(0), model(1)))
    torch.manual_seed(1)
    model(3)
    assert torch.equal(torch.random.get_rng_state(), before)  # the global generator is left alone


def test_the_scale_of_the_weights_is_the_configs():
    small, large = model(0), DyckTransformer(DyckTransformerConfig(init_std=0.2), 0)
    torch.testing.assert_close(large.W_E, 10 * small.W_E)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        *(
            ({key: 0}, f"model.{key}=0")
            for key in ("n_layers", "n_heads", "d_head", "d_mlp", "d_vocab", "n_ctx", "n_depth", "n_valid")
        ),
        ({"d_model": 5}, "model.d_model=5"),
    ],
)
def test_a_wrong_architecture_is_refused_by_its_key(wrong, named):
    with pytest.raises(ValueError, match=named):
        DyckTransformerConfig(**wrong)
