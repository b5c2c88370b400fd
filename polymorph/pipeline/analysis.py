"""A cohort analysed: what is missing is computed, and tables, figures and the report are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch

from polymorph.errors import RequestError
from polymorph.evidence.evidence import Evidence, check_size
from polymorph.evidence.pairs import End, PairLabel, pairs_of
from polymorph.evidence.rows import Row, table
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.rows_version import rows_version
from polymorph.plotting.table_rows import at_last_steps
from polymorph.progress import SILENT, Progress
from polymorph.report.bundle import bundle
from polymorph.report.data import MemberSummary, ReportData
from polymorph.saes.stored import StoredDictionaries
from polymorph.store import Cohort, CorruptError, Member, digest
from polymorph.studies.claims import claims_of
from polymorph.studies.registry import STUDIES
from polymorph.studies.study import Options
from polymorph.studies.tables import study_tables


@dataclass
class Analysis:
    """One analysis of one cohort: which members, at which steps, by which studies."""

    cohort: Cohort
    device: torch.device
    seeds: Sequence[int] | None = None
    """None is every member that has a checkpoint."""
    steps: Sequence[int] | Literal["all", "last"] = "all"
    studies: Sequence[str] = tuple(STUDIES)
    scheme: str = "all"
    """Which pairs are compared: see `studies.pairs.SCHEMES`."""
    memory_gib: float = 8.0
    """For the moments of the pairs at the last step, which are held together."""
    options: Mapping[str, Options] = field(default_factory=dict)
    """By study, what is asked of it."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = SILENT
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        whole = Comparison.of(self.cohort, self.device, self.memory_gib)
        self.comparison = replace(whole, progress=self.progress)
        self.members = self._members()
        self.pairs = self._pairs()
        self._check_size()
        self._check_options()

    @property
    def name(self) -> str:
        return self.cohort.name

    @property
    def d(self) -> int:
        return self.comparison.d

    @property
    def folder(self) -> Path:
        return self.cohort.folder

    @property
    def fingerprints(self) -> Mapping[str, str]:
        return self.cohort.fingerprints

    def key(self) -> str:
        """Digest of everything that the results follow from; `RequestError` if there is one model alone."""
        self._leave_out_unreadable()
        self._leave_out_duplicates()
        pairs = {f"{pair}": self.comparison.key(pair) for pair in self.pairs}
        logs = {m.name: [digest(_evaluations(m)), _state(m)] for m in self.cohort.members()}
        choice = {
            "studies": [STUDIES[name].identity(self.options.get(name)) for name in self.studies],
            "pairs": self.scheme,
            "left out": self.left_out,
            "provenance": dict(self.provenance),
            "saes": self._saes(),
        }
        return digest({"pairs": pairs, "logs": logs, "version": rows_version(*self.studies), **choice})

    def _saes(self) -> dict[str, str]:
        """The digest of every SAE of the members, or why it cannot be read."""
        found = {}
        for member in self.members:
            for place in member.saes():
                try:
                    found[f"{member.name} {place}"] = member.read_sae(*place).manifest.digest
                except CorruptError as error:
                    found[f"{member.name} {place}"] = str(error)
        return found

    def run(self) -> tuple[dict[str, bytes], ReportData, list[Row], int]:
        """The files, what they show, the rows of the ladder, and how many pairs had to be computed."""
        rows, problems, computed = self.comparison.rows(self.pairs)
        self.left_out += [("pair", problem) for problem in problems]
        tables = {"ladder": table(rows, STUDIES["ladder"].columns)}
        if (evidence := self._evidence()) is not None:
            own = [name for name in self.studies if name != "ladder"]
            more, refused = study_tables(evidence, own, self.memory_gib, self.progress)
            tables |= more
            self.left_out += refused
            if isinstance(evidence.dictionaries, StoredDictionaries):
                self.left_out += [("SAE", problem) for problem in evidence.dictionaries.problems]
        report = self._report(tables)
        return bundle(report, self.studies), report, rows, computed

    def _members(self) -> list[Member]:
        chosen = []
        for member in self.cohort.members():
            if self.seeds is not None and member.seed not in self.seeds:
                self.left_out.append((member.name, "not asked for"))
            elif not member.steps():
                self.left_out.append((member.name, "it has no checkpoint yet"))
            else:
                chosen.append(member)
        known = {member.seed for member in self.cohort.members()}
        if missing := sorted(set(self.seeds or ()) - known):
            raise RequestError(f"seeds={list(self.seeds or ())}: {self.cohort.name} has no seed {missing[0]}")
        if len(chosen) < 2:
            raise RequestError(
                f"cohort={self.cohort.name}: an analysis compares members and needs at least two with a "
                f"checkpoint; there {'is 1' if chosen else 'are 0'}: train another seed"
            )
        return chosen

    def _pairs(self) -> list[PairLabel]:
        seeds = [member.seed for member in self.members]
        final = self.comparison.final_pairs(seeds)
        shared = self._shared_steps()
        if self.steps == "last":
            late = [p for p in self.comparison.pairs_at(shared[-1]) if p.role == "ceiling"] if shared else []
            return self._chosen([*final, *late])
        asked = shared if isinstance(self.steps, str) else list(self.steps)
        if unknown := [step for step in asked if step not in shared]:
            raise RequestError(f"step={unknown[0]}: no two members have this checkpoint; there are {shared}")
        pairs = [pair for step in asked for pair in self.comparison.pairs_at(step, None)]
        return self._chosen([*pairs, *(final if self.steps == "all" else [])])

    def _chosen(self, pairs: Sequence[PairLabel]) -> list[PairLabel]:
        """Those of the members asked for that the scheme compares, once each, and the ceilings."""
        seeds = [member.seed for member in self.members]
        wanted = {(p.source, p.target) for p in pairs_of([(seed, 0) for seed in seeds], self.scheme)}
        wanted |= {(seed, seed) for seed in seeds}
        return list(dict.fromkeys(pair for pair in pairs if (pair.source, pair.target) in wanted))

    def _last_ends(self) -> list[End]:
        """Every member at the step at which it is looked at most closely."""
        if isinstance(self.steps, str):
            return self.comparison.last_ends([member.seed for member in self.members])
        return [(m.seed, max(self.steps)) for m in self.members if max(self.steps) in m.steps()]

    def _check_size(self) -> None:
        ends = self._last_ends()
        check_size(len(ends), len(pairs_of(ends, self.scheme)), self.d, self.memory_gib)

    def _check_options(self) -> None:
        """`RequestError` for what these members cannot be asked; a checkpoint is read where options need one."""
        evidence = replace(self.comparison.evidence([], []), ends=self._last_ends()[:1])
        for options in self.options.values():
            options.check(evidence)

    def _evidence(self) -> Evidence | None:
        """The pairs at the last step whose checkpoints can be read; None without any."""
        pairs = [pair for pair in pairs_of(self._last_ends(), self.scheme) if pair in self.pairs]
        ends = [end for end in self._last_ends() if any(end in pair.ends for pair in pairs)]
        return self._with_requests(ends, pairs) if pairs else None

    def _with_requests(self, ends: Sequence[End], pairs: Sequence[PairLabel]) -> Evidence:
        evidence = self.comparison.evidence(ends, pairs)
        return replace(evidence, options={name: own.request() for name, own in self.options.items()})

    def _leave_out_unreadable(self) -> None:
        readable = []
        for pair in self.pairs:
            try:
                self.comparison.key(pair)
            except CorruptError as error:
                if (problem := ("checkpoint", str(error))) not in self.left_out:
                    self.left_out.append(problem)
            else:
                readable.append(pair)
        self.pairs = readable

    def _leave_out_duplicates(self) -> None:
        """Two checkpoints with equal weights are one model: nothing is said of the map between them."""
        same = [pair for pair in self.pairs if len(set(map(self.comparison.weights_digest, pair.ends))) == 1]
        for pair in same:
            (first, step), (second, later) = pair.ends
            self.left_out.append(
                (
                    self.cohort.member(second).name,
                    f"seed {second} at step {later} has the weights of seed {first} at step {step}: they are one "
                    "model, and are not compared",
                )
            )
        twice = {pair.target for pair in same if pair.ends in _last(self.comparison, self.members)}
        self.pairs = [p for p in self.pairs if p not in same and not {p.source, p.target} & twice]
        self.members = [member for member in self.members if member.seed not in twice]
        if len(self.members) < 2:
            raise RequestError(f"cohort={self.cohort.name}: all its members are one model; there is no pair")

    def _shared_steps(self) -> list[int]:
        steps = [set(member.steps()) for member in self.members]
        return sorted({step for a, b in combinations(steps, 2) for step in a & b})

    def _notes(self) -> list[str]:
        """How the activations were read, where that is not as they are."""
        d, d_model = self.d, self.comparison.model.d_model
        if d == d_model:
            return []
        return [
            f"Every residual stream is read in {d} coordinates of its {d_model}: without its mean over dimensions, "
            "which every LayerNorm that reads it subtracts. The exact symmetry of such a stream is "
            f"O({d}), and all laws here are those of {d} dimensions."
        ]

    def _report(self, tables: Mapping[str, pl.DataFrame]) -> ReportData:
        identity = self.cohort.identity
        return ReportData(
            cohort=self.cohort.name,
            task=identity["task"],
            architecture=identity["architecture"],
            members=[_summary(member, self.comparison.task.headline) for member in self.members],
            headline=self.comparison.task.headline,
            notes=self._notes(),
            left_out=self.left_out,
            history=_history(self.members),
            provenance={
                **self.provenance,
                "config": "; ".join(
                    f"{part} {value[:12]}" for part, value in self.cohort.fingerprints.items()
                )
                + " (SHA-256 of each part of the cohort's identity)",
                "table files": ", ".join(f"{name}.parquet" for name in self.studies if name in tables),
            },
            tables=tables,
            claims=claims_of({**tables, "ladder": at_last_steps(tables["ladder"])}),
        )


def _last(comparison: Comparison, members: Sequence[Member]) -> set[tuple[End, End]]:
    """The ends of every pair at the members' last checkpoints."""
    return {pair.ends for pair in comparison.final_pairs([member.seed for member in members])}


def _summary(member: Member, head: str) -> MemberSummary:
    state, reason, _ = _state(member)
    last: dict[str, Any] = next(iter(reversed(_evaluations(member))), {})
    accuracies = {
        key.split("/")[1]: value for key, value in last.items() if key.endswith(f"/accuracy/{head}")
    }
    return MemberSummary(member.seed, state, member.steps()[-1], reason, accuracies)


def _state(member: Member) -> tuple[str, str, int]:
    try:
        status = member.status()
    except CorruptError as error:
        return "unreadable", str(error), 0
    return ("not recorded", "", 0) if status is None else (status.state, status.reason, status.step)


def _evaluations(member: Member) -> list[dict[str, Any]]:
    """The evaluations of a member by step; of one that was repeated after a resume, the last."""
    rows = [row for row in member.rows() if row.get("kind") == "evaluation"]
    return [row for _, row in sorted({row["step"]: row for row in rows}.items())]


def _history(members: Sequence[Member]) -> pl.DataFrame:
    rows = [
        (member.seed, row["step"], *_parts(key), value)
        for member in members
        for row in _evaluations(member)
        for key, value in row.items()
        if key.startswith("eval/") and value is not None
    ]
    names = {"seed": pl.Int64, "step": pl.Int64, "distribution": pl.String, "metric": pl.String}
    return pl.DataFrame(rows, schema={**names, "head": pl.String, "value": pl.Float64}, orient="row")


def _parts(key: str) -> tuple[str, str, str]:
    _, distribution, metric, head = key.split("/")
    return distribution, metric, head
