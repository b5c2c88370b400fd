"""Many writers and readers of one place at the same moment."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from store_faults import IDENTITY, drafts, equal, start_child, weights_of

from polymorph.errors import RequestError
from polymorph.store import Cohort, ConflictError
from polymorph.store.cohort import Cohort as StoredCohort

WRITERS = 16
BENIGN, CONFLICT = 0, 4


def race(actions: list[Callable[[], Any]], loser: type[Exception], watch: Callable[[], Any]) -> list[int]:
    """Start all at once, `watch` until all have ended; exit statuses (`CONFLICT` if `loser` was raised)."""
    ready, start = os.pipe()

    def act(action: Callable[[], Any]) -> None:
        os.close(start)
        os.read(ready, 1)  # until the parent closes the other end
        try:
            action()
        except loser:
            os._exit(CONFLICT)

    running = {start_child(lambda action=action: act(action)) for action in actions}
    os.close(start)
    statuses = []
    while running:
        watch()
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            running.remove(child)
            statuses.append(os.waitstatus_to_exitcode(status))
    os.close(ready)
    return statuses


@pytest.mark.parametrize("round_", range(3))
def test_equal_writers_are_benign(cohort: Cohort, round_: int) -> None:
    member, weights = cohort.member(0), weights_of(round_)
    reads = []

    def watch() -> None:
        if member.steps():  # whatever is listed can be read whole
            assert equal(member.read_step(1).weights, weights)
            reads.append(1)

    write = [lambda: member.publish_step(1, weights, {"config": "c"})] * WRITERS
    assert race(write, ConflictError, watch) == [BENIGN] * WRITERS
    watch()
    assert reads
    assert drafts(cohort.folder) == []


@pytest.mark.parametrize("round_", range(3))
def test_of_different_writers_exactly_one_wins(cohort: Cohort, round_: int) -> None:
    member = cohort.member(0)
    versions = [weights_of(100 * round_ + number) for number in range(WRITERS)]
    seen = set()

    def watch() -> None:
        if member.steps():
            read = member.read_step(1).weights
            seen.add(next(number for number, version in enumerate(versions) if equal(version, read)))

    write = [lambda version=version: member.publish_step(1, version, {}) for version in versions]
    statuses = race(write, ConflictError, watch)
    watch()
    assert sorted(statuses) == [BENIGN] + [CONFLICT] * (WRITERS - 1)
    assert len(seen) == 1  # whoever it was, it was the same for every reader
    assert drafts(cohort.folder) == []


def test_the_alarm_names_both_digests(cohort: Cohort) -> None:
    member = cohort.member(0)
    there = member.publish_step(1, weights_of(1), {})
    with pytest.raises(ConflictError) as error:
        member.publish_step(1, weights_of(2), {})
    other = cohort.member(0)
    assert there.digest in str(error.value)
    assert len({word for word in str(error.value).replace(":", " ").split() if len(word) == 64}) == 2
    assert equal(other.read_step(1).weights, weights_of(1))


def test_one_of_two_cohorts_and_configs_wins(cohort: Cohort) -> None:
    folder = cohort.folder.with_name("new")
    identities = [{**IDENTITY, "task": {"name": f"t{number}"}} for number in range(8)]
    create = [lambda identity=identity: StoredCohort.create(folder, identity) for identity in identities]
    statuses = race(create, RequestError, lambda: None)
    assert sorted(statuses) == [BENIGN] + [CONFLICT] * 7
    assert Cohort.open(folder).identity in identities
    member = cohort.member(0)
    configs = [lambda number=number: member.write_config({"lr": number}) for number in range(8)]
    assert sorted(race(configs, RequestError, lambda: None)) == [BENIGN] + [CONFLICT] * 7
    assert drafts(folder) == drafts(cohort.folder) == []


def test_appended_rows_do_not_mix(cohort: Cohort) -> None:
    member = cohort.member(0)

    def append(number: int) -> None:
        for step in range(50):
            member.append_row({"writer": number, "step": step, "text": "x" * 100})

    race([lambda number=number: append(number) for number in range(4)], RequestError, lambda: member.rows())
    steps = [[row["step"] for row in member.rows() if row["writer"] == number] for number in range(4)]
    assert steps == [list(range(50))] * 4
