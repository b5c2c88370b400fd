"""What SAEs are trained on: fresh documents, the same for all, and noise that knows only two moments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from polymorph.models.activations import ModelStream
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.saes.inputs import MOMENT_BATCHES, Inputs
from polymorph.saes.places import Place
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.task import Dyck

CPU = torch.device("cpu")
SITES = ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid")
D, TOKENS = 5, 2000
ENDS = ((0, 30), (3, 20))  # members and their steps
STANDARD_ERRORS = 5  # of about a hundred estimates; the seeds are fixed


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@dataclass
class Gaussian:
    """A stream of correlated activations with a mean, another law for every member and site."""

    sites: Sequence[str] = SITES
    members: int = len(ENDS)
    asked: list[int] = field(default_factory=list)

    def batch(self, step: int) -> Mapping[str, Tensor]:
        self.asked.append(step)
        values = {}
        for site in self.sites:
            law = torch.Generator().manual_seed(SITES.index(site))
            mixing = torch.randn(len(ENDS), D, D, generator=law)
            mixing[0, :, 0] = 0  # of lower rank
            offset = 3 * torch.randn(len(ENDS), 1, D, generator=law)
            own = torch.Generator().manual_seed(1000 * step + SITES.index(site) + 17)
            x = torch.randn(len(ENDS), TOKENS, D, generator=own) @ mixing + offset
            values[site] = x[: self.members]
        return values


def places(*variants: str, sites: Sequence[str] = SITES) -> list[Place]:
    return [Place(seed, step, site, v) for seed, step in ENDS for site in sites for v in variants]  # type: ignore[arg-type]


def test_an_sae_gets_the_activations_of_its_member_and_site() -> None:
    asked = list(reversed(places("distinct", "shared", "again")))
    batch, stream = Inputs(asked, Gaussian(), 0).batch(7), Gaussian().batch(7)
    for place, own in zip(asked, batch, strict=True):
        assert torch.equal(own, stream[place.site][ENDS.index((place.seed, place.step))])


def test_without_noise_no_batch_is_asked_for_twice() -> None:
    stream = Gaussian()
    inputs = Inputs(places("distinct"), stream, 0)
    for step in range(3):
        inputs.batch(step)
    assert stream.asked == [0, 1, 2]


def test_its_moments_take_a_few_batches_once() -> None:
    stream = Gaussian()
    inputs = Inputs(places("unrelated"), stream, 0)
    for step in range(10, 13):
        inputs.batch(step)
    assert stream.asked == [10, *range(MOMENT_BATCHES), 11, 12]


@pytest.fixture(scope="module")
def noise() -> Tensor:
    """[places n d] in double precision."""
    inputs = Inputs(places("unrelated"), Gaussian(), 5)
    return torch.cat([inputs.batch(step) for step in range(100, 105)], 1).double()


def test_noise_has_the_mean_and_the_covariance_of_its_member(noise: Tensor) -> None:
    n = noise.shape[1]
    for place, own in zip(places("unrelated"), noise, strict=True):
        index = ENDS.index((place.seed, place.step))
        x = torch.cat([Gaussian().batch(step)[place.site][index] for step in range(MOMENT_BATCHES)]).double()
        expected, found = torch.cov(x.T, correction=0), torch.cov(own.T)
        spread = expected.diagonal()
        assert ((own.mean(0) - x.mean(0)).abs() <= STANDARD_ERRORS * (spread / n).sqrt() + 1e-6).all()
        error = ((spread[:, None] * spread + expected.square()) / n).sqrt()
        assert ((found - expected).abs() <= STANDARD_ERRORS * error + 1e-6).all()
        assert found.trace() > 1


def test_the_noise_of_another_has_not(noise: Tensor) -> None:
    """Or the bounds above would say nothing."""
    means = noise.mean(1)
    spread = noise.std(1)
    for one in range(len(noise)):
        for other in range(one):
            far = (means[one] - means[other]).abs() > STANDARD_ERRORS * spread[one] / noise.shape[1] ** 0.5
            assert far.any()


def test_noise_is_uncorrelated_with_everything_else(noise: Tensor) -> None:
    """With the activations of its own steps, and with the noise of other members and sites."""
    steps = range(100, 105)
    real = torch.stack(
        [
            torch.cat([Gaussian().batch(s)[p.site][ENDS.index((p.seed, p.step))] for s in steps])
            for p in places("unrelated")
        ]
    ).double()
    everything = torch.cat([noise, real])
    n = noise.shape[1]
    for one in range(len(noise)):
        for other in range(one + 1, len(everything)):
            if other - len(noise) >= 0 and other - len(noise) < one:
                continue
            both = torch.cat([noise[one], everything[other]], 1).T
            used = both[both.std(1) > 1e-4]
            first = int((noise[one].std(0) > 1e-4).sum())
            assert torch.corrcoef(used)[:first, first:].abs().max() < STANDARD_ERRORS / n**0.5


def noise_of(step: int, seed: int = 0, sites: Sequence[str] = SITES, **stream: Any) -> dict[Place, Tensor]:
    own = places("unrelated", sites=sites)[: len(sites) * stream.get("members", len(ENDS))]
    batch = Inputs(own, Gaussian(sites=sites, **stream), seed).batch(step)
    return dict(zip(own, batch, strict=True))


def test_noise_is_a_function_of_seed_step_member_and_site() -> None:
    found = noise_of(3)
    again, other_step, other_seed = noise_of(3), noise_of(4), noise_of(3, seed=1)
    for place, own in found.items():
        assert torch.equal(own, again[place])
        assert not torch.isclose(own[:, 1], other_step[place][:, 1]).any(-1).all()
        assert not torch.isclose(own[:, 1], other_seed[place][:, 1]).any(-1).all()


def test_it_does_not_matter_what_else_is_asked_for() -> None:
    found = noise_of(3)
    for own in (noise_of(3, sites=SITES[:1]), noise_of(3, sites=SITES[1:]), noise_of(3, members=1)):
        for place, values in own.items():
            assert torch.equal(values, found[place])


def test_inputs_draw_no_global_randomness() -> None:
    before = torch.get_rng_state()
    noise_of(3)
    assert torch.equal(torch.get_rng_state(), before)


# Streams of models.

CONFIG = DyckTransformerConfig(n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=32)
MODEL_SITES = CONFIG.sites


class Reader:
    """A model that says what it reads: tokens and positions, as if they were activations."""

    def run_with_hooks(self, tokens: Tensor, positions: Tensor, *, layout: object, fwd_hooks: Any) -> None:
        for _, hook_function in fwd_hooks:
            hook_function(torch.stack([tokens, positions], -1).float(), None)


def stream_of(models: Sequence[Any], sites: Sequence[str], tokens: int = 300, seed: int = 0) -> ModelStream:
    return ModelStream(models, sites, Dyck(), tokens, seed, CPU)


def documents(tokens: int, step: int, seed: int = 0) -> list[Tensor]:
    """The documents of a batch, the last of which may be cut."""
    read = stream_of([Reader()], ["read"], tokens, seed).batch(step)["read"][0].long()
    assert read.shape == (tokens, 2)
    starts = [*torch.nonzero(read[:, 1] == 0).flatten().tolist(), tokens]
    found = [read[a:b] for a, b in pairwise(starts)]
    for own in found:
        assert torch.equal(own[:, 1], torch.arange(len(own)))
    return [own[:, 0] for own in found]


@pytest.fixture(scope="module")
def models() -> list[DyckTransformer]:
    return [DyckTransformer(CONFIG, seed).eval().requires_grad_(False) for seed in range(2)]


@pytest.mark.parametrize("tokens", [2, 63, 64, 300, 2000])
def test_a_batch_has_exactly_its_tokens_of_whole_documents(tokens: int) -> None:
    seeds, steps = torch.tensor([4]), torch.tensor([9])
    batch = Dyck().batches(seeds, steps, 200, "sae")[0]
    for index, own in enumerate(found := documents(tokens, 9, seed=4)):
        length = int(batch.lengths[0, index])
        assert len(own) == length or (index == len(found) - 1 and len(own) < length)
        assert torch.equal(own, batch.tokens[0, index, : len(own)])


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    one = stream_of([Reader()], ["read"])
    assert torch.equal(one.batch(3)["read"], stream_of([Reader()], ["read"]).batch(3)["read"])
    one.batch(8)
    assert torch.equal(one.batch(3)["read"], stream_of([Reader()], ["read"]).batch(3)["read"])
    for other in (one.batch(4), stream_of([Reader()], ["read"], seed=1).batch(3)):
        assert not torch.equal(one.batch(3)["read"], other["read"])


def test_everybody_sees_the_same_tokens(models: list[DyckTransformer]) -> None:
    both = stream_of(models, MODEL_SITES).batch(5)
    assert list(both) == MODEL_SITES
    for sites in (MODEL_SITES[:1], MODEL_SITES[1:]):
        for index, model in enumerate(models):
            own = stream_of([model], sites).batch(5)
            assert list(own) == sites
            for site in sites:
                assert torch.equal(own[site][0], both[site][index])


def test_activations_are_those_of_each_document_alone(models: list[DyckTransformer]) -> None:
    found = stream_of(models, MODEL_SITES).batch(2)
    first = 0
    for own in documents(300, 2):
        for index, model in enumerate(models):
            _, cache = model.run_with_cache(own[None])
            for site in MODEL_SITES:
                there = found[site][index, first : first + len(own)]
                torch.testing.assert_close(there, cache[site][0], rtol=1e-4, atol=1e-5)
        first += len(own)
    assert first == 300


def test_neither_the_probe_nor_any_training_has_met_the_documents() -> None:
    """Of the same seeds. Only long documents are looked at, since of two brackets there are few."""

    def long(found: Sequence[Tensor]) -> set[tuple[int, ...]]:
        return {tuple(own.tolist()) for own in found if len(own) >= 20}

    fresh: set[tuple[int, ...]] = set()
    for step in range(4):
        fresh |= long(documents(2000, step)[:-1])
    met: set[tuple[int, ...]] = set()
    for stream in ("train", "evaluation"):
        batch = Dyck().batches(torch.tensor([0]), torch.arange(4), 300, stream)
        for step in range(4):
            tokens, lengths = batch[step].tokens[0], batch[step].lengths[0]
            met |= long([own[:length] for own, length in zip(tokens, lengths.tolist(), strict=True)])
    for split in ("fit", "eval"):
        for chunk in Dyck().probe(ProbeConfig(fit=300, eval=300), split, CPU):  # type: ignore[arg-type]
            tokens = chunk.arguments[0][chunk.kept]
            met |= long([tokens[chunk.document == index] for index in chunk.document.unique()])
    assert len(fresh) > 100
    assert len(met) > 1000
    assert not fresh & met
    again = Dyck().batches(torch.tensor([0]), torch.tensor([0]), 300, "sae")[0]
    assert fresh & long([t[:n] for t, n in zip(again.tokens[0], again.lengths[0].tolist(), strict=True)])


def test_positions_are_distributed_as_in_the_task() -> None:
    """Long documents are neither preferred nor cut short: of tokens as they come, not of documents."""
    stream = stream_of([Reader()], ["read"], tokens=4096)
    edges = torch.tensor([0, 4, 8, 16, 24, 32, 48, 64])

    def shares(positions: Tensor) -> Tensor:
        return torch.bucketize(positions, edges, right=True).bincount(minlength=9)[1:8] / len(positions)

    found = torch.stack([shares(stream.batch(step)["read"][0, :, 1].contiguous()) for step in range(24)])
    lengths = Dyck().batches(torch.tensor([77]), torch.arange(40), 250).lengths.reshape(40, 250)
    each = [torch.cat([torch.arange(length) for length in some.tolist()]) for some in lengths]
    expected = torch.stack([shares(positions.float()) for positions in each])
    error = (found.var(0) / len(found) + expected.var(0) / len(expected)).sqrt()
    assert ((found.mean(0) - expected.mean(0)).abs() < STANDARD_ERRORS * error).all()
    assert (error < 0.01).all()
    # What a choice of documents in proportion to their lengths would give.
    biased = torch.cat([torch.arange(n).repeat(n) for n in lengths.flatten()[:500].tolist()])
    far = (shares(biased.float()) - expected.mean(0)).abs() > STANDARD_ERRORS * error
    assert far.any()
