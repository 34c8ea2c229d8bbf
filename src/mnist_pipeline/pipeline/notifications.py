"""What a store says of its objects: notifications, in whatever envelope they travel, become references to objects.
Pure: nothing is asked or fetched.

Formats of a record: MinIO, AWS S3 ("Event message structure", version 2.x), Ceph RGW and whoever writes the same;
EventBridge ("Object Created"). Envelopes: `Records`, a bare array, one record alone (Knative's CephSource), SNS, SQS,
as their HTTP deliveries, Lambda and Kafka connectors show them, a batch of CloudEvents, and these in each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import unquote, unquote_plus

import orjson

from mnist_pipeline.pipeline.errors import BadEvent, BadKey, NotAllowed, Permanent, without_frames
from mnist_pipeline.pipeline.ports import MAX_KEY_BYTES
from mnist_pipeline.pipeline.setting_values import has_control_characters
from mnist_pipeline.pipeline.settings import Settings

# PutTagging, DeleteTagging, PutRetention and PutLegalHold match `s3:ObjectCreated:*` too, with the old ETag.
_CREATED = frozenset("ObjectCreated:" + how for how in ("Put", "Post", "Copy", "CompleteMultipartUpload"))

# The members by which a JSON object is known to be a record or an envelope of records.
_MEMBERS = frozenset(
    ("Records", "s3", "eventName", "detail-type", "Event", "Message", "Sns", "body", "Body", "Messages", "payload")
)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?")

# S3 in SNS in SQS in an array takes five.
_MOST_ENVELOPES = 8
# Services put one record into an event, or ten; a body could hold hundreds of thousands that are none.
_MOST_RECORDS = 10_000

# Stores of whom it is known that they escape a key, or that they do not.
_ESCAPING = ("minio:", "aws:")
_PLAIN = ("ceph:",)


@dataclass(frozen=True, kw_only=True)
class ObjectRef:
    """An object as a notification names it: the likelier reading of its key, the version where it names one (`"null"`
    too), its ETag without quotes.

    Stores differ in how they escape a key: `other_keys` are the other ways to read it, where they give other names.
    `is_sure`: the store is one of whom it is known, so that the first reading is the right one where its ETag is.
    `created`: when, in seconds since 1970, by the store's clock, where it says so.
    """

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    other_keys: tuple[str, ...] = ()
    is_sure: bool = field(default=False, compare=False)
    created: float | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Records:
    """What a notification holds: objects that were created, records that were refused, and how many others there are;
    of those, how many are a service's test messages.
    """

    objects: tuple[ObjectRef, ...]
    refused: tuple[Permanent, ...]
    ignored: int
    tests: int

    @property
    def are_empty(self) -> bool:
        """Whether there is none."""
        return not (self.objects or self.refused or self.ignored)


def is_notification(payload: object) -> bool:
    """Whether this JSON is meant as one, however bad: a record, an envelope, or an array of JSON objects."""
    match payload:
        case list():
            return any(isinstance(one, dict) or (isinstance(one, str) and one.startswith("{")) for one in payload)
        case {"Records": _}:
            return True
        case {"instances": _}:
            return False
        case dict():
            return not _MEMBERS.isdisjoint(payload)
    return False


def read(payload: object, settings: Settings) -> Records:
    """All records of a notification; one that is bad does not keep the others from being read.

    Raises:
        BadEvent: it is no list of records, or one without end.
    """
    if isinstance(payload, dict) and not isinstance(payload.get("Records", []), list):
        raise BadEvent("Records is not a list")
    objects: list[ObjectRef] = []
    refused: list[Permanent] = []
    ignored = tests = 0
    for number, record in enumerate(_unwrapped(payload)):
        if number == _MOST_RECORDS:
            raise BadEvent(f"the event has more than {_MOST_RECORDS:,} records")
        if _is_test(record):
            tests += 1
        try:
            if (created := _created(record, settings)) is None:
                ignored += 1
            else:
                objects.append(created)
        except Permanent as refusal:
            refused.append(without_frames(refusal))
    return Records(objects=tuple(objects), refused=tuple(refused), ignored=ignored, tests=tests)


def is_output(bucket: str, key: str, settings: Settings) -> bool:
    """Whether an object of this name is one that we filed or rejected: its event must not be handled again."""
    return any(bucket == place.bucket and key.startswith(place.prefix) for place in settings.outputs)


def check_source(bucket: str, key: str, settings: Settings) -> None:
    """See that an object of this name may be touched.

    Raises:
        NotAllowed: its bucket is not one of `SOURCE_BUCKETS`, or it ends in none of `SOURCE_SUFFIXES`.
        BadKey: no object can have this key.
    """
    if bucket not in settings.source_buckets:
        raise NotAllowed(f"bucket {bucket!r:.80} is not one of SOURCE_BUCKETS")
    if not settings.is_wanted(key):
        raise NotAllowed(f"key {key!r:.200} ends in none of SOURCE_SUFFIXES")
    _check_key(key)


def _unwrapped(value: Any, depth: int = 0) -> Iterator[Any]:
    """The records in an envelope, in their order; what is no envelope is taken for one of them."""
    if depth > _MOST_ENVELOPES:
        value = None
    match value:
        case {"s3": _} | {"detail-type": _} | {"Type": "SubscriptionConfirmation" | "UnsubscribeConfirmation"}:
            yield value
        case list(inner) | {"Records": list(inner)} | {"Messages": list(inner)}:
            for one in inner:
                yield from _unwrapped(one, depth + 1)
        case (
            {"Message": text}
            | {"body": text}
            | {"Body": text}
            | {"Sns": text}
            | {"specversion": _, "data": text}
            | {"schema": _, "payload": text}
            | (str() as text)
        ):
            yield from _unwrapped(_parsed(text), depth + 1)
        case _:
            yield value


def _parsed(text: Any) -> Any:
    """What a message's text says; a connector may have parsed it already. What is no JSON is a bad record."""
    try:
        return orjson.loads(text) if isinstance(text, str) else text
    except orjson.JSONDecodeError:
        return None


def _is_test(record: Any) -> bool:
    """Whether it is what S3 or SNS send when they are set up; SNS waits until somebody visits its SubscribeURL."""
    return isinstance(record, dict) and (
        record.get("Event") == "s3:TestEvent" or str(record.get("Type")).endswith("Confirmation")
    )


def _created(record: Any, settings: Settings) -> ObjectRef | None:
    """The object that this record says was created, if it does; the endpoint that some records name is never used."""
    match record:
        case {"eventName": str(name), "s3": {"bucket": {"name": str(bucket)}, "object": {"key": str(key), **more}}}:
            source = record.get("eventSource") or ""
            version_id, etag, time = more.get("versionId"), more.get("eTag"), record.get("eventTime")
            is_created = name.removeprefix("s3:") in _CREATED
        case {
            "detail-type": str(name),
            "detail": {"bucket": {"name": str(bucket)}, "object": {"key": str(key), **more}},
        }:
            source = "ceph:"  # EventBridge does not escape either
            version_id, etag, time = more.get("version-id"), more.get("etag"), record.get("time")
            is_created = name == "Object Created"
        case _ if _is_test(record):
            return None
        case _:
            raise BadEvent("a record lacks its eventName, s3.bucket.name or s3.object.key")
    if not is_created:
        return None
    first, *others = _readings(key, str(source))
    if is_output(bucket, first, settings):
        return None
    check_source(bucket, first, settings)
    return ObjectRef(
        bucket=bucket,
        key=first,
        version_id=str(version_id) if version_id else None,
        etag=etag.strip('"') or None if isinstance(etag, str) else None,
        other_keys=tuple(other for other in others if _may_be_source(bucket, other, settings)),
        is_sure=str(source).startswith((*_ESCAPING, *_PLAIN)),
        created=_seconds(time),
    )


def _seconds(time: object) -> float | None:
    """An ISO 8601 time as seconds since 1970; None where it is none. Services give none to nine digits of a second."""
    if not isinstance(time, str) or (match := _TIME.fullmatch(time)) is None:
        return None
    whole, fraction, zone = match.groups("")
    try:
        moment = datetime.fromisoformat(whole + (zone.replace("Z", "") or "+00:00"))
    except ValueError:
        return None
    return moment.timestamp() + float(f"0{fraction}")


def _readings(key: str, source: str) -> list[str]:
    """The ways to read a key, the likeliest first, those that give the same name once.

    Raises:
        BadKey: it can only be read as no store has written it.
    """
    readings = []
    for decode in (unquote_plus, unquote):
        try:
            readings.append(decode(key, errors="strict"))
        except UnicodeDecodeError as exc:
            # Only a store that does not escape can have such a key.
            if not source or source.startswith(_ESCAPING):
                raise BadKey(f"key {key!r:.200} is not UTF-8 once decoded") from exc
    return list(dict.fromkeys([key, *readings] if source.startswith(_PLAIN) else [*readings, key]))


def _may_be_source(bucket: str, key: str, settings: Settings) -> bool:
    try:
        check_source(bucket, key, settings)
    except Permanent:
        return False
    return not is_output(bucket, key, settings)


def _check_key(key: str) -> None:
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise BadKey(f"the key is longer than {MAX_KEY_BYTES} bytes")
    if has_control_characters(key):
        raise BadKey(f"key {key!r:.200} has control characters")
    if any(segment in (".", "..") for segment in key.split("/")):
        raise BadKey(f"key {key!r:.200} has a segment of dots")
