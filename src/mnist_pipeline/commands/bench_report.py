"""What a load has come to: counts, the rate, how long things took, and which objects were lost."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnist_pipeline.client.load import Sent
from mnist_pipeline.commands import console
from mnist_pipeline.pipeline.stages import STAGES

UPLOAD = "upload"
DELIVERY = "delivery"
"""All that is no stage of the transformer's: the notification, its way there, and the result's way to us."""
WHOLE = "upload to result"

_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_STEPS = (1, 1.5, 2, 3, 5, 7)
_EDGES = tuple(step * 10**power for power in range(7) for step in _STEPS)
"""Milliseconds at which the histogram's bars begin."""
_BAR_COLUMNS = 40


@dataclass(frozen=True, kw_only=True)
class Bar:
    """How many objects took at least so many milliseconds, and less than so many; the last has no end."""

    begins: float
    ends: float | None
    objects: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a load has come to.

    Attributes:
        count: how many objects were to be uploaded.
        sent: the objects that were uploaded.
        failed: a sentence for each that could not be.
        is_over: nobody waits any more for those without a result.
    """

    count: int
    sent: Collection[Sent]
    failed: Sequence[str]
    is_over: bool = True

    @property
    def missing(self) -> list[Sent]:
        """Those without a result."""
        return [one for one in self.sent if one.result is None]

    @property
    def counts(self) -> dict[str, int]:
        """How many came to which end."""
        results = [one.result for one in self.sent if one.result is not None]
        rejected = sum(result.is_rejected for result in results)
        return {
            "filed": len(results) - rejected,
            "to be reviewed": sum(result.is_doubtful for result in results),
            "rejected": rejected,
            "lost" if self.is_over else "without a result yet": len(self.missing),
            "not uploaded": self.count - len(self.sent),
        }

    @property
    def seconds(self) -> float:
        """From the first upload's beginning to the last result."""
        arrived = [one.arrived for one in self.sent if one.arrived is not None]
        return max(arrived) - min(one.began for one in self.sent) if arrived else 0.0

    @property
    def rate(self) -> float:
        """Results a second."""
        return (len(self.sent) - len(self.missing)) / self.seconds if self.seconds else 0.0

    @property
    def milliseconds(self) -> dict[str, list[float]]:
        """What each object took, of those that have a result: in all, and by where the time went."""
        took: dict[str, list[float]] = {name: [] for name in (UPLOAD, DELIVERY, *STAGES, WHOLE)}
        for one in self.sent:
            if one.result is None or one.arrived is None or one.uploaded is None:
                continue
            stages = {name: value for name, value in one.result.stages.items() if name in STAGES}
            took[UPLOAD].append((one.uploaded - one.began) * 1000)
            took[WHOLE].append((one.arrived - one.began) * 1000)
            if stages:
                # The transformer may have begun before the store's answer to the upload was here.
                took[DELIVERY].append(max(0.0, (one.arrived - one.uploaded) * 1000 - sum(stages.values())))
            for name, value in stages.items():
                took[name].append(value)
        return {name: values for name, values in took.items() if values}

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        took = self.milliseconds
        return {
            "objects": self.counts,
            "seconds": round(self.seconds, 3),
            "eventsPerSecond": round(self.rate, 2),
            "milliseconds": {name: percentiles(values) for name, values in took.items()},
            "histogram": [[bar.begins, bar.ends, bar.objects] for bar in histogram(took.get(WHOLE, []))],
            "withoutResult": {one.trace_id: console.printable(one.place) for one in self.missing},
            "notUploaded": [console.printable(says) for says in self.failed],
        }

    def print(self) -> None:
        """The same for people."""
        for name, count in {**self.counts, "events/s": f"{self.rate:.1f}"}.items():
            print(f"{name:<20}  {count}")
        took = self.milliseconds
        if took:
            print()
            rows = [[name, *(f"{value:.1f}" for value in percentiles(took[name]).values())] for name in took]
            console.print_table(["milliseconds", *_PERCENTILES], rows, right=_PERCENTILES)
            print()
            console.print_table([f"ms, {WHOLE}", "objects", ""], _bars(histogram(took[WHOLE])), right=["objects"])


def percentiles(values: Sequence[float]) -> Mapping[str, float]:
    """The smallest value that so many do not exceed (nearest rank); of one value at least."""
    ordered = sorted(values)
    return {
        name: round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3) for name, share in _PERCENTILES.items()
    }


def histogram(values: Sequence[float]) -> list[Bar]:
    """Bars from that of the smallest value to that of the largest, empty ones among them."""
    edges = (0.0, *_EDGES)
    counts = [0] * len(edges)
    for value in values:
        counts[bisect.bisect_right(edges, value) - 1] += 1
    bars = [
        Bar(begins=begins, ends=ends, objects=objects)
        for begins, ends, objects in zip(edges, (*_EDGES, None), counts, strict=True)
    ]
    is_empty = [bar.objects == 0 for bar in bars]
    begin = len(list(itertools.takewhile(bool, is_empty)))
    end = len(bars) - len(list(itertools.takewhile(bool, reversed(is_empty))))
    return bars[begin:end]


def _bars(bars: Sequence[Bar]) -> Iterator[list[str]]:
    most = max(bar.objects for bar in bars)
    for bar in bars:
        ends = "" if bar.ends is None else f" to {bar.ends:g}"
        drawn = "█" * math.ceil(bar.objects * _BAR_COLUMNS / most)
        yield [f"{bar.begins:g}{ends}", str(bar.objects), drawn]
