"""The bodies of HTTP requests: read whole or not at all, each and all together within their bounds, and decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.types import Message, Receive, Scope

from mnist_pipeline.pipeline import content_encoding
from mnist_pipeline.pipeline.errors import (
    BadImage,
    BodyMissing,
    BodyTooLarge,
    Busy,
    DeadlineExceeded,
    LengthRequired,
    MalformedBody,
    ObjectTooLarge,
    PipelineError,
)

# A body that is refused is read and thrown away up to this many times the limit, so that the client, still sending,
# sees the answer; beyond, the connection is closed under it.
DRAIN = 8


@dataclass(frozen=True, kw_only=True)
class BodyLimits:
    """What one process takes of its requests' bodies: `each` and `together` in bytes; the seconds that a body waits for
    room where others take all of it; the seconds in which it must have come, once it has begun.
    """

    each: int
    together: int
    wait_seconds: float
    read_seconds: float


class BodyRefused(Exception):
    """A body that is not taken, and why; `close`: its rest is not read, so the connection cannot be used again."""

    def __init__(self, error: PipelineError, *, close: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.close = close


class ClientGone(Exception):
    """The client left before its body was there; nobody waits for an answer."""


class Bodies:
    """Reads the bodies of one process's requests."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._room = _Room(limits.together)

    @asynccontextmanager
    async def read(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """The whole body, which has its room as long as the block lasts.

        Raises:
            BodyRefused: it is too large, too slow, shorter than announced, encoded in a way that is not known, or there
                is no room for it.
            ClientGone: it was cut short.
        """
        limits, headers = self._limits, dict(scope["headers"])
        announced: bytes | None = None if b"transfer-encoding" in headers else headers.get(b"content-length")
        if scope["http_version"] == "1.0" and announced is None:
            # Whatever it sends is not to be told from the next request.
            raise BodyRefused(LengthRequired("HTTP/1.0 needs a Content-Length"), close=True)
        codings: list[bytes] = [value for name, value in scope["headers"] if name == b"content-encoding"]
        encoding = b",".join(codings).decode("latin-1")
        # Whoever says nothing holds no room.
        first = await receive()
        # Decoded, a small body may be as large as any.
        needed = limits.each if encoding else _room_for(first, announced, limits.each)
        entered = await self._room.enter(needed, limits.wait_seconds)
        try:
            reading = _read(first, receive, limits.each, keep=entered and needed > 0)
            try:
                # Most bodies are there at once, and need no clock.
                body, size = await (asyncio.wait_for(reading, limits.read_seconds) if _is_more(first) else reading)
            except (asyncio.TimeoutError, TimeoutError) as exc:
                raise BodyRefused(DeadlineExceeded("the body did not come in time"), close=True) from exc
            if size > limits.each:
                error = BodyTooLarge(f"the body is larger than {limits.each:,} bytes")
                raise BodyRefused(error, close=size > DRAIN * limits.each)
            if not entered:
                raise BodyRefused(Busy("the bodies of other requests take all the room there is"))
            if announced is not None and size != int(announced):
                raise BodyRefused(BodyMissing(f"{size:,} bytes came of the {int(announced):,} announced"), close=True)
            yield await asyncio.to_thread(_decoded, body, encoding, limits.each) if encoding else body
        finally:
            if entered:
                self._room.leave(needed)


def _decoded(body: bytes, encoding: str, limit: int) -> bytes:
    try:
        return content_encoding.decoded(body, encoding, limit=limit)
    except ObjectTooLarge as exc:
        raise BodyRefused(BodyTooLarge(str(exc))) from exc
    except BadImage as exc:
        raise BodyRefused(MalformedBody(str(exc))) from exc


class _Room:
    """Bytes that the bodies in hand may take together."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._freed = asyncio.Event()

    async def enter(self, size: int, wait_seconds: float) -> bool:
        """Take so many bytes; False: others held on to them for so long."""
        if size <= self._free:
            self._free -= size
            return True
        try:
            await asyncio.wait_for(self._enter_later(size), wait_seconds)
        except (asyncio.TimeoutError, TimeoutError):
            return False
        return True

    async def _enter_later(self, size: int) -> None:
        while size > self._free:
            self._freed.clear()
            await self._freed.wait()
        self._free -= size

    def leave(self, size: int) -> None:
        """Give so many bytes back."""
        self._free += size
        self._freed.set()


def _is_more(message: Message) -> bool:
    return bool(message.get("more_body", False))


def _room_for(first: Message, announced: bytes | None, limit: int) -> int:
    """The bytes of room that a request needs: what it says of its body's size, to which the server holds it; one that
    says nothing may be as large as the limit, and of one that is over the limit nothing is kept.
    """
    size = len(first.get("body", b""))
    if _is_more(first):
        size = limit if announced is None else int(announced)
    return size if size <= limit else 0


async def _read(message: Message, receive: Receive, limit: int, *, keep: bool) -> tuple[bytes, int]:
    """The whole body from its first message on, or nothing of it, and its size; one over the limit is not kept, and one
    far over it not read to its end.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if keep and size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
        if not _is_more(message) or size > DRAIN * limit:
            return b"".join(chunks), size
        message = await receive()
