"""Rows of one checkpoint to what a dashboard draws: a number a name, beside its law, control and ceiling."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from polymorph.alignment.rotation import frobenius_haar_band
from polymorph.evidence.rows import LIVE, Row, table
from polymorph.steering.regimes import REGIMES
from polymorph.studies.claims import claims_of
from polymorph.studies.pairing import rows as pairing
from polymorph.studies.registry import STUDIES
from polymorph.studies.sae_transfer import rows as sae_transfer
from polymorph.studies.steering.bench import NAMED
from polymorph.studies.steering.bench import STUDY as STEERING
from polymorph.verdicts.words import entry_of

LADDER = "ladder"
CHARTED = (LADDER, pairing.STUDY, STEERING, sae_transfer.STUDY)
"""Studies whose rows have charts."""
_SAE_CURVES = {"identity": "naive", "orthogonal": "mapped"}
Metrics = dict[str, Any]


def metrics_of(rows: Sequence[Row]) -> Metrics:
    """All of one checkpoint under `compare/<site>/…`; for charts only, the rows are the record.

    Medians over directed pairs; ‖R − I‖ beside its law under Haar; the verdict of every site by number and word;
    shares of the regimes of steering.
    """
    rows = [row.of_study(row.study.removesuffix(LIVE)) for row in rows]
    charted = [row for row in rows if row.study not in (pairing.STUDY, STEERING)]
    return {**_medians(charted), **_haar(rows), **_verdicts(rows), **_steering(rows)}


def by_checkpoint(rows: Iterable[Row]) -> list[tuple[int, list[Row]]]:
    """The rows by the step of their targets, in order; those of no step stand at 0."""
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.target_step or 0].append(row)
    return sorted(found.items())


def _medians(rows: Iterable[Row]) -> Metrics:
    """`compare/<site>/<metric>/<SAEs>/<map, control or ceiling>`."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.extra.get("control") != "predict_mean":  # it is the same at every checkpoint
            values[_name(row.site, row.metric, row.extra.get("sae"), _curve(row))].append(row.value)
    return {name: median(numbers) for name, numbers in sorted(values.items())}


def _name(*parts: object) -> str:
    return "/".join(("compare", *(str(part) for part in parts if part)))


def _curve(row: Row) -> str:
    """Which line of a chart a row belongs to."""
    transfer = row.study == sae_transfer.STUDY
    kind = {"control": row.extra.get("control"), "ceiling": "own" if transfer else "ceiling"}.get(row.role)
    carried = _SAE_CURVES.get(row.map or "", row.map) if transfer else row.map
    paper = "paper" if row.convention == "paper" else None
    return "_".join(str(part) for part in (carried, kind, paper) if part is not None)


def _haar(rows: Iterable[Row]) -> Metrics:
    """What ‖R − I‖ would be for a uniformly random R of as many dimensions: the mean, and 95 % of all."""
    found: Metrics = {}
    for row in rows:
        if row.metric == "frobenius_haar_scale" and row.role == "estimate":
            law = frobenius_haar_band(round(row.value**2 / 2))
            for part, value in zip(("mean", "low", "high"), law, strict=True):
                found[_name(row.site, "frobenius_haar", part)] = value
    return found


def _verdicts(rows: Sequence[Row]) -> Metrics:
    """By the rule of claims, from the ladder, and from the pairing test where that was made at this checkpoint.

    A word that the table of verdicts does not have is charted as `unknown`, because the other numbers count too.
    """
    own = [row for row in rows if row.study == LADDER and row.role in ("estimate", "ceiling")]
    if not any(row.role == "estimate" for row in own):
        return {}
    tests = combined(rows)
    tables = {
        "ladder": table(own, STUDIES["ladder"].columns),
        "pairing": table(tests, STUDIES["pairing"].columns),
    }
    found: Metrics = {_name(row.site, "pairing_p_value"): row.value for row in tests}
    for claim in claims_of({name: each for name, each in tables.items() if not each.is_empty()}):
        if claim.kind == "verdict":
            entry = entry_of(claim.verdict)
            found[_name(claim.site, "verdict")] = float(entry.code)
            found[_name(claim.site, "verdict_word")] = entry.word
    return found


def combined(rows: Iterable[Row]) -> list[Row]:
    """One pairing test a site: of all members together where that was made, else of its pairs by Rüger's rule.

    p = K/k · p_(k) with k = ⌈K/2⌉ of K pairs is a p-value however the pairs hang together.
    """
    tests = [row for row in rows if row.study == pairing.STUDY and row.metric == "p_value"]
    found = {row.site: row for row in tests if row.source is None}
    for site in dict.fromkeys(row.site for row in tests):
        if site not in found:
            found[site] = _combined([row for row in tests if row.site == site])
    return list(found.values())


def _combined(tests: Sequence[Row]) -> Row:
    k = math.ceil(len(tests) / 2)
    ordered = sorted(row.value for row in tests)
    p = min(1.0, len(tests) / k * ordered[k - 1])
    return replace(tests[0], source=None, target=None, source_step=None, target_step=None, value=p)


def _steering(rows: Iterable[Row]) -> Metrics:
    """Shares of the regimes over named contrasts and directed pairs, and the median efficiency, by map.

    Only at the tested dose, which is the one that has regimes.
    """
    own = [row for row in rows if row.study == STEERING and row.extra.get("group") == NAMED]
    called: Mapping[str, list[str]] = defaultdict(list)
    doses = set()
    for row in own:
        if row.metric == "regime":
            called[_name(row.site, "steering_regime", _curve(row))].append(str(row.extra["regime"]))
            doses.add(row.extra.get("dose"))
    found: Metrics = {
        f"{name}/{regime}": words.count(regime) / len(words)
        for name, words in called.items()
        for regime in REGIMES
    }
    efficient = [row for row in own if row.metric == "transfer_efficiency" and row.extra.get("dose") in doses]
    return {**found, **_medians([replace(row, metric="steering_efficiency") for row in efficient])}
