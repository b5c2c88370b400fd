"""Language models trained here, from a text file to tables, by the commands that a user gives."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from cohorts import largest_difference, memory_folder
from ended import Run, check_refused
from hub_folders import write_prose
from sae_lens import SAE
from transformers import AutoModelForCausalLM, AutoTokenizer

from polymorph.alignment.moments import explained_variance
from polymorph.cli import command, train
from polymorph.cli.config import TrainConfig
from polymorph.models.activations import activations, logits
from polymorph.pipeline.comparison import Comparison
from polymorph.store import Cohort

CPU = torch.device("cpu")
SMALL = (
    *("task=text", "model=gpt_neox", "task.source=files", "task.vocab_size=300", "task.context=32"),
    *("task.windows=2", "model.n_layers=2", "model.d_model=16", "model.n_heads=2", "model.d_mlp=32"),
    *("model.n_ctx=32", "optimizer.warmup_steps=2", "trainer.max_steps=6", "trainer.batch_size=4"),
    *("trainer.threads=1", "trainer.accelerator=cpu", "trainer.progress=false"),
    *("trainer.log_every=2", "trainer.eval_every=3", "trainer.eval_sequences=8"),
    *("checkpoints.powers_until=1", "checkpoints.every=3", "probe.fit=12", "probe.eval=12"),
    *("logger=none", "cohort.name=small"),
)


def given(folder: Path, *more: str) -> list[str]:
    return [*SMALL, f"task.files=[{folder}/prose.jsonl]", f"cohort.root={folder}", *more]


def trained_in(folder: Path, *more: str) -> Cohort:
    jobs = command.requests("train", TrainConfig, given(folder, *more))
    assert jobs is not None
    train.check(jobs)
    for job in jobs:
        train.perform(job)
    assert train.outcome(jobs) == command.DONE
    return Cohort.open(folder / "small")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A cohort of three members, and the text that they have read."""
    with memory_folder() as made:
        write_prose(made / "prose.jsonl", 400)
        trained_in(made, "seed=[0,1,2]")
        yield made


def test_transformers_opens_a_published_member_and_gives_the_same_logits(folder: Path) -> None:
    comparison = Comparison.of(Cohort.open(folder / "small"), CPU)
    assert comparison.d == 15
    chunk = next(iter(comparison.task.probe(comparison.probe, "eval", CPU)))
    for seed in (0, 1, 2):
        step = folder / "small" / "members" / f"seed-000{seed}" / "steps" / "step-00000006"
        opened, told = AutoModelForCausalLM.from_pretrained(step, output_loading_info=True)
        assert not any(told[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        with torch.no_grad():
            wanted = opened(chunk.arguments[0]).logits[chunk.kept]
        found = logits(comparison.load(seed, 6), chunk)["tok"]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
        assert not torch.allclose(logits(comparison.load(seed, 0), chunk)["tok"], wanted, atol=1e-3)


def test_the_tokenizer_lies_beside_the_members(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "small" / "text")
    text = "Every member reads the stream in a frame of its own."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_member_of_the_stack_is_the_member_trained_alone(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "prose.jsonl", tmp_path)
    one, cohort = (
        trained_in(tmp_path, "seed=1", "callbacks.cross_seed.enabled=false"),
        Cohort.open(folder / "small"),
    )
    alone = one.member(1).read_step(6).weights
    assert largest_difference(alone, cohort.member(1).read_step(6).weights) < 1e-5  # a rounding a step
    assert largest_difference(alone, cohort.member(0).read_step(6).weights) > 1e-2


def test_the_studies_are_those_of_any_cohort(run: Run, folder: Path) -> None:
    saes = ["sae=quick", "sae.steps=5", "sae.batch_size=64", "sae.dead_feature_window=2"]
    ended = run("train", *given(folder, "stage=sae"), *saes)
    assert ended.status == command.DONE, ended
    asked = "study=[ladder,haar,cycles,sae_transfer,trajectory]"
    ended = run("analyze", f"cohort={folder / 'small'}", "accelerator=cpu", "logger=none", asked)
    assert ended.status == command.DONE, ended
    results = folder / "small" / "analysis" / "default"
    for name in ("ladder", "haar", "cycles", "sae_transfer", "trajectory"):
        table = pl.read_parquet(results / f"{name}.parquet")
        assert set(table["site"].drop_nulls()) == {
            "blocks.0.hook_resid_pre",
            "blocks.0.hook_resid_post",
            "blocks.1.hook_resid_post",
        }, name
    page = (results / "report.html").read_text()
    assert "15 coordinates of its 16" in page
    assert "without its mean over dimensions" in page


def test_a_ported_sae_is_one_of_the_stream_itself(run: Run, folder: Path) -> None:
    site = "blocks.0.hook_resid_post"
    saes = "sae=quick sae.family=ported sae.steps=60 sae.batch_size=256 sae.dead_feature_window=20"
    assert run("train", *given(folder, "stage=sae"), *saes.split()).status == command.DONE
    request = f"port={{source:0,target:1,site:{site},sae:ported}}"
    ended = run("analyze", f"cohort={folder / 'small'}", "accelerator=cpu", "logger=none", request)
    assert ended.status == command.DONE, ended
    sae = SAE.load_from_disk(ended.out.split("ported: ")[1].strip())
    assert sae.cfg.d_in == 16
    comparison = Comparison.of(Cohort.open(folder / "small"), CPU)
    chunks = comparison.task.probe(comparison.probe, "eval", CPU)
    x = torch.cat([activations(comparison.load(1, 6), chunk, [site])[site] for chunk in chunks])
    free = x - x.mean(-1, keepdim=True)
    with torch.no_grad():
        found = explained_variance(sae(x), free)
    said = sae.cfg.metadata.ported["provenance"]["explained_variance"]["mapped"]
    assert found == pytest.approx(said, abs=1e-4)


def test_text_is_prepared_alone_and_once(run: Run, root: Path) -> None:
    write_prose(root / "prose.jsonl", 400)
    first = run("train", *given(root, "stage=text"))
    assert first.status == command.DONE, first
    assert "400 documents" in first.out
    assert not (root / "small" / "members").exists()
    again = run("train", *given(root, "stage=text"))
    assert again.status == command.DONE, again
    assert "documents" not in again.out


# Wrong input.


def test_another_text_for_the_same_cohort_is_refused(run: Run, folder: Path) -> None:
    before = sorted(path for path in folder.rglob("*"))
    ended = run("train", *given(folder, "seed=3", "task.vocab_size=290"))
    check_refused(ended, "vocab_size: 300 there, 290 here")
    assert sorted(path for path in folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "prose.jsonl.*empty"),
        ('{"text": "whole"}\n{"text": "cut', "prose.jsonl"),
        ('{"words": "no text"}\n', "text_column|no key"),
        ('{"text": "a short one"}\n', "no document is in the training split"),
    ],
)
def test_a_text_that_is_none_trains_nobody(run: Run, root: Path, content: str, expected: str) -> None:
    (root / "prose.jsonl").write_text(content)
    ended = run("train", *given(root, "stage=text"))
    assert ended.status in (command.WRONG, command.FAILED), ended
    assert "Traceback" not in ended.err + ended.out
    assert re.search(expected, ended.err), ended
    assert not (root / "small" / "members").exists()


def test_a_cohort_whose_text_is_damaged_is_not_read(run: Run, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "small"
    shutil.copytree(folder / "small", copy)
    tokens = copy / "text" / "tokens.safetensors"
    tokens.write_bytes(tokens.read_bytes()[:-10])
    ended = run("analyze", f"cohort={copy}", "accelerator=cpu", "logger=none", "name=other")
    assert ended.status == command.FAILED, ended
    assert "tokens.safetensors" in ended.err
    shutil.rmtree(copy / "text")
    ended = run("analyze", f"cohort={copy}", "accelerator=cpu", "logger=none", "name=other")
    check_refused(ended, "holds no text")
