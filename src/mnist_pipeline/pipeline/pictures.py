"""Pictures: one that a task reads from an object's bytes, and a tensor of pixels as a small PNG; pure."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mnist_pipeline.pipeline.errors import BadImage

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
"""What `read` takes, by Pillow's names: what cameras, phones and browsers write."""

_COLOURS = 3

# libjpeg works through all pixels for each scan of a progressive JPEG, and a scan takes 31 bytes; usual files have ten.
_JPEG, _SCAN = b"\xff\xd8\xff", b"\xff\xda"
_MAX_SCANS = 100


def read(data: bytes, *, max_pixels: int) -> Image.Image:
    """Decode a picture, upright as its EXIF block says; of an animated one the first.

    Raises:
        BadImage: it is empty, damaged, of another format than `FORMATS`, or larger than `max_pixels`, which is known
            before a pixel is decoded.
    """
    check_scans(data)
    try:
        picture = Image.open(BytesIO(data), formats=FORMATS)
        size, is_small = picture.size, picture.width * picture.height <= max_pixels
        if is_small:
            return ImageOps.exif_transpose(picture)
    except MemoryError:
        raise
    except Exception as exc:  # damaged data makes Pillow raise nearly anything
        raise BadImage(f"no picture that can be read ({type(exc).__name__})") from exc
    raise BadImage(f"the picture is {size[0]}x{size[1]}, more than {max_pixels:,} pixels")


def check_scans(data: bytes) -> None:
    """See that a JPEG does not have so many scans that it takes minutes.

    Raises:
        BadImage: it has.
    """
    if data.startswith(_JPEG) and data.count(_SCAN) > _MAX_SCANS:
        raise BadImage(f"the image has more than {_MAX_SCANS} scans")


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
