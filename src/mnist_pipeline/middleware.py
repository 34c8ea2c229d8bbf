"""Pure ASGI middleware in front of KServe's decoder: the model gets the bytes as they came, and the headers with them.

KServe 0.21 decodes V1 requests itself, and loses what we need: an empty body (a Kafka tombstone) or a JSON array is a
500, the attributes of a structured CloudEvent are thrown away, a binary one without a content type is guessed at, and
whatever was a CloudEvent gets one as its reply. A content type that it does not know makes it hand the raw bytes on;
so here the headers that it would act upon are renamed, and `original_headers` gives them their names back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mnist_pipeline.errors import BodyTooLarge, Busy, DeadlineExceeded, PipelineError

# A body that is refused is read and thrown away up to this many times the limit, so that the client, still sending,
# sees the answer; beyond, the connection is closed under it.
DRAIN = 8

_RENAMED = b"original-"
# Unknown to KServe (`JSON_HEADERS` in its dataplane), so that it decodes nothing.
_RAW = b"application/vnd.mnist-pipeline.raw"


@dataclass(frozen=True, kw_only=True)
class BodyLimits:
    """What one process takes of its requests' bodies: `each` and `together` in bytes; the seconds that a body waits for
    room where others take all of it; the seconds in which it must have come, once it has begun.
    """

    each: int
    together: int
    wait_seconds: float
    read_seconds: float


class PipelineMiddleware:
    """Limits the bytes of POSTed bodies, keeps KServe from decoding those to the V1 predict path, and from answering
    any with a CloudEvent of its own.

    `on_shutdown` is called once in every process when its server has answered what was in flight.
    """

    def __init__(self, app: ASGIApp, *, limits: BodyLimits, on_shutdown: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._limits = limits
        self._room = _Room(limits.together)
        self._on_shutdown = on_shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, self._watching(receive), send)
        elif scope["type"] == "http" and scope["method"] == "POST":
            await self._post(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits = self._limits
        # Whoever says nothing holds no room.
        first = await receive()
        needed = _room_for(scope, first, limits.each)
        entered = await self._room.enter(needed, limits.wait_seconds)
        try:
            reading = _read(first, receive, limits.each, keep=entered and needed > 0)
            try:
                # Most bodies are there at once, and need no clock.
                body, size = await (asyncio.wait_for(reading, limits.read_seconds) if _is_more(first) else reading)
            except (asyncio.TimeoutError, TimeoutError):
                await _refuse(send, DeadlineExceeded("the body did not come in time"), close=True)
                return
            if size > limits.each:
                error = BodyTooLarge(f"the body is larger than {limits.each:,} bytes")
                await _refuse(send, error, close=size > DRAIN * limits.each)
            elif not entered:
                await _refuse(send, Busy("the bodies of other requests take all the room there is"))
            else:
                await self._app(_undecoded(scope), _replaying(body, receive), send)
        finally:
            if entered:
                self._room.leave(needed)

    def _watching(self, receive: Receive) -> Receive:
        async def watched() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._on_shutdown()
            return message

        return watched


def original_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The request's headers under the names with which they came, lower-case; gRPC metadata pass unchanged."""
    given = headers or {}
    prefix = _RENAMED.decode()
    renamed = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    return {**given, **renamed} if renamed else dict(given)


def _undecoded(scope: Scope) -> Scope:
    """The same request, with the headers renamed by which KServe would decode it."""
    headers = [(_RENAMED + name if name.startswith(b"ce-") else name, value) for name, value in scope["headers"]]
    path: str = scope["path"]
    if path.startswith("/v1/models/") and path.endswith(":predict"):
        headers = [(_RENAMED + name if name == b"content-type" else name, value) for name, value in headers]
        headers.append((b"content-type", _RAW))
    return {**scope, "headers": headers}


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
    """Whether the body goes on; after "http.disconnect" it does not, and the application learns of it by itself."""
    return bool(message.get("more_body", False))


def _room_for(scope: Scope, first: Message, limit: int) -> int:
    """The bytes of room that a request needs: what it says of its body's size, to which the server holds it; one that
    says nothing may be as large as the limit, and of one that is over the limit nothing is kept.
    """
    size = len(first.get("body", b""))
    if _is_more(first):
        headers = dict(scope["headers"])
        length: bytes = headers.get(b"content-length", b"")
        # Where both are given, the chunks count.
        size = int(length) if length.isdigit() and b"transfer-encoding" not in headers else limit
    return size if size <= limit else 0


async def _read(message: Message, receive: Receive, limit: int, *, keep: bool) -> tuple[bytes, int]:
    """The whole body from its first message on, or nothing of it, and its size; one over the limit is not kept, and one
    far over it not read to its end.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if keep and size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
        if not _is_more(message) or size > DRAIN * limit:
            return b"".join(chunks), size
        message = await receive()


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read already as one message, then what comes after."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


async def _refuse(send: Send, error: PipelineError, *, close: bool = False) -> None:
    headers = [(b"content-type", b"application/json"), (b"kne-reason", error.reason.encode())]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps({"detail": str(error)})})
