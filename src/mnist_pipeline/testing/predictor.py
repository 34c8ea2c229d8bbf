"""A predictor without a network."""

from __future__ import annotations

from typing import Any

from mnist_pipeline.pipeline.task import Batch
from mnist_pipeline.testing.digits import nearest


class StubPredictor:
    """A predictor without a network: gives these answers in turn, and then from the start again.

    Given none, it recognises the images of `digit_png`, in any order.

    Attributes:
        answers: for a tensor each: a class number, a label's text, or scores.
        batches: the tensors of every call, `(N, …)`.
        failures: errors to raise, the first one at the next call.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers: list[Any] = list(answers)
        self.batches: list[Batch] = []
        self.failures: list[Exception] = []
        self._answered = 0

    def __call__(self, tensors: Batch) -> list[Any]:
        """An answer for each of the tensors `(N, …)`; of digits `(N, 784)` too."""
        batch = tensors.reshape(-1, 28, 28) if tensors.shape[1:] == (784,) else tensors
        self.batches.append(batch)
        if self.failures:
            raise self.failures.pop(0)
        if not self.answers:
            return [nearest(image) for image in batch]
        start = self._answered
        self._answered += len(batch)
        return [self.answers[(start + index) % len(self.answers)] for index in range(len(batch))]
