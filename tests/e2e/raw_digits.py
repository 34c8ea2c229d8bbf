"""Another transformer than ours, `python -m e2e.raw_digits [COMMAND]`: 784 raw bytes are a picture, its predictor reads
them upside down, and it files into one bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mnist_pipeline import Destination, Digits, ObjectTransformer, Prediction, Reject, main


class RawDigits(Digits):
    """Everything goes into the bucket of the nines, by digit."""

    def decode(self, data: bytes) -> Any:
        """784 raw bytes as (28, 28) in 0..1."""
        if len(data) != 784:
            raise Reject("badimage", f"{len(data)} bytes are no 28x28 picture")
        return np.frombuffer(data, np.uint8).reshape(28, 28).astype(np.float32) / np.float32(255)

    def destination(self, prediction: Prediction) -> Destination:
        """By digit."""
        return Destination("digit-9", f"raw-{prediction.label}")


class UpsideDown(ObjectTransformer):
    """Turns a picture before it asks its predictor."""

    async def predict(self, payload: Any, *args: Any, **kwargs: Any) -> Sequence[Any]:
        return await super().predict(payload[:, ::-1, ::-1], *args, **kwargs)


if __name__ == "__main__":
    raise SystemExit(main(RawDigits, model=UpsideDown))
