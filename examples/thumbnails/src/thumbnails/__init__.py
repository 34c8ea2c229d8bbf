"""A transformer of colour photographs: JPEG, V2, and what the network is not sure of is filed for people to look at."""

from typing import Any

import numpy as np

from mnist_pipeline import Task, Tensor


class Thumbnails(Task):
    """Photographs of one thing each."""

    name, buckets, suffixes = "photos", ("photos",), (".jpg", ".jpeg")
    input = Tensor((3, 64, 64), "float32", name="image", pixels=True)
    labels = ("cat", "dog", "car", "boat", "tree")
    predictor_protocol, review_below = "v2", 0.5

    def decode(self, data: bytes) -> Any:
        """A photograph of any size as 64x64 RGB in 0..1, channels first."""
        return np.asarray(self.open_picture(data).resize((64, 64)), np.float32).transpose(2, 0, 1) / 255
