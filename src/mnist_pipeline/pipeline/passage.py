"""One pass along the path: the few objects, or the inline request, that are in hand together."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mnist_pipeline.pipeline.events import Inline, Notification
from mnist_pipeline.pipeline.interpretation import Label, Prediction
from mnist_pipeline.pipeline.objects import Fetched, Wanted
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.results import Result
from mnist_pipeline.pipeline.stages import NO_TRACE, Journey, TraceContext
from mnist_pipeline.pipeline.task import Batch


@dataclass(kw_only=True)
class Passage:
    """One pass along the path: what `prepare` was given, and what it leaves for `finish`.

    Attributes:
        request: the inline request; of objects a notification that names them.
        wanted: the objects, with what became of them.
        room: how many bytes each object may have, so that they can be in hand together.
        fetched: those of them that are to be settled.
        again: those that have to be prepared again, alone.
        is_prepared, is_finished: how far it has come.
        result: that of an inline request, once it is published; so are `predictions` and `journey`: each object has its
            own.
        journeys: those of its objects that are in hand, or were.
    """

    request: Notification | Inline
    deadline: Deadline
    wanted: Sequence[Wanted] = ()
    room: int = 0
    fetched: list[Fetched] = field(default_factory=list)
    again: list[Wanted] = field(default_factory=list)
    is_prepared: bool = False
    is_finished: bool = False
    journeys: list[Journey] = field(default_factory=list)
    result: Result | None = None
    predictions: Sequence[Prediction] = ()
    journey: Journey = field(default_factory=lambda: Journey("process", time.monotonic()))
    _prepared_at: float = 0.0

    @property
    def trace(self) -> TraceContext:
        """The trace that is to go on to whoever is asked for predictions."""
        return next((journey.context for journey in self._asking), NO_TRACE)

    @contextmanager
    def predicting(self) -> Iterator[TraceContext]:
        """Measure the stage in which the predictor is asked; gives the trace context that goes there.

        Of several objects the first one's: one request can belong to one trace only.
        """
        asking = self._asking
        began = time.monotonic()
        try:
            with asking[0].stage("predict") if asking else nullcontext(NO_TRACE) as trace:
                yield trace
        finally:
            for journey in asking[1:]:
                journey.note("predict", began, time.monotonic())

    def prepared(self) -> None:
        """What is to be predicted is decoded."""
        self.is_prepared = True
        self._prepared_at = time.monotonic()

    def predicted(self) -> None:
        """There are predictions, or none to come; a hook that has made them by itself has not measured it."""
        for journey in self._asking:
            if "predict" not in journey.seconds:
                journey.note("predict", self._prepared_at, time.monotonic())

    @property
    def _asking(self) -> list[Journey]:
        if isinstance(self.request, Inline):
            return [self.journey]
        return [one.journey for one in self.fetched if one.tensor is not None]


Go: TypeAlias = Callable[[Passage], Awaitable[Any]]
"""Takes a passage through `prepare`, the predictor and `finish`; what counts is what it then holds."""

Predict: TypeAlias = Callable[[Batch, Deadline], Awaitable[Sequence[Prediction | Label]]]
"""Tensors `(N, …)`, and by when → N predictions; raises Retryable."""
