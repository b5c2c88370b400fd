"""All claims of an analysis: those of every site, then those that studies make."""

from collections.abc import Mapping

import polars as pl

from polymorph.studies.registry import STUDIES
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.site_claims import site_claims


def claims_of(tables: Mapping[str, pl.DataFrame]) -> list[Claim]:
    """From the tables of the studies at the last step of every member."""
    of_studies = (study.claims(tables) for study in STUDIES.values())
    return [*site_claims(tables), *(claim for claims in of_studies for claim in claims)]
