"""The demo's network: a small convolutional one that this project trained on MNIST's training images (README.md)."""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

# Larger calls would only cost memory: the first layer's output is 50 KB an image.
_IMAGES_A_RUN = 64


class Network:
    """The packaged network, on one thread of the CPU; an object may be shared by threads."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        model = resources.files(__package__).joinpath("mnist.onnx").read_bytes()
        self._runtime: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def probabilities(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability of each digit, shape (N, 10).

        `batch` has shape (N, 784) or (N, 28, 28): pixels in 0..1, white on black.
        """
        images = np.ascontiguousarray(batch, dtype=np.float32).reshape(len(batch), 784)
        probabilities = np.empty((len(images), 10), np.float32)
        for start in range(0, len(images), _IMAGES_A_RUN):
            part = slice(start, start + _IMAGES_A_RUN)
            (probabilities[part],) = self._runtime.run(["probabilities"], {"images": images[part]})
        return probabilities
