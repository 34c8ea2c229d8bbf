"""The way of each object through the site, joined from what both topics tell; the newest of them, in memory.

The topics are read side by side, so a result may be seen before its notification, and either more than once.
"""

from __future__ import annotations

import bisect
import itertools
import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import orjson

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.pipeline.interpretation import Label
from mnist_pipeline.web.sightings import Notified, Published

State: TypeAlias = Literal["uploaded", "notified", "filed", "review", "rejected", "predicted"]

MOST = 2000
"""Journeys that are kept."""

# Beside a journey; what is larger, or older than these, is not kept: it lies on Kafka.
_KEPT_BYTES = 16 * 1024
_KEPT_RECORDS = 2


@dataclass(frozen=True, kw_only=True)
class Journey:
    """How far one object, or one inline request, has come; times in milliseconds since 1970, durations in milliseconds.

    Attributes:
        id: of this journey, in this process.
        trace_id: None of an upload without one, until its result tells it.
        place: `bucket/key` of the upload; None of an inline request.
        state: the last that is known of it.
        uploaded, notified, published: when, by the clocks of whoever tells it.
        stages: how long each stage took, where the result tells it.
        label, score: what it was taken for, and how sure the predictor was.
        labels: those of an inline request.
        destination: `bucket/key` of the copy.
        reason, message: why it was rejected.
    """

    id: str
    trace_id: str | None
    place: str | None
    state: State
    uploaded: float | None = None
    notified: float | None = None
    published: float | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    label: Label | None = None
    labels: Sequence[Label] = ()
    score: float | None = None
    destination: str | None = None
    reason: str = ""
    message: str = ""

    @property
    def latency(self) -> float | None:
        """Milliseconds from the upload to the result, once both are known."""
        if self.uploaded is None or self.published is None:
            return None
        return max(self.published - self.uploaded, 0.0)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A journey has got further; `before` is None where it has begun."""

    before: Journey | None
    after: Journey


@dataclass(kw_only=True, eq=False)
class Kept:
    """A journey, and what was seen of it.

    Attributes:
        journey: as it is now.
        begun: its place in time.
        change: the number of its last change: those of a later one are higher.
        object: what identifies its object's version, as far as it is known.
        upload: of the notification, by which it is known again.
        result_id: of the newest result.
        notifications, results: the records themselves.
    """

    journey: Journey
    begun: float
    change: int = 0
    object: Mapping[str, str] = field(default_factory=dict)
    upload: str | None = None
    result_id: str | None = None
    notifications: list[Record] = field(default_factory=list)
    results: list[Record] = field(default_factory=list)
    _encoded: bytes = b""

    @property
    def encoded(self) -> bytes:
        """The journey as JSON: made once, however many look at it."""
        self._encoded = self._encoded or orjson.dumps(self.journey)
        return self._encoded

    def become(self, journey: Journey, change: int) -> None:
        """Be that one from now on."""
        self.journey, self.change, self._encoded = journey, change, b""


class Journeys:
    """The newest journeys, by time; once they are so many, none is taken that is older than all of them.

    Args:
        most: how many are kept.
        kept_bytes: of a record that is kept beside its journey.

    Attributes:
        change: the number of the last change.
        lost: the highest number of a journey that is no longer here.
    """

    def __init__(self, *, most: int = MOST, kept_bytes: int = _KEPT_BYTES) -> None:
        self.change = 0
        self.lost = 0
        self._most = most
        self._kept_bytes = kept_bytes
        self._ids = itertools.count(1)
        # By time, the oldest first.
        self._by_time: list[Kept] = []
        # By change, the last one being the newest.
        self._by_change: dict[str, Kept] = {}
        self._by_trace_id: defaultdict[str | None, list[Kept]] = defaultdict(list)
        self._by_place: defaultdict[str | None, list[Kept]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._by_time)

    def uploaded(self, trace_id: str, place: str, *, at: float) -> Step | None:
        """We have uploaded an object; its notification may have been seen already."""
        there = next((kept for kept in self.with_trace_id(trace_id) if kept.journey.place == place), None)
        if there is not None and there.journey.uploaded is not None:
            return None
        return self._take(there, at, state="uploaded", trace_id=trace_id, place=place, uploaded=at)

    def notified(self, seen: Notified) -> Step | None:
        """An object's notification lies on Kafka; None where that changes nothing."""
        at = seen.at
        there = self._of_notification(seen)
        known = {"trace_id": seen.trace_id, "place": seen.place, "uploaded": seen.uploaded, "notified": at}
        step = self._take(there, seen.uploaded or at, state="notified", **known)
        if (kept := there or self._newest_of(step)) is not None:
            kept.upload = seen.upload
            kept.object = {**seen.object, **kept.object}
            self._keep(kept.notifications, seen.record)
        return step

    def published(self, seen: Published) -> Step | None:
        """A result lies on Kafka; None where that changes nothing."""
        result, labels, scores = seen.result, seen.labels, seen.result.scores
        at = seen.at
        there = self._of_result(seen)
        if there is not None and there.result_id == result.id and there.journey.published is not None:
            at = there.journey.published
        step = self._take(
            there,
            at,
            state=_state(seen),
            trace_id=result.trace_id,
            place=seen.place,
            published=at,
            stages=seen.result.stages,
            label=labels[0] if len(labels) == 1 else None,
            labels=labels if seen.place is None else (),
            score=scores[0] if len(scores) == 1 else None,
            destination=seen.destination,
            reason=seen.reason,
            message=seen.message,
        )
        if (kept := there or self._newest_of(step)) is not None:
            kept.result_id = result.id
            kept.object = {**kept.object, **seen.object}
            self._keep(kept.results, seen.record)
        return step

    def newest(self, most: int) -> list[Kept]:
        """So many of them, the oldest first."""
        return self._by_time[-most:]

    def changed_since(self, change: int, most: int) -> list[Kept]:
        """Those that have changed since a change of this number, in their order; of more than so many the first."""
        found = itertools.takewhile(lambda kept: kept.change > change, reversed(self._by_change.values()))
        return list(found)[: -most - 1 : -1]

    def with_trace_id(self, trace_id: str) -> list[Kept]:
        """Those with this trace id, in the order in which they were seen."""
        return list(self._by_trace_id.get(trace_id, ()))

    def _of_notification(self, seen: Notified) -> Kept | None:
        """The journey that a notification is about."""
        alike = [
            kept
            for kept in reversed(self._by_place.get(seen.place, ()))
            if seen.trace_id is None or kept.journey.trace_id in (None, seen.trace_id)
        ]
        again = (kept for kept in alike if kept.upload == seen.upload)
        # Its result, or its upload by us, was seen first.
        known = (kept for kept in alike if kept.upload is None and _may_be(kept.object, seen.object))
        return next(itertools.chain(again, known), None)

    def _of_result(self, seen: Published) -> Kept | None:
        """The journey that a result is about: whose result it is that comes again, else the oldest that waits."""
        result = seen.result
        found: Iterable[Kept] = self._by_place.get(seen.place, ())
        if seen.place is None:
            found = (kept for kept in self.with_trace_id(result.trace_id) if kept.journey.place is None)
        alike = [
            kept
            for kept in found
            if kept.journey.trace_id in (None, result.trace_id) and _may_be(kept.object, seen.object)
        ]
        again = (kept for kept in alike if kept.result_id == result.id)
        waits = (kept for kept in alike if kept.journey.published is None)
        return next(itertools.chain(again, waits), None)

    def _take(self, there: Kept | None, begun: float, **known: Any) -> Step | None:
        """What is known of a journey that is there, or of a new one; None where nothing changes, or there is no room.

        What was told before stays where it is not told again.
        """
        if there is None:
            return self._begin(begun, known)
        before = there.journey
        if before.state != "uploaded" and known["state"] in ("uploaded", "notified"):
            known["state"] = before.state
        for name in ("uploaded", "notified"):
            if getattr(before, name) is not None:
                known[name] = getattr(before, name)
        after = replace(before, **{name: value for name, value in known.items() if value is not None})
        if after == before:
            return None
        if after.trace_id != before.trace_id:
            _remove(self._by_trace_id, before.trace_id, there)
            self._by_trace_id[after.trace_id].append(there)
        self._note(there, after)
        return Step(before=before, after=after)

    def _begin(self, begun: float, known: Mapping[str, Any]) -> Step | None:
        # A clock that is ahead must not make it the newest until then.
        begun = min(begun, time.time() * 1000)
        if len(self._by_time) >= self._most:
            if begun < self._by_time[0].begun:
                return None
            self._drop(self._by_time[0])
        journey = Journey(id=str(next(self._ids)), **known)
        kept = Kept(journey=journey, begun=begun)
        bisect.insort(self._by_time, kept, key=_begun)
        self._by_trace_id[journey.trace_id].append(kept)
        self._by_place[journey.place].append(kept)
        self._note(kept, journey)
        return Step(before=None, after=journey)

    def _newest_of(self, step: Step | None) -> Kept | None:
        return self._by_change[step.after.id] if step else None

    def _note(self, kept: Kept, journey: Journey) -> None:
        self.change += 1
        kept.become(journey, self.change)
        self._by_change.pop(journey.id, None)
        self._by_change[journey.id] = kept

    def _keep(self, records: list[Record], record: Record) -> None:
        is_known = any((one.partition, one.offset) == (record.partition, record.offset) for one in records)
        if not is_known and len(record.value or b"") <= self._kept_bytes:
            records.append(record)
            del records[:-_KEPT_RECORDS]

    def _drop(self, kept: Kept) -> None:
        self._by_time.remove(kept)
        del self._by_change[kept.journey.id]
        _remove(self._by_trace_id, kept.journey.trace_id, kept)
        _remove(self._by_place, kept.journey.place, kept)
        self.lost = max(self.lost, kept.change)


def _begun(kept: Kept) -> float:
    return kept.begun


def _state(seen: Published) -> State:
    if seen.result.is_rejected:
        return "rejected"
    if seen.result.is_doubtful:
        return "review"
    return "predicted" if seen.place is None else "filed"


def _may_be(known: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether these may be the same version of an object: nothing that both have is different.

    A store may write "null" for the version where there are none.
    """
    both = known.keys() & other.keys()
    return all(known[name] == other[name] or "null" in (known[name], other[name]) for name in both)


def _remove(index: defaultdict[Any, list[Kept]], name: Hashable, kept: Kept) -> None:
    index[name].remove(kept)
    if not index[name]:
        del index[name]
