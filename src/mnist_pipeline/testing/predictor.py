"""A predictor without a network, and what a V2 server makes of its answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mnist_pipeline.pipeline.task import Batch
from mnist_pipeline.testing.digits import nearest

_DIGIT = 28 * 28


class StubPredictor:
    """A predictor without a network: gives the answers that it was given, in turn and then from the start again.

    An answer is what a network says of one tensor: a class number, a label's text, a list of scores, or whatever the
    task's `interpret` takes. Given none, it recognises the images of `digit_png`, in any order.

    Attributes:
        answers: the next one first; may be changed at any time.
        batches: the tensors of every call, `(N, …)`.
        failures: errors to raise, the first one at the next call.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers: Sequence[Any] = answers
        self.batches: list[Batch] = []
        self.failures: list[Exception] = []

    def __call__(self, tensors: Batch) -> list[Any]:
        """One answer for each of the tensors `(N, …)`.

        Raises:
            ValueError: it was given no answers, and the tensors are no digits.
        """
        self.batches.append(tensors)
        if self.failures:
            raise self.failures.pop(0)
        if self.answers:
            given = list(itertools.islice(itertools.cycle(self.answers), len(tensors)))
            turn = len(tensors) % len(self.answers)
            self.answers = [*self.answers[turn:], *self.answers[:turn]]
            return given
        if tensors[0].size != _DIGIT:
            raise ValueError("the stub recognises digits only: give it answers, as in stub_predictor.answers = [0]")
        return [nearest(tensor.reshape(28, 28)) for tensor in tensors]


def v2_outputs(answers: Sequence[Any]) -> list[dict[str, Any]]:
    """What a V2 predictor makes of such answers, as JSON has them: one output, or where they are objects one a name."""
    if isinstance(answers[0], dict):
        return [_output(name, [answer[name] for answer in answers]) for name in answers[0]]
    return [_output("output-0", answers)]


def _output(name: str, rows: Sequence[Any]) -> dict[str, Any]:
    table = np.array(rows)
    # A row of whole numbers is a row of scores all the same; one number for each tensor is its class.
    kind = table.dtype.kind if table.ndim == 1 or table.dtype.kind == "U" else "f"
    datatype = {"i": "INT64", "f": "FP32", "U": "BYTES"}[kind]
    return {"name": name, "datatype": datatype, "shape": list(table.shape), "data": table.ravel().tolist()}
