"""One connection to an HTTP/1.1 server: a request goes out, its response comes back, then the next one may.

Why not aiohttp: with it, and with minio-py's signatures, a PUT, a GET and a DELETE of 300 bytes took 0.58, 0.49 and
0.56 ms of our own CPU, 32 at once on uvloop; with this they take 0.29, 0.19 and 0.26. `python -m benchmarks.store`, in
`tests`, shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableSet
from typing import cast

from mnist_pipeline.adapters.http1_response import BadResponse, Response, ResponseReader

# A body of so many bytes goes out with its head, at once; a larger one piece by piece, so that others have their turn.
_QUICK_BYTES = 256 * 1024
_PIECE_BYTES = 64 * 1024
# Their length is told even where it is 0 (RFC 9110, section 8.6).
_WITH_BODY = ("PUT", "POST")


class BrokenConnection(Exception):
    """The connection ended before a response began, or none could be made; the cause says how."""


def head_of(method: str, target: str, headers: Mapping[str, str], length: int) -> bytes:
    """The head of a request with a body of so many bytes, as it is sent.

    Raises:
        ValueError: something in it has an end of line, behind which it could be read as another header.
    """
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]]
    if length or method in _WITH_BODY:
        lines.append(f"Content-Length: {length}")
    lines += "", ""
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines) - 1 or "\0" in head:
        raise ValueError("no header has an end of line in it")
    return head.encode()


class Connection(asyncio.Protocol):
    """One connection, which is among `connections` while it is open."""

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, connections: MutableSet[Connection]) -> None:
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self.is_open = False
        self.moved_at = self._loop.time()
        """When the last byte came or went, by the event loop's clock."""
        self._reader: ResponseReader | None = None
        self._answered: asyncio.Future[Response]
        self._is_sent = True
        self._can_write = asyncio.Event()
        self._can_write.set()

    async def exchange(self, head: bytes, body: bytes, *, limit: int, ends_at: float, pause: float) -> Response:
        """Send a request, and read its response as `ResponseReader` does; whatever cuts it short ends the connection.

        Args:
            head: as of `head_of`.
            body: all of it.
            limit: so many bytes of the response's body are wanted at most.
            ends_at: when it must be over, by the event loop's clock.
            pause: so many seconds may pass without a byte that moves.

        Raises:
            BrokenConnection: it ended before the response began.
            ConnectionError: it ended within the response.
            BadResponse: the response makes no sense.
            asyncio.TimeoutError: it took too long.
        """
        if not self.is_open:
            raise BrokenConnection from ConnectionResetError()
        self._reader = ResponseReader(is_head=head.startswith(b"HEAD "), limit=limit)
        self._answered = self._loop.create_future()
        self.moved_at = self._loop.time()
        self._ends_at, self._pause = ends_at, pause
        self._timer = self._loop.call_at(self._due(), self._look_at_the_clock)
        try:
            if len(body) <= _QUICK_BYTES:
                self._transport.write(head + body)
            else:
                await self._write_in_pieces(head, body)
            return await self._answered
        except BaseException:
            self._answered.cancel()
            self.close()
            raise
        finally:
            self._timer.cancel()

    def close(self) -> None:
        """End the connection at once, whatever goes on there."""
        if self.is_open:
            self.is_open = False
            self._transport.abort()

    async def _write_in_pieces(self, head: bytes, body: bytes) -> None:
        """Write until all is written, or the response is there."""
        self._is_sent = False
        self._transport.write(head)
        pieces = memoryview(body)
        for start in range(0, len(body), _PIECE_BYTES):
            self._transport.write(pieces[start : start + _PIECE_BYTES])
            await self._can_write.wait()
            await asyncio.sleep(0)
            if self._answered.done():
                return
            self.moved_at = self._loop.time()
        self._is_sent = True

    def _due(self) -> float:
        return min(self._ends_at, self.moved_at + self._pause)

    def _look_at_the_clock(self) -> None:
        """Give up, or look again when it could be time; so a byte that moves costs no timer."""
        if self._due() > self._loop.time():
            self._timer = self._loop.call_at(self._due(), self._look_at_the_clock)
        else:
            self._fail(asyncio.TimeoutError())

    def _fail(self, exc: Exception) -> None:
        self.close()
        self._reader = None
        if not self._answered.done():
            self._answered.set_exception(exc)
        self._can_write.set()

    def _take(self, response: Response, *, is_last: bool) -> None:
        # Of a request that is not all sent the rest would be taken for another one.
        if is_last or not self._is_sent:
            self.close()
            self._can_write.set()
        self._reader = None
        if not self._answered.done():
            self._answered.set_result(response)

    def _end(self, exc: Exception | None) -> None:
        self.close()
        if (reader := self._reader) is None:
            return
        if exc is None:
            reader.end()
        if reader.response is not None:
            self._take(reader.response, is_last=True)
            return
        lost = ConnectionResetError("the server has closed the connection")
        lost.__cause__ = exc
        if reader.status:
            self._fail(lost)
        else:
            broken = BrokenConnection()
            broken.__cause__ = lost
            self._fail(broken)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Read on, or close it where nothing was asked."""
        if (reader := self._reader) is None:
            self.close()
            return
        self.moved_at = self._loop.time()
        try:
            reader.feed(data)
        except BadResponse as exc:
            self._fail(exc)
        else:
            if reader.response is not None:
                self._take(reader.response, is_last=reader.is_last)

    def eof_received(self) -> None:
        """The server ends it."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, by itself or by an error."""
        self._connections.discard(self)
        self._end(exc)

    def pause_writing(self) -> None:
        """What was written is not sent yet."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """Most of it is."""
        self._can_write.set()
