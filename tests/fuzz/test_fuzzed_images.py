"""images.py: whatever the bytes are, they become a tensor that a predictor can take, or Reject."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fuzz.inputs import assert_refusal_can_be_shown, damaged, pngs
from mnist_pipeline.mnist.images import to_tensor
from mnist_pipeline.pipeline.errors import Reject
from mnist_pipeline.pipeline.pictures import to_png
from mnist_pipeline.testing import digit_png

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_JPEG_MODES = ("L", "RGB", "CMYK")


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """Valid files of every mode that PNG and JPEG have: noise, strokes, slopes, or all of that, of any shape."""
    form = draw(st.sampled_from(["PNG", "JPEG"]))
    mode = draw(st.sampled_from(_PNG_MODES if form == "PNG" else _JPEG_MODES))
    width, height = draw(st.tuples(st.integers(1, 130), st.integers(1, 130)))
    if draw(st.integers(0, 9)) == 0:
        width, height = draw(st.sampled_from([(2_000, 1), (1, 2_000), (1_500, 3), (28, 28), (520, 515)]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    low, high = sorted(draw(st.tuples(st.integers(0, 255), st.integers(0, 255))))
    grey = np.full((height, width), float(low))
    if draw(st.booleans()):
        grey += np.linspace(0, high - low, width)
    if draw(st.booleans()):
        grey[height // 3 : height // 3 + draw(st.integers(1, 20)), width // 4 :] = high
    if draw(st.booleans()):
        grey[random.integers(height), random.integers(width)] = high
    grey += random.normal(0, draw(st.sampled_from([0, 0, 1, 30])), grey.shape)
    image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    options: dict[str, object] = {}
    if mode == "I;16":
        image = Image.fromarray((grey.clip(0, 255) * 257).astype(np.uint16))
    elif mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(random.choice([0, 7, 255], grey.shape).astype(np.uint8)))
    else:
        image = image.convert(mode)
    if form == "JPEG":
        options = {"quality": draw(st.integers(1, 100)), "progressive": draw(st.booleans())}
    elif mode in ("1", "L", "P", "RGB", "I;16") and draw(st.booleans()):
        options = {"transparency": (low,) * 3 if mode == "RGB" else low}
    exif = Image.Exif()
    exif[0x0112] = draw(st.integers(0, 10))
    stream = BytesIO()
    image.save(stream, form, exif=exif, **options)
    return stream.getvalue()


def assert_is_a_tensor_or_a_refusal(data: bytes) -> None:
    try:
        tensor = to_tensor(data, max_pixels=1_000_000)
    except Reject as refusal:
        assert_refusal_can_be_shown(refusal)
        return
    assert tensor.shape == (28, 28)
    assert tensor.dtype == np.float32
    assert np.isfinite(tensor).all()
    assert tensor.min() >= 0
    assert tensor.max() <= 1
    assert tensor.max() > 0


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: digit_png(3)[:8] + data))
def test_any_bytes_are_a_tensor_or_a_refusal(data: bytes) -> None:
    assert_is_a_tensor_or_a_refusal(data)


@given(st.integers(0, 9).map(digit_png).flatmap(damaged) | pictures().flatmap(damaged))
def test_damaged_images_are_a_tensor_or_a_refusal(data: bytes) -> None:
    assert_is_a_tensor_or_a_refusal(data)


@given(pngs())
def test_pngs_with_anything_in_their_chunks_are_a_tensor_or_a_refusal(data: bytes) -> None:
    assert_is_a_tensor_or_a_refusal(data)


@given(pictures())
def test_pictures_of_any_mode_and_shape_are_a_tensor_or_a_refusal(data: bytes) -> None:
    assert_is_a_tensor_or_a_refusal(data)


@given(pictures())
def test_a_tensor_written_as_png_is_read_again_as_a_tensor(data: bytes) -> None:
    try:
        tensor = to_tensor(data)
    except Reject:
        return
    assert_is_a_tensor_or_a_refusal(to_png(tensor))
