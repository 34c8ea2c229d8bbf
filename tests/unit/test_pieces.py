from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from mnist_pipeline.mnist.pieces import Mask, Pieces, grown, holds_square, opened

masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12))


def filled(mask: Mask) -> list[set[tuple[int, int]]]:
    """The pieces, found by filling one after the other."""
    left = {(row, column) for row, column in np.argwhere(mask).tolist()}
    found: list[set[tuple[int, int]]] = []
    while left:
        piece: set[tuple[int, int]] = set()
        edge = [left.pop()]
        while edge:
            piece.add(edge[-1])
            row, column = edge.pop()
            near = {(row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1)} & left
            left -= near
            edge += near
        found.append(piece)
    return found


@given(masks)
def test_pieces_are_those_that_filling_finds(mask: Mask) -> None:
    pieces = Pieces(mask)
    one_by_one = [set(map(tuple, np.argwhere(pieces.only(n)).tolist())) for n in range(len(pieces))]
    assert sorted(map(sorted, one_by_one)) == sorted(map(sorted, filled(mask)))
    for n, piece in enumerate(one_by_one):
        rows, columns = zip(*piece, strict=True)
        assert pieces.area[n] == len(piece)
        assert pieces.box(n) == (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        at_border = {0, mask.shape[0] - 1} & set(rows) or {0, mask.shape[1] - 1} & set(columns)
        assert pieces.at_border()[n] == bool(at_border)


@given(masks, st.integers(0, 1000))
def test_the_highest_value_of_each_piece(mask: Mask, seed: int) -> None:
    plane = np.random.default_rng(seed).integers(0, 1000, mask.shape).astype(np.uint16)
    pieces = Pieces(mask)
    assert pieces.highest(plane).tolist() == [plane[pieces.only(n)].max() for n in range(len(pieces))]


@given(arrays.arrays(np.uint16, (9, 7)), st.integers(1, 12))
def test_what_is_bright_and_narrower_than_the_square_is_as_bright_as_what_is_around(
    plane: NDArray[np.uint16], side: int
) -> None:
    wide = np.pad(plane, side, mode="edge")
    squares = np.lib.stride_tricks.sliding_window_view(wide, (side, side))
    darkest = squares.min((2, 3))
    brightest = np.lib.stride_tricks.sliding_window_view(darkest, (side, side)).max((2, 3))
    assert np.array_equal(opened(plane, side), brightest[1:-1, 1:-1])


@given(masks, st.integers(1, 4))
def test_a_mask_is_grown_on_every_side(mask: Mask, by: int) -> None:
    square = np.lib.stride_tricks.sliding_window_view(np.pad(mask, by), (2 * by + 1, 2 * by + 1))
    assert np.array_equal(grown(mask, by), square.any((2, 3)))


@pytest.mark.parametrize(("side", "holds"), [(1, True), (3, True), (4, False), (50, False)])
def test_the_square_that_fits(side: int, *, holds: bool) -> None:
    mask = np.zeros((10, 8), bool)
    mask[2:5, 1:7] = True
    assert holds_square(mask, side) is holds
