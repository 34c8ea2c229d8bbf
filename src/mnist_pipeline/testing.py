"""For tests of transformers, without servers: the two ports in memory, a predictor, and builders of events and images.

    store = MemoryStore("mnist", versioned={"mnist"}, create_buckets=True)
    version = store.upload("mnist", "a/7.png", digit_png(7))
    event = minio_event("mnist", "a/7.png", version_id=version.version_id)

The fakes hold plain state, to be looked at and to be changed: what is stored, what was called, what shall fail. They
are as strict as MinIO about versions, preconditions and metadata; the contract tests run over them and over real
servers alike. Importing this module imports neither kserve nor minio nor kafka.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_pipeline.pipeline.errors import (
    BadKey,
    KafkaUnavailable,
    MessageTooLarge,
    MetadataTooLarge,
    ObjectGone,
    ObjectRetained,
    StoreUnavailable,
)
from mnist_pipeline.pipeline.ports import MAX_KEY_BYTES, Deadline, ListedObject, Message, ObjectVersion, StoredObject

_SEGMENT_BYTES = 255
_KEYS_A_LISTING = 1000
# Of a request's headers, and of those among them that are user metadata. AWS counts a name without its prefix, MinIO
# (isHTTPHeaderSizeTooLarge in cmd/generic-handlers.go) with it, and a value as it is sent.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
_HEADER_BYTES = 8 * 1024
_METADATA_BYTES = 2 * 1024
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
_MOST_TAGS = 10
_TAG_LENGTH = 256
_EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a port: the method's name, and what it was about."""

    method: str
    bucket: str = ""
    key: str = ""
    version_id: str | None = None


@dataclass
class Failures:
    """Errors to raise, by method: the first of a list at the next call, then the next one.

    `before` is raised instead of doing anything; `after` when all is done, as when an answer is lost.
    """

    before: dict[str, list[Exception]] = field(default_factory=dict)
    after: dict[str, list[Exception]] = field(default_factory=dict)


def _raise_next(errors: Mapping[str, list[Exception]], method: str) -> None:
    if waiting := errors.get(method):
        raise waiting.pop(0)


class MemoryStore:
    """The port `ObjectStore` in memory, with versions and preconditions as MinIO has them.

    Every write is a second later than the one before, from 2026-01-01 on; version ids are counted UUIDs. Safe to share
    between threads.

    Args:
        buckets: those that exist.
        versioned: those of them whose uploads get version ids. Objects from before a bucket was added keep none.
        create_buckets: whether a bucket comes into being when it is first written to.

    Attributes:
        buckets: bucket → key → versions, oldest first, the last one being current; one without data is a delete marker.
        versioned: may be changed at any time, as versioning can be switched on.
        locked: the ids of versions under a retention or a legal hold.
        undeletable: buckets from which our user may not delete.
        calls: every call of the port, in order.
        failures: what shall fail.
        on_call: called before each call does anything, for what others do in the meantime.
        closed: whether `close` was called last.
    """

    def __init__(self, *buckets: str, versioned: Collection[str] = (), create_buckets: bool = False) -> None:
        self.buckets: dict[str, dict[str, list[StoredObject]]] = {bucket: {} for bucket in (*buckets, *versioned)}
        self.versioned = set(versioned)
        self.create_buckets = create_buckets
        self.locked: set[str] = set()
        self.undeletable: set[str] = set()
        self.calls: list[Call] = []
        self.failures = Failures()
        self.on_call: Callable[[Call], None] | None = None
        self.closed = False
        self._writes = 0
        # Reentrant, so that on_call may use the store.
        self._lock = threading.RLock()

    def upload(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        content_type: str = "image/png",
        content_headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ObjectVersion:
        """Store the object unconditionally, as a user's upload does; it is no call of the port, and takes any key and
        any metadata.
        """
        with self._lock:
            key = key.lstrip("/")
            versions = self._keys(bucket, writing=True).setdefault(key, [])
            self._writes += 1
            version_id = str(uuid.UUID(int=self._writes, version=4)) if bucket in self.versioned else None
            version = ObjectVersion(
                bucket=bucket,
                key=key,
                version_id=version_id,
                etag=hashlib.md5(data, usedforsecurity=False).hexdigest(),
                last_modified=format_datetime(_EPOCH + timedelta(seconds=self._writes), usegmt=True),
                content_type=content_type,
                content_headers=dict(content_headers or {}),
                metadata=dict(metadata or {}),
                tags=dict(tags or {}),
            )
            if version_id is None:
                versions[:] = [kept for kept in versions if kept.version.version_id is not None]
            versions.append(StoredObject(version=version, data=data))
            return version

    def remove(self, bucket: str, key: str) -> None:
        """Delete the object as a user does who names no version: where there are versions they stay, hidden by a delete
        marker. It is no call of the port.
        """
        with self._lock:
            keys = self._keys(bucket)
            if bucket not in self.versioned:
                keys.pop(_stored_key(key), None)
                return
            marker = self.upload(bucket, key, b"")
            keys[marker.key][-1] = StoredObject(version=marker, data=None)

    def keys(self, bucket: str) -> list[str]:
        """The keys in a bucket, sorted; none where there is no such bucket."""
        return sorted(key for key, versions in self.buckets.get(bucket, {}).items() if versions[-1].data is not None)

    def data(self, bucket: str, key: str) -> bytes:
        """The current bytes of an object.

        Raises:
            KeyError: there is none.
        """
        data = self.buckets[bucket][key][-1].data
        if data is None:
            raise KeyError(key)
        return data

    def get(self, bucket: str, key: str, version_id: str | None, *, limit: int, deadline: Deadline) -> StoredObject:
        """Fetch this version; the latest where `version_id` is None or no UUID."""
        with self._lock:
            self._begin(Call(method="get", bucket=bucket, key=key, version_id=version_id), deadline)
            found = self._find(bucket, key, version_id if _is_version_id(version_id) else None)
            if found is None:
                raise ObjectGone(f"there is no {bucket!r}/{key!r} of version {version_id!r}")
            self._end("get")
            too_large = found.data is not None and len(found.data) > limit
            return StoredObject(
                version=replace(found.version, key=key),  # the name that was asked for
                data=None if too_large else found.data,
            )

    def put(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        content_type: str,
        content_headers: Mapping[str, str],
        metadata: Mapping[str, str],
        tags: Mapping[str, str],
        deadline: Deadline,
    ) -> bool:
        """Create the object; False where the key has a current version."""
        with self._lock:
            self._begin(Call(method="put", bucket=bucket, key=key), deadline)
            _check_headers(content_headers, metadata, tags)
            self._keys(bucket, writing=True)
            created = self._find(bucket, key, None) is None
            if created:
                self.upload(
                    bucket,
                    key,
                    data,
                    content_type=content_type,
                    content_headers=content_headers,
                    metadata=metadata,
                    tags=tags,
                )
            self._end("put")
            return created

    def copy(
        self, version: ObjectVersion, bucket: str, key: str, *, metadata: Mapping[str, str], deadline: Deadline
    ) -> None:
        """Copy this version's bytes and tags, described as `version` is."""
        with self._lock:
            self._begin(
                Call(method="copy", bucket=version.bucket, key=version.key, version_id=version.version_id), deadline
            )
            _check_headers(version.content_headers, metadata, {})
            found = self._find(version.bucket, version.key, version.version_id or "null")
            if found is None or found.data is None or found.version.etag != version.etag:
                raise ObjectGone(f"{version.bucket!r}/{version.key!r} changed or vanished before its copy")
            self.upload(
                bucket,
                _stored_key(key),
                found.data,
                content_type=version.content_type,
                content_headers=version.content_headers,
                metadata=metadata,
                tags=found.version.tags,
            )
            self._end("copy")

    def delete(self, version: ObjectVersion, *, deadline: Deadline) -> bool:
        """Remove this version, and no other; an older one becomes current again."""
        with self._lock:
            bucket, key, version_id = version.bucket, version.key, version.version_id
            self._begin(Call(method="delete", bucket=bucket, key=key, version_id=version_id), deadline)
            found = self._find(bucket, key, version_id or "null")
            unguarded = version_id not in (None, "null")
            unchanged = found is not None and (found.version.etag, found.version.last_modified) == (
                version.etag,
                version.last_modified,
            )
            if (unguarded or unchanged) and (bucket in self.undeletable or version_id in self.locked):
                raise ObjectRetained(f"{bucket!r}/{key!r} may not be deleted")
            if found is not None and (unguarded or unchanged):
                versions = self.buckets[bucket][found.version.key]
                versions.remove(found)
                if not versions:
                    del self.buckets[bucket][found.version.key]
            self._end("delete")
            return found is None or unguarded or unchanged

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str], *, deadline: Deadline) -> None:
        """Replace the tags of the current version, which are ten at most."""
        with self._lock:
            self._begin(Call(method="set_tags", bucket=bucket, key=key), deadline)
            found = self._find(bucket, key, None)
            if found is None:
                raise ObjectGone(f"there is no {bucket!r}/{key!r}")
            if len(tags) > _MOST_TAGS or any(len(value) > _TAG_LENGTH for value in tags.values()):
                raise StoreUnavailable(f"{len(tags)} tags are too many, or too long")
            versions = self.buckets[bucket][found.version.key]
            versions[versions.index(found)] = replace(found, version=replace(found.version, tags=dict(tags)))
            self._end("set_tags")

    def check(self, bucket: str, *, deadline: Deadline) -> None:
        """Answer, whether there is such a bucket or not."""
        with self._lock:
            self._begin(Call(method="check", bucket=bucket), deadline)
            self._end("check")

    def list_after(self, bucket: str, key: str, *, deadline: Deadline) -> list[ListedObject]:
        """The next objects of the bucket after `key`, at most a thousand; their age is a second for each later
        write.
        """
        with self._lock:
            self._begin(Call(method="list_after", bucket=bucket, key=key), deadline)
            self._keys(bucket)
            now = _EPOCH + timedelta(seconds=self._writes)
            # S3's order is that of the bytes, not of the characters.
            later = sorted((one for one in self.keys(bucket) if one.encode() > key.encode()), key=str.encode)
            self._end("list_after")
            return [
                ListedObject(key=one, age_seconds=(now - self._modified(bucket, one)).total_seconds())
                for one in later[:_KEYS_A_LISTING]
            ]

    def _modified(self, bucket: str, key: str) -> datetime:
        return parsedate_to_datetime(self.buckets[bucket][key][-1].version.last_modified)

    def close(self) -> None:
        """Note that it was called."""
        self.closed = True

    def _begin(self, call: Call, deadline: Deadline) -> None:
        self.closed = False
        self.calls.append(call)
        deadline.remaining()
        if self.on_call is not None:
            self.on_call(call)
        _raise_next(self.failures.before, call.method)

    def _end(self, method: str) -> None:
        _raise_next(self.failures.after, method)

    def _keys(self, bucket: str, *, writing: bool = False) -> dict[str, list[StoredObject]]:
        if writing and self.create_buckets:
            self.buckets.setdefault(bucket, {})
        if bucket not in self.buckets:
            raise StoreUnavailable(f"there is no bucket {bucket!r}")
        return self.buckets[bucket]

    def _find(self, bucket: str, key: str, version_id: str | None) -> StoredObject | None:
        """The version of this id; of `"null"` the one without an id, of None the current one."""
        versions = self._keys(bucket).get(_stored_key(key), [])
        if version_id is None:
            versions = versions[-1:]
        else:
            wanted = None if version_id == "null" else version_id
            versions = [found for found in versions if found.version.version_id == wanted]
        # A delete marker is no object.
        return next((found for found in versions if found.data is not None), None)


def _is_version_id(text: str | None) -> bool:
    """Whether MinIO takes the text for a version id; to others it answers 400."""
    if text == "null":
        return True
    try:
        return text is not None and bool(uuid.UUID(text))
    except ValueError:
        return False


def _stored_key(key: str) -> str:
    """The key by which MinIO stores the object: it drops slashes at the front, and refuses doubled ones elsewhere."""
    stored = key.lstrip("/")
    segments = stored.encode(errors="replace").split(b"/")
    too_long = len(key.encode(errors="replace")) > MAX_KEY_BYTES or any(len(part) > _SEGMENT_BYTES for part in segments)
    if too_long or b"" in segments[:-1] or not stored.strip() or {b".", b".."} & set(segments):
        raise BadKey(f"{key!r:.200} can be no object's key")
    return stored


def _check_headers(content_headers: Mapping[str, str], metadata: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """See that they are not more than MinIO takes; what else it counts with them is not known here."""
    size = sum(len(f"x-amz-meta-{name}") + _sent_bytes(value) for name, value in metadata.items())
    tagging = len(urllib.parse.urlencode(tags, quote_via=urllib.parse.quote))
    others = tagging + sum(len(name) + len(value) for name, value in content_headers.items())
    if size > _METADATA_BYTES or size + others > _HEADER_BYTES:
        raise MetadataTooLarge(f"{size:,} bytes of metadata and {others:,} of others are more than the store takes")


def _sent_bytes(value: str) -> int:
    """The length of a header's value: what is not printable ASCII becomes one encoded word of base64."""
    if value.isascii() and value.isprintable() and "=?" not in value:
        return len(value)
    return len("=?UTF-8?B??=") + 4 * math.ceil(len(value.encode()) / 3)


class MemoryPublisher:
    """The port `Publisher` in memory. Safe to share between threads.

    Args:
        max_bytes: the largest value that it takes.

    Attributes:
        messages: what was published, in order.
        checks: how often `check` was called.
        failures: what shall fail, by the methods' names `publish` and `check`.
        closed: whether `close` was called last.
    """

    def __init__(self, *, max_bytes: int = 1_000_000) -> None:
        self.max_bytes = max_bytes
        self.messages: list[Message] = []
        self.checks = 0
        self.failures = Failures()
        self.closed = False
        self._lock = threading.Lock()
        self._answers = threading.Event()
        self._answers.set()

    def freeze(self) -> None:
        """Answer nobody, as a broker that goes on accepting connections and never says a word."""
        self._answers.clear()

    def thaw(self) -> None:
        """Answer again, also those who wait."""
        self._answers.set()

    def publish(self, message: Message, *, deadline: Deadline) -> None:
        """Append the message to `messages`."""
        self._wait_for_answer(deadline)
        with self._lock:
            self.closed = False
            _raise_next(self.failures.before, "publish")
            if len(message.value) > self.max_bytes:
                raise MessageTooLarge(f"{len(message.value):,} bytes are more than {self.max_bytes:,}")
            self.messages.append(message)
            _raise_next(self.failures.after, "publish")

    def check(self, *, deadline: Deadline) -> None:
        """Count the call."""
        self._wait_for_answer(deadline)
        with self._lock:
            self.closed = False
            self.checks += 1
            _raise_next(self.failures.before, "check")

    def close(self) -> None:
        """Note that it was called."""
        self.closed = True

    def _wait_for_answer(self, deadline: Deadline) -> None:
        if not self._answers.wait(deadline.remaining()):
            raise KafkaUnavailable("Kafka did not answer in time")


class StubPredictor:
    """A predictor without a network: answers with the digits it was given, in turn and then from the start again.

    Given none, it recognises the images of `digit_png`, in any order and from any number of threads.

    Attributes:
        batches: the images of every call, float32 `(N, 28, 28)` in 0..1.
        failures: errors to raise, the first one at the next call.
    """

    def __init__(self, *digits: int) -> None:
        self.digits = digits
        self.batches: list[NDArray[np.float32]] = []
        self.failures: list[Exception] = []
        self._answered = 0
        self._lock = threading.Lock()

    def __call__(self, images: NDArray[np.float32]) -> list[int]:
        """The digits of the images `(N, 28, 28)` or `(N, 784)`."""
        with self._lock:
            batch = images.reshape(-1, 28, 28)
            self.batches.append(batch)
            if self.failures:
                raise self.failures.pop(0)
            if not self.digits:
                return [_nearest(image) for image in batch]
            start = self._answered
            self._answered += len(batch)
            return [self.digits[(start + index) % len(self.digits)] for index in range(len(batch))]


def minio_event(
    bucket: str,
    key: str,
    *,
    version_id: str | None = None,
    event_name: str = "s3:ObjectCreated:Put",
    trace_id: str | None = None,
    size: int = 324,
    etag: str = "5d41402abc4b2a76b9719d911017c592",
    content_type: str = "image/png",
) -> dict[str, Any]:
    """The value of the Kafka record that MinIO (RELEASE.2025-10-15) writes for one object.

    `Key` is plain, the key in the record is query-escaped. An empty object has no `size`, a removed one nothing that
    describes it; `trace_id` is the object's user metadata `Trace-Id`.
    """
    described: dict[str, Any] = {}
    if not event_name.startswith("s3:ObjectRemoved:"):
        trace = {} if trace_id is None else {"X-Amz-Meta-Trace-Id": trace_id}
        described = {
            **({"size": size} if size else {}),
            "eTag": etag,
            "contentType": content_type,
            "userMetadata": {**trace, "content-type": content_type},
        }
    return {
        "EventName": event_name,
        "Key": f"{bucket}/{key}",
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "minio:s3",
                "awsRegion": "",
                "eventTime": "2026-01-01T00:00:00.000Z",
                "eventName": event_name,
                "userIdentity": {"principalId": "minioadmin"},
                "requestParameters": {"principalId": "minioadmin", "region": "", "sourceIPAddress": "127.0.0.1"},
                "responseElements": {
                    "x-amz-id-2": "470a0afc0f6fdbebb6a8e14ece29122784c0656e19563387135a7c8e02feb163",
                    "x-amz-request-id": "18EA44633A2EAFED",
                    "x-minio-deployment-id": "4619e4f8-6f8f-41ae-9ebd-c7973a783648",
                    "x-minio-origin-endpoint": "http://127.0.0.1:9000",
                },
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "Config",
                    "bucket": {
                        "name": bucket,
                        "ownerIdentity": {"principalId": "minioadmin"},
                        "arn": f"arn:aws:s3:::{bucket}",
                    },
                    "object": {
                        "key": urllib.parse.quote_plus(key),
                        **described,
                        **({} if version_id is None else {"versionId": version_id}),
                        "sequencer": "18EA44633A4E02D9",
                    },
                },
                "source": {"host": "127.0.0.1", "port": "", "userAgent": "MinIO (Linux; x86_64) minio-py/7.2.20"},
            }
        ],
    }


_Point = tuple[float, float]


def _arc(centre: _Point, radii: _Point, start: float, end: float) -> list[_Point]:
    """Points on an ellipse, from one angle to another; degrees, clockwise from the right as y points down."""
    steps = 24
    angles = (math.radians(start + (end - start) * step / steps) for step in range(steps + 1))
    return [(centre[0] + radii[0] * math.cos(angle), centre[1] + radii[1] * math.sin(angle)) for angle in angles]


# Each digit's strokes, lines through points, x to the right and y down, in a box 12 wide and 18 high.
_STROKES: tuple[tuple[Sequence[_Point], ...], ...] = (
    (_arc((6, 9), (5, 9), 0, 360),),
    ([(3, 4), (7, 0), (7, 18)],),
    ([*_arc((6, 5), (5, 5), 190, 390), (1, 18), (11, 18)],),
    (_arc((5, 4.5), (5, 4.5), 210, 450), _arc((5, 13.5), (6, 4.5), 270, 510)),
    ([(8, 18), (8, 0), (0, 12), (12, 12)],),
    ([(10, 0), (2, 0), (2, 8), *_arc((5, 12.5), (6, 5.5), 250, 500)],),
    ([*_arc((10, 12.5), (9, 12.5), 270, 180), *_arc((6, 12.5), (5, 5.5), 180, 540)],),
    ([(0, 0), (11, 0), (4, 18)],),
    (_arc((6, 4.5), (4.5, 4.5), 90, 450), _arc((6, 13.5), (5.5, 4.5), 270, 630)),
    (_arc((6, 5.5), (5, 5.5), 0, 360), [(11, 5.5), (10, 18)]),
)
# 16.5 pixels and the pen make 20, the longest side of MNIST's digits.
_SCALE = 16.5 / 18
_PEN = 1.2


def _drawn(strokes: Sequence[Sequence[_Point]], shift: _Point) -> NDArray[np.float64]:
    """Ink in 0..1, `(28, 28)`: full within the pen's radius of a stroke, fading over one pixel."""
    y, x = (np.mgrid[0:28, 0:28] - np.array(shift)[::-1, None, None]) / _SCALE
    distance = np.full((28, 28), np.inf)
    for stroke in strokes:
        for (x0, y0), (x1, y1) in pairwise(stroke):
            dx, dy = x1 - x0, y1 - y0
            along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
            distance = np.minimum(distance, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
    return np.clip(_PEN + 0.5 - distance * _SCALE, 0, 1)


@functools.cache
def _pixels(digit: int) -> NDArray[np.uint8]:
    strokes = _STROKES[digit]
    ink = _drawn(strokes, (8, 5))
    y, x = np.mgrid[0:28, 0:28]
    # MNIST puts the centre of mass in the middle.
    shift = (8 + 13.5 - float((ink * x).sum() / ink.sum()), 5 + 13.5 - float((ink * y).sum() / ink.sum()))
    return np.rint(_drawn(strokes, shift) * 255).astype(np.uint8)


def _nearest(image: NDArray[np.float32]) -> int:
    return int(np.argmin([np.square(image - _pixels(digit) / 255).sum() for digit in range(10)]))


def digit_png(digit: int) -> bytes:
    """A plain picture of the digit in MNIST's convention, always the same: PNG, 28 by 28, 8-bit grey, white on black.

    The digit's box is at most 20 by 20 pixels, its centre of mass in the middle.
    """
    with io.BytesIO() as file:
        Image.fromarray(_pixels(digit)).save(file, format="PNG")
        return file.getvalue()
