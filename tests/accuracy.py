"""Print how often the demo's network, behind `to_tensor`, reads MNIST's test digits right: `python tests/accuracy.py`.

Two figures: the 10,000 test images as they are, as PNG bytes; and the same digits pasted at a random size and place,
white on black or black on white, a third of them dim, on a canvas, as PNG or JPEG. The exit code is 1 when one misses
its target. Everything is drawn from a seed, so the figures are the same each time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

import mnist
from mnist_pipeline.mnist import images

NETWORK = Path(images.__file__).parents[1] / "local" / "network" / "mnist.onnx"
TARGET_AS_THEY_ARE = 0.993
TARGET_ON_A_CANVAS = 0.985

CANVAS_SIDE = 280
PASTED_SIDE = (40, 240)
"""The side of the pasted 28x28 image, in pixels of the canvas; its digit fills 20/28 of that."""
LEAST_CONTRAST = 60
"""Of the dim third, between background and ink, of 255."""
JPEG_QUALITY = (60, 95)


class Network:
    """The ONNX network on one thread: `[N, 784]` in 0..1 to ten probabilities each."""

    def __init__(self, path: Path = NETWORK) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options)

    def digits(self, tensors: Iterable[NDArray[np.float32]]) -> NDArray[np.int64]:
        """The digit in each tensor."""
        batch = np.stack(list(tensors)).reshape(-1, 784)
        (probabilities,) = self._session.run(["probabilities"], {"images": batch})
        digits: NDArray[np.int64] = probabilities.argmax(1)
        return digits


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An 8-bit grey PNG of the pixels."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """A grey JPEG of the pixels."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def pasted(digit: NDArray[np.uint8], random: np.random.Generator) -> bytes:
    """Paste an MNIST image on a canvas as the module's docstring says, and encode it."""
    side = int(random.integers(*PASTED_SIDE, endpoint=True))
    smooth = (Image.Resampling.LANCZOS, Image.Resampling.BILINEAR)[random.integers(2)]
    top, left = random.integers(0, CANVAS_SIDE - side, 2, endpoint=True)
    contrast = random.uniform(LEAST_CONTRAST, 255) if random.integers(3) == 0 else 255.0
    darkest = random.uniform(0, 255 - contrast)
    canvas = np.zeros((CANVAS_SIDE, CANVAS_SIDE))
    canvas[top : top + side, left : left + side] = np.asarray(Image.fromarray(digit).resize((side, side), smooth)) / 255
    if random.integers(2):
        canvas = 1 - canvas
    pixels = np.rint(darkest + contrast * canvas).astype(np.uint8)
    return jpeg(pixels, int(random.integers(*JPEG_QUALITY, endpoint=True))) if random.integers(2) else png(pixels)


def pasted_digits(count: int, seed: int) -> Iterator[tuple[bytes, int]]:
    """`count` different test digits, each pasted by its own draw, with their labels."""
    random = np.random.default_rng(seed)
    pixels, labels = mnist.images(), mnist.labels()
    for row in random.permutation(len(pixels))[:count]:
        yield pasted(pixels[row], random), int(labels[row])


def accuracy(network: Network, labelled: Iterable[tuple[bytes, int]]) -> float:
    """The share of images, given as bytes with their labels, that the network reads right behind `to_tensor`."""
    encoded, labels = zip(*labelled, strict=True)
    digits = network.digits(images.to_tensor(data) for data in encoded)
    return float((digits == np.array(labels)).mean())


def main() -> int:
    """Measure, print, and compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--canvas", type=int, default=2_000, metavar="N", help="digits to paste (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of sizes, places and greys (default %(default)s)")
    options = parser.parse_args()
    network = Network()
    as_they_are = ((png(pixels), int(label)) for pixels, label in zip(mnist.images(), mnist.labels(), strict=True))
    missed = False
    for name, labelled, target in (
        ("MNIST's 10,000 test images", as_they_are, TARGET_AS_THEY_ARE),
        (
            f"{options.canvas:,} pasted on {CANVAS_SIDE} px",
            pasted_digits(options.canvas, options.seed),
            TARGET_ON_A_CANVAS,
        ),
    ):
        started = time.monotonic()
        share = accuracy(network, labelled)
        missed |= share < target
        verdict = "missed" if share < target else "reached"
        print(  # noqa: T201 - a command that prints for people
            f"{name:<28} {share:8.2%}   target {target:.1%} {verdict}   ({time.monotonic() - started:.0f} s)"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
