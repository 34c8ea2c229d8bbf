"""Connections to HTTP/1.1 servers, kept for the next request."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import defaultdict, deque
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection

from mnist_pipeline.adapters.http1 import BrokenConnection, Connection
from mnist_pipeline.adapters.http1_response import Response
from mnist_pipeline.adapters.timeouts import timeout_after

_CONNECT_SECONDS = 3.0
# Until an address is tried beside the one that was tried first (RFC 8305, section 5).
_NEXT_ADDRESS_SECONDS = 0.25
# Servers, and what stands before them, close what is idle for long, some without a word.
_IDLE_SECONDS = 15.0


class Times(NamedTuple):
    """The seconds that a request may take: in all, for a connection, and without a byte that moves."""

    total: float
    connect: float
    pause: float


class Pool:
    """For one event loop. Proxies of the environment are not used.

    Args:
        connections: so many may be in use at once; further requests wait for one.
        tls: how to trust the servers; None: they speak plain HTTP.
    """

    def __init__(self, connections: int, tls: ssl.SSLContext | None) -> None:
        self._slots = asyncio.Semaphore(connections)
        self._tls = tls
        self._idle: defaultdict[str, deque[Connection]] = defaultdict(deque)
        self._open: set[Connection] = set()
        self._is_closed = False

    async def send(self, server: str, head: bytes, body: bytes, *, limit: int, times: Times) -> Response:
        """Send one request to a server (`host` or `host:port`), once, and read its response.

        Raises:
            BrokenConnection: no connection could be made.
            asyncio.TimeoutError: none could be made, or was free, in time.
            ValueError: there can be no such server.
            other errors: as `Connection.exchange`.
        """
        ends_at = asyncio.get_running_loop().time() + times.total
        connection = await self._connection(server, times.connect)
        try:
            return await connection.exchange(head, body, limit=limit, ends_at=ends_at, pause=times.pause)
        finally:
            self._slots.release()
            if self._is_closed:
                connection.close()
            elif connection.is_open:
                self._idle[server].append(connection)

    async def close(self) -> None:
        """Close the connections, those in use too."""
        self._is_closed = True
        for connection in self._open:
            connection.close()
        # The event loop closes their sockets in its next turn.
        await asyncio.sleep(0)

    async def _connection(self, server: str, seconds: float) -> Connection:
        """A connection, and a slot for it, which whoever uses it gives back."""
        if not self._slots.locked() and (kept := self._kept(server)):
            await self._slots.acquire()  # at once; so the common way needs no clock
            return kept
        async with timeout_after(seconds):
            await self._slots.acquire()
            try:
                return self._kept(server) or await self._made(server)
            except BaseException:
                self._slots.release()
                raise

    def _kept(self, server: str) -> Connection | None:
        """The one that was used last, if it is not closed or idle for long."""
        idle = self._idle[server]
        since = asyncio.get_running_loop().time() - _IDLE_SECONDS
        while idle and (not idle[0].is_open or idle[0].moved_at < since):
            idle.popleft().close()
        while idle:
            if (connection := idle.pop()).is_open:
                return connection
        return None

    async def _made(self, server: str) -> Connection:
        loop = asyncio.get_running_loop()
        place = urlsplit(f"//{server}")
        host, port = place.hostname, place.port or (443 if self._tls else 80)
        try:
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            async with timeout_after(_CONNECT_SECONDS):
                sock = await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1)
            _, connection = await loop.create_connection(
                lambda: Connection(self._open), sock=sock, ssl=self._tls, server_hostname=host if self._tls else None
            )
        except OSError as exc:
            raise BrokenConnection from exc
        return connection
