"""The table of the last step: a row a quantity, a column a site, a cell the spread over pairs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl

from polymorph.alignment.families import FAMILIES, in_ladder_order
from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.style import CONTROL_COLOURS, control_name
from polymorph.plotting.table_rows import at_site, dimension, measured, once, scores
from polymorph.plotting.wording import DASH, number, spread
from polymorph.verdicts.estimate import Estimate, estimate

Cell = Callable[[pl.DataFrame], str]


@dataclass(frozen=True)
class Line:
    """One quantity at every site; `note` says what it is, `strong` marks the one to read first.

    A second line of a cell qualifies the first.
    """

    label: str
    note: str
    cells: tuple[str, ...]
    strong: bool = False


@dataclass(frozen=True)
class Section:
    """Lines under one heading."""

    heading: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Summary:
    """The table as text; without sites there is nothing to say."""

    sites: tuple[str, ...]
    sections: tuple[Section, ...]


def summarise(last: pl.DataFrame) -> Summary:
    """The table from the ladder rows of the last steps."""
    sites = sites_in_order(last.filter(pl.col("role") == "estimate"))
    frames = [at_site(last, site) for site in sites]
    sections = (
        Section("R² on the eval split", tuple(_line(frames, *about) for about in _rungs(last))),
        Section(
            "What a freer map gains: mean over directed pairs ± half of the 95 % interval (documents and seeds)",
            tuple(_line(frames, *about) for about in _GAPS),
        ),
        Section("Controls and ceiling, R²", tuple(_line(frames, *about) for about in _BOUNDS)),
        Section("The fitted orthogonal matrix R", tuple(_line(frames, *about) for about in _GEOMETRY)),
    )
    return Summary(tuple(sites), sections)


def _line(frames: list[pl.DataFrame], label: str, note: str, cell: Cell) -> Line:
    return Line(label, note, tuple(cell(frame) for frame in frames), strong=label == "orthogonal")


def _rungs(last: pl.DataFrame) -> Iterator[tuple[str, str, Cell]]:
    rows = last.filter((pl.col("metric") == "r2") & (pl.col("role") == "estimate"))
    for name in in_ladder_order(rows["map"].drop_nulls().to_list()):
        family = FAMILIES.get(name)
        yield name.replace("_", " "), family.note if family else "", _score(name)


def _score(name: str, role: str = "estimate", control: str | None = None) -> Cell:
    return lambda frame: spread(scores(frame, name, role, control)["value"])


def _estimated(metric: str) -> Cell:
    """Mean and half width of the interval for other documents and other seeds."""
    return lambda frame: _told(estimate(measured(frame, metric)))


def _told(found: Estimate | None) -> str:
    if found is None:
        return DASH
    mean = number(found.value, 4)
    return mean if found.high is None else f"{mean} ± {number(found.high - found.value, 4)}"


def _measured(metric: str, digits: int, role: str = "estimate") -> Cell:
    return lambda frame: spread(once(measured(frame, metric, role))["value"], digits)


def _participation(frame: pl.DataFrame) -> str:
    """Over pairs in both directions a member is source and target alike: one spread says both."""
    d, sides = (
        dimension(frame),
        (measured(frame, f"participation_ratio_{s}")["value"] for s in ("source", "target")),
    )
    source, target = (spread(values, digits=1) for values in sides)
    told = source if source == target else f"{source} / {target}"
    return told if d is None or told == DASH else f"{told} of {d}"


def _determinants(frame: pl.DataFrame) -> str:
    rows = once(measured(frame, "determinant"))
    signs = rows["value"]
    return DASH if signs.is_empty() else f"{(signs > 0).sum()} / {(signs < 0).sum()}{_doubt(rows)}"


def _doubt(rows: pl.DataFrame) -> str:
    """A second line where the rows say that the data do not determine R."""
    doubtful = int(rows["convention"].eq_missing("undetermined").sum())
    if not doubtful:
        return ""
    return (
        "\nundetermined"
        if doubtful == rows.height
        else f"\nundetermined in {doubtful} of {rows.height} pairs"
    )


def _frobenius(frame: pl.DataFrame) -> str:
    rows = once(measured(frame, "frobenius_from_identity"))
    return f"{spread(rows['value'], 2)}{_doubt(rows)}"


def _support(frame: pl.DataFrame) -> str:
    values, d = once(measured(frame, "determined_dimension"))["value"], dimension(frame)
    return DASH if values.is_empty() or d is None else f"{spread(values, 0)} of {d}"


def _haar(frame: pl.DataFrame) -> str:
    scales = measured(frame, "frobenius_haar_scale")["value"]
    return DASH if scales.is_empty() else number(float(scales[0]), 2)


def _ceiling_steps(frame: pl.DataFrame) -> str:
    rows = scores(frame, "orthogonal", "ceiling")
    if rows["target_step"].is_null().any():
        return "read twice"
    steps = sorted(set(zip(rows["source_step"], rows["target_step"], strict=True)))
    return (
        ", ".join(f"{early:,} → {late:,}" for early, late in steps[:2]) + (", …" if steps[2:] else "") or DASH
    )


_GAPS: tuple[tuple[str, str, Cell], ...] = (
    ("orthogonality gap", "affine − orthogonal", _estimated("orthogonality_gap")),
    ("similarity gap", "affine − similarity", _estimated("similarity_gap")),
    ("scale gap", "similarity − orthogonal", _estimated("scale_gap")),
    (
        "ladder share",
        "(orthogonal − floor) / (1 − floor), floor: tokens permuted",
        _estimated("ladder_share"),
    ),
)

_NOTES = {
    "tokens_permuted": "the floor",
    "documents_permuted": "what position alone explains",
    "covariance_only": "eigenbases matched, no pairing",
    "matched_gaussian": "independent data, same spectra",
    "haar_draw": "a random matrix",
}

_BOUNDS: tuple[tuple[str, str, Cell], ...] = (
    *(
        (control_name(control), f"{name}; {_NOTES[control]}", _score(name, "control", control))
        for control in CONTROL_COLOURS
        for name in (("orthogonal", "affine") if control.endswith("permuted") else ("orthogonal",))
    ),
    ("ceiling", "orthogonal; one seed against itself", _score("orthogonal", "ceiling")),
    ("ceiling steps", "from which step to which, or read twice", _ceiling_steps),
)

_GEOMETRY: tuple[tuple[str, str, Cell], ...] = (
    ("participation ratio", "source / target, of d dimensions", _participation),
    ("r of d", "dimensions of R that the data determine; unordered pairs", _support),
    (
        "angle on the support",
        "mean turn of the r determined directions, rad",
        _measured("angle_on_support", 2),
    ),
    ("det R +1 / −1", "unordered pairs", _determinants),
    ("‖R − I‖", "Frobenius; unordered pairs", _frobenius),
    ("√(2d)", "root mean square of ‖R − I‖ under Haar", _haar),
)
