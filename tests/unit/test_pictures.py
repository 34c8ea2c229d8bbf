"""What a task's `open_picture` gives of a file; that it refuses what is none, test_images.py says of the digits too."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from mnist_pipeline import BadImage, Task


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def two_greys() -> Image.Image:
    """Black on the left, white on the right; 4 by 2."""
    return Image.fromarray(np.tile(np.array([0, 0, 255, 255], np.uint8), (2, 1)))


def test_a_picture_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera that was turned: what is stored left belongs to the top
    picture = Task().open_picture(encoded(two_greys(), exif=exif), "L")
    assert picture.size == (2, 4)
    assert np.asarray(picture)[:, 0].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("stored", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_of_png_gives_greys_and_colours(stored: str, mode: Literal["L", "RGB"]) -> None:
    if stored == "I;16":
        image = Image.fromarray(np.asarray(two_greys()).astype(np.uint16) * 257)
    else:
        image = two_greys().convert(stored)
    picture = Task().open_picture(encoded(image), mode)
    assert picture.mode == mode
    assert np.asarray(picture.convert("L"))[0].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_cmyk_gives_greys_and_colours(mode: Literal["L", "RGB"]) -> None:
    picture = Task().open_picture(encoded(Image.new("RGB", (8, 8), "white").convert("CMYK"), "JPEG"), mode)
    assert (picture.mode, np.asarray(picture).min()) == (mode, 255)


@pytest.mark.parametrize("options", [{}, {"transparency": b"\0\xff"}, {"transparency": 0}])
def test_what_is_transparent_is_white(options: dict[str, Any]) -> None:
    image = Image.new("P" if options else "RGBA", (4, 4), 0)
    assert np.asarray(Task().open_picture(encoded(image, **options))).min() == 255


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damage_and_other_formats_are_refused(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    data = encoded(noise, kind)
    for broken in (b"", data[:-200], data[: len(data) // 2], data[:9], encoded(noise, "BMP")):
        with pytest.raises(BadImage):
            Task().open_picture(broken)


def test_the_limit_of_pixels_is_the_task_s() -> None:
    task = Task()
    task.max_image_pixels = 7
    with pytest.raises(BadImage, match="4x2, more than 7 pixels"):
        task.open_picture(encoded(two_greys()))
