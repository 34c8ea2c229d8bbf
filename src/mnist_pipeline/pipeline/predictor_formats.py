"""How predictors are asked, and how their answers are read: one class a format, tensors → request, response → outputs;
pure. What the outputs mean is the task's (`interpretation`).

| format | protocols | request | answer |
|---|---|---|---|
| `Tensorflow` | V1 | the numbers of each tensor | one entry each |
| `TorchServe` | V1 | a base64 PNG in `data` each | the same |
| `OpenInference` | V2, REST and gRPC | one tensor, as the model's metadata says | named tensors |

Sources: KServe's V1 protocol (kserve.github.io, "V1 Inference Protocol"), TensorFlow Serving's REST API ("Predict API",
row format), the Open Inference Protocol (github.com/kserve/open-inference-protocol, `inference_rest.md`).
"""

from __future__ import annotations

import base64
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import orjson
from numpy.typing import NDArray

from mnist_pipeline.pipeline.errors import PredictorUnavailable
from mnist_pipeline.pipeline.interpretation import JSON, Output
from mnist_pipeline.pipeline.pictures import to_bytes, to_png
from mnist_pipeline.pipeline.task import Batch, Tensor

Outputs = Mapping[str, Output]
"""What a predictor answered, by the outputs' names."""


class V1Format(ABC):
    """KServe's V1 protocol: `{"instances": [...]}` asks, `{"predictions": [...]}` answers, one entry a tensor."""

    name: ClassVar[str]
    protocols: ClassVar[tuple[str, ...]] = ("v1",)

    @abstractmethod
    def request(self, batch: Batch, tensor: Tensor) -> bytes:
        """The JSON body that asks about `batch`, tensors such as `tensor` says."""

    def outputs(self, answer: bytes, n: int) -> Outputs:
        """The one output `predictions`, which has any JSON value for each of `n` tensors.

        Raises:
            PredictorUnavailable: the answer is anything else.
        """
        predictions = _json_object(answer).get("predictions")
        if not isinstance(predictions, list):
            raise PredictorUnavailable(f"the predictor's answer has no list of predictions: {answer[:80]!r}")
        if len(predictions) != n:
            raise PredictorUnavailable(f"the predictor gave {len(predictions)} predictions for {n} tensors")
        data = np.fromiter(predictions, np.object_, n)
        return {"predictions": Output(name="predictions", datatype=JSON, shape=(n,), data=data)}


class Tensorflow(V1Format):
    """TensorFlow Serving's row format, which KServe's own V1 servers take too: each tensor's numbers."""

    name = "tensorflow"

    def request(self, batch: Batch, tensor: Tensor) -> bytes:
        """`{"instances": [[...], ...]}`, the numbers of each tensor nested as its shape is, or in one row."""
        rows = np.ascontiguousarray(batch, dtype=tensor.datatype).reshape(len(batch), *tensor.sent_shape)
        return orjson.dumps({"instances": rows}, option=orjson.OPT_SERIALIZE_NUMPY)


class TorchServe(V1Format):
    """TorchServe's KServe envelope with its image handlers: each tensor as a base64 PNG, 8 bits a channel."""

    name = "torchserve"

    def request(self, batch: Batch, tensor: Tensor) -> bytes:
        """`{"instances": [{"data": "<base64 PNG>"}, ...]}`; the tensors are of pixels."""
        del tensor
        instances = [{"data": base64.b64encode(to_png(image)).decode("ascii")} for image in batch]
        return orjson.dumps({"instances": instances})


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The one input of a V2 model: its name, its shape with the batch first (-1: any number), its datatype."""

    name: str
    shape: tuple[int, ...]
    datatype: str

    @classmethod
    def of(cls, tensor: Tensor) -> InputSpec:
        """The input of a model that tells nothing of itself."""
        return cls(name=tensor.name, shape=(-1, *tensor.sent_shape), datatype=tensor.v2_datatype)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object], tensor: Tensor) -> InputSpec:
        """The input that a model's metadata (`GET /v2/models/<model>`) describes; the defaults where it lists none.

        Raises:
            PredictorUnavailable: it describes several inputs, or one that does not take such tensors.
        """
        inputs = metadata.get("inputs") or []
        if not isinstance(inputs, list):
            raise PredictorUnavailable("the predictor's metadata has no list of inputs")
        if not inputs:
            return cls.of(tensor)
        if len(inputs) > 1:
            raise PredictorUnavailable(f"the predictor's model takes {len(inputs)} inputs, and not one")
        match inputs[0]:
            case {"name": str(name), "shape": list(shape), "datatype": str(datatype)} if _are_integers(shape):
                spec = cls(name=name, shape=tuple(shape), datatype=datatype)
            case _:
                raise PredictorUnavailable("the predictor's metadata names its input without name, shape or datatype")
        spec.check(tensor)
        return spec

    def check(self, tensor: Tensor) -> None:
        """See that such tensors can be given in this shape and datatype.

        Raises:
            PredictorUnavailable: they cannot.
        """
        name, given = reprlib.repr(self.name), list(tensor.shape)
        of_one = self.shape[1:]
        # Of one channel, all of these are the same numbers in the same order.
        if not self.shape or (of_one != (tensor.size,) and _without_ones(of_one) != _without_ones(tensor.shape)):
            shape = reprlib.repr(list(self.shape))
            raise PredictorUnavailable(f"the predictor's input {name} has shape {shape}, which no tensor {given} fits")
        if self.datatype not in _conversions(tensor):
            datatype, known = reprlib.repr(self.datatype), ", ".join(_conversions(tensor))
            raise PredictorUnavailable(f"the predictor's input {name} has datatype {datatype}, none of {known}")


class OpenInference:
    """The Open Inference Protocol (V2): one tensor in, shaped by the model's metadata; over REST and gRPC."""

    name: ClassVar[str] = "openinference"
    protocols: ClassVar[tuple[str, ...]] = ("v2", "grpc-v2")

    def tensor(self, batch: Batch, spec: InputSpec, tensor: Tensor) -> NDArray[Any]:
        """`batch` in the shape (N, …) and datatype of `spec`; pixels are 0..255 as UINT8."""
        return _conversions(tensor)[spec.datatype](batch).reshape(len(batch), *spec.shape[1:])

    def request(self, batch: Batch, spec: InputSpec, tensor: Tensor) -> bytes:
        """The REST body: plain JSON, never the binary extension, the data flat."""
        sent = self.tensor(batch, spec, tensor)
        body = {
            "inputs": [{"name": spec.name, "shape": sent.shape, "datatype": spec.datatype, "data": sent.reshape(-1)}],
        }
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)

    def outputs(self, answer: bytes) -> Outputs:
        """The outputs of a REST answer.

        Raises:
            PredictorUnavailable: it has none, or two of one name.
        """
        outputs = _json_object(answer).get("outputs")
        if not isinstance(outputs, list):
            raise PredictorUnavailable(f"the predictor's answer has no list of outputs: {answer[:80]!r}")
        return by_name([_output_of_json(output) for output in outputs])


def by_name(outputs: Sequence[Output]) -> Outputs:
    """The outputs by their names.

    Raises:
        PredictorUnavailable: two have the same.
    """
    named = {output.name: output for output in outputs}
    if len(named) < len(outputs):
        raise PredictorUnavailable(f"the predictor has several outputs of one name: {reprlib.repr(list(named))}")
    return named


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


def _conversions(tensor: Tensor) -> Mapping[str, Callable[[Batch], NDArray[Any]]]:
    """The datatypes that a model may want, and how such tensors become them."""
    ours: dict[str, Callable[[Batch], NDArray[Any]]] = {
        tensor.v2_datatype: lambda batch: batch.astype(tensor.datatype, copy=False)
    }
    floats: dict[str, Callable[[Batch], NDArray[Any]]] = {
        "FP32": lambda batch: batch.astype(np.float32, copy=False),
        "FP64": lambda batch: batch.astype(np.float64),
    }
    pixels: dict[str, Callable[[Batch], NDArray[Any]]] = {"UINT8": to_bytes} if tensor.pixels else {}
    return ours | floats | pixels


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


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


def _are_integers(values: Sequence[object]) -> bool:
    return all(type(value) is int for value in values)
