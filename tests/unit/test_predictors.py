from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mnist_pipeline.pipeline.errors import PredictorUnavailable
from mnist_pipeline.pipeline.predictor_formats import (
    FORMATS,
    InputSpec,
    OpenInference,
    Output,
    Tensorflow,
    TorchServe,
    format_named,
)

Batch = NDArray[np.float32]


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


# What is asked


def test_tensorflow_is_asked_with_784_floats_an_image_row_by_row() -> None:
    batch = a_batch(3)
    body = json.loads(Tensorflow().request(batch))
    assert list(body) == ["instances"]
    np.testing.assert_array_equal(np.array(body["instances"], np.float32), batch.reshape(3, 784))


def test_torchserve_is_asked_with_a_png_an_image_that_shows_the_same_pixels() -> None:
    batch = a_batch(2)
    body = json.loads(TorchServe().request(batch))
    assert list(body) == ["instances"]
    assert len(body["instances"]) == 2
    for instance, image in zip(body["instances"], batch, strict=True):
        assert list(instance) == ["data"]
        png = Image.open(io.BytesIO(base64.b64decode(instance["data"], validate=True)))
        assert (png.format, png.mode, png.size) == ("PNG", "L", (28, 28))
        np.testing.assert_array_equal(np.asarray(png), np.rint(image * 255))


def test_open_inference_is_asked_with_one_flat_tensor_and_no_word_of_the_binary_extension() -> None:
    batch = a_batch(2)
    body = json.loads(OpenInference().request(batch, InputSpec()))
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
    tensor = OpenInference().tensor(batch, spec)
    assert tensor.shape == (3, *shape[1:])
    np.testing.assert_array_equal(tensor.reshape(3, 784), batch.reshape(3, 784))
    assert json.loads(OpenInference().request(batch, spec))["inputs"][0]["shape"] == [3, *shape[1:]]


@pytest.mark.parametrize(
    ("datatype", "dtype", "scale"), [("FP32", np.float32, 1), ("FP64", np.float64, 1), ("UINT8", np.uint8, 255)]
)
def test_the_tensor_has_the_models_datatype_integers_in_0_to_255(
    datatype: str, dtype: type[np.generic], scale: int
) -> None:
    batch = a_batch(2)
    tensor = OpenInference().tensor(batch, InputSpec(datatype=datatype))
    assert tensor.dtype == dtype
    np.testing.assert_allclose(tensor, batch.reshape(2, 784) * scale, atol=1e-6 * scale)
    (sent,) = json.loads(OpenInference().request(batch, InputSpec(datatype=datatype)))["inputs"]
    assert sent["datatype"] == datatype
    np.testing.assert_array_equal(np.array(sent["data"], dtype), tensor.ravel())


def test_integers_are_the_nearest_level_of_a_pixel_between_two() -> None:
    batch = np.full((1, 28, 28), 0.9999, np.float32)
    assert (OpenInference().tensor(batch, InputSpec(datatype="UINT8")) == 255).all()


@pytest.mark.parametrize("ask", [Tensorflow().request, lambda batch: OpenInference().request(batch, InputSpec())])
def test_a_view_of_a_larger_array_is_asked_for_like_any_batch(ask: Callable[[Batch], bytes]) -> None:
    view = a_batch(6)[::2]
    assert not view.flags.c_contiguous
    assert ask(view) == ask(view.copy())


def test_a_pixel_survives_json_exactly_at_each_of_256_levels() -> None:
    levels = np.zeros((1, 28, 28), np.float32)
    levels.ravel()[:256] = np.arange(256, dtype=np.float32) / 255
    body = json.loads(Tensorflow().request(levels))
    np.testing.assert_array_equal(np.array(body["instances"], np.float32), levels.reshape(1, 784))


# The model's metadata


def test_metadata_without_inputs_means_the_defaults() -> None:
    for metadata in ({}, {"name": "mnist", "inputs": []}, {"name": "mnist", "inputs": None}):
        assert InputSpec.from_metadata(metadata) == InputSpec(name="input-0", shape=(-1, 784), datatype="FP32")


def test_metadata_names_the_input_its_shape_and_its_datatype() -> None:
    metadata = {"name": "m", "inputs": [{"name": "pixels", "shape": [-1, 1, 28, 28], "datatype": "UINT8"}]}
    assert InputSpec.from_metadata(metadata) == InputSpec(name="pixels", shape=(-1, 1, 28, 28), datatype="UINT8")


@pytest.mark.parametrize("shape", [[-1, 3, 28, 28], [-1, 28], [784], [28, 28], [], [-1, -1], [-1, 14, 56]])
def test_a_shape_that_no_image_fits_is_refused_by_its_name(shape: list[int]) -> None:
    with pytest.raises(PredictorUnavailable) as refusal:
        InputSpec.from_metadata({"inputs": [{"name": "pixels", "shape": shape, "datatype": "FP32"}]})
    assert "'pixels'" in str(refusal.value)
    assert str(shape) in str(refusal.value)


@pytest.mark.parametrize("datatype", ["BYTES", "BOOL", "INT64", "FP16", "float32", ""])
def test_a_datatype_that_pixels_cannot_have_is_refused_by_its_name(datatype: str) -> None:
    with pytest.raises(PredictorUnavailable) as refusal:
        InputSpec.from_metadata({"inputs": [{"name": "pixels", "shape": [-1, 784], "datatype": datatype}]})
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
        InputSpec.from_metadata({"inputs": inputs})


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
    assert format_.digits(v1(*predictions), 3) == [2, 0, 9]


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
    assert Tensorflow().digits(v1(*predictions), 3) == [2, 0, 9]


# What is nearly a digit, as JSON has it. The Arabic seven and the full-width one are digits to Python.
NEARLY = ["seven", "", " 7", "7 ", "07", "7.0", "+7", "-7", "1_0", "10", "0x7", "\u0667", "\uff17", "\u00b2", "\0"]


@pytest.mark.parametrize("nearly", [*NEARLY, 7.5, 10, -1, True, None])
def test_row_45_what_is_nearly_a_digit_is_never_one(nearly: object) -> None:
    for prediction in (nearly, [nearly], {"classes": nearly}, {"classes": [nearly]}):
        with pytest.raises(PredictorUnavailable, match="no digit"):
            Tensorflow().digits(v1(prediction), 1)
    for datatype in ("BYTES", "FP32", "INT64"):
        for shape in ([1], [1, 1]):
            with pytest.raises(PredictorUnavailable, match="no digit"):
                OpenInference().digits(v2(output("y", datatype, shape, [nearly])), 1)
    if isinstance(nearly, str):
        told = Output(name="y", datatype="BYTES", shape=(1,), data=np.array([nearly.encode()], np.object_))
        with pytest.raises(PredictorUnavailable, match="no digit"):
            OpenInference().digits_of([told], 1)


def test_of_equal_scores_the_lowest_digit_wins() -> None:
    assert Tensorflow().digits(v1([0, 0, 0, 0.5, 0, 0.5, 0, 0, 0, 0]), 1) == [3]


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
        Tensorflow().digits(answer, 1)


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
        format_.digits(f'{{"predictions": [3, {prediction}]}}'.encode(), 2)


def test_row_25_a_refusal_is_one_short_printable_line_whatever_the_predictor_sent() -> None:
    evil = "\r\nERROR forged line \x1b[31m" + "x" * 1_000_000
    body = json.dumps(evil, ensure_ascii=False).replace("\r\n", "\\r\\n").replace("\x1b", "\\u001b")
    refused: list[Callable[[], object]] = [
        lambda: Tensorflow().digits(evil.encode(), 1),
        lambda: Tensorflow().digits(f'{{"predictions": [{body}]}}'.encode(), 1),
        lambda: Tensorflow().digits(f'{{"predictions": [{{"classes": {body}}}]}}'.encode(), 1),
        lambda: Tensorflow().digits(f'{{"predictions": [[{body}]]}}'.encode(), 1),
        lambda: OpenInference().digits(v2(*[output(evil, evil, [1], [2])] * 100), 1),
        lambda: OpenInference().digits(v2(output(evil, "INT64", [1], [2, 2])), 1),
        lambda: InputSpec(name=evil, shape=(-1, 5)),
        lambda: InputSpec(name=evil, shape=(-1, 784), datatype=evil),
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
    assert OpenInference().digits(v2(output("whatever", datatype, shape, [2, 0, 9])), 3) == [2, 0, 9]


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16"])
def test_of_floats_ten_an_image_the_best_is_the_digit_flat_or_nested(datatype: str) -> None:
    rows = [scores(2), scores(0), scores(9)]
    for data in (rows, [score for row in rows for score in row]):
        assert OpenInference().digits(v2(output("whatever", datatype, [3, 10], data)), 3) == [2, 0, 9]


def test_the_outputs_place_says_nothing() -> None:
    outputs = [
        output("text", "BYTES", [2], ["two", "nine"]),
        output("embedding", "FP32", [2, 4], [0.5] * 8),
        output("probabilities", "FP32", [2, 10], [*scores(1), *scores(1)]),
        output("classes", "INT64", [2], [2, 9]),
        output("version", "INT64", [1], [7]),
    ]
    assert OpenInference().digits(v2(*outputs), 2) == [2, 9]
    assert OpenInference().digits(v2(*reversed(outputs)), 2) == [2, 9]


def test_of_several_outputs_that_fit_the_name_decides_and_not_the_place() -> None:
    outputs = [output("a_row", "INT64", [2], [0, 1]), output("classes", "INT64", [2], [4, 7])]
    assert OpenInference().digits(v2(*outputs), 2) == [4, 7]
    assert OpenInference().digits(v2(*reversed(outputs)), 2) == [4, 7]
    outputs = [output("logits", "FP32", [1, 10], scores(5)), output("probabilities", "FP32", [1, 10], scores(3))]
    assert OpenInference().digits(v2(*outputs), 1) == OpenInference().digits(v2(*reversed(outputs)), 1) == [3]


@pytest.mark.parametrize(
    "outputs",
    [
        [output("b", "INT64", [1], [4]), output("a", "INT64", [1], [7])],
        [output("b", "FP32", [1, 10], scores(4)), output("a", "FP32", [1, 10], scores(7))],
    ],
)
def test_several_outputs_that_fit_without_a_known_name_are_not_guessed_between(outputs: list[Any]) -> None:
    with pytest.raises(PredictorUnavailable, match=r"'b'.*'a'"):
        OpenInference().digits(v2(*outputs), 1)


def test_ten_images_with_ten_integers_are_ten_digits() -> None:
    digits = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    assert OpenInference().digits(v2(output("y", "INT64", [10], digits)), 10) == digits


def test_outputs_of_grpc_are_read_like_those_of_rest() -> None:
    classes = Output(name="classes", datatype="INT64", shape=(2,), data=np.array([4, 7]))
    column = Output(name="classes", datatype="UINT8", shape=(2, 1), data=np.array([[4], [7]], np.uint8))
    table = Output(name="p", datatype="FP16", shape=(2, 10), data=np.array([scores(4), scores(7)], np.float16))
    for out in (classes, column, table):
        assert OpenInference().digits_of([out], 2) == [4, 7]


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
        OpenInference().digits_of([out], 1)


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
    assert OpenInference().digits(v2(output(name, datatype, shape, data)), 3) == [2, 0, 9]


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
    assert OpenInference().digits_of([out], 2) == [4, 7]


def test_row_45_ten_floats_are_ten_classes_of_ten_images_and_ten_scores_of_one() -> None:
    digits = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    assert OpenInference().digits(v2(output("y", "FP32", [10], [float(digit) for digit in digits])), 10) == digits
    assert OpenInference().digits(v2(output("y", "FP32", [1, 10], scores(4))), 1) == [4]
    assert OpenInference().digits(v2(output("y", "FP32", [1, 1], [4.0])), 1) == [4]


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
    assert OpenInference().digits(v2(beside, SCORES), 1) == OpenInference().digits(v2(SCORES, beside), 1) == [digit]


@pytest.mark.parametrize(("datatype", "wrong"), [("INT64", 10), ("BYTES", "seven"), ("FP32", 7.5)])
def test_a_wrong_class_is_not_made_good_by_the_probabilities_beside_it(datatype: str, wrong: object) -> None:
    # Of labels that are words, the scores are in the order of the words.
    with pytest.raises(PredictorUnavailable, match=f"no digit: .?{wrong}"):
        OpenInference().digits(v2(output("classes", datatype, [1], [wrong]), SCORES), 1)


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
        OpenInference().digits(answer, 1)


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
