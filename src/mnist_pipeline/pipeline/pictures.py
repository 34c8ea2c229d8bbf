"""Pictures: the bytes of a PNG or JPEG, opened within bounds; and a tensor of pixels as a small PNG, for predictors
that want one.

Pillow reads and writes the files; its global state is not touched, so every function may run in any number of threads.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from mnist_pipeline.pipeline.errors import BadImage

_COLOURS = 3

# By a file's first bytes. Not Image.open: it has a limit of its own for sizes, and warns about them.
_PNG = b"\x89PNG\r\n\x1a\n"
_READERS = {_PNG: PngImageFile, b"\xff\xd8\xff": JpegImageFile}

# libjpeg works through all pixels for each scan of a progressive JPEG, and a scan takes 31 bytes; usual files have ten.
_SCAN = b"\xff\xda"
_MAX_SCANS = 100


def read_picture(data: bytes, mode: Literal["L", "RGB"], *, max_pixels: int) -> Image.Image:
    """A PNG or JPEG in greys (`L`) or in colour (`RGB`), upright as its EXIF says, transparent pixels white.

    Raises:
        BadImage: it is empty, truncated, damaged, neither PNG nor JPEG, larger than `max_pixels`, or a decompression
            bomb.
    """
    with damage_refused():
        image: Image.Image = open_picture(data, max_pixels)
        image.load()
        turn_upright(image)
        if image.mode == "I;16":
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return image.convert(mode)


def open_picture(data: bytes, max_pixels: int, *, side: int | None = None) -> ImageFile.ImageFile:
    """The file, after all that can be known before a pixel is decoded; of several pictures the first.

    Args:
        data: the file's bytes.
        max_pixels: what is larger is refused; of a JPEG that is reduced row by row, while it is decoded, what its
            reduced form has.
        side: a JPEG may be reduced to an eighth, in grey, but not below this many pixels on its longest side.

    Raises:
        BadImage: it is empty, neither PNG nor JPEG, or larger than `max_pixels`.
    """
    if not data:
        raise BadImage("the image is empty: it has no bytes")
    reader = next((reader for signature, reader in _READERS.items() if data.startswith(signature)), None)
    if reader is None:
        raise BadImage("neither a PNG nor a JPEG: it does not begin as they do")
    image = reader(BytesIO(data))
    width, height = image.size
    # Of a progressive one libjpeg keeps all coefficients, however much it reduces.
    if side and (width * height <= max_pixels or "progressive" not in image.info):
        image.draft("L", (width * side // max(width, height) or 1, height * side // max(width, height) or 1))
    if image.width * image.height > max_pixels:
        raise BadImage(f"the image is {width}x{height}, more than {max_pixels:,} pixels")
    if reader is JpegImageFile and data.count(_SCAN) > _MAX_SCANS:
        raise BadImage(f"the image has more than {_MAX_SCANS} scans")
    if reader is PngImageFile:
        _check_sums(data)
    return image


def _check_sums(png: bytes) -> None:
    """See that each chunk of a PNG is as it was written (PNG specification, section 5.3).

    Pillow does so only with a reader that cannot be used afterwards.

    Raises:
        ValueError: one is not, or the file ends before its last one.
    """
    start, kind = len(_PNG), b""
    while kind != b"IEND":
        end = start + 8 + int.from_bytes(png[start : start + 4], "big")
        kind = png[start + 4 : start + 8]
        if zlib.crc32(memoryview(png)[start + 4 : end]) != int.from_bytes(png[end : end + 4], "big") or not kind:
            raise ValueError(f"the checksum of chunk {kind!a} is wrong")
        start = end + 4


def turn_upright(image: Image.Image) -> None:
    """Turn a picture that is loaded as its EXIF says; nonsense in EXIF is no harm."""
    if not image.info:
        return
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001, S110 - Pillow answers nonsense with nearly anything
        pass


@contextlib.contextmanager
def damage_refused() -> Iterator[None]:
    """Damaged data makes Pillow raise nearly anything: here it is BadImage."""
    try:
        yield
    except (BadImage, MemoryError):
        raise
    except Exception as exc:
        raise BadImage(f"the image is damaged or truncated ({type(exc).__name__}: {_unquoted(exc)!a})") from exc


def _unquoted(exc: Exception) -> str:
    """What Pillow says, without the bytes of the image that it quotes."""
    return re.sub(r"b?(['\"]).*?\1", "...", str(exc))


def to_png(tensor: NDArray[Any]) -> bytes:
    """Write a tensor as a PNG of 8 bits a channel: grey from `(H, W)`, in colour from `(3, H, W)` or `(H, W, 3)`.

    Values are rounded to 1/255, those outside 0..1 cut.
    """
    pixels = to_bytes(tensor)
    if pixels.ndim == _COLOURS:
        if pixels.shape[0] in (1, _COLOURS):
            pixels = np.moveaxis(pixels, 0, 2)
        if pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
    stream = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def to_bytes(tensor: NDArray[Any]) -> NDArray[np.uint8]:
    """Values in 0..1 as 0..255; what lies outside, as in an inline tensor it may, is cut and does not wrap round."""
    levels: NDArray[np.uint8] = np.rint(tensor.clip(0, 1) * 255).astype(np.uint8)
    return levels


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape can be written so."""
    colours = len(shape) == _COLOURS and {shape[0], shape[2]} & {1, _COLOURS}
    return bool(len(shape) == _COLOURS - 1 or colours)
