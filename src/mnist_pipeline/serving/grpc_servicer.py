"""KServe's gRPC service, its inference answered by us: nothing in a request ends in KServe's INTERNAL and a stack."""

from __future__ import annotations

from typing import Any

from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest, ModelInferResponse
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.utils.utils import to_headers

from mnist_pipeline.pipeline.errors import Permanent, PipelineError, UnknownPath
from mnist_pipeline.serving import inference_v2

_STATUS = {
    404: StatusCode.NOT_FOUND,
    429: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


class PipelineServicer(InferenceServicer):  # type: ignore[misc]  # kserve has no types
    """Refuses with the status and the sentence of a refusal; the reason is among the trailing metadata."""

    async def ModelInfer(self, request: ModelInferRequest, context: Any) -> ModelInferResponse:  # noqa: N802 - gRPC's name
        """Answer one inference request."""
        try:
            models = self._data_plane.model_registry
            model = models.get_model(request.model_name)
            if model is None or request.model_version:
                unknown = UnknownPath("there is no model of this name and version here")
                for ours in models.get_models().values():  # there is one
                    ours.refused(unknown)
                raise unknown
            # Names that end in -bin have bytes, which are no header that we know.
            headers = {name: value for name, value in to_headers(context).items() if isinstance(value, str)}
            reply, _ = await model.handle(inference_v2.of_grpc(request), headers)
        except PipelineError as exc:
            context.set_trailing_metadata((("kne-reason", exc.reason),))
            raise grpc_error(exc) from exc
        return reply.to_grpc()


def grpc_error(error: PipelineError) -> GrpcException:
    """What KServe's gRPC server turns into the status of this refusal."""
    other = StatusCode.INVALID_ARGUMENT if isinstance(error, Permanent) else StatusCode.INTERNAL
    return GrpcException(status_code=_STATUS.get(error.status, other), details=str(error))
