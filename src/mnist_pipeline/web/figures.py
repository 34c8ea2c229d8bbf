"""How many results come, and how long they take: the newest of them in numbers."""

from __future__ import annotations

import bisect
import math
import time
from collections import deque
from typing import Any

from mnist_pipeline.web.journeys import Step

MOST = 2000
"""Latencies that are kept."""

_BOUNDS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000)
_RATE_SECONDS = 10.0
_MOST_ARRIVALS = 100_000
# What was published longer ago is read when the page begins, or when Kafka is back: that is no rate of now.
_RECENT_MS = 60_000.0


class Figures:
    """The rate of the last ten seconds, and the latencies from the upload to the result."""

    def __init__(self) -> None:
        self._latencies: deque[float] = deque(maxlen=MOST)
        # By the monotonic clock.
        self._arrivals: deque[float] = deque(maxlen=_MOST_ARRIVALS)

    def take(self, step: Step) -> None:
        """Count a journey's step."""
        before, after = step.before, step.after
        is_first = after.published is not None and (before is None or before.published is None)
        if is_first and time.time() * 1000 - (after.published or 0.0) < _RECENT_MS:
            self._arrivals.append(time.monotonic())
        if after.latency is not None and (before is None or before.latency is None):
            self._latencies.append(after.latency)

    def as_json(self) -> dict[str, Any]:
        """As the page gets them."""
        since = time.monotonic() - _RATE_SECONDS
        while self._arrivals and self._arrivals[0] < since:
            self._arrivals.popleft()
        took = sorted(self._latencies)
        ends = [bisect.bisect_right(took, bound) for bound in _BOUNDS] + [len(took)]
        counts = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
        return {
            "per_second": len(self._arrivals) / _RATE_SECONDS,
            "count": len(took),
            "p50": _quantile(took, 0.5),
            "p99": _quantile(took, 0.99),
            "histogram": [{"to": bound, "count": count} for bound, count in zip((*_BOUNDS, None), counts, strict=True)],
        }


def _quantile(ordered: list[float], share: float) -> float | None:
    """The least value that this share of them does not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None
