"""One table of families: one that is added is in the ladder, on figures, pages and dashboards, and makes other keys."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from polymorph import compare
from polymorph.alignment.accumulator import pair_moments
from polymorph.alignment.families import CROSS_VALIDATED, FAMILIES, FITS, in_ladder_order, rungs
from polymorph.alignment.fit import fit_orthogonal, fit_rotation
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments
from polymorph.errors import RequestError
from polymorph.evidence.rows import Row
from polymorph.pipeline.porting import PortRequest
from polymorph.pipeline.rows_version import rows_version
from polymorph.plotting.style import map_colour
from polymorph.report.summary import summarise
from polymorph.store import digest
from polymorph.studies.registry import STUDIES
from polymorph.tracking.charts import metrics_of
from polymorph.tracking.config import LoggerConfig
from polymorph.tracking.workspace import Shown, as_json, workspace

NAME, NOTE = "half_turn", "every sign turned, about the means"
PORT = {"source": 0, "target": 1, "site": "s", "sae": "f", "map": NAME}


def half_turn(moments: PairMoments) -> Map:
    eye = torch.eye(moments.xx.shape[-1], dtype=torch.float64).expand_as(moments.xx)
    return Map(NAME, -eye, moments.mean_x, moments.mean_y)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between `shift` and `signed_permutation`."""
    family = replace(FAMILIES["shift"], name=NAME, fit=half_turn, freedom=1.5, colour="#123456", note=NOTE)
    monkeypatch.setitem(FAMILIES, NAME, family)


@pytest.fixture(scope="module")
def members() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The second is the first with every sign turned, and some noise."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 960, 6, generator=generator, dtype=torch.float64)
    return x, 0.1 * noise - x, torch.arange(960) // 10


def ladder_of(members: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> pl.DataFrame:
    x, y, document = members
    return compare([x, y], document, studies=("ladder",)).tables["ladder"]


def test_it_has_rows_in_the_ladder_and_a_line_on_the_page(added, members):
    rows = ladder_of(members)
    scores = rows.filter(metric="r2", map=NAME, role="estimate")["value"]
    assert len(scores) == 2
    assert min(scores) > 0.98 > 0 > max(rows.filter(metric="r2", map="shift", role="estimate")["value"])
    lines = summarise(rows).sections[0].lines
    assert (lines[2].label, lines[2].note) == ("half turn", NOTE)


def test_it_has_its_place_its_colour_and_its_curves(added, members):
    some = ["affine", NAME, "unheard_of", "identity"]
    assert in_ladder_order(some) == ["identity", NAME, "affine", "unheard_of"]
    assert map_colour(NAME) == "#123456"
    metrics = metrics_of([Row.from_dict(row) for row in ladder_of(members).iter_rows(named=True)])
    assert [value > 0.98 for name, value in metrics.items() if name.endswith(f"r2/{NAME}")] == [True]
    drawn = str(as_json(workspace(Shown("cohort", ["s"]), LoggerConfig())))
    assert all(f"compare/s/r2/{name}'" in drawn for name in rungs())
    assert PortRequest.of(PORT).map == NAME


def test_its_inverse_is_that_of_its_kind(added, members):
    x, y, _ = members
    fitted = half_turn(pair_moments(x, y))
    torch.testing.assert_close(fitted.inv(fitted(x)), x)


def test_rows_from_before_have_another_key(added, monkeypatch):
    with_it = digest(rows_version("ladder"))
    monkeypatch.delitem(FAMILIES, NAME)
    without = digest(rows_version("ladder"))
    assert with_it != without
    later = replace(STUDIES["ladder"], version=STUDIES["ladder"].version + 1)
    monkeypatch.setitem(STUDIES, "ladder", later)  # type: ignore[arg-type]
    assert digest(rows_version("ladder")) not in (with_it, without)


def test_without_it_nothing_knows_its_name(members):
    assert map_colour(NAME) == map_colour("unheard_of")
    rows = ladder_of(members)
    assert NAME not in rows["map"]
    assert rungs() == in_ladder_order(rows["map"].drop_nulls().to_list())
    with pytest.raises(RequestError, match=r"port\.map"):
        PortRequest.of(PORT)


def test_the_table_is_in_the_order_of_freedom():
    assert rungs() == list(FAMILIES)
    assert list(FITS) == [name for name in rungs() if name != "reduced_rank"]
    assert set(CROSS_VALIDATED) <= set(rungs())
    assert len({family.colour for family in FAMILIES.values()}) == len(FAMILIES)


@pytest.mark.parametrize("name", FITS)
def test_what_is_called_an_isometry_is_one(members, name):
    x, y, _ = members
    W = FITS[name](pair_moments(x, 2 * y * torch.arange(1.0, 7.0, dtype=torch.float64))).weight
    apart = float((W.mT @ W - torch.eye(6, dtype=torch.float64)).abs().max())
    assert (apart < 1e-9) == FAMILIES[name].isometry


def test_a_rotation_is_one_and_the_orthogonal_map_may_reflect(members):
    x, _, _ = members
    mirrored = x * torch.tensor([-1.0, 1, 1, 1, 1, 1], dtype=torch.float64)
    for fit, sign in ((fit_rotation, 1), (fit_orthogonal, -1)):
        assert float(torch.linalg.det(fit(x, mirrored).weight)) == pytest.approx(sign)
        assert float(torch.linalg.det(fit(x, x).weight)) == pytest.approx(1)


def test_the_documents_name_every_family_in_its_order():
    tables = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
    rows = tables.split("## Maps and controls")[1].split("| control |")[0].splitlines()
    cells = [row.split("|")[1] for row in rows if row.startswith("| `")]
    assert [name for cell in cells for name in cell.replace("`", "").replace(" ", "").split(",")] == rungs()
