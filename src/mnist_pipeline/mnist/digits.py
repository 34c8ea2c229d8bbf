"""The task of this project: handwritten digits, as MNIST has them."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from mnist_pipeline.mnist import images
from mnist_pipeline.pipeline.task import Task, Tensor


class Digits(Task):
    """PNG and JPEG pictures of one digit each, whatever their size and polarity → 0 to 9, filed into `digit-N`."""

    name = "mnist"
    suffixes = (".png",)
    any_case = False
    input = Tensor((28, 28), "float32", flat=True, pixels=True)
    labels = tuple(range(10))
    called = "digit"
    filed_in = "digit-{digit}"

    def decode(self, data: bytes) -> NDArray[Any]:
        """One picture in MNIST's convention: float32 `(28, 28)`, 0 for background to 1 for ink.

        Raises:
            BadImage: it cannot be decoded, or has too many pixels.
            Reject: it shows no digit, several, or a part of one.
        """
        return images.to_tensor(data, max_pixels=self.max_image_pixels)
