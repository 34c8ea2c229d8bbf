"""One run of one variant: its events are uploaded, sent and measured."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass, field

from benchmarks import objects
from benchmarks.load import Answers
from benchmarks.place import Place
from benchmarks.process import Running
from benchmarks.slow_store import SlowStore
from mnist_pipeline.local.processes import Sandbox

_SEND_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run came to.

    Attributes:
        round: from 0.
        delay_ms: added to every S3 call; None: the store was reached without the proxy that adds it.
        cpu_seconds: user and system, of all processes of the variant.
        refused: events that were not answered 2xx.
        s3_requests: which the proxy has counted; None without it.
        peak_bytes: the most memory so far.
    """

    name: str
    variant: str
    round: int
    in_flight: int
    delay_ms: float | None
    events: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    s3_requests: int | None
    peak_bytes: int

    @property
    def cpu_ms(self) -> float:
        """Own CPU an event."""
        return self.cpu_seconds * 1000 / self.events

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


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

    def warm_up(self, running: Running, *, events: int) -> Run:
        """Send some events at 8 in flight, which are looked for at the end like all others."""
        return self.run(running, number=-1, in_flight=8, events=events)

    def run(self, running: Running, *, number: int, in_flight: int, events: int, store: SlowStore | None = None) -> Run:
        """Upload, send, measure; `store` is the proxy through which the variant reaches its objects.

        Raises:
            PartFailed: the variant has ended.
            CalledProcessError: the sender failed.
        """
        variant = running.variant
        name = f"{next(self._numbers):03d}-{re.sub('[^a-z]+', '-', variant.name.lower()).strip('-')}"
        keys = objects.keys_of(name, events)
        if variant.files:
            self.keys[name] = keys
            notifications = objects.upload(self._client, keys)
        else:
            notifications = objects.unuploaded(keys)
        requests_before = None if store is None else store.requests.total()
        cpu_before = running.cpu_seconds()
        answers = self._send(name, running.predict_url, notifications, in_flight)
        cpu_seconds = running.cpu_seconds() - cpu_before
        return Run(
            name=name,
            variant=variant.name,
            round=number,
            in_flight=in_flight,
            delay_ms=None if store is None else store.delay_seconds * 1000,
            events=events,
            seconds=answers.seconds,
            cpu_seconds=cpu_seconds,
            p50_ms=percentile(answers.milliseconds, 0.5),
            p99_ms=percentile(answers.milliseconds, 0.99),
            refused=sum(answers.refused.values()),
            s3_requests=None if store is None or requests_before is None else store.requests.total() - requests_before,
            peak_bytes=running.peak_bytes(),
        )

    def _send(self, name: str, url: str, notifications: list[bytes], in_flight: int) -> Answers:
        events, answers = (self.sandbox.directory / f"{name}.{kind}" for kind in ("events", "answers"))
        events.write_bytes(b"\n".join(notifications))
        flags = ("--url", url, "--in-flight", str(in_flight), "--events", events, "--answers", answers)
        subprocess.run([sys.executable, "-m", "benchmarks.load", *flags], check=True, timeout=_SEND_SECONDS)
        came_back = Answers(**json.loads(answers.read_text()))
        events.unlink()
        answers.unlink()
        return came_back
