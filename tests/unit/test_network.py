from __future__ import annotations

import subprocess
import sys
from collections import Counter
from importlib import resources

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mnist_pipeline.local.network import Network

DIGITS = resources.files("mnist_pipeline.local").joinpath("digits")


def shipped() -> dict[str, NDArray[np.float32]]:
    """The demo's images by their file names, shape (28, 28), 0..1."""
    found = {}
    for file in DIGITS.iterdir():
        if file.name.endswith(".png"):
            with file.open("rb") as stream, Image.open(stream) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "L", (28, 28))
                found[file.name] = np.asarray(image, dtype=np.float32) / np.float32(255)
    return dict(sorted(found.items()))


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


def test_two_images_of_each_digit_are_shipped() -> None:
    assert Counter(name.split("-")[0] for name in shipped()) == {str(digit): 2 for digit in range(10)}


def test_each_shipped_image_is_the_digit_that_its_name_says(network: Network) -> None:
    images = shipped()
    probabilities = network.probabilities(np.stack(list(images.values())))
    assert [name[0] for name in images] == [str(digit) for digit in probabilities.argmax(axis=1)]


def test_probabilities_are_ten_an_image_and_add_up_to_one(network: Network) -> None:
    probabilities = network.probabilities(np.stack(list(shipped().values())))
    assert probabilities.shape == (20, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities >= 0).all()


def test_an_image_is_judged_alike_alone_in_rows_and_among_many(network: Network) -> None:
    images = np.stack(list(shipped().values()))
    many = np.tile(images, (8, 1, 1))
    alone = np.concatenate([network.probabilities(image[np.newaxis]) for image in images])
    np.testing.assert_allclose(network.probabilities(images.reshape(20, 784)), alone, atol=1e-5)
    np.testing.assert_allclose(network.probabilities(many), np.tile(alone, (8, 1)), atol=1e-5)
    assert network.probabilities(images[:0]).shape == (0, 10)


def test_a_digit_that_is_shifted_by_two_pixels_stays_the_same_digit(network: Network) -> None:
    images = shipped()
    for axis in (1, 2):
        for pixels in (-2, 2):
            moved = np.roll(np.stack(list(images.values())), pixels, axis=axis)
            digits = network.probabilities(moved).argmax(axis=1)
            right = sum(int(name[0]) == digit for name, digit in zip(images, digits, strict=True))
            assert right >= 19


def test_the_network_loads_without_kserve() -> None:
    code = (
        "import sys; from mnist_pipeline.local.network import Network; Network(); "
        "sys.exit(any(name.split('.')[0] in {'kserve', 'fastapi', 'minio', 'kafka'} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
