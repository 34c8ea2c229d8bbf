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
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from mnist_pipeline.pipeline import events, notifications
from mnist_pipeline.pipeline.errors import ObjectGone, Permanent, PipelineError
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.objects import Wanted
from mnist_pipeline.pipeline.outcomes import Outcome, may_succeed_later
from mnist_pipeline.pipeline.passage import Go, Predict
from mnist_pipeline.pipeline.path import Pipeline
from mnist_pipeline.pipeline.ports import KEYS_A_PAGE, Deadline, ListedObject
from mnist_pipeline.pipeline.settings import Settings

log = logging.getLogger(__name__)

AT_ONCE = 32
"""Objects that are settled together."""

LIST_SECONDS = 60.0
"""For one page of a listing."""

PROGRESS_SECONDS = 5.0
"""Between two lines that tell how far it is."""

_CHECK_SECONDS = 10.0


class Listing(Protocol):
    """What of a store is asked for beyond the port."""

    async def list_after(
        self, bucket: str, key: str, *, most: int = KEYS_A_PAGE, deadline: Deadline
    ) -> list[ListedObject]:
        """The next current objects of a bucket after `key`, in the order of their names' bytes; none at its end."""
        ...


async def missed(listing: Listing, settings: Settings, *, older_than_seconds: float) -> AsyncIterator[ObjectRef]:
    """The objects of the source buckets that an event would name, and that have been there for so long.

    Raises:
        StoreUnavailable, DeadlineExceeded: the listing is cut short.
    """
    for bucket in settings.source_buckets:
        after = ""
        while page := await listing.list_after(bucket, after, deadline=Deadline(LIST_SECONDS)):
            for one in page:
                if is_missed(bucket, one, settings, older_than_seconds=older_than_seconds):
                    yield ObjectRef(bucket=bucket, key=one.key)
            after = page[-1].key


def is_missed(bucket: str, one: ListedObject, settings: Settings, *, older_than_seconds: float) -> bool:
    """Whether an event would name this object, and it has been there for so long."""
    if one.age_seconds < older_than_seconds or notifications.is_output(bucket, one.key, settings):
        return False
    try:
        notifications.check_source(bucket, one.key, settings)
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
        # Of a low rate nobody waits for seconds.
        self._at_once = AT_ONCE if rate is None else max(1, min(AT_ONCE, int(rate)))
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
        group: list[ObjectRef] = []
        try:
            async for ref in found:
                if self.stopped or self.gave_up:
                    break
                if only is not None and ref not in only:
                    continue
                group.append(ref)
                if len(group) >= self._at_once:
                    released |= await self._settle(group)
                    group = []
                await self._pause()
        finally:
            if group and not self.gave_up:
                released |= await self._settle(group)
        return released

    async def _pause(self) -> None:
        """As long as the rate asks for, or until `stop` is called."""
        if self._pause_seconds:
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._pause_seconds)

    async def _settle(self, group: Sequence[ObjectRef]) -> set[ObjectRef]:
        """Settle these together, and what fails by itself alone; give those that were released."""
        settled = await self._sent(group)
        failed = [ref for ref, outcome in settled.items() if outcome.error and may_succeed_later(outcome.error)]
        if failed:
            self.gave_up = await self._is_something_away()
            # One that fails must not keep those beside it from being settled.
            if not self.gave_up and len(group) > 1:
                for ref in failed:
                    settled |= await self._sent([ref])
        for outcome in settled.values():
            self.outcomes[outcome.reason] += 1
            self.left += outcome.stays
        if time.monotonic() - self._told_at > PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            log.info("so far: %s", self.summary())
        return {
            ref
            for ref, outcome in settled.items()
            if not (outcome.stays or outcome.retained or outcome.reason == ObjectGone.reason)
        }

    async def _sent(self, group: Sequence[ObjectRef]) -> dict[ObjectRef, Outcome]:
        """Send objects down the path together, with a deadline of their own."""
        settings = self._pipeline.settings
        caller = events.caller_of({}, settings)
        wanted = [Wanted(ref=ref, caller=caller) for ref in group]
        deadline = Deadline(settings.event_timeout_seconds)
        try:
            await self._pipeline.settle_objects(wanted, self._go, deadline, slots=len(group))
        except Exception:
            # A bug of ours, or of another transformer's; it must not keep the others from being settled.
            names = ", ".join(f"{ref.bucket}/{ref.key!a}" for ref in group)
            log.exception("%s failed in a way that nobody foresaw", names)
        bug = Outcome(reason=PipelineError.reason, error=PipelineError("internal error"), stays=True)
        return {one.ref: next(iter(one.outcomes), bug) for one in wanted}

    async def _is_something_away(self) -> bool:
        try:
            await self._pipeline.check_with(self._predict, Deadline(_CHECK_SECONDS))
        except PipelineError as exc:
            log.error("giving up: %s", exc)
            return True
        return False

    def summary(self) -> str:
        """What became of the objects, in one line."""
        counted = ", ".join(f"{number:,} {reason}" for reason, number in self.outcomes.most_common())
        return f"{counted or 'nothing was missed'}; {self.left:,} left unsettled"
