"""interpretation.py: whatever a predictor answers is one digit an image, or PredictorUnavailable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuzz.inputs import assert_one_short_line, json_values, mutated
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import PredictorUnavailable
from mnist_pipeline.pipeline.interpretation import Output, Prediction
from mnist_pipeline.pipeline.predictor_formats import InputSpec, OpenInference, Tensorflow, TorchServe, V1Format

DIGITS = Digits()

counts = st.integers(1, 3)
numbers = st.integers(-(2**63), 2**64) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 9)
# Digits as text, and what is nearly one: to Python, the Arabic seven and a superscript are.
texts = st.sampled_from("0123456789\u0667\u00b2") | st.text(max_size=2)
datatypes = st.sampled_from(["INT8", "INT64", "UINT64", "FP16", "FP32", "FP64", "BYTES", "BOOL", ""])
names = st.sampled_from(["predictions", "classes", "output-0", "scores"]) | st.text(max_size=8)
shapes = st.lists(st.integers(-1, 10), max_size=3)
outputs = st.fixed_dictionaries(
    {
        "name": names,
        "shape": st.sampled_from([[1], [2], [3], [2, 1], [1, 10], [2, 10], [3, 10]]) | shapes,
        "datatype": datatypes,
        "data": st.lists(numbers | texts, max_size=30) | json_values,
    }
)
predictions = (
    st.integers(0, 9)
    | st.lists(numbers, min_size=10, max_size=10)
    | texts
    | st.lists(numbers | texts, max_size=2)
    | st.builds(lambda value: {"classes": value}, numbers | texts | st.lists(numbers | texts, max_size=2))
    | json_values
)


def assert_are_digits(predictions: Sequence[Prediction], n: int) -> None:
    assert len(predictions) == n
    assert all(type(one.label) is int and 0 <= one.label <= 9 for one in predictions)
    assert all(one.score is None or (type(one.score) is float and 0 <= one.score <= 1) for one in predictions)


def assert_are_digits_or_unavailable(model: V1Format | OpenInference, answer: bytes, n: int) -> None:
    try:
        outputs = model.outputs(answer, n) if isinstance(model, V1Format) else model.outputs(answer)
        predictions = DIGITS.interpret(outputs, n)
    except PredictorUnavailable as exc:
        assert_one_short_line(str(exc))
        return
    assert_are_digits(predictions, n)


formats = st.sampled_from([Tensorflow(), TorchServe(), OpenInference()])


@given(formats, st.binary(max_size=100), counts)
def test_any_bytes_are_digits_or_unavailable(model: V1Format | OpenInference, answer: bytes, n: int) -> None:
    assert_are_digits_or_unavailable(model, answer, n)


@given(
    formats,
    st.fixed_dictionaries({"predictions": st.lists(predictions, max_size=4)})
    | st.fixed_dictionaries({"outputs": st.lists(outputs, max_size=3)})
    | st.dictionaries(st.sampled_from(["predictions", "outputs", "error"]), json_values),
    counts,
)
def test_any_json_is_digits_or_unavailable(model: V1Format | OpenInference, answer: object, n: int) -> None:
    assert_are_digits_or_unavailable(model, json.dumps(answer).encode(), n)


@given(
    mutated({"outputs": [{"name": "classes", "shape": [2], "datatype": "INT64", "data": [3, 4]}]})
    | mutated({"outputs": [{"name": "x", "shape": [2, 10], "datatype": "FP32", "data": [[0.1] * 10, [0.2] * 10]}]})
    | mutated({"outputs": [{"name": "label", "shape": [2, 1], "datatype": "BYTES", "data": ["3", "4"]}]})
    | mutated({"predictions": [{"classes": 3, "scores": [0.1] * 10}, {"classes": ["4"]}]})
)
def test_a_changed_answer_is_digits_or_unavailable(answer: object) -> None:
    for model in (Tensorflow(), OpenInference()):
        assert_are_digits_or_unavailable(model, json.dumps(answer).encode(), 2)


@given(
    names,
    datatypes,
    st.sampled_from([(2,), (2, 1), (2, 10)]),
    st.sampled_from(["int8", "uint64", "float16", "float64", "bool", "object"]),
    st.lists(st.integers(0, 12) | st.floats(allow_nan=True, width=16), max_size=20),
)
def test_any_output_over_grpc_is_digits_or_unavailable(
    name: str, datatype: str, shape: tuple[int, ...], dtype: str, values: list[Any]
) -> None:
    with np.errstate(invalid="ignore"):
        data = np.array(values, object if dtype == "object" else float).astype(dtype)
    try:
        predictions = DIGITS.interpret({name: Output(name=name, datatype=datatype, shape=shape, data=data)}, 2)
    except PredictorUnavailable as exc:
        assert_one_short_line(str(exc))
        return
    assert_are_digits(predictions, 2)


@given(
    mutated({"name": "mnist", "inputs": [{"name": "input-0", "shape": [-1, 784], "datatype": "FP32"}]})
    | st.dictionaries(st.sampled_from(["inputs", "name"]), json_values)
)
def test_any_metadata_describes_an_input_for_images_or_is_unavailable(metadata: Any) -> None:
    if not isinstance(metadata, dict):
        return
    try:
        spec = InputSpec.from_metadata(metadata, DIGITS.input)
    except PredictorUnavailable as exc:
        assert_one_short_line(str(exc))
        return
    batch = np.linspace(0, 1, 2 * 784, dtype=np.float32).reshape(2, 28, 28)
    assert OpenInference().tensor(batch, spec, DIGITS.input).size == batch.size
    assert json.loads(OpenInference().request(batch, spec, DIGITS.input))["inputs"][0]["name"] == spec.name
