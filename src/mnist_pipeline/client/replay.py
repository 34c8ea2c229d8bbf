"""What was given up is sent down the path again: dead letters of a topic, and objects in the rejected bucket.

It is safe beside live traffic, and more than once: what is already filed is found to be there, and results have the
same ids. Nothing that was given up is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.client import topics
from mnist_pipeline.client.errors import ClientError, KeyTaken
from mnist_pipeline.client.sink import Sink
from mnist_pipeline.pipeline.cloud_events import event_headers
from mnist_pipeline.pipeline.errors import ObjectGone, ObjectTooLarge, PipelineError
from mnist_pipeline.pipeline.filing import PUBLISHED_AS, REJECTED_REASON
from mnist_pipeline.pipeline.ports import Deadline, ObjectVersion
from mnist_pipeline.pipeline.settings import Kafka, Settings

log = logging.getLogger(__name__)

REPLAYED = "replayed"
"""The tag on a rejected object that was sent again, with the time: so that a second run leaves it alone."""

_SECONDS = 60.0
_AT_ONCE = 8
# What Knative adds to a dead letter: its own, and the refusal's `kne-reason`.
_ADDED = ("ce-knativeerror", "ce-reason")


@dataclass(frozen=True, kw_only=True)
class GivenUp:
    """A dead letter or a rejected object: what it is called, why it was given up, and how it is sent again."""

    name: str
    reason: str
    send: Callable[[], Awaitable[None]]


async def dead_letters(kafka: Kafka, sink: Sink, *, since: datetime | None = None) -> AsyncGenerator[GivenUp, None]:
    """The events on a topic of dead letters, to its end as it is now, in the order of their partitions.

    They are CloudEvents in either mode, as a Knative Broker and `mnist-pipeline source --dead-letter-topic` write them;
    any other record is told in the log and left out.

    Raises:
        KafkaUnavailable: Kafka is away, slow, or refuses us or the topic.
    """
    async with contextlib.aclosing(topics.records(kafka, since=since)) as records:
        async for record in records:
            place = f"{record.topic} partition {record.partition} offset {record.offset}"
            headers = event_headers(record.headers)
            if headers is None:
                log.warning("%s is left out: it is no CloudEvent", place)
                continue
            headers = {name: value for name, value in headers.items() if not name.startswith(_ADDED)}
            reason = dict(record.headers).get("ce_reason", b"").decode("latin-1")
            send = partial(_post, sink, record.value or b"", headers)
            yield GivenUp(name=place, reason=reason, send=send)


async def rejected_objects(
    store: MinioObjectStore, settings: Settings, bucket: str, *, again: bool = False
) -> AsyncGenerator[GivenUp, None]:
    """The objects in the rejected bucket, to be uploaded into `bucket` once more; `again`: those also that were.

    Raises:
        StoreUnavailable, DeadlineExceeded: the listing is cut short.
    """
    after = ""
    while page := await store.list_after(settings.rejected_bucket, after, deadline=Deadline(_SECONDS)):
        for one in page:
            with contextlib.suppress(ObjectGone):
                looked_at = await store.get(
                    settings.rejected_bucket, one.key, None, limit=0, deadline=Deadline(_SECONDS)
                )
                version = looked_at.version
                if again or REPLAYED not in version.tags:
                    reason = version.metadata.get(REJECTED_REASON, "")
                    send = partial(_upload, store, settings, version, bucket)
                    yield GivenUp(name=f"{version.bucket}/{version.key}", reason=reason, send=send)
        after = page[-1].key


class Replay:
    """Sends what was given up, a few at once.

    Args:
        rate: at most so many a second; None: as fast as it goes.

    Attributes:
        sent: how many were taken.
        failed: how many were not; the log has a line for each.
    """

    def __init__(self, *, rate: float | None = None) -> None:
        self.sent = 0
        self.failed = 0
        self._pause_seconds = 1 / rate if rate else 0.0
        self._stop = asyncio.Event()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Begin no other."""
        self._stop.set()

    async def run(self, given_up: AsyncIterator[GivenUp], *, reason: str | None = None) -> None:
        """Send all of them, or those that were given up for this reason; what is in hand is finished, whatever ends
        it.
        """
        in_hand: set[asyncio.Task[None]] = set()
        try:
            async for one in given_up:
                if self.stopped:
                    break
                if reason not in (None, one.reason):
                    continue
                in_hand.add(asyncio.create_task(self._send(one)))
                if len(in_hand) == _AT_ONCE:
                    _, in_hand = await asyncio.wait(in_hand, return_when=asyncio.FIRST_COMPLETED)
                if self._pause_seconds:
                    with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                        await asyncio.wait_for(self._stop.wait(), self._pause_seconds)
        finally:
            if in_hand:
                await asyncio.wait(in_hand)

    async def _send(self, one: GivenUp) -> None:
        try:
            await one.send()
        except (ClientError, PipelineError) as exc:
            self.failed += 1
            log.error("%s: %s", ascii(one.name)[1:-1], exc)
        except Exception:
            # A bug of ours; it must neither go unseen nor keep the others from being sent.
            self.failed += 1
            log.exception("%s failed in a way that nobody foresaw", ascii(one.name)[1:-1])
        else:
            self.sent += 1


async def _post(sink: Sink, body: bytes, headers: Mapping[str, str]) -> None:
    await sink.post(body, headers, deadline=Deadline(_SECONDS))


async def _upload(store: MinioObjectStore, settings: Settings, version: ObjectVersion, bucket: str) -> None:
    deadline = Deadline(_SECONDS)
    found = await store.get(
        version.bucket, version.key, version.version_id, limit=settings.max_object_bytes, deadline=deadline
    )
    if found.data is None:
        raise ObjectTooLarge(f"the object is larger than {settings.max_object_bytes:,} bytes (MAX_OBJECT_BYTES)")
    is_new = await store.put(
        bucket,
        version.key,
        found.data,
        content_type=version.content_type,
        content_headers=version.content_headers,
        metadata={name: value for name, value in version.metadata.items() if name != REJECTED_REASON},
        tags={name: value for name, value in version.tags.items() if name not in (REPLAYED, PUBLISHED_AS)},
        deadline=deadline,
    )
    if not is_new:
        raise KeyTaken(f"{bucket}/{version.key} is there already")
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    await store.set_tags(version.bucket, version.key, {**version.tags, REPLAYED: when}, deadline=deadline)
