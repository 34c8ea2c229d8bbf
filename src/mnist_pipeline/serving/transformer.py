"""The `kserve.Model`: KServe's three hooks around the pipeline, and around them slots, deadline and the mapping of
errors.

`__call__` runs once a request, on the event loop; whatever blocks runs in a thread of this process's own pool: one
hop to prepare, one to finish. Per-request state lives in a ContextVar that `__call__` sets, never on `self`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import kserve
import orjson
from kserve import InferRequest
from kserve.model import InferenceVerb
from kserve.predictor_config import PredictorConfig
from prometheus_client import Counter
from starlette.exceptions import HTTPException

from mnist_pipeline.adapters.predictor_client import PredictorClient
from mnist_pipeline.pipeline import events, instances
from mnist_pipeline.pipeline.errors import (
    BadTensor,
    Busy,
    DeadlineExceeded,
    Permanent,
    PipelineError,
    TensorRefused,
    without_frames,
)
from mnist_pipeline.pipeline.events import Inline, Nothing, Notification, Request
from mnist_pipeline.pipeline.path import PREDICT_SHARE, Batch, Outcome, Pipeline, verdict
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.predictor_formats import Images, OpenInference, V1Format, format_named
from mnist_pipeline.pipeline.results import Result, to_reply
from mnist_pipeline.serving import inference_v2, server
from mnist_pipeline.serving.bodies import BodyLimits
from mnist_pipeline.serving.grpc_servicer import grpc_error
from mnist_pipeline.serving.health import CHECK_SECONDS, Readiness
from mnist_pipeline.serving.inference_v2 import RestRequest, V2Request

log = logging.getLogger(__name__)

OUTCOMES = Counter(
    "mnist_pipeline_outcomes",
    "What became of objects and inline requests: filed, predicted, gone, empty, ignored…, or the reason of a failure.",
    ("model_name", "outcome"),
)

# What a request waits for a slot, as a part of its deadline; then it is told to come again.
_WAIT_FOR_SLOT = 0.25
# A body up to this size is parsed on the event loop: it takes less than the hop to a thread.
_PARSED_ON_THE_LOOP = 256 * 1024
# What KServe gives to requests in flight when it is told to stop.
_GRACE_SECONDS = 30.0

_Result = TypeVar("_Result")


@dataclass(kw_only=True)
class _Current:
    """The request in hand; `batch` is what its preprocess made, for its postprocess."""

    deadline: Deadline
    batch: Batch | None = None


_current: ContextVar[_Current] = ContextVar("mnist_pipeline_request")


class MnistTransformer(kserve.Model):  # type: ignore[misc]  # kserve has no types
    """Images in by event or inline, digits out through Kafka; the predictor is asked in between.

    Another transformer passes a pipeline with a tensorizer of its own, or overrides `predictor_format`, or `predict`
    (float32 `(N, 28, 28)` → N digits), which raises PredictorUnavailable where it cannot tell; anything else is a 500.
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
            wait_seconds=_WAIT_FOR_SLOT * settings.event_timeout_seconds,
            read_seconds=settings.event_timeout_seconds,
        )
        self.quiet = True
        # KServe asks `healthy` for the truth; this only lets the server start.
        self.ready = True
        self._process: _Process | None = None

    # --- KServe's three hooks ---

    async def preprocess(self, payload: Notification | Inline, headers: dict[str, str] | None = None) -> Images:
        """Fetch and tensorize, in a thread: float32 `(N, 28, 28)` for what can be classified."""
        del headers
        current = _current.get()
        current.batch = await self._in_thread(self.pipeline.prepare, payload, current.deadline)
        return current.batch.tensors

    async def predict(
        self, payload: Images, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> list[int]:
        """Ask the predictor for the digits of `(N, 28, 28)`; nothing is asked for N = 0."""
        del response_headers
        if not len(payload):
            return []
        deadline = _current.get().deadline.share(PREDICT_SHARE)
        return await self._here().predictor.digits(payload, headers or {}, timeout=deadline.remaining())

    async def postprocess(
        self, result: list[int], headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> tuple[Outcome, ...] | Result:
        """File, publish and release, in a thread; or publish, for an inline request."""
        del headers, response_headers
        current = _current.get()
        batch = current.batch
        if batch is None:
            raise AssertionError("preprocess makes the batch")
        if isinstance(batch.request, Inline):
            return await self._in_thread(self.pipeline.finish_inline, batch.request, result, current.deadline)
        return await self._in_thread(self.pipeline.finish, batch, result, current.deadline)

    def validate(self, payload: Any) -> Any:
        """What preprocess gives is ours: KServe's look into a V1 or V2 body has nothing to see in it."""
        return payload

    async def classify(self, tensors: Images, deadline: Deadline) -> list[int]:
        """Digits of float32 `(N, 28, 28)` by this model's `predict`, for commands that have no server around them.

        Raises:
            PredictorUnavailable: the predictor is away, slow or confused.
            DeadlineExceeded: the deadline has passed.
        """
        with _request(deadline):
            return await self.predict(tensors)

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
            raise NotImplementedError("a transformer of digits explains nothing")
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
        except PipelineError as exc:
            self._count(exc.reason)
            raise
        except Exception as exc:
            # A bug of ours: its text may say anything, so the caller gets none of it. 500 is retried.
            log.exception("a request failed in a way that nobody foresaw")
            self._count(PipelineError.reason)
            raise PipelineError("internal error") from exc

    async def _handle_v1(self, body: bytes, headers: dict[str, str]) -> tuple[Any, dict[str, str]]:
        settings = self.pipeline.settings
        deadline = Deadline(settings.event_timeout_seconds)
        if len(body) > _PARSED_ON_THE_LOOP:
            request: Request = await self._in_thread(events.parse, body, headers, settings)
        else:
            request = events.parse(body, headers, settings)
        if isinstance(request, Nothing):
            self._count(request.reason)
            return b"", {}
        async with self._slot(deadline):
            if isinstance(request, Notification):
                await self._settled(request, headers, deadline)
                return b"", {}
            result = await self._predicted(request, headers, deadline)
        return (dict(result.data), {}) if request.cloudevent is None else self._reply_to_event(result)

    async def _handle_v2(self, request: RestRequest | V2Request, headers: dict[str, str]) -> tuple[Any, dict[str, str]]:
        deadline = Deadline(self.pipeline.settings.event_timeout_seconds)
        async with self._slot(deadline):
            if isinstance(request, RestRequest):
                v2 = await self._in_thread(inference_v2.of_rest, request, headers)
            else:
                v2 = request
            inline = await self._in_thread(inference_v2.read, v2, headers, self.pipeline.settings)
            result = await self._predicted(inline, headers, deadline)
        if inline.cloudevent is not None:
            return self._reply_to_event(result)
        reply = inference_v2.reply(v2, self.name, result.id, result.data["predictions"])
        return (reply.to_rest()[0] if isinstance(request, RestRequest) else reply), {}

    def _reply_to_event(self, result: Result) -> tuple[bytes, dict[str, str]]:
        """Nothing, once the result is published: Knative would deliver it. Else the result as an event."""
        if self.pipeline.publisher is not None:
            return b"", {}
        headers, reply = to_reply(result, trace_key=self.pipeline.settings.trace_key)
        return reply, headers

    async def _settled(self, request: Notification, headers: dict[str, str], deadline: Deadline) -> None:
        """Settle every record, a few at a time; then raise what the one answer must say, if it is no success."""
        outcomes = [Outcome(reason=refusal.reason, error=refusal) for refusal in request.refused]
        outcomes += [Outcome(reason="ignored")] * request.ignored
        while request.objects:
            try:
                deadline.remaining()
            except DeadlineExceeded as exc:
                log.error("%d objects of one event are not begun: %s", len(request.objects), exc)
                outcomes.append(Outcome(reason=exc.reason, error=without_frames(exc), stays=True))
                break
            with _request(deadline) as current:
                try:
                    settled, _ = await super().__call__(request, headers)
                except PipelineError as exc:
                    if current.batch is None:
                        raise
                    settled = await self._in_thread(self.pipeline.abandon, current.batch, exc, deadline)
            outcomes += settled
            request = replace(request, objects=current.batch.later if current.batch else ())
        error = verdict(outcomes)
        for outcome in outcomes:
            if error is None or outcome.error is not error:
                self._count(outcome.reason)
        if error is not None:
            raise error

    async def _predicted(self, request: Inline, headers: dict[str, str], deadline: Deadline) -> Result:
        """Classify and publish an inline request; what can never be classified is published as rejected."""
        with _request(deadline):
            try:
                result, _ = await super().__call__(request, headers)
            except TensorRefused as exc:
                if all(instances.is_image(instance) for instance in request.instances):
                    raise
                refusal: Permanent = BadTensor(str(exc))
            except Permanent as exc:
                refusal = without_frames(exc)
            else:
                self._count("predicted")
                return result  # type: ignore[no-any-return]  # what postprocess gave
            await self._in_thread(self.pipeline.reject_inline, request, refusal, deadline)
            raise refusal

    def _count(self, outcome: str) -> None:
        OUTCOMES.labels(model_name=self.name, outcome=outcome).inc()

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

    def _check(self) -> None:
        deadline = Deadline(CHECK_SECONDS)
        if self.pipeline.store is not None:
            self.pipeline.store.check(self.pipeline.settings.source_buckets[0], deadline=deadline)
        if self.pipeline.publisher is not None:
            self.pipeline.publisher.check(deadline=deadline)

    # --- this process's own ---

    def _here(self) -> _Process:
        if self._process is None:
            in_flight = self.pipeline.settings.max_in_flight
            self._process = _Process(
                # One more, so that a readiness check finds a thread when all slots are taken.
                threads=ThreadPoolExecutor(in_flight + 1, thread_name_prefix="pipeline"),
                slots=asyncio.Semaphore(in_flight),
                in_flight=in_flight,
                predictor=PredictorClient(self.name, self.predictor, self.predictor_format(), connections=in_flight),
                readiness=Readiness(lambda: self._in_thread(self._check)),
            )
        return self._process

    async def _in_thread(self, call: Callable[..., _Result], *args: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._here().threads, call, *args)

    @asynccontextmanager
    async def _slot(self, deadline: Deadline) -> AsyncIterator[None]:
        slots = self._here().slots
        if not slots.locked():
            await slots.acquire()  # at once: no timer is needed
        else:
            try:
                await asyncio.wait_for(slots.acquire(), _WAIT_FOR_SLOT * deadline.remaining())
            except (asyncio.TimeoutError, TimeoutError) as exc:
                raise Busy(f"{self.pipeline.settings.max_in_flight} requests are in hand already") from exc
        try:
            yield
        finally:
            slots.release()

    async def close_clients(self) -> None:
        """Close the clients of this process, once all that is in hand is answered.

        The REST server calls it when it has answered its own; requests over gRPC may still be in hand then.
        """
        if (here := self._process) is not None:
            # What comes meanwhile finds no slot, and is told to come again.
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(here.all_slots(), _GRACE_SECONDS)
            await here.predictor.close()
            here.threads.shutdown(wait=False)
            self._process = None
        await asyncio.to_thread(self.pipeline.close)

    def __getstate__(self) -> dict[str, Any]:
        """Without anything of this process: KServe pickles the model into its workers."""
        return {**self.__dict__, "_process": None, "_http_client_instance": None, "_grpc_client_stub": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        server.set_up_process(self)


@dataclass(kw_only=True)
class _Process:
    """What belongs to one process and one event loop, made when first needed."""

    threads: ThreadPoolExecutor
    slots: asyncio.Semaphore
    predictor: PredictorClient
    readiness: Readiness
    in_flight: int

    async def all_slots(self) -> None:
        """Wait until no request is in hand, and let no other begin."""
        for _ in range(self.in_flight):
            await self.slots.acquire()


@contextmanager
def _request(deadline: Deadline) -> Iterator[_Current]:
    """Set the ContextVar for one pass through the hooks."""
    current = _Current(deadline=deadline)
    token = _current.set(current)
    try:
        yield current
    finally:
        _current.reset(token)
