"""What the network sees, for people: a tensor as a picture. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_pipeline.pipeline.pictures import to_png
from mnist_pipeline.pipeline.task import Tensor


def picture_of(tensor: NDArray[Any], described: Tensor) -> bytes:
    """A tensor whose shape is a picture's (`pictures.is_picture`) as a PNG: pixels as they are, of other numbers the
    least is black and the greatest white.
    """
    if described.pixels:
        return to_png(tensor)
    values = tensor.astype(np.float64)
    least, greatest = values.min(), values.max()
    return to_png((values - least) / (greatest - least) if greatest > least else np.zeros_like(values))
