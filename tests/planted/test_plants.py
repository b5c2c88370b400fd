"""Planted cohorts are what they say: the same whenever they are read, and related by the maps they claim."""

import math

import pytest
import torch
from torch import Tensor

from polymorph.alignment.accumulator import pair_moments
from polymorph.evidence.planted import KINDS, SITE, Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.models.activations import ActivationSource

SHARED = [kind for kind in KINDS if kind not in ("unrelated", "partial", "bent")]
ORTHOGONAL = [kind for kind in SHARED if kind not in ("affine", "similarity")]
SMALL = {"d": 12, "members": 3, "documents": 32, "tokens": 8, "rank": 5, "pinned": 4, "axes": 3}


def planted(kind: str, **settings: float) -> Planted:
    return Planted(kind, PlantedConfig(**(SMALL | settings)))


def values(source: Planted, split: str = "fit") -> Tensor:
    """All tokens of a split [members n d]."""
    return torch.cat([chunk.values[SITE] for chunk in source.chunks(split)], dim=1)


def covariance(x: Tensor) -> Tensor:
    return torch.cov(x.mT)


# The same whenever it is read.


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_function_of_kind_and_config(kind):
    first, again = planted(kind), planted(kind)
    assert torch.equal(values(first), values(again))
    assert first.identity() == again.identity()
    assert isinstance(first, ActivationSource)
    assert values(first).dtype == torch.float64
    assert values(first).shape == (3, 32 * 8, 12)


@pytest.mark.parametrize("change", [{"seed": 1}, {"seed": 2**32 - 1}, {"noise": 0.02}, {"d": 13}])
def test_another_config_is_another_cohort(change):
    one, other = planted("rotated"), planted("rotated", **change)
    assert one.identity() != other.identity()
    assert values(one).shape != values(other).shape or not torch.equal(values(one), values(other))


def test_settings_of_other_kinds_have_no_effect():
    one, other = planted("rotated"), planted("rotated", rank=2, pinned=1, axes=1, condition=9, share=0.1)
    assert torch.equal(values(one), values(other))


def test_chunks_read_twice_are_identical_and_hold_whole_documents():
    source = planted("rotated", documents=300, tokens=5, d=4)
    sizes = []
    for one, again in zip(source.chunks("fit"), source.chunks("fit"), strict=True):
        assert torch.equal(one.values[SITE], again.values[SITE])
        assert torch.equal(one.document, again.document)
        assert one.position.tolist() == list(range(5)) * len(one.document.unique())
        sizes.append(len(one.document.unique()))
    documents = torch.cat([chunk.document for chunk in source.chunks("fit")])
    assert len(sizes) > 1
    assert documents.tolist() == torch.arange(300).repeat_interleave(5).tolist()
    assert source.documents == {"fit": 300, "eval": 300}


def test_the_splits_are_different_tokens():
    source = planted("rotated", documents=600, d=4)
    fit, score = values(source, "fit"), values(source, "eval")
    assert not torch.isclose(fit[0], score[0]).any(-1).any()
    chunks = [chunk.values[SITE][0] for chunk in source.chunks("fit")]
    assert not torch.isclose(chunks[0], chunks[1]).all()


# The planted truth.


@pytest.mark.parametrize("kind", SHARED)
def test_without_noise_the_map_takes_one_member_to_another(kind):
    source = planted(kind, noise=0.0)
    truth, x = source.truth, values(source)
    for i, j in [(0, 1), (2, 0), (1, 2)]:
        turn = torch.linalg.solve(truth.weights[i], truth.weights[j])
        moved = (x[i] - truth.means[i]) @ turn + truth.means[j]
        assert torch.allclose(moved, x[j], rtol=0, atol=1e-11)
        if kind in ORTHOGONAL:
            assert torch.allclose(turn, truth.rotation(i, j), atol=1e-12)
    assert float((truth.means[0] - truth.means[1]).norm()) > 0.1


@pytest.mark.parametrize("kind", ORTHOGONAL)
@pytest.mark.parametrize("seed", range(4))
def test_weights_of_isometries_are_orthogonal(kind, seed):
    source = planted(kind, seed=seed)
    for W in source.truth.weights:
        assert torch.allclose(W @ W.mT, torch.eye(12, dtype=torch.float64), atol=1e-12)
    signs = [float(torch.linalg.det(source.truth.rotation(0, i))) for i in range(3)]
    if kind == "reflected":
        assert signs == pytest.approx([1, -1, 1])
    elif kind != "privileged":  # a signed permutation has either sign
        assert signs == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("d", [2, 7, 16])
def test_rotations_are_not_near_one_another(d):
    truth = planted("rotated", d=d, rank=1, pinned=1, axes=1).truth
    assert float((truth.rotation(0, 1) - torch.eye(d)).norm()) > 0.1
    assert float((truth.rotation(0, 1) - truth.rotation(1, 2)).norm()) > 0.1


@pytest.mark.parametrize("kind", ["rotated_low_rank", "same_basis_low_rank"])
@pytest.mark.parametrize("rank", [1, 5, 12])
def test_the_rank_is_that_of_every_covariance(kind, rank):
    source = planted(kind, rank=rank, noise=0.0)
    for x in values(source):
        assert int(torch.linalg.matrix_rank(covariance(x), rtol=1e-12)) == rank


@pytest.mark.parametrize("kind", ["same_basis", "same_basis_low_rank"])
def test_the_same_basis_is_the_identity_between_members(kind):
    truth = planted(kind).truth
    assert torch.allclose(truth.rotation(0, 2), torch.eye(12, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "low_rank" not in kind])
def test_all_others_have_full_rank(kind):
    for x in values(planted(kind, noise=0.0)):
        assert int(torch.linalg.matrix_rank(covariance(x), rtol=1e-6)) == 12


@pytest.mark.parametrize("k", [1, 4, 12])
def test_pinned_dimensions_are_no_special_axes(k):
    R = planted("pinned", pinned=k).truth.rotation(0, 1)
    fixed = torch.linalg.svdvals(R - torch.eye(12, dtype=torch.float64)) < 1e-10
    assert int(fixed.sum()) == k + (12 - k) % 2  # a rotation of an odd dimension always has an axis
    assert k == 12 or float(R.abs().max()) < 1 - 1e-3


@pytest.mark.parametrize("k", [1, 4, 12])
def test_privileged_axes_are_permuted_and_flipped(k):
    truth = planted("privileged", axes=k).truth
    for i, j in [(0, 1), (1, 2)]:
        R = truth.rotation(i, j).abs()
        assert int((R > 1 - 1e-10).sum()) == k
        block = R[:k, :k]
        assert torch.allclose(block.sum(0), torch.ones(k, dtype=torch.float64), atol=1e-10)
    assert k == 1 or not torch.allclose(truth.rotation(0, 1), torch.eye(12, dtype=torch.float64), atol=0.1)


@pytest.mark.parametrize("d", [12, 13])
def test_blocks_do_not_mix(d):
    R = planted("block_diagonal", d=d).truth.rotation(0, 2)
    assert float(R[: d // 2, d // 2 :].abs().max()) < 1e-12
    assert float(R[: d // 2, : d // 2].abs().max()) < 1 - 1e-3


@pytest.mark.parametrize("condition", [1.0, 1.5, 3.0, 9.0])
@pytest.mark.parametrize("d", [12, 32])
def test_affine_maps_have_their_condition_between_every_two_members(condition, d):
    truth = planted("affine", condition=condition, d=d, members=4).truth
    for i, j in [(0, 1), (0, 3), (2, 1)]:
        logs = torch.linalg.svdvals(torch.linalg.solve(truth.weights[i], truth.weights[j])).log()
        assert float(logs.var(correction=0)) == pytest.approx(math.log(condition) ** 2 / 12, abs=1e-12)
        assert float(logs.sum()) == pytest.approx(0, abs=1e-10)  # no change of size
        if condition > 1:
            assert 0.7 < float(logs.max() - logs.min()) / math.log(condition) < 1.2


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_members_of_a_similarity_grow_by_the_scale(scale):
    source = planted("similarity", scale=scale, noise=0.0)
    sizes = [float(covariance(x).trace().sqrt()) for x in values(source)]
    assert [sizes[1] / sizes[0], sizes[2] / sizes[1]] == pytest.approx([scale, scale])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_a_share_of_the_variance_is_a_rotated_copy(share):
    source = planted("partial", share=share, noise=0.0, documents=400)
    truth, x = source.truth, values(source)
    back = [(own - mean) @ W.mT for own, mean, W in zip(x, truth.means, truth.weights, strict=True)]
    assert torch.allclose(back[0][:, :6], back[1][:, :6], atol=1e-11)
    variance = covariance(back[0]).diagonal()
    assert float(variance[:6].sum() / variance.sum()) == pytest.approx(share, abs=0.03)
    if share < 1:
        cross = torch.corrcoef(torch.cat([back[0][:, 6:], back[1][:, 6:]], dim=1).mT)[:6, 6:]
        assert float(cross.abs().max()) < 0.2  # of 36 correlations between 400 documents


def test_unrelated_members_have_one_spectrum_and_nothing_in_common():
    source = planted("unrelated", documents=800, noise=0.0)
    x = values(source)
    spectra = [torch.linalg.eigvalsh(covariance(own)) for own in x]
    assert torch.allclose(spectra[0], spectra[1], rtol=0.25)
    together = pair_moments(x[0], x[1])
    sizes = together.xx.diagonal().sum() * together.yy.diagonal().sum()
    assert float(together.xy.norm() / sizes.sqrt()) < 0.1


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_share_of_a_bent_copy_is_linear_and_the_rest_is_uncorrelated_with_everything(share):
    source = planted("bent", share=share, noise=0.0, documents=2000)
    truth, x = source.truth, values(source)
    back = [(own - mean) @ W.mT for own, mean, W in zip(x, truth.means, truth.weights, strict=True)]
    first, second = back[0] / truth.spectrum, back[1] / truth.spectrum
    assert float(covariance(first).diagonal().mean()) == pytest.approx(1, abs=0.06)
    cross = torch.cov(torch.cat([first, second], dim=1).mT)[:12, 12:]
    assert float(cross.diagonal().mean()) == pytest.approx(share, abs=0.05)
    assert float((cross - cross.diagonal().diag()).abs().max()) < 0.12


def test_a_bent_copy_takes_enough_dimensions():
    with pytest.raises(ValueError, match=r"planted\.d above 6 for 3 members"):
        values(planted("bent", d=6))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bent"])
def test_tokens_of_a_document_are_correlated(kind):
    x = values(planted(kind, documents=400, noise=0.0))[0].unflatten(0, (400, 8))
    x = x - x.mean((0, 1))
    within = (x - x.mean(1, keepdim=True)).square().sum() / 7
    between = 8 * x.mean(1).square().sum()
    correlation = (between - within) / (between + 7 * within)
    assert float(correlation) == pytest.approx(0.3, abs=0.07)


def test_position_explains_its_share_in_every_member_alike():
    source = planted("unrelated", position=0.6, documents=400, noise=0.0)
    x = values(source).unflatten(1, (400, 8))
    mean = x.mean(1)
    explained = mean.var(1, correction=0).sum(-1) / x.flatten(1, 2).var(1, correction=0).sum(-1)
    assert explained.tolist() == pytest.approx([0.6] * 3, abs=0.15)  # eight positions are drawn, no more
    back = [own @ W.mT for own, W in zip(mean, source.truth.weights, strict=True)]
    centred = [own - own.mean(0) for own in back]
    assert float((centred[0] - centred[1]).norm() / centred[0].norm()) < 0.2


@pytest.mark.parametrize("kind", ["rotated", "similarity", "rotated_low_rank", "affine"])
@pytest.mark.parametrize("noise", [0.01, 0.15])
def test_noise_is_relative_to_the_size_of_the_member_and_its_own(kind, noise):
    with_noise, without = planted(kind, noise=noise, documents=400), planted(kind, noise=0.0, documents=400)
    x, signal = values(with_noise), values(without)
    extra = x - signal
    size = (signal - signal.mean(1, keepdim=True)).square().mean((1, 2)).sqrt()
    relative = extra.square().mean((1, 2)).sqrt() / size
    assert relative.tolist() == pytest.approx([noise] * 3, rel=0.05)
    assert float(torch.corrcoef(extra.flatten(1)).fill_diagonal_(0).abs().max()) < 0.03
    assert float(extra.mean(1).abs().max()) < 0.2 * noise * float(size.max())


# What is refused.

WRONG = {
    "one dimension": ({"d": 1}, r"planted\.d=1"),
    "no members": ({"members": 0}, "members=0"),
    "no documents": ({"documents": 0}, "documents=0"),
    "no tokens": ({"tokens": 0}, "tokens=0"),
    "no rank": ({"rank": 0}, r"planted\.rank=0: at least 1"),
    "nothing pinned": ({"pinned": 0}, r"planted\.pinned=0: at least 1"),
    "no axes": ({"axes": -2}, r"planted\.axes=-2: at least 1"),
    "noise below zero": ({"noise": -0.1}, r"planted\.noise=-0\.1: from 0"),
    "noise above the signal": ({"noise": 1.5}, r"planted\.noise=1\.5: from 0"),
    "noise that is not a number": ({"noise": math.nan}, r"planted\.noise=nan"),
    "more than all": ({"share": 1.1}, r"planted\.share=1\.1: from 0 to 1"),
    "nothing but position": ({"position": 1.0}, r"planted\.position=1\.0"),
    "a condition below one": ({"condition": 0.5}, r"planted\.condition=0\.5"),
    "no size": ({"scale": 0.0}, r"scale=0\.0"),
    "a negative seed": ({"seed": -1}, r"planted\.seed=-1: from 0"),
    "too large a seed": ({"seed": 2**32}, r"planted\.seed=4294967296"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_config_is_refused(what):
    settings, expected = WRONG[what]
    with pytest.raises(ValueError, match=expected):
        PlantedConfig(**settings)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("rotated_low_rank", "rank"),
        ("same_basis_low_rank", "rank"),
        ("pinned", "pinned"),
        ("privileged", "axes"),
    ],
)
def test_more_dimensions_than_there_are_cannot_be_planted(kind, key):
    with pytest.raises(ValueError, match=rf"planted\.{key}=13: from 1 to planted\.d=12"):
        planted(kind, **{key: 13})
    planted(kind, **{key: 12})
    planted("rotated", **{key: 13})  # which does not use it


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"planted:rotatd \(did you mean 'rotated'\?\): one of rotated, reflected"
    ):
        Planted("rotatd")
