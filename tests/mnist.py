"""MNIST's 10,000 test images and their labels, read from the idx files in `tests/data/mnist`."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "data" / "mnist"


def read_idx(data: bytes) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes: two zero bytes, the type 8, the rank, big-endian 32-bit sizes, then the data.

    The format is described on MNIST's own page (yann.lecun.com/exdb/mnist, "FILE FORMATS FOR THE MNIST DATABASE").

    Raises:
        ValueError: the data is not of this format, or not of the size that it names.
    """
    if data[:3] != b"\x00\x00\x08":
        raise ValueError("not an idx file of unsigned bytes")
    rank = data[3]
    shape = [int(size) for size in np.frombuffer(data, ">u4", rank, 4)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def images() -> NDArray[np.uint8]:
    """The 10,000 test images, `[10000, 28, 28]`, white on black."""
    return read_idx(gzip.decompress((FOLDER / "t10k-images-idx3-ubyte.gz").read_bytes()))


def labels() -> NDArray[np.uint8]:
    """The digits that the 10,000 test images show, `[10000]`, 0 to 9."""
    return read_idx(gzip.decompress((FOLDER / "t10k-labels-idx1-ubyte.gz").read_bytes()))
