"""The way of one object, or of one inline request: how long each stage of it takes, and the trace that it belongs to.

A trace is told by its context, the headers `traceparent` and `tracestate` (W3C Trace Context). With a tracer each stage
is a span of it; without one the context that came is what goes on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, TypeAlias

from mnist_pipeline.pipeline.outcomes import Outcome

STAGES = ("wait", "fetch", "decode", "predict", "file", "publish", "release")
"""In their order. Wait: from the arrival of the event until the object's fetch; the others are what they are called."""

TraceContext: TypeAlias = Mapping[str, str]
"""The headers `traceparent` and, perhaps, `tracestate`; empty where there is no trace."""

NO_TRACE: TraceContext = {}

TRACE_HEADERS = ("traceparent", "tracestate")

_IDS = "-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
# Versions after 00 may have more behind the ids. What is passed on becomes a header: nothing but ASCII, and not much.
_TRACEPARENT = re.compile(f"00{_IDS}|(?!00|ff)[0-9a-f]{{2}}{_IDS}(-[!-~]{{0,200}})?")
# W3C Trace Context, section 3.3.1.5: so much at least is passed on.
_MAX_TRACESTATE = 512


class Span(Protocol):
    """A piece of work in a trace."""

    def stage(self, name: str) -> AbstractContextManager[TraceContext]:
        """A part of it, for as long as the block lasts; gives the context that goes on from there."""
        ...

    def past_stage(self, name: str, began: float, ended: float) -> None:
        """A part of it that is over."""
        ...

    def end(self, outcome: Outcome) -> None:
        """It is over, and this became of it."""
        ...


class Tracer(Protocol):
    """Makes traces, such as OpenTelemetry's. It neither fails nor waits, but in `flush`."""

    def span(self, name: str, context: TraceContext, *, began: float, link: TraceContext) -> Span:
        """A span that begins at a moment of `time.monotonic()`, in this trace or in a new one; `link`: another that it
        has to do with.
        """
        ...

    def flush(self) -> None:
        """Send what is not sent yet, within a few seconds; called in a thread."""
        ...


def trace_context(given: Mapping[str, object]) -> TraceContext:
    """The context in headers, attributes or metadata with lower-case names; empty where there is none that is one."""
    parent, state = given.get("traceparent"), given.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return NO_TRACE
    if isinstance(state, str) and state and len(state) <= _MAX_TRACESTATE and state.isascii() and state.isprintable():
        return {"traceparent": parent, "tracestate": state}
    return {"traceparent": parent}


class Journey:
    """The way of one object or inline request.

    Args:
        name: of its span.
        arrived: when its event came, a moment of `time.monotonic()`: until now it has waited.
        context: of the trace that its event belongs to.

    Attributes:
        seconds: how long each stage has taken that is over, in their order.
        span: of it; None until the trace is known, and without a tracer.
        ended: whether it is told already what became of it.
    """

    __slots__ = ("_began", "_context", "_name", "_past", "_tracer", "ended", "seconds", "span")

    def __init__(
        self, name: str, arrived: float, context: TraceContext = NO_TRACE, tracer: Tracer | None = None
    ) -> None:
        self._name = name
        self._began = arrived
        self._context = context
        self._tracer = tracer
        self.span: Span | None = None
        self.ended = False
        self._past: list[tuple[str, float, float]] = []
        self.seconds: dict[str, float] = {}
        self.note("wait", arrived, time.monotonic())

    def stage(self, name: str) -> AbstractContextManager[TraceContext]:
        """Measure a stage, for as long as the block lasts; gives the context that goes on from it."""
        return _Stage(self, name)

    def note(self, name: str, began: float, ended: float) -> None:
        """A stage that is over, between two moments of `time.monotonic()`."""
        self.seconds[name] = ended - began
        if self.span is not None:
            self.span.past_stage(name, began, ended)
        elif self._tracer is not None:
            self._past.append((name, began, ended))

    def found(self, context: TraceContext) -> None:
        """The object belongs to this trace itself, whichever its event belongs to; to that one where it is empty.

        A store's notification carries no trace, so what delivers it begins one of its own.
        """
        event = self._context
        self._context = context or event
        if self._tracer is not None and self.span is None:
            self.span = self._tracer.span(
                self._name, self._context, began=self._began, link=event if context else NO_TRACE
            )
            for past in self._past:
                self.span.past_stage(*past)

    @property
    def context(self) -> TraceContext:
        """The trace that it belongs to, without a stage of its own."""
        return self._context

    def end(self, outcome: Outcome) -> None:
        """It is over, and this became of it."""
        self.ended = True
        if self._tracer is not None:
            self.found(NO_TRACE)
        if self.span is not None:
            self.span.end(outcome)


class _Stage(AbstractContextManager[TraceContext]):
    """A stage that lasts as long as its block. A class, because it is passed several times an event."""

    __slots__ = ("_began", "_journey", "_name", "_span")

    def __init__(self, journey: Journey, name: str) -> None:
        self._journey = journey
        self._name = name

    def __enter__(self) -> TraceContext:
        journey = self._journey
        self._began = time.monotonic()
        self._span = None if journey.span is None else journey.span.stage(self._name)
        return journey.context if self._span is None else self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is None:
            self._journey.note(self._name, self._began, time.monotonic())
        else:
            self._journey.seconds[self._name] = time.monotonic() - self._began
            self._span.__exit__(kind, error, trace)
