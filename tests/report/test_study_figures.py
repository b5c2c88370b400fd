import itertools
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from planted_report import dictionaries, evidence_of, of_all

from polymorph.evidence.rows import table as table_of
from polymorph.plotting.captions import study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate
from polymorph.plotting.style import CEILING, CONTROL_COLOURS, INK, R2_FLOOR, map_colour
from polymorph.plotting.table_rows import at_last_steps, completed
from polymorph.report.data import MemberSummary, ReportData
from polymorph.report.figure_files import saved
from polymorph.report.figures import draw_all
from polymorph.studies.dictionary_match import figure as dictionary_match
from polymorph.studies.equivalence import figure as equivalence
from polymorph.studies.registry import STUDIES, schema_of
from polymorph.studies.stitching import figure as stitching

OF_THE_LADDER = ("ladder", "angles")
FIGURES = [
    (name if module == "figure" else module, name, import_module(f"{study.package}.{module}").plate)
    for name, study in STUDIES.items()
    for module in study.figures
    if name not in OF_THE_LADDER
]
SITES = ["blocks.0.hook_resid_mid", "blocks.0.hook_resid_post", "blocks.1.hook_resid_mid"]
HOSTILE = ["$\\frac{$", "<script>alert(1)</script>"]
Draw = Callable[[pl.DataFrame, pl.DataFrame], Drawn]


@pytest.fixture(scope="session")
def plates(studied: ReportData) -> dict[str, Drawn]:
    ladder = at_last_steps(studied.ladder)
    return {name: draw(rows(studied, study), ladder) for name, study, draw in FIGURES}


def rows(report: ReportData, study: str) -> pl.DataFrame:
    return completed(report.tables[study], schema_of(study))


def words(plate: Plate) -> list[str]:
    return [text.get_text() for axes in plate.figure.axes for text in axes.texts]


def test_every_study_has_a_figure(plates):
    assert {study for _, study, _ in FIGURES} == STUDIES.keys() - set(OF_THE_LADDER)
    for name, plate in plates.items():
        assert isinstance(plate, Plate)
        assert plate.name == name


@pytest.mark.parametrize(("name", "study", "_draw"), FIGURES)
def test_a_caption_counts_what_stands_behind_its_figure(plates, name, study, _draw):
    caption = plates[name].caption
    assert "3 seeds (0, 1, 2)" in caption
    # pairing permutes documents of one length alone, and bars have documents of their own
    assert "60 documents" in caption or study in ("pairing", "bars")
    assert "documents" in caption
    assert "tokens" in caption
    assert "interval" in caption
    assert len(plates[name].alt) < 400
    if name not in (
        "trajectory",
        "checkpoint_transfer",
        "loss_by_position",
    ):  # each member with itself, or alone
        assert "3 unordered pairs" in caption


@pytest.mark.parametrize(("name", "study", "draw"), FIGURES)
def test_a_table_without_rows_is_a_reason(studied, name, study, draw: Draw):
    empty = rows(studied, study).clear()
    missing = draw(empty, studied.ladder)
    assert isinstance(missing, Missing)
    assert missing.name == name
    assert missing.reason.endswith(".")


@pytest.mark.parametrize(("name", "study", "draw"), FIGURES)
def test_it_needs_neither_the_ladder_nor_an_order_of_rows(studied, plates, name, study, draw: Draw):
    shuffled = rows(studied, study).sample(fraction=1, shuffle=True, seed=3)
    again = draw(shuffled, studied.ladder.clear())
    assert saved(again.figure, "svg") == saved(plates[name].figure, "svg")


def test_no_training_no_figure_of_it_and_no_study_no_figure_of_that(studied):
    members = [MemberSummary(seed, "planted", None) for seed in range(3)]
    tables = {name: studied.tables[name] for name in ("ladder", "layers", "angles", "pairing")}
    planted = replace(studied, members=members, tables=tables, history=pl.DataFrame())
    drawn = {plate.name: plate for plate in of_all(draw_all(planted))}
    assert list(drawn) == ["pairing", "r2_by_site", "eigenvalue_angles", "layers"]
    assert all(isinstance(plate, Plate) for plate in drawn.values())
    assert "the only state recorded" in drawn["r2_by_site"].caption
    assert "of one seed and a second reading of it, over 3 seeds" in drawn["r2_by_site"].caption
    assert "the only state recorded" in drawn["eigenvalue_angles"].caption
    trained = {plate.name for plate in of_all(draw_all(replace(studied, tables={})))}
    assert {"training_curves", "r2_trajectory", "frobenius_trajectory"} <= trained
    assert "layers" not in trained


def test_haar_says_where_it_was_refused_and_where_not(plates, studied):
    said = words(plates["haar"])
    table = rows(studied, "haar")
    found = {site: table.filter(site=site, metric="determined_dimension")["value"].item() for site in SITES}
    assert found[SITES[2]] == 16
    assert said == [f"refused:\n{found[site]:.0f} of 16" for site in SITES[:2]]
    titles = [axes.get_title(loc="left") for axes in plates["haar"].figure.axes]
    assert [title for title in titles if "uncalibrated KS p = " in title] == titles[2:]
    assert "Refused at 2 of 3 sites" in plates["haar"].caption


def test_haar_refused_everywhere_is_no_figure_but_says_why(studied):
    haar = next(draw for name, _, draw in FIGURES if name == "haar")
    missing = haar(rows(studied, "haar").filter(pl.col("site") == SITES[0]), studied.ladder)
    assert isinstance(missing, Missing)
    assert " of 16" in missing.reason


def test_the_parts_of_the_distance_add_up_to_the_bar(plates, studied):
    table = rows(studied, "isometry").filter(role="estimate", site=SITES[0])
    parts = [table.filter(metric=f"{part}_distance")["value"].mean() for part in ("spectral", "relational")]
    bars = [bar for bar in plates["isometry"].figure.axes[0].patches if round(bar.get_y() + 0.275, 6) == 0]
    assert [bar.get_width() for bar in bars] == pytest.approx(parts)
    assert bars[1].get_x() == pytest.approx(parts[0])


def test_layers_show_medians_and_frame_the_same_site(plates, studied):
    table = rows(studied, "layers").filter(map="affine", site=SITES[1], source_site=SITES[0])
    axes = plates["layers"].figure.axes[1]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells[1, 0] == f"{table['value'].median():.2f}".replace("-", "−")
    assert len(axes.lines) == len(SITES)


def test_massive_axes_stand_beside_r2_with_and_without_them(plates, studied):
    table = rows(studied, "massive_activations")
    largest, share, scores = plates["massive_activations"].figure.axes
    for axes, metric in ((largest, "rms_max_over_median"), (share, "massive_variance_share")):
        found = dots(axes, INK)
        for place, site in enumerate(SITES):
            assert found[place][1] == table.filter(metric=metric, site=site)["value"].to_list()
            assert {round(at) for at in found[place][0]} == {place}
    assert [text.get_text() for text in largest.texts] == ["0", "1", "1"]
    assert "no massive axis" in words(plates["massive_activations"])
    for place, site in enumerate(SITES[1:], start=1):
        for which, marker, open_marks in (
            ("all", "o", False),
            ("without_massive", "o", True),
            ("without_random", "x", True),
        ):
            own = table.filter(metric="r2", map="orthogonal", site=site, axes=which).sort("source", "target")
            (values,) = [
                list(line.get_xdata())
                for line in scores.get_lines()
                if (line.get_color(), line.get_marker()) == (map_colour("orthogonal"), marker)
                and (line.get_markerfacecolor() == "white") == open_marks
                and {round(at) for at in line.get_ydata()} == {place}
            ]
            assert values == own["value"].to_list()
    low = table.filter(pl.col("metric").is_in(["r2", "explained_variance"]), pl.col("value") < R2_FLOOR)
    assert low.height > 0
    assert f"{low.height} dots below −2" in plates["massive_activations"].caption


def test_without_massive_axes_there_is_no_r2_and_that_is_said(studied):
    (draw,) = [draw for name, _, draw in FIGURES if name == "massive_activations"]
    plate = draw(rows(studied, "massive_activations").filter(pl.col("site") == SITES[0]), studied.ladder)
    assert len(plate.figure.axes) == 2
    assert "No member has a massive axis at any site" in plate.caption
    assert "R² of a directed pair" not in plate.caption


def test_losses_are_lines_by_tokens_read_under_the_entropy_of_the_labels(plates, studied):
    table = rows(studied, "loss_by_position").filter(pl.col("head") == "depth")
    depth, kind = plates["loss_by_position"].figure.axes
    assert [axes.get_title(loc="left") for axes in (depth, kind)] == ["depth", "kind"]
    lines = [line for line in depth.get_lines() if line.get_marker() == "."]
    for seed, line in enumerate(lines):
        own = table.filter(pl.col("from_position").is_not_null(), metric="loss", target=seed).sort(
            "from_position"
        )
        assert list(line.get_xdata()) == [0, 1, 2, 3, 4.5, 6.5]
        assert list(line.get_ydata()) == own["value"].to_list()
    (dashed,) = [line for line in depth.get_lines() if line.get_marker() == "None"]
    assert dashed.get_ydata()[0] == table.filter(metric="label_entropy")["value"].item()
    assert "60 documents, 480 tokens" in plates["loss_by_position"].caption


def test_answers_are_dots_by_head_above_their_agreement(plates, studied):
    table = rows(studied, "equivalence").filter(distribution="train", head="all", role="estimate")
    axes = plates["equivalence"].figure.axes
    assert [panel.get_title(loc="left") for panel in axes[:3]] == ["train", "compositional", "long"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["depth", "tok", "valid", "all heads"]
    for panel, metric in ((axes[0], "relative_kl"), (axes[3], "agreement")):
        places, values = dots(panel, equivalence.MEMBERS.strip.colour)[3]
        assert values == table.filter(metric=metric).sort("source", "target")["value"].to_list()
        assert {round(place) for place in places} == {3}
    nats = table.filter(metric="kl")["value"].median()
    assert f"two members {nats:.3f}, one member at its last two checkpoints" in plates["equivalence"].caption
    assert "Untrained members answer nearly alike" in plates["equivalence"].caption
    late = rows(studied, "equivalence").filter(pl.col("control").ne_missing("untrained"))
    assert "Untrained members" not in equivalence.plate(late, studied.ladder).caption


def test_stitched_losses_are_dots_of_all_heads_by_site(plates, studied):
    table = rows(studied, "stitching").filter(head="all", site=SITES[1])
    losses, shares = plates["stitching"].figure.axes
    own = table.filter(metric="delta_loss_target", map="affine", role="estimate").sort("source", "target")
    places, values = dots(losses, map_colour("affine"))[1]
    assert values == own["value"].to_list()
    assert {round(place) for place in places} == {1}
    assert dots(shares, map_colour("affine"))[1][1] == []  # the maps are of other activations: all below −1
    assert "below −1 lie off the scale" in plates["stitching"].caption
    fair = rows(studied, "stitching").with_columns(
        value=pl.when(pl.col("metric") == "loss_recovered").then(0.3).otherwise("value")
    )
    plate = stitching.plate(fair, studied.ladder)
    assert dots(plate.figure.axes[1], map_colour("affine"))[1][1] == [0.3] * 6
    assert "off the scale" not in plate.caption
    early = rows(studied, "stitching").filter(pl.col("control").ne_missing("untrained"))
    without = stitching.plate(early, studied.ladder).caption
    assert "no checkpoints from before training" in without
    assert "no checkpoints from before training" not in plates["stitching"].caption


def test_a_trajectory_goes_from_the_earlier_step_to_the_later_above_the_diagonal(plates, studied):
    table = rows(studied, "trajectory").filter(
        site=SITES[0], source_step=0, target_step=64, metric="r2", map="orthogonal"
    )
    cells = {text.get_position(): text.get_text() for text in plates["trajectory"].figure.axes[0].texts}
    assert cells[2, 0] == f"{table['value'].median():.2f}".replace("-", "−")
    assert (0, 0) not in cells  # a checkpoint against itself


def test_support_tells_the_least_r_of_all_pairs(plates, studied):
    table = rows(studied, "support").filter(metric="determined_dimension", role="estimate")
    least = [table.filter(site=site)["value"].min() for site in SITES]
    assert words(plates["support"]) == [f"{r:.0f} of 16" for r in least]


def test_pairing_tells_p_of_all_members_together(plates, studied):
    table = rows(studied, "pairing").filter(pl.col("source").is_null(), metric="p_value")
    assert words(plates["pairing"]) == [f"p = {table.filter(site=s)['value'].item():.2g}" for s in SITES]


def test_curves_by_component_are_medians_over_pairs(plates, studied):
    table = rows(studied, "support").filter(
        convention="per_component", map="orthogonal", site=SITES[2], component=0
    )
    line = plates["principal_components"].figure.axes[2].get_lines()[0]
    assert line.get_label() == "orthogonal"
    assert np.asarray(line.get_ydata())[0] == pytest.approx(table["value"].median())


def test_counts_come_from_the_rows_or_else_from_the_ladder(studied):
    ladder = at_last_steps(studied.ladder)
    support = rows(studied, "support")
    assert support["n_tokens"].is_null().all()
    assert "fit split: 60 documents, 480 tokens" in study_behind(support, ladder)
    assert "fit split: 60 documents, tokens not recorded" in study_behind(support, ladder.clear())
    own = support.with_columns(n_tokens=pl.lit(7, dtype=pl.Int64))
    assert "7 tokens" in study_behind(own, ladder)


def dots(axes: Axes, colour: str, open_marks: bool = False) -> list[tuple[list[float], list[float]]]:
    """Places and values of every series of dots of a colour, filled or open."""
    marks = [line for line in axes.get_lines() if line.get_marker() not in ("", "None", "<")]
    chosen = [line for line in marks if line.get_color() == colour]
    chosen = [line for line in chosen if (line.get_markerfacecolor() == "white") == open_marks]
    return [(list(line.get_ydata()), list(line.get_xdata())) for line in chosen]


def ev(studied: ReportData, convention: str = "centred", **about) -> list[float]:
    table = rows(studied, "sae_transfer").filter(metric="explained_variance", convention=convention)
    control = about.pop("control", None)
    table = table.filter(pl.col("control").eq_missing(control), **about)
    return table.sort("source", "target")["value"].to_list()


def test_saes_on_other_members_are_dots_in_both_conventions(plates, studied):
    axes = plates["sae_transfer"].figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    for name, label in (("identity", "identity: naive"), ("orthogonal", "orthogonal"), ("affine", "affine")):
        for convention, open_marks in (("centred", False), ("paper", True)):
            ((places, values),) = dots(axes, map_colour(name), open_marks)
            assert values == ev(studied, convention, site=SITES[0], map=name, role="estimate")
            assert {round(place) for place in places} == {labels.index(label)}
    ((places, values),) = dots(axes, CEILING)
    assert values == ev(studied, site=SITES[0], role="ceiling")
    assert {round(place) for place in places} == {labels.index("own SAE: the ceiling")} == {0}


def test_controls_of_saes_stand_in_the_shade_and_nothing_else_does(plates, studied):
    axes = plates["sae_transfer"].figure.axes[1]
    (shade,) = axes.patches
    for control in ("covariance_only", "matched_gaussian"):
        ((places, values),) = dots(axes, CONTROL_COLOURS[control])
        assert values == ev(studied, site=SITES[1], map="orthogonal", control=control)
        assert min(places) > shade.get_y()
    for colour in (CEILING, *(map_colour(name) for name in ("identity", "orthogonal", "affine"))):
        assert all(max(places) < shade.get_y() for places, _ in dots(axes, colour))


def test_the_pairing_gain_stands_above_its_site_and_beside_r2(plates, studied):
    table = rows(studied, "sae_transfer").filter(metric="pairing_gain")
    gains = [table.filter(site=site)["value"].median() for site in SITES]
    titles = [axes.get_title(loc="left") for axes in plates["sae_transfer"].figure.axes]
    assert all(f"pairing gain {gain:.2f} [" in title for gain, title in zip(gains, titles, strict=True))
    r2 = at_last_steps(studied.ladder).filter(
        metric="r2", map="orthogonal", role="estimate", split="eval", site=SITES[0]
    )
    told = f"{SITES[0]} {gains[0]:.2f} (R² {r2.filter(pl.col('control').is_null())['value'].median():.2f})"
    assert told in plates["sae_transfer"].caption
    (draw,) = [draw for name, _, draw in FIGURES if name == "sae_transfer"]
    one = rows(studied, "sae_transfer").filter(pl.col("site") == SITES[0])
    assert f"Median pairing gain: {SITES[0]} {gains[0]:.2f}." in draw(one, studied.ladder.clear()).caption
    without = draw(one.filter(pl.col("metric") != "pairing_gain"), at_last_steps(studied.ladder)).caption
    assert f"or might: {SITES[0]} (R²" in without
    assert "Median pairing gain" not in without
    assert "or might" not in plates["sae_transfer"].caption


def test_a_very_low_variance_is_an_arrow_with_its_number(plates, studied):
    (draw,) = [draw for name, _, draw in FIGURES if name == "sae_transfer"]
    table = rows(studied, "sae_transfer").filter(pl.col("site") != SITES[0])
    naive = pl.col("metric").eq("explained_variance") & pl.col("map").eq("identity")
    naive &= pl.col("convention").eq("centred") & pl.col("role").eq("estimate") & pl.col("source").eq(0)
    plate = draw(table.with_columns(value=pl.when(naive).then(-6.56).otherwise("value")), studied.ladder)
    # seed 0 is the source of two directed pairs at two sites
    assert "4 dots below it (identity: naive 4; the least at −6.56)" in plate.caption
    assert words(plate) == ["−6.6"] * 2
    for axes in plate.figure.axes:
        ((_, values),) = dots(axes, map_colour("identity"))
        assert len(values) == 4
        assert min(values) > R2_FLOOR
    assert "The axis ends" not in plates["sae_transfer"].caption
    assert words(plates["sae_transfer"]) == []


def test_splices_are_dots_of_both_metrics_and_need_models(plates, studied):
    table = rows(studied, "sae_transfer").filter(site=SITES[2], map="orthogonal", role="estimate")
    for axes, metric in zip(plates["sae_splicing"].figure.axes, ("delta_ce", "loss_recovered"), strict=True):
        found = dots(axes, map_colour("orthogonal"))
        values = table.filter(metric=metric).sort("source", "target")["value"].to_list()
        assert found[2][1] == values
        assert {round(place) for place in found[2][0]} == {2}
    (draw,) = [draw for name, _, draw in FIGURES if name == "sae_splicing"]
    unread = rows(studied, "sae_transfer").filter(pl.col("metric") == "explained_variance")
    missing = draw(unread, studied.ladder)
    assert isinstance(missing, Missing)
    assert "needs models" in missing.reason


def test_weights_are_dots_by_group_beside_their_controls(plates, studied):
    table = rows(studied, "weights")
    errors, paths, agreement, scores = plates["weights"].figure.axes
    groups = [label.get_text() for label in errors.get_yticklabels()]
    place = groups.index("blocks.1.attn.qk")
    one = table.filter(metric="relative_mse", group="blocks.1.attn.qk").sort("source", "target")
    for colour, open_marks, about in (
        (map_colour("identity"), False, {"map": "identity", "role": "estimate"}),
        (map_colour("affine"), False, {"map": "gauge", "role": "estimate"}),
        (CONTROL_COLOURS["covariance_only"], True, {"control": "own_rotations"}),
        (CEILING, True, {"map": "gauge", "role": "ceiling"}),
    ):
        own = one.filter(pl.col("control").eq_missing(about.pop("control", None)), **about)["value"].to_list()
        (values,) = [x for y, x in dots(errors, colour, open_marks) if {round(at) for at in y} == {place}]
        assert values == own
    way = table.filter(metric="interpolated_loss", map="gauge", role="estimate", source=0, target=1)
    drawn = [list(line.get_ydata()) for line in paths.get_lines() if line.get_color() == map_colour("affine")]
    assert way.sort("fraction")["value"].to_list() in drawn
    for axes, metric in ((agreement, "agreement_on_support"), (scores, "r2")):
        own = table.filter(metric=metric, map="gauge", role="estimate", site=SITES[1]).sort(
            "source", "target"
        )
        assert dots(axes, map_colour("affine"))[1][1] == own["value"].to_list()
    assert "3 members under a random element of the gauge: found again" in plates["weights"].caption


def test_matches_are_dots_by_arrangement_before_the_range_of_chance(plates, studied):
    table = rows(studied, "dictionary_match").filter(
        metric="match_share", convention="decoder", site=SITES[0]
    )
    axes = plates["dictionary_match"].figure.axes[0]
    strips = dictionary_match.ARRANGEMENTS
    for name, strip in strips.items():
        for map_name, open_marks in (("identity", True), ("orthogonal", False)):
            own = table.filter(arrangement=name, map=map_name).sort("source", "target")["value"].to_list()
            found = dots(axes, strip.colour, open_marks)
            assert (found[0][1] if found else []) == own
    assert dots(axes, CEILING) == []  # two SAEs of one member need no map
    chance = table.filter(arrangement="random")
    corners = axes.collections[0].get_paths()[0].vertices[:, 0]
    assert (corners.min(), corners.max()) == pytest.approx((chance["low"].min(), chance["high"].max()))


def test_what_a_shared_seed_explains_is_told_or_the_command_that_tells_it(plates, studied):
    (draw,) = [draw for name, _, draw in FIGURES if name == "dictionary_match"]
    caption = plates["dictionary_match"].caption
    assert f"{SITES[0]} as they are 1.00 and 1.00" in caption
    assert "stage=sae" not in caption
    saes = dictionaries([0, 1, 2], [64], ("distinct",))
    study = STUDIES["dictionary_match"]
    alone = draw(table_of(study.rows(evidence_of(studied, saes)), study.columns), studied.ladder.clear())
    assert "Without SAEs here: shared, again, unrelated, shared to unrelated; " in alone.caption
    assert "train.py stage=sae sae.variants=[distinct,shared,again,unrelated]" in alone.caption
    assert "there is no ceiling" in alone.caption
    assert "as they are 1.00 and" not in alone.caption


def test_firing_stands_between_its_control_and_its_ceiling(plates, studied):
    table = rows(studied, "firing").filter(metric="firing_correlation_share", site=SITES[1])
    for axes, convention in zip(plates["firing"].figure.axes, ("paper", "live"), strict=True):
        for role, colour, open_marks in (
            ("estimate", map_colour("orthogonal"), False),
            ("control", CONTROL_COLOURS["documents_permuted"], True),
            ("ceiling", CEILING, True),
        ):
            own = table.filter(convention=convention, role=role, map="orthogonal").sort("source", "target")
            places, values = dots(axes, colour, open_marks)[1]
            assert values == own["value"].to_list()
            assert {round(place) for place in places} == {1}
    (draw,) = [draw for name, _, draw in FIGURES if name == "firing"]
    once = rows(studied, "firing").filter(pl.col("role") != "ceiling")
    assert "There is no ceiling" in draw(once, studied.ladder).caption
    assert "There is no ceiling" not in plates["firing"].caption


def test_checkpoints_go_from_the_step_of_the_sae_to_the_one_it_is_used_on(plates, studied):
    table = rows(studied, "checkpoint_transfer").filter(
        metric="explained_variance", convention="centred", site=SITES[0]
    )
    left, right = plates["checkpoint_transfer"].figure.axes[:2]
    shown = []
    for axes, name in ((left, "identity"), (right, "orthogonal")):
        cells = {text.get_position(): text.get_text() for text in axes.texts}
        for column, row, source, target in ((0, 1, 64, 4), (1, 0, 4, 64)):
            own = table.filter(source_step=source, target_step=target, map=name, role="estimate")["value"]
            assert cells[column, row] == f"{own.median():.2f}".replace("-", "−")
            shown.append(cells[column, row])
        own = table.filter(source_step=4, role="ceiling")["value"]
        assert cells[0, 0] == f"{own.median():.2f}"
    assert len(set(shown)) == 4  # each direction and each map has a number of its own
    assert len(plates["checkpoint_transfer"].figure.axes) == 2 * len(SITES) + 1


def test_checkpoints_say_what_r_explains_beyond_the_covariance(plates, studied):
    (draw,) = [draw for name, _, draw in FIGURES if name == "checkpoint_transfer"]
    every = rows(studied, "checkpoint_transfer")
    ev = every.filter(metric="explained_variance", convention="centred", map="orthogonal")
    ev = ev.sort("site", "source", "source_step", "target_step")
    paired = ev.filter(role="estimate")["value"]
    unpaired = ev.filter(control="covariance_only")["value"]
    assert len(paired) == len(unpaired)
    gap = (paired - unpaired).median()
    assert gap > 0.05
    told = plates["checkpoint_transfer"].caption
    assert f"R explains {gap:.2f} more (median)" in told
    assert "there is no control" not in told
    without = every.filter(pl.col("control").ne_missing("covariance_only"))
    assert "there is no control for that here" in draw(without, studied.ladder).caption


SAES = [figure for figure in FIGURES if STUDIES[figure[1]].needs_saes]


@pytest.mark.parametrize(("name", "study", "draw"), SAES)
def test_families_have_panels_or_rows_of_their_own(studied, name, study, draw: Draw):
    one = rows(studied, study).filter(pl.col("site") == SITES[2])
    both = pl.concat([one.with_columns(sae=pl.lit(family)) for family in HOSTILE])
    plate = draw(both, studied.ladder)
    ElementTree.fromstring(saved(plate.figure, "svg"))
    panels = plate.figure.axes
    if name in ("sae_transfer", "checkpoint_transfer"):
        titles = [axes.get_title(loc="left") for axes in panels]
        assert sum(SITES[2] in title for title in titles) == 2
    else:
        assert len(panels[0].get_yticks()) == 2
    assert "3 seeds (0, 1, 2)" in plate.caption


def test_hostile_sites_are_drawn_as_they_are(studied):
    for (_, study, draw), name in zip(FIGURES, itertools.cycle(HOSTILE), strict=False):
        if study == "equivalence":  # which has heads and distributions, and no sites
            table = rows(studied, study).with_columns(head=pl.lit(name), distribution=pl.lit(name))
            ElementTree.fromstring(saved(draw(table, studied.ladder.clear()).figure, "svg"))
            continue
        if study in ("components", "bars"):  # which have components and decoys, and no sites
            column = "component" if study == "components" else "distribution"
            named = pl.when(pl.col(column).is_null() | (pl.col(column) == "mixture")).then(column)
            table = rows(studied, study).with_columns(named.otherwise(pl.lit(name)).alias(column))
            ElementTree.fromstring(saved(draw(table, studied.ladder.clear()).figure, "svg"))
            continue
        table = rows(studied, study).filter(pl.col("site") == SITES[2]).with_columns(site=pl.lit(name))
        if study == "layers":
            table = table.filter(pl.col("source_site") == SITES[2]).with_columns(source_site=pl.lit(name))
        if study == "weights":  # which has groups of weights beside its sites
            named = pl.when(pl.col("group").is_in(["mean", "max"])).then("group").otherwise(pl.lit(name))
            others = rows(studied, study).filter(pl.col("site").is_null()).with_columns(group=named)
            table = pl.concat([table, others])
        if study == "loss_by_position":  # which has heads, and no sites
            table = rows(studied, study).with_columns(head=pl.lit(name))
        svg = saved(draw(table, studied.ladder.clear()).figure, "svg")
        ElementTree.fromstring(svg)
        assert b"<script" not in svg
