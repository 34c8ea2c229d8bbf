"""Finds the objects whose notification was lost, and sends them down the same path as if it had arrived.

The store's listing is the truth: whatever lies in a source bucket for longer than an event takes was missed. It is safe
beside live traffic, as a second delivery of the same event is: the copy is found to be there, the result has the same
id, and what is released already is gone. What the store did not let go before is only tried to be released again.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Collection
from typing import Protocol

import numpy as np

from mnist_pipeline.pipeline import events, notifications
from mnist_pipeline.pipeline.errors import ObjectGone, Permanent, PipelineError, Retryable
from mnist_pipeline.pipeline.events import Notification
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.path import Go, Pipeline, Predict
from mnist_pipeline.pipeline.ports import Deadline, ListedObject
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.settlement import Outcome

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Objects in hand at once."""

DOUBT_AFTER = 3 * AT_ONCE
"""Objects in a row that could not be settled: then it is looked at whether something is away."""

_LIST_SECONDS = 60.0
_PROGRESS_SECONDS = 5.0
_CHECK_SECONDS = 10.0


class Listing(Protocol):
    """What of a store is asked for beyond the port."""

    async def list_after(self, bucket: str, key: str, *, deadline: Deadline) -> list[ListedObject]:
        """The next current objects of a bucket after `key`, in the order of their names' bytes; none at its end."""
        ...


async def missed(listing: Listing, settings: Settings, *, older_than_seconds: float) -> AsyncIterator[ObjectRef]:
    """The objects of the source buckets that an event would name, and that have been there for so long.

    Raises:
        StoreUnavailable, DeadlineExceeded: the listing is cut short.
    """
    for bucket in settings.source_buckets:
        after = ""
        while page := await listing.list_after(bucket, after, deadline=Deadline(_LIST_SECONDS)):
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
        pipeline: the path.
        predict: asks the predictor.
        go: the way of a passage, where it is not the pipeline's own.
        rate: at most so many objects a second; None: as fast as it goes.

    Attributes:
        outcomes: how often each word of `Outcome.reason` was met.
        left: how many objects are not settled, for the next run; what the store retains is settled.
        gave_up: whether it ended early, because the store, Kafka or the predictor is away.
    """

    def __init__(
        self, pipeline: Pipeline, predict: Predict, *, go: Go | None = None, rate: float | None = None
    ) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.left = 0
        self.gave_up = False
        self._stop = asyncio.Event()
        self._pipeline = pipeline
        self._predict = predict
        self._go = go or pipeline.through(predict)
        self._pause_seconds = 1 / rate if rate else 0.0
        self._failed_in_a_row = 0
        self._told_at = time.monotonic()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Begin no other object."""
        self._stop.set()

    async def run(self, listing: Listing, *, older_than_seconds: float) -> None:
        """Settle what was missed.

        Raises:
            StoreUnavailable, DeadlineExceeded: a listing is cut short; what was found until then is settled.
        """
        released: set[ObjectRef] | None = None
        # An older version appears only once the one above it is released; so there the listing is looked at again.
        while released is None or released:
            found = missed(listing, self._pipeline.settings, older_than_seconds=older_than_seconds)
            released = await self._settle_all(found, only=released)
            if self.stopped or self.gave_up:
                break

    async def _settle_all(
        self, found: AsyncIterator[ObjectRef], *, only: Collection[ObjectRef] | None
    ) -> set[ObjectRef]:
        """Settle these, a few at once; give those that were released."""
        released: set[ObjectRef] = set()
        in_hand: dict[asyncio.Task[Outcome], ObjectRef] = {}
        try:
            async for ref in found:
                if self.stopped or self.gave_up:
                    break
                if only is not None and ref not in only:
                    continue
                in_hand[asyncio.create_task(self._settled(ref))] = ref
                if len(in_hand) == AT_ONCE:
                    await self._collect(in_hand, released)
                await self._pause()
        finally:
            while in_hand:
                await self._collect(in_hand, released)
        return released

    async def _pause(self) -> None:
        """As long as the rate asks for, or until `stop` is called."""
        if self._pause_seconds:
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._pause_seconds)

    async def _settled(self, ref: ObjectRef) -> Outcome:
        """Send one object down the path, with a deadline of its own."""
        settings = self._pipeline.settings
        request = Notification(objects=(ref,), caller=events.caller_of({}, settings))
        try:
            (outcome,) = await self._pipeline.settle(request, self._go, Deadline(settings.event_timeout_seconds))
        except Exception:
            # A bug of ours, or of another transformer's; it must not keep the others from being settled.
            log.exception("%s/%s failed in a way that nobody foresaw", ref.bucket, ascii(ref.key))
            return Outcome(reason=PipelineError.reason, error=PipelineError("internal error"), stays=True)
        return outcome

    async def _collect(self, in_hand: dict[asyncio.Task[Outcome], ObjectRef], released: set[ObjectRef]) -> None:
        """Wait for one object at least, and count what became of it."""
        done, _ = await asyncio.wait(in_hand, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            ref, outcome = in_hand.pop(task), task.result()
            self.outcomes[outcome.reason] += 1
            self.left += outcome.stays
            if not (outcome.stays or outcome.retained or outcome.reason == ObjectGone.reason):
                released.add(ref)
            self._failed_in_a_row = self._failed_in_a_row + 1 if isinstance(outcome.error, Retryable) else 0
        if self._failed_in_a_row >= DOUBT_AFTER and not self.gave_up:
            # Objects that fail by themselves must not keep those behind them from being reached.
            self.gave_up = await self._something_is_away()
            self._failed_in_a_row = 0
        if time.monotonic() - self._told_at > _PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            log.info("so far: %s", self.summary())

    async def _something_is_away(self) -> bool:
        deadline = Deadline(_CHECK_SECONDS)
        wanted = self._pipeline.settings.task.input
        try:
            await self._pipeline.check(deadline)
            await self._predict(np.zeros((1, *wanted.shape), wanted.datatype), deadline)
        except PipelineError as exc:
            log.error("giving up: %s", exc)
            return True
        return False

    def summary(self) -> str:
        """What became of the objects, in one line."""
        counted = ", ".join(f"{number:,} {reason}" for reason, number in self.outcomes.most_common())
        return f"{counted or 'nothing was missed'}; {self.left:,} left unsettled"
