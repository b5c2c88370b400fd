"""Which rows of a table a figure or a cell shows. Rows are chosen here, never changed."""

from collections.abc import Mapping, Sequence

import polars as pl

Schema = Mapping[str, type[pl.DataType]]

HISTORY: Schema = {
    "seed": pl.Int64,
    "step": pl.Int64,
    "distribution": pl.String,
    "head": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
}

DISTRIBUTIONS = ("train", "compositional", "long")
"""The evaluation distributions in the order of reading; others follow by name."""
STEPS = ("source_step", "target_step")
_FORTH = pl.col("source") <= pl.col("target")


def completed(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """The frame with all columns of the schema; those that it lacks hold null. Further columns stay."""
    lacking = [
        pl.lit(None, dtype=kind).alias(name) for name, kind in schema.items() if name not in frame.columns
    ]
    return frame.with_columns(lacking) if frame.columns else pl.DataFrame(schema=schema)


def at_last_steps(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of the latest steps of every ordered pair at every site; of a ceiling, the last two steps.

    The later of the two steps decides, then the earlier one.
    """
    pair = ["source", "target", "site"]
    late, early = pl.max_horizontal(STEPS).fill_null(-1), pl.min_horizontal(STEPS).fill_null(-1)
    return frame.filter(late == late.max().over(pair)).filter(early == early.max().over(pair))


def scores(
    frame: pl.DataFrame, name: str, role: str = "estimate", control: str | None = None
) -> pl.DataFrame:
    """The `r2` rows of a map on the eval split: estimates, ceilings, or one of the controls."""
    about = pl.col("metric").eq("r2") & pl.col("map").eq(name) & pl.col("role").eq(role)
    shuffled = pl.col("control").is_null() if control is None else pl.col("control").eq(control)
    return frame.filter(about & pl.col("split").eq("eval") & shuffled).sort("source", "target")


def measured(frame: pl.DataFrame, metric: str, role: str = "estimate") -> pl.DataFrame:
    """The rows of a metric that belongs to no score, e.g. `determinant`."""
    return frame.filter(pl.col("metric").eq(metric) & pl.col("role").eq(role)).sort("source", "target")


def once(frame: pl.DataFrame) -> pl.DataFrame:
    """Each unordered pair in one direction, for what is the same both ways; ceilings as they are."""
    pair = ["source", "target", "source_step", "target_step", "site"]
    flipped = dict(zip(pair, ["target", "source", "target_step", "source_step", "site"], strict=True))
    forth, back = (frame.filter(test) for test in (_FORTH, ~_FORTH))
    answered = forth.select(**flipped).unique()
    return pl.concat([forth, back.join(answered, on=pair, how="anti", nulls_equal=True)])


def at_site(frame: pl.DataFrame, site: str) -> pl.DataFrame:
    """The rows of one site."""
    return frame.filter(pl.col("site") == site)


def dimension(frame: pl.DataFrame) -> int | None:
    """d, from the Haar scale √(2d) that stands in the rows; None where there is none."""
    scales = measured(frame, "frobenius_haar_scale")["value"]
    return None if scales.is_empty() else round(float(scales[0]) ** 2 / 2)


def in_reading_order(distributions: Sequence[str]) -> list[str]:
    """Distinct distributions: the known ones as in `DISTRIBUTIONS`, then the others by name."""
    known = {name: place for place, name in enumerate(DISTRIBUTIONS)}
    return sorted(set(distributions), key=lambda name: (known.get(name, len(known)), name))
