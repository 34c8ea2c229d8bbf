"""Pure ASGI middleware in front of KServe's decoder: the model gets the bytes as they came, and the headers with them.

KServe 0.21 decodes V1 requests itself, and loses what we need: an empty body (a Kafka tombstone) or a JSON array is a
500, the attributes of a structured CloudEvent are thrown away, a binary one without a content type is guessed at, and
whatever was a CloudEvent gets one as its reply. A content type that it does not know makes it hand the raw bytes on;
so here the headers that it would act upon are renamed, and `original_headers` gives them their names back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mnist_pipeline.errors import BodyTooLarge

# A body over the limit is read and thrown away up to this many times the limit, so that the client, still sending,
# sees the answer; beyond, the connection is closed under it.
DRAIN = 8

_RENAMED = b"original-"
# Unknown to KServe (`JSON_HEADERS` in its dataplane), so that it decodes nothing.
_RAW = b"application/vnd.mnist-pipeline.raw"


class PipelineMiddleware:
    """Limits the size of every POSTed body, keeps KServe from decoding those to the V1 predict path, and from answering
    any with a CloudEvent of its own.

    `on_shutdown` is called once in every process when its server has answered what was in flight.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, on_shutdown: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._limit = max_body_bytes
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
        body, size = await _read(receive, self._limit)
        if body is None:
            await _refuse(send, self._limit, close=size > DRAIN * self._limit)
            return
        path: str = scope["path"]
        headers = [(_RENAMED + name if name.startswith(b"ce-") else name, value) for name, value in scope["headers"]]
        if path.startswith("/v1/models/") and path.endswith(":predict"):
            headers = [(_RENAMED + name if name == b"content-type" else name, value) for name, value in headers]
            headers.append((b"content-type", _RAW))
        await self._app({**scope, "headers": headers}, _replaying(body, receive), send)

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


async def _read(receive: Receive, limit: int) -> tuple[bytes | None, int]:
    """The whole body and its size; None for one over the limit, once it is drained or found to be far too large."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(chunks), size  # the client went away: the application learns of it by itself
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
        if size > DRAIN * limit or not message.get("more_body", False):
            return (b"".join(chunks) if size <= limit else None), size


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read already as one message, then what comes after."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


async def _refuse(send: Send, limit: int, *, close: bool) -> None:
    error = BodyTooLarge(f"the body is larger than {limit:,} bytes")
    headers = [(b"content-type", b"application/json"), (b"kne-reason", error.reason.encode())]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps({"detail": str(error)})})
