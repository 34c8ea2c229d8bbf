"""The objects of a run: uploaded before it, and looked for after it."""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from minio import Minio

from benchmarks.place import DIGIT_BUCKETS, SOURCE_BUCKET, Place
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.testing import digit_png, minio_event

_PNGS = tuple(digit_png(digit) for digit in range(10))
_ETAGS = tuple(hashlib.md5(png, usedforsecurity=False).hexdigest() for png in _PNGS)
_UPLOADS_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Filed:
    """Where an object lies."""

    bucket: str
    etag: str


@dataclass
class Found:
    """All that lies in the store and in the topics at the end, by key.

    Attributes:
        filed: the objects in the digits' buckets.
        left: the keys in the source bucket, of any version.
        results: each record's digit, None where its key is not its event's trace id, or it is no result at all.
    """

    filed: defaultdict[str, list[Filed]] = field(default_factory=lambda: defaultdict(list))
    left: set[str] = field(default_factory=set)
    results: defaultdict[str, list[int | None]] = field(default_factory=lambda: defaultdict(list))


def keys_of(run: str, count: int) -> list[str]:
    """The keys of a run's objects; the digit of number `n` is `n % 10`."""
    return [f"{run}/{number:05d}.png" for number in range(count)]


def upload(client: Minio, keys: Sequence[str]) -> list[bytes]:
    """Upload a digit under each key; give the notifications that MinIO would send, a JSON each."""

    def one(number: int) -> bytes:
        data, key = _PNGS[number % 10], keys[number]
        put = client.put_object(
            bucket_name=SOURCE_BUCKET,
            object_name=key,
            data=io.BytesIO(data),
            length=len(data),
            content_type="image/png",
        )
        return _notification(number, key, put.version_id)

    with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool:
        return list(pool.map(one, range(len(keys))))


def unuploaded(keys: Sequence[str]) -> list[bytes]:
    """The same notifications, about objects that nobody will fetch."""
    return [_notification(number, key, str(uuid.uuid4())) for number, key in enumerate(keys)]


def _notification(number: int, key: str, version_id: str | None) -> bytes:
    etag, size = _ETAGS[number % 10], len(_PNGS[number % 10])
    return json.dumps(minio_event(SOURCE_BUCKET, key, version_id=version_id, etag=etag, size=size)).encode()


def found(place: Place, topics: Iterable[str]) -> Found:
    """Look at everything once."""
    client, all_found = place.client(), Found()
    for bucket in DIGIT_BUCKETS:
        for one in client.list_objects(bucket_name=bucket, recursive=True):
            all_found.filed[str(one.object_name)].append(Filed(bucket=bucket, etag=str(one.etag).strip('"')))
    left = client.list_objects(bucket_name=SOURCE_BUCKET, recursive=True, include_version=place.versioned)
    all_found.left = {str(one.object_name) for one in left}
    for topic in topics:
        for record in read_topic(place.bootstrap_servers, topic, api_version=place.reading_api_version):
            key, digit = announced(record)
            all_found.results[key].append(digit)
    return all_found


def announced(record: Record) -> tuple[str, int | None]:
    """The object that a result is about, and its digit; None where the record's key is not the trace id in it."""
    try:
        event = json.loads(record.value or b"")
        _, _, key = event["subject"].partition("/")
        (digit,) = event["data"]["predictions"]
    except (ValueError, KeyError, TypeError):
        return "", None
    right_key = record.key is not None and record.key.decode(errors="replace") == event.get("trace-id")
    return key, digit if right_key else None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How many objects of a run came to a wrong end.

    Attributes:
        lost: filed nowhere, or without a result, and not in the source any more.
        misfiled: filed under another digit, twice or with other bytes, or announced so.
        left: still in the source.
    """

    lost: int
    misfiled: int
    left: int


def outcome(keys: Sequence[str], all_found: Found) -> Outcome:
    """Compare what should lie where with what was found."""
    filed: Mapping[str, list[Filed]] = all_found.filed
    results: Mapping[str, list[int | None]] = all_found.results
    lost = misfiled = 0
    for number, key in enumerate(keys):
        digit = number % 10
        places, digits = filed.get(key, []), results.get(key, [])
        if not places or not digits:
            lost += key not in all_found.left
        elif places != [Filed(bucket=f"digit-{digit}", etag=_ETAGS[digit])] or set(digits) != {digit}:
            misfiled += 1
    return Outcome(lost=lost, misfiled=misfiled, left=sum(key in all_found.left for key in keys))
