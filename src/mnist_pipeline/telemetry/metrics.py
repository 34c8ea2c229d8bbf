"""`Metrics`: an observer of the path that counts and measures, for Prometheus.

Names and units follow Prometheus ("Metric and label naming"). The values of every label are bounded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from mnist_pipeline.pipeline.outcomes import Outcome
from mnist_pipeline.telemetry.multiprocess import MULTIPROCESS

MOST_VALUES = 1000
"""So many values may a label have; what comes later counts as `other`."""

OTHER = "other"
"""The value of a label that has too many."""

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_AGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400)
_SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)

EVENTS = Counter(
    "mnist_pipeline_events",
    "Objects and requests by what became of them (outcome), and why (reason, one word; empty where there is none).",
    ("model_name", "outcome", "reason"),
)
PREDICTIONS = Counter(
    "mnist_pipeline_predictions",
    "Predictions by their label.",
    ("model_name", "label"),
)
SCORES = Histogram(
    "mnist_pipeline_prediction_score",
    "How sure the predictor is of its predictions, in 0..1.",
    ("model_name",),
    buckets=_SCORES,
)
STAGES = Histogram(
    "mnist_pipeline_stage_duration_seconds",
    "How long each stage of an object or an inline request takes.",
    ("model_name", "stage"),
    buckets=_SECONDS,
)
AGES = Histogram(
    "mnist_pipeline_event_age_seconds",
    "From the moment at which an object was created, by its notification, until it was settled.",
    ("model_name",),
    buckets=_AGES,
)
IN_FLIGHT = Gauge(
    "mnist_pipeline_in_flight",
    "Events in hand.",
    ("model_name",),
    multiprocess_mode="livesum",
)
FETCHED = Counter(
    "mnist_pipeline_fetched_bytes",
    "Bytes of objects that were fetched.",
    ("model_name",),
)
DEAD_LETTERS = Counter(
    "mnist_pipeline_dead_letters",
    "Records that were given up, by why (reason, one word).",
    ("model_name", "reason"),
)


class Metrics:
    """Counts for one model; it can be pickled."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._events = _Children(EVENTS, model_name)
        self._predictions = _Children(PREDICTIONS, model_name)
        self._stages = _Children(STAGES, model_name)
        self._scores = SCORES.labels(model_name)
        self._ages = AGES.labels(model_name)
        self._in_flight = IN_FLIGHT.labels(model_name)
        # A process that has ended and had our number may have left something else in its file.
        self._in_flight.set(0)
        self._fetched = FETCHED.labels(model_name)

    def begun(self) -> None:
        """One more event is in hand."""
        self._in_flight.inc()

    def ended(self) -> None:
        """One less."""
        self._in_flight.dec()

    def settled(self, outcome: Outcome) -> None:
        """Count what became of an object or a request."""
        kind = outcome.kind
        self._events[kind, "" if outcome.reason == kind else outcome.reason].inc()
        for prediction in outcome.predictions:
            self._predictions[(str(prediction.label),)].inc()
            if prediction.score is not None:
                self._scores.observe(prediction.score)
        for stage, seconds in outcome.seconds.items():
            self._stages[(stage,)].observe(seconds)
        if outcome.age is not None and outcome.destination:
            self._ages.observe(outcome.age)
        if outcome.size:
            self._fetched.inc(outcome.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return Metrics, (self._model_name,)


class _Children(dict[tuple[str, ...], Any]):
    """A metric's children by the values of their labels: to find one takes the metric ten times as long as to count."""

    def __init__(self, metric: Counter | Histogram, model_name: str) -> None:
        super().__init__()
        self._metric = metric
        self._model_name = model_name

    def __missing__(self, values: tuple[str, ...]) -> Any:
        if len(self) >= MOST_VALUES:
            return self._metric.labels(self._model_name, *(OTHER for _ in values))
        child = self[values] = self._metric.labels(self._model_name, *values)
        return child


def registry() -> CollectorRegistry:
    """What a scrape is to be answered with: all workers' numbers, where there are several."""
    if not os.environ.get(MULTIPROCESS):
        return REGISTRY
    together = CollectorRegistry()
    together.register(_AllProcesses(Path(os.environ[MULTIPROCESS])))
    return together


class _AllProcesses(Collector):
    """The numbers of all processes; of those that have ended, what they have counted, but not what they had in hand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Read the files of all processes."""
        for file in self._folder.glob("gauge_live*_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            if not _is_alive(pid):
                with contextlib.suppress(FileNotFoundError):  # another scrape was faster
                    mark_process_dead(pid, str(self._folder))
        metrics: Iterable[Metric] = MultiProcessCollector(None, str(self._folder)).collect()
        return metrics


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
