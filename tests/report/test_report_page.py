import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest
from planted_report import evidence_of, with_tables

from polymorph.plotting.answer import Answer
from polymorph.plotting.plate import Plate
from polymorph.plotting.sentences import ALIKE
from polymorph.report.cautions import cautions
from polymorph.report.data import MemberSummary
from polymorph.report.page import EXPECTED_PROVENANCE, render_page
from polymorph.report.verdicts import verdicts_of
from polymorph.studies.registry import STUDIES
from polymorph.studies.study import Study
from polymorph.studies.tables import study_tables
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.findings import Verdict
from polymorph.verdicts.words import WORDS

HOSTILE = [
    "<script>alert(1)</script>",
    "$\\frac{$",
    '"><img onerror=alert(1) src=x>',
    "{{ 7 * 7 }}",
    "a\x00\ud800\u202e&amp;",
]
ALLOWED = {
    *("src", "alt", "id", "class", "scope", "colspan", "lang", "charset", "name", "content", "http-equiv"),
    *("href", "hidden", "type", "tabindex", "role", "for", "min", "max", "step", "value"),
    *("aria-label", "aria-live", "aria-pressed"),
}
NAMESPACE = "http://www.w3.org/2000/svg"


class Reader(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture(scope="session")
def page(planted, drawn) -> str:
    return render_page(planted, drawn)


def test_elements_are_closed_and_nothing_is_loaded(page):
    reader = Reader(page)
    assert reader.open == []
    assert {"link", "iframe", "object", "form", "base"}.isdisjoint(tag for tag, _ in reader.elements)
    assert {name for _, attributes in reader.elements for name in attributes} <= ALLOWED
    sources = [attributes["src"] for tag, attributes in reader.elements if tag == "img"]
    assert len(sources) == 5
    assert all(source.startswith("data:image/svg+xml,<svg") for source in sources)
    without_figures = re.sub(r'src="data:[^"]*"', "", page).replace(NAMESPACE, "")
    assert not re.search(r"https?:|//[a-z]|url\(|@import|fetch\(|import\(", without_figures)


def test_only_our_own_script_and_style_are_allowed(page):
    """By their digests: whatever else came in would not run."""
    page = re.sub(r'src="data:[^"]*"', "", page)  # pictures have a style of their own inside
    policy = re.search(r'Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for name in ("script", "style"):
        (text,) = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert 'style="' not in page
    assert [found for tag, found in Reader(page).elements if tag == "script"] == [
        {"type": "application/json", "id": "numbers"},
        {},
    ]


def test_every_link_leads_to_one_place_of_the_page(studied):
    for page in (render_page(studied, {}), render_page(replace(studied, tables={}, claims=[]), {})):
        elements = Reader(page).elements
        ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        links = [attributes["href"] for tag, attributes in elements if tag == "a"]
        assert {link.removeprefix("#") for link in links} <= set(ids)
        assert all(link.startswith("#") for link in links)
        labelled = {attributes["for"] for tag, attributes in elements if tag == "label"}
        assert labelled <= set(ids)


def test_every_figure_has_alternative_text_and_its_caption(page, listed):
    reader = Reader(page)
    alternatives = [attributes["alt"] for tag, attributes in reader.elements if tag == "img"]
    assert sorted(alternatives) == sorted(plate.alt for plate in listed)
    assert all(plate.caption in reader.text for plate in listed)


def test_it_says_who_takes_part_and_who_does_not(page):
    text = Reader(page).text
    for wanted in (
        "planted",
        "3 members, 1 left out",
        "3 unordered pairs (6 directed)",
        "seed 7",
        "diverged at step 12",
    ):
        assert wanted in text
    assert "> 99.99 %" in text  # 0.99998 is not 100 %
    assert "100.00 %" in text


def test_the_table_has_the_medians_of_the_rows(page, planted):
    about = {"metric": "r2", "role": "estimate", "target_step": 64, "site": "blocks.1.hook_resid_mid"}
    values = planted.ladder.filter(map="orthogonal", **about)["value"]
    cell = f"{values.median():.3f} [{values.min():.3f}, {values.max():.3f}]"
    assert cell.replace("-", "−") in Reader(page).text
    gaps = planted.ladder.filter(
        metric="orthogonality_gap", role="estimate", target_step=64, site="blocks.1.hook_resid_mid"
    )
    assert f"{gaps['value'].mean():.4f} ± ".replace("-", "−") in Reader(page).text


def test_it_warns_of_what_the_numbers_cannot_bear(page):
    text = Reader(page).text
    for wanted in (
        "n is the number of seeds (3)",
        "it is the trace of R",
        "above 0.01 with its interval",
        "r = 6",
        "participation ratio",
    ):
        assert wanted in text
    assert "There is no ceiling" not in text


def test_it_says_how_it_was_made_and_what_is_not_recorded(page, planted):
    text = Reader(page).text
    assert all(name in text for name in EXPECTED_PROVENANCE)
    assert text.count("not recorded") == 1  # the table files
    more = render_page(
        replace(planted, provenance=dict(planted.provenance) | {"table files": "t", "host": "h"}), {}
    )
    assert "not recorded" not in Reader(more).text
    assert "host" in Reader(more).text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_text_wherever_it_stands(planted, listed, name):
    tidy = render_page(planted, {"ladder": tuple(listed[:1])})
    plates = {"ladder": (Plate("safe", name, name, listed[0].figure),)}
    hostile = render_page(
        replace(
            planted,
            cohort=name,
            task={name: name},
            architecture={name: [name]},
            members=[MemberSummary(0, name, None, name, {name: 0.5})],
            left_out=[(name, name)],
            provenance={name: name},
            tables={
                "ladder": planted.ladder.with_columns(
                    site=pl.lit(name.encode("utf-8", "replace").decode())
                ).unique(["source", "target", "map", "metric", "role", "control", "target_step"])
            },
        ),
        plates,
    )
    reader = Reader(hostile)
    assert reader.open == []
    assert reader.count("script") == 2
    assert reader.count("img") == Reader(tidy).count("img")
    assert "alert(1)>" not in hostile
    assert "<script>alert" not in hostile
    assert {key for _, attributes in reader.elements for key in attributes} <= ALLOWED
    assert "49" not in reader.text or "{{" not in name
    hostile.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", hostile)


def test_nothing_at_all_is_a_page_that_says_so(planted):
    empty = replace(
        planted,
        task={},
        architecture={},
        members=[],
        left_out=[],
        tables={},
        history=pl.DataFrame(),
        provenance={},
    )
    text = Reader(render_page(empty)).text
    for wanted in (
        "No member is in this report",
        "No pair of members was compared",
        "No training history",
        "Nobody is left",
    ):
        assert wanted in text
    assert text.count("not recorded") == len(EXPECTED_PROVENANCE)


def test_one_checkpoint_says_that_there_is_no_ceiling(planted):
    last = planted.ladder.filter((pl.col("source_step") == 64) & (pl.col("target_step") == 64))
    text = Reader(render_page(with_tables(planted, ladder=last))).text
    assert "There is no ceiling" in text
    assert "one step only (64)" in text


def test_the_same_rows_in_any_order_are_the_same_page(planted, drawn, page):
    assert render_page(with_tables(planted, ladder=planted.ladder.reverse()), drawn) == page


def test_it_opens_with_the_verdict_of_every_site(studied):
    page = render_page(studied, {})
    reader = Reader(page)
    opening = [attributes["id"] for tag, attributes in reader.elements if tag == "section"][:2]
    assert opening == ["opening", "verdicts"]
    assert reader.count("mark") == 3
    for claim in studied.claims:
        if claim.kind == "verdict":
            assert claim.statement in reader.text
            assert f">{claim.verdict}</mark>" in page
        else:
            assert claim.reason in reader.text
    for wanted in ("Holm", "Benjamini–Hochberg", "n of a cohort is its seeds, here 3 seeds"):
        assert wanted in reader.text


def test_a_verdict_is_marked_in_its_sentence_and_not_in_the_name_of_its_site():
    claim = Claim(site="affine", finding=Verdict(word="affine", reason_code="not_measured"))
    (verdict,) = verdicts_of([claim])
    assert (verdict.before, verdict.word, verdict.colour) == ("affine: ", "affine", WORDS["affine"].colour)
    assert verdict.before + verdict.word + verdict.after == claim.statement
    (other,) = verdicts_of([replace(claim, finding=replace(claim.finding, word="quixotic"))])
    assert (other.word, other.colour) == ("quixotic", "open")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_claims_are_text(studied, text):
    site = studied.claims[0].site
    claims = [
        replace(claim, site=text, finding=replace(claim.finding, word=text))
        for claim in studied.claims
        if claim.site == site
    ]
    hostile = render_page(replace(studied, claims=claims), {})
    reader = Reader(hostile)
    assert reader.open == []
    assert reader.count("mark") == 1
    assert reader.count("script") == 2
    assert reader.count("img") == 0
    assert {key for _, attributes in reader.elements for key in attributes} <= ALLOWED
    assert "{{" not in text or text in reader.text


def test_without_claims_there_are_no_verdicts(planted):
    page = render_page(planted, {})
    assert "No claims were made in this analysis" in Reader(page).text
    assert "<mark" not in page
    assert "Holm" not in page


def test_what_the_data_do_not_determine_is_marked(studied):
    text = Reader(render_page(studied, {})).text
    assert "6 of 16" in text or "] of 16" in text
    assert "\nundetermined" in text
    settled = studied.ladder.with_columns(convention=pl.lit("determined"))
    assert "\nundetermined" not in Reader(render_page(with_tables(studied, ladder=settled), {})).text


def test_it_warns_where_the_covariance_alone_makes_an_sae_explain_as_much(studied):
    table = studied.tables["sae_transfer"].filter(
        metric="explained_variance", convention="centred", map="orthogonal"
    )
    sites = ["blocks.0.hook_resid_mid", "blocks.0.hook_resid_post"]
    mapped, alone = (
        [table.filter(site=site, role=role).filter(wanted)["value"].median() for site in sites]
        for role, wanted in (
            ("estimate", pl.lit(True)),
            ("control", pl.col("control").eq("covariance_only")),
        )
    )
    assert mapped[0] - alone[0] > ALIKE > mapped[1] - alone[1]  # the site that is not named, and one that is
    (said,) = [text for text in cautions(studied.ladder, studied.tables) if "needs no pairing" in text]
    assert f"{sites[1]}: {mapped[1]:.2f} through R, {alone[1]:.2f} with covariance only" in said
    assert sites[0] not in said
    assert said in Reader(render_page(studied, {})).text
    control = pl.col("control").eq_missing("covariance_only")
    low = studied.tables["sae_transfer"].with_columns(value=pl.when(control).then(0.1).otherwise("value"))
    assert "needs no pairing" not in " ".join(cautions(studied.ladder, {"sae_transfer": low}))
    none = studied.tables["sae_transfer"].with_columns(value=pl.lit(0.02))
    assert "needs no pairing" not in " ".join(cautions(studied.ladder, {"sae_transfer": none}))


def test_it_warns_where_a_few_axes_decide_r2(studied):
    """The identity, which an axis shared by all makes look right; not the orthogonal map, which is right."""
    table = studied.tables["massive_activations"]
    site = "blocks.1.hook_resid_mid"
    r2 = table.filter(metric="r2", site=site, map="identity")
    whole, without = (r2.filter(axes=axes)["value"].median() for axes in ("all", "without_massive"))
    (said,) = [text for text in cautions(studied.ladder, studied.tables) if "decide R²" in text]
    assert f"{site}, identity: {whole:.2f}, without {without:.2f}".replace("-", "−") in said
    assert "blocks.0.hook_resid_mid" not in said
    assert said in Reader(render_page(studied, {})).text
    removed = pl.col("axes").is_in(["without_massive", "without_random"]) & pl.col("metric").eq("r2")
    either = table.with_columns(value=pl.when(removed).then(0.1).otherwise("value"))
    assert "decide R²" not in " ".join(cautions(studied.ladder, {"massive_activations": either}))
    kept = table.with_columns(value=pl.when(pl.col("metric") == "r2").then(0.95).otherwise("value"))
    assert "decide R²" not in " ".join(cautions(studied.ladder, {"massive_activations": kept}))


def test_it_warns_where_unrelated_saes_match_like_those_with_one_seed(studied):
    (said,) = [
        text
        for text in cautions(studied.ladder, studied.tables)
        if "are no evidence of common features" in text
    ]
    assert "blocks.0.hook_resid_mid as they are: 1.00, unrelated 1.00" in said
    assert said in Reader(render_page(studied, {})).text
    table = studied.tables["dictionary_match"]
    for name in ("shared", "unrelated"):
        without = table.filter(pl.col("arrangement") != name)
        assert "are no evidence of common features" not in " ".join(
            cautions(studied.ladder, {"dictionary_match": without})
        )
    apart = pl.when(pl.col("arrangement") == "unrelated").then(0.3).otherwise("value")
    assert "are no evidence of common features" not in " ".join(
        cautions(studied.ladder, {"dictionary_match": table.with_columns(value=apart)})
    )


def test_without_saes_their_studies_are_one_line(planted):
    needing = [name for name, study in STUDIES.items() if study.needs_saes]
    none = study_tables(evidence_of(planted), needing)[1]
    saes = [entry for entry in none if "stage=sae" in entry[1]]
    assert len(saes) == 4
    given = replace(planted, left_out=[*planted.left_out, *saes, ("study cycles", "it needs three members")])
    text = Reader(render_page(given, {})).text
    assert "studies of SAEs (checkpoint_transfer, dictionary_match, firing, sae_transfer)" in text
    assert text.count("stage=sae") == 1
    assert "study cycles: it needs three members" in text
    assert "3 members, 1 left out;" in text  # a study is no member
    some = replace(planted, left_out=saes[1:])
    assert all(f"{who}: {why}" in Reader(render_page(some, {})).text for who, why in saes[1:])


def test_planted_members_are_a_sentence_and_nothing_is_said_to_be_missing(studied):
    members = [MemberSummary(seed, "planted", None) for seed in range(3)]
    planted = replace(studied, members=members, architecture={}, history=pl.DataFrame())
    page = render_page(planted, {})
    text = Reader(page).text
    assert "Planted: 0, 1, 2." in text
    assert "How it was planted" in text
    assert "read twice" in text  # a planted member has a second reading, and no step
    for absent in ("Architecture", "Accuracy of the head", "Not recorded.", "last step"):
        assert absent not in text


def test_an_answer_opens_its_section_and_none_leaves_no_gap(planted, drawn, monkeypatch):
    """Sentence, figures, small table and limits in this order; a study without an answer has its figures."""
    answer = Answer("R carries 0.95.", ("site", "R²"), (("mid", "0.95"), ("post", "0.90")))
    monkeypatch.setattr(Study, "answer", lambda self, tables: answer if self.name == "ladder" else None)
    page = render_page(planted, drawn)
    section = page.partition('<section id="ladder"')[2].partition("</section>")[0]
    parts = (
        '<p class="answer">R carries 0.95.</p>',
        "<figure",
        '<th scope="row">post</th><td>0.90</td>',
        "<li>A high R² of R says",
    )
    assert [section.count(part) for part in parts] == [1, 3, 1, 1]
    assert [section.index(part) for part in parts] == sorted(section.index(part) for part in parts)
    other = page.partition('<section id="angles"')[2].partition("</section>")[0]
    assert "<figure" in other
    assert not any(part in other for part in ('class="answer"', "In numbers"))
    assert "<li>It can show that R is far from the identity" in other


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers_are_text(planted, monkeypatch, text):
    answer = Answer(text, (text, text), ((text, text),))
    monkeypatch.setattr(Study, "answer", lambda self, tables: answer)
    reader = Reader(render_page(planted, {}))
    assert reader.open == []
    assert reader.count("script") == 2
    assert {key for _, attributes in reader.elements for key in attributes} <= ALLOWED
    assert "49" not in reader.text.partition("How this was made")[0] or "{{" not in text


def test_the_answers_are_given_every_table(planted, drawn, monkeypatch):
    given = {}
    monkeypatch.setattr(Study, "answer", lambda self, tables: given.update({self.name: set(tables)}))
    render_page(with_tables(planted, pairing=pl.DataFrame()), drawn)
    assert given["pairing"] == given["ladder"] == {"pairing", "ladder", "angles"}
