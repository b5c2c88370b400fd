import pytest
from corpora import stories
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from polymorph.errors import RequestError
from polymorph.tasks.text.tokenizer import END, Encoder, loaded, tokenizer_digest, trained

TEXTS = stories(40)
SPECIAL = f"A text that spells out {END} and goes on."


def saved(encoder: Encoder, folder, **changes):
    folder.mkdir()
    for name, data in (encoder.files() | changes).items():
        (folder / name).write_bytes(data)
    return folder


def test_tokens_are_the_text_and_the_end_once():
    encoder = trained(TEXTS, 300)
    assert encoder.vocab_size == 300
    assert encoder.tokenizer.token_to_id(END) == encoder.eos == 0
    for text in [*TEXTS, *stories(5, seed=1), SPECIAL, "\x00 \r\n\t日本 🌳"]:
        (tokens,) = encoder.encode([text])
        assert tokens[-1] == 0
        assert (tokens[:-1] != 0).all()
        assert encoder.tokenizer.decode(tokens[:-1].tolist(), skip_special_tokens=False) == text


def test_an_empty_text_has_no_token():
    assert [len(tokens) for tokens in trained(TEXTS, 300).encode(["", "a"])] == [0, 2]


def test_training_is_deterministic_and_follows_the_text():
    one = trained(TEXTS, 320)
    assert one.files() == trained(iter(TEXTS), 320).files()
    assert tokenizer_digest(one.tokenizer) != tokenizer_digest(trained(TEXTS[:-5], 320).tokenizer)
    assert tokenizer_digest(one.tokenizer) != tokenizer_digest(trained(TEXTS, 319).tokenizer)


def test_a_small_text_gives_fewer_tokens_than_asked_for():
    assert trained(["aa"], 5000).vocab_size < 300


def test_tokens_take_two_bytes_as_long_as_they_fit():
    words = {f"w{i}": i for i in range(1 << 16)}
    small = Encoder(Tokenizer(models.WordLevel(words)), 0, {})
    large = Encoder(Tokenizer(models.WordLevel({**words, "more": 1 << 16})), 0, {})
    assert (small.dtype, large.dtype) == ("<u2", "<u4")
    assert large.encode(["more"])[0].tolist() == [1 << 16, 0]


def test_auto_tokenizer_opens_the_files_and_gives_the_same_tokens(tmp_path):
    encoder = trained(TEXTS, 300)
    opened = AutoTokenizer.from_pretrained(saved(encoder, tmp_path / "t"))
    assert opened.eos_token_id == 0
    assert tokenizer_digest(opened) == tokenizer_digest(encoder.tokenizer)
    for text in [*TEXTS, SPECIAL]:
        ids = opened(text, add_special_tokens=False).input_ids
        assert ids == encoder.encode([text])[0].tolist()[:-1]


def test_a_tokenizer_that_is_loaded_is_the_one_that_was_saved(tmp_path):
    encoder = trained(TEXTS, 300)
    folder = saved(encoder, tmp_path / "t")
    again = loaded(str(folder))
    assert (again.eos, again.vocab_size) == (encoder.eos, encoder.vocab_size)
    assert tokenizer_digest(again.tokenizer) == tokenizer_digest(encoder.tokenizer)
    texts = [*TEXTS, SPECIAL]
    for ours, theirs in zip(encoder.encode(texts), again.encode(texts), strict=True):
        assert ours.tolist() == theirs.tolist()


def test_settings_of_a_call_do_not_make_another_tokenizer(tmp_path):
    """A beginning put before every text, cutting and padding: none of it is in the tokens."""
    encoder = trained(TEXTS, 300)
    opened = AutoTokenizer.from_pretrained(saved(encoder, tmp_path / "t"))
    opened.pad_token = opened.eos_token
    opened(TEXTS[:3], truncation=True, max_length=4, padding="max_length")
    backend = opened.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    assert tokenizer_digest(opened) == tokenizer_digest(encoder.tokenizer)
    opened.save_pretrained(tmp_path / "changed")
    changed = loaded(str(tmp_path / "changed"))
    assert changed.encode(TEXTS[:1])[0].tolist() == encoder.encode(TEXTS[:1])[0].tolist()


def test_another_pre_tokenizer_is_another_tokenizer():
    """The opposite: all that decides tokens counts."""
    encoder = trained(TEXTS, 300)
    other = Tokenizer.from_str(encoder.tokenizer.to_str())
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert tokenizer_digest(other) != tokenizer_digest(encoder.tokenizer)


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    folder = saved(
        trained(TEXTS, 300),
        tmp_path / "t",
        **{"tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}'},
    )
    with pytest.raises(RequestError, match=r"task\.tokenizer=.*t has no token for the end of a document"):
        loaded(str(folder))


@pytest.mark.parametrize("changes", [{"tokenizer.json": b"{"}, {"tokenizer.json": b"[]"}])
def test_a_folder_that_is_no_tokenizer_is_refused(tmp_path, changes):
    with pytest.raises(RequestError, match=r"task\.tokenizer=.*t cannot be opened"):
        loaded(str(saved(trained(TEXTS, 300), tmp_path / "t", **changes)))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"holds no tokenizer: a folder with a tokenizer\.json"):
        loaded(str(tmp_path))
