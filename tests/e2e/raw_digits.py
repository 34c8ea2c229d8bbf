"""Another transformer than ours, `python -m e2e.raw_digits [COMMAND]`: 784 raw bytes are a picture, its predictor reads
them upside down, and it files into one bucket.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mnist_pipeline import MnistTransformer, Settings, main
from mnist_pipeline.mnist.images import Grey
from mnist_pipeline.pipeline.errors import BadImage
from mnist_pipeline.pipeline.predictor_formats import Images


class OneBucket(Settings):
    """Everything goes into the bucket of the nines, by digit."""

    def destination_of(self, digit: int) -> tuple[str, str]:
        return "digit-9", f"raw-{digit}/"


class UpsideDown(MnistTransformer):
    """Turns a picture before it asks its predictor."""

    async def predict(self, payload: Images, *args: Any, **kwargs: Any) -> list[int]:
        return await super().predict(payload[:, ::-1, ::-1], *args, **kwargs)


def tensorize(image: bytes) -> Grey:
    """784 raw bytes as float32 (28, 28) in 0..1."""
    if len(image) != 784:
        raise BadImage(f"{len(image)} bytes are no 28x28 picture")
    tensor: Grey = np.frombuffer(image, np.uint8).reshape(28, 28).astype(np.float32) / np.float32(255)
    return tensor


if __name__ == "__main__":
    raise SystemExit(main(transformer=UpsideDown, tensorize=tensorize, settings=OneBucket))
