"""Pretrained models taken in from folders, as they are from the hub, and analysed like members trained here."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import polars as pl
import pytest
import torch
from cohorts import memory_folder
from ended import Ended, Run, check_refused
from hub_folders import PYTHIA_70M, SMALL, model, tokenizer, write_member, write_prose
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel

from polymorph.cli import command
from polymorph.cli.import_stage import _step
from polymorph.models.activations import logits
from polymorph.pipeline.comparison import Comparison
from polymorph.store import Cohort, CorruptError

CPU = torch.device("cpu")
SIZES = (
    "task.context=32 task.shares.train=0 task.shares.sae=0.4 task.shares.evaluation=0 "
    "task.shares.fit=0.3 task.shares.eval=0.3"
)
TEXT = "task=text_files task.tokenizer=model probe.fit=20 probe.eval=20 logger=none trainer.accelerator=cpu"


@pytest.fixture(scope="module")
def hub() -> Iterator[Path]:
    """Three members with two revisions each, the third of which is the first again at the end; and a text."""
    with memory_folder() as folder:
        for seed in (1, 2):
            write_member(folder / f"seed{seed}", seed, ("step0", "step143000"))
        write_member(folder / "seed3", 3, ("step0",))
        shutil.copytree(folder / "seed1" / "step143000", folder / "seed3" / "step143000")
        write_prose(folder / "prose.jsonl")
        yield folder


def models(hub: Path, seeds: tuple[int, ...] = (1, 2), revisions: str = "step0,step143000") -> str:
    each = (f"{{seed:{seed},repository:'{hub}/seed{seed}',revisions:[{revisions}]}}" for seed in seeds)
    return f"cohort.models=[{','.join(each)}]"


def taken_in(run: Run, root: Path, hub: Path, chosen: str, *more: str) -> Ended:
    given = (*TEXT.split(), *SIZES.split(), f"task.files=[{hub}/prose.jsonl]", f"cohort.root={root}")
    return run("train", "stage=import", "cohort=hf", chosen, *given, *more)


def test_the_members_are_references_and_give_the_logits_of_transformers(
    run: Run, root: Path, hub: Path
) -> None:
    ended = taken_in(run, root, hub, models(hub))
    assert ended.status == command.DONE, ended
    cohort = Cohort.open(root / "hf")
    assert [member.seed for member in cohort.members()] == [1, 2]
    assert not list((root / "hf").rglob("weights.safetensors"))
    comparison = Comparison.of(cohort, CPU)
    assert comparison.d == SMALL["hidden_size"] - 1
    chunk = next(iter(comparison.task.probe(comparison.probe, "eval", CPU)))
    for seed in (1, 2):
        assert cohort.member(seed).steps() == [0, 143000]
        there = AutoModelForCausalLM.from_pretrained(hub / f"seed{seed}" / "step143000")
        with torch.no_grad():
            wanted = there(chunk.arguments[0]).logits[chunk.kept]
        found = logits(comparison.load(seed, 143000), chunk)["tok"]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    again = taken_in(run, root, hub, models(hub))
    assert again.status == command.DONE, again


def test_the_same_studies_run_on_them(run: Run, root: Path, hub: Path) -> None:
    assert taken_in(run, root, hub, models(hub)).status == command.DONE
    ended = run(
        "analyze", f"cohort={root / 'hf'}", "accelerator=cpu", "logger=none", "study=[ladder,trajectory]"
    )
    assert ended.status == command.DONE, ended
    table = pl.read_parquet(root / "hf" / "analysis" / "default" / "ladder.parquet")
    assert set(table["site"]) == {
        "blocks.0.hook_resid_pre",
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_post",
    }
    history = pl.read_parquet(root / "hf" / "analysis" / "default" / "trajectory.parquet")
    assert set(history["source_step"]) == {0}
    assert set(history["target_step"]) == {143000}


def test_one_model_under_two_names_is_flagged_and_not_compared(run: Run, root: Path, hub: Path) -> None:
    ended = taken_in(run, root, hub, models(hub, (1, 2, 3), "step143000"))
    assert ended.status == command.DONE, ended
    assert "have the same weights: they are one model" in ended.out
    analysed = run("analyze", f"cohort={root / 'hf'}", "accelerator=cpu", "logger=none", "study=[ladder]")
    assert analysed.status == command.DONE, analysed
    assert "seed 3" in analysed.out + analysed.err
    table = pl.read_parquet(root / "hf" / "analysis" / "default" / "ladder.parquet")
    assert set(table["source"]) | set(table["target"]) == {1, 2}


def test_weights_that_have_changed_since_are_not_read(
    run: Run, root: Path, hub: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "hub"
    shutil.copytree(hub, moved)
    assert taken_in(run, root, moved, models(moved)).status == command.DONE

    def load() -> None:  # by a comparison of its own each time: one comparison opens a member once
        Comparison.of(Cohort.open(root / "hf"), CPU).load(2, 143000)

    load()
    shutil.rmtree(moved / "seed2" / "step143000")
    shutil.copytree(hub / "seed1" / "step0", moved / "seed2" / "step143000")
    with pytest.raises(CorruptError, match="it is another model now"):
        load()
    shutil.rmtree(moved / "seed2")
    with pytest.raises(CorruptError, match="seed2@step143000: there is no such folder"):
        load()


def test_models_in_half_precision_are_read_in_float32(
    run: Run, root: Path, hub: Path, tmp_path: Path
) -> None:
    for seed in (1, 2):
        write_member(tmp_path / f"seed{seed}", seed, ("step143000",), half=True)
    assert taken_in(run, root, hub, models(tmp_path, revisions="step143000")).status == command.DONE
    comparison = Comparison.of(Cohort.open(root / "hf"), CPU)
    assert {p.dtype for p in comparison.load(1, 143000).parameters()} == {torch.float32}
    wanted = model(1).half().float()
    found = dict(
        AutoModelForCausalLM.from_pretrained(
            tmp_path / "seed1/step143000", dtype=torch.float32
        ).named_parameters()
    )
    for name, value in wanted.named_parameters():
        assert torch.equal(found[name], value)


def test_the_exact_configuration_of_pythia_70m_goes_the_same_way(run: Run, root: Path, hub: Path) -> None:
    with memory_folder() as folder:
        for seed in (1, 2):
            write_member(folder / f"seed{seed}", seed, config=PYTHIA_70M, half=True)
        ended = taken_in(
            run, root, hub, models(folder, revisions="step143000"), "probe.fit=2", "probe.eval=2"
        )
        assert ended.status == command.DONE, ended
        identity = Cohort.open(root / "hf").identity["architecture"]
        assert (identity["d_model"], identity["n_layers"], identity["norm"]) == (512, 6, "LN")
        assert identity["sites"] == [
            "blocks.0.hook_resid_pre",
            *(f"blocks.{i}.hook_resid_post" for i in range(6)),
        ]
        comparison = Comparison.of(Cohort.open(root / "hf"), CPU)
        source = comparison.source([(1, 143000), (2, 143000)])
        chunk = next(iter(source.chunks("fit")))
        assert {x.shape[2] for x in chunk.values.values()} == {511}


# Wrong input: one line, exit status 2, nothing written.


@pytest.fixture
def strange(hub: Path, tmp_path: Path) -> Path:
    """Folders that do not fit: another width, another tokenizer, and no model at all."""
    shutil.copytree(hub / "seed1", tmp_path / "seed1")
    shutil.copy(hub / "prose.jsonl", tmp_path)
    write_member(tmp_path / "seed4", 4, config={**SMALL, "hidden_size": 64})
    write_member(tmp_path / "seed5", 5, tokens=tokenizer(280))
    (tmp_path / "seed6" / "step143000").mkdir(parents=True)
    (tmp_path / "seed6" / "step143000" / "config.json").write_text("{}")
    write_member(tmp_path / "seed7", 7)
    weights = tmp_path / "seed7" / "step143000" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return tmp_path


@pytest.mark.parametrize(
    ("seeds", "revisions", "expected"),
    [
        ((1, 4), "step143000", "hidden_size: 32 and 64"),
        ((1, 5), "step143000", "seed5@step143000 has another tokenizer than .*seed1/step143000"),
        ((1,), "step5", r"no revision step5.*there are step0, step143000"),
        ((1, 6), "step143000", "seed6@step143000 is not a model"),
        ((1, 9), "step143000", "seed9@step143000: there is no such folder"),
        ((1, 1), "step143000", "seed 1 at step 143000 is asked for twice"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    run: Run, root: Path, strange: Path, seeds: tuple[int, ...], revisions: str, expected: str
) -> None:
    check_refused(taken_in(run, root, strange, models(strange, seeds, revisions)), expected)
    assert not (root / "hf").exists()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["cohort.models=[]"], "name the models to import"),
        (["cohort.models=[7]"], "7 is neither a text nor a mapping"),
        (["cohort.models=[{seed:1,repo:x}]"], "there is no key repo"),
        (["cohort.models=[{seed:-1,repository:x}]"], "seed=-1"),
        (["cohort.models=[{seed:1,repository:x,revisions:[]}]"], "revisions="),
        (["task=dyck3"], "pretrained models read text"),
        (
            ["task.tokenizer=train", "task.shares.train=0.4", "task.shares.sae=0"],
            "pretrained models have one",
        ),
        (["task.context=65"], "at most 64 tokens"),
        (["stage=model"], "not trained here; take it in with stage=import"),
    ],
)
def test_requests_that_cannot_be_right_are_refused(
    run: Run, root: Path, hub: Path, more: list[str], expected: str
) -> None:
    given = [*TEXT.split(), *SIZES.split(), f"task.files=[{hub}/prose.jsonl]"]
    if more == ["task=dyck3"]:
        given = [one for one in given if not one.startswith("task")]
    check_refused(
        run("train", "stage=import", "cohort=hf", models(hub), *given, f"cohort.root={root}", *more), expected
    )
    assert not (root / "hf").exists()


def test_truncated_weights_are_refused_before_anything_is_published(
    run: Run, root: Path, strange: Path
) -> None:
    ended = taken_in(run, root, strange, models(strange, (1, 7), "step143000"))
    assert ended.status == command.FAILED, ended
    assert "seed7@step143000 is not a model" in ended.err
    assert "Traceback" not in ended.err
    assert not (root / "hf").exists()


@pytest.mark.parametrize("switched_off", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_is_not_in_the_cache_is_named_with_the_command_that_fetches_it(
    run: Run, root: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, switched_off: bool
) -> None:
    """Without a network the hub's client tries for twenty seconds; with it switched off it does not try at all."""
    if switched_off:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # it is read when imported
    chosen = "cohort.models=[EleutherAI/pythia-70m-seed1@step143000]"
    ended = taken_in(run, root, hub, chosen)
    check_refused(ended, "hf download EleutherAI/pythia-70m-seed1 --revision step143000")
    assert not (root / "hf").exists()


def test_the_reference_says_all_that_is_needed(run: Run, root: Path, hub: Path) -> None:
    assert taken_in(run, root, hub, models(hub)).status == command.DONE
    step = root / "hf" / "members" / "seed-0001" / "steps" / "step-00143000"
    reference = json.loads((step / "reference.json").read_text())
    assert reference["repository"] == f"{hub}/seed1"
    assert reference["revision"] == "step143000"
    assert len(reference["weights"]) == 64
    assert sorted(path.name for path in step.iterdir()) == ["manifest.json", "reference.json"]


# What transformers would let pass.


def changed(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_changed_configuration_is_another_model(run: Run, root: Path, hub: Path, tmp_path: Path) -> None:
    moved = tmp_path / "hub"
    shutil.copytree(hub, moved)
    given = models(moved, revisions="step143000")
    assert taken_in(run, root, moved, given).status == command.DONE
    changed(moved / "seed2" / "step143000", hidden_act="relu")
    with pytest.raises(CorruptError, match="its configuration has changed"):
        Comparison.of(Cohort.open(root / "hf"), CPU).load(2, 143000)
    check_refused(taken_in(run, root, moved, given, "cohort.name=b"), "hidden_act: gelu and relu")


def test_a_member_that_is_gone_is_left_out_and_the_others_are_compared(
    run: Run, root: Path, hub: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "hub"
    shutil.copytree(hub, moved)
    write_member(moved / "seed4", 4)
    assert taken_in(run, root, moved, models(moved, (1, 2, 4), "step143000")).status == command.DONE
    shutil.rmtree(moved / "seed4")
    ended = run("analyze", f"cohort={root / 'hf'}", "accelerator=cpu", "logger=none", "study=[ladder]")
    assert ended.status == command.DONE, ended
    assert "there is no such folder" in ended.out
    table = pl.read_parquet(root / "hf" / "analysis" / "default" / "ladder.parquet")
    assert set(table["source"]) == {1, 2}


def test_a_model_without_its_head_is_refused(run: Run, root: Path, hub: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        folder = write_member(tmp_path / f"seed{seed}", seed) / "step143000"
        model(seed).gpt_neox.save_pretrained(folder)
    ended = taken_in(run, root, hub, models(tmp_path, revisions="step143000"))
    assert ended.status == command.FAILED, ended
    assert "lacks weights of a causal language model" in ended.err
    assert not (root / "hf").exists()


def test_a_pickle_is_read_only_where_it_is_allowed(run: Run, root: Path, hub: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        folder = write_member(tmp_path / f"seed{seed}", seed) / "step143000"
        (folder / "model.safetensors").unlink()
        torch.save(model(seed).state_dict(), folder / "pytorch_model.bin")
    given = models(tmp_path, revisions="step143000")
    ended = taken_in(run, root, hub, given)
    assert ended.status == command.FAILED, ended
    assert "cohort.allow_pickle=true" in ended.err
    assert taken_in(run, root, hub, given, "cohort.allow_pickle=true").status == command.DONE
    Comparison.of(Cohort.open(root / "hf"), CPU).load(1, 143000)


def test_code_that_lies_beside_a_model_is_not_run(
    run: Run, root: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        folder = write_member(tmp_path / f"seed{seed}", seed) / "step143000"
        changed(
            folder, auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}, model_type="evil"
        )
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: ...\nclass M: ...\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    ended = taken_in(run, root, hub, models(tmp_path, revisions="step143000"))
    assert ended.status == command.WRONG, ended
    assert not (tmp_path / "ran").exists()


def test_a_model_that_sees_what_comes_is_no_causal_one(
    run: Run, root: Path, hub: Path, tmp_path: Path
) -> None:
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            bert = BertLMHeadModel(
                BertConfig(
                    vocab_size=320,
                    hidden_size=32,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    intermediate_size=64,
                    max_position_embeddings=64,
                )
            )
        bert.save_pretrained(tmp_path / f"seed{seed}" / "step143000")
        tokenizer().save_pretrained(tmp_path / f"seed{seed}" / "step143000")
    ended = taken_in(run, root, hub, models(tmp_path, revisions="step143000"))
    assert ended.status == command.FAILED, ended
    assert "is not causal" in ended.err


def test_a_text_of_another_tokenizer_is_refused(run: Run, root: Path, hub: Path, tmp_path: Path) -> None:
    tokenizer(280).save_pretrained(tmp_path / "other")
    check_refused(
        taken_in(run, root, hub, models(hub), f"task.tokenizer={tmp_path / 'other'}"),
        "has another tokenizer than",
    )


def test_tokens_that_the_model_does_not_know_are_refused(
    run: Run, root: Path, hub: Path, tmp_path: Path
) -> None:
    for seed in (1, 2):
        write_member(tmp_path / f"seed{seed}", seed, config={**SMALL, "vocab_size": 280})
    ended = taken_in(run, root, hub, models(tmp_path, revisions="step143000"))
    assert ended.status == command.FAILED, ended
    assert "the models know 280" in ended.err
    assert not (root / "hf" / "members").exists()


def test_another_model_under_a_seed_that_is_there_is_refused(run: Run, root: Path, hub: Path) -> None:
    assert taken_in(run, root, hub, models(hub, revisions="step143000")).status == command.DONE
    other = f"cohort.models=[{{seed:1,repository:'{hub}/seed2',revisions:[step143000]}}]"
    ended = taken_in(run, root, hub, other)
    assert ended.status == command.FAILED, ended
    assert "is another model than seed-0001" in ended.err
    again = taken_in(run, root, hub, models(hub, (2, 1), "step143000"))  # in another order: the same
    assert again.status == command.DONE, again


def test_a_relative_folder_is_found_from_anywhere(
    run: Run, root: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path(os.path.relpath(hub))
    assert taken_in(run, root, hub, models(there, revisions="step143000")).status == command.DONE
    monkeypatch.chdir("/")
    Comparison.of(Cohort.open(root / "hf"), CPU).load(1, 143000)


@pytest.mark.parametrize(
    ("revision", "expected"),
    [("../seed2/step143000", "a revision is a folder below"), ("/tmp", "a revision is a folder below")],
)
def test_a_revision_leads_nowhere_else(run: Run, root: Path, hub: Path, revision: str, expected: str) -> None:
    given = f"cohort.models=[{{seed:1,repository:'{hub}/seed1',revisions:['{revision}']}}]"
    check_refused(taken_in(run, root, hub, given), expected)


@pytest.mark.parametrize(
    ("revision", "step"),
    [
        (None, 0),
        ("main", 0),
        ("step143000", 143000),
        ("steps/step-00001000", 1000),
        ("checkpoint-500", 500),
        ("step1000-tokens2B", 1000),
        ("v2", 0),
    ],
)
def test_the_step_is_the_number_in_the_revision(revision: str | None, step: int) -> None:
    assert _step(revision) == step
