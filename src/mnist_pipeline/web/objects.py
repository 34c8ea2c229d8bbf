"""The objects that the page may show: those of the site's places, and no others."""

from __future__ import annotations

import asyncio
from typing import Any

from numpy.typing import NDArray

from mnist_pipeline.pipeline import content_encoding, notifications
from mnist_pipeline.pipeline.decoding import Decoder
from mnist_pipeline.pipeline.errors import ObjectTooLarge, Permanent
from mnist_pipeline.pipeline.ports import Deadline, ObjectStore, StoredObject
from mnist_pipeline.pipeline.settings import Settings

_SECONDS = 20.0
_AT_ONCE = 8

# By a file's first bytes, whatever its name and its content type say: nothing else may be shown, or run, in a browser.
_PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


class NotShown(Exception):
    """It is none of the site's objects; the text says so to whoever asked."""


class Objects:
    """Fetches objects, a few at once; for one event loop."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self._settings = settings
        self._store = store
        self._decoder = Decoder(settings)
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def fetch(self, place: str, *, limit: int | None = None) -> StoredObject:
        """The current version of an object; without its bytes, where they are more than the limit.

        Args:
            place: `bucket/key`.
            limit: bytes; None: what an object may have.

        Raises:
            NotShown: it is in none of the site's places.
            ObjectGone: there is no such object.
            BadKey: none can have this key.
            StoreUnavailable, DeadlineExceeded: the store is away, slow or refuses us.
        """
        bucket, key = self._checked(place)
        most = self._settings.max_object_bytes if limit is None else limit
        async with self._slots:
            return await self._store.get(bucket, key, None, limit=most, deadline=Deadline(_SECONDS))

    async def content(self, place: str) -> bytes:
        """Its bytes without their content encoding.

        Raises:
            ObjectTooLarge: they are more than an object may have.
            BadImage: they cannot be decoded.
            NotShown, ObjectGone, StoreUnavailable, …: as `fetch`.
        """
        stored = await self.fetch(place)
        data, limit = _data_of(stored), self._settings.max_object_bytes
        encoding = stored.version.content_headers.get("content-encoding", "")
        if not encoding:
            return data
        return await asyncio.to_thread(content_encoding.decoded, data, encoding, limit=limit)

    async def tensor(self, place: str) -> NDArray[Any]:
        """What the predictor is asked with about it.

        Raises:
            Permanent: it can never be one.
            Retryable: the task failed in a way of its own.
            NotShown, ObjectGone, StoreUnavailable, …: as `fetch`.
        """
        stored = await self.fetch(place)
        encoding = stored.version.content_headers.get("content-encoding", "")
        return await self._decoder.decode(_data_of(stored), Deadline(_SECONDS), encoding=encoding)

    def close(self) -> None:
        """End the threads that decode."""
        self._decoder.close()

    def _checked(self, place: str) -> tuple[str, str]:
        bucket, _, key = place.partition("/")
        # No key of ours has such segments, and stores on file systems follow them.
        if {"", ".", ".."} & {*key.split("/")}:
            raise NotShown(f"{place!r:.200} is no bucket and key")
        if not notifications.is_output(bucket, key, self._settings):
            try:
                notifications.check_source(bucket, key, self._settings)
            except Permanent as exc:
                raise NotShown(f"{place!r:.200} is in none of the places of {self._settings.task.name}") from exc
        return bucket, key


def picture_type(data: bytes) -> str | None:
    """The content type of what a browser may show; None of anything else."""
    return next((kind for signature, kind in _PICTURES.items() if data.startswith(signature)), None)


def _data_of(stored: StoredObject) -> bytes:
    if stored.data is None:
        raise ObjectTooLarge("the object is larger than MAX_OBJECT_BYTES")
    return stored.data
