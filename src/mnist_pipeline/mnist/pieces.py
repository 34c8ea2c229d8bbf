"""Masks of pixels: their connected pieces, and what fits into them. All in numpy, in whole planes at a time."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Mask: TypeAlias = NDArray[np.bool_]
"""Which pixels, `[height, width]`."""
Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""
Which: TypeAlias = "NDArray[np.bool_] | np.int64 | int"
"""Pieces: a mask of them, or the number of one."""


def opened(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """Grey opening by a square: what is bright, and too narrow for it, is as bright as what is around.

    What lies at the border goes on outwards: a bright edge of the picture is wide, however little of it is seen.
    """
    reach = side - 1
    wider = np.pad(plane, reach, mode="edge")
    planes = wider, np.empty_like(wider)
    for pick in (np.minimum, np.maximum):
        for axis in (0, 1):
            planes = _each(planes, side, axis, pick)
    return planes[0]


def grown(mask: Mask, by: int) -> Mask:
    """With so many pixels more on every side."""
    wider = np.pad(mask, by)
    planes = wider, np.empty_like(wider)
    for axis in (0, 1):
        planes = _each(planes, 2 * by + 1, axis, np.logical_or)
    return planes[0]


def holds_square(mask: Mask, side: int) -> bool:
    """Whether a square of so many pixels fits into it."""
    if min(mask.shape) < side:
        return False
    planes = mask, np.empty_like(mask)
    for axis in (0, 1):
        planes = _each((planes[0].copy(), planes[1]), side, axis, np.logical_and)
    return bool(planes[0].any())


def _each(
    planes: tuple[NDArray[Any], NDArray[Any]], length: int, axis: int, pick: np.ufunc
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The first plane with `pick` of each `length` pixels in a row, so many less one shorter; the second is scratch.

    It takes twice as many pixels together each time: log2 of the length steps.
    """
    here, there = (plane.swapaxes(0, axis) for plane in planes)
    size, done = len(here), 1
    while done < length:
        step = min(done, length - done)
        size -= step
        pick(here[:size], here[step : step + size], out=there[:size])
        here, there = there, here
        done += step
    return here[:size].swapaxes(0, axis), there[:size].swapaxes(0, axis)


class Pieces:
    """The connected pieces of a mask (8 neighbours), found in runs of pixels; `len()` is how many there are.

    Attributes, one value a piece: `area` in pixels, the box `left`, `top`, `right`, `bottom`, and its longest side,
    `length`.
    """

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        height, width = mask.shape
        # A column of nothing on either side parts the rows, which then are one line.
        bordered = np.zeros((height, width + 2), np.int8)
        bordered[:, 1:-1] = mask
        step = np.diff(bordered.ravel())
        start, end = np.flatnonzero(step == 1) + 1, np.flatnonzero(step == -1) + 1
        row = start // (width + 2)
        piece = _joined(start, end, width + 2)
        self._row, self._start, self._end = row, start - row * (width + 2) - 1, end - row * (width + 2) - 1
        # Runs sorted by piece are what reduceat takes.
        self._piece = piece
        self._order = np.argsort(piece, kind="stable")
        self._first = np.flatnonzero(np.diff(piece[self._order], prepend=-1))
        self.area = self._of_runs(np.add, self._end - self._start)
        self.left, self.right = self._of_runs(np.minimum, self._start), self._of_runs(np.maximum, self._end)
        self.top, self.bottom = self._of_runs(np.minimum, row), self._of_runs(np.maximum, row + 1)
        self.length = np.maximum(self.right - self.left, self.bottom - self.top)

    def __len__(self) -> int:
        return len(self._first)

    def _of_runs(self, together: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """One value a piece of one a run."""
        result: NDArray[Any] = together.reduceat(values[self._order], self._first) if len(values) else values
        return result

    def highest(self, plane: NDArray[Any]) -> NDArray[np.float32]:
        """The highest value of each piece's pixels on a plane."""
        line = np.append(plane.ravel(), plane.dtype.type(0))  # reduceat wants an end within the line
        at = self._row * plane.shape[1]
        edges = np.stack([at + self._start, at + self._end], 1).ravel()
        tops = np.maximum.reduceat(line, edges)[::2] if len(edges) else np.zeros(0, np.float32)
        return self._of_runs(np.maximum, tops).astype(np.float32)

    def painted(self, values: NDArray[Any]) -> NDArray[np.int32]:
        """A plane with a whole number a piece on the piece's pixels, and 0 elsewhere."""
        height, width = self.mask.shape
        change = np.zeros((height, width + 1), np.int32)
        value = values.astype(np.int32)[self._piece]
        change[self._row, self._start] += value
        change[self._row, self._end] -= value
        return change.cumsum(1, dtype=np.int32)[:, :-1]

    def only(self, which: Which) -> Mask:
        """The mask of one or some of them."""
        chosen = np.zeros(len(self), bool)
        chosen[which] = True
        return self.painted(chosen).astype(bool)

    def box(self, which: Which) -> Box:
        """Around one or some of them."""
        return (
            int(self.left[which].min()),
            int(self.top[which].min()),
            int(self.right[which].max()),
            int(self.bottom[which].max()),
        )

    def at_border(self) -> NDArray[np.bool_]:
        """Which of them touch the picture's border."""
        height, width = self.mask.shape
        at_border: NDArray[np.bool_] = (
            (self.left == 0) | (self.top == 0) | (self.right == width) | (self.bottom == height)
        )
        return at_border


def _joined(start: NDArray[Any], end: NDArray[Any], width: int) -> NDArray[Any]:
    """The number of each run's piece, from 0 without a gap; runs as places in one line of rows so wide."""
    # The runs of the row above that touch a run lie one behind the other.
    first = np.searchsorted(end, start - width, "left")
    touching = np.maximum(np.searchsorted(start, end - width, "right") - first, 0)
    one = np.repeat(np.arange(len(start)), touching)
    other = np.arange(len(one)) + np.repeat(first - (touching.cumsum() - touching), touching)
    # Union-find of all pairs at once: each root is hung below the lowest that it meets, until none meets another.
    root = np.arange(len(start))
    while len(one):
        mine, others = root[one], root[other]
        apart = mine != others
        one, other, mine, others = one[apart], other[apart], mine[apart], others[apart]
        np.minimum.at(root, np.maximum(mine, others), np.minimum(mine, others))
        while not np.array_equal(above := root[root], root):
            root = above
    return np.unique(root, return_inverse=True)[1].ravel()
