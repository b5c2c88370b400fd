"""Members with a few huge axes that are known, and members without any."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from one_sided import given
from torch import Tensor

from polymorph.alignment import fit_orthogonal
from polymorph.alignment.accumulator import pair_moments
from polymorph.alignment.axes import Axes, without
from polymorph.alignment.moments import explained_variance
from polymorph.errors import RunError
from polymorph.evidence.evidence import Evidence, planted_evidence
from polymorph.evidence.pairs import pairs_of
from polymorph.evidence.planted import SITE, Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import Row, table
from polymorph.models.activations import Activations, Split
from polymorph.models.architecture import mean_free_basis
from polymorph.saes.trained import GivenDictionaries
from polymorph.studies.ladder.rows import study_rows as ladder_of
from polymorph.studies.massive_activations import rows as massive_activations
from polymorph.studies.massive_activations.rows import study_rows as massive_activation_rows
from polymorph.studies.registry import STUDIES
from polymorph.studies.tables import study_tables

D, MEMBERS, DOCUMENTS, LENGTH = 16, 3, 96, 8
HUGE = 5


@dataclass(frozen=True)
class Stream:
    """One signal, turned by each member on all axes but the huge ones, which are the same in all.

    `huge` maps an axis to its size; `own` gives one more to single members. Read in the coordinates, if any.
    """

    huge: Mapping[int, float]
    own: Mapping[int, tuple[int, float]] | None = None
    mean_free: bool = False
    sites: Sequence[str] = (SITE,)

    @property
    def documents(self) -> Mapping[Split, int]:
        return {"fit": DOCUMENTS, "eval": DOCUMENTS}

    @property
    def coordinates(self) -> Tensor | None:
        return mean_free_basis(D) if self.mean_free else None

    def raw(self, split: Split) -> Tensor:
        generator = torch.Generator().manual_seed(3 + (split == "eval"))
        signal = torch.randn(DOCUMENTS * LENGTH, D, generator=generator, dtype=torch.float64)
        sizes = torch.tensor([self.huge.get(axis, 1.0) for axis in range(D)])
        others = torch.tensor([axis for axis in range(D) if axis not in self.huge])
        members = []
        for member in range(MEMBERS):
            turned = torch.Generator().manual_seed(100 + member)
            R = torch.linalg.qr(torch.randn(2 * [len(others)], generator=turned, dtype=torch.float64)).Q
            x = signal * sizes
            x[:, others] = signal[:, others] @ R
            if self.own is not None and member in self.own:
                axis, size = self.own[member]
                x[:, axis] *= size
            members.append(x)
        return torch.stack(members)

    def chunks(self, split: Split) -> Iterator[Activations]:
        document = torch.arange(DOCUMENTS).repeat_interleave(LENGTH)
        position = torch.arange(LENGTH).repeat(DOCUMENTS)
        x = self.raw(split)
        x = x if self.coordinates is None else x @ self.coordinates
        for some in torch.arange(len(document)).split(20 * LENGTH):
            yield Activations({SITE: x[:, some]}, document[some], position[some])


def evidence_of(source: Stream, **about: object) -> Evidence:
    ends = [(member, 0) for member in range(MEMBERS)]
    made = Evidence("c", ends, pairs_of(ends), source, blocks=8, coordinates=source.coordinates)
    return replace(made, **about)  # type: ignore[arg-type]


def rows_of(source: Stream, **about: object) -> list[Row]:
    return list(massive_activation_rows(evidence_of(source, **about)))


def find(rows: list[Row], metric: str, **about: object) -> list[Row]:
    extra = {name: about.pop(name) for name in ("axis", "axes") if name in about}
    chosen = [row for row in rows if row.metric == metric and extra.items() <= dict(row.extra).items()]
    return [row for row in chosen if all(getattr(row, name) == value for name, value in about.items())]


def r2(rows: list[Row], axes: str, name: str, source: int = 0, target: int = 1) -> Row:
    (row,) = find(rows, "r2", axes=axes, map=name, source=source, target=target)
    return row


@pytest.fixture(scope="module", params=[False, True], ids=["own axes", "mean-free"])
def trap(request: pytest.FixtureRequest) -> list[Row]:
    """A huge axis that all share, and a rotation of everything else."""
    return rows_of(Stream({HUGE: 50.0}, mean_free=request.param))


def test_the_axis_is_found_under_its_own_number(trap):
    for seed in range(MEMBERS):
        (count,) = find(trap, "massive_dimensions", target=seed)
        (largest,) = find(trap, "rms_max_over_median", target=seed)
        (axis,) = find(trap, "rms_over_median", target=seed)
        assert (count.value, count.low, count.source, count.n_seeds) == (1, None, None, 1)
        assert dict(axis.extra) == {"axis": HUGE}
        assert axis.value == largest.value
        assert largest.low < largest.value < largest.high
        # in the mean-free stream the others have a sixteenth of it each: √(1 + (50/16)²) = 3.3 times what they had
        assert 10 < largest.value < 60
        (share,) = find(trap, "massive_variance_share", target=seed)
        (own,) = find(trap, "axis_variance_share", target=seed, axis=HUGE)
        assert own.value == pytest.approx(share.value)
        assert 0.9 < share.value < 1


def test_the_numbers_are_those_of_the_tokens():
    source = Stream({HUGE: 50.0})
    rows = rows_of(source)
    x = source.raw("fit")[0]
    rms = x.square().mean(0).sqrt()
    (row,) = find(rows, "rms_max_over_median", target=0)
    assert row.value == pytest.approx(float(rms.max() / rms.quantile(0.5)))
    (row,) = find(rows, "massive_variance_share", target=0)
    assert row.value == pytest.approx(float(x.var(0)[HUGE] / x.var(0).sum()))
    assert (row.split, row.n_tokens, row.n_documents) == ("fit", DOCUMENTS * LENGTH, DOCUMENTS)


def test_in_other_coordinates_they_are_those_of_the_stream_without_its_mean():
    source = Stream({HUGE: 50.0}, mean_free=True)
    rows = rows_of(source)
    x = source.raw("fit")[1]
    x = x - x.mean(1, keepdim=True)
    rms = x.square().mean(0).sqrt()
    (row,) = find(rows, "rms_over_median", target=1)
    assert row.value == pytest.approx(float(rms[HUGE] / rms.quantile(0.5)))
    (row,) = find(rows, "massive_variance_share", target=1)
    assert row.value == pytest.approx(float(x.var(0)[HUGE] / x.var(0).sum()))


def test_a_shared_axis_makes_the_identity_look_right_and_without_it_it_is_not(trap):
    """The very trap: members that share nothing but one axis."""
    assert r2(trap, "all", "identity").value > 0.9
    assert r2(trap, "without_massive", "identity").value < -0.5  # −1 is what two unrelated bases have
    assert r2(trap, "without_massive", "orthogonal").value > 0.8  # LayerNorm's mean is one dimension of 15


def test_axes_of_their_own_hide_a_rotation_of_everything_else():
    """The opposite trap: without them R² rises."""
    rows = rows_of(Stream({}, own=dict.fromkeys(range(MEMBERS), (HUGE, 60.0))))
    assert r2(rows, "all", "orthogonal").value < 0.5
    assert r2(rows, "without_massive", "orthogonal").value > 0.8
    assert r2(rows, "without_random", "orthogonal").value < 0.5


def test_random_axes_leave_r2_as_it_is(trap):
    for name in ("identity", "orthogonal", "affine"):
        control = r2(trap, "without_random", name)
        assert control.role == "control"
        assert control.value == pytest.approx(r2(trap, "all", name).value, abs=0.05)
    assert r2(trap, "without_massive", "identity").role == "estimate"


def test_with_all_axes_it_says_what_the_ladder_says():
    source = Stream({HUGE: 50.0}, mean_free=True)
    told, rows = list(ladder_of(evidence_of(source))), rows_of(source)
    for name in ("identity", "orthogonal", "affine"):
        for i, j in ((0, 1), (1, 0), (2, 1)):
            (own,) = [
                row
                for row in told
                if (row.metric, row.map, row.source, row.target, row.role) == ("r2", name, i, j, "estimate")
            ]
            mine = r2(rows, "all", name, i, j)
            assert (mine.value, mine.low, mine.high) == pytest.approx((own.value, own.low, own.high))
    for metric in ("frobenius_from_identity", "determined_dimension"):
        (own,) = [row for row in told if (row.metric, row.source, row.target) == (metric, 0, 2)]
        (mine,) = find(rows, metric, axes="all", source=0, target=2)
        assert (mine.value, mine.convention) == (pytest.approx(own.value), own.convention)


def test_without_the_axes_r2_is_that_of_the_others():
    source = Stream({HUGE: 50.0})
    others = [axis for axis in range(D) if axis != HUGE]
    x, y = (source.raw(split)[:, :, others] for split in ("fit", "eval"))
    rows = rows_of(source)
    R = fit_orthogonal(x[0], x[1])
    for name, guess in (("identity", y[0]), ("orthogonal", R(y[0]))):
        row = r2(rows, "without_massive", name)
        assert row.value == pytest.approx(explained_variance(guess, y[1]))
        assert row.low <= row.value <= row.high
    (distance,) = find(rows, "frobenius_from_identity", axes="without_massive", source=0, target=1)
    assert distance.value == pytest.approx(float((R.weight - torch.eye(D - 1)).norm()))


def test_r_is_compared_with_its_scale_in_the_dimensions_that_are_left(trap):
    d = round(find(trap, "frobenius_haar_scale", axes="all")[0].value ** 2 / 2)
    assert d in (D, D - 1)
    for axes, k in (("all", d), ("without_massive", d - 1), ("without_random", d - 1)):
        scales = find(trap, "frobenius_haar_scale", axes=axes)
        distances = find(trap, "frobenius_from_identity", axes=axes)
        assert [row.value for row in scales] == pytest.approx([(2 * k) ** 0.5] * len(scales))
        assert len(scales) == len(distances) == MEMBERS * (MEMBERS - 1)
        assert all(0 < row.value <= 2 * k**0.5 for row in distances)
        assert {row.convention for row in distances} <= {"determined", "undetermined"}
        (r,) = find(trap, "determined_dimension", axes=axes, source=0, target=1)
        (distance,) = find(trap, "frobenius_from_identity", axes=axes, source=0, target=1)
        assert (r.value == k) == (distance.convention == "determined")


def test_the_axes_of_all_members_are_left_out_for_every_pair():
    """Member 2 has one of its own; the pair (0, 1) is compared without it too."""
    rows = rows_of(Stream({HUGE: 50.0}, own={2: (9, 400.0)}))
    assert [find(rows, "massive_dimensions", target=seed)[0].value for seed in range(MEMBERS)] == [1, 1, 2]
    assert [row.extra["axis"] for row in find(rows, "rms_over_median", target=2)] == [9, HUGE]
    (scale,) = find(rows, "frobenius_haar_scale", axes="without_massive", source=0, target=1)
    assert scale.value == pytest.approx((2 * (D - 2)) ** 0.5)


def test_of_too_many_axes_the_largest_quarter_is_left_out_and_eight_are_named():
    """Axes of size 100, 101, … so many that the median is still an ordinary one."""
    huge = {axis: 100.0 + axis for axis in range(7)}
    rows = rows_of(Stream(huge))
    assert find(rows, "massive_dimensions", target=0)[0].value == 7
    assert len(find(rows, "rms_over_median", target=0)) == 7
    (scale,) = find(rows, "frobenius_haar_scale", axes="without_massive", source=0, target=1)
    assert scale.value == pytest.approx((2 * (D - D // 4)) ** 0.5)


def test_no_more_axes_have_rows_than_are_named(monkeypatch):
    monkeypatch.setattr(massive_activations, "NAMED", 2)
    rows = rows_of(Stream({1: 40.0, 2: 90.0, 3: 60.0}))
    assert find(rows, "massive_dimensions", target=0)[0].value == 3
    assert [row.extra["axis"] for row in find(rows, "rms_over_median", target=0)] == [2, 3]


def test_without_massive_axes_nothing_is_said_of_pairs():
    rows = rows_of(Stream({HUGE: 5.0}))
    assert {row.metric for row in rows} == {
        "massive_dimensions",
        "rms_max_over_median",
        "massive_variance_share",
    }
    assert {row.value for row in find(rows, "massive_dimensions")} == {0}
    assert {(row.value, row.low, row.high) for row in find(rows, "massive_variance_share")} == {(0, 0, 0)}


def test_planted_members_have_none():
    """Their axes are their own, and no more than noise apart."""
    planted = Planted("rotated", PlantedConfig(d=16, members=3, documents=64, tokens=8))
    rows = list(massive_activation_rows(planted_evidence(planted)))
    assert [row.value for row in find(rows, "massive_dimensions")] == [0, 0, 0]


def test_a_huge_mean_makes_an_axis_massive_that_holds_no_variance():
    """A constant is what a mean shift takes away; it is massive all the same."""
    x = Stream({}).raw("fit")[0]
    x[:, 3] += 500
    axes = Axes.of(pair_moments(x, x), None)
    assert axes.massive.nonzero().flatten().tolist() == [3]
    assert float(axes.share[3]) < 0.2


def test_axes_that_are_always_0_do_not_count_in_the_median():
    x = Stream({HUGE: 50.0}).raw("fit")[0]
    x[:, 6:] = 0
    axes = Axes.of(pair_moments(x, x), None)
    assert axes.massive.nonzero().flatten().tolist() == [HUGE]
    assert bool(axes.times.isfinite().all())


def test_what_is_left_is_orthogonal_to_the_axes_and_to_nothing_else():
    some = torch.tensor([2, 11])
    for coordinates, d in ((None, D), (mean_free_basis(D), D - 1)):
        basis = without(some, d, coordinates)
        own = basis if coordinates is None else coordinates @ basis
        assert basis.shape == (d, d - 2)
        assert torch.allclose(basis.mT @ basis, torch.eye(d - 2, dtype=torch.float64), atol=1e-12)
        assert float(own[some].abs().max()) < 1e-12


def test_the_interval_holds_the_value_of_other_documents(monkeypatch):
    """Of the RMS of a huge axis, over plants of other documents: 19 in 20 in the long run, here 30 of 40 at least."""
    monkeypatch.setattr(massive_activations, "_bases", lambda evidence, site: {})
    axis, held = 50.0, 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(64, 8, 4, generator=generator, dtype=torch.float64)
        x += 2 * torch.randn(64, 1, 4, generator=generator, dtype=torch.float64)  # a document's own level
        x[..., 0] *= axis
        source = _Tensor(x.flatten(0, 1)[None].expand(2, -1, -1))
        ends = [(0, 0), (1, 0)]
        rows = list(massive_activation_rows(Evidence("c", ends, pairs_of(ends), source)))
        (row,) = find(rows, "rms_max_over_median", target=0)
        held += row.low < axis < row.high
    assert held >= 30


@dataclass(frozen=True)
class _Tensor:
    """Activations as they are, on both splits."""

    x: Tensor
    sites: Sequence[str] = (SITE,)

    @property
    def documents(self) -> Mapping[Split, int]:
        return {"fit": self.x.shape[1] // 8, "eval": self.x.shape[1] // 8}

    def chunks(self, split: Split) -> Iterator[Activations]:
        n = self.x.shape[1]
        yield Activations({SITE: self.x}, torch.arange(n) // 8, torch.arange(n) % 8)


@pytest.mark.parametrize("mean_free", [False, True], ids=["own axes", "mean-free"])
def test_an_sae_that_has_one_axis_alone_explains_nothing_without_it(mean_free):
    source = Stream({HUGE: 50.0}, mean_free=mean_free)
    one = torch.eye(D, dtype=torch.float64)[:, HUGE : HUGE + 1]
    if source.coordinates is not None:
        one = source.coordinates.mT @ one
        one /= one.norm()
    width = one.shape[0]
    narrow = given(torch.cat([one, -one], 1), torch.cat([one.mT, -one.mT]), torch.zeros(width))
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    whole = given(both.T, both, torch.zeros(width))
    found = {(0, 0, SITE, "standard", "distinct"): narrow, (1, 0, SITE, "standard", "distinct"): whole}
    rows = rows_of(source, dictionaries=GivenDictionaries(found))
    ev = {(row.target, row.extra["axes"]): row for row in find(rows, "explained_variance")}
    assert {target for target, _ in ev} == {0, 1}
    assert ev[0, "all"].value > 0.9
    assert ev[0, "without_massive"].value == pytest.approx(0, abs=0.05)
    assert ev[0, "without_random"].value > 0.9
    for axes in ("all", "without_massive", "without_random"):
        assert ev[1, axes].value == pytest.approx(1, abs=1e-6)
    about = ev[0, "without_massive"]
    assert (about.source, about.role, about.convention, about.split) == (0, "ceiling", "centred", "eval")
    assert (about.extra["sae"], about.extra["variant"]) == ("standard", "distinct")
    assert (about.n_documents, about.n_tokens) == (DOCUMENTS, DOCUMENTS * LENGTH)
    assert ev[0, "without_random"].role == "control"
    assert about.low < about.value < about.high


def test_parts_of_the_pairs_have_the_rows_of_the_whole(monkeypatch):
    evidence = evidence_of(Stream({HUGE: 50.0}, own={2: (9, 400.0)}))
    study = STUDIES["massive_activations"]
    whole = table(study.rows(evidence), study.columns)
    monkeypatch.setattr("polymorph.evidence.evidence.LINED_UP", 1)
    tables, refused = study_tables(evidence, ["massive_activations"])
    assert refused == []
    assert len(list(evidence.by_pairs())) == 3
    keys = [name for name in whole.columns if name not in ("value", "low", "high")]
    assert tables["massive_activations"].select(keys).equals(whole.select(keys))
    for name in ("value", "low", "high"):
        mine, own = tables["massive_activations"][name], whole[name]
        assert mine.is_null().equals(own.is_null())
        assert mine.drop_nulls().to_list() == pytest.approx(own.drop_nulls().to_list(), abs=1e-9)


def test_a_member_that_does_not_vary_is_refused_by_name():
    x = Stream({HUGE: 50.0}).raw("fit").clone()
    x[1] = 0.25
    ends = [(member, 0) for member in range(MEMBERS)]
    with pytest.raises(RunError, match="planted: every dimension of seed 1"):
        list(massive_activation_rows(Evidence("c", ends, pairs_of(ends), _Tensor(x))))
