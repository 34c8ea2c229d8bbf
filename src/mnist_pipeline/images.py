"""Images: the bytes of a PNG or JPEG → a 28×28 float32 tensor in MNIST's own convention; and back to a small PNG.

MNIST's convention (yann.lecun.com/exdb/mnist): white on black, the digit's longest side scaled to 20 pixels with its grey
levels kept, its centre of mass in the middle of 28×28. An image that already is so passes through unchanged.

What arrives was made by anybody. So a file is walked chunk by chunk (PNG) or segment by segment (JPEG) before Pillow sees
it: its size is known before a pixel is decoded, and Pillow gets only the parts that make the picture. Text, colour
profiles, animation and metadata are not for it to parse, to inflate or to warn about. Neither Pillow's nor the
interpreter's global state is touched, so every function may run in any number of threads.

What the kinds of images become:

================================  ==================================================================================
transparency (alpha or tRNS)      transparent pixels are background: behind strokes, black or white, whichever is
                                  further from them; behind an opaque picture (a card with round corners) its median
colours, palettes, CMYK, YCCK     their luma (ITU-R 601): two colours of the same luma are one grey
1, 2, 4 or 16 bits a channel      scaled to 0..1, never clipped; opaque 16-bit grey keeps all of its levels
EXIF orientation                  applied, from a JPEG and from a PNG's eXIf chunk; nonsense there is ignored
interlaced, progressive           as any other
animated PNG, MPO                 the still image that viewers without animation show, the first picture
one grey all over                 refused: there is no digit in it
================================  ==================================================================================
"""

from __future__ import annotations

import math
import struct
import zlib
from io import BytesIO
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from mnist_pipeline.errors import BadImage

Grey: TypeAlias = NDArray[np.float32]
"""A grey image, `[height, width]`, 0.0 black to 1.0 white."""

_SIDE = 28
_DIGIT_SIDE = 20

# A larger picture is averaged down to this many pixels on its longest side before any float arithmetic. A digit that
# fills a twentieth of it still has all of the 20 pixels that it will have.
_WORKING_SIDE = 512

# More parts than any writer makes, and few enough to be walked in a tenth of a second.
_MAX_PARTS = 65_536
# Text and profiles are skipped, but one that inflates to more than this is a bomb, and its sender not to be trusted.
_MAX_INFLATED = 8 << 20
# libjpeg works through all pixels for each scan of a progressive JPEG, however small; usual files have about ten.
_MAX_SCANS = 100

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"


def to_tensor(data: bytes, *, max_pixels: int = 16_000_000) -> Grey:
    """Bring a PNG or JPEG into MNIST's convention: shape (28, 28), 0.0 for background to 1.0 for ink.

    Raises:
        BadImage: it is empty, truncated, damaged, neither PNG nor JPEG, larger than `max_pixels`, a decompression bomb,
            or of one grey all over.
    """
    picture = _walk(data)
    if not picture.width or not picture.height:
        raise BadImage(f"the image has no pixels: it is {picture.width} wide and {picture.height} high")
    if picture.width * picture.height > max_pixels:
        raise BadImage(f"the image is {picture.width}x{picture.height}, more than {max_pixels:,} pixels")
    try:
        grey = _decode(picture)
    except (BadImage, MemoryError):
        raise
    except Exception as exc:  # noqa: BLE001 - damaged data makes Pillow raise nearly anything
        raise BadImage(f"the image is damaged or truncated ({type(exc).__name__} while decoding)") from exc
    return grey if _is_in_convention(grey) else _normalise(grey)


def to_png(tensor: Grey) -> bytes:
    """Write a tensor of shape (28, 28), values in 0..1, as an 8-bit grey PNG; values are rounded to 1/255.

    Written by hand (PNG, W3C Recommendation, section 11: IHDR, IDAT, IEND) because that costs a fraction of Pillow's call.
    """
    rows = np.zeros((_SIDE, 1 + _SIDE), np.uint8)  # each row begins with its filter type, 0 for none
    rows[:, 1:] = np.rint(tensor * 255)
    return _PNG_HEAD + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 1)) + _PNG_END


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


_PNG_HEAD = _PNG_SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0))
_PNG_END = _chunk(b"IEND", b"")


# --- from a file to the parts that make its picture


class _Picture(NamedTuple):
    """A file without all that does not make its picture, and what its header says."""

    data: bytes
    is_png: bool
    width: int
    height: int
    bits: int
    orientation: int


def _walk(data: bytes) -> _Picture:
    if data.startswith(_PNG_SIGNATURE):
        walk = _walk_png
    elif data.startswith(_JPEG_SIGNATURE):
        walk = _walk_jpeg
    elif data:
        raise BadImage(f"neither a PNG nor a JPEG: it starts with {data[:8]!r}")
    else:
        raise BadImage("the image is empty: it has no bytes")
    try:
        return walk(data)
    except (struct.error, IndexError) as exc:
        raise BadImage("the image is truncated") from exc


def _walk_png(data: bytes) -> _Picture:
    """Keep the chunks that make the picture (PNG, W3C Recommendation, section 11) and check the sums of those."""
    kept = [_PNG_SIGNATURE]
    header: tuple[int, int, int] | None = None
    orientation, inflatable = 1, _MAX_INFLATED
    at = len(_PNG_SIGNATURE)
    for _ in range(_MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise BadImage("the image is truncated")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise BadImage(f"the image is damaged: the checksum of its {kind.decode()} chunk is wrong")
            if (kind == b"IHDR") != (header is None):
                raise BadImage("the image is damaged: a PNG begins with its only IHDR chunk")
            if header is None:
                header = struct.unpack_from(">IIB", data, at + 8)
            kept.append(data[at:end])
            if kind == b"IEND":
                return _Picture(b"".join(kept), True, *header, orientation)
        elif kind == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : end - 4])
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            inflatable -= _inflated_size(kind, data[at + 8 : end - 4], inflatable)
        at = end
    raise BadImage(f"the image has more than {_MAX_PARTS:,} chunks")


def _inflated_size(kind: bytes, body: bytes, limit: int) -> int:
    """Bytes that the compressed part of a text or profile chunk inflates to; damaged ones count as far as they go."""
    _, _, rest = body.partition(b"\0")
    if kind == b"iTXt":
        if not rest.startswith(b"\x01"):
            return 0
        rest = rest[2:].split(b"\0", 2)[-1]
    else:
        rest = rest[1:]
    try:
        size = len(zlib.decompressobj().decompress(rest, limit + 1))
    except zlib.error:
        return 0
    if size > limit:
        raise BadImage(f"the image's {kind.decode()} chunks are a decompression bomb: over {_MAX_INFLATED:,} bytes")
    return size


def _walk_jpeg(data: bytes) -> _Picture:
    """Keep the segments that make the picture (ITU-T T.81, annex B; Adobe's APP14 tells the colours' order)."""
    kept = [data[:2]]
    header: tuple[int, int, int] | None = None
    orientation = 1
    at = 2
    for _ in range(_MAX_PARTS):
        if data[at] != 0xFF:
            raise BadImage("the image is damaged: a JPEG segment has no marker")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if end > len(data):
            raise BadImage("the image is truncated")
        if marker == 0xDA:
            if header is None:
                raise BadImage("the image is damaged: a JPEG scan without a frame")
            if data.find(b"\xff\xd9", end) < 0:
                raise BadImage("the image is truncated")
            if data.count(b"\xff\xda", at) > _MAX_SCANS:
                raise BadImage(f"the image has more than {_MAX_SCANS} scans")
            kept.append(data[at:])
            return _Picture(b"".join(kept), False, *header, orientation)
        if 0xC0 <= marker <= 0xCF or marker in (0xDB, 0xDD, 0xE0, 0xEE):
            kept.append(data[at:end])
            if marker not in (0xC4, 0xC8, 0xCC) and marker <= 0xCF:
                if header is not None:
                    raise BadImage("the image is damaged: a JPEG with two frames")
                bits, height, width = struct.unpack_from(">BHH", data, at + 4)
                header = (width, height, bits)
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            orientation = _exif_orientation(data[at + 10 : end])
        at = end
    raise BadImage(f"the image has more than {_MAX_PARTS:,} segments")


def _exif_orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory (Exif 2.32, section 4.6.4), 1 to 8; 1 where there is none or it is nonsense."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * entry)
            if tag == 0x0112 and kind == 3 and 1 <= value <= 8:
                return int(value)
    except struct.error:
        pass
    return 1


# --- from the picture's parts to greys


def _decode(picture: _Picture) -> Grey:
    """Decode at most about `_WORKING_SIDE` pixels a side, upright and without transparency."""
    stream = BytesIO(picture.data)
    # Not Image.open: it warns about sizes that have been judged already, and tries to parse what has been left out.
    image: PngImageFile | JpegImageFile
    if picture.is_png:
        image = PngImageFile(stream)
    else:
        image = JpegImageFile(stream)
        longest = max(image.size)
        # libjpeg halves up to three times while it decodes; never below the working size.
        image.draft("L", (image.width * _WORKING_SIDE // longest or 1, image.height * _WORKING_SIDE // longest or 1))
    factor = -(-max(image.size) // _WORKING_SIDE)
    if image.mode in ("LA", "RGBA") or "transparency" in image.info:
        grey = _composite(image, factor, picture.bits)
    else:
        grey = _opaque(image, factor)
    return _upright(grey, picture.orientation)


def _opaque(image: Image.Image, factor: int) -> Grey:
    white = 255
    if image.mode == "I;16":
        image, white = image.convert("I"), 65535
    elif image.mode in ("1", "P"):
        image = image.convert("L")
    if factor > 1:
        image = image.reduce(factor)
    if image.mode not in ("L", "I"):
        image = image.convert("L")
    return np.asarray(image).astype(np.float32) / np.float32(white)


def _composite(image: Image.Image, factor: int, bits: int) -> Grey:
    """Put what is behind the transparent pixels behind them; averaged down only after weighting by alpha."""
    key = image.info.get("transparency")
    if image.mode == "I;16":
        pixels = np.asarray(image)
        alpha = Image.fromarray(np.where(pixels == key, 0, 255).astype(np.uint8))
        grey = Image.fromarray((pixels >> 8).astype(np.uint8))
    else:
        # Pillow scales the pixels to 8 bits but not the transparent colour that tRNS names.
        if image.mode == "L" and bits < 8:
            image.info["transparency"] = key * 255 // (2**bits - 1)
        elif image.mode == "RGB" and bits == 16:
            image.info["transparency"] = tuple(level >> 8 for level in key)
        if image.mode not in ("LA", "RGBA"):
            image = image.convert("RGBA")
        alpha, grey = image.getchannel("A"), image.convert("L")
    weighted = ImageChops.multiply(grey, alpha)
    if factor > 1:
        weighted, alpha = weighted.reduce(factor), alpha.reduce(factor)
    light = np.asarray(weighted).astype(np.float32) / np.float32(255)
    opacity = np.asarray(alpha).astype(np.float32) / np.float32(255)
    if opacity.min() == 1:
        return light
    return light + (1 - opacity) * np.float32(_behind(light, opacity))


def _behind(light: Grey, opacity: Grey) -> float:
    """The grey behind transparent pixels: the paper's where the rest is a picture of its own, else unlike the strokes."""
    if not opacity.any():
        raise BadImage("there is no digit in the image: all of it is transparent")
    solid = opacity >= 0.75 * opacity.max()
    inside = light[solid] / opacity[solid]
    usual = float(np.median(inside))
    height, width = (np.ptp(np.flatnonzero(solid.any(axis))) + 1 for axis in (1, 0))
    is_picture = solid.sum() >= 0.75 * height * width and inside.std() >= 1 / 16
    if is_picture:
        return usual
    return 0.0 if usual >= 0.5 else 1.0


def _upright(grey: Grey, orientation: int) -> Grey:
    """Undo the EXIF orientation: 5 to 8 are stored with rows as columns."""
    if orientation >= 5:
        grey = grey.T
    if orientation in (3, 4, 7, 8):
        grey = grey[::-1]
    if orientation in (2, 3, 6, 7):
        grey = grey[:, ::-1]
    return grey


# --- from greys to MNIST's convention


_INDEX = np.arange(_SIDE, dtype=np.float32)


def _is_in_convention(grey: Grey) -> bool:
    """Whether this is 28×28, black around a digit of 19 or 20 pixels centred by mass; all of MNIST's 70,000 images are.

    Theirs have 0 and at least 254 of 255, and centres of mass from 13.48 to 14.50, counted from 0: they were moved by whole
    pixels.
    """
    if grey.shape != (_SIDE, _SIDE):
        return False
    rows, columns = grey.sum(1), grey.sum(0)
    (inked_rows,), (inked_columns,) = rows.nonzero(), columns.nonzero()
    if not len(inked_rows):
        return False
    longest = 1 + max(inked_rows[-1] - inked_rows[0], inked_columns[-1] - inked_columns[0])
    if not _DIGIT_SIDE - 1 <= longest <= _DIGIT_SIDE or grey.max() < 254 / 255:
        return False
    mass = rows.sum()
    return bool(abs(rows @ _INDEX / mass - 14) < 0.55 and abs(columns @ _INDEX / mass - 14) < 0.55)


def _normalise(grey: Grey) -> Grey:
    """Find the digit, make it white on black, stretch its greys, scale its longest side to 20 pixels, centre its mass.

    Raises:
        BadImage: nothing in it is lighter or darker than the rest.
    """
    # What is found is found in a smoothed copy, or a few pixels of a photo's noise would count as ink.
    smooth = _smooth(grey) if max(grey.shape) >= 100 else grey
    light = _fall_of_light(smooth)
    grey, smooth = grey - light, smooth - light
    if np.ptp(smooth) < 4 / 255:
        raise BadImage("there is no digit in the image: all of it is one grey")
    threshold = _otsu(smooth)
    if np.median(np.concatenate([smooth[0], smooth[-1], smooth[:, 0], smooth[:, -1]])) > threshold:
        grey, smooth, threshold = -grey, -smooth, -threshold
    is_ink = smooth > threshold
    background = np.median(smooth[~is_ink])
    contrast = np.percentile(smooth[is_ink], 95) - background
    ink = np.clip((grey - background) / contrast, 0, 1).astype(np.float32)
    return _framed(ink, smooth - background > contrast / 2)


def _smooth(grey: Grey) -> Grey:
    """The mean of each pixel and its eight neighbours."""
    padded = np.pad(grey, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9)


def _fall_of_light(grey: Grey) -> Grey:
    """The slope of the background's greys, a plane: a photo's light falls off to one side, a drawing's plane is flat.

    Fitted three times to the larger of the two classes that remain, on a grid of at most 96 points a side.
    """
    height, width = grey.shape
    down, across = np.arange(height) / height, np.arange(width) / width
    step = -(-max(height, width) // 96)
    sample = grey[::step, ::step].astype(np.float64)
    terms = np.stack(np.broadcast_arrays(1.0, down[::step, None], across[None, ::step]), -1)
    fitted = np.ones(sample.shape, bool)
    for _ in range(3):
        (level, fall, drift), *_ = np.linalg.lstsq(terms[fitted], sample[fitted], rcond=None)
        rest = sample - terms @ (level, fall, drift)
        lighter = rest > _otsu(rest)
        fitted = lighter if 2 * lighter.sum() > lighter.size else ~lighter
    return np.add.outer(fall * down, drift * across).astype(np.float32)


def _otsu(grey: NDArray[np.floating]) -> float:
    """The threshold that parts the greys best into two classes (N. Otsu, 1979), from a histogram of 256 bins.

    Where several part them equally well, which is where a gap is in the histogram, it is their middle.
    """
    lowest, highest = float(grey.min()), float(grey.max())
    counts, edges = np.histogram(grey, 256, (lowest, highest))
    below = counts.cumsum()[:-1]
    moment = (counts * np.arange(256)).cumsum()
    apart = (moment[-1] * below / grey.size - moment[:-1]) ** 2 / np.maximum(below * (grey.size - below), 1)
    return float(edges[1:-1][apart == apart.max()].mean())


def _framed(ink: Grey, is_ink: NDArray[np.bool_]) -> Grey:
    """Scale and centre the ink in one resampling, so that no grey is averaged twice."""
    inked_rows, inked_columns = _inked(is_ink, 1), _inked(is_ink, 0)
    top, bottom = int(inked_rows[0]), int(inked_rows[-1]) + 1
    left, right = int(inked_columns[0]), int(inked_columns[-1]) + 1
    pixel = max(bottom - top, right - left) / _DIGIT_SIDE  # the side of a pixel to be, in pixels that are
    # The soft edge of a stroke lies outside of what the threshold calls ink; what lies further out is not the digit.
    edge = math.ceil(pixel)
    top, left = max(top - edge, 0), max(left - edge, 0)
    digit = ink[top : bottom + edge, left : right + edge]
    height, width = digit.shape
    mass = digit.sum()
    # MNIST's centres of mass lie around the middle of pixel 14, half a pixel after the middle of the image.
    y = float(digit.sum(1) @ np.arange(height)) / mass + 0.5 - (_SIDE / 2 + 0.5) * pixel
    x = float(digit.sum(0) @ np.arange(width)) / mass + 0.5 - (_SIDE / 2 + 0.5) * pixel
    # The frame may reach beyond the digit, and the digit, when it is lopsided, beyond the frame.
    before_y, before_x = max(0, -math.floor(y)), max(0, -math.floor(x))
    after_y, after_x = (max(0, math.ceil(at + _SIDE * pixel) - size) for at, size in ((y, height), (x, width)))
    around = np.pad(digit, ((before_y, after_y), (before_x, after_x)))
    y, x = y + before_y, x + before_x
    box = (x, y, x + _SIDE * pixel, y + _SIDE * pixel)
    how = Image.Resampling.BOX if pixel >= 1 else Image.Resampling.BICUBIC
    framed = Image.fromarray(around).resize((_SIDE, _SIDE), how, box)
    return np.clip(np.asarray(framed), 0, 1)


def _inked(is_ink: NDArray[np.bool_], axis: int) -> NDArray[np.intp]:
    """The rows or columns with at least two pixels of ink, or with one where none has more."""
    counts = is_ink.sum(axis)
    return np.flatnonzero(counts >= min(2, counts.max()))
