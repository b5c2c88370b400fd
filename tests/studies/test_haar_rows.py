"""The paper's distance to a permutation stands in the rows of every pair, with a note where R is undetermined."""

import pytest
import torch

from polymorph.alignment.fit import orthogonal
from polymorph.alignment.haar import haar, ks_from_uniform, permutation_distance
from polymorph.evidence.evidence import planted_evidence
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import table
from polymorph.studies.haar.rows import PAPER, PAPER_UNDETERMINED
from polymorph.studies.haar.rows import study_rows as haar_rows
from polymorph.studies.registry import STUDIES


@pytest.mark.parametrize(
    ("kind", "convention"), [("same_basis_low_rank", PAPER_UNDETERMINED), ("rotated", PAPER)]
)
def test_every_pair_has_its_distance_to_a_permutation(kind: str, convention: str) -> None:
    config = PlantedConfig(d=12, members=3, documents=96, tokens=12, rank=4)
    evidence = planted_evidence(Planted(kind, config))
    rows = table(haar_rows(evidence), STUDIES["haar"].columns).filter(metric="permutation_distance")
    assert set(rows["convention"]) == {convention}
    assert set(rows.select("source", "target").iter_rows()) == {(0, 1), (0, 2), (1, 2)}
    (site,) = evidence.sites
    R = orthogonal(evidence.totals(site)[0]).weight
    assert sorted(rows["value"]) == pytest.approx(sorted(permutation_distance(R).tolist()))


def test_the_distance_from_the_uniform_law_is_small_for_haar_and_large_for_one_angle() -> None:
    R = haar(64, 1, torch.Generator().manual_seed(0))[0]
    angles = torch.linalg.eigvals(R).angle().sort().values
    assert float(ks_from_uniform(angles)) < 0.04
    assert float(ks_from_uniform(torch.zeros(64, dtype=torch.float64))) == pytest.approx(0.5)
