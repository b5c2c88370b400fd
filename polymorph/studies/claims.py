"""All claims of an analysis: those of every site, then those of whole members."""

from collections.abc import Mapping

import polars as pl

from polymorph.studies.bars.claims import bar_claims
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.site import site_claims


def claims_of(tables: Mapping[str, pl.DataFrame]) -> list[Claim]:
    """From the tables of the studies at the last step of every member."""
    return [*site_claims(tables), *bar_claims(tables)]
