"""One object is settled: filed or rejected, its result published, its source released; in this order.

So the source goes only when its copy lies there and the broker has acknowledged the result, and a result never
announces what is not there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import orjson

from mnist_pipeline.pipeline import filing
from mnist_pipeline.pipeline.errors import (
    ObjectGone,
    ObjectRetained,
    Permanent,
    PipelineError,
    Retryable,
    StoreUnavailable,
    without_frames,
)
from mnist_pipeline.pipeline.events import Caller
from mnist_pipeline.pipeline.filing import Copy
from mnist_pipeline.pipeline.interpretation import Prediction
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.ports import Deadline, ObjectStore, ObjectVersion, Publisher, StoredObject
from mnist_pipeline.pipeline.results import Result, object_result, rejected_data, to_message
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.task import Batch, Destination

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one record: a word that is counted, and the error where it is not settled well.

    `stays`: the object is not settled and still in its source bucket. A rejected one has an error, but is settled.
    `retained`: it is settled, and still there because the store does not let it go.
    """

    reason: str
    error: PipelineError | None = None
    stays: bool = False
    retained: bool = False


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """An object in hand with its trace id: with a tensor, or with the reason why it can never have one."""

    stored: StoredObject
    trace_id: str
    tensor: Batch | None = None
    refusal: Permanent | None = None


class Settlement:
    """Settles objects on a store and a publisher, as the settings say."""

    def __init__(self, settings: Settings, store: ObjectStore | None, publisher: Publisher | None) -> None:
        self._settings = settings
        self._store = store
        self._publisher = publisher

    async def settle(self, item: Fetched, prediction: Prediction | None, caller: Caller, deadline: Deadline) -> Outcome:
        """File, publish, release: in this order, whatever becomes of the others."""
        version = item.stored.version
        try:
            if item.refusal is not None:
                log.warning("%s/%s is rejected: %s", version.bucket, ascii(version.key), item.refusal)
                place, outcome = Destination(self._settings.rejected_bucket), item.refusal.reason
                data: dict[str, Any] = rejected_data(item.refusal)
            elif prediction is not None:
                place, outcome, data = self._filing_of(prediction)
            else:
                raise AssertionError("an object with a tensor has a prediction")
            copy = await self._file(item, place, deadline)
            result = self._object_result(item, copy, data, caller)
            is_new = result.id not in copy.published
            if is_new:
                await self.publish(result, deadline)
            released = await self._release(version, copy, result.id if is_new else None, deadline)
        except ObjectGone as exc:
            log.info("%s/%s is gone: %s", version.bucket, ascii(version.key), exc)
            return Outcome(reason=exc.reason)
        except PipelineError as exc:
            return failed(version, exc)
        if not released and item.refusal is None:
            outcome = ObjectRetained.reason
        return Outcome(reason=outcome, error=item.refusal, retained=not released)

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

    async def _release(self, version: ObjectVersion, copy: Copy, new_id: str | None, deadline: Deadline) -> bool:
        """Release the source; False where the store does not let it go.

        The result's id is then noted on the copy, if it is new, so that it is not published again.
        """
        try:
            if not await stored_in(self._store).delete(version, deadline=deadline):
                log.info("%s/%s was overwritten meanwhile and stays", version.bucket, ascii(version.key))
        except ObjectRetained as exc:
            says = "%s/%s stays, though all is done: a retention, a legal hold or a policy keeps it (%s)"
            log.warning(says, version.bucket, ascii(version.key), exc)
            if new_id is not None and self._publisher is not None:
                await self._mark(copy, new_id, deadline)
            return False
        return True

    async def _mark(self, copy: Copy, result_id: str, deadline: Deadline) -> None:
        try:
            await filing.mark(stored_in(self._store), copy, result_id, deadline=deadline)
        except PipelineError as exc:
            log.warning("the result of %s/%s will be published again: %s", copy.bucket, ascii(copy.key), exc)

    def _object_result(self, item: Fetched, copy: Copy, data: dict[str, Any], caller: Caller) -> Result:
        return object_result(
            item.stored.version,
            item.trace_id,
            {**data, "destination": f"{copy.bucket}/{copy.key}"},
            type=self._settings.event_type if item.refusal is None else self._settings.rejected_type,
            source=self._settings.event_source,
            caller=caller,
        )

    async def publish(self, result: Result, deadline: Deadline) -> None:
        """Publish a result, where there is somewhere to publish."""
        if self._publisher is not None:
            message = to_message(result, mode=self._settings.event_mode, trace_key=self._settings.trace_key)
            await self._publisher.publish(message, deadline=deadline)


def stored_in(store: ObjectStore | None) -> ObjectStore:
    """The store, where one is configured.

    Raises:
        StoreUnavailable: none is.
    """
    if store is None:
        raise StoreUnavailable("no object store is configured: MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set")
    return store


def failed(what: ObjectRef | ObjectVersion, error: PipelineError) -> Outcome:
    """An object that is not settled, said in the log."""
    log.log(
        logging.WARNING if isinstance(error, Permanent) else logging.ERROR,
        "%s/%s is not settled: %s",
        what.bucket,
        ascii(what.key),
        error,
    )
    return Outcome(reason=error.reason, error=without_frames(error), stays=True)
