"""The course of the benchmark: what is started when, and asked in which order."""

from __future__ import annotations

import contextlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import objects, place
from benchmarks.process import Running, start_predictor
from benchmarks.runs import Course, Run
from benchmarks.slow_store import SlowStore
from benchmarks.variants import Variant
from mnist_pipeline.local.processes import Sandbox

_MORE_EVENTS = 5
"""As many for a variant that does nothing: CPU is counted in hundredths of a second."""
_SHARE_ALONE = 0.2
"""Of the events, for the runs that only say how long one takes."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        events: of each run.
        warm_up: events of each variant before its first run.
        starts: turns in which each variant is started for its time alone.
        slow_ms: added to every S3 call, with `slow_in_flight` events in flight.
    """

    rounds: int = 5
    events: int = 400
    in_flight: Sequence[int] = (1, 8, 32, 64)
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
                with self._running(variant, "first") as running:
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
                with self._running(variant, f"start-{turn}") as running:
                    self.ready[variant.name][turn] = running.ready_seconds

    def measure(self) -> None:
        """Measure CPU, rate and latency: all variants run, and are asked in turn."""
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(self._running(variant, "direct")) for variant in self._variants]
            for one in running:
                self.runs.append(self.course.warm_up(one, events=self._plan.warm_up))
            for number in range(self._plan.rounds):
                for place_in_round, in_flight in enumerate(self._plan.in_flight):
                    for one in _rotated(running, number + place_in_round):
                        events = self._plan.events * (1 if one.variant.files else _MORE_EVENTS)
                        run = self.course.run(one, number=number, in_flight=in_flight, events=events)
                        self._note(run)

    def measure_slow(self) -> None:
        """Measure the same behind a proxy that counts S3 requests and holds each one for a while."""
        delay = self._plan.slow_ms
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(SlowStore(self._place.endpoint))
            working = [variant for variant in self._variants if variant.files]
            running = [
                stack.enter_context(self._running(variant, "slow", endpoint=store.endpoint)) for variant in working
            ]
            for one in running:
                self.runs.append(self.course.warm_up(one, events=self._plan.warm_up))
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
                        run = self.course.run(one, number=number, in_flight=in_flight, events=events, store=store)
                        self._note(run)

    def _note(self, run: Run) -> None:
        self.runs.append(run)
        slow = "" if run.delay_ms is None else f", {run.delay_ms:g} ms a call"
        _say(
            f"round {run.round + 1} of {self._plan.rounds}, {run.in_flight} in flight{slow}, {run.variant}: "
            f"{run.cpu_ms:.2f} ms of CPU an event, {run.rate:.0f} events/s"
        )

    @contextlib.contextmanager
    def _running(self, variant: Variant, name: str, *, endpoint: str | None = None) -> Iterator[Running]:
        settings = self._place.settings(topic_of(variant), endpoint=endpoint)
        part = f"{variant.name}-{name}".replace(" ", "-")
        with Running(variant, self._sandbox, part, settings, self._predictor) as running:
            yield running


def topic_of(variant: Variant) -> str:
    """The topic of its results."""
    return "results-" + "".join(letter for letter in variant.name.lower() if letter.isalpha())


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


def _rotated(running: list[Running], by: int) -> list[Running]:
    """The same, another one first: what a run leaves behind must not always meet the same next one."""
    first = by % len(running) if running else 0
    return running[first:] + running[:first]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
