"""One self-contained HTML page: no network, one script of our own, everything that was given escaped."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files as files_of
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from polymorph.plotting import wording
from polymorph.plotting.captions import R2_DEFINITION, Pairs, data_behind, steps_behind
from polymorph.plotting.plate import Drawn, Plate, first_sentence
from polymorph.plotting.table_rows import at_last_steps, in_reading_order
from polymorph.report.cautions import cautions
from polymorph.report.data import MemberSummary, ReportData
from polymorph.report.explorer import explorer_of
from polymorph.report.figures import MEMBERS, draw_all
from polymorph.report.inline_svg import picture
from polymorph.report.opening import COLUMNS, beside, opening_of
from polymorph.report.sections import sections_of
from polymorph.report.summary import Summary, summarise
from polymorph.report.verdicts import bars_of, how_decided, verdicts_of
from polymorph.studies.registry import STUDIES

EXPECTED_PROVENANCE = ("command", "code version", "config", "package versions", "table files")
"""What every page tells of how it was made; what was not given is shown as not recorded."""

STUDY = "study "
"""What the name of a study that is left out starts with."""
NO_SAES = "they need SAEs at these checkpoints, and there are none; python train.py stage=sae trains them"


def render_page(
    report: ReportData,
    drawn: Mapping[str, tuple[Drawn, ...]] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> str:
    """The page as text; `drawn` and `files` spare drawing and saving figures again."""
    ladder = report.ladder
    last = at_last_steps(ladder)
    summary = summarise(last)
    plates = draw_all(report) if drawn is None else drawn
    verdicts = verdicts_of(report.claims)
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            left_out=left_out(report.left_out),
            opening=opening_of(report.claims, last),
            lead=_lead(report, last, summary),
            facts=_about(report),
            verdicts=verdicts,
            glance=[(verdict, beside(last, verdict.site)) for verdict in verdicts if summary.sites],
            glance_columns=[*(heading for heading, *_ in COLUMNS), "determined"],
            bars=bars_of(report.claims),
            decided=how_decided(_seeds(report, last)),
            sentences=[] if report.trained else _sentences(report.members),
            distributions=in_reading_order([name for member in report.members for name in member.accuracies]),
            summary=summary,
            behind=f"At {steps_behind(last)}. {data_behind(last)} {R2_DEFINITION}" if summary.sites else "",
            cautions=cautions(last, report.tables) if summary.sites else [],
            sections=sections_of(report, plates),
            of_members=plates.get(MEMBERS, ()),
            pictures=_pictures([one for own in plates.values() for one in own], files or {}),
            **_explored(ladder),
            provenance=_provenance(report.provenance),
            **_own("style", "style.css"),
            **_own("script", "page.js", "explorer.js"),
        )
    )


def _explored(ladder: pl.DataFrame) -> dict[str, Any]:
    """What the page's explorer of the ladder holds, and what it says below itself."""
    explorer = explorer_of(ladder)
    if explorer is None:
        return {"explorer": None, "explorer_json": "", "explorer_caption": ""}
    return {
        "explorer": explorer,
        "explorer_json": Markup(explorer.json()),
        "explorer_caption": explorer.caption(ladder),
    }


def _own(name: str, *files: str) -> dict[str, str]:
    """The text of our own files, and its digest, by which alone the page allows it."""
    folder = files_of("polymorph.report").joinpath("template")
    text = "\n" + "".join(folder.joinpath(file).read_text(encoding="utf-8") for file in files)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return {name: Markup(text), f"{name}_hash": f"sha256-{digest}"}


def left_out(entries: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Who is missing, and why; studies of SAEs, where a cohort has none, in one line."""
    needing = {
        (f"{STUDY}{name}", f"it needs {study.missing}") for name, study in STUDIES.items() if study.needs_saes
    }
    if not needing <= set(entries):
        return list(entries)
    names = wording.listed(sorted(who.removeprefix(STUDY) for who, _ in needing))
    return [*(entry for entry in entries if entry not in needing), (f"studies of SAEs ({names})", NO_SAES)]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("polymorph.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {
        "percent": wording.percent,
        "whole": wording.whole,
        "first_sentence": first_sentence,
    }
    return environment


def _printable(value: Any) -> Any:
    """Every value on its way into the page: control characters and lone surrogates do not pass."""
    return wording.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _lead(report: ReportData, last: pl.DataFrame, summary: Summary) -> str:
    members = wording.counted(len(report.members), "member")
    others = [who for who, _ in report.left_out if not who.startswith(STUDY)]
    without = f", {len(others)} left out" if others else ""
    if not summary.sites:
        return f"{members}{without}. No pair of members was compared."
    pairs = Pairs.of(last)
    return (
        f"{members}{without}; {wording.counted(len(pairs.seeds), 'seed')} compared in "
        f"{wording.counted(pairs.unordered, 'unordered pair')} ({pairs.directed} directed) at "
        f"{wording.counted(len(summary.sites), 'site')}, {steps_behind(last)}."
    )


def _seeds(report: ReportData, last: pl.DataFrame) -> int:
    return len(Pairs.of(last).seeds) or len(report.members)


def _about(report: ReportData) -> dict[str, list[tuple[str, str]]]:
    """What is known of the cohort; a planted one has no task to learn and no architecture."""
    if not report.trained:
        return {"How it was planted": _facts(report.task)}
    return {"Task": _facts(report.task), "Architecture": _facts(report.architecture)}


def _sentences(members: Sequence[MemberSummary]) -> list[str]:
    """A sentence a state, for members that have nothing else to tell."""
    states = dict.fromkeys(member.state for member in members)
    return [
        f"{state.capitalize()}: {wording.listed(m.seed for m in members if m.state == state)}."
        for state in states
    ]


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value; a mapping gives a line for each of its own, and digests are shown by their first digits."""
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += [(f"{name}: {inner}", text) for inner, text in _facts(value)]
        elif isinstance(value, list | tuple):
            found.append((str(name), ", ".join(map(_shown, value))))
        else:
            found.append((str(name), _shown(value)))
    return found


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text


def _pictures(plates: Sequence[Drawn], files: Mapping[str, bytes]) -> dict[str, Markup]:
    """Name → address of the picture, of every figure that could be drawn."""
    return {
        plate.name: Markup(picture(plate, files.get(f"{plate.name}.svg")))
        for plate in plates
        if isinstance(plate, Plate)
    }


def _provenance(given: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """What is expected, in its order, then whatever else was given."""
    others = [name for name in given if name not in EXPECTED_PROVENANCE]
    return [(name, given.get(name)) for name in (*EXPECTED_PROVENANCE, *others)]
