"""How well does each member say its labels, by how much of the document it has read?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="How well does each member say its labels, by how much of the document it has read?",
    place=20,
    metrics={
        "loss": (
            "role estimate: mean cross-entropy in nats a token, of one `head`, or of their sum "
            "(`all`), where there are several"
        ),
        "label_entropy": (
            "role control: entropy in nats of the labels' own distribution on these tokens: the loss "
            "of the best answer that is always the same"
        ),
    },
    columns={
        "head": pl.String,
        "from_position": pl.Int64,
        "to_position": pl.Int64,
    },
    needs=frozenset(["labels"]),
    scope="all",
    figures=("figure",),
    limits=(
        "It can show how well each member answers on held-out documents. It says nothing of whether two "
        "members answer alike, or are alike inside.",
        "The control is the best answer that is always the same: a member that is no better has learned no "
        "more than how frequent the labels are.",
        "Bins far into a document hold long documents alone, so that a curve compares documents too. Ranges "
        "are over members; intervals in the figure hold documents, not seeds.",
    ),
)
