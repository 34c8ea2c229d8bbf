"""A tensor of pixels as a small picture, for predictors that want one; pure."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLOURS = 3


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
