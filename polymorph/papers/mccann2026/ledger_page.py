"""The ledger as one self-contained HTML page: no script, no network, everything escaped."""

from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from polymorph.papers.mccann2026.ledger import (
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNINFORMATIVE,
    Judged,
    counts,
)
from polymorph.papers.mccann2026.ledger_rows import (
    HEADINGS,
    in_rows,
    of_ours,
    of_paper,
    of_sound,
    over_what,
    summary,
    to_be_run,
    tolerance,
)
from polymorph.plotting.wording import counted, printable

MARKS = {REPRODUCED: "same", UNINFORMATIVE: "empty", NOT_REPRODUCED: "other", NOT_RUN: "open"}


def render_ledger(judged: Sequence[Judged], cohort: str, title: str, provenance: Mapping[str, str]) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("polymorph.papers.mccann2026", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"paper": of_paper, "tolerance": tolerance, "printable": printable}
    environment.filters |= {"ours": of_ours, "sound": of_sound, "over_what": over_what, "counted": counted}
    return environment.get_template("ledger.html").render(
        cohort=cohort,
        title=title,
        headings=HEADINGS,
        summary=summary(judged),
        counts=counts(judged),
        elsewhere=sorted({what for one in judged for what in one.elsewhere}),
        rows=in_rows(judged),
        missing=to_be_run(judged),
        marks=MARKS,
        provenance=provenance,
    )
