"""A tensor as a small picture, for predictors that want one; pure."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_png(tensor: NDArray[Any]) -> bytes:
    """Write a tensor of shape (28, 28) as an 8-bit grey PNG; values are rounded to 1/255, those outside 0..1 cut."""
    stream = BytesIO()
    Image.fromarray(to_bytes(tensor)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def to_bytes(tensor: NDArray[Any]) -> NDArray[np.uint8]:
    """Values in 0..1 as 0..255; what lies outside, as in an inline tensor it may, is cut and does not wrap round."""
    levels: NDArray[np.uint8] = np.rint(tensor.clip(0, 1) * 255).astype(np.uint8)
    return levels
