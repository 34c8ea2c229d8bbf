"""Asks the predictor: tensors go out in its format and protocol, predictions come back.

KServe's own client is not used: it turns a predictor's 400, 404, 429 and 503 into a 500, prints a stack for each, and
takes a third of a transformer's CPU. This one keeps its connections, waits no longer than it is told, and maps every
failure.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import grpc
import numpy as np
import orjson
from kserve import InferInput, InferRequest, InferResponse
from kserve.predictor_config import PredictorConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from mnist_pipeline.adapters.timeouts import timeout_after
from mnist_pipeline.pipeline.errors import PipelineError, PredictorUnavailable, TensorRefused
from mnist_pipeline.pipeline.interpretation import Output, Prediction
from mnist_pipeline.pipeline.predictor_formats import InputSpec, OpenInference, Outputs, V1Format, by_name
from mnist_pipeline.pipeline.settings import CA_BUNDLES
from mnist_pipeline.pipeline.task import Batch, Task

log = logging.getLogger(__name__)

# KServe forwards the first three; a trace that ended here would be of little use, so the W3C's go on too.
_FORWARDED = ("x-request-id", "x-b3-traceid", "authorization", "traceparent", "tracestate")
_BAD_TENSOR = (400, 422)
_OK = 200
# What a server answers that has no metadata, or no word for whether it is ready.
_NO_SUCH_PATH = (404, 405, 501)
_READY_SECONDS = 2.0
_RECONNECT_MS = 1000

TENSORS_AT_ONCE = 100
"""In one request to the predictor at most: an inline request may bring thousands, and each is 8 KB of JSON or more."""

# So many numbers are encoded on the event loop: it takes less than the hop to a thread.
_ENCODED_ON_THE_LOOP = 8 * 784


class PredictorClient:
    """Asks one predictor; belongs to one event loop. Connections are made when first needed, and closed by `close`.

    `trace_configs` and `interceptors` are what instruments the requests, over HTTP and over gRPC.
    """

    def __init__(
        self,
        model_name: str,
        config: PredictorConfig,
        predictor_format: V1Format | OpenInference,
        task: Task,
        *,
        connections: int,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> None:
        self._model = model_name
        self._config = config
        self._format = predictor_format
        self._task = task
        self._connections = connections
        self._trace_configs = trace_configs
        self._interceptors = interceptors
        self._session: aiohttp.ClientSession | None = None
        self._channel: grpc.aio.Channel | None = None
        self._spec: InputSpec | None = None
        self._is_ready = False
        self._asked_at = float("-inf")

    async def predictions(self, tensors: Batch, headers: Mapping[str, str], *, timeout: float) -> Sequence[Prediction]:
        """What the task takes the answer to `tensors` `(N, …)` for; of `headers`, only those of a trace are sent on.

        Raises:
            TensorRefused: the predictor answers 400 or 422.
            PredictorUnavailable: it is away, slow, or answers anything else that is not one prediction each.
        """
        # What is not ASCII cannot be gRPC metadata, and is no trace.
        sent = {name: headers[name] for name in _FORWARDED if headers.get(name, "é").isascii()}
        try:
            # Not wait_for(), which makes a task of it.
            async with timeout_after(min(timeout, self._config.timeout)):
                return await self._ask_or_doubt(tensors, sent)
        except (asyncio.TimeoutError, TimeoutError) as exc:
            raise PredictorUnavailable("the predictor did not answer in time") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise PredictorUnavailable(f"the predictor at {self._config.predictor_host} is away: {exc}") from exc

    async def ready(self) -> bool:
        """Whether the predictor says that its model is ready; asked at most every two seconds."""
        if time.monotonic() - self._asked_at > _READY_SECONDS:
            self._asked_at = time.monotonic()
            try:
                self._is_ready = await asyncio.wait_for(self._ask_ready(), _READY_SECONDS)
            except (asyncio.TimeoutError, TimeoutError, aiohttp.ClientError, OSError, grpc.aio.AioRpcError):
                self._is_ready = False
        return self._is_ready

    async def _ask_or_doubt(self, tensors: Batch, headers: dict[str, str]) -> list[Prediction]:
        """Ask; and do not take a refusal at its word from a V2 predictor whose model is not ready.

        MLServer refuses every tensor with 400, or INVALID_ARGUMENT, while it loads its model.
        """
        try:
            return await self._ask(tensors, headers)
        except TensorRefused as exc:
            if self._config.protocol != "v1" and await self._is_not_ready():
                raise PredictorUnavailable(f"its model is not ready: {exc}") from exc
            raise

    async def _is_not_ready(self) -> bool:
        """Whether a V2 predictor says so; not where it has no way to tell."""
        if self._config.protocol == "grpc-v2":
            try:
                return not await self._ask_ready()
            except grpc.aio.AioRpcError as exc:
                return exc.code() not in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)
        return await self._ready_status() not in (_OK, *_NO_SUCH_PATH)

    async def _ask_ready(self) -> bool:
        if self._config.protocol == "grpc-v2":
            return bool((await self._grpc().ModelReady(pb.ModelReadyRequest(name=self._model))).ready)
        return await self._ready_status() == _OK

    async def _ready_status(self) -> int:
        path = f"/v1/models/{self._model}" if self._config.protocol == "v1" else f"/v2/models/{self._model}/ready"
        async with self._rest().get(self._config.predictor_base_url + path, allow_redirects=False) as response:
            return response.status

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        channel, self._channel = self._channel, None
        if session is not None:
            await session.close()
        if channel is not None:
            await channel.close()

    async def _ask(self, tensors: Batch, headers: dict[str, str]) -> list[Prediction]:
        if isinstance(self._format, V1Format):
            return [
                prediction
                for group in _groups(tensors, TENSORS_AT_ONCE)
                for prediction in await self._ask_v1(self._format, group, headers)
            ]
        spec = self._spec
        if spec is None:
            spec = await (self._rest_spec() if self._config.protocol == "v2" else self._grpc_spec())
        # A model that was exported for a fixed number of images gets no more than that at once.
        size = spec.shape[0] if spec.shape[0] > 0 else TENSORS_AT_ONCE
        predictions: list[Prediction] = []
        try:
            for group in _groups(tensors, size):
                predictions += await self._ask_v2(self._format, group, spec, headers)
        except BaseException:
            # Another model may be loaded by now, or this one was not yet when it told its metadata.
            self._spec = None
            raise
        self._spec = spec
        return predictions

    async def _ask_v1(self, v1: V1Format, tensors: Batch, headers: dict[str, str]) -> list[Prediction]:
        body = await _encoded(v1.request, tensors, self._task.input)
        answer = await self._post(f"/v1/models/{self._model}:predict", body, headers)
        return self._interpreted(v1.outputs(answer, len(tensors)), len(tensors))

    async def _ask_v2(
        self, v2: OpenInference, tensors: Batch, spec: InputSpec, headers: dict[str, str]
    ) -> list[Prediction]:
        if self._config.protocol == "v2":
            body = await _encoded(v2.request, tensors, spec, self._task.input)
            outputs = v2.outputs(await self._post(f"/v2/models/{self._model}/infer", body, headers))
        else:
            outputs = by_name(await self._infer(v2.tensor(tensors, spec, self._task.input), spec, headers))
        return self._interpreted(outputs, len(tensors))

    def _interpreted(self, outputs: Outputs, n: int) -> list[Prediction]:
        """What the task takes them for; that it fails is not the object's fault.

        Raises:
            PredictorUnavailable: it is not one prediction each.
        """
        try:
            predictions = list(self._task.interpret(outputs, n))
        except PipelineError:
            raise
        except Exception as exc:
            kind = type(self._task).__name__
            log.exception("%s.interpret raised something else than PredictorUnavailable", kind)
            raise PredictorUnavailable(f"the answer could not be interpreted ({type(exc).__name__})") from exc
        if len(predictions) != n:
            raise PredictorUnavailable(f"{len(predictions)} predictions for {n} tensors were read from the answer")
        return predictions

    # --- REST ---

    async def _post(self, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        headers = {"content-type": "application/json", **headers}
        url = self._config.predictor_base_url + path
        async with self._rest().post(url, data=body, headers=headers, allow_redirects=False) as response:
            answer = await response.read()
        if response.status in _BAD_TENSOR:
            raise TensorRefused(f"the predictor answers {response.status} to a tensor: {answer[:200]!a}")
        if response.status != _OK:
            raise PredictorUnavailable(f"the predictor answers {response.status}: {answer[:200]!a}")
        return answer

    async def _rest_spec(self) -> InputSpec:
        url = f"{self._config.predictor_base_url}/v2/models/{self._model}"
        async with self._rest().get(url, allow_redirects=False) as response:
            answer = await response.read()
        if response.status in _NO_SUCH_PATH:
            return InputSpec.of(self._task.input)
        if response.status != _OK:
            raise PredictorUnavailable("the predictor does not tell its metadata now")
        try:
            metadata = orjson.loads(answer)
        except orjson.JSONDecodeError as exc:
            raise PredictorUnavailable("the predictor's metadata is not JSON") from exc
        return InputSpec.from_metadata(metadata if isinstance(metadata, dict) else {}, self._task.input)

    def _rest(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, ssl=_ca() if self._config.use_ssl else True),
                timeout=aiohttp.ClientTimeout(total=None),  # `predictions` has the one clock
                auto_decompress=True,
                trace_configs=[*self._trace_configs],
            )
        return self._session

    # --- gRPC ---

    async def _infer(self, tensor: Any, spec: InputSpec, headers: dict[str, str]) -> list[Output]:
        infer_input = InferInput(spec.name, list(tensor.shape), spec.datatype)
        infer_input.set_data_from_numpy(tensor, binary_data=True)
        request = InferRequest(self._model, [infer_input]).to_grpc()
        try:
            reply = await self._grpc().ModelInfer(request, metadata=tuple(headers.items()))
        except grpc.aio.AioRpcError as exc:
            raise _translated(exc) from exc
        try:
            outputs = InferResponse.from_grpc(reply).outputs
            return [
                Output(name=out.name, datatype=out.datatype, shape=tuple(out.shape), data=np.asarray(out.as_numpy()))
                for out in outputs
            ]
        except Exception as exc:  # KServe raises what it likes on an answer that is not well formed
            raise PredictorUnavailable(f"the predictor's gRPC answer cannot be read: {exc}") from exc

    async def _grpc_spec(self) -> InputSpec:
        try:
            reply = await self._grpc().ModelMetadata(pb.ModelMetadataRequest(name=self._model))
        except grpc.aio.AioRpcError as exc:
            if exc.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND):
                return InputSpec.of(self._task.input)
            raise _translated(exc) from exc
        inputs = [{"name": one.name, "shape": list(one.shape), "datatype": one.datatype} for one in reply.inputs]
        return InputSpec.from_metadata({"inputs": inputs}, self._task.input)

    def _grpc(self) -> Any:
        if self._channel is None:
            host = self._config.predictor_host
            if ":" not in host:
                host += ":443" if self._config.use_ssl else ":80"
            options = [
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                # gRPC's own pauses grow to two minutes, in which a predictor that is back is not asked.
                ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
                # gRPC would ask the proxies of the environment for a predictor in the same cluster.
                ("grpc.enable_http_proxy", 0),
                ("grpc.address_http_proxy_enabled_addresses", ""),
            ]
            if self._config.use_ssl:
                credentials = grpc.ssl_channel_credentials(_ca_pem())
                self._channel = grpc.aio.secure_channel(
                    host, credentials, options=options, interceptors=self._interceptors
                )
            else:
                self._channel = grpc.aio.insecure_channel(host, options=options, interceptors=self._interceptors)
        return GRPCInferenceServiceStub(self._channel)


def _groups(tensors: Batch, size: int) -> Iterator[Batch]:
    return (tensors[start : start + size] for start in range(0, len(tensors), size))


async def _encoded(encode: Callable[..., bytes], tensors: Batch, *args: Any) -> bytes:
    if tensors.size <= _ENCODED_ON_THE_LOOP:
        return encode(tensors, *args)
    return await asyncio.to_thread(encode, tensors, *args)


def _ca() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=_ca_file())


def _ca_pem() -> bytes | None:
    name = _ca_file()
    if name is None:
        return None
    with open(name, "rb") as file:  # noqa: PTH123 - read once, as bytes
        return file.read()


def _ca_file() -> str | None:
    return next((os.environ[name] for name in CA_BUNDLES if os.environ.get(name)), None)


def _translated(exc: grpc.aio.AioRpcError) -> PredictorUnavailable:
    says = f"the predictor answers {exc.code().name}: {(exc.details() or '')[:200]!a}"
    if exc.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE):
        return TensorRefused(says)
    return PredictorUnavailable(says)
