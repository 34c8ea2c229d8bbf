"""The `kserve.Model`: KServe's three hooks around the pipeline, and around them slots, deadline and the mapping of
errors.

`__call__` runs once a request. Per-request state lives in a ContextVar, never on `self`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import kserve
import orjson
from kserve import InferRequest
from kserve.model import InferenceVerb
from kserve.predictor_config import PredictorConfig
from starlette.exceptions import HTTPException

from mnist_pipeline.adapters.predictor_client import PredictorClient
from mnist_pipeline.pipeline import events
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.events import Inline, Nothing, Notification, Request
from mnist_pipeline.pipeline.interpretation import Label, Prediction
from mnist_pipeline.pipeline.outcomes import Outcome, verdict
from mnist_pipeline.pipeline.passage import Go, Passage
from mnist_pipeline.pipeline.path import PREDICT_SHARE, Pipeline
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.predictor_formats import OpenInference, V1Format, format_named
from mnist_pipeline.pipeline.readiness import CHECK_SECONDS, Readiness
from mnist_pipeline.pipeline.results import Result, to_reply
from mnist_pipeline.pipeline.stages import TRACE_HEADERS, TraceContext
from mnist_pipeline.pipeline.task import Batch
from mnist_pipeline.serving import inference_v2, server
from mnist_pipeline.serving.bodies import BodyLimits
from mnist_pipeline.serving.grpc_servicer import grpc_error
from mnist_pipeline.serving.inference_v2 import RestRequest, V2Request
from mnist_pipeline.serving.slots import WAIT_SHARE, Slots
from mnist_pipeline.telemetry.traces import OtelTracer

log = logging.getLogger(__name__)

# A body up to this size is parsed on the event loop.
_PARSED_ON_THE_LOOP = 64 * 1024
# What KServe gives to requests in flight when it is told to stop.
_GRACE_SECONDS = 30.0

_Result = TypeVar("_Result")

_passage: ContextVar[Passage] = ContextVar("mnist_pipeline_passage")

_NO_OBJECTS = Notification(objects=())


class ObjectTransformer(kserve.Model):  # type: ignore[misc]  # kserve has no types
    """Objects in by event or inline, predictions out through Kafka; the predictor is asked in between.

    What it is about is the task of its pipeline's settings. A subclass may override KServe's hooks: `preprocess`
    gives tensors `(N, …)`; `predict` makes predictions of them, or labels, and raises PredictorUnavailable where it
    cannot tell; anything else is a 500.
    """

    def __init__(self, name: str, pipeline: Pipeline, predictor: PredictorConfig) -> None:
        super().__init__(name, return_response_headers=True)
        self.pipeline = pipeline
        self.predictor = predictor
        settings = pipeline.settings
        self.body_limits = BodyLimits(
            each=settings.max_body_bytes,
            # Those that wait for a slot are read already: together they may take what those in the slots may.
            together=settings.max_in_flight * settings.max_body_bytes,
            wait_seconds=WAIT_SHARE * settings.event_timeout_seconds,
            read_seconds=settings.event_timeout_seconds,
        )
        self.quiet = True
        # KServe asks `healthy` for the truth; this only lets the server start.
        self.ready = True
        self._process: _Process | None = None

    @property
    def log_format(self) -> Literal["console", "json"]:
        """The form of the log."""
        return self.pipeline.settings.log_format

    # --- KServe's three hooks ---

    async def preprocess(self, payload: Notification | Inline, headers: dict[str, str] | None = None) -> Batch:
        """Fetch and decode: tensors `(N, …)` of what can be classified."""
        del payload
        passage = _passage.get()
        tensors = await self.pipeline.prepare(passage)
        if headers is not None:
            # An object may belong to another trace than its event; whichever `predict` follows sends these on.
            _set_trace(headers, passage.trace)
        return tensors

    async def predict(
        self, payload: Batch, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> Sequence[Prediction | Label]:
        """Ask the predictor about tensors `(N, …)`; nothing is asked for N = 0."""
        del response_headers
        if not len(payload):
            return []
        passage = _passage.get()
        with passage.predicting() as trace:
            timeout = passage.deadline.share(PREDICT_SHARE).remaining()
            sent = dict(headers or {})
            _set_trace(sent, trace)
            return await self._here().predictor.predictions(payload, sent, timeout=timeout)

    async def postprocess(
        self,
        result: Sequence[Prediction | Label],
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Sequence[Outcome] | Result:
        """File, publish and release; or publish, for an inline request."""
        del headers, response_headers
        return await self.pipeline.finish(_passage.get(), result)

    def get_input_types(self) -> list[dict[str, Any]]:
        """The one input, as `GET /v2/models/<model>` tells it."""
        tensor = self.pipeline.settings.task.input
        return [{"name": tensor.name, "datatype": tensor.v2_datatype, "shape": [-1, *tensor.sent_shape]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The one output."""
        return [{"name": "predictions", "datatype": self.pipeline.settings.task.v2_labels, "shape": [-1]}]

    def validate(self, payload: Any) -> Any:
        """What preprocess gives is ours: KServe's look into a V1 or V2 body has nothing to see in it."""
        return payload

    async def classify(self, tensors: Batch, deadline: Deadline) -> Sequence[Prediction | Label]:
        """Predictions of tensors `(N, …)` by this model's `predict`, for commands that have no server around them.

        Raises:
            PredictorUnavailable: the predictor is away, slow or confused.
            DeadlineExceeded: the deadline has passed.
        """
        with _passing(Passage(request=_NO_OBJECTS, deadline=deadline)):
            # KServe lets a hook be no coroutine.
            given: Any = self.predict(tensors, {}, {})
            predictions: Sequence[Prediction | Label] = await given if inspect.isawaitable(given) else given
            return predictions

    def through_hooks(self, headers: dict[str, str]) -> Go:
        """The way of a passage by `preprocess`, `predict` and `postprocess`."""

        async def go(passage: Passage) -> Any:
            with _passing(passage):
                result, _ = await super(ObjectTransformer, self).__call__(passage.request, dict(headers))
            return result

        return go

    # --- around them ---

    async def __call__(
        self,
        body: bytes | dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,
        verb: InferenceVerb = InferenceVerb.PREDICT,
    ) -> tuple[Any, dict[str, str]]:
        """Handle one request as KServe gives it to a model: of V1 its bytes or its object, of V2 an InferRequest.

        Raises:
            HTTPException, GrpcException: with the status and the reason of a refusal, as KServe answers them.
        """
        if verb != InferenceVerb.PREDICT:
            raise NotImplementedError("a transformer explains nothing")
        request: bytes | V2Request
        if isinstance(body, InferRequest):
            request = inference_v2.of_kserve(body)
        else:
            request = orjson.dumps(body) if isinstance(body, dict) else body
        try:
            return await self.handle(request, headers or {})
        except PipelineError as exc:
            if isinstance(request, V2Request) and request.over_grpc:
                raise grpc_error(exc) from exc
            raise HTTPException(exc.status, detail=str(exc), headers={"kne-reason": exc.reason}) from exc

    async def handle(
        self, request: bytes | RestRequest | V2Request, headers: dict[str, str]
    ) -> tuple[Any, dict[str, str]]:
        """Payload and headers of the answer to one request: the body of one to the V1 path, or one of V2.

        Raises:
            PipelineError: every refusal, with its status and reason.
        """
        try:
            if isinstance(request, bytes):
                return await self._handle_v1(request, headers)
            return await self._handle_v2(request, headers)
        except PipelineError:
            raise
        except Exception as exc:
            # A bug of ours: its text may say anything, so the caller gets none of it. 500 is retried.
            log.exception("a request failed in a way that nobody foresaw")
            error = PipelineError("internal error")
            self.refused(error)
            raise error from exc

    def refused(self, error: PipelineError) -> None:
        """Tell of a request that is refused before it has come to the path."""
        self.pipeline.tell(Outcome(reason=error.reason, error=error))

    async def _handle_v1(self, body: bytes, headers: dict[str, str]) -> tuple[Any, dict[str, str]]:
        settings = self.pipeline.settings
        deadline = Deadline(settings.event_timeout_seconds)
        with self._telling():
            request: Request = await _parsed(len(body), events.parse, body, headers, settings)
        if isinstance(request, Nothing):
            self.pipeline.tell(Outcome(reason=request.reason))
            return b"", {}
        async with self._slot(deadline):
            if isinstance(request, Notification):
                outcomes = await self.pipeline.settle(request, self.through_hooks(headers), deadline)
                if (error := verdict(outcomes)) is not None:
                    raise error
                return b"", {}
            result = await self.pipeline.answer(request, self.through_hooks(headers), deadline)
        return (dict(result.data), {}) if request.cloudevent is None else self._reply_to_event(result)

    async def _handle_v2(self, request: RestRequest | V2Request, headers: dict[str, str]) -> tuple[Any, dict[str, str]]:
        settings = self.pipeline.settings
        deadline = Deadline(settings.event_timeout_seconds)
        async with self._slot(deadline):
            with self._telling():
                if isinstance(request, RestRequest):
                    v2 = await _parsed(len(request.body), inference_v2.of_rest, request, headers)
                else:
                    v2 = request
                inline = await _parsed(v2.size, inference_v2.read, v2, headers, settings)
            result = await self.pipeline.answer(inline, self.through_hooks(headers), deadline)
        if inline.cloudevent is not None:
            return self._reply_to_event(result)
        reply = inference_v2.reply(v2, self.name, result.id, settings.task, result.labels)
        return (reply.to_rest()[0] if isinstance(request, RestRequest) else reply), {}

    def _reply_to_event(self, result: Result) -> tuple[bytes, dict[str, str]]:
        """Nothing, once the result is published: Knative would deliver it. Else the result as an event."""
        if self.pipeline.publisher is not None:
            return b"", {}
        headers, reply = to_reply(result, trace_key=self.pipeline.settings.trace_key)
        return reply, headers

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell of a refusal in the block."""
        try:
            yield
        except PipelineError as exc:
            self.refused(exc)
            raise

    @asynccontextmanager
    async def _slot(self, deadline: Deadline) -> AsyncIterator[None]:
        """Hold a slot for as long as the block lasts; what the path raises in it, the path has told of.

        Raises:
            Busy: none has become free in time.
        """
        slots = self._here().slots
        with self._telling():
            await slots.take(WAIT_SHARE * deadline.remaining())
        try:
            yield
        finally:
            slots.give_back()

    def predictor_format(self) -> V1Format | OpenInference:
        """What the predictor understands; called once a process, so that another transformer can bring its own."""
        return format_named(self.pipeline.settings.predictor_format)

    # --- health ---

    async def healthy(self) -> bool:
        """Whether the store and Kafka have answered once; KServe asks before every request too.

        With KServe's `--enable_predictor_health_check`, whether the predictor is ready too.
        """
        here = self._here()
        if self.predictor.predictor_health_check and not await here.predictor.ready():
            return False
        return await here.readiness.look()

    # --- this process's own ---

    def _here(self) -> _Process:
        if self._process is None:
            in_flight = self.pipeline.settings.max_in_flight
            tracer = self.pipeline.tracer
            instruments = tracer if isinstance(tracer, OtelTracer) else None
            self._process = _Process(
                slots=Slots(in_flight),
                predictor=PredictorClient(
                    self.name,
                    self.predictor,
                    self.predictor_format(),
                    self.pipeline.settings.task,
                    connections=in_flight,
                    trace_configs=instruments.http_instrumentation() if instruments else [],
                    interceptors=instruments.grpc_instrumentation() if instruments else [],
                ),
                readiness=Readiness(lambda: self.pipeline.check(Deadline(CHECK_SECONDS))),
            )
        return self._process

    async def close_clients(self) -> None:
        """Close the clients of this process, once all that is in hand is answered.

        The REST server calls it when it has answered its own; requests over gRPC may still be in hand then.
        """
        if (here := self._process) is not None:
            # What comes meanwhile finds no slot, and is told to come again.
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(here.slots.all(), _GRACE_SECONDS)
            await here.predictor.close()
            self._process = None
        await self.pipeline.close()

    def __getstate__(self) -> dict[str, Any]:
        """Without anything of this process: KServe pickles the model into its workers."""
        return {**self.__dict__, "_process": None, "_http_client_instance": None, "_grpc_client_stub": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        server.set_up_process(self)


class MnistTransformer(ObjectTransformer):
    """The transformer of digits: its pipeline's task is `Digits`."""


@dataclass(kw_only=True)
class _Process:
    """What belongs to one process and one event loop, made when first needed."""

    slots: Slots
    predictor: PredictorClient
    readiness: Readiness


@contextmanager
def _passing(passage: Passage) -> Iterator[None]:
    """Let the hooks find the passage that they serve."""
    token = _passage.set(passage)
    try:
        yield
    finally:
        _passage.reset(token)


def _set_trace(headers: dict[str, str], trace: TraceContext) -> None:
    """Make headers belong to this trace, or to none: one trace's state beside another's parent is nobody's."""
    for name in TRACE_HEADERS:
        headers.pop(name, None)
    headers.update(trace)


async def _parsed(size: int, parse: Callable[..., _Result], *args: Any) -> _Result:
    """Parse on the event loop what takes less than a hop to a thread, by its size in bytes."""
    return parse(*args) if size <= _PARSED_ON_THE_LOOP else await asyncio.to_thread(parse, *args)
