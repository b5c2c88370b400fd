"""A plate inside a page: as vectors where they are small, else as points."""

import base64

from polymorph.plotting.plate import Plate
from polymorph.report.compact import as_address, compact
from polymorph.report.figure_files import saved

LARGEST = 120_000
"""Characters of a vector picture in a page. What is denser is shown in points, with the vectors in a file beside it."""


def picture(plate: Plate, svg: bytes | None = None) -> str:
    """The address of the picture, with everything in it; `svg` spares saving the figure again."""
    vectors = as_address(compact(saved(plate.figure, "svg") if svg is None else svg))
    if len(vectors) <= LARGEST:
        return vectors
    points = "data:image/webp;base64," + base64.b64encode(saved(plate.figure, "webp")).decode("ascii")
    return min(vectors, points, key=len)
