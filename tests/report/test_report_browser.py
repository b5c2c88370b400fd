"""The page as it is read: in headless Chromium, at two sizes, light and dark, with and without a script."""

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from browser import DESKTOP, PHONE, Tab, opened, started
from PIL import Image
from planted_report import with_tables

from polymorph.evidence.rows import sites_in_order, table
from polymorph.report.compact import as_address, compact
from polymorph.report.data import ReportData
from polymorph.report.figures import draw_all
from polymorph.report.page import render_page
from polymorph.studies.registry import STUDIES
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.findings import Isometry, Measured, Verdict

SITE, LAST = "blocks.1.hook_resid_mid", 64
STEPS = [0, 4, 64]
HOSTILE = "</script><img src=x onerror=alert(1)>"


def claims_at(site: str, word: str) -> tuple[Claim, Claim]:
    gap = Measured(statistic="orthogonality_gap", value=0.1, bound=0.01)
    return (
        Claim(site=site, finding=Verdict(word=word, reason_code="not_measured")),
        Claim(site=site, finding=Isometry(word="rejected", decided_by=gap)),
    )


def with_all_sections(report: ReportData) -> ReportData:
    """Every study has a table, if an empty one, and every site a verdict and another test."""
    tables = {name: table([], study.columns) for name, study in STUDIES.items()}
    verdicts = zip(sites_in_order(report.ladder), ("rotation", "affine", "undetermined"), strict=True)
    claims = [made for site, verdict in verdicts for made in claims_at(site, verdict)]
    return replace(report, tables=tables | dict(report.tables), claims=claims)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with started() as running:
        yield running


@pytest.fixture(scope="session")
def path(planted: ReportData, drawn: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("page") / "report.html"
    found.write_text(render_page(with_all_sections(planted), drawn), encoding="utf-8")
    return found


@pytest.fixture
def tab(browser: Any, path: Path) -> Iterator[Tab]:
    with opened(browser, path) as found:
        yield found


def shown(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def r2(report: ReportData, name: str, **about: Any) -> pl.DataFrame:
    wanted = {"metric": "r2", "map": name, "role": "estimate", "site": SITE, "target_step": LAST} | about
    return report.ladder.filter(**wanted)


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_complaint_and_asks_for_nothing(browser, path, size, scheme):
    with opened(browser, path, size, scheme) as tab:
        assert tab.complaints == []
        assert tab.requests == [path.as_uri()]
        assert tab.overflow <= 0
        shown = tab.page.eval_on_selector_all(
            "img", "all => all.map(one => one.complete && one.naturalWidth > 0)"
        )
        assert len(shown) == 5
        assert all(shown)


def test_a_complaint_and_a_request_are_seen(browser, tmp_path):
    """The opposite of the test above: a page that does all that ours must not."""
    page = tmp_path / "bad.html"
    page.write_text("<body style='width: 3000px'><img src='https://example.org/x.png'><script>f()</script>")
    with opened(browser, page) as tab:
        assert any("f is not defined" in complaint for complaint in tab.complaints)
        assert "https://example.org/x.png" in tab.requests
        assert tab.overflow > 0


def test_what_is_not_ours_does_not_run(browser, path, tmp_path):
    """The page's own policy stops a script, a style and a handler that got into it."""
    bad = tmp_path / "report.html"
    inserted = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\"></body>"
    bad.write_text(path.read_text(encoding="utf-8").replace("</body>", inserted), encoding="utf-8")
    with opened(browser, bad) as tab:
        assert tab.page.title() == "planted · polymorph"
        assert any("Content Security Policy" in complaint for complaint in tab.complaints)


def test_every_study_has_its_section_in_order(tab):
    ids = tab.page.eval_on_selector_all("main > section", "all => all.map(one => one.id)")
    assert ids == ["opening", "verdicts", *STUDIES, "members", "made"]
    questions = tab.page.eval_on_selector_all("section.study > h2", "all => all.map(one => one.textContent)")
    assert questions == [study.question for study in STUDIES.values()]
    for name in ids:
        assert tab.page.is_visible(f"#{name} > h2")


def test_it_opens_with_the_verdict_in_sentences(tab):
    opening = tab.text("#opening")
    for wanted in (
        "The verdict is rotation",
        "The verdict is affine",
        "of the 16 dimensions",
    ):
        assert wanted in opening
    top = tab.page.evaluate("document.querySelector('#opening p').getBoundingClientRect().bottom")
    assert top < DESKTOP[1]


def test_the_explorer_shows_the_rows_of_all_pairs(tab, planted):
    tab.choose("site", sites_in_order(planted.ladder).index(SITE))
    scores = tab.scores()
    for name in ("identity", "orthogonal", "affine"):
        values = r2(planted, name)["value"]
        spread = f"{shown(max(values.min(), -3.27))} to {shown(values.max())}"
        assert scores[name] == (shown(values.median()), spread)
    control = r2(planted, "orthogonal", role="control", control="documents_permuted")["value"]
    assert scores["documents permuted"][0] == shown(control.median())
    ceiling = r2(planted, "orthogonal", role="ceiling")["value"]
    assert scores["ceiling"][0] == shown(ceiling.median())


def test_site_pair_and_step_change_what_is_shown(tab, planted):
    """Each alone, against the row that it must then show, with the interval of that row."""
    sites = sites_in_order(planted.ladder)
    pairs = sorted(set(planted.ladder.filter(role="estimate").select("source", "target").iter_rows()))
    for site, pair, step in [(2, (0, 1), 64), (0, (0, 1), 64), (0, (2, 1), 64), (0, (2, 1), 4)]:
        tab.choose("site", site)
        tab.choose("pair", pairs.index(pair))
        tab.slide(STEPS.index(step))
        about = {"site": sites[site], "target_step": step, "source": pair[0], "target": pair[1]}
        (row,) = r2(planted, "orthogonal", **about).to_dicts()
        value, spread = tab.scores()["orthogonal"]
        assert value == shown(row["value"])
        low, high = (float(end.replace("−", "-")) for end in spread.split(" to "))
        assert low == pytest.approx(row["low"], abs=2e-3)
        assert high == pytest.approx(row["high"], abs=2e-3)
        said = tab.text("#explorer-said")
        assert all(
            part in said for part in (sites[site], f"step {step}", f"seed {pair[0]} → seed {pair[1]}", value)
        )
        turn = planted.ladder.filter(metric="frobenius_from_identity", role="estimate", **about)["value"][0]
        assert f"‖R − I‖ = {turn:.2f}" in said
        assert tab.page.get_attribute("#explorer-step", "aria-valuetext") == f"step {step}"


def test_a_map_can_be_added_and_taken_away(tab):
    def lines() -> int:
        return tab.page.locator("#explorer-r2 polyline").count()

    before = lines()
    tab.page.get_by_role("checkbox", name="similarity").check()
    assert lines() == before + 1
    tab.page.get_by_role("checkbox", name="similarity").uncheck()
    tab.page.get_by_role("checkbox", name="identity").uncheck()
    assert lines() == before - 1


def test_the_step_is_marked_in_both_plots(tab):
    def marks() -> list[float]:
        return tab.page.eval_on_selector_all(
            "#explorer .now", "all => all.map(one => +one.getAttribute('x1'))"
        )

    tab.slide(0)
    first = marks()
    tab.slide(2)
    assert len(first) == len(marks()) == 2
    assert all(early < late for early, late in zip(first, marks(), strict=True))


def test_the_keyboard_reaches_every_control(tab):
    """By Tab alone, in the order of the page."""
    tab.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    wanted = tab.page.eval_on_selector_all(
        "a, button, select, input, summary, [tabindex='0']",
        "all => all.filter(one => one.checkVisibility()).length",
    )
    tab.page.evaluate("window.reached = new Set()")
    for _ in range(wanted + 5):
        tab.page.keyboard.press("Tab")
        tab.page.evaluate("reached.add(document.activeElement)")
    reached = tab.page.evaluate("[...reached].filter(one => one !== document.body).length")
    assert reached == wanted
    tab.page.focus("#explorer-site")
    before = tab.text("#explorer-said")
    tab.page.keyboard.press("ArrowUp")
    assert tab.text("#explorer-said") != before


def test_the_theme_can_be_chosen_and_follows_the_system_until_then(browser, path):
    def ground(tab: Tab) -> str:
        return str(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, dark = "rgb(255, 255, 255)", "rgb(21, 23, 26)"
    for scheme, first, then in (("light", light, dark), ("dark", dark, light)):
        with opened(browser, path, scheme=scheme) as tab:
            assert ground(tab) == first
            tab.page.click("#theme")
            assert ground(tab) == then
            assert tab.page.get_attribute("#theme", "aria-pressed") == str(then == dark).lower()


def test_a_figure_can_be_enlarged_inside_its_frame(tab):
    def width() -> float:
        return float(tab.page.locator("#figure-r2_by_site img").bounding_box()["width"])

    before, button = width(), tab.page.locator("#figure-r2_by_site button")
    button.click()
    assert width() > 1.5 * before
    assert button.get_attribute("aria-pressed") == "true"
    assert tab.overflow <= 0
    button.click()
    assert width() == before


def test_print_is_light_whole_and_static(browser, path):
    """Controls are gone, everything that was folded is there, and the figures stand for the explorer."""
    with opened(browser, path, scheme="dark") as tab:
        tab.page.click("#theme")
        tab.page.click("#theme")
        tab.page.emulate_media(media="print")
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        for gone in ("#explorer", "#theme", "nav"):
            assert not tab.page.is_visible(gone)
        for there in (
            "#figure-r2_by_site img",
            "#figure-r2_trajectory img",
            "#figure-frobenius_trajectory img",
        ):
            assert tab.page.is_visible(there)
        tab.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert tab.page.locator("details:not([open])").count() == 0
        tab.page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert tab.page.locator("details:not([open])").count() > 0
        assert tab.page.pdf(format="A4").startswith(b"%PDF")


def test_without_a_script_the_static_figures_stand(browser, path):
    with opened(browser, path, script=False) as tab:
        assert not tab.page.is_visible("#explorer")
        assert not tab.page.is_visible("#theme")
        assert tab.page.is_visible("#figure-r2_trajectory img")
        assert tab.page.is_visible("nav summary")


def test_hostile_names_are_text_in_every_part(browser, planted, drawn, tmp_path):
    renamed = pl.col("site").replace(SITE, HOSTILE)
    ladder = planted.ladder.with_columns(renamed)
    report = with_all_sections(replace(with_tables(planted, ladder=ladder), cohort=HOSTILE))
    found = tmp_path / "report.html"
    found.write_text(render_page(report, drawn), encoding="utf-8")
    with opened(browser, found) as tab:
        assert tab.complaints == []
        assert tab.text("h1") == HOSTILE
        sites = tab.page.eval_on_selector_all(
            "#explorer-site option", "all => all.map(one => one.textContent)"
        )
        assert HOSTILE in sites
        tab.choose("site", sites.index(HOSTILE))
        assert tab.text("#explorer-said").startswith(f"{HOSTILE}, step 64")
        assert tab.page.locator("img").count() == 5
        assert tab.overflow <= 0


def serious(tab: Tab) -> list[str]:
    """What axe-core finds serious or critical, with where it stands."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    tab.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = axe.Axe().run(tab.page).response["violations"]
    return [
        f"{one['id']} at {one['nodes'][0]['target']}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_axe_finds_nothing_serious(browser, path, size, scheme):
    with opened(browser, path, size, scheme) as tab:
        assert serious(tab) == []


def test_axe_would_find_it(browser, path, tmp_path):
    """The opposite: our page with a picture without words, and with grey on grey."""
    bad = tmp_path / "report.html"
    page = re.sub(r' alt="[^"]*"', "", path.read_text(encoding="utf-8"))
    page = re.sub(r'content="default-src[^"]*"', 'content=""', page).replace(
        "--soft: #565c63", "--soft: #cccccc"
    )
    bad.write_text(page, encoding="utf-8")
    with opened(browser, bad) as tab:
        found = " ".join(serious(tab))
        assert "image-alt" in found
        assert "color-contrast" in found


@pytest.mark.parametrize("what", ["nothing", "one step", "no step", "too many pairs"])
def test_a_partial_cohort_opens_too(browser, planted, tmp_path, monkeypatch, what):
    """And says what it lacks."""
    report, text = planted, ""
    if what == "nothing":
        nothing: Any = {"members": [], "tables": {}, "history": pl.DataFrame()}
        report, text = replace(planted, **nothing), "No pair of members was compared"
    elif what == "one step":
        last = planted.ladder.filter(source_step=LAST, target_step=LAST)
        report, text = with_tables(planted, ladder=last), "There is no ceiling"
    elif what == "no step":
        members = [replace(one, last_step=None, reason=None, accuracies={}) for one in planted.members]
        last = planted.ladder.filter(source_step=LAST, target_step=LAST)
        report, text = (
            replace(with_tables(planted, ladder=last), members=members, history=pl.DataFrame()),
            "the only state",
        )
    else:
        monkeypatch.setattr("polymorph.report.explorer.MOST_NUMBERS", 100)
        text = "There are too many pairs to carry each"
    found = tmp_path / "report.html"
    drawn = draw_all(report) if what == "nothing" else {}
    found.write_text(render_page(report, drawn), encoding="utf-8")
    with opened(browser, found, PHONE) as tab:
        assert tab.complaints == []
        assert text in tab.page.text_content("body")
        assert tab.page.is_visible("#explorer") == (what != "nothing")
        if what != "nothing":
            assert tab.page.is_visible("#explorer-step") == (what == "too many pairs")
            values = r2(planted, "orthogonal")["value"]
            tab.choose("site", sites_in_order(planted.ladder).index(SITE))
            assert tab.scores()["orthogonal"][0] == shown(values.median())


def test_the_numbers_are_json_that_no_name_can_leave(path):
    stored = re.search(r'id="numbers">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert json.loads(stored)["steps"] == STEPS
    assert not re.search(r"[<>&]", stored)


def test_a_small_picture_looks_like_the_file_beside_the_page(browser, files, tmp_path):
    """Point by point, but for the edges of strokes that a hundredth of a point moves; another figure is far away."""

    def seen(tab: Tab, address: str) -> np.ndarray:
        tab.page.set_content(f'<img src="{address}" style="width: 800px">')
        tab.page.wait_for_function("document.images[0].complete")
        picture = Image.open(io.BytesIO(tab.page.locator("img").screenshot()))
        return np.asarray(picture.convert("L"), dtype=float)

    empty = tmp_path / "empty.html"
    empty.write_text("<title>empty</title>", encoding="utf-8")
    names = ("frobenius_trajectory.svg", "r2_trajectory.svg")
    with opened(browser, empty) as tab:
        whole, other = (
            seen(tab, f"data:image/svg+xml;base64,{base64.b64encode(files[name]).decode()}") for name in names
        )
        small = seen(tab, as_address(compact(files[names[0]])))
    assert small.shape == whole.shape
    moved, others = np.abs(small - whole), np.abs(other[: len(whole)] - whole[: len(other)])
    assert moved.max() < 100  # of 255: no stroke is lost or new
    assert moved.mean() < 0.05 < 1 < others.mean()
