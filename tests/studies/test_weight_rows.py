"""Members that are one model up to the gauge, members that are not, and what the study says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from polymorph.alignment.gauge import Canonical, align, apply_gauge, random_gauge
from polymorph.alignment.gauge_residual import eigenvector_start
from polymorph.evidence.evidence import Evidence, History, planted_evidence
from polymorph.evidence.pairs import End, pairs_of
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import Row, table
from polymorph.models.activations import ModelActivations, token_losses
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.models.functions import Functions
from polymorph.models.symmetries import Symmetries, symmetries_of
from polymorph.saes.scores import bounded
from polymorph.studies.registry import STUDIES
from polymorph.studies.tables import study_tables
from polymorph.studies.weights import rows as weights
from polymorph.studies.weights.interpolation import FRACTIONS, Between, Path, chunks_of
from polymorph.studies.weights.search import (
    COPY,
    GAUGE,
    HEADS,
    IDENTITY,
    ORTHOGONAL,
    OWN_ROTATIONS,
    STREAM,
    UNTRAINED,
)
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.task import Dyck

CPU = torch.device("cpu")
CONFIG = DyckTransformerConfig(d_model=24, n_heads=3, d_head=8, d_mlp=32, init_std=0.25)
PROBE = ProbeConfig(fit=64, eval=64)
STEPS = (0, 4, 9)


def table_of() -> Symmetries:
    found = symmetries_of(CONFIG)
    assert found is not None
    return found


def weights_of(seed: int, step: int) -> dict[str, Tensor]:
    """Large weights, and gains that are not 1; the step before the last is a little off, step 0 is another model."""
    generator = torch.Generator().manual_seed(seed if step else 1000 + seed)
    model = DyckTransformer(CONFIG, seed if step else 1000 + seed)
    found = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, value in found.items():
        if name.endswith(".w"):
            found[name] = 1 + 0.3 * torch.randn(value.shape, generator=generator)
    if step == STEPS[-2]:
        later = torch.Generator().manual_seed(7)
        for name in (n for n in found if n != "W_pos"):
            noise = torch.randn(found[name].shape, generator=later)
            found[name] = found[name] + 0.03 * found[name].square().mean().sqrt() * noise
    return found


def copied(seed: int, step: int) -> dict[str, Tensor]:
    """The same function under a random element of the gauge, rounded to float32 like every checkpoint."""
    own = table_of().folded(weights_of(seed, step))
    element = random_gauge(own, table_of(), torch.Generator().manual_seed(31))
    return {name: value.float() for name, value in apply_gauge(own, table_of(), element).items()}


@dataclass(frozen=True)
class Members:
    """Seed 0, seed 1, and seed 2, which is a copy of seed 0."""

    seeds: Sequence[int] = (0, 1, 2)
    symmetries: Symmetries | None = field(default_factory=table_of)

    def model(self, end: End) -> DyckTransformer:
        model = DyckTransformer(CONFIG, 0)
        seed, step = end
        model.load_state_dict(copied(0, step) if seed == 2 else weights_of(seed, step))
        return model.eval().requires_grad_(False)

    def functions(self, ends: Sequence[End]) -> Functions:
        models = [self.model(end) for end in ends]
        return Functions(models, CONFIG.sites, Dyck(), PROBE, CPU, None, self.symmetries)

    def source(self, ends: Sequence[End]) -> ModelActivations:
        return ModelActivations([self.model(end) for end in ends], CONFIG.sites, Dyck(), PROBE, CPU)

    def evidence(self, steps: Sequence[int] = STEPS) -> Evidence:
        ends = [(seed, STEPS[-1]) for seed in self.seeds]
        histories = [
            History(seed, steps, lambda at, own=seed: self.source([(own, step) for step in at]))
            for seed in self.seeds
        ]
        return Evidence(
            "c",
            ends,
            pairs_of(ends),
            self.source(ends),
            blocks=8,
            histories=histories,
            functions=self.functions,
        )


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return table(weights.study_rows(Members().evidence()), STUDIES["weights"].columns)


def chosen(rows: pl.DataFrame, metric: str, pair: tuple[int, int] = (0, 2), **about: object) -> pl.DataFrame:
    """Rows of a pair, its estimates unless something else is said; a control only where it is named."""
    own: Mapping[str, object] = {"role": "estimate", "control": None, "start": None, **about}
    same = [pl.col(name).eq_missing(pl.lit(value)) for name, value in own.items()]
    return rows.filter(*same, metric=metric, source=pair[0], target=pair[1])


def value(rows: pl.DataFrame, metric: str, pair: tuple[int, int] = (0, 2), **about: object) -> float:
    return float(chosen(rows, metric, pair, **about)["value"].item())


def test_a_copy_among_the_members_is_found_and_a_stranger_is_not(rows: pl.DataFrame) -> None:
    """Copies are kept in float32: weights are exact to 6e-8, and so is whatever is found."""
    assert value(rows, "mse", map=GAUGE, group="max") < 1e-10
    assert value(rows, "relative_mse", map=GAUGE, group="max") < 1e-8
    assert value(rows, "weight_similarity", map=GAUGE) > 1 - 1e-8
    for stranger in ((0, 1), (1, 2)):
        assert value(rows, "mse", stranger, map=GAUGE, group="max") > 1e-3
        assert value(rows, "relative_mse", stranger, map=GAUGE, group="max") > 1
        assert value(rows, "weight_similarity", stranger, map=GAUGE) < 0.8


def test_as_it_is_a_copy_looks_like_a_stranger(rows: pl.DataFrame) -> None:
    both = [value(rows, "relative_mse", pair, map=IDENTITY, group="mean") for pair in ((0, 2), (0, 1))]
    assert min(both) > 1.5


def test_r_of_the_activations_recovers_a_copy_too_and_fits_a_stranger_worse(rows: pl.DataFrame) -> None:
    """Activations of a copy are exact copies, so one R serves every site; its rank there is full."""
    assert value(rows, "relative_mse", map=STREAM, group="max") < 1e-6
    by_activations, by_weights = (
        value(rows, "relative_mse", (0, 1), map=name, group="mean") for name in (STREAM, GAUGE)
    )
    assert by_weights < by_activations


def test_the_way_to_an_aligned_copy_is_flat_and_its_ends_are_the_members(rows: pl.DataFrame) -> None:
    aligned, raw = (chosen(rows, "loss_barrier", map=name).row(0, named=True) for name in (GAUGE, IDENTITY))
    assert abs(aligned["value"]) < 1e-4
    assert raw["low"] < raw["value"] < raw["high"]
    assert (raw["n_documents"], raw["split"]) == (64, "eval")
    way = chosen(rows, "interpolated_loss", map=IDENTITY).sort("fraction")
    assert way["fraction"].to_list() == list(FRACTIONS)
    # The ends are the members' own losses, whatever is done to the source.
    ends = [value(rows, "interpolated_loss", map=GAUGE, fraction=fraction) for fraction in (0.0, 1.0)]
    assert [way["value"][0], way["value"][-1]] == ends
    line = [(1 - f) * ends[0] + f * ends[1] for f in FRACTIONS]
    excess = [loss - on for loss, on in zip(way["value"].to_list(), line, strict=True)]
    assert raw["value"] == pytest.approx(max(excess[1:-1]), abs=1e-12)


def test_a_model_that_knows_something_has_a_barrier_to_its_copy_until_it_is_aligned() -> None:
    """Random models have none: what lies between two that know nothing knows nothing either."""
    model, task = DyckTransformer(CONFIG, 0), Dyck()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(100):
        chunk = task.fresh(0, step, 1024, CPU)
        optimiser.zero_grad()
        said = {head: own[chunk.kept] for head, own in model(*chunk.arguments, **chunk.keywords).items()}
        parts = [cross_entropy(own, chunk.labels[head][chunk.kept]) for head, own in said.items()]
        torch.stack(parts).sum().backward()
        optimiser.step()
    symmetries = table_of()
    own = symmetries.folded({name: value.detach().double() for name, value in model.state_dict().items()})
    copy = apply_gauge(own, symmetries, random_gauge(own, symmetries, torch.Generator().manual_seed(5)))
    blocks = (Canonical.of(each, symmetries, {}).blocks for each in (copy, own))
    back = apply_gauge(copy, symmetries, align(copy, own, symmetries, eigenvector_start(*blocks), {}).gauge)
    functions = Members().functions([(0, 9)])
    between = Between(functions, chunks_of(functions, 64), blocks=8)
    loss = between.loss(own)
    raw, aligned = (bounded(between.path(each, own, (loss, loss)).barrier) for each in (copy, back))
    assert raw[1] is not None
    assert raw[1] > 0.2
    assert abs(aligned[0]) < 1e-5


def test_losses_between_members_are_those_of_models_with_such_weights() -> None:
    members = Members()
    functions = members.functions([(0, 9)])
    chunks = chunks_of(functions, 64)
    between = Between(functions, chunks, blocks=8)
    one, other = (table_of().folded(weights_of(seed, 9)) for seed in (0, 1))
    ends = between.loss(one), between.loss(other)
    path = between.path(one, other, ends)
    model = DyckTransformer(CONFIG, 0)
    model.load_state_dict({name: 0.7 * one[name] + 0.3 * other[name] for name in one})
    each = torch.cat([token_losses(model, chunk) for chunk in chunks])
    document = torch.cat([chunk.document for chunk in chunks])
    # The mean of float32 losses: rounding of weights and of sums.
    assert float(path.losses[0, 3]) == pytest.approx(float(each.double().mean()), abs=1e-5)
    without = document % 8 != 5
    assert float(path.losses[6, 3]) == pytest.approx(float(each[without].double().mean()), abs=1e-5)
    assert (between.documents, between.tokens) == (64, len(each))


def test_models_between_members_are_run_on_the_first_documents() -> None:
    functions = Members().functions([(0, 9)])
    few, all_of_it = (torch.cat([c.document for c in chunks_of(functions, n)]).unique() for n in (20, 500))
    assert few.tolist() == list(range(20))
    assert all_of_it.tolist() == list(range(64))
    tokens = [next(iter(chunks_of(functions, n))) for n in (20, 64)]
    first = [chunk.arguments[0][chunk.kept][chunk.document == 7].tolist() for chunk in tokens]
    assert first[0] == first[1]


def test_a_barrier_is_the_highest_place_above_the_line_and_may_be_below_it() -> None:
    along = torch.tensor(FRACTIONS, dtype=torch.float64)
    hill = 1 + along + 0.5 * (along == 0.4) + 0.2 * (along == 0.7)
    valley = 1 + along - along * (1 - along)
    assert Path(torch.stack([hill, hill])).barrier.tolist() == pytest.approx([0.5, 0.5])
    assert Path(valley[None]).barrier.item() == pytest.approx(-0.09)
    moved = torch.stack([hill, 1 + along + 0.1 * (along == 0.4) + 0.3 * (along == 0.7)])
    assert Path(moved).barrier.tolist() == pytest.approx([0.5, 0.1])  # the place is that of all documents


def test_r_from_weights_is_that_from_activations_where_members_are_copies(rows: pl.DataFrame) -> None:
    for site in CONFIG.sites:
        one = chosen(rows, "agreement_on_support", map=GAUGE, site=site).row(0, named=True)
        # R of the site is exact on what the data determine, to float32 activations in weak directions.
        assert one["value"] == pytest.approx(1, abs=1e-3)
        null = chosen(rows, "agreement_on_support", map=GAUGE, site=site, role="null").row(0, named=True)
        other = value(rows, "agreement_on_support", (0, 1), map=GAUGE, site=site)
        assert null["value"] == 0
        assert null["high"] < 0.5
        assert other < 0.95
        r2 = [value(rows, "r2", map=name, site=site) for name in (GAUGE, STREAM, ORTHOGONAL)]
        assert r2 == pytest.approx([1, 1, 1], abs=1e-3)
        assert value(rows, "r2", (0, 1), map=GAUGE, site=site) < 0.9


def test_nulls_are_searched_and_stay_nulls(rows: pl.DataFrame) -> None:
    for control in (OWN_ROTATIONS, UNTRAINED):
        own = rows.filter(control=control, metric="weight_similarity")
        assert own.height == 3
        assert set(own["role"]) == {"control"}
        assert own.filter(source=0, target=2)["value"].item() < 0.8 or control == UNTRAINED
    scattered = value(rows, "relative_mse", control=OWN_ROTATIONS, role="control", map=GAUGE, group="max")
    assert scattered > 0.5
    untrained = rows.filter(control=UNTRAINED)
    assert set(untrained["source_step"]) == set(untrained["target_step"]) == {0}
    heads = rows.filter(control=HEADS)
    assert set(heads["group"]) == {f"blocks.{layer}.attn.{kind}" for layer in (0, 1) for kind in ("qk", "vo")}
    wrong = heads.filter(source=0, target=2)
    assert wrong["value"].min() > 1  # of a copy, every head of which has a partner at a difference of 0


def test_ceilings_are_the_checkpoint_before_and_copies_that_must_be_found(rows: pl.DataFrame) -> None:
    before = rows.filter(role="ceiling", metric="weight_similarity", source_step=4).filter(
        pl.col("start").is_null()
    )
    assert before["target"].to_list() == [0, 1, 2]
    assert before["value"].min() > 0.99
    copies = rows.filter(control=COPY, map=GAUGE)
    assert copies.filter(metric="mse", group="max")["value"].max() < 1e-10
    assert copies.filter(metric="logit_difference")["value"].max() < 1e-5
    raw = rows.filter(control=COPY, map=IDENTITY)
    assert raw.filter(metric="logit_difference")["value"].max() < 1e-5
    assert raw.filter(metric="mse", group="max")["value"].min() > 0.01


def test_every_start_is_told_and_the_best_is_taken(rows: pl.DataFrame) -> None:
    every = rows.filter(pl.col("start").is_not_null(), source=0, target=1, metric="weight_similarity")
    ended = dict(every.select("start", "value").iter_rows())
    assert ended.keys() == {
        *("identity", "activations", "eigenvectors"),
        *("random_best", "random_median", "random_worst"),
    }
    assert max(ended.values()) == value(rows, "weight_similarity", (0, 1), map=GAUGE)
    assert ended["random_worst"] <= ended["random_median"] <= ended["random_best"]


def test_only_the_vocabulary_of_the_probe_counts() -> None:
    models = weights.searches(Members().evidence())[0].models
    used = {name: places.tolist() for name, places in models.used.items()}
    assert used["W_E"] == used["unembed.tok.W_U"] == list(range(1, 9))  # no PAD is ever read
    assert used["unembed.valid.W_U"] == [0, 1]
    assert "W_pos" not in used


def test_without_earlier_checkpoints_there_is_neither_ceiling_nor_untrained_control() -> None:
    members = Members((0, 1))
    found = table(weights.study_rows(members.evidence(STEPS[-1:])), STUDIES["weights"].columns)
    assert found.filter(role="ceiling").filter(pl.col("control").is_null()).is_empty()
    assert found.filter(control=UNTRAINED).is_empty()
    assert found.filter(control=OWN_ROTATIONS).height > 0


def test_the_same_rows_every_time() -> None:
    def once() -> list[Row]:
        return list(weights.study_rows(Members((0, 1)).evidence(STEPS[-1:])))

    assert once() == once()


def test_it_applies_only_where_symmetries_are_known() -> None:
    assert STUDIES["weights"].applies(Members().evidence())
    strange = Members(symmetries=None).evidence()
    planted = planted_evidence(Planted("rotated", PlantedConfig(d=8, members=2, documents=8, tokens=4)))
    for evidence in (strange, planted):
        assert not STUDIES["weights"].applies(evidence)
        made, refused = study_tables(evidence, ["weights"])
        assert made == {}
        assert refused == [("study weights", f"it needs {STUDIES['weights'].missing}")]
    assert "table of symmetries" in STUDIES["weights"].missing


def test_a_head_without_full_rank_refuses_the_study_and_says_why() -> None:
    class Broken(Members):
        def model(self, end: End) -> DyckTransformer:
            model = super().model(end)
            model.blocks[1].attn.W_K[1] = 0
            return model

    made, refused = study_tables(Broken().evidence(), ["weights"])
    assert made == {}
    ((study, reason),) = refused
    assert study == "study weights"
    assert "a head of blocks.1.attn has a product of rank below d_head=8" in reason
