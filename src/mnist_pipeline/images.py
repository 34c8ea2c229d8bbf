"""Images: the bytes of a PNG or JPEG → a 28x28 float32 tensor in MNIST's own convention; and back to a small PNG.

MNIST's convention (yann.lecun.com/exdb/mnist): white on black, the digit's longest side scaled to 20 pixels with its
grey levels kept, its centre of mass in the middle of 28x28. An image that already is so passes through unchanged.

What arrives was made by anybody. So a file is walked chunk by chunk (PNG) or segment by segment (JPEG) before Pillow
sees it: its size is known before a pixel is decoded, and Pillow gets only the parts that make the picture. Text, colour
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
from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple, TypeAlias

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

# Noise is smoothed away, before anything is looked for, in pictures of at least so many pixels on the longest side; in
# smaller ones a stroke is as thin as noise.
_SMOOTHED_SIDE = 100

# MNIST's centres of mass lie around the middle of pixel 14, half a pixel after the middle of the image. They were moved
# there by whole pixels: all 70,000 lie within 0.52 of it.
_CENTRE = 14
_OFF_CENTRE = 0.55
# All 70,000 have at least this much in their brightest pixel.
_WHITE = 254 / 255

# Less contrast than this is not a digit.
_BLANK = 4 / 255

# More parts than any writer makes, and few enough to be walked in a tenth of a second.
_MAX_PARTS = 65_536
# Text and profiles are skipped, but one that inflates to more than this is a bomb, and its sender not to be trusted.
_MAX_INFLATED = 8 << 20
_DEFLATE_RATIO = 1032  # zlib's own figure for the most that a byte can become
# libjpeg works through all pixels for each scan of a progressive JPEG, however small; usual files have about ten.
_MAX_SCANS = 100

_TRUNCATED = "the image is truncated"

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_PNG_COMPRESSED = {b"zTXt", b"iTXt", b"iCCP"}

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_JPEG_PREFIX = 0xFF
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Tables, the restart interval, and what tells the order of the colours: JFIF's and Adobe's segments.
_JPEG_KEPT = {0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE}
_JPEG_APP1 = 0xE1
_JPEG_SCAN = 0xDA
_JPEG_END = b"\xff\xd9"

_EXIF_ORIENTATION, _EXIF_SHORT = 0x0112, 3


def to_tensor(data: bytes, *, max_pixels: int = 16_000_000) -> Grey:
    """Bring a PNG or JPEG into MNIST's convention: shape (28, 28), 0.0 for background to 1.0 for ink.

    Memory is bounded by `max_pixels`: at its peak 8 bytes a pixel beside the file and one copy of it. Measured with
    16 M pixels: 126 MB for a progressive CMYK JPEG, 123 MB for a PNG palette with transparency, 107 MB for RGBA, 92 MB
    for 16-bit grey, 63 MB for RGB, 17 MB for grey, 11 MB for an ordinary JPEG, which is reduced while it is decoded.

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
    except Exception as exc:  # damaged data makes Pillow raise nearly anything
        raise BadImage(f"the image is damaged or truncated ({type(exc).__name__} while decoding)") from exc
    return grey if _is_in_convention(grey) else _normalise(grey)


def to_png(tensor: Grey) -> bytes:
    """Write a tensor of shape (28, 28), values in 0..1, as an 8-bit grey PNG; values are rounded to 1/255.

    Written by hand (PNG, W3C Recommendation, section 11.2): that costs a third of Pillow's call.
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

    reader: type[PngImageFile | JpegImageFile]
    data: bytes
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
    except struct.error as exc:
        raise BadImage(_TRUNCATED) from exc


def _walk_png(data: bytes) -> _Picture:
    """Keep the chunks that make the picture, and check that they are whole."""
    kept = [_PNG_SIGNATURE]
    width, height, bits, orientation = 0, 0, 0, 1
    inflatable = _MAX_INFLATED
    for kind, start, end in _chunks(data):
        body = data[start + 8 : end - 4]
        if (kind == b"IHDR") != (start == len(_PNG_SIGNATURE)):
            raise BadImage("the image is damaged: a PNG begins with its only IHDR chunk")
        if kind in _PNG_KEPT:
            if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[end - 4 : end], "big"):
                raise BadImage(f"the image is damaged: the checksum of its {kind.decode()} chunk is wrong")
            kept.append(data[start:end])
        if kind == b"IHDR":
            width, height, bits = struct.unpack_from(">IIB", body)
        elif kind == b"eXIf":
            orientation = _exif_orientation(body)
        elif kind in _PNG_COMPRESSED:
            inflatable -= _inflated_size(kind, body, inflatable)
    return _Picture(PngImageFile, b"".join(kept), width, height, bits, orientation)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's kind, start and end, IEND the last (PNG, W3C Recommendation, section 5.3)."""
    start = len(_PNG_SIGNATURE)
    for _ in range(_MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            raise BadImage(_TRUNCATED)
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end
    raise BadImage(f"the image has more than {_MAX_PARTS:,} chunks")


def _inflated_size(kind: bytes, body: bytes, limit: int) -> int:
    """Bytes that a text or profile chunk's compressed part inflates to; a damaged one counts as the most it could."""
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
        return min(len(rest) * _DEFLATE_RATIO, limit)
    if size > limit:
        raise BadImage(f"the image's {kind.decode()} chunks are a decompression bomb: over {_MAX_INFLATED:,} bytes")
    return size


def _walk_jpeg(data: bytes) -> _Picture:
    """Keep the segments that make the picture; after the first scan's header, all that follows."""
    kept = [_JPEG_SIGNATURE[:2]]
    frames: list[tuple[int, int, int]] = []
    orientation = 1
    scans = len(data)
    for marker, start, end in _segments(data):
        if marker in _JPEG_FRAMES:
            frames.append(struct.unpack_from(">BHH", data, start + 4))
        if marker == _JPEG_SCAN:
            scans = start
        elif marker in _JPEG_FRAMES or marker in _JPEG_KEPT:
            kept.append(data[start:end])
        elif marker == _JPEG_APP1 and data.startswith(b"Exif\0\0", start + 4):
            orientation = _exif_orientation(data[start + 10 : end])
    if len(frames) != 1:
        raise BadImage(f"the image is damaged: a JPEG has one frame, not {len(frames)}")
    if data.find(_JPEG_END, scans) < 0:
        raise BadImage(_TRUNCATED)
    if data.count(bytes((0xFF, _JPEG_SCAN)), scans) > _MAX_SCANS:
        raise BadImage(f"the image has more than {_MAX_SCANS} scans")
    ((bits, height, width),) = frames
    return _Picture(JpegImageFile, b"".join([*kept, data[scans:]]), width, height, bits, orientation)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Each segment's marker, start and end, the first scan's header the last (ITU-T T.81, annex B)."""
    start = 2
    for _ in range(_MAX_PARTS):
        while data.startswith(b"\xff\xff", start):  # fill bytes
            start += 1
        prefix, marker, length = struct.unpack_from(">BBH", data, start)
        if prefix != _JPEG_PREFIX:
            raise BadImage("the image is damaged: a JPEG segment has no marker")
        end = start + 2 + length
        if end > len(data):
            raise BadImage(_TRUNCATED)
        yield marker, start, end
        if marker == _JPEG_SCAN:
            return
        start = end
    raise BadImage(f"the image has more than {_MAX_PARTS:,} segments")


def _exif_orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory (Exif 2.32, section 4.6.4): 1 to 8, 1 where there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * entry)
            if tag == _EXIF_ORIENTATION and kind == _EXIF_SHORT:
                return int(value)
    except struct.error:
        pass
    return 1


# --- from the picture's parts to greys


def _decode(picture: _Picture) -> Grey:
    """Decode at most about `_WORKING_SIDE` pixels a side, upright and without transparency."""
    # Not Image.open: it warns about sizes, which have been judged already.
    image: Image.Image = picture.reader(BytesIO(picture.data))
    longest = max(image.size)
    # libjpeg halves up to three times while it decodes, here not below the working size; a PNG knows no drafts.
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
    return _greys(image, white)


def _composite(image: Image.Image, factor: int, bits: int) -> Grey:
    """Put what is behind the transparent pixels behind them; averaged down only after weighting by alpha."""
    key: Any = image.info.get("transparency")
    if image.mode == "I;16":
        pixels = np.asarray(image)
        alpha = Image.fromarray(np.where(pixels == key, 0, 255).astype(np.uint8))
        grey = Image.fromarray((pixels >> 8).astype(np.uint8))
    else:
        # Pillow scales the pixels to 8 bits but not the transparent colour that tRNS names.
        if image.mode == "L":
            image.info["transparency"] = key * 255 // (2**bits - 1)
        elif image.mode == "RGB":
            image.info["transparency"] = tuple(level >> max(bits - 8, 0) for level in key)
        if image.mode not in ("LA", "RGBA"):
            image = image.convert("RGBA")
        alpha, grey = image.getchannel("A"), image.convert("L")
    weighted = ImageChops.multiply(grey, alpha)
    if factor > 1:
        weighted, alpha = weighted.reduce(factor), alpha.reduce(factor)
    light, opacity = _greys(weighted), _greys(alpha)
    if opacity.min() < 1:
        light += (1 - opacity) * np.float32(_behind(light, opacity))
    return light


def _greys(image: Image.Image, white: int = 255) -> Grey:
    greys: Grey = np.asarray(image).astype(np.float32)
    greys /= white
    return greys


def _behind(light: Grey, opacity: Grey) -> float:
    """The grey behind transparent pixels: the paper's where the rest is a picture, else unlike the strokes."""
    if not opacity.any():
        raise BadImage("there is no digit in the image: all of it is transparent")
    solid = opacity >= 0.75 * opacity.max()
    inside = light[solid] / opacity[solid]
    usual = float(np.median(inside))
    height, width = (np.ptp(np.flatnonzero(solid.any(axis))) + 1 for axis in (1, 0))
    is_picture = solid.sum() >= 0.75 * height * width and inside.std() >= 1 / 32
    if is_picture:
        return usual
    return 1.0 - round(usual)


def _upright(grey: Grey, orientation: int) -> Grey:
    """Undo the EXIF orientation; 5 to 8 are stored with rows as columns, and what is not 1 to 8 is nonsense."""
    if orientation in (5, 6, 7, 8):
        grey = grey.T
    if orientation in (3, 4, 7, 8):
        grey = grey[::-1]
    if orientation in (2, 3, 6, 7):
        grey = grey[:, ::-1]
    return grey


# --- from greys to MNIST's convention


_INDEX = np.arange(_SIDE, dtype=np.float32)


def _is_in_convention(grey: Grey) -> bool:
    """Whether it is 28x28, black around a digit of 19 or 20 pixels centred by mass, as MNIST's 70,000 images are."""
    if grey.shape != (_SIDE, _SIDE):
        return False
    rows, columns = grey.sum(1), grey.sum(0)
    (inked_rows,), (inked_columns,) = rows.nonzero(), columns.nonzero()
    if not len(inked_rows):
        return False
    longest = 1 + max(inked_rows[-1] - inked_rows[0], inked_columns[-1] - inked_columns[0])
    if not _DIGIT_SIDE - 1 <= longest <= _DIGIT_SIDE or grey.max() < _WHITE:
        return False
    mass = rows.sum()
    return bool(
        abs(rows @ _INDEX / mass - _CENTRE) < _OFF_CENTRE and abs(columns @ _INDEX / mass - _CENTRE) < _OFF_CENTRE
    )


def _normalise(grey: Grey) -> Grey:
    """Find the digit, make it white on black, stretch its greys, scale its longest side to 20 pixels, centre its mass.

    Raises:
        BadImage: nothing in it is lighter or darker than the rest.
    """
    # What is found is found in a smoothed copy, or a few pixels of a photo's noise would count as ink.
    smooth = _smooth(grey) if max(grey.shape) >= _SMOOTHED_SIDE else grey
    light = _fall_of_light(smooth)
    grey, smooth = grey - light, smooth - light
    if np.ptp(smooth) < _BLANK:
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
    mean: Grey = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9)
    return mean


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
    plane: Grey = np.add.outer(fall * down, drift * across).astype(np.float32)
    return plane


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
    (inked_rows,), (inked_columns,) = is_ink.any(1).nonzero(), is_ink.any(0).nonzero()
    top, bottom = int(inked_rows[0]), int(inked_rows[-1]) + 1
    left, right = int(inked_columns[0]), int(inked_columns[-1]) + 1
    pixel = max(bottom - top, right - left) / _DIGIT_SIDE  # the side of a pixel to be, in pixels that are
    # The soft edge of a stroke lies outside of what the threshold calls ink; what lies further out is not the digit.
    edge = math.ceil(pixel)
    top, left = max(top - edge, 0), max(left - edge, 0)
    digit = ink[top : bottom + edge, left : right + edge]
    height, width = digit.shape
    mass = digit.sum()
    y = float(digit.sum(1) @ np.arange(height)) / mass + 0.5 - (_CENTRE + 0.5) * pixel
    x = float(digit.sum(0) @ np.arange(width)) / mass + 0.5 - (_CENTRE + 0.5) * pixel
    # The frame may reach beyond the digit, and the digit, when it is lopsided, beyond the frame.
    before_y, before_x = max(0, -math.floor(y)), max(0, -math.floor(x))
    after_y, after_x = (max(0, math.ceil(at + _SIDE * pixel) - size) for at, size in ((y, height), (x, width)))
    around = np.pad(digit, ((before_y, after_y), (before_x, after_x)))
    y, x = y + before_y, x + before_x
    box = (x, y, x + _SIDE * pixel, y + _SIDE * pixel)
    how = Image.Resampling.BOX if pixel >= 1 else Image.Resampling.BICUBIC
    framed: Grey = np.asarray(Image.fromarray(around).resize((_SIDE, _SIDE), how, box))
    return framed.clip(0, 1)
