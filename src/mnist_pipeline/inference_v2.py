"""The Open Inference Protocol (V2) towards our callers: KServe's InferRequest in, its InferResponse out.

One input: FP32 `[N, 784]` or `[N, 28, 28]`, or BYTES `[N]`, images (base64 text where JSON carries them). One output:
`predictions`, INT64 `[N]`. Source: github.com/kserve/open-inference-protocol, `inference_rest.md`, `inference_grpc.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse

from mnist_pipeline import events
from mnist_pipeline.errors import BadTensor, without_frames
from mnist_pipeline.events import Inline
from mnist_pipeline.settings import Settings

_PIXELS = 28 * 28
_WITH_BATCH = 2  # dimensions at least: the batch, and what an image has


def read(request: InferRequest, headers: Mapping[str, str], settings: Settings) -> Inline:
    """The value that the pipeline knows; the trace key is one of the request's parameters, else a header.

    Over REST it may be a binary CloudEvent; gRPC has no such binding. A request without exactly one input of a known
    datatype and shape is one with a refusal.

    Raises:
        BadTraceId: the trace id is none.
    """
    parameters = {name: _plain(value) for name, value in dict(request.parameters or {}).items()}
    refusal = None
    try:
        instances, content = _instances(request)
    except BadTensor as exc:
        instances, content, refusal = (), _as_it_came(request), without_frames(exc)
    return events.inline_v2(
        instances, content, parameters, headers, settings, refusal=refusal, may_be_event=not request.from_grpc
    )


def _instances(request: InferRequest) -> tuple[tuple[Any, ...], bytes]:
    """The instances of the one input, and the bytes that stand for all of them."""
    if len(request.inputs) != 1:
        raise BadTensor(f"{len(request.inputs)} inputs: one is expected")
    tensor = request.inputs[0]
    if tensor.datatype not in ("FP32", "BYTES"):
        raise BadTensor(f"the input's datatype is {tensor.datatype!a}: FP32 and BYTES are known")
    try:
        array = np.asarray(tensor.as_numpy())
    except Exception as exc:  # KServe and numpy raise what they like on data that does not fit its shape
        raise BadTensor(f"the input cannot be read: {exc}") from exc
    if tensor.datatype == "BYTES":
        images = [_image(one) for one in array.ravel()]
        if not images:
            raise BadTensor("the input has no images")
        content = b"\n".join(image if isinstance(image, bytes) else image.encode() for image in images)
        return tuple({"data": image} for image in images), content
    if array.ndim < _WITH_BATCH or not len(array) or array[0].size != _PIXELS:
        raise BadTensor(f"the input's shape is {list(array.shape)}: [N, 784] and [N, 28, 28] are known")
    return tuple(array), array.tobytes()


def _as_it_came(request: InferRequest) -> bytes:
    """Something of the inputs that no other request has, where they cannot be read."""
    inputs = [
        (one.name, one.shape, one.datatype, one.data, one._raw_data)  # noqa: SLF001 - KServe has no other way to gRPC's
        for one in request.inputs
    ]
    return repr(inputs).encode("utf-8", "surrogatepass")


def reply(request: InferRequest, model_name: str, response_id: str, digits: Sequence[int]) -> InferResponse:
    """The answer, under the request's own id where it has one."""
    output = InferOutput("predictions", [len(digits)], "INT64")
    output.set_data_from_numpy(np.array(digits, dtype=np.int64), binary_data=False)
    return InferResponse(response_id=request.id or response_id, model_name=model_name, infer_outputs=[output])


def _image(value: Any) -> bytes | str:
    """BYTES are the image itself where they begin like a PNG or a JPEG, else base64 text, as JSON needs it."""
    if isinstance(value, bytes) and not value.startswith((b"\x89PNG", b"\xff\xd8")):
        return value.decode("ascii", "replace")
    if not isinstance(value, bytes | str):
        raise BadTensor("the input's BYTES are not all bytes or text")
    return value


def _plain(parameter: Any) -> object:
    """A parameter's value: KServe leaves those of gRPC as protobuf, whose one field is named by `WhichOneof`."""
    which = getattr(parameter, "WhichOneof", None)
    if which is None:
        return parameter
    name = which("parameter_choice")
    return getattr(parameter, name) if name else None
