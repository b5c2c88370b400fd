"""Reports for tests: rows of the real studies on planted activations, and what else a page needs."""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from torch import Tensor

from polymorph.alignment.collect import Collected
from polymorph.evidence.evidence import Evidence, History
from polymorph.evidence.pairs import End, PairLabel, pairs_of
from polymorph.evidence.rows import Row, table
from polymorph.models.activations import Activations, DocumentLosses, Edit, Predictions, Split
from polymorph.models.architecture import HookedModel
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.functions import Functions
from polymorph.models.symmetries import symmetries_of
from polymorph.plotting.plate import Drawn
from polymorph.plotting.table_rows import at_last_steps
from polymorph.report.data import MemberSummary, ReportData
from polymorph.saes.trained import GivenDictionaries, TrainedSAE, Variant
from polymorph.studies.angles import rows as angles
from polymorph.studies.claims import claims_of
from polymorph.studies.ladder import rows as ladder
from polymorph.studies.registry import STUDIES
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.task import Dyck

DOCUMENTS, LENGTH, DISTRIBUTIONS = 60, 8, ("train", "compositional", "long")
SITES = {"blocks.0.hook_resid_mid": 0.3, "blocks.0.hook_resid_post": 0.7, "blocks.1.hook_resid_mid": 1.0}
"""Sites, and the share of the dimensions in which activations live."""
MASSIVE = {"blocks.0.hook_resid_post": 40.0, "blocks.1.hook_resid_mid": 15.0}
"""Sites at which, where asked for, one axis is this much larger and the same in all members."""
AXIS = 5
VARIANTS: tuple[Variant, ...] = ("distinct", "again", "shared", "unrelated")


@functools.cache
def turns(seeds: int, d: int) -> Tensor:
    """The matrix of every member [seeds d d]."""
    generator = torch.Generator().manual_seed(11)
    return torch.stack(
        [torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q for _ in range(seeds)]
    )


@functools.cache
def activations(
    seeds: int, d: int, share: float, step: int, last: int, shift: int = 0, one_sided: bool = False
) -> Tensor:
    """Members [seeds n d]: one signal, turned by a matrix of their own, under noise that training lowers.

    A one-sided signal is never below 0: of a Gaussian one, SAEs need nothing but its covariance. Its members
    have their axes in another order until the last step.
    """
    generator = torch.Generator().manual_seed(7 + shift)
    signal = torch.randn(DOCUMENTS * LENGTH, d, generator=generator, dtype=torch.float64)
    signal = signal.clamp(min=0) if one_sided else signal
    signal *= torch.where(torch.arange(d) < max(1, share * d), 1.0, 0.02)
    signal += signal.std() * torch.linspace(0, 1, LENGTH, dtype=torch.float64).repeat(DOCUMENTS)[:, None]
    noise = 0.15 + 1.2 * (1 - math.log1p(step) / math.log1p(last))
    members = []
    for R in turns(seeds, d):
        own = torch.randn(signal.shape, generator=generator, dtype=torch.float64)
        members.append((signal + noise * signal.std() * own) @ R)
    return torch.stack(members).roll(int(one_sided and step < last), -1)


def tables(
    seeds: int, steps: list[int], d: int = 16, sites: dict[str, float] | None = None, name: str = "planted"
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The ladder and angle tables of a planted cohort, with ceilings from each step to the next."""
    sites = SITES if sites is None else sites
    pairs = list(itertools.combinations(range(seeds), 2))
    found: tuple[list[Row], list[Row]] = ([], [])
    for before, step in zip([None, *steps], steps, strict=False):
        wanted = [*pairs, *(() if before is None else ((seeds + s, s) for s in range(seeds)))]
        labels = [
            PairLabel.between(i % seeds, j, before if i >= seeds else step, step)  # type: ignore[arg-type]
            for i, j in wanted
        ]
        moments = _collected(wanted, seeds, d, sites, step, before, steps[-1])
        result, documents = moments.result(), {"fit_documents": DOCUMENTS}
        found[0].extend(ladder.ladder_rows(result, labels, name, eval_documents=DOCUMENTS, **documents))
        found[1].extend(angles.angle_rows(result, labels, name, **documents))
    return table(found[0], STUDIES["ladder"].columns), table(found[1], STUDIES["angles"].columns)


def _collected(
    pairs: list[tuple[int, int]],
    seeds: int,
    d: int,
    sites: dict[str, float],
    step: int,
    before: int | None,
    last: int,
) -> Collected:
    document = torch.arange(DOCUMENTS).repeat_interleave(LENGTH)
    position = torch.arange(LENGTH).repeat(DOCUMENTS)
    moments = Collected(pairs, list(sites), blocks=8)
    splits = [
        {
            site: torch.cat(
                [activations(seeds, d, share, at, last, shift) for at in (step, before) if at is not None]
            )
            for site, share in sites.items()
        }
        for shift in (0, 1)
    ]
    moments.update_fit(Activations(splits[0], document, position))
    moments.update_eval(Activations(splits[1], document, position))
    return moments


@dataclass(frozen=True)
class Source:
    """The planted members `ends`, each a seed at a step, read back in one chunk a split."""

    ends: tuple[tuple[int, int], ...]
    last: int
    d: int = 16
    sites: Sequence[str] = tuple(SITES)
    one_sided: bool = False
    massive: bool = False

    @property
    def documents(self) -> Mapping[Split, int]:
        return {"fit": DOCUMENTS, "eval": DOCUMENTS}

    def chunks(self, split: Split) -> Iterator[Activations]:
        document = torch.arange(DOCUMENTS).repeat_interleave(LENGTH)
        position = torch.arange(LENGTH).repeat(DOCUMENTS)
        yield Activations({site: self.at(site, split) for site in self.sites}, document, position)

    def at(self, site: str, split: Split) -> Tensor:
        """Activations [members n d]."""
        seeds, shift = 1 + max(seed for seed, _ in self.ends), int(split == "eval")
        chosen = [
            activations(seeds, self.d, SITES[site], step, self.last, shift, self.one_sided)[seed]
            for seed, step in self.ends
        ]
        x = torch.stack(chosen)
        if self.massive and site in MASSIVE:
            x[..., AXIS] = MASSIVE[site] * chosen[0][:, AXIS]
        return x

    def predictions(self, member: int, split: Split) -> Iterator[Predictions]:
        """Two heads of three and nine classes; a member knows more the more it has read, and the larger its seed."""
        seen = torch.arange(LENGTH).repeat(DOCUMENTS)
        document = torch.arange(DOCUMENTS).repeat_interleave(LENGTH)
        generator = torch.Generator().manual_seed(self.ends[member][0])
        own = torch.rand(DOCUMENTS * LENGTH, generator=generator, dtype=torch.float64)
        labels = {"kind": seen % 3, "depth": (document + seen) % 9}
        losses = {head: own * math.log(1 + int(of.max())) * 3 / (2 + seen) for head, of in labels.items()}
        yield Predictions(document, seen, losses, labels)

    def losses(
        self, member: int, split: Split, site: str | None = None, edit: Edit | None = None
    ) -> DocumentLosses:
        """Cross-entropy of which of three latent dimensions is largest, read at every site and added up."""
        seed, _ = self.ends[member]
        read = 3 * turns(seed + 1, self.d)[seed].T[:, :3]
        total = torch.zeros(DOCUMENTS, dtype=torch.float64)
        for name in SITES:
            x = self.at(name, split)[member]
            edited = edit(x).to(x) if edit is not None and name == site else x
            each = torch.nn.functional.cross_entropy(edited @ read, (x @ read).argmax(-1), reduction="none")
            total += each.view(DOCUMENTS, LENGTH).sum(1)
        return DocumentLosses(total, torch.full((DOCUMENTS,), LENGTH))


@functools.cache
def transformer(d: int) -> DyckTransformerConfig:
    """Of members that are models, with the sites of `SITES` among its own."""
    return DyckTransformerConfig(d_model=d, n_heads=2, d_head=8, d_mlp=32, init_std=0.15)


@functools.cache
def learned(d: int) -> Mapping[str, Tensor]:
    """The weights of one small model after a short training: better at every head than a constant answer."""
    model, task = transformer(d).untrained(99), Dyck()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(120):
        chunk = task.fresh(0, step, 1024, torch.device("cpu"))
        said = model(*chunk.arguments, **chunk.keywords)
        labels = {head: own[chunk.kept] for head, own in chunk.labels.items()}
        losses = [torch.nn.functional.cross_entropy(said[head][chunk.kept], labels[head]) for head in labels]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def model(seed: int, step: int, last: int, d: int) -> HookedModel:
    """Of a member at a step: weights of its own, out of which training makes those of all."""
    done = 0.97 * math.log1p(step) / math.log1p(last)
    made = transformer(d).untrained(seed)
    own = made.state_dict()
    made.load_state_dict({name: (1 - done) * own[name] + done * value for name, value in learned(d).items()})
    return made.eval().requires_grad_(False)


def functions(ends: Sequence[End], last: int, d: int = 16) -> Functions:
    """What members compute; their activations in `Source` are others, with the same sites."""
    models = [model(*end, last, d) for end in ends]
    probe, device = ProbeConfig(DOCUMENTS, DOCUMENTS), torch.device("cpu")
    return Functions(models, tuple(SITES), Dyck(), probe, device, None, symmetries_of(transformer(d)))


def sae(seed: int, variant: Variant, early: bool = False, d: int = 16) -> TrainedSAE:
    """Of a member, in float32: its latent dimensions as features, in an order of its own, and a little turned.

    `shared` and `unrelated` have directions that are the same for all members and belong to none. An early one
    has the axes of the steps before the last, and a decoder half as large.
    """
    number = VARIANTS.index(variant)
    generator = torch.Generator().manual_seed(100 * seed + number)
    basis = turns(seed + 1, d)[seed] if variant in ("distinct", "again") else turns(50, d)[49]
    noise = 0.1 * torch.randn(d, d, generator=generator, dtype=torch.float64)
    directions = (basis + noise / d**0.5)[torch.randperm(d, generator=generator)]
    with torch.random.fork_rng():
        made = StandardSAE(StandardSAEConfig(d_in=d, d_sae=d)).eval().requires_grad_(False)
    directions, scale = directions.roll(int(early), -1).float(), 0.5 if early else 1.0
    made.W_enc.data, made.W_dec.data = directions.mT.contiguous(), scale * directions
    return TrainedSAE(made, "small", variant, seed)


def dictionaries(
    seeds: Sequence[int], steps: Sequence[int], variants: Sequence[Variant] = VARIANTS
) -> GivenDictionaries:
    """SAEs at every site: of all variants at the last step, `distinct` ones at those before."""
    found = {}
    for seed, site in itertools.product(seeds, SITES):
        for variant in variants:
            found[seed, steps[-1], site, "small", variant] = sae(seed, variant)
        for step in steps[:-1]:
            found[seed, step, site, "small", "distinct"] = sae(seed, "distinct", early=True)
    return GivenDictionaries(found)


def evidence_of(given: ReportData, saes: GivenDictionaries | None = None, massive: bool = False) -> Evidence:
    """What studies read of the members of a report; with SAEs, one-sided signals; or with massive axes."""
    seeds, last = [member.seed for member in given.members], given.members[0].last_step
    steps = sorted(set(given.ladder["target_step"]))
    one_sided = saes is not None

    def ends_of(seed: int, at: Sequence[int]) -> Source:
        return Source(tuple((seed, step) for step in at), last, one_sided=one_sided)

    histories = [History(seed, steps, lambda at, own=seed: ends_of(own, at)) for seed in seeds]
    ends = [(seed, last) for seed in seeds]
    return Evidence(
        given.cohort,
        ends,
        pairs_of(ends),
        Source(tuple(ends), last, one_sided=one_sided, massive=massive),
        blocks=8,
        histories=histories,
        functions=functools.partial(functions, last=last),
        dictionaries=GivenDictionaries() if saes is None else saes,
    )


def with_tables(given: ReportData, **tables: pl.DataFrame) -> ReportData:
    """The same report with other tables of these studies."""
    return replace(given, tables={**given.tables, **tables})


def with_studies(given: ReportData) -> ReportData:
    """The same report with the tables of every study but the two that it has, and the claims."""
    seeds = [member.seed for member in given.members]
    steps = sorted(set(given.ladder["target_step"]))[1:]
    evidence, reading = evidence_of(given), evidence_of(given, dictionaries(seeds, steps))
    made = dict(given.tables)
    others = {name: study for name, study in STUDIES.items() if name not in made}
    read = {name: reading if study.needs_saes else evidence for name, study in others.items()}
    read["massive_activations"] = evidence_of(given, dictionaries(seeds, steps), massive=True)
    made |= {name: table(study.rows(read[name]), study.columns) for name, study in others.items()}
    claims = claims_of({**made, "ladder": at_last_steps(given.ladder)})
    return replace(given, tables=made, claims=claims)


def history(seeds: int, steps: list[int]) -> pl.DataFrame:
    """Curves that rise to 1 and fall to 0.01, a little apart."""
    cells = itertools.product(range(seeds), steps, enumerate(DISTRIBUTIONS), ("tok", "depth", "valid"))
    rows = []
    for seed, step, (hard, distribution), head in cells:
        done = 1 / (1 + math.exp(4 - 1.2 * math.log1p(step) + 0.5 * hard + 0.2 * seed))
        about = {"seed": seed, "step": step, "distribution": distribution, "head": head}
        rows.append(about | {"metric": "accuracy", "value": 0.11 + 0.89 * done})
        rows.append(about | {"metric": "loss", "value": 0.01 + 2.2 * (1 - done)})
    return pl.DataFrame(rows)


def report(
    seeds: int = 3, steps: tuple[int, ...] = (0, 4, 64), name: str = "planted", d: int = 16
) -> ReportData:
    """A whole report; seed 7 is left out of it."""
    ladder_table, angle_table = tables(seeds, list(steps), d, name=name)
    accuracies = {"train": 1.0, "compositional": 0.99998, "long": None}
    return ReportData(
        cohort=name,
        task={"name": "dyck3", "context": 64, "max_depth": 8},
        architecture={"d_model": d, "n_layers": 2, "sites": list(SITES)},
        members=[MemberSummary(seed, "completed", steps[-1], None, accuracies) for seed in range(seeds)],
        left_out=[("seed 7", "diverged at step 12")],
        tables={"ladder": ladder_table, "angles": angle_table},
        history=history(seeds, list(steps)),
        provenance={
            "command": "python analyze.py cohort=planted",
            "code version": "0.1.0 (0123abc)",
            "config": "seed: [0, 1, 2]\nexperiment: quick",
            "package versions": "torch 2.13, polars 2.1",
        },
    )


def of_all(drawn: Mapping[str, Sequence[Drawn]]) -> list[Drawn]:
    """The figures of all sections, in the order of the page."""
    return [plate for plates in drawn.values() for plate in plates]
