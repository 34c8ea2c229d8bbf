"""Clothes instead of digits: other labels, a tensor convention of its own, V1.

python -m fashion demo --images samples/fashion
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_pipeline import Task, Tensor, main


class Fashion(Task):
    """Pictures of one piece of clothing each, classified in grey."""

    name, suffixes = "fashion", (".png",)
    input = Tensor((28, 28, 1), pixels=True)
    labels = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

    def decode(self, data: bytes) -> NDArray[Any]:
        """A picture of any size as 28x28 greys, 0 black to 1 white."""
        return np.asarray(self.open_picture(data, "L").resize((28, 28)), np.float32) / 255


if __name__ == "__main__":
    raise SystemExit(main(Fashion))
