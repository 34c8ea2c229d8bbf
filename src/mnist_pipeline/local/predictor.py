"""The demo's predictor: a KServe model server around the packaged network.

    python -m mnist_pipeline.local.predictor --model_name mnist --http_port 8080 --grpc_port 8081

It speaks what the pipeline speaks, each as the servers it stands for do:

| protocol | an image | its answer |
|---|---|---|
| V1, as TensorFlow Serving | 784 floats, 28x28 or 28x28x1 | `{"classes": digit, "predictions": [ten probabilities]}` |
| V1, as TorchServe | `{"data": "<base64 PNG or JPEG, 28x28>"}` | the digit |
| V2, REST and gRPC | a row of `input-0`, FP32, (N, 784) or (N, 28, 28) | a row of `probabilities` and of `classes` |

Pixels are 0..1, white on black. Anything else is answered 400 (gRPC: INVALID_ARGUMENT).
"""

from __future__ import annotations

import argparse
import base64
import io
import logging
import uuid
from typing import Any

import numpy as np
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput
from numpy.typing import NDArray
from PIL import Image

from mnist_pipeline.local.network import Network
from mnist_pipeline.serving.listening import ModelServer

_INPUT = {"name": "input-0", "datatype": "FP32", "shape": [-1, 784]}
_OUTPUTS = [
    {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
    {"name": "classes", "datatype": "INT64", "shape": [-1]},
]
_IMAGE_SHAPES = {(784,), (28, 28), (28, 28, 1)}


class Predictor(Model):  # type: ignore[misc]  # kserve publishes no types
    """The network behind KServe's protocols, in the event loop: an image takes less time than a hop to a thread."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._network = Network()
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        """The V2 metadata of the input."""
        return [_INPUT]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The V2 metadata of the outputs."""
        return _OUTPUTS

    async def predict(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any] | InferResponse:  # noqa: ARG002 - KServe's signature
        """Answer a V1 body or a V2 request.

        Raises:
            InvalidInput: it is none of the forms above.
        """
        if isinstance(payload, InferRequest):
            return self._v2(payload)
        instances = payload.get("instances") if isinstance(payload, dict) else None
        if not isinstance(instances, list) or not instances:
            raise InvalidInput('"instances" is not a list of images')
        if all(isinstance(instance, dict) for instance in instances):
            probabilities = self._network.probabilities(np.stack([_decoded(instance) for instance in instances]))
            return {"predictions": probabilities.argmax(axis=1).tolist()}
        probabilities = self._network.probabilities(_pixels(instances))
        # KServe's encoder takes no numpy values in a V1 answer.
        digits, rows = probabilities.argmax(axis=1).tolist(), probabilities.tolist()
        return {"predictions": [{"classes": d, "predictions": row} for d, row in zip(digits, rows, strict=True)]}

    def _v2(self, request: InferRequest) -> InferResponse:
        if len(request.inputs) != 1:
            raise InvalidInput(f"the model takes one input, not {len(request.inputs)}")
        probabilities = self._network.probabilities(_tensor(request.inputs[0]))
        outputs = []
        for described, data in zip(_OUTPUTS, (probabilities, probabilities.argmax(axis=1)), strict=True):
            output = InferOutput(described["name"], list(data.shape), described["datatype"])
            # Set here: KServe 0.21 fails to encode an array that the constructor was given as raw gRPC contents.
            output.set_data_from_numpy(data, binary_data=request.use_binary_outputs)
            outputs.append(output)
        return InferResponse(
            response_id=request.id or str(uuid.uuid4()),
            model_name=self.name,
            infer_outputs=outputs,
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )


def _tensor(tensor: InferInput) -> NDArray[np.float32]:
    if (tensor.name, tensor.datatype) != (_INPUT["name"], _INPUT["datatype"]):
        raise InvalidInput(f"the model's input is {_INPUT['name']}, {_INPUT['datatype']}")
    try:
        array = tensor.as_numpy()
    except (ValueError, TypeError) as exc:
        raise InvalidInput(f"the data of {tensor.name} does not fill its shape with numbers") from exc
    return _pixels(array)


def _pixels(values: object) -> NDArray[np.float32]:
    try:
        array = np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError) as exc:
        raise InvalidInput("an image is not 784 numbers") from exc
    if array.shape[1:] not in _IMAGE_SHAPES or not len(array):
        raise InvalidInput(f"images have shape [N, 784] or [N, 28, 28], not {list(array.shape)}")
    # The other way round, NaN would pass.
    if not (array.min() >= 0 and array.max() <= 1):
        raise InvalidInput("pixels are numbers in 0..1")
    return array


def _decoded(instance: dict[str, Any]) -> NDArray[np.float32]:
    try:
        data = base64.b64decode(instance["data"], validate=True)
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except (KeyError, TypeError, ValueError, OSError, Image.DecompressionBombError) as exc:
        raise InvalidInput('"data" is not a PNG or JPEG in base64') from exc
    if image.size != (28, 28):
        raise InvalidInput(f"the image is 28x28, not {image.width}x{image.height}")
    try:
        grey = np.asarray(image.convert("L"), dtype=np.float32)
    except (ValueError, OSError, SyntaxError) as exc:
        raise InvalidInput("the image is damaged") from exc
    return np.divide(grey, 255, dtype=np.float32)


def main() -> None:
    """Serve until SIGTERM or SIGINT, quiet about what goes well."""
    # KServe has parsed its own flags when it was imported; these are the ones that this server takes.
    parser = argparse.ArgumentParser(description="The demo's MNIST predictor.")
    parser.add_argument("--model_name", default="mnist")
    parser.add_argument("--host", help="(default: all addresses)")
    parser.add_argument("--http_port", type=int, default=8080)
    parser.add_argument("--grpc_port", type=int, default=8081)
    options = parser.parse_args()
    server = ModelServer(
        host=options.host,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        workers=1,
        enable_latency_logging=False,
    )
    # The server has set the loggers up by now. Without these, each request is three lines and a third of its cost.
    for name in ("kserve", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").handlers.clear()
    server.start([Predictor(options.model_name)])


if __name__ == "__main__":
    main()
