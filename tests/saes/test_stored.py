"""SAEs go into a cohort and come back as they were; what is no SAE is refused; SAEs from elsewhere."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedSAE,
    GatedSAEConfig,
    GatedTrainingSAE,
    GatedTrainingSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)

from polymorph.errors import RequestError, RunError
from polymorph.saes.attach import attach_sae
from polymorph.saes.stored import (
    ARCHITECTURES,
    VARIANTS,
    StoredDictionaries,
    family_and_variant,
    publish,
    sae_files,
    sae_from_files,
    sae_name,
)
from polymorph.saes.trained import TrainedSAE
from polymorph.store import Cohort, ConflictError, CorruptError, Member

torch.set_num_threads(1)
D, WIDTH, K = 8, 24, 3
SITE, OTHER_SITE = "blocks.0.hook_resid_mid", "blocks.0.hook_resid_post"
SITES = (SITE, OTHER_SITE)
IDENTITY = {"architecture": {"d_model": D}, "task": {"name": "dyck3"}, "probe": {"seed": 0}}
SIZES: dict[str, Any] = {"d_in": D, "d_sae": WIDTH}
INFERENCE: dict[str, Callable[[], SAE[Any]]] = {
    "standard": lambda: StandardSAE(StandardSAEConfig(**SIZES)),
    "topk": lambda: TopKSAE(TopKSAEConfig(**SIZES, k=K, rescale_acts_by_decoder_norm=True)),
    "gated": lambda: GatedSAE(GatedSAEConfig(**SIZES)),
    "jumprelu": lambda: JumpReLUSAE(JumpReLUSAEConfig(**SIZES, normalize_activations="layer_norm")),
}
TRAINING: dict[str, Callable[[], SAE[Any]]] = {
    "standard": lambda: StandardTrainingSAE(StandardTrainingSAEConfig(**SIZES, l1_coefficient=0.5)),
    "topk": lambda: TopKTrainingSAE(TopKTrainingSAEConfig(**SIZES, k=K)),
    "gated": lambda: GatedTrainingSAE(GatedTrainingSAEConfig(**SIZES)),
    "jumprelu": lambda: JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**SIZES, dtype="float64")),
    "batchtopk": lambda: BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**SIZES, k=K)),
}


def drawn(make: Callable[[], SAE[Any]], generator: torch.Generator) -> SAE[Any]:
    """An SAE with every parameter drawn, biases and thresholds included, and something known about it."""
    sae = make()
    for name, parameter in sae.named_parameters():
        values = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        parameter.data = values.abs() if name == "threshold" else values  # training keeps it from below 0
    for name, buffer in sae.named_buffers():
        assert name == "topk_threshold"
        buffer.fill_(0.7)
    sae.cfg.metadata.hook_name = SITE
    sae.cfg.metadata.seqpos_slice = [1, None]
    return sae


@pytest.fixture
def standard(generator: torch.Generator) -> SAE[Any]:
    return drawn(INFERENCE["standard"], generator)


@pytest.fixture
def x(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(50, D, generator=generator)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    cohort = Cohort.create(tmp_path / "dyck", IDENTITY)
    for step in (10, 20):
        cohort.member(3).publish_step(step, {"w": torch.ones(2)}, {})
    return cohort


@pytest.fixture
def member(cohort: Cohort) -> Member:
    return cohort.member(3)


@pytest.fixture
def bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """A pickle that makes a folder when it is loaded; the test fails if one was."""
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    yield pickle.dumps(Bomb())
    assert not (tmp_path / "exploded").exists()


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["BOMB"],)


def equal(one: SAE[Any], other: SAE[Any]) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def snapshot(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


# There and back.


@pytest.mark.parametrize("architecture", INFERENCE)
def test_an_sae_comes_back(
    architecture: str, member: Member, generator: torch.Generator, x: torch.Tensor
) -> None:
    sae = drawn(INFERENCE[architecture], generator)
    files = sae_files(sae)
    back = sae_from_files(files, Path("x"))
    assert equal(sae, back)
    assert type(back) is type(sae)
    assert not back.training
    acts = sae.encode(x)
    assert torch.equal(back.encode(x), acts)
    assert (acts != 0).any()
    assert torch.equal(back(x), sae(x))
    assert back.cfg.to_dict() == sae.cfg.to_dict()
    assert back.cfg.metadata.hook_name == SITE
    assert sae_files(back) == files
    published = publish(member, 10, SITE, TrainedSAE(sae, "f"))
    assert set(published.files) == set(files)
    opened = SAE.load_from_disk(member.sae_path(10, SITE, "f"))
    assert equal(opened, sae)
    assert opened.cfg.to_dict() == sae.cfg.to_dict()


@pytest.mark.parametrize("architecture", TRAINING)
def test_an_sae_in_training_becomes_the_one_that_is_scored(
    architecture: str, tmp_path: Path, generator: torch.Generator, x: torch.Tensor
) -> None:
    sae = drawn(TRAINING[architecture], generator)
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    back = sae_from_files(sae_files(sae), Path("x"))
    sae.save_inference_model(tmp_path / "theirs")
    theirs = SAE.load_from_disk(tmp_path / "theirs")
    assert equal(back, theirs)
    assert back.cfg.to_dict() == theirs.cfg.to_dict()
    assert back.cfg.metadata.training_architecture == architecture
    assert torch.equal(back(x), theirs(x))
    if architecture != "batchtopk":  # which picks over the batch; the one that is scored has a threshold
        torch.testing.assert_close(back(x), sae(x), rtol=1e-5, atol=1e-5)  # the norms are folded in float32
    else:
        assert back.cfg.architecture() == "jumprelu"
        assert torch.equal(back.threshold, torch.full((WIDTH,), 0.7))
    if architecture in ("topk", "batchtopk"):
        torch.testing.assert_close(back.W_dec.norm(dim=-1), torch.ones(WIDTH))
        assert not torch.allclose(sae.W_dec.norm(dim=-1), torch.ones(WIDTH))
    assert all(torch.equal(before[name], value) for name, value in sae.state_dict().items())


def test_the_device_is_the_cpu(standard: SAE[Any]) -> None:
    standard.cfg.device = "cuda:1"
    config = json.loads(sae_files(standard)["cfg.json"])
    assert config["device"] == "cpu"
    assert list(config) == sorted(config)  # the same bytes from every process
    assert standard.cfg.device == "cuda:1"


@pytest.mark.parametrize("architecture", TRAINING)
def test_every_architecture_has_a_name_of_ours(architecture: str) -> None:
    assert TRAINING[architecture]().cfg.get_inference_config_class().architecture() in ARCHITECTURES


def spoilt(key: str, standard: SAE[Any]) -> SAE[Any]:
    if key == "not finite":
        standard.W_dec.data[3, 2] = torch.nan
    elif key == "half":
        standard.to(torch.float16)
    elif key == "not plain":
        standard.cfg.metadata.made_by = Path("x")
    else:
        standard.cfg.reshape_activations = "hook_z"
    return standard


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("not finite", "'W_dec' holds values that are not finite"),
        ("half", "dtype='float16': one of float32"),
        ("not plain", "not plain data"),
        ("heads", "reshape_activations='hook_z': one of none"),
    ],
)
def test_what_could_not_be_read_again_is_not_kept(
    key: str, problem: str, standard: SAE[Any], member: Member
) -> None:
    before = snapshot(member.cohort)
    with pytest.raises(RunError, match=f"cannot be kept: .*{problem}"):
        publish(member, 10, SITE, TrainedSAE(spoilt(key, standard), "f"))
    assert snapshot(member.cohort) == before


# What is no SAE.


def changed(files: dict[str, bytes], **values: Any) -> dict[str, bytes]:
    config = {**json.loads(files["cfg.json"]), **values}
    return {**files, "cfg.json": json.dumps(config).encode()}


def reweighed(
    files: dict[str, bytes], change: Callable[[dict[str, torch.Tensor]], object]
) -> dict[str, bytes]:
    weights = safetensors.torch.load(files["sae_weights.safetensors"])
    change(weights)
    return {**files, "sae_weights.safetensors": safetensors.torch.save(weights)}


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"architecture": "bilinear"}, "architecture='bilinear': one of standard"),
    "in training": ({"architecture": "batchtopk"}, "architecture='batchtopk'"),
    "no architecture": ({"architecture": None}, "architecture=None"),
    "a list": ({"architecture": ["standard"]}, r"architecture=\['standard'\]"),
    "a transcoder": ({"architecture": "transcoder"}, "architecture='transcoder'"),
    "half": ({"dtype": "float16"}, "dtype='float16'"),
    "wider": ({"d_sae": WIDTH + 1}, "no SAE of SAELens.*size mismatch"),
    "as a text": ({"d_in": "8"}, "d_in='8': a whole number"),
    "none": ({"d_in": 0}, "d_in=0: a whole number"),
    "astronomic": ({"d_sae": 10**30}, "no SAE of SAELens"),
    "another device": ({"device": "cuda:7"}, ""),
    "no bias": ({"apply_b_dec_to_input": "no"}, "apply_b_dec_to_input='no'"),
    "heads": ({"reshape_activations": "hook_z"}, "reshape_activations='hook_z'"),
    "norm": ({"normalize_activations": "thrice"}, "no SAE of SAELens"),
    "metadata": ({"metadata": [1]}, "no SAE of SAELens"),
    "shadowed": ({"metadata": {"to_dict": 1, "sae_lens_version": "6.50.0"}}, "no SAE of SAELens"),
    "of another": ({"architecture": "gated"}, "no SAE of SAELens.*b_gate"),
    "without end": ({"architecture": "matching_pursuit", "max_iterations": 10**12}, "max_iterations"),
}


@pytest.mark.parametrize(("values", "problem"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_is_none_is_refused(
    values: dict[str, Any], problem: str, standard: SAE[Any], tmp_path: Path
) -> None:
    files = changed(sae_files(standard), **values)
    if not problem:  # wherever it was made, it is read here
        assert sae_from_files(files, tmp_path).cfg.device == "cpu"
        return
    with pytest.raises(CorruptError, match=problem) as error:
        sae_from_files(files, tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_more_than_there_are_cannot_be_picked(generator: torch.Generator) -> None:
    files = sae_files(drawn(INFERENCE["topk"], generator))
    for k in (WIDTH + 1, -1, "3", 2.5, 10**30):
        with pytest.raises(CorruptError, match="no SAE of SAELens"):
            sae_from_files(changed(files, k=k), Path("x"))


WEIGHTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing": (lambda weights: weights.pop("b_enc"), "no SAE of SAELens.*b_enc"),
    "added": (lambda weights: weights.update(more=torch.ones(1)), "no SAE of SAELens.*more"),
    "transposed": (lambda weights: weights.update(W_dec=torch.ones(D, WIDTH)), "size mismatch"),
    "nan": (lambda weights: weights["b_dec"].fill_(torch.nan), "'b_dec' holds values that are not finite"),
    "infinite": (
        lambda weights: weights["W_enc"][0].fill_(torch.inf),
        "'W_enc' holds values that are not finite",
    ),
    "too large": (
        lambda weights: weights.update(b_dec=torch.full((D,), 1e300, dtype=torch.float64)),
        "'b_dec' holds values that are not finite in float32",
    ),
    "half": (lambda weights: weights.update(b_dec=torch.ones(D).half()), "'b_dec' is of torch.float16"),
    "whole numbers": (
        lambda weights: weights.update(b_dec=torch.ones(D).long()),
        "'b_dec' is of torch.int64",
    ),
    "a long name": (lambda weights: weights.update({"x\n" * 5000: torch.ones(1)}), "no SAE of SAELens"),
}


@pytest.mark.parametrize(("change", "problem"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_are_none_are_refused(
    change: Callable[[dict[str, torch.Tensor]], object], problem: str, standard: SAE[Any], tmp_path: Path
) -> None:
    with pytest.raises(CorruptError, match=problem) as error:
        sae_from_files(reweighed(sae_files(standard), change), tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"d_in": NaN}', b'{"d_in": 1, "d_in": 2}', b"\xff"])
def test_a_damaged_config_is_refused(data: bytes, standard: SAE[Any]) -> None:
    with pytest.raises(CorruptError, match=r"^x/cfg\.json"):
        sae_from_files({**sae_files(standard), "cfg.json": data}, Path("x"))


def test_a_pickle_is_never_loaded(bomb: bytes, standard: SAE[Any], tmp_path: Path) -> None:
    files = sae_files(standard)
    torch.save({"W_dec": Bomb()}, tmp_path / "saved")
    for data in (bomb, (tmp_path / "saved").read_bytes(), b""):
        with pytest.raises(CorruptError, match=r"sae_weights\.safetensors is not safetensors"):
            sae_from_files({**files, "sae_weights.safetensors": data}, tmp_path)
    for names in ({"cfg.json"}, {"sae_weights.safetensors"}, set()):
        with pytest.raises(CorruptError, match=r"not cfg\.json and sae_weights\.safetensors"):
            sae_from_files({name: files[name] for name in names}, tmp_path)
    with pytest.raises(CorruptError, match=r"holds .*sae\.pt"):
        sae_from_files({**files, "sae.pt": bomb}, tmp_path)


# In a cohort.


def test_names_and_variants() -> None:
    for family in ("standard_x8", "a-b", "a-shared-x", "shared", "-shared"):
        names = {sae_name(family, variant): variant for variant in VARIANTS}
        assert names[family] == "distinct"
        assert [family_and_variant(name) for name in names] == [(family, v) for v in names.values()]
    for variant in VARIANTS[1:]:
        with pytest.raises(RequestError, match=f"must not end in -{variant}"):
            sae_name(f"f-{variant}", "distinct")
    with pytest.raises(RequestError, match=r"^family="):
        sae_name("../f", "distinct")
    with pytest.raises(ValueError, match="variant='none'"):
        sae_name("f", "none")


def test_dictionaries_are_read(cohort: Cohort, standard: SAE[Any], generator: torch.Generator) -> None:
    stored = StoredDictionaries(cohort)
    assert stored.families() == []
    assert stored.read(3, 10, SITE, "f") is None
    assert stored.steps(3, SITE, "f") == []
    trained = TrainedSAE(standard, "f", "distinct", 7, facts={"tokens": 100, "data": {"seed": 1}})
    digest = publish(cohort.member(3), 10, SITE, trained).digest
    publish(cohort.member(3), 20, SITE, trained)
    topk = drawn(INFERENCE["topk"], generator)
    publish(cohort.member(4), 10, SITE, TrainedSAE(topk, "g", "shared", 0))
    assert stored.families() == ["f", "g"]
    read = stored.read(3, 10, SITE, "f")
    assert read is not None
    assert (read.family, read.variant, read.seed, read.digest) == ("f", "distinct", 7, digest)
    assert read.facts == trained.facts
    assert equal(read.sae, standard)
    assert not any(parameter.requires_grad for parameter in read.sae.parameters())
    shared = stored.read(4, 10, SITE, "g", "shared")
    assert shared is not None
    assert shared.seed == 0
    assert stored.read(4, 10, SITE, "g") is None
    assert stored.read(3, 10, OTHER_SITE, "f") is None
    assert stored.read(3, 30, SITE, "f") is None
    assert stored.steps(3, SITE, "f") == [10, 20]
    assert stored.steps(3, SITE, "f", "shared") == []
    assert stored.steps(4, SITE, "g", "shared") == [10]
    assert stored.read(3, 10, SITE, "f") is read  # read and verified once


def test_what_is_read_is_float32(cohort: Cohort, member: Member, generator: torch.Generator) -> None:
    sae = drawn(lambda: StandardSAE(StandardSAEConfig(**SIZES, dtype="float64")), generator)
    publish(member, 10, SITE, TrainedSAE(sae, "f"))
    read = StoredDictionaries(cohort).read(3, 10, SITE, "f")
    assert read is not None
    assert torch.equal(read.sae.W_dec, sae.W_dec.float())
    assert (read.sae.dtype, read.sae.cfg.dtype) == (torch.float32, "float32")
    assert SAE.load_from_disk(member.sae_path(10, SITE, "f")).W_dec.dtype == torch.float64


def test_publishing_again(member: Member, standard: SAE[Any]) -> None:
    trained = TrainedSAE(standard, "f", seed=1)
    first = publish(member, 10, SITE, trained)
    before = snapshot(member.cohort)
    assert publish(member, 10, SITE, trained) == first
    with pytest.raises(ConflictError):
        publish(member, 10, SITE, TrainedSAE(standard, "f", seed=2))
    standard.W_dec.data[0, 0] += 1
    with pytest.raises(ConflictError):
        publish(member, 10, SITE, trained)
    assert snapshot(member.cohort) == before
    with pytest.raises(ValueError, match="the facts seed, site are the store's own"):
        publish(member, 10, SITE, TrainedSAE(standard, "g", facts={"site": "x", "seed": 1}))


def test_damage_is_told_when_it_is_read(cohort: Cohort, member: Member, standard: SAE[Any]) -> None:
    publish(member, 10, SITE, TrainedSAE(standard, "f"))
    path = member.sae_path(10, SITE, "f") / "sae_weights.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    stored = StoredDictionaries(cohort)
    assert stored.families() == ["f"]
    assert stored.steps(3, SITE, "f") == [10]
    with pytest.raises(CorruptError, match="has SHA-256"):
        stored.read(3, 10, SITE, "f")
    path.write_bytes(data)
    assert stored.read(3, 10, SITE, "f") is not None
    (path.parent / "manifest.json").unlink()
    nothing = StoredDictionaries(cohort)  # a manifest is written last: without one nothing was published
    assert nothing.families() == []
    assert nothing.steps(3, SITE, "f") == []
    assert nothing.read(3, 10, SITE, "f") is None


def test_a_damaged_sae_may_count_as_none(cohort: Cohort, member: Member, standard: SAE[Any]) -> None:
    for step, family in ((10, "f"), (20, "f"), (10, "g")):
        publish(member, step, SITE, TrainedSAE(standard, family))
    for family in "fg":
        config = member.sae_path(10, SITE, family) / "cfg.json"
        config.write_bytes(config.read_bytes() + b" ")
    stored = StoredDictionaries(cohort, lenient=True)
    for _ in range(2):
        assert stored.families() == ["f"]
        assert stored.steps(3, SITE, "f") == [20]
        assert stored.read(3, 10, SITE, "f") is None
        assert stored.read(3, 10, SITE, "g") is None
    whole = stored.read(3, 20, SITE, "f")
    assert whole is not None
    assert equal(whole.sae, standard)
    assert len(stored.problems) == 2  # each once
    for family, problem in zip("fg", stored.problems, strict=True):
        assert f"{member.sae_path(10, SITE, family)}/cfg.json has" in problem
    strict = StoredDictionaries(cohort)
    assert strict.steps(3, SITE, "f") == [10, 20]
    with pytest.raises(CorruptError, match="bytes where"):
        strict.read(3, 10, SITE, "f")
    assert strict.problems == []


def test_files_of_another_kind_are_refused(cohort: Cohort, member: Member, standard: SAE[Any]) -> None:
    """Published whole, so that every digest is right, and yet no SAE, or not the one of that name."""
    facts = {"family": "f", "variant": "distinct", "sae_seed": 1}
    files = sae_files(standard)
    wrong: list[tuple[dict[str, bytes], dict[str, Any], str]] = [
        ({"cfg.json": files["cfg.json"]}, facts, "holds"),
        (changed(files, architecture="bilinear"), facts, "bilinear"),
        (files, {**facts, "family": "g"}, "published as family 'g', not 'f'"),
        (files, {**facts, "variant": "shared"}, "published as variant 'shared', not 'distinct'"),
        (files, {"variant": "distinct"}, "published as family None"),
        (files, {**facts, "sae_seed": "1"}, "sae_seed '1', which is no seed"),
        (files, {**facts, "sae_seed": True}, "sae_seed True, which is no seed"),
    ]
    for contents, own, problem in wrong:
        member.publish_sae(10, SITE, "f", contents, own)
        with pytest.raises(CorruptError, match=problem):
            StoredDictionaries(cohort).read(3, 10, SITE, "f")
        shutil.rmtree(member.sae_path(10, SITE, "f"))


# From elsewhere.


@pytest.fixture
def made_elsewhere(tmp_path: Path, standard: SAE[Any], bomb: bytes) -> Path:
    folder = tmp_path / "elsewhere"
    standard.save_model(folder)
    (folder / "trainer_state.pt").write_bytes(bomb)
    (folder / "runner_cfg.json").write_text("{}")
    return folder


def attach(cohort: Cohort, folder: Path, **values: Any) -> TrainedSAE:
    whole = {"seed": 3, "step": 10, "site": SITE, "family": "theirs", "sites": SITES, "d": 8, **values}
    return attach_sae(cohort, folder, **whole)


def test_an_sae_is_attached(cohort: Cohort, made_elsewhere: Path, standard: SAE[Any]) -> None:
    attached = attach(cohort, made_elsewhere)
    assert equal(attached.sae, standard)
    assert (attached.family, attached.variant, attached.seed) == ("theirs", "attached", None)
    assert attached.facts["architecture"] == "standard"
    assert set(attached.facts["origin"]) == {"cfg.json", "sae_weights.safetensors"}
    stored = StoredDictionaries(cohort)
    read = stored.read(3, 10, SITE, "theirs", "attached")
    assert read is not None
    assert read.digest == attached.digest
    assert equal(read.sae, standard)
    assert stored.families() == ["theirs"]
    path = cohort.member(3).sae_path(10, SITE, "theirs-attached")
    assert equal(SAE.load_from_disk(path), standard)
    assert {file.name for file in path.iterdir()} == {"cfg.json", "manifest.json", "sae_weights.safetensors"}


def test_attaching_again(cohort: Cohort, made_elsewhere: Path, standard: SAE[Any]) -> None:
    first = attach(cohort, made_elsewhere)
    assert attach(cohort, made_elsewhere).digest == first.digest
    assert attach(cohort, made_elsewhere, step="last").digest != first.digest  # at step 20
    standard.W_dec.data[0, 0] += 1
    standard.save_model(made_elsewhere)
    before = snapshot(cohort.folder)
    with pytest.raises(RequestError, match=r"family='theirs': another SAE was attached as .*another family"):
        attach(cohort, made_elsewhere)
    assert snapshot(cohort.folder) == before
    attach(cohort, made_elsewhere, family="theirs_2")


def test_what_is_named_may_be_links(cohort: Cohort, made_elsewhere: Path, tmp_path: Path) -> None:
    """As in a cache of downloads."""
    links = tmp_path / "links"
    links.mkdir()
    for name in ("cfg.json", "sae_weights.safetensors"):
        (links / name).symlink_to(made_elsewhere / name)
    attach(cohort, links)


@pytest.mark.parametrize("architecture", TRAINING)
def test_what_was_saved_for_inference_is_attached(
    architecture: str, cohort: Cohort, tmp_path: Path, generator: torch.Generator, x: torch.Tensor
) -> None:
    drawn(TRAINING[architecture], generator).save_inference_model(tmp_path / "theirs")
    theirs = SAE.load_from_disk(tmp_path / "theirs").to(torch.float32)
    assert torch.equal(attach(cohort, tmp_path / "theirs").sae(x), theirs(x))


REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "site": (
        {"site": "blocks.0.hook_resid_mit"},
        r"site='blocks.0.hook_resid_mit' \(did you mean 'blocks.0.hook_resid_mid'\?\): one of blocks.0.hook_resid_mid, "
        "blocks.0.hook_resid_post",
    ),
    "climbing site": ({"site": "../.."}, "site='../..': one of"),
    "seed": ({"seed": 4}, "seed=4: the members of .* are 3"),
    "negative seed": ({"seed": -1}, "seed=-1: the members of .* are 3"),
    "step": ({"step": 15}, "step=15: seed-0003 has no checkpoint there, but at 10, 20; or step=last"),
    "first": ({"step": "first"}, "step='first': seed-0003 has no checkpoint there, but at 20; or step=last"),
    "family": ({"family": "a/b"}, "family='a/b' must be"),
    "variant": ({"family": "theirs-shared"}, "must not end in -shared"),
}


@pytest.mark.parametrize(("values", "problem"), REQUESTS.values(), ids=REQUESTS)
def test_a_wrong_request_is_refused(
    values: dict[str, Any], problem: str, cohort: Cohort, made_elsewhere: Path
) -> None:
    before = snapshot(cohort.folder)
    with pytest.raises(RequestError, match=problem) as error:
        attach(cohort, made_elsewhere, **values)
    assert "\n" not in str(error.value)
    assert snapshot(cohort.folder) == before


def test_a_member_without_a_checkpoint(cohort: Cohort, made_elsewhere: Path) -> None:
    cohort.member(5).write_config({})
    with pytest.raises(RequestError, match="step='last': seed-0005 has no checkpoint yet"):
        attach(cohort, made_elsewhere, seed=5, step="last")


def rewrite(folder: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    names = ("cfg.json", "sae_weights.safetensors")
    for name, data in change({name: (folder / name).read_bytes() for name in names}).items():
        (folder / name).write_bytes(data)


FOLDERS: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "unknown": (lambda files: changed(files, architecture="bilinear"), "architecture='bilinear': one of"),
    "in training": (lambda files: changed(files, architecture="batchtopk"), "save_inference_model writes"),
    "half": (lambda files: changed(files, dtype="float16"), "dtype='float16': one of float32, float64"),
    "half weights": (
        lambda files: reweighed(files, lambda weights: weights.update(b_dec=torch.ones(D).half())),
        "is of torch.float16: torch.float32 or torch.float64",
    ),
    "nan": (
        lambda files: reweighed(files, lambda weights: weights["W_dec"].fill_(torch.nan)),
        "'W_dec' holds values that are not finite",
    ),
    "not folded": (
        lambda files: changed(files, normalize_activations="expected_average_only_in"),
        "normalize_activations=expected_average_only_in is not folded",
    ),
    "no JSON": (lambda files: {"cfg.json": b"{"}, r"cfg\.json is not JSON"),
    "a pickle": (
        lambda files: {"sae_weights.safetensors": pickle.dumps(Bomb())},
        r"sae_weights\.safetensors is not safetensors",
    ),
}


@pytest.mark.parametrize(("change", "problem"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_does_not_fit_is_refused(
    change: Callable[[dict[str, bytes]], dict[str, bytes]],
    problem: str,
    cohort: Cohort,
    made_elsewhere: Path,
) -> None:
    rewrite(made_elsewhere, change)
    before = snapshot(cohort.folder)
    with pytest.raises(RequestError, match=f"^folder=.*{problem}") as error:
        attach(cohort, made_elsewhere)
    assert str(made_elsewhere) in str(error.value)
    assert "\n" not in str(error.value)
    assert snapshot(cohort.folder) == before


def test_an_sae_of_another_width(cohort: Cohort, tmp_path: Path) -> None:
    StandardSAE(StandardSAEConfig(d_in=6, d_sae=WIDTH)).save_model(tmp_path / "narrow")
    with pytest.raises(
        RequestError, match="reads d_in=6 dimensions, and the cohort's members have d_model=8"
    ):
        attach(cohort, tmp_path / "narrow")


def hooked(sae: SAE[Any], folder: Path, name: object) -> Path:
    sae.cfg.metadata.hook_name = name
    sae.save_model(folder)
    return folder


def test_an_sae_of_another_site_is_refused(cohort: Cohort, tmp_path: Path, standard: SAE[Any]) -> None:
    before = snapshot(cohort.folder)
    with pytest.raises(RequestError, match=f"^site='{SITE}': .* was trained at '{OTHER_SITE}'"):
        attach(cohort, hooked(standard, tmp_path / "other", OTHER_SITE))
    assert snapshot(cohort.folder) == before
    attach(cohort, tmp_path / "other", site=OTHER_SITE)


@pytest.mark.parametrize("name", [None, "blocks.7.hook_resid_post", [OTHER_SITE], 3])
def test_a_hook_that_is_no_site_here_says_nothing(
    name: object, cohort: Cohort, tmp_path: Path, standard: SAE[Any]
) -> None:
    attach(cohort, hooked(standard, tmp_path / "other", name))
    assert StoredDictionaries(cohort).steps(3, SITE, "theirs", "attached") == [10]


def test_folders_that_are_none(cohort: Cohort, made_elsewhere: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "nothing", tmp_path / "file", cohort.folder):
        with pytest.raises(RequestError, match=r"cfg\.json is missing; a folder that SAELens saved holds"):
            attach(cohort, folder)
    (made_elsewhere / "cfg.json").unlink()
    os.mkfifo(made_elsewhere / "cfg.json")  # reading it must not wait
    with pytest.raises(RequestError, match="not a regular file"):
        attach(cohort, made_elsewhere)
