"""A long training says once how long it will take and how to stop it; a short one says nothing."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from cohorts import UNWATCHED, memory_folder, trained

from polymorph.store import Member
from polymorph.training import forecast
from polymorph.training.checkpoint import Progress, Schedule
from polymorph.training.forecast import Estimate, Forecast, duration, short

EVERY = 500
SCHEDULE = Schedule(frozenset({0, 1, 2, 4, 8, 16, 2000, 4000, 60_000}), 60_000, patience=1000)
HOW = "Ctrl-C or SIGTERM stops it with its state kept, the same command goes on"


class Run:
    """Steps whose durations are given; what is said of them."""

    def __init__(self, *seeds: int, schedule: Schedule = SCHEDULE) -> None:
        self.said: list[str] = []
        self.time = 0.0
        self.progress = [Progress(Member(Path(), seed), "", None) for seed in seeds or (100,)]
        self.forecast = Forecast(self.progress, schedule, EVERY, self.said.append, lambda: self.time)

    def steps(self, first: int, last: int, seconds: Callable[[int], float]) -> "Run":
        for step in range(first, last + 1):
            self.time += seconds(step)
            self.forecast.after(step)
        return self


def plain(step: int) -> float:
    return 0.072


def test_it_is_said_after_twenty_steps_and_not_before() -> None:
    run = Run().steps(1, 19, plain)
    assert run.said == []
    run.steps(20, 20, plain)
    assert run.said == [
        f"seed 100: about 1 h 12 min to go for 59,980 steps at 72 ms each (less if it converges); {HOW}"
    ]


def test_slow_steps_are_enough_after_ten_seconds() -> None:
    run = Run(3, 5).steps(1, 3, lambda step: 3.0)
    assert run.said == []
    run.steps(4, 4, lambda step: 3.0)
    (line,) = run.said
    assert line.startswith("seeds 3, 5: about 2 d 2 h to go for 59,996 steps at 3 s each")


def test_a_short_training_says_nothing() -> None:
    schedule = Schedule(frozenset({0, 1000}), 1000, patience=1000)
    assert Run(schedule=schedule).steps(1, 1000, lambda step: 0.05).said == []
    assert len(Run(schedule=schedule).steps(1, 1000, lambda step: 0.07).said) == 1


def test_the_first_step_is_not_counted() -> None:
    """It pays for what is made once, such as compiling."""
    one, other = Run(), Run()
    one.steps(1, 20, lambda step: 1.0 if step == 1 else 0.072)
    other.steps(1, 20, plain)
    assert one.said == other.said
    late = Run().steps(1, 20, lambda step: 1.0 if step == 3 else 0.072)
    assert late.said != other.said


def test_a_costly_evaluation_corrects_it_once() -> None:
    run = Run().steps(1, 2000, lambda step: 20.0 if step % EVERY == 0 else 0.072)
    first, second = run.said
    assert "by now" not in first
    # 59,500 steps, of which 117 are followed by an evaluation alone; nothing is known of the checkpoints yet
    assert second.startswith("seed 100: by now about 1 h 50 min to go for 59,500 steps")


def test_a_cheap_evaluation_leaves_it_as_it_was() -> None:
    assert len(Run().steps(1, 2000, lambda step: 0.5 if step % EVERY == 0 else 0.072).said) == 1


def test_what_only_evaluations_make_long_is_said_after_the_first() -> None:
    schedule = Schedule(frozenset({0, 5000}), 5000, patience=1000)
    run = Run(schedule=schedule).steps(1, 499, lambda step: 0.005)
    assert run.said == []
    run.steps(500, 500, lambda step: 20.0)
    (line,) = run.said
    assert line.startswith("seed 100: about 3 min to go for 4,500 steps")


def test_one_that_has_converged_takes_its_patience() -> None:
    run = Run()
    run.progress[0].converged_at = 10
    run.steps(1, 20, lambda step: 1.0)
    (line,) = run.said
    assert line == f"seed 100: about 17 min to go for 1,000 steps at 1 s each; {HOW}"


def test_checkpoints_cost_what_they_have_cost() -> None:
    estimate = Estimate(Schedule(frozenset({2, 4, 6}), 8, 0), eval_every=3)
    for step, seconds in ((1, 1.0), (2, 10.0), (3, 5.0)):
        estimate.add(step, seconds)
    assert estimate.remaining(3, 8) == 10 + 1 + 10 + 1 + 1
    assert estimate.remaining(8, 8) == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(61, "1 min"), (3569, "59 min"), (3571, "1 h 0 min"), (4320, "1 h 12 min"), (190_800, "2 d 5 h")],
)
def test_durations_are_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_step_is_in_milliseconds_up_to_a_second() -> None:
    assert [short(s) for s in (0.00123, 0.072, 0.9996, 12.3)] == ["1.23 ms", "72 ms", "1 s", "12 s"]


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.mark.parametrize(("seconds", "lines"), [(10.0, 1), (1.0, 0)])
def test_a_training_says_it_without_a_terminal(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    lines: int,
) -> None:
    ticks = count()
    monkeypatch.setattr(forecast, "now", lambda: seconds * next(ticks))
    trained(root, "seed=[0,1]", UNWATCHED)
    said = [line for line in capsys.readouterr().out.splitlines() if HOW in line]
    assert len(said) == lines
    assert all(line.startswith("seeds 0, 1: about ") for line in said)
