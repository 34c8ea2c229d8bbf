"""A picture as ink of one polarity, darker or lighter than its paper; and what there is of a digit in it.

What is measured in lengths of a digit was measured on MNIST's 60,000 training images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mnist_pipeline.mnist import lines
from mnist_pipeline.mnist.pieces import Box, Mask, Pieces, Which, grown, holds_square, opened

Grey: TypeAlias = NDArray[np.float32]
"""A grey image, `[height, width]`, 0.0 black to 1.0 white."""
Tone: TypeAlias = NDArray[np.uint16]
"""How inky pixels are: 0 to 65535 from the picture's least to its most."""

_MOST = 65535
# Below this grey a camera's noise is more than the light.
DARK = 0.1

# Of the picture's shorter side: wider than any stroke, and narrower than what the digit is written on.
_BACKGROUND = 0.35
# Ink differs from its background by so many standard deviations of the noise, and by so many steps of the file's own;
# and at its best by so many.
_SIGMAS, _SIGMAS_AT_BEST = 7, 11
_STEPS, _STEPS_AT_BEST = 1.2, 2.5
# Of the ink's own contrast: what is paler is its soft edge, or a ruled line that meets it.
_STROKE = 0.4

# Of the picture's longest side: a digit is at least so long.
_LEAST = 0.05
# Of a digit's length: no stroke holds a larger square (99.9 % of MNIST's hold none of 0.40).
_THICKEST = 0.42
# Of a digit's length squared: its ink (0.06 to 0.61 in MNIST; a pen draws thinner).
_LEAST_INK, _MOST_INK = 0.025, 0.62
# Of a digit's length: the gaps between its parts, and between two digits that stand side by side.
_GAP, _GAP_BESIDE = 0.16, 0.06
# How sure it is that pieces are ink on paper, see `Look._sureness`.
_SURE, _SURE_OF_ANOTHER = 0.5, 0.6
# Of the picture's contrast: what has less is faint, and must be surer. Of a digit's ink: its main piece has at least.
_FAINT, _LEAST_MAIN = 0.2, 0.25
_SURE_OF_SOFT = 0.25
# Of a digit's length: as far around its strokes all is paper; where nothing is in focus, and where something is.
_SOFT_RIM, _SHARP_RIM = 0.16, 0.06
# Pieces that are tried, those of most ink first.
_TRIED = 4
# Of the picture's longest side: what is cut off at the border is at least so long.
_LEAST_CUT = 0.2

# Of the picture's longest side: what is cut out along its own box comes as near to the border, for such a box is drawn
# around the faintest pixel.
_RIM = 0.11
# Of the picture's border: ink is less of it, and paper more.
_MOST_BORDER = 0.5
# Of a side of the digit's surroundings, at the border: what is inky so far along is an edge or a frame.
_EDGE = 0.7
# Of all ink: what a digit that is cut out has of it. Of the picture's width: how far off its middle it may be.
_ALL_INK, _OFF_CENTRE = 0.88, 0.35
# As above, for what may be a few pixels enlarged.
_MOST_CUT_OUT, _THICKEST_CUT_OUT = 0.75, 0.5


@dataclass(frozen=True)
class Seen:
    """A digit, or why there is none; how sure that is, at most 1; and what there is of it."""

    sure: float = 0.0
    why: str = "nodigit"
    box: Box = (0, 0, 0, 0)
    contrast: float = 0.0
    strokes: Mask = field(default_factory=lambda: np.zeros((0, 0), bool))
    paper: Tone = field(default_factory=lambda: np.zeros((0, 0), np.uint16))

    @property
    def length(self) -> int:
        """The box's longest side, in pixels."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


class Look:
    """A picture as ink that is dark, or light: the more ink, the higher.

    Args:
        grey: the picture, of at least two greys.
        step: the least difference between two greys of its file.
        is_dark: whether ink is darker than its paper.
    """

    def __init__(self, grey: Grey, step: float, *, is_dark: bool) -> None:
        self.is_dark = is_dark
        # Light falls on paper by factors, so there ink is told by logarithms.
        tone = -np.log(grey + np.float32(DARK)) if is_dark else grey
        self._least, most = float(tone.min()), float(tone.max())
        self._scale = np.float32(_MOST / (most - self._least))
        self._tone: Tone = ((tone - np.float32(self._least)) * self._scale).clip(0, _MOST).astype(np.uint16)
        self._side = max(grey.shape)
        self._paper: Tone = opened(self._tone, max(5, round(_BACKGROUND * min(grey.shape))))
        self._above: Tone = self._tone - self._paper
        sample = self._above[::2, ::2].astype(np.float32)
        # Low percentiles, since a good part of the picture may be a table's grain: 0.385 standard deviations hold 30 %.
        self._usual = float(np.percentile(sample, 40))
        noise = float(np.percentile(np.abs(sample - self._usual), 30)) / 0.385
        step *= float(self._scale) / (float(grey.max()) + DARK if is_dark else 1)
        self._low = self._usual + max(_SIGMAS * noise, _STEPS * step)
        self._high = self._usual + max(_SIGMAS_AT_BEST * noise, _STEPS_AT_BEST * step)

    def grey(self, tone: Tone) -> Grey:
        """The greys of tones."""
        value = tone.astype(np.float32) / self._scale + np.float32(self._least)
        grey: Grey = np.exp(-value) - np.float32(DARK) if self.is_dark else value
        return grey

    def digit(self) -> Seen:
        """The digit, away from the border: ink there is the surest."""
        pieces = self._pieces()
        contrast = pieces.highest(self._above) - self._usual
        ink = contrast * pieces.area
        is_outer = pieces.at_border() | lines.are_frames(pieces, contrast)
        inner = np.flatnonzero(~is_outer & (pieces.length >= self._least_length))
        inner = inner[np.argsort(-ink[inner])][:_TRIED]
        main = next((n for n in inner if self._sureness(pieces, n, self._paper) > 0), None)
        if main is None:
            return Seen() if len(inner) else self._cut_off(pieces, contrast)
        parts, another = self._with_parts(pieces, main, ~is_outer & (contrast > _STROKE * contrast[main]))
        if another > _SURE_OF_ANOTHER:
            return Seen(another, "severaldigits", pieces.box(main), contrast[main])
        sure, strokes, box = self._sureness(pieces, parts, self._paper), pieces.only(parts), pieces.box(parts)
        least = _SURE if contrast[main] > _FAINT * _MOST else _SURE_OF_ANOTHER
        if sure < least or pieces.area[main] < _LEAST_MAIN * pieces.area[parts].sum():
            return Seen()
        why = "cutoff" if self._goes_on(strokes, box) else ""
        usual = np.uint16(self._usual)
        paper = np.minimum(self._paper, _MOST - usual) + usual  # and no more than there is
        return Seen(sure, why, box, contrast[main], strokes, paper)

    def fills(self, inked: Mask) -> bool:
        """Whether the inkier half of the picture goes from top to bottom, and is not what is around something."""
        rim = max(1, round(_RIM * self._side))
        sides = inked[0], inked[-1], inked[:, 0], inked[:, -1]
        return bool(
            inked[:rim].any()
            and inked[-rim:].any()
            and np.concatenate(sides).mean() < _MOST_BORDER
            and not lines.run_along(sides)
        )

    def cut_out(self, inked: Mask, *, is_soft: bool) -> Seen:
        """The digit that was cut out along its own box, or fills the picture from top to bottom.

        Args:
            inked: the half of the picture that is the inkier one, which fills it.
            is_soft: whether nothing in the picture is in focus: it is a few pixels, enlarged.
        """
        height, width = inked.shape
        rim = max(1, round(_RIM * self._side))
        pieces = Pieces(inked)
        digit, _ = self._with_parts(pieces, int(pieces.area.argmax()), np.ones(len(pieces), bool))
        box = left, top, right, bottom = pieces.box(digit)
        if (
            pieces.area[digit].sum() < _ALL_INK * pieces.area.sum()
            or max(top, height - bottom) > rim
            or abs(left - (width - right)) > _OFF_CENTRE * width
            or not _is_drawn(pieces, digit, _MOST_CUT_OUT, _THICKEST_CUT_OUT)
            or lines.run_across(inked)
            or lines.are_frames(pieces, np.ones(len(pieces), np.float32))[digit].any()
        ):
            return Seen()
        paper = np.full_like(self._tone, np.median(self._tone[~inked]))
        sure = self._sureness(pieces, digit, paper, is_soft=is_soft)
        if lines.is_narrow(inked):
            sure = max(sure, _SURE)
        if sure < (_SURE_OF_SOFT if is_soft else _SURE):
            return Seen()
        return Seen(1.0 if is_soft else sure, "", box, _MOST, pieces.only(digit), paper)

    @property
    def _least_length(self) -> float:
        length: float = max(4.0, _LEAST * self._side)
        return length

    def _pieces(self) -> Pieces:
        """The pieces of ink, as far as each has a good part of its own contrast; without lines across the picture."""
        inked = Pieces(self._above > self._low)
        highest = inked.highest(self._above)
        is_ink = (highest > self._high) & (inked.length >= self._least_length / 3)
        least = inked.painted(np.where(is_ink, _STROKE * highest + (1 - _STROKE) * self._usual, 0))
        pieces = Pieces((least > 0) & (self._above > least))
        crossing = pieces.at_border() & (pieces.length > 0.3 * self._side)
        return Pieces(pieces.mask & ~lines.crossing(pieces.only(crossing))) if crossing.any() else pieces

    def _cut_off(self, pieces: Pieces, contrast: NDArray[np.float32]) -> Seen:
        """What could be a digit at the border."""
        at_border = np.flatnonzero(pieces.at_border() & (pieces.length >= _LEAST_CUT * self._side))
        if not len(at_border):
            return Seen()
        main = at_border[(contrast * pieces.area)[at_border].argmax()]
        return Seen(self._sureness(pieces, main, self._paper), "cutoff", pieces.box(main), contrast[main])

    def _with_parts(
        self, pieces: Pieces, main: int | np.int64, others: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], float]:
        """The pieces of the digit of which this is the main one; and how sure it is that another digit is beside it."""
        length = pieces.length[main]
        digit = np.arange(len(pieces)) == main
        # What has the digit within its box is around it, and no part.
        left, top, right, bottom = pieces.box(main)
        is_around = (pieces.left < left) & (pieces.top < top) & (pieces.right > right) & (pieces.bottom > bottom)
        others = others & (pieces.area > 0.004 * length**2) & ~is_around
        is_large = others & (pieces.length > 0.45 * length) & (pieces.area > 0.15 * pieces.area[main])
        while True:
            gap, is_beside = _gaps(pieces, pieces.box(digit))
            near = others & ~digit & (gap <= np.where(is_large & is_beside, _GAP_BESIDE, _GAP) * length)
            if not near.any():
                break
            digit |= near
        apart = np.flatnonzero(is_large & ~digit)
        apart = apart[np.argsort(-pieces.area[apart])][:_TRIED]
        return digit, max((self._sureness(pieces, n, self._paper) for n in apart), default=0.0)

    def _sureness(self, pieces: Pieces, which: Which, paper: Tone, *, is_soft: bool = False) -> float:
        """How sure it is that pieces are ink on paper, from -1 to 1; 0 for what no digit's strokes are.

        It is the share of their rim where the picture itself changes from ink to paper, less the share of what lies
        around them that is as inky as they are.
        """
        if not is_soft and not _is_drawn(pieces, which, _MOST_INK, _THICKEST):
            return 0.0
        box = left, top, right, bottom = pieces.box(which)
        length, mask = max(right - left, bottom - top), pieces.only(which)
        part = around(box, max(2, round(0.35 * length)))
        as_inky, mask = self._as_inky(mask, part, paper, is_soft=is_soft), mask[part]
        reach = _SOFT_RIM if is_soft else _SHARP_RIM
        soft = grown(mask, max(1, round(reach * length / 2)) if is_soft else 1)
        rim = grown(mask, max(1, round(reach * length)) + 1) & ~soft
        if not rim.any():
            return 0.0
        return float((~as_inky[rim]).mean() - (as_inky & ~soft).sum() / (~mask).sum())

    def _as_inky(self, strokes: Mask, part: tuple[slice, slice], paper: Tone, *, is_soft: bool = False) -> Mask:
        """Which pixels of a part are as inky as the strokes in it; soft ones have little of their most."""
        mask, tone, below = strokes[part], self._tone[part].astype(np.float32), paper[part].astype(np.float32)
        contrast = float(np.percentile((tone - below)[mask], 90))
        # A shadow across the picture moves ink and paper; where the paper differs more than that, it is something else.
        shade = (below - np.median(below[mask])).clip(-0.35 * contrast, 0.35 * contrast)
        half = 0.6 * float(np.median((tone - below)[mask])) if is_soft else contrast / 2
        as_inky: Mask = tone - shade > np.median(tone[mask]) - half
        return as_inky

    def _goes_on(self, strokes: Mask, box: Box) -> bool:
        """Whether what is as inky as the digit goes on from it to the picture's border, close by.

        The strokes of a digit that is cut end before the border where the cut is wide: there it passes for an edge.
        """
        left, top, right, bottom = box
        rows, columns = part = around(box, max(2, round(0.1 * max(right - left, bottom - top))))
        height, width = strokes.shape
        ends = rows.start == 0, rows.stop >= height, columns.start == 0, columns.stop >= width
        if not any(ends):
            return False
        as_inky = self._as_inky(strokes, part, self._paper)
        at_border = np.zeros_like(as_inky)
        for turns, is_end in zip((0, 2, 3, 1), ends, strict=True):
            if is_end and np.rot90(as_inky, turns)[0].mean() < _EDGE:
                np.rot90(at_border, turns)[0] = True
        inky = Pieces(as_inky)
        return bool(((inky.highest(strokes[part]) > 0) & (inky.highest(at_border) > 0)).any())


def around(box: Box, by: int) -> tuple[slice, slice]:
    """The rows and columns of a box with so many pixels more on each side."""
    left, top, right, bottom = box
    return slice(max(0, top - by), bottom + by), slice(max(0, left - by), right + by)


def _is_drawn(pieces: Pieces, which: Which, most: float, thickest: float) -> bool:
    """Whether pieces are strokes: neither too thin for their length, nor too much ink, nor too thick."""
    left, top, right, bottom = pieces.box(which)
    length = max(right - left, bottom - top)
    is_drawn = _LEAST_INK < pieces.area[which].sum() / length**2 < most
    return bool(is_drawn) and not holds_square(
        pieces.only(which)[top:bottom, left:right], max(2, round(thickest * length))
    )


def _gaps(pieces: Pieces, box: Box) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """How many pixels each piece's box is from a box; and whether it is about as tall, and beside, above or below."""
    left, top, right, bottom = box
    across = np.maximum(pieces.left - right, left - pieces.right)
    down = np.maximum(pieces.top - bottom, top - pieces.bottom)
    tall = pieces.bottom - pieces.top
    is_as_tall = (0.6 * tall < bottom - top) & (0.6 * (bottom - top) < tall)
    is_apart = (-across < 0.1 * (pieces.right - pieces.left)) | (-down < 0.1 * tall)
    return np.maximum(across, down).clip(0), is_apart & is_as_tall
