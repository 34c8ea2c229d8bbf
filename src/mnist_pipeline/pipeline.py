"""The path of an event: fetch, tensorize, [predictor], file, publish, release. Plain blocking code on the two ports.

The order is what keeps the promise that nothing is lost or misfiled: the bytes in hand are filed before the result is
published, and the source is released only after the broker's acknowledgement. Whatever is cut short leaves the
source, and the same event delivered again converges: the copy is found to be there, the result gets the same id.

`prepare` and `finish` are one thread hop each; the predictor is asked between them, by whoever calls.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from mnist_pipeline import images
from mnist_pipeline.errors import (
    BadImage,
    BadTensor,
    BadTraceId,
    MessageTooLarge,
    MetadataTooLarge,
    ObjectGone,
    ObjectTooLarge,
    Permanent,
    PipelineError,
    PredictorUnavailable,
    ResultTooLarge,
    Retryable,
    StoreUnavailable,
    without_frames,
)
from mnist_pipeline.events import Caller, Inline, Notification, ObjectRef, trace_id_in
from mnist_pipeline.images import Grey
from mnist_pipeline.ports import MAX_KEY_BYTES, Deadline, ObjectStore, ObjectVersion, Publisher, StoredObject
from mnist_pipeline.predictors import Images
from mnist_pipeline.results import (
    Result,
    inline_result,
    object_identity,
    object_result,
    rejected_data,
    to_message,
    trace_id_of,
)
from mnist_pipeline.settings import DIGITS, Settings

log = logging.getLogger(__name__)

_T = TypeVar("_T")

Tensorizer = Callable[[bytes], Grey]
"""An encoded image → float32 `(28, 28)` in 0..1; raises BadImage."""

RECORDS_AT_ONCE = 8
"""Records of one event that are in hand together, as long as their bytes are not more than one object may have."""

FETCH_SHARE = 0.5
"""What of an event's time its objects may take to be fetched, and its images to be tensorized."""

PREDICT_SHARE = 0.5
"""What of the time that is then left the predictor may take; filing, publishing and releasing have the rest."""

MAX_SEGMENT_BYTES = 255
# What follows the last dot is a suffix only if it is as short as one.
MAX_SUFFIX = 16

_PIXELS = 28 * 28

# How often an object that appears and vanishes under our hands is put again.
_PUT_ATTEMPTS = 3

# Pixels take far more room than the bytes that they come from, so few images are decoded at once: as many as there are
# processors, and no more than four, because a container sees all of its node's, whatever its own share is.
DECODED_AT_ONCE = min(os.cpu_count() or 1, 4)
_decoding = threading.BoundedSemaphore(DECODED_AT_ONCE)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one record: a word that is counted, and the error where it is not settled well.

    `stays`: the object is not settled and still in its source bucket. A rejected one has an error, but is settled.
    """

    reason: str
    error: PipelineError | None = None
    stays: bool = False


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

    def tensorize(self, image: bytes) -> Grey:
        """One encoded image as a float32 tensor `(28, 28)` in 0..1.

        Raises:
            BadImage: it cannot be decoded.
            Retryable: the tensorizer of another transformer failed in a way of its own, which is not the image's fault.
        """
        with _decoding:
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
        for ref in request.objects[:RECORDS_AT_ONCE]:
            try:
                stored = self._store().get(ref.bucket, ref.key, ref.version_id, limit=room, deadline=deadline)
                if stored.data is None and room < limit:
                    break  # there is no room for it beside the others: it is fetched again with the next ones
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
            later=request.objects[begun:],
            fetched=tuple(fetched),
            outcomes=tuple(outcomes),
        )

    def _tensorized(self, stored: StoredObject, trace_id: str | None) -> Fetched:
        trace_id = trace_id or self._trace_id_of(stored.version)
        if stored.data is None:
            refusal = ObjectTooLarge(f"the object is larger than {self.settings.max_object_bytes:,} bytes")
            return Fetched(stored=stored, trace_id=trace_id, refusal=refusal)
        try:
            return Fetched(stored=stored, trace_id=trace_id, tensor=self.tensorize(stored.data))
        except BadImage as refusal:
            return Fetched(stored=stored, trace_id=trace_id, refusal=without_frames(refusal))

    def _trace_id_of(self, version: ObjectVersion) -> str:
        try:
            given = trace_id_in(version.metadata, self.settings)
        except BadTraceId as exc:
            log.warning("%s/%s: %s; it is ignored", version.bucket, ascii(version.key), exc)
            given = None
        return given or trace_id_of(object_identity(version))

    def _instances(self, instances: Sequence[Any], deadline: Deadline) -> Images:
        tensors = np.empty((len(instances), 28, 28), np.float32)
        for tensor, instance in zip(tensors, instances, strict=True):
            deadline.remaining()  # thousands of images fit into one body
            tensor[:] = self._instance(instance)
        return tensors

    def _instance(self, instance: Any) -> Grey:
        data = instance.get("data") if isinstance(instance, dict) else instance
        if isinstance(data, str):
            try:
                data = base64.b64decode(data, validate=True)
            except ValueError as exc:
                raise BadImage(f"an instance's data is not base64: {exc}") from exc
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
                self._reject(item, item.refusal, caller, deadline)
                return Outcome(reason=item.refusal.reason, error=item.refusal)
            if digit is None:
                raise AssertionError("an object with a tensor has a digit")
            return self._file(item, digit, caller, deadline)
        except ObjectGone as exc:
            log.info("%s/%s is gone: %s", version.bucket, ascii(version.key), exc)
            return Outcome(reason=exc.reason)
        except PipelineError as exc:
            return _failed(version, exc)

    def _file(self, item: Fetched, digit: int, caller: Caller, deadline: Deadline) -> Outcome:
        version = item.stored.version
        bucket, prefix = self.settings.destination_of(digit)
        key = self._put(item.stored, bucket, prefix + version.key, {}, deadline)
        data = {"predictions": [digit], "destination": f"{bucket}/{key}"}
        self._publish_object(item, self.settings.event_type, data, caller, deadline)
        if not self._store().delete(version, deadline=deadline):
            log.info("%s/%s was overwritten meanwhile and stays", version.bucket, ascii(version.key))
        return Outcome(reason="filed")

    def _reject(self, item: Fetched, refusal: Permanent, caller: Caller, deadline: Deadline) -> None:
        """The same way into the rejected bucket, the reason in the metadata."""
        version, bucket = item.stored.version, self.settings.rejected_bucket
        reason = {"rejected-reason": refusal.reason}
        log.warning("%s/%s is rejected: %s", version.bucket, ascii(version.key), refusal)
        if item.stored.data is None:
            # Its bytes are not in hand, so the server copies them, to a name that only this very version can have.
            digest = hashlib.sha256("\n".join(object_identity(version)).encode()).hexdigest()
            key = _suffixed(version.key, digest[:12])
            self._described(
                version,
                reason,
                lambda metadata, _: self._store().copy(version, bucket, key, metadata=metadata, deadline=deadline),
            )
        else:
            key = self._put(item.stored, bucket, version.key, reason, deadline)
        data = {**rejected_data(refusal), "destination": f"{bucket}/{key}"}
        self._publish_object(item, self.settings.rejected_type, data, caller, deadline)
        self._store().delete(version, deadline=deadline)

    def _put(self, stored: StoredObject, bucket: str, key: str, own: dict[str, str], deadline: Deadline) -> str:
        """Put the bytes in hand with all that describes them and our `own` metadata; give the name that they have."""
        return self._described(
            stored.version,
            own,
            lambda metadata, tags: self._put_described(stored, bucket, key, metadata, tags, deadline=deadline),
        )

    def _described(
        self, version: ObjectVersion, own: dict[str, str], write: Callable[[dict[str, str], Mapping[str, str]], _T]
    ) -> _T:
        """Have the object written with its metadata, our `own` and its tags: with less where the store takes no more.

        The trace id that it brought and our own always stay. What we add to its metadata, or its being encoded, can be
        too much for a store that took it from the user; tags may be set in a request's body, and are sent in a header.
        """
        whole, least = {**version.metadata, **own}, {**self._trace_metadata(version), **own}
        *richer, poorest = itertools.product((version.tags, {}) if version.tags else ({},), (whole, least))
        for tags, metadata in richer:
            with contextlib.suppress(MetadataTooLarge):
                written = write(metadata, tags)
                break
        else:
            tags, metadata = poorest
            written = write(metadata, tags)
        if left_out := sorted(whole.keys() - metadata.keys()) + sorted(version.tags.keys() - tags.keys()):
            log.warning(
                "%s/%s had more metadata or tags than the store takes: %.200s are left out where it is now",
                version.bucket,
                ascii(version.key),
                ascii(left_out),
            )
        return written

    def _trace_metadata(self, version: ObjectVersion) -> dict[str, str]:
        """What of the metadata holds the trace id; one that is ignored is not worth its room."""
        name = self.settings.trace_key.lower()
        try:
            return {name: version.metadata[name]} if trace_id_in(version.metadata, self.settings) else {}
        except BadTraceId:
            return {}

    def _put_described(
        self,
        stored: StoredObject,
        bucket: str,
        key: str,
        metadata: Mapping[str, str],
        tags: Mapping[str, str],
        *,
        deadline: Deadline,
    ) -> str:
        """Put the bytes in hand under the first of their names that is free or has the same bytes; give that name."""
        version, data = stored.version, stored.data
        if data is None:
            raise AssertionError("only bytes in hand are put")
        for name in _names(key, data):
            for _ in range(_PUT_ATTEMPTS):
                created = self._store().put(
                    bucket,
                    name,
                    data,
                    content_type=version.content_type,
                    metadata=metadata,
                    tags=tags,
                    deadline=deadline,
                )
                if created:
                    return name
                try:
                    there = self._store().get(bucket, name, None, limit=len(data), deadline=deadline)
                except ObjectGone:
                    continue  # it vanished meanwhile: put again
                if there.data == data:
                    return name
                break
        raise StoreUnavailable(f"every name for {key!r} in bucket {bucket!r} is taken by other bytes")

    def _publish_object(
        self, item: Fetched, event_type: str, data: dict[str, Any], caller: Caller, deadline: Deadline
    ) -> None:
        source = self.settings.event_source
        self._publish(
            object_result(item.stored.version, item.trace_id, data, type=event_type, source=source, caller=caller),
            deadline,
        )

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


def _names(key: str, data: bytes) -> Iterator[str]:
    """The names for these bytes, best first: the key, then with 12 and with 64 hexadecimal digits of their sha256."""
    if _fits(key):
        yield key
    digest = hashlib.sha256(data).hexdigest()
    yield _suffixed(key, digest[:12])
    yield _suffixed(key, digest)


def _fits(key: str) -> bool:
    encoded = key.encode()
    return len(encoded) <= MAX_KEY_BYTES and all(len(part) <= MAX_SEGMENT_BYTES for part in encoded.split(b"/"))


def _suffixed(key: str, digest: str) -> str:
    """`<stem, cut to fit>-<digest><suffix>`; cut where the last segment or the whole name would be too long."""
    stem, dot, suffix = key.rpartition(".")
    if not dot or "/" in suffix or len(suffix) > MAX_SUFFIX:
        stem, dot, suffix = key, "", ""
    end = f"-{digest}{dot}{suffix}".encode()
    cut = stem.encode()[: MAX_KEY_BYTES - len(end)]
    too_long = len(cut.rpartition(b"/")[2]) + len(end) - MAX_SEGMENT_BYTES
    if too_long > 0:
        cut = cut[:-too_long]
    # A character that was cut in two is left out whole.
    return cut.decode(errors="ignore") + end.decode()
