"""inference_v2.py: whatever comes to the V2 path is an inline request, its refusal one that can be shown."""

from __future__ import annotations

import json
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest

from digits import digits_settings
from fuzz.inputs import assert_refusal_can_be_shown, json_values, mutated
from mnist_pipeline.pipeline.errors import BadTensor, MalformedBody
from mnist_pipeline.serving import inference_v2
from mnist_pipeline.serving.inference_v2 import RestRequest, V2Request

SETTINGS = digits_settings(trace_key="test-trace-id")

shapes = st.lists(st.integers(-2, 3) | st.sampled_from([28, 784, 2**62]), max_size=4)
datatypes = st.sampled_from(["BYTES", "FP32", "bytes", "INT64", "FP16", "", "\u0130"])
inputs = st.fixed_dictionaries(
    {"name": st.just("x"), "datatype": datatypes, "shape": shapes | json_values},
    optional={
        "data": json_values | st.lists(st.floats(width=32) | st.none(), max_size=4),
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 40) | json_values}) | json_values,
    },
)
messages = st.fixed_dictionaries({"inputs": st.lists(inputs, max_size=2)}, optional={"id": json_values}).flatmap(
    mutated
)
binaries = st.binary(max_size=40) | st.lists(st.binary(max_size=9), max_size=3).map(
    lambda elements: b"".join(struct.pack("<I", len(one)) + one for one in elements)
)


def assert_is_read(request: V2Request) -> None:
    inline = inference_v2.read(request, {"test-trace-id": "t"}, SETTINGS)
    assert (inline.refusal is None) == bool(inline.instances)
    assert inline.identity
    if inline.refusal is not None:
        assert isinstance(inline.refusal, BadTensor | MalformedBody)
        assert_refusal_can_be_shown(inline.refusal)


@given(st.binary(max_size=200), st.none() | st.text(max_size=3) | st.integers(-1, 300).map(str))
def test_any_bytes_over_rest_are_a_request_or_a_refusal(body: bytes, length: str | None) -> None:
    headers = {} if length is None else {"inference-header-content-length": length}
    assert_is_read(inference_v2.of_rest(RestRequest(body), headers))


@given(messages | json_values, binaries)
def test_any_message_with_any_binary_data_is_a_request_or_a_refusal(message: object, binary: bytes) -> None:
    head = json.dumps(message).encode()
    headers = {"inference-header-content-length": str(len(head))}
    assert_is_read(inference_v2.of_rest(RestRequest(head + binary), headers))
    assert_is_read(inference_v2.of_rest(RestRequest(head), {}))


@given(st.lists(st.tuples(datatypes, shapes), max_size=2), st.lists(binaries, max_size=2), st.binary(max_size=9))
def test_any_message_over_grpc_is_a_request_or_a_refusal(
    tensors: list[tuple[str, list[int]]], raw: list[bytes], element: bytes
) -> None:
    for contents in (False, True):
        message: Any = ModelInferRequest(model_name="mnist", raw_input_contents=raw)
        for datatype, shape in tensors:
            tensor = message.inputs.add(name="x", datatype=datatype, shape=shape)
            if contents:
                tensor.contents.bytes_contents.append(element)
        assert_is_read(inference_v2.of_grpc(message))
