"""What a page says of each study: the right numbers of the rows, and no more than they bear."""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import polars as pl
import pytest

from polymorph.evidence.evidence import planted_evidence
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import Row, table
from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import MOST_LINES, across, cell, share, shortened, together, told
from polymorph.report.data import ReportData
from polymorph.studies.registry import STUDIES
from polymorph.studies.tables import study_tables

SITES = ("blocks.0.hook_resid_mid", "blocks.1.hook_resid_mid")
FIRST, SECOND = SITES
DIRECTED = tuple(itertools.permutations(range(3), 2))
UNORDERED = tuple(itertools.combinations(range(3), 2))
MEMBERS = tuple((seed, seed) for seed in range(3))
LAST, BEFORE = 100, 50
HOSTILE = "<script>alert(1)</script>, $x$ {y}"
NO_EVIDENCE = "no evidence"


def rows(
    study: str,
    role: Any,
    metric: str,
    value: float,
    over: tuple[tuple[int | None, int | None], ...] = DIRECTED,
    sites: tuple[str | None, ...] = SITES,
    steps: tuple[int, int] = (LAST, LAST),
    **keys: Any,
) -> Iterator[Row]:
    """One for every pair and site, each a little apart from `value`, which is their median at the first site.

    At the second site a value is a tenth of itself larger.
    """
    about = {name: keys.pop(name) for name in ("map", "convention", "split") if name in keys}
    step = 0.01 * abs(value)
    for place, site in enumerate(sites):
        for nth, (source, target) in enumerate(over):
            own = value + step * (nth - (len(over) - 1) / 2) + place * 0.1 * abs(value)
            yield Row(
                cohort="made",
                study=study,
                role=role,
                metric=metric,
                value=own,
                low=own - 0.2 * step,
                high=own + 0.2 * step,
                source=source,
                target=target,
                source_step=steps[0],
                target_step=steps[1],
                site=site,
                n_documents=60,
                n_tokens=480,
                extra=keys,
                **about,
            )


Parts = Iterator[Iterator[Row]]
ONCE: tuple[tuple[None, None], ...] = ((None, None),)
NOWHERE = (None,)


def pairing() -> Parts:
    yield rows("pairing", "estimate", "rv_coefficient", 0.8, UNORDERED, statistic="rv")
    yield rows("pairing", "null", "rv_coefficient", 0.1, UNORDERED, statistic="rv")
    yield rows("pairing", "estimate", "p_value", 0.004, ONCE, statistic="rv")


def loss_by_position() -> Parts:
    of: dict[str, Any] = {"sites": NOWHERE, "head": "all"}
    members = tuple((None, seed) for seed in range(3))
    for study, metric, role, over, value in (
        ("loss_by_position", "loss", "estimate", members, 0.3),
        ("loss_by_position", "label_entropy", "control", ONCE, 2.0),
    ):
        yield rows(study, role, metric, value, over, **of)
    for start, end, value in ((0, 1, 1.5), (4, 6, 0.2)):
        about = of | {"from_position": start, "to_position": end}
        yield rows("loss_by_position", "estimate", "loss", value, members, **about)


def equivalence() -> Parts:
    for distribution, head in itertools.product(("train", "long"), ("all", "depth")):
        about: dict[str, Any] = {"sites": NOWHERE, "distribution": distribution, "head": head}
        for metric, value in (("kl", 0.05), ("relative_kl", 0.02), ("kl_excess", -0.1), ("agreement", 0.9)):
            yield rows("equivalence", "estimate", metric, value, **about)
        yield rows("equivalence", "ceiling", "relative_kl", 0.03, MEMBERS, **about)
        for metric, value in (("kl", 0.8), ("relative_kl", 3.0)):
            yield rows("equivalence", "control", metric, value, **about, control="untrained")
        yield rows("equivalence", "control", "agreement", 0.2, **about, control="chance")


def stitching() -> Parts:
    loss: dict[str, Any] = {"study": "stitching", "metric": "delta_loss_target", "head": "all"}
    for name, value in (("identity", 18.3), ("orthogonal", 0.72), ("affine", 0.45)):
        yield rows(**loss, role="estimate", value=value, map=name)
    yield rows(**loss, role="ceiling", value=0.02, over=MEMBERS, steps=(BEFORE, LAST), map="orthogonal")
    yield rows(**loss, role="control", value=6.9, steps=(0, LAST), map="affine", control="untrained")
    for control in ("documents_permuted", "covariance_only"):
        yield rows(**loss, role="control", value=20.0, map="orthogonal", control=control)


def massive_activations() -> Parts:
    name = "massive_activations"
    yield rows(name, "estimate", "rms_max_over_median", 12.0, MEMBERS)
    yield rows(name, "estimate", "massive_variance_share", 0.7, MEMBERS)
    for metric, value in (("massive_dimensions", 3.0),):
        yield (row for row in rows(name, "estimate", metric, value, MEMBERS))
    for map_name, whole, without, others in (
        ("identity", 0.7, -0.2, 0.71),
        ("orthogonal", 0.8, 0.8, 0.8),
    ):
        for axes, role, value in (
            ("all", "estimate", whole),
            ("without_massive", "estimate", without),
            ("without_random", "control", others),
        ):
            yield rows(name, role, "r2", value, map=map_name, axes=axes)


def steering() -> Parts:
    for name, control, regime, value in (
        ("identity", None, "none", 0.01),
        ("orthogonal", None, "clean", 0.95),
        ("affine", None, "clean", 0.99),
        ("orthogonal", "tokens_permuted", "none", 0.02),
    ):
        role = "estimate" if control is None else "control"
        about: dict[str, Any] = {"sites": (FIRST,), "contrast": "deeper", "group": "named", "dose": 1.0}
        about |= {"map": name} | ({} if control is None else {"control": control})
        yield rows("steering", role, "regime", 0.01, **about, regime=regime)
        yield rows("steering", role, "transfer_efficiency", value, **about)


def isometry() -> Parts:
    for metric, value in (("spectral_distance", 0.05), ("relational_distance", 0.2)):
        yield rows("isometry", "estimate", metric, value)
    yield rows("isometry", "estimate", "procrustes_angle", math.pi / 6, UNORDERED, map="orthogonal")
    yield rows("isometry", "control", "procrustes_angle", math.pi / 2, UNORDERED, map="orthogonal")
    yield rows("isometry", "estimate", "cka", 0.8, UNORDERED)


def ladder() -> Parts:
    score: dict[str, Any] = {"study": "ladder", "metric": "r2", "split": "eval"}
    for name, value in (("identity", -1.0), ("orthogonal", 0.7), ("similarity", 0.72), ("affine", 0.85)):
        yield rows(**score, role="estimate", value=value, map=name)
    for name in ("orthogonal", "affine"):
        yield rows(**score, role="control", value=-0.5, map=name, control="documents_permuted")
    yield rows(**score, role="ceiling", value=0.9, over=MEMBERS, steps=(BEFORE, LAST), map="orthogonal")
    yield rows("ladder", "estimate", "orthogonality_gap", 0.15)
    yield rows("ladder", "estimate", "frobenius_haar_scale", math.sqrt(2 * 16), UNORDERED, map="orthogonal")


def support() -> Parts:
    for role, over, r in (("estimate", UNORDERED, 12.0), ("ceiling", MEMBERS, 16.0)):
        for row in rows("support", role, "determined_dimension", r, over, map="orthogonal"):
            yield iter([_rounded(row)])
        for row in rows("support", role, "dimension", 20.0, over, (SITES[0],), map="orthogonal"):
            for site in SITES:
                yield iter([_at(row, site, 20.0)])
    for metric, value in (("r2_orthogonal", 0.6), ("r2_affine", 0.8)):
        yield rows("support", "estimate", metric, value, convention="on_support")


def _rounded(row: Row) -> Row:
    return _at(row, row.site, float(round(row.value)))


def _at(row: Row, site: str | None, value: float) -> Row:
    return Row.from_dict(row.to_dict() | {"site": site, "value": value, "low": None, "high": None})


def haar() -> Parts:
    for metric, value in (("determined_dimension", 16.0), ("dimension", 16.0)):
        for site in SITES:
            yield rows("haar", "estimate", metric, value, ONCE, (site,), map="orthogonal")
    yield rows(
        "haar", "estimate", "p_value", 0.6, ONCE, map="orthogonal", statistic="registered", law="refit"
    )
    yield rows(
        "haar", "estimate", "p_value", 0.001, ONCE, map="orthogonal", statistic="registered", law="exact"
    )


def cycles() -> Parts:
    one = (UNORDERED[0],)
    yield rows("cycles", "estimate", "cycle_coherence", 0.8, one, map="orthogonal", third=2)
    yield rows("cycles", "control", "cycle_coherence", 0.2, one, map="orthogonal", third=2)
    for metric, over in (("pairwise_r2", DIRECTED), ("synchronised_r2", DIRECTED), ("consensus_r2", MEMBERS)):
        yield rows("cycles", "estimate", metric, 0.75, over, map="orthogonal")


def layers() -> Parts:
    for name, (source, target) in itertools.product(
        ("orthogonal", "affine"), itertools.product(SITES, SITES)
    ):
        role, value = ("estimate", 0.8) if source == target else ("control", 0.3)
        yield rows("layers", role, "r2", value, sites=(target,), map=name, source_site=source)


def trajectory() -> Parts:
    for steps, as_it_is, turned, angle in (((0, LAST), -0.3, 0.1, 1.4), ((BEFORE, LAST), 0.6, 0.9, 0.2)):
        about: dict[str, Any] = {"over": MEMBERS, "steps": steps, "split": "eval"}
        yield rows("trajectory", "ceiling", "r2", as_it_is, **about, map="identity")
        yield rows("trajectory", "ceiling", "r2", turned, **about, map="orthogonal")
        yield rows("trajectory", "ceiling", "angle_on_support", angle, **about, map="orthogonal")


def sample_efficiency() -> Parts:
    for name in ("orthogonal", "affine"):
        about: dict[str, Any] = {"over": UNORDERED, "map": name}
        for n, value in ((512, 0.5), (8192, 0.7)):
            yield rows("sample_efficiency", "estimate", "r2", value, **about, fit_tokens=n)
        yield rows("sample_efficiency", "estimate", "r2_limit", 0.71, **about)
        yield rows("sample_efficiency", "estimate", "tokens_to_limit", 4096.0, **about)


def weights() -> Parts:
    for name, value, barrier in (("identity", 1.9, 4.5), ("stream", 0.8, 3.0), ("gauge", 0.6, 2.0)):
        about: dict[str, Any] = {"over": UNORDERED, "sites": NOWHERE, "map": name}
        yield rows("weights", "estimate", "relative_mse", value, **about, group="mean")
        yield rows("weights", "estimate", "loss_barrier", barrier, **about)
    for control, value in (("own_rotations", 0.95), ("untrained", 1.1)):
        about = {"over": UNORDERED, "sites": NOWHERE, "map": "gauge", "control": control}
        yield rows("weights", "control", "relative_mse", value, **about, group="mean")
    about = {"over": MEMBERS, "sites": NOWHERE, "map": "gauge"}
    yield rows("weights", "ceiling", "relative_mse", 0.005, **about, group="mean", steps=(BEFORE, LAST))
    yield rows("weights", "ceiling", "loss_barrier", 0.002, **about, steps=(BEFORE, LAST))
    yield rows("weights", "ceiling", "mse", 2e-30, **about, group="max", control="gauge_copy")


def angles() -> Parts:
    for nth, angle in enumerate((-3.0, -1.5, -0.5, -0.2, 0.2, 0.5, 1.5, 3.0)):
        yield rows(
            "angles", "estimate", "eigenvalue_angle", angle, UNORDERED, (FIRST,), map="orthogonal", index=nth
        )


def components() -> Parts:
    about: dict[str, Any] = {"sites": NOWHERE, "kind": "parts", "statistic": "pearson"}
    for attribution, assignment, role, over, value in (
        ("integrated_gradients", "name", "estimate", DIRECTED, 0.8),
        ("integrated_gradients", "name", "null", DIRECTED, 0.2),
        ("integrated_gradients", "best", "estimate", DIRECTED, 0.85),
        ("integrated_gradients", "best", "null", DIRECTED, 0.3),
        ("integrated_gradients", "name", "ceiling", MEMBERS, 0.9999),
        ("attribution_patching", "name", "ceiling", MEMBERS, 0.1),
        ("ablation", "name", "ceiling", MEMBERS, 0.97),
    ):
        keys = about | {"attribution": attribution, "assignment": assignment}
        yield rows("components", role, "effect_correlation", value, over, **keys)
        if role == "estimate":
            yield rows("components", role, "p_value", 0.01, over, **keys)
    effect: dict[str, Any] = {"sites": NOWHERE, "kind": "head", "component": "L0H0", "head": "all"}
    members = tuple((None, seed) for seed in range(3))
    yield rows("components", "estimate", "ablation_effect", 0.4, members, **effect)


def bars() -> Parts:
    none: dict[str, Any] = {"study": "bars", "sites": NOWHERE}
    for scope, over in (("within", MEMBERS), ("across", DIRECTED)):
        of: dict[str, Any] = {"bar": "C", "scope": scope, "metric": "effect_correlation"}
        yield rows(**none, **of, role="estimate", value=0.5, over=over)
        yield rows(**none, **of, role="control", value=0.4, over=MEMBERS, decoy="noise_1")
        yield rows(
            **none, bar="C", scope=scope, metric="auc", role="estimate", value=0.7, over=ONCE, decoy="all"
        )
    of = {"bar": "P", "scope": "across", "metric": "mse", "convention": "paper"}
    yield rows(**none, **of, role="estimate", value=1e-4, over=UNORDERED)
    yield rows(**none, **of, role="control", value=0.1, over=MEMBERS, decoy="noise_1")


def sae_transfer(study: str = "sae_transfer", steps: tuple[int, int] = (LAST, LAST)) -> Parts:
    over = DIRECTED if study == "sae_transfer" else MEMBERS
    of: dict[str, Any] = {"study": study, "convention": "centred", "sae": "small", "variant": "distinct"}
    ev = of | {"metric": "explained_variance"}
    yield rows(**ev, role="ceiling", value=0.95, over=MEMBERS)
    yield rows(**ev, role="estimate", value=-0.2, over=over, steps=steps, map="identity")
    yield rows(**ev, role="estimate", value=0.8, over=over, steps=steps, map="orthogonal")
    control = {"map": "orthogonal", "control": "covariance_only"}
    yield rows(**ev, role="control", value=0.4, over=over, steps=steps, **control)
    if study == "sae_transfer":
        yield rows(**of, metric="pairing_gain", role="estimate", value=0.6, map="orthogonal")


def checkpoint_transfer() -> Parts:
    return sae_transfer("checkpoint_transfer", (BEFORE, LAST))


def dictionary_match() -> Parts:
    of: dict[str, Any] = {"study": "dictionary_match", "metric": "match_share", "convention": "decoder"}
    of |= {"sae": "small"}
    for arrangement, role, raw, mapped in (
        ("distinct", "estimate", 0.05, 0.7),
        ("shared", "estimate", 0.75, 0.72),
        ("unrelated", "control", 0.02, 0.1),
    ):
        for name, value in (("identity", raw), ("orthogonal", mapped)):
            yield rows(**of, role=role, value=value, map=name, arrangement=arrangement)
    yield rows(**of, role="ceiling", value=0.9, over=MEMBERS, map="identity", arrangement="again")
    yield rows(**of, role="null", value=0.01, arrangement="random")


def firing() -> Parts:
    of: dict[str, Any] = {"study": "firing", "metric": "firing_correlation_share", "convention": "live"}
    of |= {"sae": "small", "variant": "distinct"}
    for name, value in (("identity", 0.03), ("orthogonal", 0.7), ("affine", 0.8)):
        yield rows(**of, role="estimate", value=value, map=name)
    yield rows(**of, role="control", value=0.1, map="orthogonal", control="documents_permuted")
    yield rows(**of, role="ceiling", value=0.9, over=MEMBERS, steps=(BEFORE, LAST), map="orthogonal")


MADE: Mapping[str, Callable[[], Parts]] = {
    made.__name__: made
    for made in (
        pairing,
        loss_by_position,
        equivalence,
        stitching,
        massive_activations,
        steering,
        isometry,
        ladder,
        support,
        haar,
        cycles,
        layers,
        trajectory,
        sample_efficiency,
        weights,
        angles,
        components,
        bars,
        sae_transfer,
        dictionary_match,
        firing,
        checkpoint_transfer,
    )
}
"""Of every study, a table in which members are alike and controls are not."""


def made(study: str) -> pl.DataFrame:
    return table(itertools.chain.from_iterable(MADE[study]()), dict(STUDIES[study].columns))


def said(study: str, frame: pl.DataFrame, **others: pl.DataFrame) -> Answer:
    answer = STUDIES[study].answer({study: frame, **others})
    assert answer is not None
    return answer


def numbers(text: str) -> list[float]:
    """Every number of a text, those in percent as shares."""
    found = re.findall(r"(−?\d[\d,]*(?:\.\d+)?(?:e−?\d+)?)( %)?", text)
    return [float(n.replace(",", "").replace("−", "-")) / (100 if percent else 1) for n, percent in found]


def holds(text: str, *values: float) -> bool:
    """Whether each stands in the text, to three digits."""
    found = numbers(text)
    return all(any(math.isclose(value, one, rel_tol=6e-3, abs_tol=1e-6) for one in found) for value in values)


def ends(frame: pl.DataFrame, **about: Any) -> tuple[float, float, float]:
    """Median, least and greatest of the rows, not by way of the room that is tested."""
    tests = [pl.col(name).eq_missing(pl.lit(value)) for name, value in about.items()]
    values = sorted(frame.filter(*tests)["value"].to_list())
    half = len(values) // 2
    middle = values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
    return middle, values[0], values[-1]


def with_value(frame: pl.DataFrame, value: float, **about: Any) -> pl.DataFrame:
    """The table with another value in some of its rows."""
    test = pl.all_horizontal(pl.col(name).eq_missing(pl.lit(of)) for name, of in about.items())
    assert frame.filter(test).height
    return frame.with_columns(
        value=pl.when(test).then(value).otherwise("value"),
        low=pl.when(test).then(None).otherwise("low"),
        high=pl.when(test).then(None).otherwise("high"),
    )


def test_every_study_has_an_answer():
    assert set(MADE) == set(STUDIES)


@pytest.mark.parametrize("study", STUDIES)
def test_an_answer_is_short_and_whole(study):
    answer = said(study, made(study), **({"support": made("support")} if study != "support" else {}))
    assert answer.text.endswith(".")
    assert not answer.text.endswith("..")
    assert len(answer.text) < 900
    assert len(re.findall(r"[.] (?=[A-Z0-9])", answer.text)) <= 4
    assert numbers(answer.text)
    assert 0 < len(answer.lines) <= MOST_LINES
    assert all(len(line) == len(answer.columns) for line in answer.lines)
    for words in (answer.text, *itertools.chain.from_iterable(answer.lines)):
        assert not re.search(r"\bNone\b|\bnan\b|  |not measured|-\d", words), words


@pytest.mark.parametrize("study", STUDIES)
def test_real_tables_have_answers_too(studied: ReportData, study):
    answer = STUDIES[study].answer(studied.tables)
    assert answer is not None
    assert numbers(answer.text)
    assert answer.lines
    assert not re.search(r"\bNone\b|\bnan\b|  ", answer.text)


def test_a_study_that_was_not_made_has_no_answer():
    assert STUDIES["ladder"].answer({}) is None
    assert STUDIES["ladder"].answer({"pairing": made("pairing")}) is None


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("frame", ["no rows", "no columns"])
def test_a_table_without_rows_says_what_is_missing(study, frame):
    answer = said(study, made(study).clear() if frame == "no rows" else pl.DataFrame())
    assert re.search(r"\b(No|not|nothing)\b", answer.text)
    assert answer.text.endswith(".")
    assert (answer.columns, answer.lines) == ((), ())


@pytest.mark.parametrize("study", STUDIES)
def test_the_order_of_rows_does_not_matter_and_nothing_is_changed(study):
    frame = made(study)
    before = frame.clone()
    shuffled = frame.sample(fraction=1, shuffle=True, seed=5)
    assert said(study, shuffled) == said(study, frame)
    assert frame.equals(before)


@pytest.mark.parametrize("study", STUDIES)
def test_rows_that_are_missing_are_no_error(study):
    """Without any one role, metric, map, control or arrangement, or with two members alone."""
    frame = made(study)
    columns = [
        name for name in ("role", "metric", "map", "control", "arrangement", "decoy") if name in frame.columns
    ]
    less = [
        frame.filter(pl.col(name).ne_missing(pl.lit(value)))
        for name in columns
        for value in frame[name].unique()
    ]
    less.append(frame.filter((pl.col("source") == pl.col("target")).fill_null(True)))
    less.append(frame.filter(pl.col("source").fill_null(0) < 2, pl.col("target").fill_null(0) < 2))
    for rest in less:
        answer = said(study, rest)
        assert answer.text.endswith(".")
        assert not re.search(r"\bNone\b|\bnan\b|  ", answer.text)


WITHOUT_CEILING = {
    "equivalence": "There is no ceiling",
    "stitching": "There is no ceiling",
    "ladder": "There is no ceiling",
    "support": "no ceiling",
    "weights": "There is no ceiling",
    "components": "There is no ceiling",
    "sae_transfer": "there is no ceiling",
    "dictionary_match": "no ceiling",
    "firing": "There is no ceiling",
    "checkpoint_transfer": "there is no ceiling",
}
WITHOUT_CONTROL = {
    "pairing": "not measured",
    "loss_by_position": "no constant answer",
    "equivalence": "no members from before training",
    "stitching": "control is missing",
    "steering": "control of shuffled tokens is missing",
    "isometry": "no control",
    "ladder": "control of documents paired at random is missing",
    "cycles": "no control",
    "weights": "own previous checkpoint",
    "bars": "no decoys",
    "sae_transfer": "control of covariance only is missing",
    "dictionary_match": "no SAEs of unrelated noise",
    "firing": "the control is missing",
    "checkpoint_transfer": "control of covariance only is missing",
}


@pytest.mark.parametrize("study", WITHOUT_CEILING)
def test_a_ceiling_that_is_missing_is_said_to_be(study):
    words = WITHOUT_CEILING[study]
    assert words in said(study, made(study).filter(pl.col("role") != "ceiling")).text
    assert words not in said(study, made(study)).text


@pytest.mark.parametrize("study", WITHOUT_CONTROL)
def test_a_control_that_is_missing_is_said_to_be(study):
    rest = made(study).filter(~pl.col("role").is_in(["control", "null"]))
    assert WITHOUT_CONTROL[study] in said(study, rest).text


REACHED: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("pairing", 0.8, {"role": "null"}),
    ("stitching", 0.4, {"control": "untrained"}),
    ("stitching", 0.7, {"control": "documents_permuted"}),
    ("stitching", 0.7, {"control": "covariance_only"}),
    ("steering", 0.0, {"control": "tokens_permuted", "metric": "regime"}),
    ("isometry", 0.5, {"role": "control"}),
    ("ladder", 0.65, {"control": "documents_permuted", "map": "orthogonal"}),
    ("ladder", 0.9, {"control": "documents_permuted", "map": "affine"}),
    ("cycles", 0.75, {"role": "control"}),
    ("layers", 0.95, {"role": "control"}),
    ("weights", 0.6, {"control": "own_rotations"}),
    ("weights", 0.3, {"control": "untrained"}),
    ("components", 0.8, {"role": "null", "assignment": "name"}),
    ("components", 0.4, {"metric": "p_value", "assignment": "name"}),
    ("bars", 1e-5, {"bar": "P", "role": "control"}),
    ("sae_transfer", 0.8, {"role": "control"}),
    ("sae_transfer", 0.95, {"role": "control"}),
    ("dictionary_match", 0.7, {"arrangement": "unrelated", "map": "orthogonal"}),
    ("dictionary_match", 0.75, {"arrangement": "unrelated", "map": "identity"}),
    ("firing", 0.7, {"role": "control"}),
    ("checkpoint_transfer", 0.8, {"role": "control"}),
    ("equivalence", 0.05, {"control": "untrained", "metric": "kl"}),
)


@pytest.mark.parametrize(("study", "value", "about"), REACHED)
def test_a_control_that_reaches_the_estimate_makes_it_no_evidence(study, value, about):
    frame = made(study)
    reached = with_value(frame, value, **about)
    if study == "steering":
        shuffled = pl.col("control").eq_missing("tokens_permuted") & pl.col("regime").is_not_null()
        reached = frame.with_columns(
            regime=pl.when(shuffled).then(pl.lit("clean")).otherwise(pl.col("regime"))
        )
    wanted = "explains nearly all of it|which is no less" if study == "pairing" else NO_EVIDENCE
    assert re.search(wanted, said(study, reached).text)
    assert not re.search(wanted, said(study, frame).text)


def test_stitching_names_its_best_and_its_worst_site_with_control_and_ceiling():
    frame = made("stitching")
    text = said("stitching", frame).text
    for name in ("orthogonal", "affine", "identity"):
        about = {"role": "estimate", "map": name, "site": FIRST}
        wanted = ends(frame, **about)
        assert holds(text, *(wanted if name == "orthogonal" else wanted[:1]))
    assert holds(
        text, ends(frame, control="untrained", site=FIRST)[0], ends(frame, role="ceiling", site=FIRST)[0]
    )
    assert holds(text, *ends(frame, role="estimate", map="orthogonal", site=SECOND))
    assert text.index(FIRST) < text.index("worst") < text.index(SECOND)
    assert "over 6 directed pairs" in text
    worse = with_value(frame, 30.0, role="estimate", map="orthogonal", site=FIRST)
    again = said("stitching", worse).text
    assert again.index(SECOND) < again.index("worst") < again.index(FIRST)


def test_an_untrained_part_within_the_range_of_the_pairs_does_as_well():
    frame = made("stitching")
    _, least, most = ends(frame, role="estimate", map="affine", site=FIRST)
    for value, reached in ((least + 0.9 * (most - least), True), (most + 0.01, False)):
        text = said("stitching", with_value(frame, value, control="untrained", site=FIRST)).text
        assert (f"does as well through the affine map at {FIRST}" in text) == reached


def test_support_tells_the_least_r_of_all_pairs():
    frame = made("support")
    assert "12 of 20 dimensions" in said("support", frame).text
    short = with_value(
        frame, 9.0, metric="determined_dimension", role="estimate", source=0, target=2, site=FIRST
    )
    assert f"9 of 20 dimensions at {FIRST}" in said("support", short).text
    whole = with_value(frame, 20.0, metric="determined_dimension", role="estimate")
    text = said("support", whole).text
    assert text.startswith("The data determine R whole at both sites (r = d = 20 in every pair)")


def test_the_ladder_gives_medians_ranges_and_the_gap():
    frame = made("ladder")
    text = said("ladder", frame).text
    for site in SITES:
        assert holds(text, *ends(frame, metric="r2", role="estimate", map="orthogonal", site=site))
        assert holds(text, ends(frame, metric="r2", role="estimate", map="affine", site=site)[0])
    assert text.startswith("At both sites the members differ by more than a rotation")
    small = frame.with_columns(
        low=pl.when(pl.col("metric") == "orthogonality_gap").then(0.0).otherwise("low")
    )
    assert said("ladder", small).text.startswith("At no site does an affine map gain more")
    one = small.with_columns(low=pl.when(pl.col("site") == FIRST).then(frame["low"]).otherwise("low"))
    assert said("ladder", one).text.startswith("At 1 of 2 sites the members differ by more than a rotation")


def test_the_ladder_reads_the_last_steps_alone():
    frame = made("ladder")
    early = frame.with_columns(source_step=pl.lit(1, pl.Int64), target_step=pl.lit(1, pl.Int64), value=0.123)
    assert said("ladder", pl.concat([early, frame])) == said("ladder", frame)


def test_equivalence_is_in_shares_and_counts_pairs_beyond_the_ceiling():
    frame = made("equivalence")
    shown: dict[str, Any] = {"distribution": "train", "head": "all"}
    text = said("equivalence", frame).text
    assert holds(text, *ends(frame, **shown, metric="relative_kl", role="estimate"))
    assert holds(text, ends(frame, **shown, metric="relative_kl", role="ceiling")[0])
    assert holds(text, ends(frame, **shown, metric="agreement", role="estimate")[0])
    assert "No pair differs by more" in text
    more = frame.with_columns(low=pl.when(pl.col("metric") == "kl_excess").then(0.01).otherwise("low"))
    assert "6 of 6 pairs differ by more" in said("equivalence", more).text
    far = with_value(frame, 0.7, metric="relative_kl", role="estimate", distribution="long", head="all")
    assert "furthest on long: 70.0 %" in said("equivalence", far).text


def test_losses_beside_the_constant_answer_name_who_learned_nothing():
    frame = made("loss_by_position")
    text = said("loss_by_position", frame).text
    assert holds(text, *ends(frame, metric="loss", from_position=None), 2.0)
    assert holds(text, ends(frame, from_position=0)[0], ends(frame, from_position=4)[0])
    assert "No better than that constant" not in text
    poor = with_value(frame, 2.1, metric="loss", from_position=None, target=1)
    assert "No better than that constant: seed 1" in said("loss_by_position", poor).text


def test_massive_axes_that_decide_a_number_are_told_from_those_that_do_not():
    frame = made("massive_activations")
    text = said("massive_activations", frame).text
    of: dict[str, Any] = {"metric": "r2", "map": "identity", "site": FIRST}
    assert holds(
        text, *(ends(frame, **of, axes=axes)[0] for axes in ("all", "without_massive", "without_random"))
    )
    decide, do_not = text.split("They do not decide")
    assert "They decide 2 numbers" in decide
    assert "as they are" in decide
    assert "through R" not in decide
    assert "through R" in do_not
    none = frame.filter(pl.col("metric").is_in(["rms_max_over_median", "massive_dimensions"]))
    none = with_value(with_value(none, 0.0, metric="massive_dimensions"), 2.5, metric="rms_max_over_median")
    assert said("massive_activations", none).text.startswith("No: at none of 2 sites")


def test_steering_counts_what_works_and_needs_an_own_vector_that_does():
    frame = made("steering")
    text = said("steering", frame).text
    assert "through R in 6 of 6 cases" in text
    assert "as it is in 0 of 6" in text
    assert holds(text, *ends(frame, metric="transfer_efficiency", map="orthogonal", control=None))
    mute = frame.with_columns(
        regime=pl.when(pl.col("regime").is_not_null()).then(pl.lit("undetermined")).otherwise(None)
    )
    assert "cannot be told" in said("steering", mute).text
    flipped = frame.with_columns(
        regime=pl.when(pl.col("map") == "identity").then(pl.lit("inverted")).otherwise(pl.col("regime"))
    ).with_columns(regime=pl.when(pl.col("metric") == "regime").then(pl.col("regime")).otherwise(None))
    assert "(inverted) is shown in 6 cases" in said("steering", flipped).text


def test_haar_departs_or_does_not_or_is_refused_or_says_nothing_of_strangers():
    frame = made("haar")
    text = said("haar", frame).text
    assert "not distinguished" in text
    assert holds(text, ends(frame, law="refit", site=FIRST)[0])
    departs = with_value(frame, 0.002, law="refit", site=SECOND)
    text = said("haar", departs).text
    assert text.index("departs") < text.index(SECOND) < text.index("not distinguished") < text.index(FIRST)
    refused = frame.filter(pl.col("metric") != "p_value")
    assert said("haar", refused).text.startswith("Not to be answered: at both sites")
    strangers = with_value(made("pairing"), 0.7, metric="p_value")
    assert "not shown to be related" in said("haar", frame, pairing=strangers).text
    assert "not shown to be related" not in said("haar", frame, pairing=made("pairing")).text


def test_layers_say_where_another_site_does_better():
    frame = made("layers")
    assert "the same site predicts best at both sites" in said("layers", frame).text
    wrong = with_value(frame, 0.9, map="affine", site=FIRST, source_site=SECOND)
    through_r, affine = said("layers", wrong).text.split("Through an affine map")
    assert "at both sites" in through_r
    assert "at 1 of 2 sites" in affine
    assert holds(affine, 0.9, ends(frame, map="affine", site=FIRST, source_site=FIRST)[0])


def test_components_give_the_null_beside_every_correlation():
    frame = made("components")
    text = said("components", frame).text
    of: dict[str, Any] = {"metric": "effect_correlation", "attribution": "integrated_gradients"}
    assert holds(text, *ends(frame, **of, assignment="name", role="estimate"))
    assert holds(text, ends(frame, **of, assignment="name", role="null")[0])
    assert "p < 0.05 in 6 of 6 pairs" in text


def test_bars_count_members_and_decoys():
    frame = made("bars")
    text = said("bars", frame).text
    assert "0 of 3 pass C" in text
    assert "3 of 3 pass P" in text
    assert "No decoy passes P across" in text
    lines = {line[0]: line for line in said("bars", frame).lines}
    assert lines["P, members against one another"][3:5] == ("3 of 3", "0 of 3")
    fooled = with_value(frame, 0.999, bar="C", role="control")
    assert (
        "Passed by no member and yet by decoys: C within (3 of 3), C across (3 of 3)"
        in said("bars", fooled).text
    )


def test_sae_transfer_puts_ceiling_control_and_gain_beside_what_r_reaches():
    frame = made("sae_transfer")
    text = said("sae_transfer", frame, ladder=made("ladder")).text
    of: dict[str, Any] = {"site": FIRST, "metric": "explained_variance"}
    assert holds(text, *ends(frame, **of, role="estimate", map="orthogonal"))
    for about in ({"role": "ceiling"}, {"role": "control"}, {"role": "estimate", "map": "identity"}):
        assert holds(text, ends(frame, **of, **about)[0])
    assert holds(text, *ends(frame, site=FIRST, metric="pairing_gain"))
    (first, *_), lines = (
        said("sae_transfer", frame, ladder=made("ladder")).lines,
        said("sae_transfer", frame).lines,
    )
    assert holds(
        first[-1], ends(made("ladder"), metric="r2", role="estimate", map="orthogonal", site=FIRST)[0]
    )
    assert lines[0][-1] == "–"
    better = said("sae_transfer", with_value(frame, 0.97, role="control")).text
    assert "does at least as well as R at both sites" in better


def test_without_a_gain_it_is_said_that_there_is_hardly_anything_to_gain():
    frame = made("sae_transfer")
    none = frame.filter((pl.col("metric") != "pairing_gain") | (pl.col("site") == FIRST))
    text = said("sae_transfer", none).text
    assert f"no pairing gain, because there is hardly anything to gain over covariance, at {SECOND}." in text
    for other in (frame, none.filter(pl.col("role") != "control"), none.filter(pl.col("role") != "ceiling")):
        assert "no pairing gain" not in said("sae_transfer", other).text


def test_an_sae_is_followed_from_the_earliest_checkpoint_to_the_last():
    frame = made("checkpoint_transfer")
    back = frame.filter(role="estimate").with_columns(
        source_step=pl.lit(LAST, pl.Int64), target_step=pl.lit(BEFORE, pl.Int64), value=0.111
    )
    text = said("checkpoint_transfer", pl.concat([frame, back])).text
    assert text == said("checkpoint_transfer", frame).text
    assert f"From step {BEFORE} to {LAST} the earlier SAE explains least" in text
    assert holds(
        text, *ends(frame, role="estimate", map="orthogonal", site=FIRST), ends(frame, role="ceiling")[0]
    )


@pytest.mark.parametrize(
    ("study", "about"),
    [
        ("pairing", {"metric": "rv_coefficient", "role": "estimate", "site": FIRST}),
        ("cycles", {"metric": "synchronised_r2", "site": FIRST}),
        ("support", {"metric": "r2_orthogonal", "site": FIRST}),
        ("trajectory", {"metric": "r2", "map": "orthogonal", "source_step": 0, "site": FIRST}),
        ("trajectory", {"metric": "r2", "map": "orthogonal", "source_step": BEFORE, "site": FIRST}),
        ("sample_efficiency", {"metric": "tokens_to_limit", "map": "affine", "site": SECOND}),
        ("weights", {"metric": "relative_mse", "map": "gauge", "role": "estimate"}),
        ("weights", {"metric": "loss_barrier", "map": "gauge", "role": "estimate"}),
        ("isometry", {"metric": "spectral_distance", "site": SECOND}),
        ("dictionary_match", {"arrangement": "distinct", "map": "orthogonal", "site": FIRST}),
        ("firing", {"map": "orthogonal", "role": "estimate", "site": FIRST}),
    ],
)
def test_an_estimate_comes_with_the_range_of_its_pairs(study, about):
    frame = made(study)
    assert holds(said(study, frame).text, *ends(frame, **about))


def test_angles_are_in_degrees_and_beside_a_random_rotation():
    frame = made("isometry")
    middle, *_ = ends(frame, metric="procrustes_angle", role="estimate", site=SECOND)
    assert f"{round(math.degrees(middle))}°" in said("isometry", frame).text
    text = said("angles", made("angles")).text
    assert "50 % at" in text  # four of eight are below 45°
    assert "far from that" in text
    even = made("angles").with_columns(value=pl.Series([-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0] * 3))
    assert "no evidence that it is random" in said("angles", even).text
    short = said("angles", even, support=made("support")).text
    assert "They are not those of the members" in short


def test_a_fit_that_never_comes_near_its_limit_is_counted():
    frame = made("sample_efficiency")
    never = pl.col("metric").eq("tokens_to_limit") & pl.col("map").eq("affine") & pl.col("site").eq(SECOND)
    text = said("sample_efficiency", frame.filter(~never)).text
    assert "in 3 of 6 fits it is not there with all 8,192 tokens" in text
    none = frame.filter(pl.col("metric") != "tokens_to_limit")
    assert "does not come within 0.01 of its limit" in said("sample_efficiency", none).text


@pytest.mark.parametrize("study", ["trajectory", "checkpoint_transfer"])
def test_members_that_stopped_at_other_steps_are_not_left_out(study):
    frame = made(study)
    late = pl.col("target_step").eq(LAST) & pl.col("source").eq(2)
    both = [
        pl.when(late & pl.col(name).eq(LAST)).then(2 * LAST).otherwise(name).alias(name)
        for name in ("source_step", "target_step")
    ]
    text, usual = (said(study, of).text for of in (frame.with_columns(both), frame))
    assert text != usual
    assert text.count("over 3 members") == usual.count("over 3 members") > 0
    assert numbers(text.replace("first step", ""))[-1] == numbers(usual)[-1]
    assert "each member's own first step to its last" in text


def test_hostile_names_pass_through_as_they_are():
    for study in STUDIES:
        frame = made(study)
        if not frame["site"].is_null().all():
            named = frame.with_columns(
                site=pl.when(pl.col("site") == FIRST).then(pl.lit(HOSTILE)).otherwise("site")
            )
            if "source_site" in frame.columns:
                named = named.with_columns(
                    source_site=pl.when(pl.col("source_site") == FIRST)
                    .then(pl.lit(HOSTILE))
                    .otherwise("source_site")
                )
            answer = said(study, named)
            shown = (answer.text, *itertools.chain.from_iterable(answer.lines))
            assert any(HOSTILE in words for words in shown), study


PLANTS = ("pairing", "isometry", "ladder", "support", "haar", "cycles", "angles")


@pytest.fixture(scope="module")
def plants() -> dict[str, dict[str, pl.DataFrame]]:
    config = PlantedConfig(d=12, members=3, documents=64, tokens=16)
    kinds = ("rotated", "unrelated", "affine", "same_basis")
    return {kind: study_tables(planted_evidence(Planted(kind, config)), PLANTS)[0] for kind in kinds}


def test_a_rotated_plant_and_an_unrelated_one_have_opposite_answers(plants):
    rotated, unrelated = (
        {study: STUDIES[study].answer(plants[kind]).text for study in PLANTS}
        for kind in ("rotated", "unrelated")
    )
    assert rotated["pairing"].startswith("Yes")
    assert unrelated["pairing"].startswith("Not shown")
    for study in ("ladder", "isometry"):
        assert NO_EVIDENCE not in rotated[study]
        assert NO_EVIDENCE in unrelated[study]
    assert rotated["ladder"].startswith("At no site does an affine map gain more")
    assert "differ by more than a rotation" not in unrelated["ladder"]
    assert rotated["support"].startswith("The data determine R whole at the only site")
    assert unrelated["support"].startswith("The data determine R whole nowhere")
    assert "not distinguished" in rotated["haar"]
    assert unrelated["haar"].startswith("Not to be answered")
    assert NO_EVIDENCE not in rotated["cycles"]
    assert "No cycle was closed" in unrelated["cycles"]


def test_an_affine_plant_is_more_than_a_rotation_and_one_basis_is_far_from_random(plants):
    assert "differ by more than a rotation" in STUDIES["ladder"].answer(plants["affine"]).text
    assert "departs from a uniformly random rotation" in STUDIES["haar"].answer(plants["same_basis"]).text
    assert "far from that" in STUDIES["angles"].answer(plants["same_basis"]).text


def test_numbers_have_three_digits_and_a_true_minus():
    wanted = {0.7234: "0.723", 18.31: "18.3", -0.05: "−0.0500", 1234.5: "1,234", 0.99987: "> 0.999", 0.0: "0"}
    wanted |= {
        1.0: "1.00",
        999.7: "1,000",
        1.2e-5: "1.20e−05",
        1e-12: "0",
        0.9994: "0.999",
        -1500.0: "−1,500",
    }
    assert {value: told(value) for value in wanted} == wanted
    assert told(None) == "–"
    assert [share(value) for value in (1, 0.99999, 0.5, 0.0, 2e-5, 3.19)] == [
        "100 %",
        "> 99.9 %",
        "50.0 %",
        "0 %",
        "< 0.01 %",
        "319 %",
    ]


def test_a_range_says_what_it_is_over():
    frame = made("ladder").filter(metric="r2", role="estimate", map="orthogonal", site=FIRST)
    assert across(frame).endswith("over 6 directed pairs)")
    assert across(frame.filter(pl.col("source") < pl.col("target"))).endswith("over 3 pairs)")
    assert re.search(r" \(95 % interval [\d.]+ to [\d.]+, 1 pair\)$", across(frame.head(1)))
    assert across(frame.head(1).with_columns(low=None)).endswith("(1 pair)")
    assert across(frame.with_columns(value=0.5)) == "0.500 (in each of 6 directed pairs)"
    assert across(frame.with_columns(source=pl.col("target"))).endswith("over 6 members)")
    assert across(frame.clear()) == "not measured"
    assert cell(frame.clear()) == "–"


def test_long_tables_and_lists_are_cut_and_say_so():
    lines = [(str(n), "x") for n in range(40)]
    cut = shortened(lines)
    assert len(cut) == MOST_LINES
    assert (cut[0], cut[-1]) == (lines[0], lines[-1])
    assert cut[-2][0] == f"… {40 - MOST_LINES + 1} more"
    assert shortened(lines[:MOST_LINES]) == tuple(lines[:MOST_LINES])
    assert together("abc") == "a, b and c"
    assert together("abcdefgh") == "a, b, c, d, e and 3 more"


def test_a_ragged_table_is_refused():
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        Answer("It is.", ("site", "R²"), (("here",),))
