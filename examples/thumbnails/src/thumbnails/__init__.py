"""Colour photographs: JPEG, V2, and doubtful ones are filed for people to look at."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_pipeline import Task, Tensor


class Thumbnails(Task):
    """Photographs of one thing each."""

    name, buckets, suffixes = "photos", ("photos",), (".jpg", ".jpeg")
    input = Tensor((3, 64, 64), "float32", name="image", pixels=True)
    labels = ("cat", "dog", "car", "boat", "tree")
    predictor_protocol, review_below = "v2", 0.5

    def decode(self, data: bytes) -> NDArray[Any]:
        """A photograph of any size as 64x64 RGB, channels first, 0 to 1."""
        photo = self.open_picture(data).resize((64, 64))
        return np.moveaxis(np.asarray(photo, np.float32), 2, 0) / 255
