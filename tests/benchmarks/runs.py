"""One run of one variant: its objects are uploaded, their events posted or produced, and what it does is measured."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import time
from dataclasses import dataclass, field

from benchmarks import objects
from benchmarks.backlog import Backlog
from benchmarks.load import Answers
from benchmarks.place import Place
from benchmarks.process import Running
from benchmarks.slow_store import SlowStore
from benchmarks.variants import Variant
from mnist_pipeline.local.processes import Sandbox

WARM_UP = -1
"""The round of what comes before the first."""

_SEND_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run came to.

    Attributes:
        round: from 0, or `WARM_UP`.
        cpu_seconds: user and system, of all processes of the variant.
        s3_requests: which the proxy has counted; None: the store was reached without it.
        peak_bytes: the most memory so far.
        refused: events that were not answered 2xx; those that are read from Kafka are not answered.
    """

    name: str
    variant: str
    round: int
    events: int
    seconds: float
    cpu_seconds: float
    s3_requests: int | None
    peak_bytes: int
    refused: int = 0

    @property
    def cpu_ms(self) -> float:
        """Own CPU an event."""
        return self.cpu_seconds * 1000 / self.events

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


@dataclass(frozen=True, kw_only=True)
class PostedRun(Run):
    """One whose events were posted, so many at once.

    Attributes:
        delay_ms: added to every S3 call; None: the store was reached without the proxy that adds it.
    """

    in_flight: int
    delay_ms: float | None
    p50_ms: float
    p99_ms: float

    @property
    def how(self) -> str:
        """In words."""
        slow = "" if self.delay_ms is None else f", {self.delay_ms:g} ms a call"
        return f"{self.in_flight} in flight{slow}"


@dataclass(frozen=True, kw_only=True)
class BatchRun(Run):
    """One whose events lay on the topic, and were read so many a batch."""

    batch: int

    @property
    def how(self) -> str:
        """In words."""
        return f"{self.batch} a batch" + ("" if self.s3_requests is None else ", counted")


def percentile(values: list[float], share: float) -> float:
    """The smallest of the values that at least this share of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass
class Course:
    """Where runs take place, one after the other.

    Attributes:
        keys: of the objects of each run that files, by the run's name.
    """

    place: Place
    sandbox: Sandbox
    keys: dict[str, list[str]] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._client = self.place.client()

    def post(
        self, running: Running, *, number: int, in_flight: int, events: int, store: SlowStore | None = None
    ) -> PostedRun:
        """Upload, post, measure; `store` is the proxy through which the variant reaches its objects.

        Raises:
            PartFailed: the variant has ended.
            CalledProcessError: the sender failed.
        """
        name, notifications = self._uploaded(running.variant, events)
        requests_before = _requests(store)
        cpu_before = running.cpu_seconds()
        answers = self._send(name, running.predict_url, notifications, in_flight)
        cpu_seconds = running.cpu_seconds() - cpu_before
        return PostedRun(
            name=name,
            variant=running.variant.name,
            round=number,
            in_flight=in_flight,
            delay_ms=None if store is None else store.delay_seconds * 1000,
            events=events,
            seconds=answers.seconds,
            cpu_seconds=cpu_seconds,
            p50_ms=percentile(answers.milliseconds, 0.5),
            p99_ms=percentile(answers.milliseconds, 0.99),
            refused=sum(answers.refused.values()),
            s3_requests=None if store is None else _requests(store) - requests_before,
            peak_bytes=running.peak_bytes(),
        )

    def read(
        self, running: Running, backlog: Backlog, *, number: int, events: int, store: SlowStore | None = None
    ) -> BatchRun:
        """Upload, produce all, and only then let the variant at it; measure the time to the last result, and all else
        until everything is committed.

        Raises:
            PartFailed: the variant has ended, or has not settled everything.
        """
        name, notifications = self._uploaded(running.variant, events)
        requests_before = _requests(store)
        with running.suspended():  # so that its batches are full
            backlog.produce(notifications)
            cpu_before = running.cpu_seconds()
        began = time.perf_counter()
        backlog.wait_announced(running)
        seconds = time.perf_counter() - began
        # It may commit a while later, and has to delete before.
        backlog.wait_committed(running)
        return BatchRun(
            name=name,
            variant=running.variant.name,
            round=number,
            batch=backlog.feed.batch,
            events=events,
            seconds=seconds,
            cpu_seconds=running.cpu_seconds() - cpu_before,
            s3_requests=None if store is None else _requests(store) - requests_before,
            peak_bytes=running.peak_bytes(),
        )

    def _uploaded(self, variant: Variant, events: int) -> tuple[str, list[bytes]]:
        """The name of a new run, and its notifications."""
        name = f"{next(self._numbers):03d}-{variant.word}"
        keys = objects.keys_of(name, events)
        if not variant.files:
            return name, objects.unuploaded(keys)
        self.keys[name] = keys
        return name, objects.upload(self._client, keys)

    def _send(self, name: str, url: str, notifications: list[bytes], in_flight: int) -> Answers:
        events, answers = (self.sandbox.directory / f"{name}.{kind}" for kind in ("events", "answers"))
        events.write_bytes(b"\n".join(notifications))
        flags = ("--url", url, "--in-flight", str(in_flight), "--events", events, "--answers", answers)
        subprocess.run([sys.executable, "-m", "benchmarks.load", *flags], check=True, timeout=_SEND_SECONDS)
        came_back = Answers(**json.loads(answers.read_text()))
        events.unlink()
        answers.unlink()
        return came_back


def _requests(store: SlowStore | None) -> int:
    return 0 if store is None else store.requests.total()
