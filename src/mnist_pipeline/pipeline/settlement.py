"""Objects are settled: filed or rejected, their results published, their sources released; in this order.

So a source goes only when its copy lies there and the broker has acknowledged the result, and a result never announces
what is not there. Objects that are in hand together take each step together: their results share a request to the
broker, and their sources one to the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from mnist_pipeline.pipeline import filing
from mnist_pipeline.pipeline.concurrently import concurrently
from mnist_pipeline.pipeline.errors import (
    ObjectGone,
    ObjectRetained,
    PipelineError,
    Retryable,
    StoreUnavailable,
    without_frames,
)
from mnist_pipeline.pipeline.filing import Copy
from mnist_pipeline.pipeline.interpretation import Prediction
from mnist_pipeline.pipeline.objects import Fetched
from mnist_pipeline.pipeline.outcomes import Outcome
from mnist_pipeline.pipeline.ports import Deadline, ObjectStore, Publisher
from mnist_pipeline.pipeline.results import Result, object_result, rejected_data, to_message
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.stages import Journey
from mnist_pipeline.pipeline.task import Destination

log = logging.getLogger(__name__)

_Step = TypeVar("_Step")

Ended = tuple[Fetched, Outcome]
"""An object, and what became of it."""


@dataclass(frozen=True, kw_only=True)
class _Filed:
    """An object whose copy lies there, the word for that, and its result."""

    item: Fetched
    prediction: Prediction | None
    reason: str
    copy: Copy
    result: Result

    @property
    def is_new(self) -> bool:
        """Whether the copy does not say that the result is published."""
        return self.result.id not in self.copy.published


class Settlement:
    """Settles objects on a store and a publisher, as the settings say."""

    def __init__(self, settings: Settings, store: ObjectStore | None, publisher: Publisher | None) -> None:
        self._settings = settings
        self._store = store
        self._publisher = publisher

    async def settle(self, objects: Sequence[tuple[Fetched, Prediction | None]], deadline: Deadline) -> list[Ended]:
        """File, publish, release: in this order, each object whatever becomes of the others; those that end early come
        first.

        An object without a prediction has a refusal.
        """
        filing_ = [_or_ended(item, self._filed(item, prediction, deadline)) for item, prediction in objects]
        filed, ended = _parted(await concurrently(filing_))
        publishing = [_or_ended(one.item, self._published(one, deadline)) for one in filed]
        published, failed = _parted(await concurrently(publishing))
        return [*ended, *failed, *(await self._released(published, deadline))]

    async def _filed(self, item: Fetched, prediction: Prediction | None, deadline: Deadline) -> _Filed:
        settings = self._settings
        if item.refusal is not None:
            place, reason = Destination(settings.rejected_bucket), item.refusal.reason
            kind, data = settings.rejected_type, rejected_data(item.refusal)
        elif prediction is not None:
            place, reason, data = self._filing_of(prediction)
            kind = settings.event_type
        else:
            raise AssertionError("an object with a tensor has a prediction")
        with item.journey.stage("file"):
            copy = await self._file(item, place, deadline)
        result = object_result(
            item.stored.version,
            item.trace_id,
            {**data, "destination": f"{copy.bucket}/{copy.key}"},
            type=kind,
            source=settings.event_source,
            caller=item.wanted.caller,
        )
        return _Filed(item=item, prediction=prediction, reason=reason, copy=copy, result=result)

    def _filing_of(self, prediction: Prediction) -> tuple[Destination, str, dict[str, Any]]:
        """Where an object with this prediction is filed, the word for it, and what its result says."""
        task = self._settings.task
        try:
            data = task.data([prediction])
            orjson.dumps(data)  # what cannot be published is not filed either
            if self._settings.is_doubtful(prediction):
                return Destination(self._settings.review_bucket), "review", {**data, "review": True}
            return self._settings.destination_of(prediction), "filed", data
        except Exception as exc:
            name = type(task).__name__
            log.exception("%s does not say where to file %r, or what to publish", name, prediction)
            raise Retryable(f"{name} failed for its own prediction ({type(exc).__name__})") from exc

    async def _file(self, item: Fetched, place: Destination, deadline: Deadline) -> Copy:
        """File the bytes in hand; those that are not, the server copies."""
        version, data = item.stored.version, item.stored.data
        own = {self._settings.trace_key.lower(): item.trace_id}
        if item.refusal is not None:
            own[filing.REJECTED_REASON] = item.refusal.reason
        if data is None:
            return await filing.have_copied(stored_in(self._store), version, place.bucket, own=own, deadline=deadline)
        key = place.prefix + version.key
        return await filing.put(stored_in(self._store), version, data, place.bucket, key, own=own, deadline=deadline)

    async def _published(self, one: _Filed, deadline: Deadline) -> _Filed:
        if one.is_new:
            await self.publish(one.result, one.item.journey, deadline)
        return one

    async def _released(self, published: Sequence[_Filed], deadline: Deadline) -> list[Ended]:
        """Release the sources, and say what became of each object.

        Where the store does not let one go, its result's id is noted on the copy, so that it is not published again.
        """
        if not published:
            return []
        began = time.monotonic()
        answers: Sequence[bool | PipelineError]
        try:
            versions = [one.item.stored.version for one in published]
            answers = await stored_in(self._store).delete_all(versions, deadline=deadline)
        except PipelineError as exc:
            answers = [exc] * len(published)
        for one in published:
            one.item.journey.note("release", began, time.monotonic())
        retained = [one for one, answer in zip(published, answers, strict=True) if isinstance(answer, ObjectRetained)]
        if self._publisher is not None:
            await concurrently([self._mark(one.copy, one.result.id, deadline) for one in retained if one.is_new])
        return [(one.item, _end_of(one, answer)) for one, answer in zip(published, answers, strict=True)]

    async def _mark(self, copy: Copy, result_id: str, deadline: Deadline) -> None:
        try:
            await filing.mark(stored_in(self._store), copy, result_id, deadline=deadline)
        except PipelineError as exc:
            log.warning("the result of %s/%s will be published again: %s", copy.bucket, ascii(copy.key), exc)

    async def publish(self, result: Result, journey: Journey, deadline: Deadline) -> None:
        """Publish a result, where there is somewhere to publish."""
        if self._publisher is None:
            return
        mode, trace_key = self._settings.event_mode, self._settings.trace_key
        with journey.stage("publish") as trace:
            message = to_message(result, mode=mode, trace_key=trace_key, seconds=journey.seconds, trace=trace)
            await self._publisher.publish(message, deadline=deadline)


def stored_in(store: ObjectStore | None) -> ObjectStore:
    """The store, where one is configured.

    Raises:
        StoreUnavailable: none is.
    """
    if store is None:
        raise StoreUnavailable("no object store is configured: MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set")
    return store


def _end_of(one: _Filed, answer: object) -> Outcome:
    """What became of an object, by what the store has answered to the release of its source."""
    item = one.item
    version, kept = item.stored.version, isinstance(answer, ObjectRetained)
    if isinstance(answer, PipelineError) and not kept:
        return item.outcome(answer.reason, error=without_frames(answer), stays=True)
    if answer is False:
        log.info("%s/%s was overwritten meanwhile and stays", version.bucket, ascii(version.key))
    return item.outcome(
        ObjectRetained.reason if kept and item.refusal is None else one.reason,
        error=item.refusal,
        retained=kept,
        rejected=item.refusal is not None,
        predictions=() if one.prediction is None else (one.prediction,),
        destination=f"{one.copy.bucket}/{one.copy.key}",
        says=str(answer) or ObjectRetained.reason if kept else "",
    )


async def _or_ended(item: Fetched, step: Awaitable[_Step]) -> _Step | Ended:
    """What a step comes to; where it fails, what became of the object."""
    try:
        return await step
    except ObjectGone as exc:
        return item, item.outcome(exc.reason, says=str(exc))
    except PipelineError as exc:
        return item, item.outcome(exc.reason, error=without_frames(exc), stays=True)


def _parted(steps: Sequence[_Filed | Ended]) -> tuple[list[_Filed], list[Ended]]:
    return [one for one in steps if isinstance(one, _Filed)], [one for one in steps if isinstance(one, tuple)]
