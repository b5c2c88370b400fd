import pytest
import torch
from plants import activations, haar, normal

from polymorph.alignment.accumulator import pair_moments
from polymorph.alignment.families import FITS
from polymorph.alignment.fit import rotation
from polymorph.alignment.maps import Map

ALL_FITS = {**FITS, "rotation": rotation}


@pytest.fixture(params=ALL_FITS)
def fitted(request, generator) -> Map:
    return ALL_FITS[request.param](pair_moments(activations(generator), activations(generator)))


def test_the_laws_of_a_map(fitted, generator):
    x = activations(generator, n=20)
    other = ALL_FITS["affine"](pair_moments(activations(generator), activations(generator)))
    scale = {"rtol": 1e-9, "atol": 1e-9}  # condition of the weights is below 1e4
    torch.testing.assert_close(fitted.inv(fitted(x)), x, **scale)
    torch.testing.assert_close(fitted(fitted.inv(x)), x, **scale)
    torch.testing.assert_close((fitted @ other)(x), fitted(other(x)), **scale)
    torch.testing.assert_close((other @ fitted)(x), other(fitted(x)), **scale)
    torch.testing.assert_close((fitted.inv @ fitted).weight, torch.eye(8, dtype=torch.float64), **scale)
    torch.testing.assert_close(fitted.inv.inv(x), fitted(x), **scale)


def test_composition_is_not_commutative(generator):
    zero = torch.zeros(8, dtype=torch.float64)
    f, g = (Map("orthogonal", haar(generator, 8), zero, zero + 1) for _ in range(2))
    x = activations(generator)
    assert ((g @ f)(x) - (f @ g)(x)).abs().max() > 0.1


def test_a_map_is_read_back_as_it_was_written(fitted, tmp_path):
    fitted.inv.save(tmp_path / "map.safetensors")
    back = Map.load(tmp_path / "map.safetensors")
    assert back.name == fitted.name
    for key in ("weight", "mean_in", "mean_out"):
        assert torch.equal(getattr(back, key), getattr(fitted.inv, key))


def test_a_batch_of_maps_is_its_maps(generator):
    x, y = activations(generator), activations(generator)
    moments = [pair_moments(x, y), pair_moments(y, x)]
    both = moments[0]._each(lambda v: v[None]), moments[1]._each(lambda v: v[None])
    stacked = type(moments[0])(
        **{k: torch.cat([getattr(m, k) for m in both]) for k in ("n", "mean_x", "mean_y", "xx", "yy", "xy")}
    )
    for fit in ALL_FITS.values():
        batch = fit(stacked)
        torch.testing.assert_close(batch(torch.stack([x, x]))[1], fit(moments[1])(x))
        torch.testing.assert_close(batch[1].inv(x), batch.inv(torch.stack([x, x]))[1])


def test_only_isometries_may_take_the_transpose(generator):
    weight, zero = normal(generator, 4, 4), torch.zeros(4, dtype=torch.float64)
    x = normal(generator, 10, 4)
    general = Map("affine", weight, zero, zero)
    torch.testing.assert_close(general.inv(general(x)), x)
    misnamed = Map("orthogonal", weight, zero, zero)
    assert (misnamed.inv(misnamed(x)) - x).abs().max() > 0.1


def test_a_map_that_loses_dimensions_has_no_inverse(generator):
    zero = torch.zeros(4, dtype=torch.float64)
    flat = normal(generator, 4, 2) @ normal(generator, 2, 4)
    with pytest.raises(ValueError, match="rank 2 of 4"):
        _ = Map("affine", flat, zero, zero).inv
    with pytest.raises(ValueError, match="from 4 to 2"):
        _ = Map("affine", normal(generator, 4, 2), zero, zero[:2]).inv


def test_shapes_that_do_not_fit_are_refused(generator):
    zero = torch.zeros(4, dtype=torch.float64)
    with pytest.raises(Exception, match=r"mean_out|fit together"):
        Map("affine", normal(generator, 4, 2), zero, zero)
    square = Map("affine", normal(generator, 4, 4), zero, zero)
    with pytest.raises(Exception, match=r"d = 4|d_in"):
        square(normal(generator, 10, 3))
    with pytest.raises(IndexError):
        _ = square[0]


def test_dtype_follows_the_map(generator):
    zero = torch.zeros(4, dtype=torch.float64)
    f = Map("orthogonal", haar(generator, 4), zero, zero)
    x = normal(generator, 10, 4)
    assert f(x.float()).dtype == torch.float64
    assert f.to(torch.float32)(x).dtype == torch.float32
    torch.testing.assert_close(f.to(torch.float32)(x).double(), f(x), rtol=1e-5, atol=1e-5)
