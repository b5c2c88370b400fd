"""Losses that are known by construction, and what is made of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from scipy.stats import t as student
from torch import Tensor

from polymorph.evidence.evidence import Evidence, planted_evidence
from polymorph.evidence.pairs import pairs_of
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import Row, table
from polymorph.models.activations import Activations, Predicting, Predictions, Split
from polymorph.studies.loss_by_position.rows import EDGES, bins_of
from polymorph.studies.loss_by_position.rows import study_rows as loss_by_position_rows
from polymorph.studies.registry import STUDIES
from polymorph.studies.tables import study_tables

DOCUMENTS, CLASSES, BLOCKS = 48, 8, 6
LENGTHS = [5 + 3 * (document % 7) for document in range(DOCUMENTS)]


@dataclass(frozen=True)
class Told:
    """Members that say labels with losses of their own: of member m at s tokens read, (m + 1) / (s + 1)."""

    labels: Mapping[str, Tensor]
    members: int = 2
    at_once: int = 10
    noise: float = 0.0
    constant: bool = False
    """Whether every member answers with the labels' own distribution."""
    sites: Sequence[str] = ("site",)
    documents: Mapping[Split, int] = field(default_factory=lambda: {"fit": DOCUMENTS, "eval": DOCUMENTS})

    @property
    def document(self) -> Tensor:
        return torch.arange(DOCUMENTS).repeat_interleave(torch.tensor(LENGTHS))

    @property
    def seen(self) -> Tensor:
        return torch.cat([torch.arange(length) for length in LENGTHS])

    def chunks(self, split: Split) -> Iterator[Activations]:
        values = torch.randn(self.members, len(self.seen), 3, generator=torch.Generator().manual_seed(1))
        yield Activations(dict.fromkeys(self.sites, values), self.document, self.seen)

    def losses(self, member: int, head: str) -> Tensor:
        if self.constant:
            labels = self.labels[head]
            return -(torch.bincount(labels) / len(labels)).log()[labels]
        generator = torch.Generator().manual_seed(7)
        noise = self.noise * torch.randn(DOCUMENTS, generator=generator, dtype=torch.float64)[self.document]
        return (member + 1) / (self.seen + 1) + noise

    def predictions(self, member: int, split: Split) -> Iterator[Predictions]:
        assert split == "eval"
        for first in range(0, DOCUMENTS, self.at_once):
            some = (self.document >= first) & (self.document < first + self.at_once)
            some = some.nonzero().squeeze(1)
            some = some[torch.randperm(len(some), generator=torch.Generator().manual_seed(first))]
            yield Predictions(
                self.document[some],
                self.seen[some],
                {head: self.losses(member, head)[some] for head in self.labels},
                {head: labels[some] for head, labels in self.labels.items()},
            )


def labels_of(seed: int, classes: int = CLASSES) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(classes, (sum(LENGTHS),), generator=generator)


def evidence_of(source: Told) -> Evidence:
    ends = [(member, 9) for member in range(source.members)]
    return Evidence("c", ends, pairs_of(ends), source, blocks=BLOCKS)


def rows_of(source: Told) -> list[Row]:
    return list(loss_by_position_rows(evidence_of(source)))


def losses(rows: list[Row], member: int, head: str = "next") -> dict[tuple[int, int] | None, Row]:
    """By bin; over all tokens under None."""
    chosen = [row for row in rows if (row.metric, row.target, row.extra["head"]) == ("loss", member, head)]
    return {
        (row.extra["from_position"], row.extra["to_position"]) if "from_position" in row.extra else None: row
        for row in chosen
    }


def entropy(rows: list[Row], head: str = "next") -> Row:
    (row,) = [row for row in rows if (row.metric, row.extra["head"]) == ("label_entropy", head)]
    return row


@pytest.fixture(scope="module")
def told() -> Told:
    return Told({"next": labels_of(0)})


def test_bins_cover_every_position_once():
    seen = torch.arange(5000)
    places = bins_of(seen)
    edges = torch.tensor(EDGES)
    assert bool(((edges[places] <= seen) & (seen < edges[places + 1])).all())
    assert EDGES[:14] == (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
    assert list(EDGES) == sorted(set(EDGES))
    assert len(bins_of(torch.arange(2048)).unique()) == 22


def test_every_bin_has_the_mean_of_its_losses(told):
    rows = rows_of(told)
    for member in range(2):
        found = losses(rows, member)
        each = told.losses(member, "next")
        own = found.pop(None)
        assert own.value == pytest.approx(float(each.mean()))
        assert (own.n_tokens, own.n_documents) == (sum(LENGTHS), DOCUMENTS)
        assert sum(row.n_tokens for row in found.values()) == sum(LENGTHS)
        assert [start for start, _ in found] == [0, 1, 2, 3, 4, 6, 8, 12, 16]  # the longest document has 23
        for (start, end), row in found.items():
            inside = (told.seen >= start) & (told.seen < end)
            assert row.value == pytest.approx(float(each[inside].mean()))
            assert row.n_tokens == int(inside.sum())
            assert row.n_documents == len(told.document[inside].unique())
            assert (row.source, row.target_step, row.n_seeds, row.split) == (None, 9, 1, "eval")


def test_a_bin_of_one_position_has_its_loss_exactly(told):
    rows = rows_of(told)
    row = losses(rows, 1)[0, 1]
    assert (row.value, row.low, row.high) == (2, 2, 2)
    assert losses(rows, 0)[3, 4].value == pytest.approx(0.25)


def test_the_interval_is_the_jackknife_over_blocks_of_documents():
    told = Told({"next": labels_of(0)}, noise=0.3)
    rows = rows_of(told)
    each, block = told.losses(0, "next"), told.document % BLOCKS
    for bin_, inside in (
        (None, torch.ones_like(told.seen, dtype=torch.bool)),
        ((6, 8), (told.seen >= 6) & (told.seen < 8)),
    ):
        row = losses(rows, 0)[bin_]
        parts = torch.stack([each[inside & (block != b)].mean() for b in range(BLOCKS)])
        error = ((parts - parts.mean()).square().sum() * (BLOCKS - 1) / BLOCKS).sqrt()
        half = float(student.ppf(0.975, BLOCKS - 1) * error)
        assert (row.low, row.high) == pytest.approx((row.value - half, row.value + half))
        assert half > 0.05


def test_blocks_without_tokens_in_a_bin_are_no_part_of_its_interval():
    """Positions from 16 on are in long documents alone, 23 of them in none but those of one remainder."""
    told = Told({"next": labels_of(0)}, noise=0.3)
    row = losses(rows_of(told), 0)[16, 24]
    inside = told.seen >= 16
    assert row.n_documents == len(told.document[inside].unique()) < DOCUMENTS
    assert row.low < row.value < row.high


def test_chunks_and_their_order_do_not_matter(told):
    other = Told(told.labels, at_once=7)
    for row, again in zip(rows_of(told), rows_of(other), strict=True):
        assert row.to_dict() == {
            name: pytest.approx(value, abs=1e-12) if isinstance(value, float) else value
            for name, value in again.to_dict().items()
        }


def test_uniform_labels_have_the_entropy_of_their_number():
    labels = torch.arange(sum(LENGTHS)) % CLASSES
    kept = len(labels) // CLASSES * CLASSES
    row = entropy(rows_of(Told({"next": labels})))
    assert row.value == pytest.approx(math.log(CLASSES), abs=(len(labels) - kept + 1) / len(labels))
    assert row.role == "control"
    assert (row.source, row.target, row.n_tokens) == (None, None, len(labels))


def test_one_label_has_no_entropy_and_no_interval_is_wider_than_nothing():
    row = entropy(rows_of(Told({"next": torch.full((sum(LENGTHS),), 5)})))
    assert (row.value, row.low, row.high) == pytest.approx((0, 0, 0))


def test_a_member_that_answers_the_labels_distribution_has_their_entropy():
    skewed = labels_of(1).clamp(max=3)
    rows = rows_of(Told({"next": skewed}, constant=True))
    assert losses(rows, 0)[None].value == pytest.approx(entropy(rows).value)
    assert entropy(rows).value < math.log(4)
    assert entropy(rows).low < entropy(rows).value < entropy(rows).high


def test_classes_that_come_late_are_counted(told):
    """The last documents have a class that no chunk before has."""
    late = labels_of(2).clone()
    late[-9:] = 40
    shares = torch.bincount(late).double() / len(late)
    wanted = float(-torch.xlogy(shares, shares).sum())
    assert entropy(rows_of(Told({"next": late}))).value == pytest.approx(wanted)
    early = late.flip(0)
    assert entropy(rows_of(Told({"next": early}))).value == pytest.approx(wanted)


def test_heads_have_rows_of_their_own_and_a_sum():
    told = Told({"next": labels_of(0), "depth": labels_of(1, 3)})
    rows = rows_of(told)
    for bin_, row in losses(rows, 1, "all").items():
        parts = [losses(rows, 1, head)[bin_] for head in ("next", "depth")]
        assert row.value == pytest.approx(sum(part.value for part in parts))
        assert row.n_tokens == parts[0].n_tokens
    assert entropy(rows, "all").value == pytest.approx(
        entropy(rows, "next").value + entropy(rows, "depth").value
    )
    assert entropy(rows, "depth").value < math.log(3) + 1e-9
    study = STUDIES["loss_by_position"]
    assert table(rows, study.columns).height == len(rows)


def test_one_head_has_no_sum(told):
    assert {row.extra["head"] for row in rows_of(told)} == {"next"}


def test_a_label_that_is_not_there_is_refused(told):
    """A loss of 0 for it would make every mean too low."""
    labels = labels_of(0)
    labels[3] = -100
    with pytest.raises((ValueError, RuntimeError)):
        rows_of(Told({"next": labels}))


def test_it_is_asked_of_those_who_say_labels_and_once_for_all_sites():
    told = Told({"next": labels_of(0)}, sites=("first", "second"))
    assert isinstance(told, Predicting)
    assert STUDIES["loss_by_position"].applies(evidence_of(told))
    tables, refused = study_tables(evidence_of(told), ["loss_by_position"])
    assert refused == []
    assert tables["loss_by_position"].height == len(rows_of(told))
    assert tables["loss_by_position"]["site"].is_null().all()
    planted = planted_evidence(Planted("rotated", PlantedConfig(d=8, members=2, documents=32, tokens=4)))
    assert not STUDIES["loss_by_position"].applies(planted)
    assert list(loss_by_position_rows(planted)) == []
