"""Further key columns that several studies have."""

from collections.abc import Mapping

import polars as pl

SAE_COLUMNS: Mapping[str, type[pl.DataType]] = {"sae": pl.String, "variant": pl.String, "control": pl.String}
