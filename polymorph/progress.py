"""Bars for whoever waits, and the summary at the end. The only place that draws; silent where nobody looks."""

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn
    from rich.progress import Task as Drawn
    from rich.text import Text


@dataclass
class Bar:
    """One thing that is going on; without `bars` nobody sees it."""

    bars: "Bars | None" = None
    task: Any = None

    def update(self, done: float, **shown: str) -> None:
        """`done` of the total; `shown` are words beside the bar, such as a loss, which stay until there are others."""
        if self.bars is not None:
            from rich.markup import escape

            self.bars.update(self.task, completed=done)
            if shown:
                text = escape(", ".join(f"{name} {value}" for name, value in shown.items()))
                self.bars.update(self.task, shown=text)


@dataclass(eq=False)
class Progress:
    """Draws bars on a console, one below the other; on none, nothing at all."""

    console: "Console | None" = None
    _bars: "list[Bars]" = field(default_factory=list)
    _open: int = 0

    @contextmanager
    def bar(self, what: str, total: float | None, start: float = 0) -> Iterator[Bar]:
        """A bar for as long as the block lasts, with rate and time left; a total of None is not known."""
        if self.console is None:
            yield Bar()
            return
        from rich.markup import escape

        bars = self._shared()
        task = bars.add_task(escape(what), total=total, completed=start, shown="")  # type: ignore[arg-type]
        self._open += 1
        try:
            yield Bar(bars, task)
        finally:
            self._open -= 1
            bars.remove_task(task)
            if self._open == 0:
                bars.stop()
                self._bars.clear()

    def _shared(self) -> "Bars":
        """One display for all bars that are open: a console bears no second."""
        if not self._bars:
            from rich.progress import Progress as Bars

            self._bars.append(Bars(*_columns(), console=self.console, transient=True, refresh_per_second=4))
            self._bars[0].start()
        return self._bars[0]

    def summary(self, title: str, lines: Sequence[tuple[str, str]]) -> None:
        """What is where: a table on a terminal, plain lines elsewhere."""
        if self.console is None:
            print("\n".join(f"{name}: {value}" for name, value in lines))
            return
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", show_header=False, box=None)
        for name, value in lines:
            table.add_row(f"[bold]{escape(name)}[/]", Text(value, overflow="fold"))
        self.console.print(table)


SILENT = Progress()


def _columns() -> "list[ProgressColumn]":
    from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: "Drawn") -> "Text":
            speed = task.finished_speed or task.speed
            if not speed:
                return Text("")
            return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")

    return [
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:,.0f}"),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    ]


def on_terminal(wanted: bool = True) -> Progress:
    """Bars on standard output, if that is a terminal and this process has it for itself."""
    alone = multiprocessing.current_process().name == "MainProcess"
    if not (wanted and alone and sys.stdout.isatty()):
        return SILENT
    from rich.console import Console

    return Progress(Console())
