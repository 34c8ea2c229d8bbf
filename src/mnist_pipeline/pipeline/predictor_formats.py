"""What predictors understand and answer: one class a format, images → request, response → digits; pure.

An image is a 28x28 array of float32 in 0..1, white on black; a batch is an array of shape (N, 28, 28).

| format | protocols | request | answer |
|---|---|---|---|
| `Tensorflow` | V1 | 784 floats an image | a class, `classes`, or ten scores, an image |
| `TorchServe` | V1 | a base64 PNG in `data` an image | the same |
| `OpenInference` | V2, REST and gRPC | one tensor, as the model's metadata says | a tensor of classes or of scores |

A class is a number from 0 to 9, a whole float too (XGBoost), or the same as text, one ASCII digit (scikit-learn on text
labels). Whatever a predictor answers that is not exactly one digit an image raises PredictorUnavailable: nothing is
filed by a guess. What it sent is quoted short and printable: it may be HTML, or somebody's idea of a log line.

Sources: KServe's V1 protocol (kserve.github.io, "V1 Inference Protocol"), TensorFlow Serving's REST API ("Predict API",
row format), the Open Inference Protocol (github.com/kserve/open-inference-protocol, `inference_rest.md`).
"""

from __future__ import annotations

import base64
import math
import re
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, TypeGuard

import numpy as np
import orjson
from numpy.typing import NDArray

from mnist_pipeline.pipeline.errors import PredictorUnavailable
from mnist_pipeline.pipeline.pictures import to_bytes, to_png

Images = NDArray[np.float32]
"""A batch: shape (N, 28, 28), 0..1."""

_PIXELS = 28 * 28
_CLASSES = 10


class V1Format(ABC):
    """KServe's V1 protocol: `{"instances": [...]}` asks, `{"predictions": [...]}` answers, one entry an image.

    Another V1 predictor is another `request`; a predictor that answers in its own way overrides `digits` too.
    """

    name: ClassVar[str]
    protocols: ClassVar[tuple[str, ...]] = ("v1",)

    @abstractmethod
    def request(self, batch: Images) -> bytes:
        """The JSON body that asks for the digits of `batch`, shape (N, 28, 28)."""

    def digits(self, answer: bytes, n: int) -> list[int]:
        """The digits of `n` images: each prediction is a class, alone or in a list, an object with `classes`, or a list
        of ten scores.

        Raises:
            PredictorUnavailable: the answer is anything else.
        """
        predictions = _json_object(answer).get("predictions")
        if not isinstance(predictions, list):
            raise PredictorUnavailable(f"the predictor's answer has no list of predictions: {answer[:80]!r}")
        if len(predictions) != n:
            raise PredictorUnavailable(f"the predictor gave {len(predictions)} predictions for {n} images")
        return [_digit_of_prediction(prediction) for prediction in predictions]


class Tensorflow(V1Format):
    """TensorFlow Serving's row format, which KServe's own V1 servers take too: each image as its 784 floats."""

    name = "tensorflow"

    def request(self, batch: Images) -> bytes:
        """`{"instances": [[784 floats], ...]}`."""
        rows = np.ascontiguousarray(batch, dtype=np.float32).reshape(len(batch), _PIXELS)
        return orjson.dumps({"instances": rows}, option=orjson.OPT_SERIALIZE_NUMPY)


class TorchServe(V1Format):
    """TorchServe's KServe envelope with its image handlers: each image as a base64 PNG, 28x28, 8-bit grey."""

    name = "torchserve"

    def request(self, batch: Images) -> bytes:
        """`{"instances": [{"data": "<base64 PNG>"}, ...]}`."""
        instances = [{"data": base64.b64encode(to_png(image)).decode("ascii")} for image in batch]
        return orjson.dumps({"instances": instances})


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The one input of a V2 model: its name, its shape with the batch first (-1: any number), its datatype.

    Raises:
        PredictorUnavailable: images cannot be given in that shape or datatype.
    """

    name: str = "input-0"
    shape: tuple[int, ...] = (-1, _PIXELS)
    datatype: str = "FP32"

    def __post_init__(self) -> None:
        name = reprlib.repr(self.name)
        if self.shape[1:] not in _IMAGE_SHAPES:
            shape = reprlib.repr(list(self.shape))
            raise PredictorUnavailable(f"the predictor's input {name} has shape {shape}, which no 28x28 image fits")
        if self.datatype not in _FROM_FLOATS:
            datatype, known = reprlib.repr(self.datatype), ", ".join(_FROM_FLOATS)
            raise PredictorUnavailable(f"the predictor's input {name} has datatype {datatype}, none of {known}")

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> InputSpec:
        """The input that a model's metadata (`GET /v2/models/<model>`) describes; the defaults where it lists none.

        Raises:
            PredictorUnavailable: it describes several inputs, or one that takes no 28x28 images.
        """
        inputs = metadata.get("inputs") or []
        if not isinstance(inputs, list):
            raise PredictorUnavailable("the predictor's metadata has no list of inputs")
        if not inputs:
            return cls()
        if len(inputs) > 1:
            raise PredictorUnavailable(f"the predictor's model takes {len(inputs)} inputs, an image is one")
        match inputs[0]:
            case {"name": str(name), "shape": list(shape), "datatype": str(datatype)} if _are_integers(shape):
                return cls(name=name, shape=tuple(shape), datatype=datatype)
        raise PredictorUnavailable("the predictor's metadata names its input without name, shape or datatype")


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output tensor of a V2 answer: `data` holds its elements, in any shape, row by row."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: NDArray[Any]


class OpenInference:
    """The Open Inference Protocol (V2): one tensor in, shaped by the model's metadata; over REST and gRPC."""

    name: ClassVar[str] = "openinference"
    protocols: ClassVar[tuple[str, ...]] = ("v2", "grpc-v2")

    def tensor(self, batch: Images, spec: InputSpec) -> NDArray[Any]:
        """`batch` in the shape (N, …) and datatype of `spec`; integers are 0..255."""
        return _FROM_FLOATS[spec.datatype](batch).reshape(len(batch), *spec.shape[1:])

    def request(self, batch: Images, spec: InputSpec) -> bytes:
        """The REST body: plain JSON, never the binary extension, the data flat."""
        tensor = self.tensor(batch, spec)
        body = {
            "inputs": [
                {"name": spec.name, "shape": tensor.shape, "datatype": spec.datatype, "data": tensor.reshape(-1)},
            ]
        }
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)

    def digits(self, answer: bytes, n: int) -> list[int]:
        """The digits of `n` images from a REST answer.

        Raises:
            PredictorUnavailable: it is not one digit an image; see `digits_of`.
        """
        outputs = _json_object(answer).get("outputs")
        if not isinstance(outputs, list):
            raise PredictorUnavailable(f"the predictor's answer has no list of outputs: {answer[:80]!r}")
        return self.digits_of([_output_of_json(output) for output in outputs], n)

    def digits_of(self, outputs: Sequence[Output], n: int) -> list[int]:
        """The digits of `n` images: integers of shape (N) or (N, 1), else the best of ten scores, floats (N, 10).

        Texts and floats of the integers' shapes are classes too: those that are named as classes are, and the others
        where there are no scores, because beside scores they are something else (a version, an entropy).

        The outputs' order says nothing; of several that fit alike, the one with the likeliest name counts.

        Raises:
            PredictorUnavailable: no output fits, or several of unknown names, or it holds something else than digits or
                scores.
        """
        one_an_image = [o for o in outputs if o.shape in {(n,), (n, 1)}]
        integers = [o for o in one_an_image if o.datatype in _INTEGERS]
        others = [o for o in one_an_image if o.datatype in {"BYTES", *_FLOATS} and not _SCORE.search(o.name)]
        named = [o for o in others if o.name in _CLASS_NAMES]
        scores = [o for o in outputs if o.datatype in _FLOATS and o.shape == (n, _CLASSES)]
        if classes := integers or named or ([] if scores else others):
            return [_digit_of_class(value) for value in _elements(_named_best(classes), n)]
        if scores:
            elements = _elements(_named_best(scores), n * _CLASSES)
            return [_digit_of_scores(elements[i : i + _CLASSES]) for i in range(0, len(elements), _CLASSES)]
        raise PredictorUnavailable(f"no output of the predictor tells the digits of {n} images: {_described(outputs)}")


FORMATS: Mapping[str, type[Tensorflow | TorchServe | OpenInference]] = MappingProxyType(
    {kind.name: kind for kind in (Tensorflow, TorchServe, OpenInference)}
)
"""The formats by the names that `PREDICTOR_FORMAT` takes."""


def format_named(name: str) -> Tensorflow | TorchServe | OpenInference:
    """The format that `PREDICTOR_FORMAT` calls `name`.

    Raises:
        ValueError: there is none.
    """
    if name not in FORMATS:
        raise ValueError(f"no predictor format is called {name!r}: there are {', '.join(FORMATS)}")
    return FORMATS[name]()


# What follows the batch in a shape: with one channel, all of these are the same 784 numbers in the same order.
_IMAGE_SHAPES = {(_PIXELS,), (28, 28), (1, 28, 28), (28, 28, 1)}

_FROM_FLOATS: Mapping[str, Callable[[Images], NDArray[Any]]] = {
    "FP32": lambda batch: batch.astype(np.float32, copy=False),
    "FP64": lambda batch: batch.astype(np.float64),
    "UINT8": to_bytes,
}

_INTEGERS = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
_FLOATS = {"FP16", "FP32", "FP64"}

# What models call their answer, the likeliest first. The last is what KServe's own servers call it, whatever it is.
_CLASS_NAMES = ("predictions", "classes", "digits", "labels", "predict", "label", "output_label")
_NAMES = (*_CLASS_NAMES, "probabilities", "predict_proba", "scores", "logits", "output-0")

# One such number an image says how sure the model is, and not of what: 1.0 is not the digit 1.
_SCORE = re.compile("confidence|probab|proba$|score|logit", re.IGNORECASE)


def _named_best(outputs: Sequence[Output]) -> Output:
    if len(outputs) == 1:
        return outputs[0]
    named = [output for output in outputs if output.name in _NAMES]
    if not named:
        raise PredictorUnavailable(
            f"the predictor has several outputs that may be the digits, none of a known name: {_described(outputs)}"
        )
    return min(named, key=lambda output: _NAMES.index(output.name))


def _described(outputs: Sequence[Output]) -> str:
    described = [f"{reprlib.repr(o.name)} {reprlib.repr(o.datatype)} {reprlib.repr(o.shape)}" for o in outputs[:8]]
    return ", ".join(described) or "none"


def _json_object(answer: bytes) -> dict[str, object]:
    try:
        parsed = orjson.loads(answer)
    except orjson.JSONDecodeError as exc:
        raise PredictorUnavailable(f"the predictor's answer is not JSON: {answer[:80]!r}") from exc
    if not isinstance(parsed, dict):
        raise PredictorUnavailable(f"the predictor's answer is not a JSON object: {answer[:80]!r}")
    return parsed


def _output_of_json(output: object) -> Output:
    match output:
        case {"name": str(name), "shape": list(shape), "datatype": str(datatype), **rest} if _are_integers(shape):
            # As objects, so that a bool, a string or a null is still seen for what it is.
            data = rest.get("data")
            elements = np.array(data if isinstance(data, list) else [], dtype=np.object_)
            return Output(name=name, datatype=datatype, shape=tuple(shape), data=elements)
    raise PredictorUnavailable("an output of the predictor lacks a name, a shape or a datatype")


def _elements(output: Output, count: int) -> list[object]:
    elements: list[object] = output.data.ravel().tolist()
    if len(elements) != count:
        raise PredictorUnavailable(f"the predictor's output {reprlib.repr(output.name)} does not hold {count} elements")
    return elements


def _digit_of_prediction(prediction: object) -> int:
    if isinstance(prediction, dict) and "classes" in prediction:
        return _digit_of_class(_alone(prediction["classes"]))
    prediction = _alone(prediction)
    return _digit_of_scores(prediction) if isinstance(prediction, list) else _digit_of_class(prediction)


def _alone(value: object) -> object:
    """The one element of a list that has one: a class that is a tensor of one number, or a batch of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], list) else value


def _digit_of_class(value: object) -> int:
    if _is_number(value) and value in range(_CLASSES):
        return int(value)
    # KServe gives the BYTES of gRPC as bytes. The Arabic seven is a digit to Python, but not ASCII.
    if isinstance(value, (str, bytes)) and len(value) == 1 and value.isascii() and value.isdigit():
        return int(value)
    raise PredictorUnavailable(f"the predictor's class is no digit: {reprlib.repr(value)}")


def _digit_of_scores(scores: list[object]) -> int:
    numbers = [score for score in scores if _is_number(score) and math.isfinite(score)]
    if len(numbers) != len(scores) or len(scores) != _CLASSES:
        raise PredictorUnavailable(f"the predictor's scores are not ten finite numbers: {reprlib.repr(scores)}")
    return numbers.index(max(numbers))


def _is_number(value: object) -> TypeGuard[float]:
    # type() and not isinstance: a bool is an int to Python, and no digit.
    return type(value) in (int, float)


def _are_integers(values: Sequence[object]) -> bool:
    return all(type(value) is int for value in values)
