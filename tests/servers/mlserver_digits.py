"""A runtime for MLServer: the project's network behind MLServer's own protocol code; runs in MLServer's environment.

The model's settings say what it takes and gives. It takes the one input that they declare, and where they declare
none, `input-0`, FP32, [N, 784]; exactly so, or it refuses. It gives the outputs that they declare, of `probabilities`
and `classes`, or else `probabilities`.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
from mlserver import MLModel  # type: ignore[import-not-found]  # it is installed where this runs
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]  # the same
from mlserver.errors import InferenceError  # type: ignore[import-not-found]  # the same
from mlserver.types import (  # type: ignore[import-not-found]  # the same
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    RequestInput,
)

_WHITE = 255


class Digits(MLModel):  # type: ignore[misc]  # its base is unknown to mypy
    """The network whose file is the model's `uri`."""

    async def load(self) -> bool:
        self._network = onnxruntime.InferenceSession(self.settings.parameters.uri, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a request.

        Raises:
            InferenceError: its input is not the one that the settings declare, or its pixels are not 0 to white.
        """
        declared = (self.inputs or [MetadataTensor(name="input-0", datatype="FP32", shape=[-1, 784])])[0]
        if len(payload.inputs) != 1 or not _is(payload.inputs[0], declared):
            raise InferenceError(f"the model takes {declared}, not {payload.inputs}")
        tensor = NumpyCodec.decode_input(payload.inputs[0])
        images = tensor.reshape(-1, 784).astype(np.float32) / (_WHITE if declared.datatype == "UINT8" else 1)
        if images.min() < 0 or images.max() > 1:
            raise InferenceError("the pixels are not 0 to white")
        (probabilities,) = self._network.run(["probabilities"], {"images": images.astype(np.float32)})
        answers = {"probabilities": probabilities, "classes": probabilities.argmax(axis=1)}
        names = [output.name for output in self.outputs or ()] or ["probabilities"]
        outputs = [NumpyCodec.encode_output(name, answers[name]) for name in names]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def _is(tensor: RequestInput, declared: MetadataTensor) -> bool:
    return (
        (tensor.name, tensor.datatype) == (declared.name, declared.datatype)
        and len(tensor.shape) == len(declared.shape)
        and all(wanted in (-1, size) for size, wanted in zip(tensor.shape, declared.shape))  # noqa: B905 - just compared
    )
