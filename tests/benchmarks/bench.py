"""The course of the benchmark: what is started when, and asked in which order."""

from __future__ import annotations

import contextlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks import objects, place
from benchmarks.backlog import Backlog
from benchmarks.place import PARTITIONS
from benchmarks.process import Feed, Running, start_predictor
from benchmarks.runs import WARM_UP, BatchRun, Course, PostedRun, Run
from benchmarks.slow_store import SlowStore
from benchmarks.variants import Variant
from mnist_pipeline.local.processes import Sandbox

_MORE_EVENTS = 5
"""As many for a variant that does nothing: CPU is counted in hundredths of a second."""
_MORE_IN_BACKLOG = 2
"""As many for one that reads them from Kafka, for the same reason."""
_SHARE_ALONE = 0.2
"""Of the events, for the runs that only say how long one takes."""

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        events: of each run; twice as many where they are read from Kafka.
        warm_up: events of each variant before its first run.
        starts: turns in which each variant is started for its time alone.
        slow_ms: added to every S3 call, with `slow_in_flight` events in flight.
    """

    rounds: int = 5
    events: int = 400
    in_flight: Sequence[int] = (1, 8, 32, 64)
    batches: Sequence[int] = (1, 8, 32)
    warm_up: int = 200
    starts: int = 3
    slow_ms: float = 20.0
    slow_in_flight: int = 64


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that was measured.

    Attributes:
        servers: what the store and the broker say of themselves.
        versioned: whether the source bucket had versions.
        left_out: why a variant was not measured, by its name.
        runs: in the order in which they were made, those to warm up among them.
        outcomes: by the run's name; a run that files nothing has none.
        ready: seconds from start to ready, by variant and turn.
    """

    servers: tuple[str, str]
    versioned: bool
    left_out: Mapping[str, str]
    runs: Sequence[Run]
    outcomes: Mapping[str, objects.Outcome]
    ready: Mapping[str, Mapping[int, float]]


class Bench:
    """All variants at one place.

    Attributes:
        runs: in the order in which they were made.
        ready: seconds from start to ready, by variant and turn.
        left_out: why a variant is not measured, by its name.
    """

    def __init__(self, plan: Plan, variants: Sequence[Variant], where: place.Place, sandbox: Sandbox) -> None:
        self.runs: list[Run] = []
        self.ready: defaultdict[str, dict[int, float]] = defaultdict(dict)
        self.left_out: dict[str, str] = {}
        self.course = Course(where, sandbox)
        self._plan = plan
        self._variants = list(variants)
        self._place = where
        self._sandbox = sandbox
        self._predictor = start_predictor(sandbox)

    def leave_out(self) -> None:
        """Leave out the variants that cannot run, after a first start of each of the others."""
        for variant in self._variants:
            reason = variant.missing_package()
            if reason is None:
                with self._alone(variant, "first") as running:
                    reason = running.why_left_out()
            if reason is not None:
                self.left_out[variant.name] = reason
                _say(f"left out: {variant.name}: {reason}")
        self._variants = [variant for variant in self._variants if variant.name not in self.left_out]

    def start_each(self) -> None:
        """Measure from start to ready, one at a time."""
        for turn in range(self._plan.starts):
            _say(f"start to ready, turn {turn + 1} of {self._plan.starts}")
            for variant in self._variants:
                with self._alone(variant, f"start-{turn}") as running:
                    self.ready[variant.name][turn] = running.ready_seconds

    def measure(self) -> None:
        """Measure CPU, rate and latency: all that are posted their events run, and are asked in turn."""
        posted = [variant for variant in self._variants if not variant.batches]
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(self._running(variant, "direct")) for variant in posted]
            self._warm_up(running)
            for number in range(self._plan.rounds):
                for place_in_round, in_flight in enumerate(self._plan.in_flight):
                    for one in _rotated(running, number + place_in_round):
                        events = self._plan.events * (1 if one.variant.files else _MORE_EVENTS)
                        self._note(self.course.post(one, number=number, in_flight=in_flight, events=events))

    def measure_slow(self) -> None:
        """Measure the same behind a proxy that counts S3 requests and holds each one for a while."""
        delay = self._plan.slow_ms
        working = [variant for variant in self._variants if variant.files and not variant.batches]
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(SlowStore(self._place.endpoint))
            running = [
                stack.enter_context(self._running(variant, "slow", endpoint=store.endpoint)) for variant in working
            ]
            self._warm_up(running)
            for number in range(self._plan.rounds):
                for in_flight, delay_ms in (
                    (1, 0.0),
                    (self._plan.slow_in_flight, 0.0),
                    (self._plan.slow_in_flight, delay),
                ):
                    store.delay_seconds = delay_ms / 1000
                    for one in _rotated(running, number):
                        share = one.variant.events_share if in_flight > 1 else _SHARE_ALONE
                        events = max(1, round(self._plan.events * share))
                        run = self.course.post(one, number=number, in_flight=in_flight, events=events, store=store)
                        self._note(run)

    def measure_batches(self) -> None:
        """Measure CPU and rate of those that read their events from Kafka, each with every size of a batch."""
        with contextlib.ExitStack() as stack:
            reading = [
                self._reading(stack, variant, "direct", batch)
                for batch in self._plan.batches
                for variant in self._variants
                if variant.batches
            ]
            self._read_in_turn(reading, rounds=self._plan.rounds)

    def count_of_batches(self) -> None:
        """Count S3 requests of the largest batches, behind the proxy, which holds none of them."""
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(SlowStore(self._place.endpoint))
            reading = [
                self._reading(stack, variant, "counted", max(self._plan.batches), endpoint=store.endpoint)
                for variant in self._variants
                if variant.batches
            ]
            self._read_in_turn(reading, rounds=1, store=store)

    def _warm_up(self, running: Sequence[Running]) -> None:
        """Some events each, which are looked for at the end like all others."""
        for one in running:
            self.runs.append(self.course.post(one, number=WARM_UP, in_flight=8, events=self._plan.warm_up))

    def _read_in_turn(
        self, reading: Sequence[tuple[Running, Backlog]], *, rounds: int, store: SlowStore | None = None
    ) -> None:
        for running, backlog in reading:
            warm_up = self.course.read(running, backlog, number=WARM_UP, events=self._plan.warm_up, store=store)
            self.runs.append(warm_up)
        for number in range(rounds):
            for running, backlog in _rotated(reading, number):
                events = self._plan.events * _MORE_IN_BACKLOG
                self._note(self.course.read(running, backlog, number=number, events=events, store=store))

    def _note(self, run: PostedRun | BatchRun) -> None:
        self.runs.append(run)
        _say(
            f"round {run.round + 1} of {self._plan.rounds}, {run.how}, {run.variant}: "
            f"{run.cpu_ms:.2f} ms of CPU an event, {run.rate:.0f} events/s"
        )

    def _alone(self, variant: Variant, name: str) -> contextlib.AbstractContextManager[Running]:
        """A variant that gets no events."""
        return self._running(variant, name, feed=self._feed(variant, name, batch=1) if variant.batches else None)

    def _reading(
        self, stack: contextlib.ExitStack, variant: Variant, name: str, batch: int, *, endpoint: str | None = None
    ) -> tuple[Running, Backlog]:
        feed = self._feed(variant, name, batch=batch)
        running = stack.enter_context(self._running(variant, f"{name}-{batch}", endpoint=endpoint, feed=feed))
        return running, stack.enter_context(Backlog(self._place, feed, topic_of(variant)))

    def _feed(self, variant: Variant, name: str, *, batch: int) -> Feed:
        """A topic that nobody else reads: a group that was left keeps what comes next waiting for a while."""
        feed = Feed(topic=f"{variant.word}-{name}-{batch}", batch=batch)
        self._place.create_topic(feed.topic, PARTITIONS)
        return feed

    @contextlib.contextmanager
    def _running(
        self, variant: Variant, name: str, *, endpoint: str | None = None, feed: Feed | None = None
    ) -> Iterator[Running]:
        settings = self._place.settings(topic_of(variant), endpoint=endpoint)
        part = f"{variant.word}-{name}"
        with Running(variant, self._sandbox, part, settings, self._predictor, feed=feed) as running:
            yield running


def topic_of(variant: Variant) -> str:
    """The topic of its results."""
    return f"results-{variant.word}"


def run(plan: Plan, variants: Sequence[Variant], *, stack: str) -> Measured:
    """Measure everything; `stack` is one of `place.KINDS`.

    Raises:
        PartFailed: a server or a variant did not start, or has ended.
        ToolMissing: the stack must be real, and cannot be.
    """
    if stack != "local":
        _say("MinIO and Apache Kafka are built first where they never were (some minutes)")
    topics = [topic_of(variant) for variant in variants]
    with Sandbox() as sandbox, place.opened(sandbox, stack, topics) as where:
        _say(f"on {where.servers[0]}; {where.servers[1]}")
        bench = Bench(plan, variants, where, sandbox)
        bench.leave_out()
        bench.start_each()
        bench.measure()
        bench.measure_slow()
        bench.measure_batches()
        bench.count_of_batches()
        _say("looking where every object has gone")
        found = objects.found(where, topics)
    return Measured(
        servers=where.servers,
        versioned=where.versioned,
        left_out=bench.left_out,
        runs=bench.runs,
        outcomes={name: objects.outcome(keys, found) for name, keys in bench.course.keys.items()},
        ready=bench.ready,
    )


def _rotated(running: Sequence[_T], by: int) -> Sequence[_T]:
    """The same, another one first: what a run leaves behind must not always meet the same next one."""
    first = by % len(running) if running else 0
    return [*running[first:], *running[:first]]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
