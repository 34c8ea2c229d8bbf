"""Find the one digit in a picture: which of its pixels are the digit's ink, and how much of each.

Light comes unevenly, and a picture shows more than a digit: frames, ruled lines, a scan's edge, the table around the
paper, a thumb, specks. What is told apart, and by what:

=======================================  ===========================================================================
shadows, dark corners, falling light     paper is what is bright around each pixel, by a grey opening wider than any
                                         stroke, and ink is what differs from it, in proportion
edges, frames, tables at the border      what lies at the border is thought to go on outwards: then it is wide, and
                                         no stroke
lines across the picture                 they run thin from one border to the other, and are erased
frames inside                            they follow the sides of their box, or have another piece in their midst
blots, coins, sheets                     a square fits into them that fits into no digit's stroke
specks, hairs                            too small, or too thin for their length
pockets of paper between ink and edges   around them there is more of their own grey, and at their rim no change
=======================================  ===========================================================================

Ink may be darker or lighter than its paper: both are looked for (`look.py`), and the surer one is taken.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from mnist_pipeline.mnist.lines import is_narrow
from mnist_pipeline.mnist.look import DARK, Grey, Look, Seen, around
from mnist_pipeline.mnist.pieces import Mask, grown, holds_square
from mnist_pipeline.pipeline.errors import Reject

# A digit is looked for in a copy of at most so many pixels on the longest side.
_SIDE = 320
# Noise is smoothed away before, in pictures of at least so many pixels on the longest side; in smaller ones a stroke is
# as thin as noise.
_SMOOTHED_SIDE = 100
_LEAST_SIDE = 8
_LEAST_LIGHT = 1e-3

_WHY = {
    "nodigit": "there is no digit in the image",
    "severaldigits": "there is more than one digit in the image",
    "cutoff": "the digit is cut off by the image's border",
}

# What is so sure, and of so much of the picture's longest side, is no part of a digit that fills the picture.
_SURE_INSIDE, _LENGTH_INSIDE = 0.9, 0.2
# How much steeper than the whole picture its edges are: of ink; and of what is in focus. In pictures with fewer pixels
# on a side all is edge.
_STEEPER, _SHARP, _ALL_EDGES = 1.35, 2.6, 32
_TWO_TONES = 0.775
# So sure is a digit on paper; what a loop leaves of the paper seldom is.
_SURE_ON_SHEET = 0.57


def digit_ink(grey: Grey, step: float) -> Grey:
    """The digit's ink, 0 for none to 1, in a part of the picture that holds all of it.

    Args:
        grey: the picture.
        step: the least difference between two of its file's greys.

    Raises:
        Reject: there is no digit in it (`nodigit`), more than one (`severaldigits`), or one that the picture's border
            cuts (`cutoff`).
    """
    by = -(-max(grey.shape) // _SIDE)
    small: Grey = grey if by == 1 else np.asarray(Image.fromarray(grey).reduce(by))
    if max(small.shape) >= _SMOOTHED_SIDE:
        small = _smooth(small)
    if max(small.shape) < _LEAST_SIDE or np.ptp(small) < step / 2:
        raise _refusal("nodigit")
    look, seen = _surest(small, step)
    if seen.why:
        raise _refusal(seen.why)
    return _ink(grey, by, look, seen)


def _ink(grey: Grey, by: int, look: Look, seen: Seen) -> Grey:
    """How much ink there is in each pixel of the digit's part of a picture.

    Args:
        grey: the picture.
        by: how many of its pixels, down and across, are one of the copy that was looked at.
        look: at the copy.
        seen: the digit in the copy.
    """
    pixel = seen.length / 20  # of the tensor
    rows, columns = part = around(seen.box, math.ceil(pixel))
    strokes, light = seen.strokes[part], look.grey(seen.paper[part])
    near = grown(strokes, max(1, round(pixel)))
    if by > 1:
        rows, columns = slice(rows.start * by, rows.stop * by), slice(columns.start * by, columns.stop * by)
    grey = grey[rows, columns]
    height, width = grey.shape
    if by > 1:
        near, strokes = (mask.repeat(by, 0).repeat(by, 1)[:height, :width] for mask in (near, strokes))
        light = light.repeat(by, 0).repeat(by, 1)[:height, :width]
    # Dark ink takes its share of whatever light falls on the paper.
    change = (light - grey) / light.clip(_LEAST_LIGHT) if look.is_dark else grey - light
    most = float(np.percentile(change[strokes], 90))
    if most <= 0:
        raise _refusal("nodigit")
    ink: Grey = (change / np.float32(most)).clip(0, 1) * near
    return ink


def _refusal(why: str) -> Reject:
    return Reject(why, _WHY[why])


def _surest(grey: Grey, step: float) -> tuple[Look, Seen]:
    """What is seen of either polarity, whichever is surer; and how it was looked at."""
    looks = Look(grey, step, is_dark=True), Look(grey, step, is_dark=False)
    seen = [look.digit() for look in looks]
    is_bright = _bright(grey)
    inked = ~is_bright, is_bright
    fills = [look.fills(ink) for look, ink in zip(looks, inked, strict=True)]
    if any(fills) and (is_soft := _is_soft(grey, is_bright)) is not None:
        whole = [
            look.cut_out(ink, is_soft=is_soft) if full else Seen()
            for look, ink, full in zip(looks, inked, fills, strict=True)
        ]
        seen = [
            mine if not one.sure or _is_inside(mine, grey) or _is_sheet(one, other) else one
            for mine, other, one in zip(seen, reversed(seen), whole, strict=True)
        ]
    (surest, one), (other, two) = sorted(zip(seen, looks, strict=True), key=lambda pair: _rank(pair[0]), reverse=True)
    # The halo that a JPEG leaves around ink may be as sure as ink, and is much fainter.
    is_halo = other.sure > 0 and surest.contrast < other.contrast / 4
    return (two, other) if is_halo or _is_sheet(surest, other) else (one, surest)


def _is_inside(seen: Seen, grey: Grey) -> bool:
    """Whether it is surely what it is, and no part of a digit that fills the picture."""
    return seen.why != "cutoff" and seen.sure > _SURE_INSIDE and seen.length > _LENGTH_INSIDE * max(grey.shape)


def _rank(seen: Seen) -> tuple[int, int]:
    """The surer one is more, and of two that are about as sure the larger one."""
    return round(20 * seen.sure), seen.length


def _is_sheet(seen: Seen, on_it: Seen) -> bool:
    """Whether one is the paper around a digit, and not a digit around what one of its loops leaves of the paper.

    A digit on paper is surer than a loop, and its strokes are thin; paper is less sure than a digit. The line between
    them was drawn through 76 loops and 258 sheets of the pictures of `tests/kinds.py`.
    """
    if on_it.why or on_it.sure < _SURE_ON_SHEET or on_it.length < seen.length / 5 or on_it.contrast < seen.contrast / 2:
        return False
    (left, top, right, bottom), outer = on_it.box, seen.box
    if not (outer[0] < left and outer[1] < top and right < outer[2] and bottom < outer[3]):
        return False
    thickest = (on_it.sure + 4 * (1 - seen.sure)) / 3.6
    return not holds_square(on_it.strokes[top:bottom, left:right], int(thickest * on_it.length) + 1)


def _is_soft(grey: Grey, is_bright: Mask) -> bool | None:
    """Whether nothing is in focus in a picture of two greys; None if it is none of two greys."""
    steep = _steeper(grey, is_bright)
    if min(grey.shape) < _ALL_EDGES or is_narrow(is_bright):
        return steep < _SHARP
    return steep < _SHARP if steep > _STEEPER and _parted(grey, is_bright) > _TWO_TONES else None


def _steeper(grey: Grey, is_bright: Mask) -> float:
    """How much steeper a picture is where bright and dark meet than it is on the whole."""
    by = max(1, round(0.02 * max(grey.shape)))
    tone = np.log(grey + np.float32(DARK))
    steep = np.zeros_like(tone)
    steep[:, by:-by] = np.abs(tone[:, 2 * by :] - tone[:, : -2 * by])
    steep[by:-by] = np.maximum(steep[by:-by], np.abs(tone[2 * by :] - tone[: -2 * by]))
    mean = float(steep.mean())
    return float(steep[grown(is_bright, 1) & grown(~is_bright, 1)].mean()) / mean if mean else 0.0


def _parted(grey: Grey, is_bright: Mask) -> float:
    """The share of the greys' variance that is between bright and dark: 1 for two greys, 0.75 for a ramp."""
    share = is_bright.mean()
    apart = grey[is_bright].mean() - grey[~is_bright].mean()
    return float(share * (1 - share) * apart**2 / grey.var())


def _bright(grey: Grey) -> Mask:
    """The brighter of the two classes into which a threshold parts the greys best (N. Otsu, 1979), from 256 bins."""
    darkest, brightest = float(grey.min()), float(grey.max())
    bins = ((grey - darkest) * np.float32(255 / (brightest - darkest))).astype(np.uint8)
    counts = np.bincount(bins.ravel(), minlength=256)
    below = counts.cumsum()[:-1]
    moment = (counts * np.arange(256)).cumsum()
    apart = (moment[-1] * (below / bins.size) - moment[:-1]) ** 2 / np.maximum(below * (bins.size - below), 1)
    bright: Mask = bins > int(np.flatnonzero(apart == apart.max()).mean())
    return bright


def _smooth(grey: Grey) -> Grey:
    """The mean of each pixel and its eight neighbours."""
    padded = np.pad(grey, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    mean: Grey = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9)
    return mean
