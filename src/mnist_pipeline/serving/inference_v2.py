"""The Open Inference Protocol (V2) towards our callers: their JSON, binary extension and gRPC in, its answer out.

One input: numbers of the task's datatype, `[N, …]`, or BYTES `[N]`, images or other objects (base64 text where JSON
carries them). One output: `predictions`, INT64 `[N]` or, where the labels are texts, BYTES. Sources:
github.com/kserve/open-inference-protocol, `inference_rest.md` and `inference_grpc.md`; Triton's
`extension_binary_data.md`.

Whatever a request lacks is its refusal, in our words and without its bytes, so that who waits for its result is told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
from kserve import InferOutput, InferRequest, InferResponse
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest
from kserve.protocol.grpc.servicer import InferenceServicer

from mnist_pipeline.pipeline import events, task
from mnist_pipeline.pipeline.errors import BadTensor, MalformedBody, Permanent, without_frames
from mnist_pipeline.pipeline.events import Inline
from mnist_pipeline.pipeline.interpretation import Label
from mnist_pipeline.pipeline.settings import Settings

_WITH_BATCH = 2  # dimensions at least: the batch, and what an image has
_JSON_LENGTH = "inference-header-content-length"
_MOST_DIMENSIONS = 8
_LENGTH_BYTES = 4  # before each element of BYTES
_TEXT = re.compile(rb"[\t\n\r -~]+")


@dataclass(frozen=True)
class RestRequest:
    """A body as it came to a V2 path over HTTP."""

    body: bytes


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """The input of a request: its elements as JSON or protobuf have them, or `raw`, as they lie in memory."""

    datatype: str
    shape: tuple[int, ...]
    data: Any = None
    raw: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class V2Request:
    """A request, however it came; without a tensor it has the refusal that says why.

    `as_it_came` gives bytes that no other request has, where its tensor cannot be read. `size` is about how many bytes
    there are to be read.
    """

    id: str = ""
    parameters: Mapping[str, Any]
    tensor: Tensor | None = None
    refusal: Permanent | None = None
    as_it_came: Callable[[], bytes]
    over_grpc: bool
    size: int = 0


def of_rest(request: RestRequest, headers: Mapping[str, str]) -> V2Request:
    """The request in a body of JSON, or of JSON and binary data."""
    message: dict[str, Any] = {}
    tensor = refusal = None
    try:
        json, binary = _parts(request.body, headers.get(_JSON_LENGTH))
        message = _json_object(json)
        tensor = _tensor(message.get("inputs"), binary)
    except Permanent as exc:
        refusal = without_frames(exc)
    parameters = message.get("parameters")
    return V2Request(
        id=str(message.get("id") or ""),
        parameters=parameters if isinstance(parameters, dict) else {},
        tensor=tensor,
        refusal=refusal,
        as_it_came=lambda: request.body,
        over_grpc=False,
        size=len(request.body),
    )


def of_grpc(message: ModelInferRequest) -> V2Request:
    """The request in a protobuf message, its contents raw or not."""
    try:
        InferenceServicer.validate_grpc_request(message)
        return replace(of_kserve(InferRequest.from_grpc(message)), size=message.ByteSize())
    except Exception:  # noqa: BLE001 - KServe raises what it likes on input that is not well formed
        return V2Request(
            id=message.id,
            parameters=_plain_parameters(message.parameters),
            refusal=BadTensor("the input's datatype or contents are not those of the protocol"),
            as_it_came=lambda: message.SerializeToString(deterministic=True),
            over_grpc=True,
        )


def of_kserve(request: InferRequest) -> V2Request:
    """The request as KServe has decoded it, and as callers in Python give it."""
    tensor = refusal = None
    try:
        one = _only(request.inputs)
        tensor = Tensor(
            datatype=one.datatype,
            shape=tuple(one.shape),
            data=one.data,
            raw=one._raw_data,  # noqa: SLF001 - KServe has no other way to it
        )
    except BadTensor as exc:
        refusal = without_frames(exc)
    return V2Request(
        id=request.id or "",
        parameters=_plain_parameters(request.parameters),
        tensor=tensor,
        refusal=refusal,
        as_it_came=lambda: repr([vars(one) for one in request.inputs]).encode("utf-8", "surrogatepass"),
        over_grpc=bool(request.from_grpc),
    )


def read(request: V2Request, headers: Mapping[str, str], settings: Settings) -> Inline:
    """The value that the pipeline knows; the trace key is one of the request's parameters, else a header.

    Over REST it may be a binary CloudEvent; gRPC has no such binding.

    Raises:
        BadEvent: it is a binary CloudEvent without id, source or type.
        BadTraceId: the trace id is none.
    """
    refusal = request.refusal
    instances: tuple[Any, ...] = ()
    content = b""
    if request.tensor is not None:
        try:
            instances, content = _instances(request.tensor, settings.task.input)
        except BadTensor as exc:
            refusal = without_frames(exc)
    if refusal is not None:
        content = request.as_it_came()
    return events.inline_v2(
        instances,
        content,
        request.parameters,
        headers,
        settings,
        refusal=refusal,
        may_be_event=not request.over_grpc,
    )


def reply(
    request: V2Request, model_name: str, response_id: str, asked: task.Task, labels: Sequence[Label]
) -> InferResponse:
    """The answer, under the request's own id where it has one."""
    datatype = asked.v2_labels
    output = InferOutput("predictions", [len(labels)], datatype)
    if datatype == "INT64":
        output.set_data_from_numpy(np.array(labels, np.int64), binary_data=False)
    else:
        texts = np.array([str(label).encode() for label in labels], np.object_)
        output.set_data_from_numpy(texts, binary_data=request.over_grpc)
    return InferResponse(response_id=request.id or response_id, model_name=model_name, infer_outputs=[output])


# --- JSON, and what may follow it ---


def _parts(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    if json_length is None:
        return body, b""
    if not re.fullmatch("[0-9]{1,18}", json_length) or int(json_length) > len(body):
        raise BadTensor("Inference-Header-Content-Length is not the length of the JSON in the body")
    return body[: int(json_length)], body[int(json_length) :]


def _json_object(json: bytes) -> dict[str, Any]:
    try:
        message = orjson.loads(json)
    except orjson.JSONDecodeError as exc:
        raise MalformedBody(f"the body is not JSON: {exc}") from exc
    if not isinstance(message, dict):
        raise MalformedBody("the body is not a JSON object")
    return message


def _tensor(inputs: Any, binary: bytes) -> Tensor:
    match _only(inputs):
        case {"datatype": str(datatype), "shape": list(shape), **more} if all(type(size) is int for size in shape):
            parameters = more.get("parameters")
        case _:
            raise BadTensor("the input lacks its datatype or its shape")
    if not isinstance(parameters, dict) or "binary_data_size" not in parameters:
        return Tensor(datatype=datatype, shape=tuple(shape), data=more.get("data"))
    if parameters["binary_data_size"] != len(binary):
        raise BadTensor("the input's binary_data_size is not the number of bytes that follow the JSON")
    return Tensor(datatype=datatype, shape=tuple(shape), raw=binary)


# --- the tensor ---


def _only(inputs: Any) -> Any:
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise BadTensor("the request has not exactly one input")
    return inputs[0]


def _instances(tensor: Tensor, wanted: task.Tensor) -> tuple[tuple[Any, ...], bytes]:
    """The instances, and the bytes that stand for all of them."""
    if len(tensor.shape) > _MOST_DIMENSIONS or min(tensor.shape, default=0) < 0:
        raise BadTensor("the input's shape has too many sizes, or a negative one")
    if tensor.datatype.upper() == "BYTES":
        images = [_image(one, are_pictures=wanted.pixels) for one in _elements(tensor)]
        if not images or math.prod(tensor.shape) != len(images):
            raise BadTensor(f"the input has {len(images)} images, which is not what its shape says")
        content = b"\n".join(image if isinstance(image, bytes) else image.encode() for image in images)
        return tuple({"data": image} for image in images), content
    if tensor.datatype.upper() != wanted.v2_datatype:
        raise BadTensor(f"the input's datatype is neither {wanted.v2_datatype} nor BYTES")
    try:
        array = _numbers(tensor, wanted.datatype).reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as exc:
        raise BadTensor(f"the input's data are no {wanted.v2_datatype} numbers of its shape") from exc
    if array.ndim < _WITH_BATCH or not len(array) or array[0].size != wanted.size:
        raise BadTensor(f"the input's shape is not N times the {wanted.size} of {list(wanted.shape)}")
    return tuple(array), array.tobytes()


def _numbers(tensor: Tensor, datatype: str) -> np.ndarray[Any, Any]:
    if tensor.raw is not None:
        return np.frombuffer(tensor.raw, dtype=np.dtype(datatype).newbyteorder("<"))
    array = np.asarray(tensor.data)
    if array.dtype.kind not in "iuf":
        raise ValueError(array.dtype)
    return array.astype(datatype)


def _elements(tensor: Tensor) -> list[Any]:
    """The elements of BYTES, row by row."""
    if tensor.raw is None:
        return _flat(tensor.data)
    elements, rest = [], memoryview(tensor.raw)
    while rest:
        end = _LENGTH_BYTES + int.from_bytes(rest[:_LENGTH_BYTES], "little")
        if end > len(rest):
            raise BadTensor("the input's BYTES end before their last element does")
        elements.append(bytes(rest[_LENGTH_BYTES:end]))
        rest = rest[end:]
    return elements


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise BadTensor("the input has no list of data")
    # Rows of one element are what KServe's and Triton's clients make of [N, 1].
    return [element for row in data for element in (row if isinstance(row, list) else [row])]


def _image(value: Any, *, are_pictures: bool) -> bytes | str:
    """BYTES are the object itself; but where pictures are wanted, bytes that are text are its base64."""
    if value and isinstance(value, bytes) and are_pictures and _TEXT.fullmatch(value):
        return value.decode("ascii")
    if not isinstance(value, bytes | str) or not value:
        raise BadTensor("the input's BYTES are not all bytes or text, or some are empty")
    return value


def _plain_parameters(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Their values: KServe leaves those of gRPC as protobuf, whose one field is named by `WhichOneof`."""
    return {name: _plain(value) for name, value in dict(parameters or {}).items()}


def _plain(parameter: Any) -> object:
    which = getattr(parameter, "WhichOneof", None)
    if which is None:
        return parameter
    name = which("parameter_choice")
    return getattr(parameter, name) if name else None
