"""Pictures of digits that are drawn here and always the same, and who they are."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_Point = tuple[float, float]


def _arc(centre: _Point, radii: _Point, start: float, end: float) -> list[_Point]:
    """Points on an ellipse, from one angle to another; degrees, clockwise from the right as y points down."""
    steps = 24
    angles = (math.radians(start + (end - start) * step / steps) for step in range(steps + 1))
    return [(centre[0] + radii[0] * math.cos(angle), centre[1] + radii[1] * math.sin(angle)) for angle in angles]


# Each digit's strokes, lines through points, x to the right and y down, in a box 12 wide and 18 high.
_STROKES: tuple[tuple[Sequence[_Point], ...], ...] = (
    (_arc((6, 9), (5, 9), 0, 360),),
    ([(3, 4), (7, 0), (7, 18)],),
    ([*_arc((6, 5), (5, 5), 190, 390), (1, 18), (11, 18)],),
    (_arc((5, 4.5), (5, 4.5), 210, 450), _arc((5, 13.5), (6, 4.5), 270, 510)),
    ([(8, 18), (8, 0), (0, 12), (12, 12)],),
    ([(10, 0), (2, 0), (2, 8), *_arc((5, 12.5), (6, 5.5), 250, 500)],),
    ([*_arc((10, 12.5), (9, 12.5), 270, 180), *_arc((6, 12.5), (5, 5.5), 180, 540)],),
    ([(0, 0), (11, 0), (4, 18)],),
    (_arc((6, 4.5), (4.5, 4.5), 90, 450), _arc((6, 13.5), (5.5, 4.5), 270, 630)),
    (_arc((6, 5.5), (5, 5.5), 0, 360), [(11, 5.5), (10, 18)]),
)
# 16.5 pixels and the pen make 20, the longest side of MNIST's digits.
_SCALE = 16.5 / 18
_PEN = 1.2


def _drawn(strokes: Sequence[Sequence[_Point]], shift: _Point) -> NDArray[np.float64]:
    """Ink in 0..1, `(28, 28)`: full within the pen's radius of a stroke, fading over one pixel."""
    y, x = (np.mgrid[0:28, 0:28] - np.array(shift)[::-1, None, None]) / _SCALE
    distance = np.full((28, 28), np.inf)
    for stroke in strokes:
        for (x0, y0), (x1, y1) in pairwise(stroke):
            dx, dy = x1 - x0, y1 - y0
            along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
            distance = np.minimum(distance, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
    return np.clip(_PEN + 0.5 - distance * _SCALE, 0, 1)


@functools.cache
def _pixels(digit: int) -> NDArray[np.uint8]:
    strokes = _STROKES[digit]
    ink = _drawn(strokes, (8, 5))
    y, x = np.mgrid[0:28, 0:28]
    # MNIST puts the centre of mass in the middle.
    shift = (8 + 13.5 - float((ink * x).sum() / ink.sum()), 5 + 13.5 - float((ink * y).sum() / ink.sum()))
    return np.rint(_drawn(strokes, shift) * 255).astype(np.uint8)


def nearest(image: NDArray[np.float32]) -> int:
    """The digit whose picture is most like the image `(28, 28)`, in 0..1."""
    return int(np.argmin([np.square(image - _pixels(digit) / 255).sum() for digit in range(10)]))


def digit_png(digit: int) -> bytes:
    """A plain picture of the digit in MNIST's convention, always the same: PNG, 28 by 28, 8-bit grey, white on black.

    The digit's box is at most 20 by 20 pixels, its centre of mass in the middle.
    """
    with io.BytesIO() as file:
        Image.fromarray(_pixels(digit)).save(file, format="PNG")
        return file.getvalue()
