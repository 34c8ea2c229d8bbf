"""Spans that a test looks at, kept in memory by OpenTelemetry's own exporter."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from mnist_pipeline.telemetry.traces import OtelTracer


class Spans:
    """What a tracer of its own has made so far."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = OtelTracer(service="mnist", topic="mnist-predictions", provider=self.provider)

    def __getitem__(self, name: str) -> ReadableSpan:
        """The one span of this name that has ended."""
        (span,) = (span for span in self._exporter.get_finished_spans() if span.name == name)
        return span

    @property
    def names(self) -> list[str]:
        """Of all that have ended, in the order of their beginnings."""
        spans = sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        return [span.name for span in spans]

    @property
    def traces(self) -> set[str]:
        """The ids of the traces that they belong to."""
        return {trace_of(span) for span in self._exporter.get_finished_spans()}


def trace_of(span: ReadableSpan) -> str:
    """The id of its trace, in hexadecimal."""
    return f"{_context(span).trace_id:032x}"


def id_of(span: ReadableSpan) -> str:
    """Its own id."""
    return f"{_context(span).span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    """The id of the span in which it lies."""
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def parts(traceparent: str | bytes) -> tuple[str, str]:
    """The ids of trace and span in a `traceparent` header."""
    text = traceparent.decode() if isinstance(traceparent, bytes) else traceparent
    _, trace, span, _ = text.split("-")
    return trace, span


def _context(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context
