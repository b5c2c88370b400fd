"""Figures as the bytes of files: the same rows give the same bytes."""

import io
import re
from collections.abc import Iterable
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from polymorph.plotting.plate import Drawn, Plate
from polymorph.plotting.style import style

DPI = 160
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
_KINDS = ("svg", "png")  # of the files beside a page
_WITHOUT_LOSS = {"lossless": True, "exact": True}
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def figure_files(plates: Iterable[Drawn]) -> dict[str, bytes]:
    """File name → bytes: every plate as `.svg` and `.png`; a `Missing` has no file.

    A name that is not letters, digits, `_` and `-`, and two plates of one name, are refused.
    """
    files: dict[str, bytes] = {}
    for plate in plates:
        if isinstance(plate, Plate):
            if not _SAFE.fullmatch(plate.name) or f"{plate.name}.svg" in files:
                raise ValueError(f"a plate needs a safe name of its own, got {plate.name!r}")
            files |= {f"{plate.name}.{kind}": saved(plate.figure, kind) for kind in _KINDS}
    return files


def saved(figure: Figure, kind: str) -> bytes:
    """The figure as `svg`, `png` or lossless `webp`, without a date."""
    buffer = io.BytesIO()
    with style():
        FigureCanvasAgg(figure)
        options = {"pil_kwargs": _WITHOUT_LOSS} if kind == "webp" else {"metadata": _METADATA[kind]}
        figure.savefig(buffer, format=kind, dpi=DPI, **options)
    return buffer.getvalue()
