"""A figure with its words, or the reason why there is none."""

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plate:
    """A figure as it is shown: `name` is safe in a file name, `caption` is plain text and says the counts."""

    name: str
    title: str
    caption: str
    figure: Figure

    @property
    def alt(self) -> str:
        """The title and the first sentence of the caption, for whoever cannot see the figure."""
        return f"{self.title}. {first_sentence(self.caption)[0]}"


@dataclass(frozen=True)
class Missing:
    """A figure that cannot be drawn from these rows; `reason` is a sentence."""

    name: str
    title: str
    reason: str


Drawn = Plate | Missing


def first_sentence(text: str) -> tuple[str, str]:
    """The first sentence of a text, and the rest of it."""
    first, _, rest = text.partition(". ")
    return f"{first.rstrip('.')}.", rest


def settle(figure: Figure) -> Figure:
    """Fix the layout of a finished figure, so that saving it twice gives the same picture."""
    for _ in range(2):  # constrained layout reaches its fixed point at the second pass
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure
