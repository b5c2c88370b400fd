"""Laws of streaming correlation, and of what an SAE is asked."""

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from polymorph.saes.firing import AT_ONCE, Correlation, fire
from polymorph.saes.trained import TrainedSAE

N, F, G = 2 * AT_ONCE + 300, 5, 7


@pytest.fixture
def xy(generator):
    """Sparse features [N F] and [N G], some of them related, with a level far above their spread in one."""
    x = torch.randn(N, F, generator=generator).relu()
    y = torch.randn(N, G, generator=generator)
    y[:, :3] += x[:, :3]
    y = y.relu()
    x[:, 1] += 1000
    return x, y


def correlation(x, y, every, sizes=(N,)) -> Correlation:
    sums = Correlation(x.shape[1], y.shape[1] if every else None)
    for some_x, some_y in zip(x.split(list(sizes)), y.split(list(sizes)), strict=True):
        sums.update(some_x, some_y)
    return sums


def test_every_one_with_every_one_is_numpys(xy):
    x, y = xy
    wanted = np.corrcoef(x.double().numpy().T, y.double().numpy().T)[:F, F:]
    np.testing.assert_allclose(correlation(x, y, every=True).result().numpy(), wanted, atol=1e-12)


def test_one_with_one_is_the_diagonal(xy):
    x, y = xy[0], xy[1][:, :F]
    wanted = correlation(x, y, every=True).result().diagonal()
    torch.testing.assert_close(correlation(x, y, every=False).result(), wanted)
    assert float(wanted[0]) > 0.5 > float(wanted[4].abs())


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("sizes", [(1, 0, 7, N - 8), (N // 2, N - N // 2)])
def test_chunks_do_not_matter(xy, every, sizes):
    x, y = xy if every else (xy[0], xy[1][:, :F])
    whole, parts = correlation(x, y, every), correlation(x, y, every, sizes)
    torch.testing.assert_close(parts.result(), whole.result(), atol=1e-12, rtol=0)
    assert parts.n == whole.n == N
    assert torch.equal(parts.live_y, whole.live_y)


def test_dead_and_constant_features_are_0(xy):
    x, y = xy[0], xy[1][:, :F]
    x[:, 2], y[:, 3], x[:, 4] = 0, 0, 0.1
    sums = correlation(x, y, every=False, sizes=(100, N - 100))
    assert sums.result()[2:].tolist() == [0, 0, 0]
    assert float(sums.result()[0]) > 0.5
    assert sums.live_x.tolist() == [True, True, False, True, True]  # a constant one fires all the same
    assert sums.live_y.tolist() == [True, True, True, False, True]
    assert sums.live.tolist() == [True, True, False, False, True]


def test_rounding_of_a_constant_is_no_variance(generator):
    """The mean of equal numbers need not be that number."""
    x = torch.rand(50, generator=generator, dtype=torch.float64).expand(N, 50)
    assert float((x[:1000] - x[:1000].mean(0)).abs().max()) > 0
    sums = correlation(x, x, every=False, sizes=(1000, N - 1000))
    assert sums.result().tolist() == [0] * 50


def test_a_feature_with_itself_has_1_and_with_its_negative_the_opposite(xy):
    x = xy[0]
    torch.testing.assert_close(correlation(x, x, every=False).result(), torch.ones(F).double())
    torch.testing.assert_close(correlation(x, -2 * x, every=False).result(), -torch.ones(F).double())


def test_what_does_not_fit_is_refused(xy):
    x, y = xy
    for sums, a, b in (
        (Correlation(F, G), x, y[1:]),
        (Correlation(F, G), x, y[:, 1:]),
        (Correlation(F), x, y),
        (Correlation(F), x[0], x[0]),
    ):
        with pytest.raises(ValueError, match="the same tokens of"):
            sums.update(a, b)
    with pytest.raises(ValueError, match="no tokens"):
        Correlation(F).result()


@pytest.fixture
def own(generator) -> TrainedSAE:
    with torch.random.fork_rng():
        sae = StandardSAE(StandardSAEConfig(d_in=6, d_sae=10))
    sae.W_enc.data = torch.randn(6, 10, generator=generator)
    sae.b_dec.data += 1
    return TrainedSAE(sae.eval(), "standard_x8")


def test_features_are_those_of_the_sae_which_is_left_as_it_is(own, generator):
    before = {name: values.clone() for name, values in own.sae.state_dict().items()}
    x = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    found = fire(own, x)
    torch.testing.assert_close(found, ((x.float() - 1) @ own.sae.W_enc).relu().detach())
    assert not found.requires_grad
    assert all(torch.equal(values, before[name]) for name, values in own.sae.state_dict().items())


@pytest.mark.parametrize("shape", [(9, 5), (9, 7), (6,), (2, 9, 6)])
def test_activations_of_another_width_are_refused(own, shape):
    with pytest.raises(ValueError, match=r"standard_x8 reads \[n, 6\]"):
        fire(own, torch.zeros(shape))
