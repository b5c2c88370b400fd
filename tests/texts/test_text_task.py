"""Windows for training and chunks of the probe, against a slow reading of the same tokens."""

import numpy as np
import pytest
import torch
from corpora import END, plain_text
from hypothesis import given, settings
from hypothesis import strategies as st

from polymorph.errors import RequestError
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.task import IGNORED
from polymorph.tasks.text import text_task as text_module
from polymorph.tasks.text.config import TextSplits
from polymorph.tasks.text.text_task import STREAMS
from polymorph.tasks.text.windows import _scaled, draw, permutation

CPU = torch.device("cpu")
LENGTHS = {
    "train": [30, 2, 41, 17, 5],
    "sae": [12, 50, 3],
    "evaluation": [25, 33],
    "fit": [2, 60, 7, 9, 17, 18, 3, 40, 33, 5],
    "eval": [8, 16, 17, 31, 90, 4],
}
TEXT = plain_text(LENGTHS, context=8, windows=3)


def windows(text, seeds, steps, size):
    batches = text.batches(torch.tensor(seeds), torch.tensor(steps), size)
    return torch.stack([text.inputs(batches[i]).arguments[0] for i in range(len(steps))])


def document(text, number):
    return text.tokens.tokens[text.tokens.starts[number] : text.tokens.starts[number + 1]].astype(np.int64)


def within(text, split, window):
    """Whether the tokens follow one another somewhere in the split's span."""
    start, end = text.tokens.span(split)
    row = text.tokens.tokens[start:end].astype(np.int64)
    return any((row[i : i + len(window)] == window).all() for i in range(len(row) - len(window) + 1))


words = st.integers(0, 2**32 - 1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seeds=st.lists(words, min_size=1, max_size=4),
    steps=st.lists(words, min_size=1, max_size=4),
    size=st.integers(1, 12),
    kept=st.integers(1, 12),
)
def test_a_window_is_a_function_of_its_seed_step_and_row(seeds, steps, size, kept):
    whole = windows(TEXT, seeds, steps, size)
    assert whole.shape == (len(steps), len(seeds), size, 8)
    for i, step in enumerate(steps):
        for j, seed in enumerate(seeds):
            alone = windows(TEXT, [seed], [step], kept)[0, 0]
            shared = min(size, kept)
            assert torch.equal(whole[i, j, :shared], alone[:shared])


def test_other_seeds_steps_rows_and_streams_are_other_windows():
    text = plain_text({split: [5000] for split in TextSplits}, context=8)
    starts = [
        draw(torch.tensor([seed]), torch.tensor([step]), 2, stream, 10**9).flatten().tolist()
        for seed in (0, 1)
        for step in (0, 1)
        for stream in STREAMS.values()
    ]
    assert len({start for pair in starts for start in pair}) == 2 * len(starts)
    assert not torch.equal(windows(text, [0], [0], 4), windows(text, [0], [1], 4))


def test_labels_are_the_next_tokens():
    batch = TEXT.batches(torch.tensor([3, 4]), torch.tensor([7]), 6)[0]
    inputs = TEXT.inputs(batch)
    tokens, labels = inputs.arguments[0], inputs.labels["tok"]
    assert tokens.shape == labels.shape == (2, 6, 8)
    assert tokens.dtype == labels.dtype == torch.int64
    assert torch.equal(tokens[..., 1:], labels[..., :-1])
    for member in range(2):
        for row in range(6):
            window = [*tokens[member, row].tolist(), labels[member, row, -1].item()]
            assert within(TEXT, "train", np.array(window))


def test_layout_requests_change_nothing():
    batch = TEXT.batches(torch.tensor([3]), torch.tensor([7]), 6)[0]
    plain, grouped = TEXT.inputs(batch), TEXT.inputs(batch, groups=4, static=True)
    assert torch.equal(plain.arguments[0], grouped.arguments[0])
    assert dict(plain.keywords) == dict(grouped.keywords) == {}


def test_every_place_of_the_span_is_drawn_and_none_beside_it():
    start, end = TEXT.tokens.span("train")
    starts = TEXT.batches(torch.arange(4), torch.arange(50), 50).starts
    assert set(starts.flatten().tolist()) == set(range(start, end - 8))


def test_evaluation_reads_its_own_span():
    batch = TEXT.evaluation("evaluation", 3, 5, CPU)
    inputs = TEXT.inputs(batch)
    assert inputs.arguments[0].shape == (1, 5, 8)
    assert all(within(TEXT, "evaluation", window.numpy()) for window in inputs.arguments[0][0])
    assert not any(within(TEXT, "train", window.numpy()) for window in inputs.arguments[0][0])
    with pytest.raises(ValueError, match="distribution='long'"):
        TEXT.evaluation("long", 0, 2, CPU)


@pytest.mark.parametrize("tokens", [1, 8, 9, 100])
def test_fresh_tokens_are_whole_windows_of_the_sae_span(tokens):
    chunk = TEXT.fresh(5, 2, tokens, CPU)
    rows = -(-tokens // 8)
    assert chunk.arguments[0].shape == chunk.kept.shape == (rows, 8)
    assert chunk.kept.all()
    assert chunk.document.tolist() == [row for row in range(rows) for _ in range(8)]
    assert chunk.position.tolist() == chunk.seen.tolist() == list(range(8)) * rows
    assert torch.equal(chunk.arguments[0][:, 1:], chunk.labels["tok"][:, :-1])
    for window in chunk.arguments[0]:
        assert within(TEXT, "sae", window.numpy())
        assert not any(within(TEXT, split, window.numpy()) for split in TextSplits if split != "sae")


def test_fresh_tokens_are_a_function_of_seed_and_step():
    def first(seed, step, tokens):
        return TEXT.fresh(seed, step, tokens, CPU).arguments[0][:4]

    assert torch.equal(first(5, 2, 32), first(5, 2, 800))
    assert not torch.equal(first(5, 2, 32), first(5, 3, 32))
    assert not torch.equal(first(5, 2, 32), first(6, 2, 32))


def expected(text, wanted, split, seed):
    """Of each token of the probe: document, place in it and in its window, the token and its label; one by one."""
    first, end = text.tokens.splits[split]
    order = permutation(end - first, (seed, STREAMS["probe"]), TextSplits.index(split)).tolist()
    context, most = text.config.context, text.config.windows
    rows = []
    for number in range(wanted):
        tokens = document(text, first + order[number]).tolist()
        for at in range(min(len(tokens) - 1, context * most)):
            rows.append((number, at, at % context, tokens[at], tokens[at + 1]))
    return rows


def read(text, probe, split):
    rows = []
    for chunk in text.probe(probe, split, CPU):
        assert (chunk.labels["tok"][~chunk.kept] == IGNORED).all()
        assert chunk.kept[:, 0].all()  # no row without a token
        assert chunk.kept.any(0).all()  # no column either
        columns = (
            chunk.document,
            chunk.position,
            chunk.seen,
            chunk.arguments[0][chunk.kept],
            chunk.labels["tok"][chunk.kept],
        )
        rows += list(zip(*(column.tolist() for column in columns), strict=True))
    return rows


@pytest.mark.parametrize("split", ["fit", "eval"])
@pytest.mark.parametrize("limit", [1, 20, 64, 4096])
@pytest.mark.parametrize("seed", [0, 9])
def test_the_probe_is_what_a_slow_reading_finds(split, limit, seed, monkeypatch):
    """Whatever the size of a chunk."""
    monkeypatch.setattr(text_module, "CHUNK_TOKENS", limit)
    probe = ProbeConfig(fit=10, eval=6, seed=seed)
    wanted = getattr(probe, split)
    assert read(TEXT, probe, split) == expected(TEXT, wanted, split, seed)


def test_documents_are_whole_in_one_chunk_and_chunks_are_bounded(monkeypatch):
    monkeypatch.setattr(text_module, "CHUNK_TOKENS", 40)
    met: set[int] = set()
    chunks = list(TEXT.probe(ProbeConfig(fit=10), "fit", CPU))
    for chunk in chunks:
        documents = set(chunk.document.tolist())
        assert chunk.kept.numel() <= 40 or len(documents) == 1
        assert not met & documents
        met |= documents
    assert len(chunks) > 2
    assert met == set(range(10))


def test_the_order_of_documents_is_the_seeds():
    assert sorted(permutation(500, (7, 2), 3).tolist()) == list(range(500))
    assert not torch.equal(permutation(500, (7, 2), 3), permutation(500, (8, 2), 3))
    assert not torch.equal(permutation(500, (7, 2), 3), permutation(500, (7, 2), 4))
    few = read(TEXT, ProbeConfig(fit=4, seed=9), "fit")
    assert few == [row for row in read(TEXT, ProbeConfig(fit=10, seed=9), "fit") if row[0] < 4]


def test_the_end_of_a_document_is_a_label_and_never_a_token():
    rows = read(TEXT, ProbeConfig(fit=10), "fit")
    assert END not in [row[3] for row in rows]
    ends = [row[0] for row in rows if row[4] == END]
    short = [length for length in LENGTHS["fit"] if length - 1 <= 24]
    assert len(ends) == len(short)


def test_too_few_documents_are_said_with_both_numbers():
    with pytest.raises(RequestError, match=r"probe\.fit=11: the text has 10 documents .* probe\.fit=10"):
        next(TEXT.probe(ProbeConfig(fit=11), "fit", CPU))


@pytest.mark.parametrize(
    ("split", "use"),
    [
        ("train", lambda text: text.batches(torch.tensor([0]), torch.tensor([0]), 1)),
        ("evaluation", lambda text: text.evaluation("evaluation", 0, 1, CPU)),
        ("sae", lambda text: text.fresh(0, 0, 1, CPU)),
    ],
)
def test_a_span_shorter_than_a_window_is_said(split, use):
    lengths = {one: [100] for one in TextSplits}
    for length in ([], [5, 3]):
        short = plain_text({**lengths, split: length}, context=8)
        said = (
            rf"task\.context=8: a window takes 9 tokens, and the text has {sum(length)} in its split {split};"
        )
        with pytest.raises(RequestError, match=said):
            use(short)
    use(plain_text({**lengths, split: [5, 4]}, context=8))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(bits=st.integers(0, 2**62 - 1), n=st.integers(1, 2**50))
def test_places_are_scaled_exactly_however_long_the_text_is(bits, n):
    assert _scaled(torch.tensor(bits), n).item() == bits * n >> 62
