"""decoding.py: whatever stands in an inline request's instances is a tensor, or refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from digits import digits_settings
from fuzz.inputs import assert_refusal_can_be_shown, json_values
from mnist_pipeline.pipeline.decoding import Decoder
from mnist_pipeline.pipeline.errors import Permanent
from mnist_pipeline.pipeline.instances import image_in
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.testing import digit_png

numbers = st.integers(-(2**63), 2**64) | st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 1)
tensors = st.builds(
    lambda few, shape: np.resize(np.array(few, object), shape).tolist(),
    st.lists(numbers | json_values, min_size=1, max_size=4),
    st.sampled_from([(784,), (28, 28), (1, 28, 28), (28, 28, 1), (27, 28), (0,)]),
)
instances = (
    json_values
    | tensors
    | st.builds(lambda data: {"data": data}, json_values | tensors | st.text(max_size=40))
    | st.binary(max_size=60).map(lambda data: {"data": base64.b64encode(data).decode()})
    | st.integers(0, 9).map(lambda digit: base64.b64encode(digit_png(digit)).decode())
    | st.builds(lambda data: {"b64": data}, json_values | st.text(max_size=40))
    | st.builds(lambda name, data: {name: {"b64": data}}, st.sampled_from(["data", "image_bytes"]), json_values)
    | st.text("data:;base64,/png%+-_= \r\nAQ", max_size=40)
)


@given(
    image=st.binary(max_size=60),
    write=st.sampled_from([base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes]),
    padding=st.sampled_from(["=\n", "\n"]),
    blank=st.sampled_from(["", " ", "\r\n", "\t"]),
    width=st.integers(1, 80),
    prefix=st.sampled_from(["", "data:image/png;base64,", "DATA:;base64,"]),
)
def test_row_47_base64_of_any_writer_is_read(
    image: bytes, write: Callable[[bytes], bytes], *, padding: str, blank: str, width: int, prefix: str
) -> None:
    text = write(image).decode().rstrip(padding)
    lines = (text[place : place + width] for place in range(0, len(text), width))
    assert image_in(prefix + blank.join(lines)) == image


@given(st.lists(instances, min_size=1, max_size=3))
def test_any_instances_are_tensors_or_refused(given_instances: list[object]) -> None:
    decoder = Decoder(digits_settings())
    try:
        tensors = asyncio.run(decoder.decode_all(given_instances, Deadline(60)))
    except Permanent as refusal:
        assert_refusal_can_be_shown(refusal)
        return
    finally:
        decoder.close()
    assert tensors.shape == (len(given_instances), 28, 28)
    assert tensors.dtype == np.float32
    assert np.isfinite(tensors).all()
