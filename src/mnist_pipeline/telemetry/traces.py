"""Traces by OpenTelemetry: a span for each object or inline request, and in it one for each stage.

They need the extra `mnist-pipeline[otel]`.

OpenTelemetry's own variables say whether there are any and where they go ("OpenTelemetry Environment Variable
Specification"). Where nothing is said nothing of it is imported.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.outcomes import Outcome
from mnist_pipeline.pipeline.settings import SettingsError
from mnist_pipeline.pipeline.stages import NO_TRACE, TraceContext

if TYPE_CHECKING:
    from opentelemetry import trace as otel
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_EXTRA = (
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.instrumentation.aiohttp_client",
    "opentelemetry.instrumentation.grpc",
)
_FLUSH_SECONDS = 2.0


def are_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return bool(_exporters(environ))


def _exporters(environ: Mapping[str, str]) -> set[str]:
    """Where traces go: otlp, console, or both."""
    named = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not named:
        return {"otlp"} if any(environ.get(name) for name in _ENDPOINTS) else set()
    return {name.strip().lower() for name in named.split(",")} & {"otlp", "console"}


def tracer_of(*, service: str, topic: str | None, environ: Mapping[str, str] = os.environ) -> OtelTracer | None:
    """What makes the traces that the environment asks for; None where it asks for none, or they cannot be made.

    Args:
        service: the name under which they are shown, unless the environment gives one.
        topic: where results are published.
        environ: the environment.

    Raises:
        SettingsError: OpenTelemetry cannot use what the environment tells it.
    """
    if not are_wanted(environ):
        return None
    tracer = OtelTracer(service=service, topic=topic)
    try:
        for name in _EXTRA:
            import_module(name)
        tracer.provider()
    except ModuleNotFoundError:
        log.warning("OTEL_* asks for traces, which need the extra mnist-pipeline[otel]: there are none")
        return None
    except (ValueError, OSError) as exc:
        raise SettingsError([f"OTEL_*: {exc}"]) from exc
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        log.warning("traces are sent as OTLP over %s, not %s", _PROTOCOL, protocol)
    return tracer


def current_context() -> TraceContext:
    """The context of the span in which the caller is, where there is one; nothing is imported for it."""
    if "opentelemetry.trace" not in sys.modules:
        return NO_TRACE
    return _headers_of(None)


class OtelTracer:
    """Makes spans with OpenTelemetry's SDK. It can be pickled: a process makes its own provider when first needed."""

    def __init__(self, *, service: str, topic: str | None, provider: TracerProvider | None = None) -> None:
        self._service = service
        self._topic = topic
        self._provider = provider
        self._tracer: otel.Tracer | None = None

    def span(self, name: str, context: TraceContext, *, began: float, link: TraceContext) -> OtelSpan:
        """A span that begins at a moment of `time.monotonic()`, in this trace or in a new one."""
        from opentelemetry import trace

        if self._tracer is None:
            self._tracer = self.provider().get_tracer("mnist_pipeline")
        links = [trace.Link(trace.get_current_span(_context_in(link)).get_span_context())] if link else []
        span = self._tracer.start_span(
            name,
            _context_in(context),
            trace.SpanKind.CONSUMER,
            links=links,
            start_time=_nanoseconds(began),
            attributes={"messaging.operation.type": "process"},
        )
        return OtelSpan(self._tracer, span, self._topic)

    def provider(self) -> TracerProvider:
        """This process's own, or that of whoever has set one, as `opentelemetry-instrument` does."""
        if self._provider is None:
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider

            given = trace.get_tracer_provider()
            self._provider = given if isinstance(given, TracerProvider) else _provider_of(self._service)
        return self._provider

    def http_instrumentation(self) -> list[Any]:
        """For an aiohttp session: a span for each request, whose context the request carries.

        None of it where all sessions have it, as with `opentelemetry-instrument`.
        """
        from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor, create_trace_config

        if self._is_everybody_s and AioHttpClientInstrumentor().is_instrumented_by_opentelemetry:
            return []
        return [create_trace_config(tracer_provider=self.provider())]

    def grpc_instrumentation(self) -> list[Any]:
        """The same for a channel of grpc.aio."""
        from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, aio_client_interceptors

        if self._is_everybody_s and GrpcAioInstrumentorClient().is_instrumented_by_opentelemetry:
            return []
        return list(aio_client_interceptors(tracer_provider=self.provider()))

    @property
    def _is_everybody_s(self) -> bool:
        """Whether the provider is that of whoever else makes spans in this process."""
        from opentelemetry import trace

        return self.provider() is trace.get_tracer_provider()

    def flush(self) -> None:
        """Send what is not sent yet; it blocks, for two seconds at most."""
        if self._provider is not None:
            # The SDK's own limit is none: it waits until each batch is sent or given up, ten seconds apiece.
            flushing = Thread(target=self._provider.force_flush, daemon=True)
            flushing.start()
            flushing.join(_FLUSH_SECONDS)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._service, self._topic)


class OtelSpan:
    """The span of an object or an inline request."""

    def __init__(self, tracer: otel.Tracer, span: otel.Span, topic: str | None) -> None:
        from opentelemetry import trace

        self._tracer = tracer
        self._span = span
        self._context = trace.set_span_in_context(span)
        self._topic = topic

    @contextmanager
    def stage(self, name: str) -> Iterator[TraceContext]:
        """A part of it, for as long as the block lasts; what instrumented libraries do meanwhile belongs to it."""
        from opentelemetry import trace

        kind, attributes = trace.SpanKind.INTERNAL, {}
        if name == "publish":
            kind = trace.SpanKind.PRODUCER
            attributes = {"messaging.system": "kafka", "messaging.operation.type": "send"}
            attributes |= {"messaging.destination.name": self._topic} if self._topic else {}
        # By itself OpenTelemetry records an error with its stack and whatever caused it: that may hold anything.
        with self._tracer.start_as_current_span(
            name,
            self._context,
            kind,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield _headers_of(trace.set_span_in_context(span))
            except BaseException as exc:
                says = str(exc) if isinstance(exc, PipelineError) else type(exc).__name__
                span.set_status(trace.Status(trace.StatusCode.ERROR, says))
                raise

    def past_stage(self, name: str, began: float, ended: float) -> None:
        """A part of it that is over."""
        span = self._tracer.start_span(name, self._context, start_time=_nanoseconds(began))
        span.end(_nanoseconds(ended))

    def end(self, outcome: Outcome) -> None:
        """It is over, and this became of it."""
        from opentelemetry.trace import Status, StatusCode

        if self._span.is_recording():
            self._span.set_attributes({name: value for name, value in _attributes(outcome) if value is not None})
            if outcome.kind == "failed":
                self._span.set_status(Status(StatusCode.ERROR, str(outcome.error)))
        self._span.end()


def _attributes(outcome: Outcome) -> Iterator[tuple[str, Any]]:
    bucket, _, key = (outcome.place or "").partition("/")
    yield "aws.s3.bucket", bucket or None
    yield "aws.s3.key", key or None
    yield "error.type", outcome.reason if outcome.kind == "failed" else None
    yield "mnist_pipeline.outcome", outcome.kind
    yield "mnist_pipeline.reason", outcome.reason
    yield "mnist_pipeline.trace_id", outcome.trace_id
    yield "mnist_pipeline.destination", outcome.destination
    if len(outcome.predictions) == 1:
        yield "mnist_pipeline.label", outcome.predictions[0].label
        yield "mnist_pipeline.score", outcome.predictions[0].score


def _unpickled(service: str, topic: str | None) -> OtelTracer:
    return OtelTracer(service=service, topic=topic)


def _provider_of(service: str) -> TracerProvider:
    """A provider that sends in batches, from a thread of its own, to where the environment says."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    is_named = "OTEL_SERVICE_NAME" in os.environ or SERVICE_NAME in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create(None if is_named else {SERVICE_NAME: service})
    # At the exit the SDK would wait half a minute for a collector that hangs: what is flushed is all that is sent.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporters = _exporters(os.environ)
    if "console" in exporters:
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    if "otlp" in exporters:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _context_in(headers: TraceContext) -> Any:
    """OpenTelemetry's form of a context; a new trace where it is empty."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(dict(headers), context=Context())


def _headers_of(context: Any) -> TraceContext:
    """The headers of a context of OpenTelemetry; None is the current one."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers, context=context)
    return headers


def _nanoseconds(moment: float) -> int:
    """A moment of `time.monotonic()` in nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
