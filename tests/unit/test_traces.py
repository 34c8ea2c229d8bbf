"""traces.py: one trace from whoever sends to the result, over HTTP and over gRPC, by OpenTelemetry's own exporter."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from aiohttp import web
from kserve import InferInput, InferRequest
from kserve.predictor_config import PredictorConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from digits import digits_settings
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import KafkaUnavailable, PipelineError
from mnist_pipeline.pipeline.outcomes import Outcome
from mnist_pipeline.pipeline.path import Pipeline
from mnist_pipeline.serving.transformer import MnistTransformer
from mnist_pipeline.telemetry.traces import OtelTracer, are_wanted, current_context
from mnist_pipeline.testing import MemoryPublisher, MemoryStore, digit_png, minio_event
from spans import Spans, id_of, parent_of, parts, trace_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=1"}
OTHER = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
CLOUDEVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "here", "ce-type": "upload"}
INLINE = {"instances": [{"data": base64.b64encode(digit_png(7)).decode()}], "trace-id": "t-1"}
STRUCTURED = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": INLINE, **CONTEXT}

OBJECT_SPANS = {"process mnist", "wait", "fetch", "decode", "predict", "file", "publish", "release"}
INLINE_SPANS = {"process inline request", "wait", "decode", "predict", "publish"}


class Predictor(GRPCInferenceServiceServicer):  # type: ignore[misc]  # kserve has no types
    """Says seven, over HTTP and gRPC, and keeps the headers of each request."""

    def __init__(self) -> None:
        self.sent: list[dict[str, str]] = []

    @asynccontextmanager
    async def listening(self, protocol: str) -> AsyncIterator[PredictorConfig]:
        """The servers of both, and how a transformer is told of one."""
        app = web.Application()
        app.router.add_post("/v1/models/mnist:predict", self.predict)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server = grpc.aio.server()
        add_GRPCInferenceServiceServicer_to_server(self, server)
        grpc_port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        port = grpc_port if protocol == "grpc-v2" else runner.addresses[0][1]
        try:
            yield PredictorConfig(f"127.0.0.1:{port}", protocol)
        finally:
            await server.stop(None)
            await runner.cleanup()

    async def predict(self, request: web.Request) -> web.Response:
        self.sent.append({name.lower(): value for name, value in request.headers.items()})
        return web.json_response({"predictions": [7] * len((await request.json())["instances"])})

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        del request
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no metadata")

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.sent.append(dict(context.invocation_metadata()))
        reply = pb.ModelInferResponse(model_name="mnist")
        output = reply.outputs.add(name="classes", datatype="INT64", shape=[request.inputs[0].shape[0]])
        output.contents.int64_contents.extend([7] * request.inputs[0].shape[0])
        return reply


class Site:
    """A transformer on fakes, with a real predictor, and the spans that it makes."""

    def __init__(self, *, traced: bool = True, protocol: str = "v1") -> None:
        self.spans = Spans()
        self.store = MemoryStore("mnist", versioned={"mnist"}, create_buckets=True)
        self.publisher = MemoryPublisher()
        self.predictor = Predictor()
        self._protocol = protocol
        self._format = "openinference" if protocol == "grpc-v2" else "tensorflow"
        self._tracer = self.spans.tracer if traced else None

    def send(self, request: Any, headers: Mapping[str, str] | None = None) -> None:
        """A V1 body, or a request of gRPC as KServe hands it over, whose metadata are headers."""

        async def go() -> None:
            async with self.predictor.listening(self._protocol) as config:
                settings = digits_settings(predictor_format=self._format)
                pipeline = Pipeline(settings, self.store, self.publisher, tracer=self._tracer)
                model = MnistTransformer("mnist", pipeline, config)
                try:
                    if isinstance(request, InferRequest):
                        await model(request, dict(headers or {}))
                    else:
                        await model.handle(json.dumps(request).encode(), dict(headers or {}))
                finally:
                    await model.close_clients()

        asyncio.run(go())

    def send_object(self, headers: Mapping[str, str] | None = None, **metadata: str) -> None:
        version = self.store.upload("mnist", "7.png", digit_png(7), metadata=metadata)
        self.send(minio_event("mnist", "7.png", version_id=version.version_id), headers)

    @property
    def published(self) -> dict[str, bytes]:
        """The headers of the one result's record."""
        (message,) = self.publisher.messages
        return dict(message.headers)


def over_grpc() -> InferRequest:
    array = Digits().decode(digit_png(7)).reshape(1, 784)
    tensor = InferInput("input-0", [1, 784], "FP32")
    tensor.set_data_from_numpy(array, binary_data=True)
    return InferRequest("mnist", [tensor], request_id="r-1", from_grpc=True, parameters={"trace-id": "t-1"})


@pytest.mark.parametrize("protocol", ["v1", "grpc-v2"])
def test_an_upload_s_trace_goes_on_through_each_stage_into_the_predictor_s_request_and_the_result(
    protocol: str,
) -> None:
    site = Site(protocol=protocol)
    with site.spans.provider.get_tracer("user").start_as_current_span("upload"):
        context = dict(current_context())
    site.send_object(None, **context)
    spans = site.spans
    upload = spans["upload"]
    assert set(spans.names) >= OBJECT_SPANS
    assert spans.traces == {trace_of(upload)}
    assert parent_of(spans["process mnist"]) == id_of(upload)
    ids = {id_of(spans[name]): name for name in OBJECT_SPANS}
    for stage in OBJECT_SPANS - {"process mnist"}:
        assert ids[parent_of(spans[stage]) or ""] == "process mnist"
    # The request is a span of its own, made by OpenTelemetry's instrumentation of its library.
    asked = spans[[name for name in spans.names if name not in OBJECT_SPANS and name != "upload"][-1]]
    assert (asked.kind, ids[parent_of(asked) or ""]) == (SpanKind.CLIENT, "predict")
    assert parts(site.predictor.sent[-1]["traceparent"]) == (trace_of(upload), id_of(asked))
    assert parts(site.published["traceparent"]) == (trace_of(upload), id_of(spans["publish"]))


@pytest.mark.parametrize(
    ("request_", "headers"),
    [
        pytest.param(INLINE, CONTEXT, id="headers"),
        pytest.param(INLINE, CLOUDEVENT | CONTEXT, id="headers of a CloudEvent"),
        pytest.param(INLINE, CLOUDEVENT | {f"ce-{n}": v for n, v in CONTEXT.items()}, id="extension"),
        pytest.param(INLINE, CLOUDEVENT | {f"ce-kafkaheader{n}": v for n, v in CONTEXT.items()}, id="Kafka record"),
        pytest.param(
            {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": INLINE, **CONTEXT},
            {},
            id="structured",
        ),
        pytest.param(over_grpc(), CONTEXT, id="gRPC"),
    ],
)
@pytest.mark.parametrize("protocol", ["v1", "grpc-v2"])
def test_an_inline_request_s_trace_goes_on_wherever_its_context_stands(
    request_: Any, headers: dict[str, str], protocol: str
) -> None:
    site = Site(protocol=protocol)
    site.send(request_, headers)
    assert site.spans.traces == {TRACE}
    assert set(site.spans.names) >= INLINE_SPANS
    assert parent_of(site.spans["process inline request"]) == PARENT
    assert parts(site.predictor.sent[-1]["traceparent"])[0] == TRACE
    assert parts(site.published["traceparent"]) == (TRACE, id_of(site.spans["publish"]))
    assert site.published["tracestate"] == b"a=1"


@pytest.mark.parametrize(("is_set", "ours"), [(True, "0 0"), (False, "1 4")])
def test_what_opentelemetry_instruments_already_for_the_same_provider_is_not_instrumented_twice(
    *, is_set: bool, ours: str
) -> None:
    source = f"""
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient
from opentelemetry.sdk.trace import TracerProvider
from mnist_pipeline.telemetry.traces import OtelTracer
if {is_set}:
    trace.set_tracer_provider(TracerProvider())
AioHttpClientInstrumentor().instrument()
GrpcAioInstrumentorClient().instrument()
tracer = OtelTracer(service="mnist", topic=None)
print(len(tracer.http_instrumentation()), len(tracer.grpc_instrumentation()))
"""
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ours


def test_an_object_s_own_trace_goes_before_its_event_s_which_is_linked() -> None:
    site = Site()
    site.send_object(OTHER, **CONTEXT)
    assert site.spans.traces == {TRACE}
    (link,) = site.spans["process mnist"].links
    assert f"{link.context.trace_id:032x}" == "1" * 32


def test_an_object_without_one_belongs_to_its_event_s_and_without_that_to_one_of_its_own() -> None:
    site = Site()
    site.send_object(OTHER)
    assert site.spans.traces == {"1" * 32}
    site = Site()
    site.send_object()
    assert parts(site.published["traceparent"])[0] in site.spans.traces
    assert len(site.spans.traces) == 1


def test_each_object_of_one_event_has_its_own_trace() -> None:
    site = Site()
    records = []
    for number in range(3):
        context = {"traceparent": f"00-{str(number + 1) * 32}-{PARENT}-01"}
        version = site.store.upload("mnist", f"{number}.png", digit_png(number), metadata=context)
        records += minio_event("mnist", f"{number}.png", version_id=version.version_id)["Records"]
    site.send({"Records": records})
    assert site.spans.traces == {"1" * 32, "2" * 32, "3" * 32}
    assert sorted(site.spans.names.count(name) for name in OBJECT_SPANS) == [3] * 8
    sent = [parts(dict(message.headers)["traceparent"])[0] for message in site.publisher.messages]
    assert sent == ["1" * 32, "2" * 32, "3" * 32]


def test_a_span_says_what_became_of_it() -> None:
    site = Site()
    site.send_object()
    attributes = dict(site.spans["process mnist"].attributes or {})
    assert attributes.pop("mnist_pipeline.trace_id")
    assert attributes == {
        "messaging.operation.type": "process",
        "aws.s3.bucket": "mnist",
        "aws.s3.key": "7.png",
        "mnist_pipeline.outcome": "filed",
        "mnist_pipeline.reason": "filed",
        "mnist_pipeline.destination": "digit-7/7.png",
        "mnist_pipeline.label": 7,
    }
    assert site.spans["process mnist"].kind == SpanKind.CONSUMER
    assert dict(site.spans["publish"].attributes or {})["messaging.destination.name"] == "mnist-predictions"


def test_a_span_of_what_failed_is_an_error_and_its_stages_end() -> None:
    site = Site()
    site.publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    with pytest.raises(PipelineError):
        site.send_object()
    process = site.spans["process mnist"]
    assert (process.status.status_code, process.status.description) == (StatusCode.ERROR, "away")
    assert dict(process.attributes or {})["error.type"] == "kafka"
    assert site.spans["publish"].status.status_code == StatusCode.ERROR
    assert "release" not in site.spans.names


def test_a_span_tells_of_a_failed_stage_in_one_sentence_and_not_what_caused_it() -> None:
    site = Site()
    away = KafkaUnavailable("away")
    away.__cause__ = ValueError("a secret")
    site.publisher.failures.before["publish"] = [away]
    with pytest.raises(PipelineError):
        site.send_object()
    publish = site.spans["publish"]
    assert publish.status.description == "away"
    assert publish.events == ()


class Watching:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.in_hand = 0
        self.told: list[Outcome] = []

    def begun(self) -> None:
        self.in_hand += 1

    def ended(self) -> None:
        self.in_hand -= 1

    def settled(self, outcome: Outcome) -> None:
        self.told.append(outcome)


class Stuck(MnistTransformer):
    """Its prediction never comes; or fails by a bug."""

    bug: Exception | None = None

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> list[int]:
        del payload, headers, response_headers
        if self.bug is not None:
            raise self.bug
        self.asked.set()
        await asyncio.Event().wait()
        return []

    async def cut_short(self, request: Any) -> None:
        """Handle a request until the predictor is asked, and cancel it."""
        self.asked = asyncio.Event()
        task = asyncio.create_task(self.handle(json.dumps(request).encode(), {}))
        await asyncio.wait_for(self.asked.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def stuck(site: Site, observer: Watching) -> Stuck:
    pipeline = Pipeline(digits_settings(), site.store, site.publisher, tracer=site.spans.tracer, observer=observer)
    return Stuck("mnist", pipeline, PredictorConfig("nowhere"))


def event_of(site: Site) -> dict[str, Any]:
    version = site.store.upload("mnist", "7.png", digit_png(7))
    return minio_event("mnist", "7.png", version_id=version.version_id)


@pytest.mark.parametrize("place", ["mnist/7.png", None])
def test_what_is_cut_short_is_counted_once_and_its_spans_end(place: str | None) -> None:
    site, observer = Site(), Watching()
    asyncio.run(stuck(site, observer).cut_short(event_of(site) if place else INLINE))
    assert [(told.kind, told.reason, told.place) for told in observer.told] == [("failed", "cancelled", place)]
    assert observer.in_hand == 0
    process = site.spans["process mnist" if place else "process inline request"]
    assert process.status.status_code == StatusCode.ERROR


@pytest.mark.parametrize("name", ["process mnist", "process inline request"])
def test_what_fails_by_a_bug_is_counted_once_and_its_spans_end(name: str) -> None:
    site, observer = Site(), Watching()
    model = stuck(site, observer)
    model.bug = ZeroDivisionError("a secret")
    request = event_of(site) if name == "process mnist" else INLINE
    with pytest.raises(PipelineError, match="internal error"):
        asyncio.run(model.handle(json.dumps(request).encode(), {}))
    assert [told.kind for told in observer.told] == ["failed"]
    assert observer.in_hand == 0
    assert site.spans[name].status.status_code == StatusCode.ERROR
    assert "a secret" not in site.spans[name].to_json()


@pytest.mark.parametrize("protocol", ["v1", "grpc-v2"])
def test_without_a_tracer_the_context_goes_on_as_it_came(protocol: str) -> None:
    site = Site(traced=False, protocol=protocol)
    site.send_object(OTHER, **CONTEXT)
    assert {name: site.predictor.sent[-1].get(name) for name in CONTEXT} == CONTEXT
    assert {name: site.published[name].decode() for name in CONTEXT} == CONTEXT


def test_where_there_is_no_trace_none_is_made_up_without_a_tracer() -> None:
    site = Site(traced=False)
    site.send_object({"traceparent": "nonsense"})
    assert "traceparent" not in site.published


@pytest.mark.parametrize("protocol", ["v1", "grpc-v2"])
def test_an_object_s_trace_goes_on_without_the_state_of_its_event_s(protocol: str) -> None:
    site = Site(traced=False, protocol=protocol)
    site.send_object(CONTEXT, **OTHER)
    assert site.predictor.sent[-1]["traceparent"] == OTHER["traceparent"]
    assert "tracestate" not in site.predictor.sent[-1]


@pytest.mark.parametrize("headers", [{"traceparent": "nonsense"}, {"tracestate": "a=1"}])
def test_what_is_no_trace_context_goes_on_to_nobody(headers: dict[str, str]) -> None:
    site = Site(traced=False)
    site.send(INLINE, headers)
    assert not {"traceparent", "tracestate"} & set(site.predictor.sent[-1])


@pytest.mark.parametrize("protocol", ["v1", "grpc-v2"])
@pytest.mark.parametrize("tail", ["\r\nx: y", "\x00", "é", "\t"])
def test_an_odd_traceparent_of_an_event_keeps_nothing_from_being_settled(tail: str, protocol: str) -> None:
    for traced in (True, False):
        site = Site(traced=traced, protocol=protocol)
        site.send({**STRUCTURED, "traceparent": f"01-{TRACE}-{PARENT}-01-{tail}"})
        assert site.published


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "mnist"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, True),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_opentelemetry_s_own_variables_say_whether_there_are_traces(environ: dict[str, str], wanted: bool) -> None:
    assert are_wanted(environ) is wanted


def told_by_tracer_of(environ: dict[str, str], *, without: str = "") -> str:
    """What comes of `tracer_of` in this environment, and what is logged."""
    source = f"""
import sys
sys.modules[{without!r}] = None
from mnist_pipeline.telemetry.traces import tracer_of
try:
    print(type(tracer_of(service="mnist", topic=None)).__name__)
except Exception as exc:
    print(type(exc).__name__, exc)
"""
    ran = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "OTEL_TRACES_EXPORTER": "otlp,console", **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout + ran.stderr


def test_what_opentelemetry_cannot_use_is_told_at_the_start_and_not_in_each_event() -> None:
    told = told_by_tracer_of({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "x"})
    assert told == "SettingsError OTEL_*: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be a non-negative integer but got x\n"


@pytest.mark.parametrize("missing", ["opentelemetry.sdk.trace", "opentelemetry.instrumentation.aiohttp_client"])
def test_without_the_extra_or_a_part_of_it_there_are_no_traces_and_a_line_says_so(missing: str) -> None:
    assert told_by_tracer_of({}, without=missing).startswith("NoneType\nOTEL_* asks for traces")


def test_where_another_protocol_is_asked_for_a_line_says_which_it_is() -> None:
    assert "OTLP over http/protobuf, not grpc" in told_by_tracer_of({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_a_tracer_can_be_pickled_into_a_worker() -> None:
    tracer = Spans().tracer
    assert isinstance(pickle.loads(pickle.dumps(tracer)), OtelTracer)


def test_where_no_traces_are_wanted_nothing_of_the_sdk_is_imported() -> None:
    source = """
import sys
import mnist_pipeline.serving.transformer, mnist_pipeline.client.client
from mnist_pipeline.telemetry.traces import tracer_of
assert tracer_of(service="mnist", topic=None, environ={}) is None
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.instrumentation"))])
"""
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_outside_of_a_span_there_is_no_context() -> None:
    assert not trace.get_current_span().get_span_context().is_valid
    assert current_context() == {}


def test_a_collector_that_hangs_holds_up_neither_a_flush_nor_the_end_of_the_process() -> None:
    source = """
import time
from mnist_pipeline.pipeline.outcomes import Outcome
from mnist_pipeline.pipeline.stages import NO_TRACE
from mnist_pipeline.telemetry.traces import tracer_of
tracer = tracer_of(service="mnist", topic=None)
tracer.span("process", NO_TRACE, began=time.monotonic(), link=NO_TRACE).end(Outcome(reason="filed"))
tracer.flush()
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        command = [sys.executable, "-c", source]
        # The exporter by itself would try for ten seconds.
        ran = subprocess.run(
            command, env={**os.environ, **environ}, timeout=9, check=True, stderr=subprocess.PIPE, text=True
        )
    assert "Traceback" not in ran.stderr
