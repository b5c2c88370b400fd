"""A disk that has no room for a training is named before anything is written; one that has room is enough."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cohorts import UNWATCHED, cohort_in, exit_status, jobs_of, memory_folder, snapshot, status_of, trained

from polymorph.cli import command
from polymorph.errors import RequestError
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.saes.config import SAEConfig
from polymorph.saes.disk import bytes_ahead, stored_bytes
from polymorph.store import Member, Status
from polymorph.training import disk
from polymorph.training.config import CheckpointsConfig, TrainerConfig
from polymorph.training.disk import Ahead, check_room, member_bytes, readable, weight_bytes

WIDE = ("model.d_model=64", "model.n_heads=4", "model.d_head=16", "model.d_mlp=256", "trainer.max_steps=20")
REFUSED = r"about \d.* will be written, and \d.* are free there; change checkpoints\.every"


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def disk_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From now on so many bytes are free on any disk."""
    return lambda size: monkeypatch.setattr(disk, "free_bytes", lambda folder: size)


def test_the_weights_are_counted_without_being_made() -> None:
    assert weight_bytes(DyckTransformerConfig()) == 4 * 104_448


def expected(jobs_root: Path, *overrides: str) -> int:
    (job,) = jobs_of(jobs_root, *overrides)
    folder = job.cohort.folder.absolute()
    weights = weight_bytes(job.model)
    return sum(
        member_bytes(Member(folder, seed), weights, job.trainer, job.checkpoints) for seed in job.seeds
    )


def test_what_is_expected_is_what_is_written_at_most(root: Path) -> None:
    asked = ("seed=[0,1]", "checkpoints.every=1", *WIDE, UNWATCHED)
    ahead = expected(root, *asked)
    written = sum(map(len, snapshot(trained(root, *asked).folder).values()))
    assert written <= ahead <= 1.6 * written
    assert expected(root, *asked) == 0


def test_a_disk_that_is_too_small_is_refused_and_nothing_is_written(
    root: Path, disk_of: Callable[[int], None]
) -> None:
    asked = ("seed=[0,1]", UNWATCHED)
    needed = expected(root, *asked)
    disk_of(needed - 1)
    with pytest.raises(RequestError, match=REFUSED) as refused:
        jobs_of(root, *asked)
    assert f"cohort.root={root}" in str(refused.value)
    assert readable(needed) in str(refused.value)
    for key in ("checkpoints.keep_states", "cohort.root"):
        assert key in str(refused.value)
    assert not snapshot(root)
    disk_of(needed)
    assert exit_status(root, *asked) == command.DONE


def test_the_jobs_of_a_sweep_share_the_disk(root: Path, disk_of: Callable[[int], None]) -> None:
    needed = expected(root, "seed=0", UNWATCHED)
    disk_of(2 * needed - 1)
    assert jobs_of(root, "seed=0", UNWATCHED)
    with pytest.raises(RequestError, match=REFUSED):
        jobs_of(root, "seed=0,1", UNWATCHED, "--multirun")
    disk_of(2 * needed)
    assert len(jobs_of(root, "seed=0,1", UNWATCHED, "--multirun")) == 2


def test_what_is_there_need_not_be_written_again(root: Path, disk_of: Callable[[int], None]) -> None:
    asked = ("seed=[0,1]", UNWATCHED)
    whole = expected(root, *asked)
    cohort = trained(root, *asked)
    cohort.member(1).set_status(Status("preempted", 20))
    (cohort.member(1).folder / "steps" / "step-00000030" / "manifest.json").unlink()
    left = expected(root, *asked)
    assert 0 < left < whole / 2
    disk_of(left)
    assert jobs_of(root, *asked)
    disk_of(left - 1)
    with pytest.raises(RequestError, match=REFUSED):
        jobs_of(root, *asked)


def test_a_finished_cohort_needs_no_room(root: Path, disk_of: Callable[[int], None]) -> None:
    trained(root, "seed=0", UNWATCHED)
    disk_of(0)
    assert exit_status(root, "seed=0", UNWATCHED) == command.DONE
    assert status_of(cohort_in(root), 0).state == "completed"


def test_a_member_that_cannot_be_read_counts_as_not_begun(root: Path) -> None:
    """It is refused where it is trained; its siblings are not."""
    whole = expected(root, "seed=0", UNWATCHED)
    cohort = trained(root, "seed=0", UNWATCHED)
    assert expected(root, "seed=0", UNWATCHED) == 0
    (cohort.member(0).folder / "status.json").write_text("{}")
    assert expected(root, "seed=0", UNWATCHED) == whole


def test_more_checkpoints_and_states_need_more(root: Path) -> None:
    member, trainer = Member(root, 0), TrainerConfig(max_steps=60_000)

    def needed(**options: int) -> int:
        return member_bytes(member, 10**6, trainer, CheckpointsConfig(**options))

    assert needed(every=1000) - needed(every=2000) == 30 * (10**6 + disk.FOLDER)
    assert needed(keep_states=3) - needed(keep_states=2) == 3 * 10**6 + disk.FOLDER


# SAEs.

SAES = ("stage=all", "sae.steps=2001", UNWATCHED)


def test_the_size_of_saes_is_that_of_their_parts() -> None:
    config = SAEConfig(expansion=8, variants=["distinct", "again"])
    one = 4 * (2 * 64 * 512 + 512 + 64)
    assert stored_bytes(config, 64) == one
    assert bytes_ahead(config, ["a", "b"], 64, seeds=3, checkpoints=10) == 3 * 2 * 2 * one
    assert bytes_ahead(SAEConfig(at="all"), ["a", "b"], 64, seeds=3, checkpoints=10) == 3 * 2 * 10 * one
    assert bytes_ahead(SAEConfig(at=[0, 4, 8]), ["a", "b"], 64, seeds=1, checkpoints=10) == 2 * 3 * one


@pytest.mark.parametrize(
    "more", [SAES, ("callbacks.cross_seed.sae=final",), ("callbacks.cross_seed.sae=online",)]
)
def test_saes_that_come_with_the_training_need_room_too(
    root: Path, disk_of: Callable[[int], None], more: tuple[str, ...]
) -> None:
    needed = expected(root, "seed=0", UNWATCHED)
    disk_of(needed)
    assert jobs_of(root, "seed=0", UNWATCHED)
    with pytest.raises(RequestError, match=r"sae\.expansion, sae\.sites or sae\.at, or give"):
        jobs_of(root, "seed=0", *more)


def test_saes_of_members_that_are_there_need_room(root: Path, disk_of: Callable[[int], None]) -> None:
    trained(root, "seed=0", UNWATCHED)
    (job,) = jobs_of(root, "stage=sae")
    needed = 3 * stored_bytes(job.sae, 16)
    disk_of(needed - 1)
    with pytest.raises(RequestError, match=r"will be written, .* change sae\.expansion"):
        jobs_of(root, "stage=sae")
    disk_of(needed)
    assert jobs_of(root, "stage=sae")


# Disks.


def test_the_free_space_is_that_of_what_is_there_of_the_path(root: Path) -> None:
    assert disk.free_bytes(root / "not" / "yet") > 0
    check_room([Ahead(root / "not" / "yet", 1, "key")])
    with pytest.raises(RequestError, match="1e\\+06 TB will be written"):
        check_room([Ahead(root / "not" / "yet", 10**18, "key")])


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (999, "999 B"), (417_792, "418 kB"), (1_250_000_000, "1.25 GB")]
)
def test_sizes_have_three_digits(size: int, words: str) -> None:
    assert readable(size) == words
