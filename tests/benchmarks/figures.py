"""What runs come to: medians with their spread over the rounds, and ratios that are taken round by round."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.objects import Outcome
from benchmarks.runs import BatchRun, PostedRun, Run
from benchmarks.variants import FLOOR, FLOOR_BATCH

_Run = TypeVar("_Run", bound=Run)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A median, and the least and the most that it was taken from."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        spread = "" if self.least == self.most else f" ({_digits(self.least)}..{_digits(self.most)})"
        return f"{_digits(self.median)}{spread}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 20 else f"{value:.2f}"


def figure(values: Iterable[float]) -> Figure:
    """Of these values, of which there is one at least."""
    known = list(values)
    return Figure(median=statistics.median(known), least=min(known), most=max(known))


def ratio(values: Mapping[int, float], reference: Mapping[int, float]) -> Figure | None:
    """Of values to those of the same round; None where no round has both."""
    ratios = [value / reference[number] for number, value in values.items() if number in reference]
    return figure(ratios) if ratios else None


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """One variant with so many events in flight; the ratios are to the floor."""

    variant: str
    in_flight: int
    cpu_ms: Figure
    cpu_ratio: Figure | None
    rate: Figure
    rate_ratio: Figure | None
    p50_ms: Figure
    p99_ms: Figure


@dataclass(frozen=True, kw_only=True)
class Slow:
    """One variant with every S3 call so many milliseconds later.

    Attributes:
        s3_requests: for each event.
        rate: events a second.
        by_latency: what so many in flight could reach, each as long as its S3 calls and what it takes alone.
        undelayed: what it reaches without the delay, through the same proxy.
        share: of the smaller of these two, round by round.
    """

    variant: str
    in_flight: int
    delay_ms: float
    s3_requests: Figure
    rate: Figure
    by_latency: Figure
    undelayed: Figure
    share: Figure | None


@dataclass(frozen=True, kw_only=True)
class Batched:
    """One variant that reads so many events a batch; the ratios are to the floor's batch mode.

    Attributes:
        s3_requests: for each event; None where they were not counted.
    """

    variant: str
    batch: int
    cpu_ms: Figure
    cpu_ratio: Figure | None
    rate: Figure
    rate_ratio: Figure | None
    s3_requests: Figure | None


@dataclass(frozen=True, kw_only=True)
class Whole:
    """One variant over all of its runs.

    Attributes:
        ready_seconds: from start to ready.
        ready_ratio: to the empty KServe's of the same turn.
        peak_mib: the most memory.
    """

    variant: str
    events: int
    ready_seconds: Figure | None
    ready_ratio: Figure | None
    peak_mib: float
    refused: int
    lost: int
    misfiled: int
    left: int


def throughput(runs: Sequence[PostedRun]) -> list[Throughput]:
    """Of the runs without the proxy, by events in flight, and by variant in the order in which they first came."""
    direct = [run for run in runs if run.delay_ms is None and run.round >= 0]
    variants = dict.fromkeys(run.variant for run in runs)
    rows = []
    for in_flight, variant in itertools.product(sorted({run.in_flight for run in direct}), variants):
        own = [run for run in direct if (run.variant, run.in_flight) == (variant, in_flight)]
        if not own:
            continue
        floor = [run for run in direct if (run.variant, run.in_flight) == (FLOOR, in_flight)]

        rows.append(
            Throughput(
                variant=variant,
                in_flight=in_flight,
                cpu_ms=_of(own, lambda run: run.cpu_ms),
                cpu_ratio=_ratio(own, floor, lambda run: run.cpu_ms),
                rate=_of(own, lambda run: run.rate),
                rate_ratio=_ratio(own, floor, lambda run: run.rate),
                p50_ms=_of(own, lambda run: run.p50_ms),
                p99_ms=_of(own, lambda run: run.p99_ms),
            )
        )
    return rows


def rate_by_latency(*, in_flight: int, calls: float, delay_ms: float, alone_ms: float) -> float:
    """Events a second where each takes so many slow calls, and what it takes alone (Little's law)."""
    return 1000 * in_flight / (calls * delay_ms + alone_ms)


def slow(runs: Sequence[PostedRun]) -> list[Slow]:
    """Of the runs through the proxy, by variant: those with one in flight, those with no delay, those with one."""
    through = [run for run in runs if run.delay_ms is not None and run.round >= 0]
    rows = []
    for variant in dict.fromkeys(run.variant for run in through):
        own = [run for run in through if run.variant == variant]
        alone_ms = {run.round: run.p50_ms for run in own if not run.delay_ms and run.in_flight == 1}
        undelayed = {run.round: run.rate for run in own if not run.delay_ms and run.in_flight > 1}
        delayed = [run for run in own if run.delay_ms]
        by_latency = {
            run.round: rate_by_latency(
                in_flight=run.in_flight,
                calls=_calls(run),
                delay_ms=run.delay_ms or 0.0,
                alone_ms=alone_ms[run.round],
            )
            for run in delayed
        }
        best = {number: min(rate, undelayed[number]) for number, rate in by_latency.items()}
        rows.append(
            Slow(
                variant=variant,
                in_flight=delayed[0].in_flight,
                delay_ms=delayed[0].delay_ms or 0.0,
                s3_requests=_of(own, _calls),
                rate=_of(delayed, lambda run: run.rate),
                by_latency=figure(by_latency.values()),
                undelayed=figure(undelayed.values()),
                share=ratio({run.round: run.rate for run in delayed}, best),
            )
        )
    return rows


def whole(
    runs: Sequence[Run], outcomes: Mapping[str, Outcome], ready: Mapping[str, Mapping[int, float]], *, reference: str
) -> list[Whole]:
    """Of all runs, by variant.

    Args:
        runs: warming up among them.
        outcomes: by the run's name; a run that files nothing has none.
        ready: seconds from start to ready, by variant and turn.
        reference: whose start is compared with.
    """
    rows = []
    for variant in dict.fromkeys(run.variant for run in runs):
        own = [run for run in runs if run.variant == variant]
        ends = [outcomes[run.name] for run in own if run.name in outcomes]
        started = ready.get(variant, {})
        rows.append(
            Whole(
                variant=variant,
                events=sum(run.events for run in own),
                ready_seconds=figure(started.values()) if started else None,
                ready_ratio=ratio(started, ready.get(reference, {})),
                peak_mib=max(run.peak_bytes for run in own) / 2**20,
                refused=sum(run.refused for run in own),
                lost=sum(end.lost for end in ends),
                misfiled=sum(end.misfiled for end in ends),
                left=sum(end.left for end in ends),
            )
        )
    return rows


def batched(runs: Sequence[BatchRun]) -> list[Batched]:
    """Of the runs without the proxy, by the size of a batch, and by variant in the order in which they first came; of
    those through it only what it has counted.
    """
    direct = [run for run in runs if run.s3_requests is None and run.round >= 0]
    through = [run for run in runs if run.s3_requests is not None and run.round >= 0]
    variants = dict.fromkeys(run.variant for run in direct)
    rows = []
    for batch, variant in itertools.product(sorted({run.batch for run in direct}), variants):
        own = [run for run in direct if (run.variant, run.batch) == (variant, batch)]
        floor = [run for run in direct if (run.variant, run.batch) == (FLOOR_BATCH, batch)]
        counted = [run for run in through if (run.variant, run.batch) == (variant, batch)]
        rows.append(
            Batched(
                variant=variant,
                batch=batch,
                cpu_ms=_of(own, lambda run: run.cpu_ms),
                cpu_ratio=_ratio(own, floor, lambda run: run.cpu_ms),
                rate=_of(own, lambda run: run.rate),
                rate_ratio=_ratio(own, floor, lambda run: run.rate),
                s3_requests=_of(counted, _calls) if counted else None,
            )
        )
    return rows


def _ratio(own: Sequence[Run], floor: Sequence[Run], by: Callable[[Run], float]) -> Figure | None:
    return ratio({run.round: by(run) for run in own}, {run.round: by(run) for run in floor})


def _calls(run: Run) -> float:
    return (run.s3_requests or 0) / run.events


def _of(runs: Sequence[_Run], by: Callable[[_Run], float]) -> Figure:
    return figure(by(run) for run in runs)
