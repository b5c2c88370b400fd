"""Do two members have anything to do with one another, beyond what the position in a document explains?"""

from collections.abc import Iterator
from typing import Any

from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.permutation import COMPONENTS, pairing_test
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row

STUDY = "pairing"
LEAST_DRAWS = 199
DRAWS_A_SITE = 60  # so that Holm over two tests a site can reject at 0.05: the least p is 1/(draws + 1)


def study_rows(evidence: Evidence, components: int = COMPONENTS) -> Iterator[Row]:
    """The RV coefficient of every pair, its mean under permuted documents, and p; a row for all pairs together.

    p = (1 + #{T* ≥ T}) / (draws + 1), one-sided, not adjusted for the number of sites or pairs.
    """
    all_sites = list(evidence.root.sites)
    draws = max(LEAST_DRAWS, DRAWS_A_SITE * len(all_sites))
    for site in evidence.sites:
        generator = chunk_generator(evidence.seed, 2**31 + all_sites.index(site))
        test = pairing_test(evidence.kept(site), site, evidence.index, draws, generator, components)
        about: dict[str, Any] = {
            "n_tokens": test.tokens,
            "n_documents": test.documents,
            "extra": {"statistic": "rv"},
        }
        own = (STUDY, site, "fit")
        yield from evidence.pair_rows(*own, "rv_coefficient", test.observed, **about)
        yield from evidence.pair_rows(*own, "rv_coefficient", test.null.mean(0), role="null", **about)
        yield from evidence.pair_rows(*own, "p_value", test.p_values, **about)
        yield evidence.row(*own, "p_value", test.p_value, **about)
