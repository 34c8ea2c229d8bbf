"""The path of an event: fetch, tensorize, [predictor], file, publish, release. Plain blocking code on the two ports.

The order is what keeps the promise that nothing is lost or misfiled: the bytes in hand are filed before the result is
published, and the source is released only after the broker's acknowledgement. Whatever is cut short leaves the
source, and the same event delivered again converges: the copy is found to be there, the result gets the same id.

`prepare` and `finish` are one thread hop each; the predictor is asked between them, by whoever calls.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnist_pipeline.mnist import images
from mnist_pipeline.mnist.images import Grey
from mnist_pipeline.pipeline import content_encoding, filing, instances
from mnist_pipeline.pipeline.errors import (
    BadImage,
    BadKey,
    BadTensor,
    BadTraceId,
    MessageTooLarge,
    ObjectGone,
    ObjectRetained,
    ObjectTooLarge,
    Permanent,
    PipelineError,
    PredictorUnavailable,
    ResultTooLarge,
    Retryable,
    StoreUnavailable,
    without_frames,
)
from mnist_pipeline.pipeline.events import Caller, Inline, Notification, trace_id_in
from mnist_pipeline.pipeline.filing import Copy
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.ports import Deadline, ObjectStore, ObjectVersion, Publisher, StoredObject
from mnist_pipeline.pipeline.predictor_formats import Images
from mnist_pipeline.pipeline.results import (
    Result,
    inline_result,
    object_identity,
    object_result,
    rejected_data,
    to_message,
    trace_id_of,
)
from mnist_pipeline.pipeline.settings import DIGITS, Settings

log = logging.getLogger(__name__)

Tensorizer = Callable[[bytes], Grey]
"""An encoded image → float32 `(28, 28)` in 0..1; raises BadImage."""

RECORDS_AT_ONCE = 8
"""Records of one event that are in hand together, as long as their bytes are not more than one object may have."""

FETCH_SHARE = 0.5
"""What of an event's time its objects may take to be fetched, and its images to be tensorized."""

PREDICT_SHARE = 0.5
"""What of the time that is then left the predictor may take; filing, publishing and releasing have the rest."""

_PIXELS = 28 * 28

# Pixels take far more room than the bytes that they come from, so few images are decoded at once: as many as there are
# processors, and no more than four, because a container sees all of its node's, whatever its own share is.
DECODED_AT_ONCE = min(os.cpu_count() or 1, 4)
_decoding = threading.BoundedSemaphore(DECODED_AT_ONCE)


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
    tensor: Grey | None = None
    refusal: Permanent | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What `prepare` made of a request: `tensors` `(N, 28, 28)` for the predictor, the rest for `finish`.

    `later` are the objects of a notification that are still to be prepared.
    """

    request: Notification | Inline
    tensors: Images
    later: tuple[ObjectRef, ...] = ()
    fetched: tuple[Fetched, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


class Pipeline:
    """The path, on a store and a publisher.

    `store` is None: requests that name objects are answered as if the store were away. `publisher` is None: nothing is
    published. `tensorize` is what another transformer replaces to read other images; `settings.destination_of` names
    where a digit goes. One instance serves all threads, and may be pickled as long as its parts can be.
    """

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore | None,
        publisher: Publisher | None,
        *,
        tensorize: Tensorizer | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.publisher = publisher
        self._tensorize = tensorize

    def tensorize(self, image: bytes, *, encoding: str = "") -> Grey:
        """One image file as a float32 tensor `(28, 28)` in 0..1; `encoding` is its Content-Encoding.

        Raises:
            BadImage: it cannot be decoded.
            ObjectTooLarge: without its encoding it is larger than an object may be.
            Retryable: the tensorizer of another transformer failed in a way of its own, which is not the image's fault.
        """
        with _decoding:
            if encoding:
                image = content_encoding.decoded(image, encoding, limit=self.settings.max_object_bytes)
            if self._tensorize is None:
                return images.to_tensor(image, max_pixels=self.settings.max_image_pixels)
            try:
                tensor = np.asarray(self._tensorize(image), np.float32)
            except PipelineError:
                raise
            except Exception as exc:
                log.exception("the tensorizer raised something else than BadImage")
                raise Retryable(f"the tensorizer failed ({type(exc).__name__})") from exc
        if tensor.shape != (28, 28):
            raise Retryable(f"the tensorizer gave the shape {tensor.shape} instead of (28, 28)")
        return tensor

    # --- first hop ---

    def prepare(self, request: Notification | Inline, deadline: Deadline) -> Batch:
        """Fetch and tensorize what the request names, a few objects at a time, or tensorize what it brings.

        A record that fails is an outcome of its own and does not raise; an inline request that cannot be read does.

        Raises:
            Permanent: an inline request that can never be classified.
            DeadlineExceeded: an inline request has more images than can be read in the time.
        """
        deadline = deadline.share(FETCH_SHARE)
        if isinstance(request, Inline):
            if request.refusal is not None:
                raise request.refusal
            return Batch(request=request, tensors=self._instances(request.instances, deadline))
        fetched: list[Fetched] = []
        outcomes: list[Outcome] = []
        limit = room = self.settings.max_object_bytes
        begun = 0
        also_meant: list[ObjectRef] = []
        for ref in request.objects[:RECORDS_AT_ONCE]:
            try:
                stored, others = self._fetched(ref, room, deadline)
                if stored.data is None and room < limit:
                    break  # there is no room for it beside the others: it is fetched again with the next ones
                also_meant += others
                room -= len(stored.data or b"")
                fetched.append(self._tensorized(stored, request.trace_id))
            except ObjectGone as exc:
                log.info("%s/%s is gone: %s", ref.bucket, ascii(ref.key), exc)
                outcomes.append(Outcome(reason=exc.reason))
            except PipelineError as exc:
                outcomes.append(_failed(ref, exc))
            begun += 1
        tensors = [one.tensor for one in fetched if one.tensor is not None]
        return Batch(
            request=request,
            tensors=np.stack(tensors) if tensors else np.empty((0, 28, 28), np.float32),
            later=(*also_meant, *request.objects[begun:]),
            fetched=tuple(fetched),
            outcomes=tuple(outcomes),
        )

    def _fetched(self, ref: ObjectRef, room: int, deadline: Deadline) -> tuple[StoredObject, list[ObjectRef]]:
        """The object that the event means, and those that it may mean just as well.

        Of several ways to read its key the one whose object has the event's ETag; where none has, one that exists and
        was overwritten since. Objects of the same bytes are not to be told apart, so all of them are due.

        Raises:
            ObjectGone, BadKey: there is none, whichever way the key is read.
        """

        def get(key: str, limit: int) -> StoredObject:
            return self._store().get(ref.bucket, key, ref.version_id, limit=limit, deadline=deadline)

        if not ref.other_keys:
            return get(ref.key, room), []
        found: StoredObject | None = None
        with contextlib.suppress(ObjectGone, BadKey):
            found = get(ref.key, room)
            if ref.is_sure and _is_meant(found.version, ref):
                return found, []
        # Only looked at, so that two are never in hand.
        there = {ref.key: found.version} if found else {}
        for key in ref.other_keys:
            with contextlib.suppress(ObjectGone, BadKey):
                there[key] = get(key, 0).version
        chosen, *others = [key for key in there if _is_meant(there[key], ref)] or [*there, ref.key][:1]
        if found is None or chosen != ref.key:
            del found
            found = get(chosen, room)
        return found, [ObjectRef(bucket=ref.bucket, key=key, version_id=ref.version_id) for key in others]

    def _tensorized(self, stored: StoredObject, trace_id: str | None) -> Fetched:
        trace_id = trace_id or self._trace_id_of(stored.version)
        if stored.data is None:
            refusal = ObjectTooLarge(f"the object is larger than {self.settings.max_object_bytes:,} bytes")
            return Fetched(stored=stored, trace_id=trace_id, refusal=refusal)
        encoding = stored.version.content_headers.get("content-encoding", "")
        try:
            return Fetched(stored=stored, trace_id=trace_id, tensor=self.tensorize(stored.data, encoding=encoding))
        except (BadImage, ObjectTooLarge) as refusal:
            return Fetched(stored=stored, trace_id=trace_id, refusal=without_frames(refusal))

    def _trace_id_of(self, version: ObjectVersion) -> str:
        try:
            given = trace_id_in(version.metadata, self.settings)
        except BadTraceId as exc:
            log.warning("%s/%s: %s; it is ignored", version.bucket, ascii(version.key), exc)
            given = None
        return given or trace_id_of(object_identity(version))

    def _instances(self, given: Sequence[Any], deadline: Deadline) -> Images:
        tensors = np.empty((len(given), 28, 28), np.float32)
        for tensor, instance in zip(tensors, given, strict=True):
            deadline.remaining()  # thousands of images fit into one body
            tensor[:] = self._instance(instance)
        return tensors

    def _instance(self, instance: Any) -> Grey:
        data = instances.content_of(instance)
        if isinstance(data, str):
            data = instances.image_in(data)
        if isinstance(data, bytes):
            return self.tensorize(data)
        try:
            tensor = np.asarray(data)
        except (ValueError, OverflowError) as exc:
            raise BadTensor("an instance is neither an image in data nor a tensor of numbers") from exc
        if tensor.dtype.kind not in "iuf":
            raise BadTensor("an instance is neither an image in data nor a tensor of numbers")
        tensor = tensor.astype(np.float32)
        if tensor.size != _PIXELS or not np.isfinite(tensor).all():
            raise BadTensor(f"an instance has the shape {list(tensor.shape)}: 784 finite numbers are a digit")
        return tensor.reshape(28, 28)

    # --- second hop ---

    def finish(self, batch: Batch, digits: Sequence[int], deadline: Deadline) -> tuple[Outcome, ...]:
        """Settle every object of the batch: file and publish the classified ones, reject the others, release both.

        `digits` are those of `batch.tensors`, in their order. Each record has its outcome.

        Raises:
            PredictorUnavailable: there is not one digit a tensor; nothing is settled.
        """
        prediction = iter(_checked(digits, len(batch.tensors)))
        outcomes = list(batch.outcomes)
        for item in batch.fetched:
            digit = next(prediction) if item.tensor is not None else None
            outcomes.append(self._settle(item, digit, batch.request.caller, deadline))
        return tuple(outcomes)

    def abandon(self, batch: Batch, error: PipelineError, deadline: Deadline) -> tuple[Outcome, ...]:
        """Settle a batch whose prediction failed: what can never be classified is rejected all the same."""
        outcomes = list(batch.outcomes)
        for item in batch.fetched:
            if item.refusal is not None:
                outcomes.append(self._settle(item, None, batch.request.caller, deadline))
            else:
                outcomes.append(_failed(item.stored.version, error))
        return tuple(outcomes)

    def _settle(self, item: Fetched, digit: int | None, caller: Caller, deadline: Deadline) -> Outcome:
        version = item.stored.version
        try:
            if item.refusal is not None:
                return self._reject(item, item.refusal, caller, deadline)
            if digit is None:
                raise AssertionError("an object with a tensor has a digit")
            return self._file(item, digit, caller, deadline)
        except ObjectGone as exc:
            log.info("%s/%s is gone: %s", version.bucket, ascii(version.key), exc)
            return Outcome(reason=exc.reason)
        except PipelineError as exc:
            return _failed(version, exc)

    def _file(self, item: Fetched, digit: int, caller: Caller, deadline: Deadline) -> Outcome:
        bucket, prefix = self.settings.destination_of(digit)
        copy = self._copy(item, bucket, prefix + item.stored.version.key, {}, deadline)
        result = self._object_result(item, copy, self.settings.event_type, {"predictions": [digit]}, caller)
        if self._publish_and_release(item.stored.version, copy, result, deadline):
            return Outcome(reason="filed")
        return Outcome(reason=ObjectRetained.reason, retained=True)

    def _reject(self, item: Fetched, refusal: Permanent, caller: Caller, deadline: Deadline) -> Outcome:
        """The same way into the rejected bucket, the reason in the metadata."""
        version = item.stored.version
        log.warning("%s/%s is rejected: %s", version.bucket, ascii(version.key), refusal)
        reason = {"rejected-reason": refusal.reason}
        copy = self._copy(item, self.settings.rejected_bucket, version.key, reason, deadline)
        result = self._object_result(item, copy, self.settings.rejected_type, rejected_data(refusal), caller)
        released = self._publish_and_release(version, copy, result, deadline)
        return Outcome(reason=refusal.reason, error=refusal, retained=not released)

    def _copy(self, item: Fetched, bucket: str, key: str, reason: dict[str, str], deadline: Deadline) -> Copy:
        """File the bytes in hand; those that are not, the server copies."""
        version, data = item.stored.version, item.stored.data
        own = {self.settings.trace_key.lower(): item.trace_id, **reason}
        if data is None:
            return filing.have_copied(self._store(), version, bucket, own=own, deadline=deadline)
        return filing.put(self._store(), version, data, bucket, key, own=own, deadline=deadline)

    def _object_result(
        self, item: Fetched, copy: Copy, event_type: str, data: dict[str, Any], caller: Caller
    ) -> Result:
        return object_result(
            item.stored.version,
            item.trace_id,
            {**data, "destination": f"{copy.bucket}/{copy.key}"},
            type=event_type,
            source=self.settings.event_source,
            caller=caller,
        )

    def _publish_and_release(self, version: ObjectVersion, copy: Copy, result: Result, deadline: Deadline) -> bool:
        """Publish the object's result, then release the source; False where the store does not let it go.

        That is then noted on the copy, and a result that is noted there is not published again.
        """
        is_new = result.id not in copy.published
        if is_new:
            self._publish(result, deadline)
        try:
            if not self._store().delete(version, deadline=deadline):
                log.info("%s/%s was overwritten meanwhile and stays", version.bucket, ascii(version.key))
        except ObjectRetained as exc:
            says = "%s/%s stays, though all is done: a retention, a legal hold or a policy keeps it (%s)"
            log.warning(says, version.bucket, ascii(version.key), exc)
            if is_new and self.publisher is not None:
                self._mark(copy, result.id, deadline)
            return False
        return True

    def _mark(self, copy: Copy, result_id: str, deadline: Deadline) -> None:
        try:
            filing.mark(self._store(), copy, result_id, deadline=deadline)
        except PipelineError as exc:
            log.warning("the result of %s/%s will be published again: %s", copy.bucket, ascii(copy.key), exc)

    # --- inline requests ---

    def finish_inline(self, request: Inline, digits: Sequence[int], deadline: Deadline) -> Result:
        """Publish the prediction of an inline request, and give its result.

        Raises:
            ResultTooLarge: Kafka refuses the result for its size.
            KafkaUnavailable, DeadlineExceeded: it is not published.
            PredictorUnavailable: there is not one digit an instance.
        """
        settings = self.settings
        data = {"predictions": _checked(digits, len(request.instances))}
        result = inline_result(request, data, type=settings.event_type, source=settings.event_source)
        try:
            self._publish(result, deadline)
        except MessageTooLarge as exc:
            raise ResultTooLarge(str(exc)) from exc
        return result

    def reject_inline(self, request: Inline, refusal: Permanent, deadline: Deadline) -> None:
        """Publish why an inline request is refused, where it has an identity under which somebody may wait for it.

        Raises:
            KafkaUnavailable, DeadlineExceeded: it is not published.
        """
        if request.identity is None:
            return
        settings = self.settings
        data = rejected_data(refusal)
        self._publish(inline_result(request, data, type=settings.rejected_type, source=settings.event_source), deadline)

    # --- both ---

    def _publish(self, result: Result, deadline: Deadline) -> None:
        if self.publisher is not None:
            message = to_message(result, mode=self.settings.event_mode, trace_key=self.settings.trace_key)
            self.publisher.publish(message, deadline=deadline)

    def _store(self) -> ObjectStore:
        if self.store is None:
            raise StoreUnavailable("no object store is configured: MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set")
        return self.store

    def close(self) -> None:
        """Release the connections of both ports; a later call may open new ones."""
        for port in (self.store, self.publisher):
            if port is not None:
                port.close()


def _is_meant(version: ObjectVersion, ref: ObjectRef) -> bool:
    """Whether this is the version that the event names, or has its ETag, where it names one."""
    if ref.version_id not in (None, "null") and ref.version_id == version.version_id:
        return True
    return ref.etag is None or ref.etag.lower() == version.etag.lower()


def verdict(outcomes: Sequence[Outcome]) -> PipelineError | None:
    """The one answer to an event: the first retryable error, else the first permanent one, else None."""
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    retryable = (error for error in errors if isinstance(error, Retryable))
    return next(retryable, errors[0] if errors else None)


def _checked(digits: Sequence[int], n: int) -> list[int]:
    """Nothing is filed by a guess, whoever has made the prediction; numpy's integers become Python's."""
    if len(digits) != n or not all(digit in DIGITS for digit in digits):
        raise PredictorUnavailable(f"{n} images were predicted as {list(digits)!r:.100}, which is not one digit each")
    return [int(digit) for digit in digits]


def _failed(what: ObjectRef | ObjectVersion, error: PipelineError) -> Outcome:
    log.log(
        logging.WARNING if isinstance(error, Permanent) else logging.ERROR,
        "%s/%s is not settled: %s",
        what.bucket,
        ascii(what.key),
        error,
    )
    return Outcome(reason=error.reason, error=without_frames(error), stays=True)
