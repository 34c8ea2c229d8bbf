"""Images: the bytes of a PNG or JPEG → a 28x28 float32 tensor in MNIST's own convention; and back to a small PNG.

MNIST's convention (yann.lecun.com/exdb/mnist): white on black, the digit's longest side scaled to 20 pixels with its
grey levels kept, its centre of mass in the middle of 28x28. An image that already is so passes through unchanged.

What the kinds of images become:

================================  ==================================================================================
transparency (alpha or tRNS)      transparent pixels are background: behind strokes, black or white, whichever is
                                  further from them; behind an opaque picture (a card with round corners) its median
colours, palettes, CMYK, YCCK     their luma (ITU-R 601): two colours of the same luma are one grey
1, 2, 4 or 16 bits a channel      scaled to 0..1, never clipped; opaque 16-bit grey keeps all of its levels
EXIF orientation                  applied, from a JPEG and from a PNG's eXIf chunk; an EXIF block that is nonsense is
                                  ignored, or refused where Pillow cannot open the file for it
interlaced, progressive           as any other
animated PNG, MPO                 the still image that viewers without animation show, the first picture
no digit in it, or more           refused; what else is in a picture is told from the digit (`finding.py`)
================================  ==================================================================================
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_pipeline.mnist import finding
from mnist_pipeline.mnist.look import Grey
from mnist_pipeline.pipeline import pictures
from mnist_pipeline.pipeline.errors import Reject

_SIDE = 28
_DIGIT_SIDE = 20

# A larger picture is averaged down to this many pixels on its longest side before any float arithmetic. A digit that
# fills a twentieth of it still has all of the 20 pixels that it will have.
_WORKING_SIDE = 512

# MNIST's centres of mass lie around the middle of pixel 14, half a pixel after the middle of the image. They were moved
# there by whole pixels: all 70,000 lie within 0.52 of it.
_CENTRE = 14
_OFF_CENTRE = 0.55
_WHITE = 254 / 255  # all 70,000 have at least this much in their brightest pixel
_IS_INK = 0.5  # less is the soft edge of a stroke


def to_tensor(data: bytes, *, max_pixels: int = 16_000_000) -> Grey:
    """Bring a PNG or JPEG into MNIST's convention: shape (28, 28), 0.0 for background to 1.0 for ink.

    At its peak, memory is 8 bytes a pixel beside the file, and up to 260 MB more for a bomb of compressed text, where
    Pillow's limits end it. Measured with 16 M pixels: 126 MB for a progressive CMYK JPEG and 16-bit grey with a
    transparent level, 123 MB for whatever else has transparency, 91 MB for 16-bit grey, 62 MB for RGB, 15 MB for grey,
    12 MB for an ordinary JPEG, which is reduced while it is decoded.

    Raises:
        BadImage: it is empty, truncated, damaged, neither PNG nor JPEG, larger than `max_pixels`, or a decompression
            bomb; of an ordinary JPEG only the reduced form counts, at least an eighth of its width and height.
        Reject: there is no digit in it (`nodigit`), more than one (`severaldigits`), or one that the picture's border
            cuts (`cutoff`).
    """
    with pictures.damage_refused():
        grey, step = _greys(data, max_pixels)
    return grey if _is_in_convention(grey) else _framed(finding.digit_ink(grey, step))


def _read(data: bytes, max_pixels: int) -> Image.Image:
    """Decode the first picture, upright."""
    image = pictures.open_picture(data, max_pixels, side=_WORKING_SIDE)
    raw_mode = image.tile[0].args
    image.load()
    if "transparency" in image.info:
        # Pillow scales the pixels to 8 bits, but not the transparent colour that a tRNS chunk names.
        if raw_mode in ("L;2", "L;4"):
            image.info["transparency"] *= 85 if raw_mode == "L;2" else 17
        elif raw_mode == "RGB;16B":
            image.info["transparency"] = tuple(level >> 8 for level in image.info["transparency"])
    pictures.turn_upright(image)
    return image


def _greys(data: bytes, max_pixels: int) -> tuple[Grey, float]:
    """The greys of at most `_WORKING_SIDE` pixels a side, without transparency; and the least step between two."""
    image = _read(data, max_pixels)  # in no other name, so that each larger form is freed once it has been converted
    if image.has_transparency_data:
        image = _with_alpha(image)
    elif image.mode == "I;16":
        image = image.convert("I")
    elif image.mode in ("1", "P"):
        image = image.convert("L")
    if max(image.size) > _WORKING_SIDE:
        image = image.reduce(-(-max(image.size) // _WORKING_SIDE))  # averages what has alpha by its weight
    if image.mode not in ("I", "L", "LA"):
        image = image.convert("L")
    most = 65535 if image.mode == "I" else 255
    greys: Grey = np.asarray(image, np.float32) / np.float32(most)
    if image.mode != "LA":
        return greys, 1 / most
    light, opacity = greys[:, :, 0] * greys[:, :, 1], greys[:, :, 1]
    if opacity.min() < 1:
        light += (1 - opacity) * np.float32(_behind(light, opacity))
    return light, 1 / most


def _with_alpha(image: Image.Image) -> Image.Image:
    if image.mode != "I;16":
        return image.convert("LA")
    # Pillow knows no transparent colour of 16 bits.
    alpha = (np.asarray(image) != image.info["transparency"]).astype(np.uint8) * np.uint8(255)
    grey = (np.asarray(image) >> 8).astype(np.uint8)
    return Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])


def _behind(light: Grey, opacity: Grey) -> float:
    """The grey behind transparent pixels: the paper's where the rest is a picture, else unlike the strokes."""
    if not opacity.any():
        raise Reject("nodigit", "there is no digit in the image: all of it is transparent")
    solid = opacity >= 0.75 * opacity.max()
    inside = light[solid] / opacity[solid]
    usual = float(np.median(inside))
    left, top, right, bottom = _box(solid)
    is_picture = solid.sum() >= 0.75 * (bottom - top) * (right - left) and inside.std() >= 1 / 32
    return usual if is_picture else 1.0 - round(usual)


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is true in a mask where something is."""
    (rows,), (columns,) = mask.any(1).nonzero(), mask.any(0).nonzero()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _centre_of_mass(rows: Grey, columns: Grey) -> tuple[float, float]:
    """Its place across and down, of an image with these sums, in pixels, the middle of the first one at 0."""
    mass = rows.sum()
    return float(columns @ np.arange(len(columns)) / mass), float(rows @ np.arange(len(rows)) / mass)


def _is_in_convention(grey: Grey) -> bool:
    """Whether it is 28x28, black around a digit of 19 or 20 pixels centred by mass, as MNIST's 70,000 images are.

    Most images are asked this, so each pixel is looked at three times at most.
    """
    if grey.shape != (_SIDE, _SIDE) or grey.max() < _WHITE:
        return False
    rows, columns = grey.sum(1), grey.sum(0)
    (down,), (across,) = rows.nonzero(), columns.nonzero()
    side = max(across[-1] - across[0], down[-1] - down[0]) + 1
    return _DIGIT_SIDE - 1 <= side <= _DIGIT_SIDE and all(
        abs(place - _CENTRE) < _OFF_CENTRE for place in _centre_of_mass(rows, columns)
    )


def _framed(ink: Grey) -> Grey:
    """Scale and centre the ink in one resampling, so that no grey is averaged twice."""
    left, top, right, bottom = _box(ink > _IS_INK)
    pixel = max(right - left, bottom - top) / _DIGIT_SIDE  # the side of a pixel to be, in pixels that are
    # The soft edge of a stroke lies outside of what the threshold calls ink; what lies further out is not the digit.
    edge = math.ceil(pixel)
    digit = Image.fromarray(ink).crop((left - edge, top - edge, right + edge, bottom + edge))
    # The frame may reach beyond the digit, where a crop is black, and a lopsided digit beyond the frame.
    inside = np.asarray(digit)
    x, y = (place + 0.5 - (_CENTRE + 0.5) * pixel for place in _centre_of_mass(inside.sum(1), inside.sum(0)))
    left, top, side = math.floor(x), math.floor(y), math.ceil(_SIDE * pixel) + 1
    frame = digit.crop((left, top, left + side, top + side))
    box = (x - left, y - top, x - left + _SIDE * pixel, y - top + _SIDE * pixel)
    how = Image.Resampling.BOX if pixel >= 1 else Image.Resampling.BICUBIC
    framed: Grey = np.asarray(frame.resize((_SIDE, _SIDE), how, box))
    return framed.clip(0, 1)
