"""Finds the objects whose notification was lost, and sends them down the same path as if it had arrived.

The store's listing is the truth: whatever lies in a source bucket for longer than an event takes was missed. It is safe
beside live traffic, as a second delivery of the same event is: the copy is found to be there, the result has the same
id, and what is released already is gone. What the store did not let go before is only tried to be released again.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol

import numpy as np

from mnist_pipeline.pipeline import events, notifications
from mnist_pipeline.pipeline.errors import ObjectGone, Permanent, PipelineError, Retryable
from mnist_pipeline.pipeline.events import Notification
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.path import Outcome, Pipeline
from mnist_pipeline.pipeline.ports import Deadline, ListedObject
from mnist_pipeline.pipeline.predictor_formats import Images
from mnist_pipeline.pipeline.settings import Settings

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Objects in hand at once."""

DOUBT_AFTER = 3 * AT_ONCE
"""Objects in a row that could not be settled: then it is looked at whether something is away."""

_LIST_SECONDS = 60.0
_PROGRESS_SECONDS = 5.0
_CHECK_SECONDS = 10.0
_STOPPED_WITHIN_SECONDS = 0.2

Predict = Callable[[Images, Deadline], list[int]]
"""float32 `(N, 28, 28)` and the event's deadline → N digits; raises Retryable. Called by several threads."""


class Listing(Protocol):
    """What of a store is asked for beyond the port."""

    def list_after(self, bucket: str, key: str, *, deadline: Deadline) -> list[ListedObject]:
        """The next current objects of a bucket after `key`, in the order of their names' bytes; none at its end."""
        ...


def missed(listing: Listing, settings: Settings, *, older_than_seconds: float) -> Iterator[ObjectRef]:
    """The objects of the source buckets that an event would name, and that have been there for so long.

    Raises:
        StoreUnavailable, DeadlineExceeded: the listing is cut short.
    """
    for bucket in settings.source_buckets:
        after = ""
        while page := listing.list_after(bucket, after, deadline=Deadline(_LIST_SECONDS)):
            for one in page:
                if one.age_seconds >= older_than_seconds and _is_source(bucket, one.key, settings):
                    yield ObjectRef(bucket=bucket, key=one.key)
            after = page[-1].key


def _is_source(bucket: str, key: str, settings: Settings) -> bool:
    if notifications.is_output(bucket, key, settings):
        return False
    try:
        notifications.check_source(bucket, key, settings)
    except Permanent:
        return False
    return True


class Reconciler:
    """One run over the source buckets.

    Args:
        pipeline: the path; `predict` is asked between its two hops.
        rate: at most so many objects a second; None: as fast as it goes.

    Attributes:
        outcomes: how often each word of `Outcome.reason` was met.
        left: how many objects are not settled, for the next run; what the store retains is settled.
        gave_up: whether it ended early, because the store, Kafka or the predictor is away.
    """

    def __init__(self, pipeline: Pipeline, predict: Predict, *, rate: float | None = None) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.left = 0
        self.gave_up = False
        self._pipeline = pipeline
        self._predict = predict
        self._pause_seconds = 1 / rate if rate else 0.0
        self._stopped = False
        self._failed_in_a_row = 0
        self._told_at = time.monotonic()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """Begin no other object; may be called from a signal handler."""
        # No lock: the handler interrupts the very thread that may hold it.
        self._stopped = True

    def run(self, listing: Listing, *, older_than_seconds: float) -> None:
        """Settle what was missed.

        Raises:
            StoreUnavailable, DeadlineExceeded: a listing is cut short; what was found until then is settled.
        """
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="reconcile") as threads:
            found = missed(listing, self._pipeline.settings, older_than_seconds=older_than_seconds)
            # An older version appears only once the one above it is released; so there the listing is looked at again.
            while (released := self._settle_all(found, threads)) and not (self.stopped or self.gave_up):
                found = missed(listing, self._pipeline.settings, older_than_seconds=older_than_seconds)
                found = filter(released.__contains__, found)

    def _settle_all(self, refs: Iterator[ObjectRef], threads: ThreadPoolExecutor) -> set[ObjectRef]:
        """Settle these, a few at once; give those that were released."""
        released: set[ObjectRef] = set()
        in_hand: dict[Future[Outcome], ObjectRef] = {}
        try:
            for ref in refs:
                if self._stopped or self.gave_up:
                    break
                in_hand[threads.submit(self._settled, ref)] = ref
                if len(in_hand) == AT_ONCE:
                    self._collect(in_hand, released)
                self._pause()
        finally:
            while in_hand:
                self._collect(in_hand, released)
        return released

    def _pause(self) -> None:
        """As long as the rate asks for, and not much longer than until `stop` is called."""
        until = time.monotonic() + self._pause_seconds
        while not self._stopped and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _STOPPED_WITHIN_SECONDS))

    def _settled(self, ref: ObjectRef) -> Outcome:
        try:
            return self._settle(ref)
        except Exception:
            # A bug of ours, or of another transformer's; it must not keep the others from being settled.
            log.exception("%s/%s failed in a way that nobody foresaw", ref.bucket, ascii(ref.key))
            return Outcome(reason=PipelineError.reason, error=PipelineError("internal error"), stays=True)

    def _settle(self, ref: ObjectRef) -> Outcome:
        """Send one object down the path, with a deadline of its own."""
        pipeline, settings = self._pipeline, self._pipeline.settings
        deadline = Deadline(settings.event_timeout_seconds)
        batch = pipeline.prepare(Notification(objects=(ref,), caller=events.caller_of({}, settings)), deadline)
        try:
            digits = self._predict(batch.tensors, deadline) if len(batch.tensors) else []
            (outcome,) = pipeline.finish(batch, digits, deadline)
        except Retryable as exc:
            (outcome,) = pipeline.abandon(batch, exc, deadline)
        return outcome

    def _collect(self, in_hand: dict[Future[Outcome], ObjectRef], released: set[ObjectRef]) -> None:
        """Wait for one object at least, and count what became of it."""
        done, _ = wait(in_hand, return_when=FIRST_COMPLETED)
        for future in done:
            ref, outcome = in_hand.pop(future), future.result()
            self.outcomes[outcome.reason] += 1
            self.left += outcome.stays
            if not (outcome.stays or outcome.retained or outcome.reason == ObjectGone.reason):
                released.add(ref)
            self._failed_in_a_row = self._failed_in_a_row + 1 if isinstance(outcome.error, Retryable) else 0
        if self._failed_in_a_row >= DOUBT_AFTER and not self.gave_up:
            # Objects that fail by themselves must not keep those behind them from being reached.
            self.gave_up = self._something_is_away()
            self._failed_in_a_row = 0
        if time.monotonic() - self._told_at > _PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            log.info("so far: %s", self.summary())

    def _something_is_away(self) -> bool:
        settings, deadline = self._pipeline.settings, Deadline(_CHECK_SECONDS)
        try:
            if self._pipeline.store is not None:
                self._pipeline.store.check(settings.source_buckets[0], deadline=deadline)
            if self._pipeline.publisher is not None:
                self._pipeline.publisher.check(deadline=deadline)
            self._predict(np.zeros((1, 28, 28), np.float32), deadline)
        except PipelineError as exc:
            log.error("giving up: %s", exc)
            return True
        return False

    def summary(self) -> str:
        """What became of the objects, in one line."""
        counted = ", ".join(f"{number:,} {reason}" for reason, number in self.outcomes.most_common())
        return f"{counted or 'nothing was missed'}; {self.left:,} left unsettled"
