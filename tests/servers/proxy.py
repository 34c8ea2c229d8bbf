"""A TCP proxy on loopback that injects faults between a client and a server, as toxiproxy does, but in Python alone.

with Proxy(server_port) as proxy:
    client.connect("127.0.0.1", proxy.port)
    proxy.freeze()
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from mnist_pipeline.local.processes import Part

_CHUNK_BYTES = 64 * 1024
# To close with a reset instead of a FIN.
_NO_LINGER = struct.pack("ii", 1, 0)

_Result = TypeVar("_Result")


class Proxy(Part):
    """Passes bytes on to a port of loopback until it is told otherwise; every fault holds for both directions.

    Attributes:
        port: where it listens; it stays the same through `cut` and `heal`.
        accepted: how many connections it has accepted so far.
        answered_bytes: how many bytes of the server's it has passed on so far.
    """

    def __init__(self, to_port: int, *, port: int = 0) -> None:
        self.port = port
        self.accepted = 0
        self.answered_bytes = 0
        self._to_port = to_port
        self._delay_seconds = 0.0
        self._bytes_left: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._flows: asyncio.Event = self._run(self._event())
        self._server: asyncio.Server | None = None
        self._run(self._listen())

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        return len(self._writers) // 2

    def freeze(self) -> None:
        """Hold all bytes: connections are accepted, and nothing is answered. What is held goes on after `heal`."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def cut(self) -> None:
        """Reset every connection, and refuse new ones."""
        self._run(self._refuse())

    def delay(self, seconds: float) -> None:
        """Hold every piece of the server's answers for so long."""
        self._delay_seconds = seconds

    def reset_after(self, answered_bytes: int) -> None:
        """Reset whatever connection is in use once so many more bytes of the server's have passed; once."""
        self._bytes_left = answered_bytes

    def heal(self) -> None:
        """Pass everything on again."""
        self._delay_seconds = 0.0
        self._bytes_left = None
        self._loop.call_soon_threadsafe(self._flows.set)
        if self._server is None:
            self._run(self._listen())

    def close(self) -> None:
        """Reset every connection and stop."""
        if self._loop.is_closed():
            return
        self._run(self._refuse())
        self._run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # The loop's thread

    def _run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _event(self) -> asyncio.Event:
        event = asyncio.Event()
        event.set()
        return event

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._writers):
            _reset(writer)

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            _reset(writer)
            return
        both = {writer, there_writer}
        self._writers |= both
        try:
            await asyncio.gather(
                self._pump(reader, there_writer, answers=False), self._pump(there_reader, writer, answers=True)
            )
        except OSError:
            pass
        finally:
            self._writers -= both
            for one in both:
                _reset(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if answers and self._delay_seconds:
                await asyncio.sleep(self._delay_seconds)
            await self._flows.wait()
            if answers and self._bytes_left is not None:
                data, cut_short = data[: self._bytes_left], len(data) > self._bytes_left
                self._bytes_left -= len(data)
                if cut_short:
                    self._bytes_left = None
                    writer.write(data)
                    await writer.drain()
                    raise ConnectionResetError
            writer.write(data)
            await writer.drain()
            if answers:
                self.answered_bytes += len(data)
        await self._flows.wait()
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    transport_socket: socket.socket | None = writer.get_extra_info("socket")
    if transport_socket is not None and transport_socket.fileno() >= 0:
        transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
