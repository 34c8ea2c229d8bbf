"""Clothes instead of digits: other labels, a tensor convention of its own, V1."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from mnist_pipeline import Reject, Task, Tensor, main


class Fashion(Task):
    """Grey pictures of one piece of clothing each."""

    name, suffixes = "fashion", (".png",)
    input = Tensor((28, 28, 1), pixels=True)
    labels = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

    def decode(self, data: bytes) -> Any:
        """A picture of any size as 28x28 greys."""
        try:
            return np.asarray(Image.open(BytesIO(data)).convert("L").resize((28, 28)), np.float32) / 255
        except (OSError, ValueError, Image.DecompressionBombError) as exc:
            raise Reject("badpicture", f"no picture: {type(exc).__name__}") from exc


if __name__ == "__main__":
    raise SystemExit(main(Fashion))
