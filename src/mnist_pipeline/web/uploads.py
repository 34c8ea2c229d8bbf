"""A browser's upload becomes an object in the source bucket, as any user's file does."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any, Protocol

from mnist_pipeline.client.client import Submission
from mnist_pipeline.pipeline import notifications
from mnist_pipeline.pipeline.errors import BadKey, BodyTooLarge, NotAllowed
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.web.live import Live

_AT_ONCE = 16
_SECONDS = 60.0


class Sender(Protocol):
    """What sends an object on: `AsyncPredictionClient`."""

    async def upload(self, data: bytes, *, key: str, bucket: str | None = None, timeout: float = 60.0) -> Submission:
        """Upload an object under a trace id of its own."""
        ...


class Uploads:
    """Takes uploads, a few at once; for one event loop."""

    def __init__(self, settings: Settings, sender: Sender, live: Live) -> None:
        self._settings = settings
        self._sender = sender
        self._live = live
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def take(self, name: str | None, body: AsyncIterator[bytes], *, announced: int = 0) -> dict[str, Any]:
        """Upload it, and give its trace id and place.

        Args:
            name: its key; None: a drawing, which gets a name that no other has.
            body: its bytes, as they come.
            announced: how many they are said to be; 0: that is not known.

        Raises:
            BodyTooLarge: they are more than `MAX_OBJECT_BYTES`, which the transformer would reject.
            KeyTaken: an object of this name is there already.
            NotAllowed, BadKey: no object of this name is taken.
            StoreUnavailable, DeadlineExceeded: the store is away, slow or refuses us.
            TimeoutError: the body does not come to its end.
        """
        self._check_length(announced)
        bucket, key = self._settings.source_buckets[0], name or self._name()
        notifications.check_source(bucket, key, self._settings)
        if "" in key.split("/"):
            # MinIO would store it under another name, or refuse it.
            raise BadKey(f"{key!r:.200} has a segment without a name")
        if notifications.is_output(bucket, key, self._settings):
            raise NotAllowed(f"{key!r:.200} lies where objects are filed: it would not be taken")
        async with self._slots:
            data = await asyncio.wait_for(self._read(body), _SECONDS)
            sent = await self._sender.upload(data, key=key, bucket=bucket, timeout=_SECONDS)
        step = self._live.journeys.uploaded(sent.trace_id, sent.place, at=sent.time.timestamp() * 1000)
        self._live.take(step)
        return {"trace_id": sent.trace_id, "place": sent.place}

    async def _read(self, body: AsyncIterator[bytes]) -> bytes:
        data = bytearray()
        async for chunk in body:
            data += chunk
            self._check_length(len(data))
        return bytes(data)

    def _check_length(self, length: int) -> None:
        if length > (most := self._settings.max_object_bytes):
            raise BodyTooLarge(f"it is larger than {most:,} bytes (MAX_OBJECT_BYTES)")

    def _name(self) -> str:
        return f"drawn-{secrets.token_hex(6)}{self._settings.source_suffixes[0]}"
