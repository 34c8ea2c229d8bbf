"""A predictor without a network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnist_pipeline.testing.digits import nearest


class StubPredictor:
    """A predictor without a network: answers with the digits it was given, in turn and then from the start again.

    Given none, it recognises the images of `digit_png`, in any order.

    Attributes:
        batches: the images of every call, float32 `(N, 28, 28)` in 0..1.
        failures: errors to raise, the first one at the next call.
    """

    def __init__(self, *digits: int) -> None:
        self.digits = digits
        self.batches: list[NDArray[np.float32]] = []
        self.failures: list[Exception] = []
        self._answered = 0

    def __call__(self, images: NDArray[np.float32]) -> list[int]:
        """The digits of the images `(N, 28, 28)` or `(N, 784)`."""
        batch = images.reshape(-1, 28, 28)
        self.batches.append(batch)
        if self.failures:
            raise self.failures.pop(0)
        if not self.digits:
            return [nearest(image) for image in batch]
        start = self._answered
        self._answered += len(batch)
        return [self.digits[(start + index) % len(self.digits)] for index in range(len(batch))]
