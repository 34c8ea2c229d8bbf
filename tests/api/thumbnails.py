"""Colour photographs: JPEG, V2, and doubtful ones are filed for people to look at."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from mnist_pipeline import Reject, Task, Tensor, main


class Thumbnails(Task):
    """Photographs of one thing each."""

    name, buckets, suffixes = "photos", ("photos",), (".jpg", ".jpeg")
    input = Tensor((3, 64, 64), "float32", name="image", pixels=True)
    labels = ("cat", "dog", "car", "boat", "tree")

    def decode(self, data: bytes) -> Any:
        """A photograph of any size as 64x64 RGB, channels first."""
        try:
            photo = Image.open(BytesIO(data)).convert("RGB").resize((64, 64))
        except (OSError, ValueError, Image.DecompressionBombError) as exc:
            raise Reject("badphoto", f"no photograph: {type(exc).__name__}") from exc
        return np.asarray(photo, np.float32).transpose(2, 0, 1) / 255


if __name__ == "__main__":
    raise SystemExit(main(Thumbnails))
