"""Lines that are no digit: across the picture from border to border, or around something in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnist_pipeline.mnist.pieces import Box, Mask, Pieces

# Of the picture's longest side: what is shorter frames nothing.
_LEAST_FRAME = 0.2
# Of a picture's length: what is narrower may be filled by one stroke. Of a picture's height: no stroke is so upright.
_WIDE, _UPRIGHT = 0.45, 0.8
# Of a row, a column or a side of a box: what is a line there fills it so far.
_FOLLOWED, _FULL = 0.9, 0.98
# Of the picture: as far as two lines are apart that are no strokes of one digit.
_FAR = 0.4
# Of the picture's height: lines are at most so thick, and at one height from end to end.
_THICKEST, _SLOPE = 0.08, 0.1


def are_frames(pieces: Pieces, contrast: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which pieces have another, not small and not much fainter, in their midst, or follow all sides of their box."""
    frames = np.zeros(len(pieces), bool)
    for n in np.flatnonzero(pieces.length > _LEAST_FRAME * max(pieces.mask.shape)):
        left, top, right, bottom = box = pieces.box(n)
        part = pieces.only(n)[top:bottom, left:right]
        inside = (pieces.left > left) & (pieces.top > top) & (pieces.right < right) & (pieces.bottom < bottom)
        inside &= (pieces.length > pieces.length[n] / 4) & (contrast > contrast[n] / 5)
        is_rim = bool(inside.any()) and _is_near_its_box(part)
        frames[n] = (
            is_rim or _follows_its_box(part) or any(_is_amid(part, box, pieces.box(m)) for m in np.flatnonzero(inside))
        )
    return frames


def _follows_its_box(part: Mask) -> bool:
    height, width = part.shape
    if min(height, width) < 0.4 * max(height, width):
        return False  # a thick one fills its box
    down, across = max(1, height // 25), max(1, width // 25)
    sides = part[:down].any(0), part[-down:].any(0), part[:, :across].any(1), part[:, -across:].any(1)
    return all(side.mean() > _FOLLOWED for side in sides)


def _is_near_its_box(part: Mask) -> bool:
    """Whether nearly all of it lies along the sides of its box, as of a frame that is not closed."""
    down, across = (max(1, round(0.12 * size)) for size in part.shape)
    return bool(part[down:-down, across:-across].sum() < 0.1 * part.sum())


def _is_amid(part: Mask, box: Box, inner: Box) -> bool:
    """Whether all rows and columns of a box inside another have something of the other's part on either side."""
    left, top, right, bottom = inner[0] - box[0], inner[1] - box[1], inner[2] - box[0], inner[3] - box[1]
    rows, columns = part[top:bottom], part[:, left:right]
    sides = rows[:, :left].any(1), rows[:, right:].any(1), columns[:top].any(0), columns[bottom:].any(0)
    return all(side.all() for side in sides)


def crossing(strokes: Mask) -> Mask:
    """Of what touches the border: lines that run thin from border to border, but for what crosses them."""
    lines: Mask = _level(strokes) | _level(strokes.T).T
    return lines


def _level(strokes: Mask) -> Mask:
    """The lines that cross from left to right."""
    pieces = Pieces(_thin(strokes))
    middle, width = (pieces.top + pieces.bottom) / 2, strokes.shape[1]
    # A line that others cross is several pieces, at one height.
    begins, ends = middle[pieces.left <= 1], middle[pieces.right >= width - 1]
    return pieces.only(_is_near(middle, begins, _SLOPE * width) & _is_near(middle, ends, _SLOPE * width))


def _is_near(places: NDArray[np.float64], others: NDArray[np.float64], by: float) -> NDArray[np.bool_]:
    """Which places are less than that from any of the others."""
    others = np.concatenate([[-np.inf], np.sort(others), [np.inf]])
    after = np.searchsorted(others, places)
    near: NDArray[np.bool_] = np.minimum(others[after] - places, places - others[after - 1]) < by
    return near


def _thin(mask: Mask) -> Mask:
    """What is about as thin, up and down, as lines are where they meet the left and the right border."""
    height, width = mask.shape
    columns = np.zeros((width, height + 2), np.int8)
    columns[:, 1:-1] = mask.T
    step = np.diff(columns.ravel())
    start, end = np.flatnonzero(step == 1), np.flatnonzero(step == -1)
    column, row, thick = start // (height + 2), start % (height + 2), end - start
    at_border = thick[((column <= 1) | (column >= width - 2)) & (thick < _THICKEST * height)]
    is_thin = thick <= (1.5 * np.median(at_border) + 1 if at_border.size else 0)
    columns[:] = 0
    columns[column[is_thin], row[is_thin]] = 1
    columns[column[is_thin], (row + thick)[is_thin]] -= 1
    thin: Mask = columns.cumsum(1)[:, :height].T.astype(bool)
    return thin


def is_narrow(picture: Mask) -> bool:
    """Whether one stroke may fill its rows."""
    return bool(min(picture.shape) < _WIDE * max(picture.shape))


def run_along(sides: tuple[Mask, Mask, Mask, Mask]) -> bool:
    """Whether a side of a picture (top, bottom, left, right) is inky all along, as of digits only a thick 1 is."""
    top, bottom, left, right = sides
    if max(top.mean(), bottom.mean()) > _FULL:
        return True
    return bool(len(top) > _WIDE * len(left) and max(left.mean(), right.mean()) > _UPRIGHT)


def run_across(inked: Mask) -> bool:
    """Whether half of the ink is lines that cross the picture, or they fill rows, or columns, that lie far apart."""
    if is_narrow(inked):
        return False
    if crossing(inked).sum() > inked.sum() / 2:
        return True
    full = (np.flatnonzero(inked.mean(1 - axis) > _FULL) / size for axis, size in enumerate(inked.shape))
    return any(lines.size and np.ptp(lines) > _FAR for lines in full)
