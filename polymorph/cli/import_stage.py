"""`stage=import`: pretrained models are checked, and references to them published as members of a cohort.

Nothing is copied but what the comparison needs: which repository and revision, the commit, a SHA-256 of the weights
and a few answers. What does not fit together is refused before anything is written.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from polymorph.checks import nearest
from polymorph.cli.config import LARGEST_SEED, TrainConfig
from polymorph.cli.ending import Ending
from polymorph.errors import RequestError
from polymorph.models.causal_lm import float32_weights
from polymorph.models.pretrained.config import PretrainedArchitecture
from polymorph.models.pretrained.description import describe, differing
from polymorph.models.pretrained.reference import Pretrained, weights_digest
from polymorph.progress import SILENT, Progress
from polymorph.store import Cohort, CorruptError, Status, check_names, check_writable
from polymorph.tasks.registry import prepared, task_identity
from polymorph.tasks.text.config import TextConfig
from polymorph.tasks.text.stored import text_tokenizer
from polymorph.tasks.text.tokenizer import has_tokenizer, loaded, tokenizer_digest

OF_THE_MODEL = "model"
"""`task.tokenizer`: that of the first model."""
_KEYS = ("seed", "repository", "revisions")


@dataclass(frozen=True)
class Asked:
    """One checkpoint of one member: where it is, and under which seed and step it goes."""

    seed: int
    step: int
    model: Pretrained


def check(job: TrainConfig) -> None:
    """Refuse what cannot be right (`RequestError`): what is not there, and models that do not fit together."""
    check_writable(job.cohort.folder)
    check_names(job.cohort.folder, task="text", architecture="pretrained")
    asked = asked_models(job)
    _check_configs(asked, _text(job, asked))


def run(job: TrainConfig, say: Callable[[str], None] = print, progress: Progress = SILENT) -> None:
    """Look at every model, then publish a reference to each; one that is there already must be the same one."""
    asked = asked_models(job)
    text = _text(job, asked)
    shape, references = _looked_at(asked, say, progress)
    task = prepared(text, job.cohort.folder, say, progress)
    task.check(job.probe, ("sae",), shape.d_vocab)
    identity = {
        "architecture": asdict(shape),
        "task": task_identity(text, job.cohort.folder),
        "probe": job.probe.identity(),
    }
    cohort = Cohort.create(job.cohort.folder, identity)
    for one, reference in zip(asked, references, strict=True):
        _publish(cohort, one, reference)
    for seed in sorted({one.seed for one in asked}):
        member = cohort.member(seed)
        member.write_config({"seed": seed, "repository": _repository(asked, seed)})
        member.set_status(Status("completed", max(member.steps()), "imported"))
    for problem in duplicates(cohort):
        say(f"attention: {problem}")


def outcome(job: TrainConfig, endings: Sequence[Ending]) -> str:
    """`completed` if every model that was asked for is the one that is there, else `failed`."""
    cohort, missing = Cohort.open(job.cohort.folder), []
    for one in asked_models(job):
        reference = None
        with suppress(CorruptError):
            reference = cohort.member(one.seed).read_step(one.step).reference
        if reference is None or not _is_of(reference, one.model):
            missing.append(one)
            print(f"seed {one.seed}, step {one.step}: {one.model} was not imported")
    refused = {ending.folder: ending.refused for ending in endings}  # the last job of a folder decides
    return "failed" if missing or refused.get(job.cohort.folder) else "completed"


def asked_models(job: TrainConfig) -> list[Asked]:
    """What `cohort.models` asks for, in its order; `RequestError` says what is wrong with it."""
    if not job.cohort.models:
        raise RequestError("cohort.models=[]: name the models to import, as owner/name@revision or folders")
    found = [one for place, entry in enumerate(job.cohort.models) for one in _asked(place, entry)]
    if job.cohort.allow_pickle:
        found = [replace(one, model=replace(one.model, allow_pickle=True)) for one in found]
    twice = [one for i, one in enumerate(found) if (one.seed, one.step) in _ends(found[:i])]
    if twice:
        raise RequestError(
            f"cohort.models: seed {twice[0].seed} at step {twice[0].step} is asked for twice; "
            "the step is the number in the revision, and 0 without one"
        )
    owners = {one.model.repository: one.seed for one in reversed(found)}
    for one in found:
        if owners[one.model.repository] != one.seed and one.model.revision is not None:
            raise RequestError(
                f"cohort.models: {one.model.repository} is asked for under seeds {owners[one.model.repository]} and "
                f"{one.seed}; revisions of one run are one member: {{seed: 0, repository: …, revisions: […]}}"
            )
    return found


def duplicates(cohort: Cohort) -> list[str]:
    """What to say of checkpoints whose weights have the same SHA-256."""
    found: dict[str, list[str]] = defaultdict(list)
    for member in cohort.members():
        for step in member.steps():
            with suppress(CorruptError):
                there = member.read_step(step)
                found[there.weights_digest].append(f"seed {member.seed} at step {step}")
    return [
        f"{' and '.join(same)} have the same weights: they are one model"
        for same in found.values()
        if len(same) > 1
    ]


def _asked(place: int, entry: Any) -> Iterator[Asked]:
    if isinstance(entry, str):
        is_folder = Path(entry).expanduser().is_dir()
        name, _, at = (entry, "", "") if is_folder else entry.partition("@")
        entry = {"seed": place, "repository": name, "revisions": [at or None]}
    if not isinstance(entry, Mapping):
        raise RequestError(f"cohort.models: {entry!r} is neither a text nor a mapping of {', '.join(_KEYS)}")
    for key in entry:
        if key not in _KEYS:
            raise RequestError(f"cohort.models: there is no key {key}{nearest(str(key), _KEYS)}")
    seed, repository = entry.get("seed", place), entry.get("repository")
    revisions = entry.get("revisions", [None])
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
        raise RequestError(f"cohort.models: seed={seed!r} is not a whole number from 0 on")
    if type(repository) is not str or not repository:
        raise RequestError(f"cohort.models: seed {seed} has no repository")
    if not isinstance(revisions, list) or not revisions:
        raise RequestError(f"cohort.models: seed {seed} has revisions={revisions!r}; a list of at least one")
    if (folder := Path(repository).expanduser()).is_dir():
        repository = str(folder.resolve())  # the reference is read from anywhere
    for revision in revisions:
        which = None if revision is None else str(revision)
        yield Asked(seed, _step(which), Pretrained(repository, which))


def _step(revision: str | None) -> int:
    number = re.match(r"(?:.*/)?(?:step|checkpoint)[-_]?0*([0-9]{1,12})", revision or "")
    return 0 if number is None else int(number[1])


def _ends(asked: Sequence[Asked]) -> set[tuple[int, int]]:
    return {(one.seed, one.step) for one in asked}


def _text(job: TrainConfig, asked: Sequence[Asked]) -> TextConfig:
    """The text of the comparison, in the tokens of the models; `RequestError` if theirs differ."""
    if not isinstance(job.task, TextConfig):
        raise RequestError(
            f"task={job.task.name}: pretrained models read text; give task=pile or task=text_files"
        )
    if job.task.tokenizer == "train":
        raise RequestError("task.tokenizer=train: pretrained models have one; give task.tokenizer=model")
    given = job.task.tokenizer
    name = asked[0].model.tokenizer_source() if given == OF_THE_MODEL else given
    digest = tokenizer_digest(loaded(name).tokenizer)
    _check_tokenizers(asked, digest, name)
    there = text_tokenizer(job.cohort.folder)
    if there is not None and there["digest"] == digest:
        name = there["name"]  # the same one, perhaps by another name
    return replace(job.task, tokenizer=name)


def _check_tokenizers(asked: Sequence[Asked], digest: str, name: str) -> None:
    """One revision a repository; a folder may lack one of its own."""
    for one in {one.model.repository: one for one in asked}.values():
        source = one.model.tokenizer_source()
        if one.model.folder is not None and not has_tokenizer(Path(source)):
            continue
        if source != name and tokenizer_digest(loaded(source).tokenizer) != digest:
            raise RequestError(
                f"{one.model} has another tokenizer than {name}: its tokens do not mean the same"
            )


def _check_configs(asked: Sequence[Asked], text: TextConfig) -> None:
    """By the configurations alone, which are small; the weights are looked at when they are imported."""
    first = asked[0].model.config()
    longest = getattr(first, "max_position_embeddings", None)
    if longest is not None and text.context > longest:
        raise RequestError(f"task.context={text.context}: these models read at most {longest} tokens")
    for one in asked[1:]:
        if differences := differing(first, one.model.config()):
            raise RequestError(
                f"{one.model} differs from {asked[0].model}: {'; '.join(differences)}; "
                "members of a cohort are of one architecture"
            )


def _looked_at(
    asked: Sequence[Asked], say: Callable[[str], None], progress: Progress
) -> tuple[PretrainedArchitecture, list[dict[str, Any]]]:
    """The architecture of all, and the reference to each."""
    shape: PretrainedArchitecture | None = None
    references: list[dict[str, Any]] = []
    with progress.bar("models", len(asked)) as bar:
        for one in asked:
            bar.update(len(references), now=str(one.model))
            own, reference = _look(one)
            if shape is not None and own != shape:
                raise RequestError(
                    f"{one.model} is of another architecture than {asked[0].model}: {own}, {shape}"
                )
            shape = own
            references.append(reference)
            say(f"seed {one.seed}, step {one.step}: {one.model}")
    assert shape is not None
    return shape, references


def _look(one: Asked) -> tuple[PretrainedArchitecture, dict[str, Any]]:
    """The architecture of one model, and the reference to it."""
    model = one.model.model()
    reference = {
        "repository": one.model.repository,
        "revision": one.model.revision,
        "commit": getattr(model.config, "_commit_hash", None),
        "weights": weights_digest(float32_weights(model)),
        "pickle": one.model.allow_pickle,
    }
    try:
        own, answers = describe(model)
    except RequestError as error:
        raise RequestError(f"{one.model}: {error}") from error
    return own, {**reference, "answers": answers}


def _publish(cohort: Cohort, one: Asked, reference: Mapping[str, Any]) -> None:
    member = cohort.member(one.seed)
    if one.step in member.steps():
        with suppress(CorruptError):
            there = member.read_step(one.step).reference
            if there is None or there["weights"] != reference["weights"]:
                raise RequestError(
                    f"{one.model} is another model than {member.name} of {cohort.name} at step {one.step}; give it "
                    "another seed, or another cohort.name"
                )
            return
    member.publish_reference(one.step, reference, {"imported": True})


def _is_of(reference: Mapping[str, Any], model: Pretrained) -> bool:
    return (reference.get("repository"), reference.get("revision")) == (model.repository, model.revision)


def _repository(asked: Sequence[Asked], seed: int) -> str:
    return next(one.model.repository for one in asked if one.seed == seed)
