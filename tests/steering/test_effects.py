"""Vectors and their effects, where both are known in closed form."""

import itertools
from dataclasses import replace

import pytest
import torch
from planted_functions import (
    CAUSAL,
    CONTRAST,
    CPU,
    LENGTH,
    SITE,
    D,
    functions,
    kinds,
    member,
    rotations,
    sides,
)

from polymorph.errors import RequestError
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.functions import Functions
from polymorph.steering.contrasts import Target, contrast_of
from polymorph.steering.effects import (
    Aim,
    Meter,
    Null,
    copies,
    first_documents,
    null_norms,
    random_directions,
)
from polymorph.steering.vectors import label_vectors
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.task import Dyck

KIND = contrast_of(CONTRAST)
AIM = Aim.of(KIND)


@pytest.fixture(scope="module")
def pair() -> Functions:
    return functions([member(R, seed, 0.1) for seed, R in enumerate(rotations(2))])


def of_documents(values, chunk):
    return torch.stack([values[chunk.document == i].mean() for i in range(int(chunk.document.max()) + 1)])


def test_a_vector_is_a_difference_of_means_over_the_fit_split_alone(pair):
    (chunk,) = pair.inputs("fit")
    kind = chunk.labels["kind"][chunk.kept]
    for other in (pair, replace(pair, probe=replace(pair.probe, eval=20))):
        found = label_vectors(other, SITE, [KIND, replace(KIND, sign=-1)])
        assert found.shape == (2, 2, D)
        for place in range(2):
            x = pair.read(place, chunk, [SITE])[SITE].double()
            expected = x[kind == 1].mean(0) - x[kind == 0].mean(0)
            torch.testing.assert_close(found[0, place], expected, atol=1e-12, rtol=0)  # float64 sums
            assert torch.equal(found[1, place], -found[0, place])
    (held,) = pair.inputs("eval")
    y = pair.read(0, held, [SITE])[SITE].double()
    kind = held.labels["kind"][held.kept]
    assert (found[0, 0] - (y[kind == 1].mean(0) - y[kind == 0].mean(0))).norm() > 0.01


def test_a_condition_that_holds_nowhere_is_refused(pair):
    with pytest.raises(ValueError, match="holds nowhere"):
        label_vectors(pair, SITE, [replace(KIND, positive={"kind": (9,)})])
    with pytest.raises(RequestError, match="no head 'depth'"):
        label_vectors(pair, SITE, [replace(KIND, positive={"depth": (1,)})])


def test_effects_of_a_linear_reader_are_what_its_weights_say(pair):
    """Log-odds of kind 1 against kind 0 are 4 · gain · (the causal coordinate)."""
    meter = Meter(pair, 0, SITE)
    (chunk,) = pair.inputs("eval")
    model = pair.models[0]
    gain = model.gain[chunk.arguments[0]][chunk.kept].double()
    concerned = (kinds()[chunk.arguments[0]][chunk.kept] < 2).double()
    v = torch.randn(5, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = meter.measure(v, [AIM])
    along = v @ model.read[:, CAUSAL].double()
    for k in range(5):
        expected = torch.stack(
            [(4 * gain * along[k] * concerned)[chunk.document == i].sum() for i in range(meter.documents)]
        )
        torch.testing.assert_close(
            found.tau[k, 0], expected, atol=2e-4, rtol=1e-4
        )  # float32 logits, 12 tokens
    assert found.concerned[0].tolist() == [float(concerned[chunk.document == i].sum()) for i in range(60)]
    assert found.tokens.tolist() == [LENGTH] * 60
    opposite = meter.measure(v, [replace(AIM, name="back", sign=-1)])
    torch.testing.assert_close(opposite.tau, -found.tau)


def test_divergences_are_those_of_the_definition(pair):
    meter = Meter(pair, 1, SITE)
    (chunk,) = pair.inputs("eval")
    v = 0.7 * random_directions(2, D, torch.Generator().manual_seed(2))
    found = meter.measure(v, [AIM, replace(AIM, name="side", target=Target("side", (0,), (1,)))])
    clean = {h: own.double().log_softmax(-1) for h, own in pair.logits(1, chunk).items()}
    for k in range(2):
        after = pair.logits(1, chunk, SITE, lambda x, k=k: x + v[k].float())
        by_head = {
            h: (clean[h].exp() * (clean[h] - own.double().log_softmax(-1))).sum(-1)
            for h, own in after.items()
        }
        total = of_documents(sum(by_head.values()), chunk)
        torch.testing.assert_close(found.kl[k] / found.tokens, total, atol=1e-5, rtol=1e-4)
        for place, other in enumerate(("side", "kind")):
            off = of_documents(by_head[other], chunk)
            torch.testing.assert_close(found.off[k, place] / found.tokens, off, atol=1e-5, rtol=1e-4)


def test_with_one_head_what_is_off_target_are_its_other_classes(pair):
    class OneHead:
        def __init__(self, model):
            self.model = model

        def run_with_hooks(self, tokens, *, fwd_hooks=()):
            return {"kind": self.model.run_with_hooks(tokens, fwd_hooks=fwd_hooks)["kind"]}

    one = replace(pair, models=[OneHead(pair.models[0])])
    read = pair.models[0].read
    axes = torch.linalg.inv(read.double())  # rows: what moves one canonical coordinate alone
    found = Meter(one, 0, SITE).measure(torch.stack([axes[CAUSAL], axes[2]]), [AIM])
    assert float(found.off[0].abs().max()) < 1e-5  # kinds 2 and 3 keep their ratio
    assert float(found.kl[0].min()) > 0.01
    assert float(found.off[1].min()) > 0.01


def test_the_paper_counts_answers_that_are_lost_where_they_are_to_change(pair):
    (chunk,) = pair.inputs("eval")
    v = label_vectors(pair, SITE, [KIND])[0, 0]
    for sign, starts in ((1, 0), (-1, 1)):
        aim = replace(AIM, name=f"{sign}", sign=sign)
        found = Meter(pair, 0, SITE).measure(3 * sign * v[None], [aim])
        kind = chunk.labels["kind"][chunk.kept]
        assert float(found.changed.sum()) == int((kind == starts).sum())
        assert float(found.lost.sum()) == pytest.approx(int((kind == starts).sum()), rel=0.02)


def test_nothing_added_changes_nothing_and_what_is_not_finite_is_refused(pair):
    meter = Meter(pair, 0, SITE)
    found = meter.measure(torch.zeros(2, D, dtype=torch.float64), [AIM])
    for values in (found.tau, found.kl, found.off, found.lost):
        assert float(values.abs().max()) < 1e-4  # sums over 12 tokens of float32 rounding
    with pytest.raises(ValueError, match="not finite"):
        meter.measure(torch.full((1, D), torch.inf), [AIM])


def test_measuring_leaves_the_member_as_it_was(pair):
    (chunk,) = pair.inputs("eval")
    before = pair.logits(0, chunk)["kind"].clone()
    Meter(pair, 0, SITE).measure(torch.ones(3, D), [AIM])
    assert torch.equal(pair.logits(0, chunk)["kind"], before)


def test_copies_of_packed_sequences_are_steered_as_one_at_a_time():
    """A transformer with attention, in packed rows: no copy sees another."""
    config = DyckTransformerConfig(n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32, init_std=0.3)
    real = Functions([config.untrained(0).eval()], config.sites, Dyck(), ProbeConfig(20, 20), CPU)
    aim = Aim("depth", Target("depth", (1,), (0,)))
    v = random_directions(3, 16, torch.Generator().manual_seed(0))
    meter = Meter(real, 0, "blocks.0.hook_resid_mid")
    together, alone = meter.measure(v, [aim]), [meter.measure(one[None], [aim]) for one in v]
    for k, one in enumerate(alone):
        torch.testing.assert_close(together.tau[k], one.tau[0], atol=1e-3, rtol=1e-4)  # sums over ≤ 64 tokens
        torch.testing.assert_close(together.kl[k], one.kl[0], atol=1e-3, rtol=1e-4)
    chunk = next(real.inputs("eval"))
    twice = copies(chunk, 2)
    assert len(twice.document.unique()) == 2 * len(chunk.document.unique())
    assert torch.equal(twice.kept[1:], chunk.kept)


def test_the_first_documents_are_as_few_as_hold_so_many_tokens(pair):
    assert first_documents(pair, 40, 10**6).probe.eval == 40
    assert first_documents(pair, 40, 10 * LENGTH).probe.eval == 10
    assert first_documents(pair, 10**6, 10**6).probe.eval == 60
    assert first_documents(pair, 40, 1).probe.eval == 8, "as many as a test needs, however long"
    assert first_documents(pair, 5, 1).probe.eval == 5
    (few,), (all_of_them,) = first_documents(pair, 7, 10**6).inputs("eval"), pair.inputs("eval")
    assert torch.equal(few.arguments[0], all_of_them.arguments[0][:7])


def test_a_null_at_another_norm_is_on_the_parabola_through_what_was_measured():
    slope, bend = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def effect(norm):
        return slope * norm - bend * norm**2

    for norms in ((2.0, 5.0), (0.4, 2.0, 5.0)):
        null = Null(norms, torch.stack([effect(norm) for norm in norms]))
        for norm in (0.5, 2.0, 3.3, 5.0):
            torch.testing.assert_close(null.at(norm), effect(norm))
    assert torch.equal(Null((5.0,), effect(5.0)[None]).at(4.8), effect(5.0))
    assert null_norms(2.0, [2.0, 2.1]) == (2.1,)
    assert null_norms(2.0, [1.9, 5.0]) == (2.0, 5.0)
    assert null_norms(2.0, [0.3, 2.1]) == (0.3, 2.1)
    assert null_norms(2.0, [0.0, 0.3, 5.0]) == (0.3, 2.0, 5.0)


def test_a_null_is_that_of_the_norm_and_not_of_the_own_vector():
    """An effect that saturates: of a short vector it is less than in proportion to that of a long one."""
    along = torch.randn(100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def effect(norm):
        return -torch.tanh((norm * along).square())

    norms = null_norms(2.0, [2.0, 0.3])
    null = Null(norms, torch.stack([effect(norm) for norm in norms]))
    torch.testing.assert_close(null.at(0.3), effect(0.3))
    assert float(null.at(0.3).mean()) > 0.3 * float(null.at(2.0).mean())


def test_random_directions_are_units_and_the_same_again():
    first, again = (random_directions(400, D, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(400, dtype=torch.float64))
    # the mean of 400 unit vectors has a norm of about 1/√400
    assert float(first.mean(0).norm()) < 3 / 400**0.5


def test_aims_are_found_at_the_positions_of_both_conditions(pair):
    (chunk,) = pair.inputs("eval")
    kind = chunk.labels["kind"][chunk.kept]
    assert torch.equal(AIM.concerned(chunk), kind < 2)
    assert bool(Aim("everywhere", Target("kind", (1,), (0,))).concerned(chunk).all())
    assert all(int((sides() == i).sum()) == 80 for i in range(3))
    assert len(list(itertools.islice(pair.inputs("eval"), 2))) == 1
