"""Clothes instead of digits: other labels, a tensor convention of its own, a predictor that speaks V1.

python -m fashion demo --images samples/fashion      # here, with a stand-in for the network
python -m fashion --predictor_host fashion-predictor # what a container runs
"""

from typing import Any

import numpy as np

from mnist_pipeline import Task, Tensor, main


class Fashion(Task):
    """Grey pictures of one piece of clothing each."""

    name, suffixes = "fashion", (".png",)
    input = Tensor((28, 28, 1), pixels=True)
    labels = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

    def decode(self, data: bytes) -> Any:
        """A picture of any size as 28x28 greys, in 0..1."""
        return np.asarray(self.open_picture(data, "L").resize((28, 28)), np.float32)[:, :, np.newaxis] / 255


if __name__ == "__main__":
    raise SystemExit(main(Fashion))
