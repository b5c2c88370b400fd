"""The members of the paper's cohorts that are in the repository open like any others, whole."""

from pathlib import Path

import pytest

from polymorph.store import Cohort

MEMBERS = Path(__file__).resolve().parents[2] / "docs" / "results" / "paper" / "members"
COHORTS = sorted(path.parent for path in MEMBERS.glob("*/cohort.json"))


@pytest.mark.parametrize("folder", COHORTS, ids=lambda path: path.name)
def test_every_checkpoint_is_what_was_published(folder: Path) -> None:
    members = Cohort.open(folder).members()
    assert members
    for member in members:
        status = member.status()
        assert status is not None
        assert status.state == "completed"
        assert {0, 1000, status.step} <= set(member.steps())
        assert sum(values.numel() for values in member.read_step(status.step).weights.values()) == 104_448
        assert {len(member.read_step(step).weights) for step in member.steps()} == {
            len(member.read_step(0).weights)
        }
        assert any(row.get("kind") == "evaluation" for row in member.rows())
