from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import PredictorUnavailable
from mnist_pipeline.pipeline.interpretation import JSON, Label, Output, Prediction, interpreted, scores_of_all
from mnist_pipeline.pipeline.pictures import is_picture, to_png
from mnist_pipeline.pipeline.predictor_formats import (
    FORMATS,
    InputSpec,
    OpenInference,
    Tensorflow,
    TorchServe,
    V1Format,
    by_name,
    format_named,
)
from mnist_pipeline.pipeline.task import Batch, Tensor

DIGIT = Digits.input
SPEC = InputSpec.of(DIGIT)


def a_batch(n: int) -> Batch:
    """`n` images, each pixel one of the 256 levels of a PNG, none two images the same."""
    levels = np.random.default_rng(n).integers(0, 256, (n, 28, 28))
    return (levels / 255).astype(np.float32)


def scores(digit: int) -> list[float]:
    return [0.91 if candidate == digit else 0.01 for candidate in range(10)]


def v1(*predictions: Any) -> bytes:
    return json.dumps({"predictions": predictions}).encode()


def v2(*outputs: Any) -> bytes:
    return json.dumps({"model_name": "mnist", "outputs": outputs}).encode()


def output(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def predictions(
    format_: V1Format | OpenInference, answer: bytes, n: int, labels: Sequence[Label] = Digits.labels
) -> list[Prediction]:
    """What an answer is taken for, as a task of these labels takes it."""
    outputs = format_.outputs(answer, n) if isinstance(format_, V1Format) else format_.outputs(answer)
    return interpreted(outputs, n, labels, called="digit")


def digits(format_: V1Format | OpenInference, answer: bytes, n: int) -> list[Label]:
    return [prediction.label for prediction in predictions(format_, answer, n)]


def digits_of(outputs: Sequence[Output], n: int) -> list[Label]:
    return [prediction.label for prediction in Digits().interpret(by_name(outputs), n)]


# What is asked


def test_tensorflow_is_asked_with_784_floats_an_image_row_by_row() -> None:
    batch = a_batch(3)
    body = json.loads(Tensorflow().request(batch, DIGIT))
    assert list(body) == ["instances"]
    np.testing.assert_array_equal(np.array(body["instances"], np.float32), batch.reshape(3, 784))


def test_torchserve_is_asked_with_a_png_an_image_that_shows_the_same_pixels() -> None:
    batch = a_batch(2)
    body = json.loads(TorchServe().request(batch, DIGIT))
    assert list(body) == ["instances"]
    assert len(body["instances"]) == 2
    for instance, image in zip(body["instances"], batch, strict=True):
        assert list(instance) == ["data"]
        png = Image.open(io.BytesIO(base64.b64decode(instance["data"], validate=True)))
        assert (png.format, png.mode, png.size) == ("PNG", "L", (28, 28))
        np.testing.assert_array_equal(np.asarray(png), np.rint(image * 255))


def test_open_inference_is_asked_with_one_flat_tensor_and_no_word_of_the_binary_extension() -> None:
    batch = a_batch(2)
    body = json.loads(OpenInference().request(batch, SPEC, DIGIT))
    (tensor,) = body["inputs"]
    assert list(body) == ["inputs"]
    assert {key: tensor[key] for key in tensor if key != "data"} == {
        "name": "input-0",
        "shape": [2, 784],
        "datatype": "FP32",
    }
    np.testing.assert_array_equal(np.array(tensor["data"], np.float32), batch.ravel())


@pytest.mark.parametrize("shape", [(-1, 784), (-1, 28, 28), (-1, 1, 28, 28), (-1, 28, 28, 1), (1, 784)])
def test_the_tensor_has_the_models_shape_and_the_number_of_images(shape: tuple[int, ...]) -> None:
    batch = a_batch(3)
    spec = InputSpec(name="x", shape=shape, datatype="FP32")
    tensor = OpenInference().tensor(batch, spec, DIGIT)
    assert tensor.shape == (3, *shape[1:])
    np.testing.assert_array_equal(tensor.reshape(3, 784), batch.reshape(3, 784))
    assert json.loads(OpenInference().request(batch, spec, DIGIT))["inputs"][0]["shape"] == [3, *shape[1:]]


@pytest.mark.parametrize(
    ("datatype", "dtype", "scale"), [("FP32", np.float32, 1), ("FP64", np.float64, 1), ("UINT8", np.uint8, 255)]
)
def test_the_tensor_has_the_models_datatype_integers_in_0_to_255(
    datatype: str, dtype: type[np.generic], scale: int
) -> None:
    batch = a_batch(2)
    spec = replace(SPEC, datatype=datatype)
    tensor = OpenInference().tensor(batch, spec, DIGIT)
    assert tensor.dtype == dtype
    np.testing.assert_allclose(tensor, batch.reshape(2, 784) * scale, atol=1e-6 * scale)
    (sent,) = json.loads(OpenInference().request(batch, spec, DIGIT))["inputs"]
    assert sent["datatype"] == datatype
    np.testing.assert_array_equal(np.array(sent["data"], dtype), tensor.ravel())


def test_integers_are_the_nearest_level_of_a_pixel_between_two() -> None:
    batch = np.full((1, 28, 28), 0.9999, np.float32)
    assert (OpenInference().tensor(batch, replace(SPEC, datatype="UINT8"), DIGIT) == 255).all()


@pytest.mark.parametrize(
    "ask", [lambda batch: Tensorflow().request(batch, DIGIT), lambda batch: OpenInference().request(batch, SPEC, DIGIT)]
)
def test_a_view_of_a_larger_array_is_asked_for_like_any_batch(ask: Callable[[Batch], bytes]) -> None:
    view = a_batch(6)[::2]
    assert not view.flags.c_contiguous
    assert ask(view) == ask(view.copy())


def test_a_pixel_survives_json_exactly_at_each_of_256_levels() -> None:
    levels = np.zeros((1, 28, 28), np.float32)
    levels.ravel()[:256] = np.arange(256, dtype=np.float32) / 255
    body = json.loads(Tensorflow().request(levels, DIGIT))
    np.testing.assert_array_equal(np.array(body["instances"], np.float32), levels.reshape(1, 784))


# The model's metadata


def test_metadata_without_inputs_means_the_defaults() -> None:
    for metadata in ({}, {"name": "mnist", "inputs": []}, {"name": "mnist", "inputs": None}):
        assert InputSpec.from_metadata(metadata, DIGIT) == InputSpec(name="input-0", shape=(-1, 784), datatype="FP32")


def test_metadata_names_the_input_its_shape_and_its_datatype() -> None:
    metadata = {"name": "m", "inputs": [{"name": "pixels", "shape": [-1, 1, 28, 28], "datatype": "UINT8"}]}
    assert InputSpec.from_metadata(metadata, DIGIT) == InputSpec(name="pixels", shape=(-1, 1, 28, 28), datatype="UINT8")


@pytest.mark.parametrize("shape", [[-1, 3, 28, 28], [-1, 28], [784], [28, 28], [], [-1, -1], [-1, 14, 56]])
def test_a_shape_that_no_image_fits_is_refused_by_its_name(shape: list[int]) -> None:
    with pytest.raises(PredictorUnavailable) as refusal:
        InputSpec.from_metadata({"inputs": [{"name": "pixels", "shape": shape, "datatype": "FP32"}]}, DIGIT)
    assert "'pixels'" in str(refusal.value)
    assert str(shape) in str(refusal.value)


@pytest.mark.parametrize("datatype", ["BYTES", "BOOL", "INT64", "FP16", "float32", ""])
def test_a_datatype_that_pixels_cannot_have_is_refused_by_its_name(datatype: str) -> None:
    with pytest.raises(PredictorUnavailable) as refusal:
        InputSpec.from_metadata({"inputs": [{"name": "pixels", "shape": [-1, 784], "datatype": datatype}]}, DIGIT)
    assert repr(datatype) in str(refusal.value)


@pytest.mark.parametrize(
    "inputs",
    [
        "pixels",
        {"name": "pixels"},
        [None],
        ["pixels"],
        [{}],
        [{"name": "pixels", "shape": [-1, 784]}],
        [{"name": "pixels", "shape": "[-1, 784]", "datatype": "FP32"}],
        [{"name": "pixels", "shape": [-1, "784"], "datatype": "FP32"}],
        [{"name": "pixels", "shape": [-1, 784.0], "datatype": "FP32"}],
        [{"name": 7, "shape": [-1, 784], "datatype": "FP32"}],
        [{"name": "a", "shape": [-1, 784], "datatype": "FP32"}, {"name": "b", "shape": [-1, 784], "datatype": "FP32"}],
    ],
)
def test_metadata_that_describes_no_single_input_is_refused(inputs: Any) -> None:
    with pytest.raises(PredictorUnavailable, match="the predictor's"):
        InputSpec.from_metadata({"inputs": inputs}, DIGIT)


# V1 answers


@pytest.mark.parametrize("format_", [Tensorflow(), TorchServe()])
@pytest.mark.parametrize(
    "predictions",
    [
        [2, 0, 9],
        [2.0, 0.0, 9.0],
        [{"classes": 2}, {"classes": 0}, {"classes": 9}],
        [{"classes": 2.0}, {"classes": [0]}, {"classes": [9.0]}],
        [{"predictions": scores(7), "classes": 2}, {"classes": 0, "predictions": scores(7)}, {"classes": 9}],
        [scores(2), scores(0), scores(9)],
        [[-5, -5, -1, -5, -5, -5, -5, -5, -5, -5], [3, *[-7.5] * 9], [*[1e-30] * 9, 1e30]],
        [2, {"classes": [0]}, scores(9)],
    ],
)
def test_a_class_an_object_with_classes_and_ten_scores_all_give_the_digit(
    format_: Tensorflow | TorchServe, predictions: list[Any]
) -> None:
    assert digits(format_, v1(*predictions), 3) == [2, 0, 9]


@pytest.mark.parametrize(
    "predictions",
    [
        ["2", "0", "9"],
        [["2"], ["0"], ["9"]],
        [[2], [-0.0], ["9"]],
        [{"classes": "2"}, {"classes": ["0"]}, {"classes": 9, "predictions": scores(7)}],
    ],
)
def test_row_45_a_class_may_be_text_a_whole_float_or_alone_in_a_list(predictions: list[Any]) -> None:
    assert digits(Tensorflow(), v1(*predictions), 3) == [2, 0, 9]


# What is nearly a digit, as JSON has it. The Arabic seven and the full-width one are digits to Python.
NEARLY = ["seven", "", " 7", "7 ", "07", "7.0", "+7", "-7", "1_0", "10", "0x7", "\u0667", "\uff17", "\u00b2", "\0"]


@pytest.mark.parametrize("nearly", [*NEARLY, 7.5, 10, -1, True, None])
def test_row_45_what_is_nearly_a_digit_is_never_one(nearly: object) -> None:
    for prediction in (nearly, [nearly], {"classes": nearly}, {"classes": [nearly]}):
        with pytest.raises(PredictorUnavailable, match="no digit"):
            digits(Tensorflow(), v1(prediction), 1)
    for datatype in ("BYTES", "FP32", "INT64"):
        for shape in ([1], [1, 1]):
            with pytest.raises(PredictorUnavailable, match="no digit"):
                digits(OpenInference(), v2(output("y", datatype, shape, [nearly])), 1)
    if isinstance(nearly, str):
        told = Output(name="y", datatype="BYTES", shape=(1,), data=np.array([nearly.encode()], np.object_))
        with pytest.raises(PredictorUnavailable, match="no digit"):
            digits_of([told], 1)


def test_of_equal_scores_the_lowest_digit_wins() -> None:
    assert digits(Tensorflow(), v1([0, 0, 0, 0.5, 0, 0.5, 0, 0, 0, 0]), 1) == [3]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html><body>502 Bad Gateway</body></html>",
        b"\xff\xfe\x00",
        b'{"predictions": [2]',
        b'{"predictions": [NaN]}',
        b'{"predictions": [Infinity]}',
        b"null",
        b"[2]",
        b"2",
        b'"2"',
        b"{}",
        b'{"error": "model not loaded"}',
        b'{"outputs": [2]}',
        b'{"predictions": null}',
        b'{"predictions": 2}',
        b'{"predictions": "2"}',
        b'{"predictions": {"0": 2}}',
        b'{"predictions": {"classes": 2}}',
        b'{"predictions": []}',
        b'{"predictions": [2, 2]}',
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_row_25_an_answer_without_one_prediction_an_image_is_no_answer(answer: bytes) -> None:
    with pytest.raises(PredictorUnavailable, match="the predictor"):
        digits(Tensorflow(), answer, 1)


@pytest.mark.parametrize(
    "prediction",
    [
        "10",
        "-1",
        "2.5",
        "-0.5",
        "1e300",
        "1e999",
        "9" * 400,
        "18446744073709551618",
        "true",
        "false",
        "null",
        "[]",
        "[[2]]",
        '[["2"]]',
        "[2, 2]",
        "{}",
        '{"class": 2}',
        '{"predictions": [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]}',
        '{"classes": null}',
        '{"classes": true}',
        '{"classes": 10}',
        '{"classes": []}',
        '{"classes": [2, 3]}',
        '{"classes": [[2]]}',
        '{"classes": [true]}',
        '{"classes": {"0": 2}}',
        "[0, 0, 1, 0, 0, 0, 0, 0, 0]",
        "[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]",
        "[0, 0, 1, 0, 0, 0, 0, 0, 0, null]",
        '[0, 0, "1", 0, 0, 0, 0, 0, 0, 0]',
        "[0, 0, true, 0, 0, 0, 0, 0, 0, 0]",
        "[[0, 0, 1, 0, 0, 0, 0, 0, 0, 0]]",
        "[0, 0, 1e999, 0, 0, 0, 0, 0, 0, 0]",
        f"[0, 0, {'9' * 400}, 0, 0, 0, 0, 0, 0, 0]",
    ],
)
@pytest.mark.parametrize("format_", [Tensorflow(), TorchServe()])
def test_row_25_what_is_no_digit_from_0_to_9_is_refused_even_beside_good_ones(
    format_: Tensorflow | TorchServe, prediction: str
) -> None:
    with pytest.raises(PredictorUnavailable, match="the predictor"):
        digits(format_, f'{{"predictions": [3, {prediction}]}}'.encode(), 2)


def test_row_25_a_refusal_is_one_short_printable_line_whatever_the_predictor_sent() -> None:
    evil = "\r\nERROR forged line \x1b[31m" + "x" * 1_000_000
    body = json.dumps(evil, ensure_ascii=False).replace("\r\n", "\\r\\n").replace("\x1b", "\\u001b")
    refused: list[Callable[[], object]] = [
        lambda: digits(Tensorflow(), evil.encode(), 1),
        lambda: digits(Tensorflow(), f'{{"predictions": [{body}]}}'.encode(), 1),
        lambda: digits(Tensorflow(), f'{{"predictions": [{{"classes": {body}}}]}}'.encode(), 1),
        lambda: digits(Tensorflow(), f'{{"predictions": [[{body}]]}}'.encode(), 1),
        lambda: digits(OpenInference(), v2(*[output(f"{evil}{number}", evil, [1], [2]) for number in range(100)]), 1),
        lambda: digits(OpenInference(), v2(output(evil, "INT64", [1], [2, 2])), 1),
        lambda: replace(SPEC, name=evil, shape=(-1, 5)).check(DIGIT),
        lambda: replace(SPEC, name=evil, datatype=evil).check(DIGIT),
    ]
    for refuse in refused:
        with pytest.raises(PredictorUnavailable) as refusal:
            refuse()
        assert str(refusal.value).isprintable()
        assert len(str(refusal.value)) < 2_000


# V2 answers


@pytest.mark.parametrize("shape", [[3], [3, 1]])
@pytest.mark.parametrize("datatype", ["INT64", "INT32", "INT8", "UINT8", "UINT64"])
def test_integers_one_an_image_are_the_digits(datatype: str, shape: list[int]) -> None:
    assert digits(OpenInference(), v2(output("whatever", datatype, shape, [2, 0, 9])), 3) == [2, 0, 9]


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16"])
def test_of_floats_ten_an_image_the_best_is_the_digit_flat_or_nested(datatype: str) -> None:
    rows = [scores(2), scores(0), scores(9)]
    for data in (rows, [score for row in rows for score in row]):
        assert digits(OpenInference(), v2(output("whatever", datatype, [3, 10], data)), 3) == [2, 0, 9]


def test_the_outputs_place_says_nothing() -> None:
    outputs = [
        output("text", "BYTES", [2], ["two", "nine"]),
        output("embedding", "FP32", [2, 4], [0.5] * 8),
        output("probabilities", "FP32", [2, 10], [*scores(1), *scores(1)]),
        output("classes", "INT64", [2], [2, 9]),
        output("version", "INT64", [1], [7]),
    ]
    assert digits(OpenInference(), v2(*outputs), 2) == [2, 9]
    assert digits(OpenInference(), v2(*reversed(outputs)), 2) == [2, 9]


def test_of_several_outputs_that_fit_the_name_decides_and_not_the_place() -> None:
    outputs = [output("a_row", "INT64", [2], [0, 1]), output("classes", "INT64", [2], [4, 7])]
    assert digits(OpenInference(), v2(*outputs), 2) == [4, 7]
    assert digits(OpenInference(), v2(*reversed(outputs)), 2) == [4, 7]
    outputs = [output("logits", "FP32", [1, 10], scores(5)), output("probabilities", "FP32", [1, 10], scores(3))]
    assert digits(OpenInference(), v2(*outputs), 1) == digits(OpenInference(), v2(*reversed(outputs)), 1) == [3]


@pytest.mark.parametrize(
    "outputs",
    [
        [output("b", "INT64", [1], [4]), output("a", "INT64", [1], [7])],
        [output("b", "FP32", [1, 10], scores(4)), output("a", "FP32", [1, 10], scores(7))],
    ],
)
def test_several_outputs_that_fit_without_a_known_name_are_not_guessed_between(outputs: list[Any]) -> None:
    with pytest.raises(PredictorUnavailable, match=r"'b'.*'a'"):
        digits(OpenInference(), v2(*outputs), 1)


def test_ten_images_with_ten_integers_are_ten_digits() -> None:
    ten = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    assert digits(OpenInference(), v2(output("y", "INT64", [10], ten)), 10) == ten


def test_outputs_of_grpc_are_read_like_those_of_rest() -> None:
    classes = Output(name="classes", datatype="INT64", shape=(2,), data=np.array([4, 7]))
    column = Output(name="classes", datatype="UINT8", shape=(2, 1), data=np.array([[4], [7]], np.uint8))
    table = Output(name="p", datatype="FP16", shape=(2, 10), data=np.array([scores(4), scores(7)], np.float16))
    for out in (classes, column, table):
        assert digits_of([out], 2) == [4, 7]


@pytest.mark.parametrize(
    "out",
    [
        Output(name="p", datatype="FP32", shape=(1, 10), data=np.full((1, 10), np.nan, np.float32)),
        Output(name="p", datatype="FP32", shape=(1, 10), data=np.array([*scores(2)[:9], np.inf], np.float32)),
        Output(name="p", datatype="FP32", shape=(1, 10), data=np.zeros(0, np.float32)),
        Output(name="c", datatype="INT64", shape=(1,), data=np.array([10])),
        Output(name="c", datatype="INT64", shape=(1,), data=np.array([-1])),
        Output(name="c", datatype="INT64", shape=(1,), data=np.array([1, 2])),
        Output(name="c", datatype="INT64", shape=(1,), data=np.array([True])),
        Output(name="confidence", datatype="FP32", shape=(1,), data=np.array([1.0], np.float32)),
        Output(name="c", datatype="BOOL", shape=(1,), data=np.array([True])),
        Output(name="c", datatype="BYTES", shape=(1,), data=np.array([b"\xb2"], np.object_)),
        Output(name="c", datatype="BYTES", shape=(1,), data=np.array([b"2", b"2"], np.object_)),
        Output(name="c", datatype="BYTES", shape=(1, 10), data=np.array([[b"2"] * 10], np.object_)),
        Output(name="c", datatype="FP32", shape=(1,), data=np.array([np.nan], np.float32)),
        Output(name="c", datatype="FP32", shape=(1,), data=np.array([np.inf], np.float32)),
        Output(name="probability", datatype="FP64", shape=(1, 1), data=np.array([[1.0]])),
        Output(name="c", datatype="INT64", shape=(2,), data=np.array([2, 2])),
        Output(name="c", datatype="INT64", shape=(), data=np.array(2)),
        Output(name="p", datatype="FP32", shape=(10,), data=np.array(scores(2), np.float32)),
        Output(name="p", datatype="FP32", shape=(1, 11), data=np.zeros((1, 11), np.float32)),
        Output(name="p", datatype="INT64", shape=(1, 10), data=np.zeros((1, 10), np.int64)),
        Output(name="p", datatype="FP32", shape=(2, 10), data=np.zeros((2, 10), np.float32)),
    ],
)
def test_row_25_an_output_that_does_not_tell_the_digit_of_each_image_is_refused(out: Output) -> None:
    with pytest.raises(PredictorUnavailable, match="the predictor"):
        digits_of([out], 1)


@pytest.mark.parametrize("given", [1, 3, 2.0, "2"])
def test_a_label_that_is_a_number_is_that_number_and_not_its_place(given: Any) -> None:
    told = Output(name="predictions", datatype=JSON, shape=(1,), data=np.array([given], np.object_))
    assert interpreted({"predictions": told}, 1, (1, 2, 3)) == [Prediction(int(given))]
    nobody = Output(name="predictions", datatype=JSON, shape=(1,), data=np.array([0], np.object_))
    with pytest.raises(PredictorUnavailable, match="no label"):
        interpreted({"predictions": nobody}, 1, (1, 2, 3))


@pytest.mark.parametrize("shape", [[3], [3, 1]])
@pytest.mark.parametrize("name", ["predict", "output-0", "whatever"])
@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        *((datatype, [2.0, 0.0, 9.0]) for datatype in ("FP16", "FP32", "FP64")),
        ("BYTES", ["2", "0", "9"]),
        # So proto3 writes int64 as JSON, and who puts REST in front of gRPC.
        ("INT64", ["2", "0", "9"]),
    ],
)
def test_row_45_texts_and_whole_floats_one_an_image_are_the_digits(
    name: str, datatype: str, data: list[Any], shape: list[int]
) -> None:
    assert digits(OpenInference(), v2(output(name, datatype, shape, data)), 3) == [2, 0, 9]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("FP16", np.array([4, 7], np.float16)),
        ("FP32", np.array([4, 7], np.float32)),
        ("FP64", np.array([4.0, 7.0])),
        ("BYTES", np.array([b"4", b"7"], np.object_)),
        ("BYTES", np.array(["4", "7"], np.object_)),
        ("BYTES", np.array(["4", "7"])),
    ],
)
def test_row_45_texts_and_whole_floats_of_grpc_are_the_digits(
    datatype: str, data: NDArray[Any], shape: tuple[int, ...]
) -> None:
    out = Output(name="predict", datatype=datatype, shape=shape, data=data.reshape(shape))
    assert digits_of([out], 2) == [4, 7]


def test_row_45_ten_floats_are_ten_classes_of_ten_images_and_ten_scores_of_one() -> None:
    ten = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    assert digits(OpenInference(), v2(output("y", "FP32", [10], [float(digit) for digit in ten])), 10) == ten
    assert digits(OpenInference(), v2(output("y", "FP32", [1, 10], scores(4))), 1) == [4]
    assert digits(OpenInference(), v2(output("y", "FP32", [1, 1], [4.0])), 1) == [4]


SCORES = output("probabilities", "FP32", [1, 10], scores(3))


@pytest.mark.parametrize(
    ("beside", "digit"),
    [
        (output("label", "BYTES", [1], ["7"]), 7),
        (output("predict", "FP32", [1], [7.0]), 7),
        (output("whatever", "INT64", [1], [7]), 7),
        # Something else about the image, or about the model.
        (output("version", "BYTES", [1], ["1"]), 3),
        (output("word", "BYTES", [1], ["seven"]), 3),
        (output("entropy", "FP32", [1], [1.0]), 3),
        (output("confidence", "FP32", [1], [1.0]), 3),
    ],
)
def test_row_45_beside_scores_only_integers_and_what_is_named_so_are_classes(
    beside: dict[str, Any], digit: int
) -> None:
    assert digits(OpenInference(), v2(beside, SCORES), 1) == digits(OpenInference(), v2(SCORES, beside), 1) == [digit]


@pytest.mark.parametrize(("datatype", "wrong"), [("INT64", 10), ("BYTES", "seven"), ("FP32", 7.5)])
def test_a_wrong_class_is_not_made_good_by_the_probabilities_beside_it(datatype: str, wrong: object) -> None:
    # Of labels that are words, the scores are in the order of the words.
    with pytest.raises(PredictorUnavailable, match=f"no digit: .?{wrong}"):
        digits(OpenInference(), v2(output("classes", datatype, [1], [wrong]), SCORES), 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"{}",
        b'{"error": "model not loaded"}',
        b'{"predictions": [2]}',
        b'{"outputs": null}',
        b'{"outputs": {"name": "classes"}}',
        b'{"outputs": []}',
        b'{"outputs": [null]}',
        b'{"outputs": [2]}',
        b'{"outputs": [{}]}',
        v2({"name": "classes", "datatype": "INT64", "data": [2]}),
        v2({"name": "classes", "shape": [1], "data": [2]}),
        v2({"name": "classes", "datatype": "INT64", "shape": [1]}),
        v2(output("classes", "INT64", [1], None)),
        v2(output("classes", "INT64", [1], [])),
        v2(output("classes", "INT64", [1], [2, 3])),
        v2(output("classes", "INT64", [1], [True])),
        v2(output("classes", "INT64", [1], [None])),
        v2(output("classes", "INT64", [1], {"0": 2})),
        v2(output("classes", "INT64", [1], "2")),
        v2(output("classes", "INT64", [1], [2.5])),
        v2(output("classes", "INT64", [1], [[[2, 3], [4]]])),
        v2(output("classes", "INT64", ["1"], [2])),  # type: ignore[list-item]
        v2(output("classes", "INT64", [True], [2])),
        v2(output("probabilities", "FP32", [1, 10], [*scores(2)[:9], None])),
        v2(output("probabilities", "FP32", [1, 10], scores(2)[:9])),
        v2(output("probabilities", "FP32", [1, 10], [scores(2), scores(2)])),
        b'{"outputs": [{"name": "c", "datatype": "INT64", "shape": [1], "data": '
        + b"[" * 900
        + b"2"
        + b"]" * 900
        + b"}]}",
    ],
)
def test_row_25_a_v2_answer_that_is_anything_else_is_refused(answer: bytes) -> None:
    with pytest.raises(PredictorUnavailable, match="the predictor"):
        digits(OpenInference(), answer, 1)


# Scores

LOGITS = [0.0] * 9 + [2.0]
SURE = 0.4508532
"""What softmax makes of the last of these, e² / (9 + e²)."""


@pytest.mark.parametrize(
    ("row", "digit", "score"),
    [
        (scores(2), 2, 0.91),
        ({"scores": scores(3)}, 3, 0.91),
        ({"probabilities": scores(3)}, 3, 0.91),
        # Whoever names a class means it, and its own score is that of it.
        ({"classes": 9, "probabilities": scores(3)}, 9, 0.01),
        ({"predictions": scores(7), "classes": 2}, 2, 0.01),
        ({"classes": ["9"], "logits": LOGITS}, 9, SURE),
        # What rounding leaves of a sum of 1 is a distribution; a score is never above 1.
        ([0.0] * 9 + [1.01], 9, 1.0),
        ([0.0] * 8 + [0.5, 0.49], 8, 0.5),
        ([0.0] * 8 + [0.5, 0.47], 8, 0.1465697),
        (LOGITS, 9, SURE),
        # These sum to 1 and are none.
        ([-1.0] + [0.0] * 8 + [2.0], 9, 0.4689399),
        ([-1e308] * 9 + [1e308], 9, 1.0),
        (7, 7, None),
        ({"classes": 7}, 7, None),
        ({"classes": 7, "probabilities": scores(7)[:9]}, 7, None),
        ({"classes": 7, "probabilities": [None] * 10}, 7, None),
    ],
)
def test_a_prediction_has_its_classs_own_score_softmaxed_only_where_the_scores_are_no_distribution(
    row: object, digit: int, score: float | None
) -> None:
    (prediction,) = predictions(Tensorflow(), v1(row), 1)
    assert prediction.label == digit
    assert prediction.score == pytest.approx(score)


def test_the_scores_of_v2_are_those_of_a_table_alone_or_beside_the_classes() -> None:
    table = output("p", "FP32", [2, 10], [*scores(4), *LOGITS])
    classes = output("y", "INT64", [2], [4, 0])
    others = output("q", "FP32", [2, 10], [*scores(1), *scores(1)])
    cases: list[tuple[list[Any], list[tuple[int, float | None]]]] = [
        ([table], [(4, 0.91), (9, SURE)]),
        ([table, classes], [(4, 0.91), (0, 0.0610163)]),
        # Of two tables of unknown names neither is believed, but the classes are.
        ([table, classes, others], [(4, None), (0, None)]),
        ([{**table, "name": "logits"}, {**others, "name": "probabilities"}], [(1, 0.91), (1, 0.91)]),
        ([classes], [(4, None), (0, None)]),
    ]
    for outputs, expected in cases:
        told = predictions(OpenInference(), v2(*outputs), 2)
        assert [one.label for one in told] == [label for label, _ in expected]
        assert [one.score for one in told] == [pytest.approx(score) for _, score in expected]


def test_two_outputs_of_one_name_are_not_guessed_between() -> None:
    with pytest.raises(PredictorUnavailable, match=r"several outputs of one name: \['a'\]"):
        digits(OpenInference(), v2(output("a", "INT64", [1], [4]), output("a", "INT64", [1], [7])), 1)


# Other tasks

ANIMALS = ("cat", "dog", "car")
PHOTO = Tensor((3, 64, 64), name="image", pixels=True)
DOG = ([0.25, 0.5, 0.25], 0.5)


@pytest.mark.parametrize(
    ("row", "score"), [(1, None), ("dog", None), ([1.0], None), DOG, ({"classes": "dog", "scores": DOG[0]}, 0.5)]
)
def test_v1_tells_any_tasks_label_by_its_number_its_text_or_scores(row: object, score: float | None) -> None:
    assert predictions(Tensorflow(), v1(row), 1, ANIMALS) == [Prediction("dog", score)]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "score"),
    [
        ("INT64", [1], [1], None),
        ("FP32", [1, 1], [1.0], None),
        ("BYTES", [1], ["dog"], None),
        ("FP32", [1, 3], *DOG),
    ],
)
def test_v2_tells_any_tasks_label_by_its_number_its_text_or_scores(
    datatype: str, shape: list[int], data: list[Any], score: float | None
) -> None:
    assert predictions(OpenInference(), v2(output("x", datatype, shape, data)), 1, ANIMALS) == [
        Prediction("dog", score)
    ]
    kept = {"BYTES": np.object_, "INT64": np.int64}.get(datatype, np.float32)
    sent = [one.encode() if isinstance(one, str) else one for one in data]
    told = Output(name="x", datatype=datatype, shape=tuple(shape), data=np.array(sent, kept).reshape(shape))
    assert interpreted({"x": told}, 1, ANIMALS) == [Prediction("dog", score)]


@pytest.mark.parametrize("row", [3, -1, 0.5, True, "Dog", " dog", "1", None, [0.5, 0.5], [0.1] * 10, {"classes": "x"}])
def test_what_is_none_of_a_tasks_labels_is_refused(row: object) -> None:
    with pytest.raises(PredictorUnavailable, match="the predictor's"):
        predictions(Tensorflow(), v1(row), 1, ANIMALS)


DOG_SHARES = [0.25, 0.5, 0.25]
DOG_LOGITS = [0.0, float(np.log(2)), 0.0]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (DOG_SHARES, DOG_SHARES),
        ([DOG_SHARES], None),
        (DOG_LOGITS, DOG_SHARES),
        ({"classes": 1, "predictions": DOG_SHARES}, DOG_SHARES),
        ({"classes": "dog", "probabilities": DOG_LOGITS}, DOG_SHARES),
        ({"scores": DOG_SHARES}, DOG_SHARES),
        ({"classes": 1}, None),
        (1, None),
        ("dog", None),
        ([0.5, 0.5], None),
        ([0.5, 0.5, None], None),
        (None, None),
    ],
)
def test_v1_tells_the_scores_of_all_labels_or_none(row: object, found: list[float] | None) -> None:
    outputs = Tensorflow().outputs(v1(row, DOG_SHARES), 2)
    first, second = scores_of_all(outputs, 2, ANIMALS)
    assert first == (found and pytest.approx(found))
    assert second == DOG_SHARES


def test_v2_tells_the_scores_of_all_labels_beside_classes_and_alone_or_none() -> None:
    table = output("probabilities", "FP32", [2, 3], [*DOG_SHARES, *DOG_LOGITS])
    classes = output("classes", "INT64", [2], [1, 1])
    for answer in (v2(table), v2(classes, table)):
        first, second = scores_of_all(OpenInference().outputs(answer), 2, ANIMALS)
        assert first == DOG_SHARES
        assert second == pytest.approx(DOG_SHARES)
    other = output("odd", "FP32", [2], [0.1, 0.9])
    unclear = output("x", "FP32", [2, 3], [0.0] * 6), output("y", "FP32", [2, 3], [0.0] * 6)
    for answer in (v2(classes), v2(other), v2(*unclear)):
        assert scores_of_all(OpenInference().outputs(answer), 2, ANIMALS) == [None, None]


def test_an_answer_about_another_number_of_instances_tells_no_scores() -> None:
    told = Output(name="predictions", datatype=JSON, shape=(1,), data=np.array([None], np.object_))
    assert scores_of_all({"predictions": told}, 2, ANIMALS) == [None, None]


def test_an_output_gives_its_rows_and_only_as_its_shape_says() -> None:
    def of(*shape: int) -> Output:
        return Output(name="x", datatype="FP32", shape=shape, data=np.arange(6.0))

    assert of(2, 3).rows == [[0, 1, 2], [3, 4, 5]]
    for wrong in (of(2), of(2, 2), of(-2, -3), of()):
        with pytest.raises(PredictorUnavailable, match="'x' does not hold what its shape says"):
            _ = wrong.rows


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ([-1, 3, 64, 64], True),
        ([1, 3, 64, 64], True),
        ([-1, 12288], True),
        ([-1, 1, 3, 64, 64], True),
        ([-1, 64, 64, 3], False),
        ([-1, 64, 3, 64], False),
        ([-1, 3, 4096], False),
        ([3, 64, 64], False),
        ([-1, 784], False),
    ],
)
def test_a_tensor_of_colours_is_sent_in_its_own_order_or_not_at_all(shape: list[int], *, fits: bool) -> None:
    batch = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    metadata = {"inputs": [{"name": "x", "shape": shape, "datatype": "FP32"}]}
    if not fits:
        with pytest.raises(PredictorUnavailable, match=r"which no tensor \[3, 64, 64\] fits"):
            InputSpec.from_metadata(metadata, PHOTO)
        return
    sent = OpenInference().tensor(batch, InputSpec.from_metadata(metadata, PHOTO), PHOTO)
    assert sent.shape == (2, *shape[1:])
    np.testing.assert_array_equal(sent.ravel(), batch.ravel())


def test_a_model_that_tells_nothing_gets_tensors_as_they_are_or_in_one_row() -> None:
    assert InputSpec.from_metadata({}, PHOTO) == InputSpec(name="image", shape=(-1, 3, 64, 64), datatype="FP32")
    flat = Tensor((3, 64, 64), "int32", flat=True)
    assert InputSpec.of(flat) == InputSpec(name="input-0", shape=(-1, 12288), datatype="INT32")
    batch = np.zeros((2, 3, 64, 64), np.float32)
    for tensor, shape in ((PHOTO, (2, 3, 64, 64)), (flat, (2, 12288))):
        assert np.array(json.loads(Tensorflow().request(batch, tensor))["instances"]).shape == shape


@pytest.mark.parametrize(
    ("datatype", "name"),
    [
        *(("float16", "FP16"), ("float32", "FP32"), ("float64", "FP64"), ("uint8", "UINT8")),
        *(("int8", "INT8"), ("int16", "INT16"), ("int32", "INT32"), ("int64", "INT64")),
    ],
)
def test_tensors_of_any_datatype_arrive_as_they_are(datatype: str, name: str) -> None:
    tensor = Tensor((2, 3), datatype)
    batch = np.array([np.arange(6), np.arange(6) * 20]).reshape(2, 2, 3).astype(datatype)
    spec = InputSpec.from_metadata({"inputs": [{"name": "x", "shape": [-1, 2, 3], "datatype": name}]}, tensor)
    assert OpenInference().tensor(batch, spec, tensor).dtype == np.dtype(datatype)
    (given,) = json.loads(OpenInference().request(batch, spec, tensor))["inputs"]
    assert (given["datatype"], given["shape"], given["data"]) == (name, [2, 2, 3], batch.ravel().tolist())
    assert json.loads(Tensorflow().request(batch, tensor))["instances"] == batch.tolist()


def test_only_pixels_become_bytes_and_only_floats_are_pixels() -> None:
    for tensor in (Tensor((784,)), Tensor((784,), "int64")):
        with pytest.raises(PredictorUnavailable, match="'UINT8', none of"):
            replace(SPEC, datatype="UINT8").check(tensor)
    replace(SPEC, datatype="UINT8").check(Tensor((784,), "float16", pixels=True))
    with pytest.raises(ValueError, match="uint8"):
        Tensor((784,), "uint8", pixels=True)


@pytest.mark.parametrize(
    ("shape", "first", "mode", "size"),
    [
        ((5, 4), False, "L", (4, 5)),
        ((1, 5, 4), True, "L", (4, 5)),
        ((5, 4, 1), False, "L", (4, 5)),
        ((3, 5, 4), True, "RGB", (4, 5)),
        ((5, 4, 3), False, "RGB", (4, 5)),
        ((3, 1, 4), True, "RGB", (4, 1)),
        ((1, 1, 4), True, "L", (4, 1)),
    ],
)
def test_a_picture_is_grey_or_in_colour_whichever_way_its_channels_lie(
    shape: tuple[int, ...], first: bool, mode: str, size: tuple[int, int]
) -> None:
    tensor = np.linspace(-0.1, 1.1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    png = Image.open(io.BytesIO(to_png(tensor)))
    assert is_picture(shape)
    assert (png.format, png.mode, png.size) == ("PNG", mode, size)
    levels = np.rint(tensor.clip(0, 1) * 255)
    expected = np.moveaxis(levels, 0, 2) if first else levels
    np.testing.assert_array_equal(np.asarray(png).ravel(), expected.ravel())


@pytest.mark.parametrize("shape", [(784,), (4, 28, 28), (2, 3, 28, 28)])
def test_other_shapes_are_no_pictures(shape: tuple[int, ...]) -> None:
    assert not is_picture(shape)


# Formats by name


def test_a_format_is_found_by_its_name_and_says_which_protocols_it_speaks() -> None:
    assert {name: format_named(name).protocols for name in FORMATS} == {
        "tensorflow": ("v1",),
        "torchserve": ("v1",),
        "openinference": ("v2", "grpc-v2"),
    }
    assert all(format_named(name).name == name for name in FORMATS)


def test_an_unknown_format_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'onnx'.*tensorflow, torchserve, openinference"):
        format_named("onnx")
