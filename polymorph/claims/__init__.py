"""Statements as data: a statistic read from the tables, a threshold, a verdict and its reason."""

from polymorph.claims.claim import Claim, write_claims
from polymorph.claims.site import Site, claims_of

__all__ = ["Claim", "Site", "claims_of", "write_claims"]
