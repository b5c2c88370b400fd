import pytest
from omegaconf import OmegaConf

from polymorph.tasks.text.config import TextConfig, TextShares


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"source": "docstring"}, r"task\.source='docstring' \(did you mean 'docstrings'\?\)"),
        ({"packages": []}, r"task\.packages=\[\]: task\.source=docstrings needs task\.packages"),
        ({"source": "files"}, r"task\.files=\[\]: task\.source=files needs"),
        ({"source": "hub", "max_documents": 5}, r"task\.dataset='': task\.source=hub needs"),
        ({"dataset": "a/b"}, r"task\.dataset='a/b': not read with task\.source=docstrings"),
        ({"files": ["x.txt"]}, r"task\.files=\['x\.txt'\]: not read with task\.source=docstrings"),
        ({"source": "hub", "dataset": "a/b"}, r"task\.max_documents=None: .* say how many"),
        ({"context": 0}, r"task\.context=0: at least 1"),
        ({"windows": 0}, r"task\.windows=0: at least 1"),
        ({"min_characters": 0}, r"task\.min_characters=0: at least 1"),
        ({"max_documents": 0}, r"task\.max_documents=0: at least 1"),
        ({"max_tokens": 0}, r"task\.max_tokens=0: at least 1"),
        ({"seed": -1}, r"task\.seed=-1: at least 0"),
        ({"vocab_size": 256}, r"task\.vocab_size=256: at least 257"),
        ({"tokenizer": ""}, r"task\.tokenizer=''"),
        ({"shares": TextShares(0.0, 0.4, 0.2, 0.2, 0.2)}, r"task\.shares\.train=0\.0, task\.tokenizer=train"),
    ],
)
def test_contradictions_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        TextConfig(**options)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"train": 0.8}, r"they sum to 1\.1"),
        ({"train": 0.7 + 2e-9}, "they sum to"),
        ({"train": 1.0, "sae": -0.15}, r"task\.shares\.sae=-0\.15: at least 0"),
        ({"train": float("nan")}, r"task\.shares\.train=nan"),
    ],
)
def test_shares_are_parts_of_one(shares, said):
    with pytest.raises(ValueError, match=said):
        TextShares(**shares)


def test_what_is_not_contradictory_is_let_pass():
    TextConfig(tokenizer="folder", vocab_size=1, shares=TextShares(0.0, 0.4, 0.2, 0.2, 0.2))
    TextConfig(source="hub", dataset="a/b", tokenizer="owner/name@revision")
    TextShares(0.1, 0.2, 0.3, 0.4, 1e-10)
    assert OmegaConf.to_object(OmegaConf.structured(TextConfig)) == TextConfig()


def test_what_decides_the_tokens_is_all_that_counts():
    assert TextConfig(context=5, windows=1).deciding() == TextConfig().deciding()
    assert TextConfig(text_column="unread").deciding() == TextConfig().deciding()
    assert TextConfig(tokenizer="a", vocab_size=9).deciding() == TextConfig(tokenizer="a").deciding()
    files = {"source": "files", "files": ["a.txt"]}
    assert TextConfig(**files, packages=["torch"]).deciding() == TextConfig(**files).deciding()
    different = [
        {"seed": 1},
        {"packages": ["torch"]},
        {"vocab_size": 300},
        {"max_documents": 3},
        {"max_tokens": 3},
        {"min_characters": 3},
        {"tokenizer": "a"},
        {"shares": TextShares(0.69, 0.16)},
        files,
        {**files, "text_column": "body"},
        {"source": "hub", "dataset": "a/b", "max_documents": 3},
        {"source": "hub", "dataset": "a/b", "max_documents": 3, "dataset_revision": "x"},
        {"source": "hub", "dataset": "a/b", "max_documents": 3, "dataset_split": "test"},
    ]
    found = [str(TextConfig(**options).deciding()) for options in ({}, *different)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"source": "files", "files": ["a.txt"], "tokenizer": "folder"},
        {"source": "hub", "dataset": "a/b", "max_documents": 3, "seed": 4},
    ],
)
def test_what_decides_makes_the_config_again(options):
    there = TextConfig(**options).deciding()
    assert TextConfig(**{**there, "shares": TextShares(**there["shares"])}).deciding() == there
