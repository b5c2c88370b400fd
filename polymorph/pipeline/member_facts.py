"""What the log and the status of a member say of its training."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from polymorph.report.data import MemberSummary
from polymorph.store import CorruptError, Member


def summary_of(member: Member, head: str) -> MemberSummary:
    state, reason, _ = state_of(member)
    last: dict[str, Any] = next(iter(reversed(evaluations_of(member))), {})
    accuracies = {
        key.split("/")[1]: value for key, value in last.items() if key.endswith(f"/accuracy/{head}")
    }
    return MemberSummary(member.seed, state, member.steps()[-1], reason, accuracies)


def state_of(member: Member) -> tuple[str, str, int]:
    try:
        status = member.status()
    except CorruptError as error:
        return "unreadable", str(error), 0
    return ("not recorded", "", 0) if status is None else (status.state, status.reason, status.step)


def evaluations_of(member: Member) -> list[dict[str, Any]]:
    """The evaluations of a member by step; of one that was repeated after a resume, the last."""
    rows = [row for row in member.rows() if row.get("kind") == "evaluation"]
    return [row for _, row in sorted({row["step"]: row for row in rows}.items())]


def history_of(members: Sequence[Member]) -> pl.DataFrame:
    rows = [
        (member.seed, row["step"], *_parts(key), value)
        for member in members
        for row in evaluations_of(member)
        for key, value in row.items()
        if key.startswith("eval/") and value is not None
    ]
    names = {"seed": pl.Int64, "step": pl.Int64, "distribution": pl.String, "metric": pl.String}
    return pl.DataFrame(rows, schema={**names, "head": pl.String, "value": pl.Float64}, orient="row")


def _parts(key: str) -> tuple[str, str, str]:
    _, distribution, metric, head = key.split("/")
    return distribution, metric, head
