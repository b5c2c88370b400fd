"""Bars with rate and time left on a terminal, nothing at all elsewhere."""

import io
import sys

import pytest
from rich.console import Console

from polymorph.progress import SILENT, Progress, on_terminal


def terminal() -> tuple[Progress, io.StringIO]:
    text = io.StringIO()
    return Progress(Console(file=text, force_terminal=True, width=120)), text


def test_a_bar_says_what_goes_on_how_fast_and_beside_which_numbers() -> None:
    progress, text = terminal()
    with progress.bar("seeds 0, 1", 10, start=4) as bar:
        for done in range(5, 8):
            bar.update(done, loss="0.250")
        bar.update(8)
        bar.bars.refresh()
    shown = text.getvalue()
    assert "seeds 0, 1" in shown
    assert "loss 0.250" in shown.split("\r")[-1] or "loss 0.250" in shown
    assert "/s" in shown or "s each" in shown


def test_bars_of_one_console_share_it_and_end_with_their_blocks() -> None:
    progress, text = terminal()
    with progress.bar("studies", 3), progress.bar("pairs [0]", 2) as inner:
        assert inner.bars is not None
        inner.bars.refresh()
        assert len(inner.bars.tasks) == 2
    assert "pairs [0]" in text.getvalue()  # no markup is read into names
    with (
        pytest.raises(KeyError),
        progress.bar("again", None),
    ):  # a bar that a fault went through is closed too
        raise KeyError
    assert progress._bars == []


def test_where_nobody_looks_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert not sys.stdout.isatty()
    for progress in (SILENT, on_terminal()):
        with progress.bar("seeds", 2) as bar:
            bar.update(1, loss="1")
    assert capsys.readouterr() == ("", "")


def test_a_summary_is_plain_lines_off_a_terminal_and_a_table_on_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [("cohort", "some/[folder]"), ("next", "python analyze.py")]
    SILENT.summary("what is where", lines)
    assert capsys.readouterr().out == "cohort: some/[folder]\nnext: python analyze.py\n"
    progress, text = terminal()
    progress.summary("what is where", lines)
    assert "what is where" in text.getvalue()
    assert "some/[folder]" in text.getvalue()
