"""The store's HTTP connections, against servers that misbehave byte by byte, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trustme
from typing_extensions import Self

from mnist_pipeline.adapters import http1_pool
from mnist_pipeline.adapters.http1 import BrokenConnection, Connection, head_of
from mnist_pipeline.adapters.http1_pool import Pool, Times
from mnist_pipeline.adapters.http1_response import BadResponse, Response

pytestmark = pytest.mark.both_loops

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nseven"
LIMIT = 1000
PATIENT = Times(total=20, connect=20, pause=20)
LARGE = bytes(range(256)) * 40_000


# Requests.


def test_the_head_of_a_request_tells_the_length_of_a_body() -> None:
    assert head_of("GET", "/a?b=", {"Host": "h"}, 0) == b"GET /a?b= HTTP/1.1\r\nHost: h\r\n\r\n"
    assert head_of("PUT", "/a", {"a": "ü"}, 0) == "PUT /a HTTP/1.1\r\na: ü\r\nContent-Length: 0\r\n\r\n".encode()
    assert head_of("DELETE", "/a", {}, 7) == b"DELETE /a HTTP/1.1\r\nContent-Length: 7\r\n\r\n"


@pytest.mark.parametrize("text", ["a\r\nb: c", "a\nb: c", "a\rb: c", "a\0", "a\r\n", "\ud800"])
def test_a_header_that_would_be_two_is_not_sent(text: str) -> None:
    for headers in ({"a": text}, {text: "a"}):
        with pytest.raises(ValueError):
            head_of("GET", "/", headers, 0)
    with pytest.raises(ValueError):
        head_of("GET", f"/{text}", {}, 0)


# Connections.

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What a server does with a connection."""


class Server:
    """A server that does with each connection what it was told, with the last ones what it was told last."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self._scripts = scripts
        self._tls = tls
        self._at_work: set[asyncio.Task[None] | None] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.place = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._at_work):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        # The sockets are closed in the event loop's next turn.
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._at_work.add(task := asyncio.current_task())
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        with contextlib.suppress(ConnectionError, EOFError, ssl.SSLError, asyncio.CancelledError):
            await script(reader, writer)
        writer.transport.abort()
        self._at_work.discard(task)


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def says(*answers: bytes) -> Script:
    """Answers one request after the other, waits then until the client is gone."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await head(reader)
            writer.write(answer)
        await reader.read()

    return script


def hangs_up_after(answer: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(answer)
        await writer.drain()
        writer.close()

    return script


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(2, None)
    yield pool
    await pool.close()


async def ask(
    pool: Pool, server: Server, *, method: str = "GET", body: bytes = b"", times: Times = PATIENT, limit: int = LIMIT
) -> Response:
    request = head_of(method, "/", {"Host": server.place}, len(body))
    return await pool.send(server.place, request, body, limit=limit, times=times)


async def test_one_connection_serves_requests_of_all_kinds_in_turn(pool: Pool) -> None:
    described = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nseven\r\n0\r\n\r\n"
    async with Server(says(described, b"HTTP/1.1 204 .\r\n\r\n", chunked, OK)) as server:
        assert (await ask(pool, server, method="HEAD")).body == b""
        assert (await ask(pool, server, method="DELETE")).status == 204
        assert (await ask(pool, server)).body == b"seven"
        assert (await ask(pool, server, method="PUT")).body == b"seven"
        assert server.connections == 1


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_connection_that_ends_before_an_answer_begins_is_broken(pool: Pool, answer: bytes) -> None:
    async with Server(hangs_up_after(answer)) as server:
        with pytest.raises(BrokenConnection) as caught:
            await ask(pool, server)
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert server.connections == 1


async def test_one_that_ends_within_the_answer_is_told_apart_because_the_server_has_done_its_work(pool: Pool) -> None:
    async with Server(hangs_up_after(OK[:-1]), says(OK)) as server:
        with pytest.raises(ConnectionResetError):
            await ask(pool, server)
        assert (await ask(pool, server)).body == b"seven"


async def test_an_answer_may_end_with_its_connection(pool: Pool) -> None:
    async with Server(hangs_up_after(b"HTTP/1.0 200 OK\r\n\r\nseven")) as server:
        for _ in range(2):
            assert (await ask(pool, server)).body == b"seven"
        assert server.connections == 2


@pytest.mark.parametrize("unasked", [b"", b"garbage", OK])
async def test_an_idle_connection_that_the_server_closes_or_speaks_on_is_not_used_again(
    pool: Pool, unasked: bytes
) -> None:
    let_go, gone = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(OK)
        await let_go.wait()
        writer.write(unasked)
        if not unasked:
            writer.write_eof()
        await reader.read()
        gone.set()

    async with Server(script, says(OK)) as server:
        assert (await ask(pool, server)).body == b"seven"
        let_go.set()
        await gone.wait()
        assert (await ask(pool, server)).body == b"seven"
        assert server.connections == 2


async def test_a_connection_that_was_idle_for_long_is_not_used_again(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server(says(OK, OK)) as server:
        await ask(pool, server)
        monkeypatch.setattr(http1_pool, "_IDLE_SECONDS", -1)
        await ask(pool, server)
        assert server.connections == 2


async def test_a_server_that_speaks_first_is_none_of_ours(pool: Pool) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await reader.read()

    async with Server(greet) as server:
        with pytest.raises((BadResponse, BrokenConnection)):
            await ask(pool, server)


async def test_a_large_body_arrives_whole_while_others_have_their_turn(pool: Pool) -> None:
    turns = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await head(reader)
        assert await reader.readexactly(len(LARGE)) == LARGE
        writer.write(OK)
        await reader.read()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Server(script) as server:
        task = asyncio.create_task(others())
        assert (await ask(pool, server, method="PUT", body=LARGE)).body == b"seven"
        task.cancel()
        assert turns > len(LARGE) / 100_000


@pytest.mark.parametrize("status", [413, 200])
async def test_an_answer_that_comes_before_the_body_is_sent_counts_and_ends_its_connection(
    pool: Pool, status: int
) -> None:
    async with Server(says(b"HTTP/1.1 %d .\r\ncontent-length: 0\r\n\r\n" % status)) as server:
        for _ in range(2):
            assert (await ask(pool, server, method="PUT", body=LARGE)).status == status
        assert server.connections == 2


async def test_a_body_that_the_server_does_not_take_is_given_up(pool: Pool) -> None:
    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await head(reader)
        await asyncio.Event().wait()

    async with Server(script) as server:
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await ask(pool, server, method="PUT", body=LARGE, times=Times(total=20, connect=20, pause=0.2))


async def test_a_body_whose_connection_breaks_is_given_up(pool: Pool) -> None:
    async with Server(hangs_up_after(b"")) as server:
        with pytest.raises(BrokenConnection):
            await ask(pool, server, method="PUT", body=LARGE)


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer byte by byte, one every 50 ms."""
    await head(reader)
    for byte in OK:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)
    await reader.read()


@pytest.mark.parametrize(
    ("script", "times"),
    [
        (says(b""), Times(total=20, connect=20, pause=0.1)),
        (says(OK[:20]), Times(total=20, connect=20, pause=0.1)),
        (says(OK[:-1]), Times(total=20, connect=20, pause=0.1)),
        (says(b""), Times(total=0.1, connect=20, pause=20)),
        (trickle, Times(total=0.4, connect=20, pause=20)),
    ],
)
async def test_an_answer_that_does_not_come_or_does_not_end_in_time_is_given_up_with_its_connection(
    pool: Pool, script: Script, times: Times
) -> None:
    async with Server(script, says(OK)) as server:
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await ask(pool, server, times=times)
        assert (await ask(pool, server)).body == b"seven"
        assert server.connections == 2


async def test_a_slow_answer_may_take_longer_than_a_pause(pool: Pool) -> None:
    async with Server(trickle) as server:
        assert (await ask(pool, server, times=Times(total=20, connect=20, pause=1))).body == b"seven"


async def test_who_is_cancelled_takes_the_connection_along_and_gives_the_slot_back(pool: Pool) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await head(reader)
        asked.set()
        await reader.read()
        gone.set()

    async with Server(script, script, script, says(OK, OK)) as server:
        for body in (b"", b"seven", LARGE):
            asked.clear()
            gone.clear()
            task = asyncio.create_task(ask(pool, server, method="PUT", body=body))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone.wait()
        for _ in range(2):
            assert (await ask(pool, server)).body == b"seven"
        assert server.connections == 4


async def test_more_requests_than_connections_wait_for_one_and_not_for_ever(pool: Pool) -> None:
    asked, let_go = asyncio.Semaphore(0), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head(reader)
            asked.release()
            await let_go.wait()
            writer.write(OK)

    async with Server(script) as server:
        busy = [asyncio.create_task(ask(pool, server)) for _ in range(2)]
        for _ in busy:
            await asked.acquire()
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await ask(pool, server, times=Times(total=20, connect=0.1, pause=20))
        waiting = [asyncio.create_task(ask(pool, server)) for _ in range(6)]
        await asyncio.sleep(0)  # until they wait
        waiting[0].cancel()
        let_go.set()
        answers = await asyncio.gather(*busy, *waiting, return_exceptions=True)
        assert [isinstance(answer, Response) for answer in answers] == [True] * 2 + [False] + [True] * 5
        assert server.connections == 2


async def test_the_time_that_a_connection_takes_is_part_of_the_whole(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[float] = []
    exchange = Connection.exchange

    async def noting(connection: Connection, *request: bytes, limit: int, ends_at: float, pause: float) -> Response:
        ends.append(ends_at)
        return await exchange(connection, *request, limit=limit, ends_at=ends_at, pause=pause)

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head(reader)
            await asyncio.sleep(0.05)
            writer.write(OK)

    monkeypatch.setattr(Connection, "exchange", noting)
    async with Server(slowly) as server:
        asking = [asyncio.create_task(ask(pool, server)) for _ in range(6)]
        await asyncio.sleep(0)  # until all have begun, and four of them wait
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*asking)
        assert len(ends) == 6
        assert max(ends) <= began + PATIENT.total


async def test_connections_are_kept_for_each_server_by_itself(pool: Pool) -> None:
    async with Server(says(OK, OK)) as one, Server(says(OK, OK)) as other:
        for server in (one, other, one, other):
            await ask(pool, server)
        assert (one.connections, other.connections) == (1, 1)


async def test_closing_ends_what_is_under_way_and_what_comes_later_is_not_kept() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await head(reader)
        asked.set()
        await reader.read()
        gone.set()

    async with Server(script, says(OK)) as server:
        pool = Pool(2, None)
        task = asyncio.create_task(ask(pool, server))
        await asked.wait()
        await pool.close()
        with pytest.raises(BrokenConnection):
            await task
        await gone.wait()
        assert (await ask(pool, server)).body == b"seven"
        await asyncio.sleep(0)
        assert not pool._open  # noqa: SLF001 - nothing else tells of a connection that was left open


async def test_all_this_holds_under_tls() -> None:
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(ours)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        assert await reader.readexactly(len(LARGE)) == LARGE
        writer.write(OK + b"garbage")
        await reader.read()

    pool = Pool(1, ours)
    early = says(b"HTTP/1.1 413 .\r\ncontent-length: 0\r\n\r\n")
    async with Server(take, early, hangs_up_after(b""), says(OK, OK, b""), tls=theirs) as server:
        assert (await ask(pool, server, method="PUT", body=LARGE)).body == b"seven"
        assert (await ask(pool, server, method="PUT", body=LARGE)).status == 413
        with pytest.raises(BrokenConnection):
            await ask(pool, server)
        for _ in range(2):
            assert (await ask(pool, server)).body == b"seven"
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await ask(pool, server, times=Times(total=20, connect=20, pause=0.1))
        assert server.connections == 4
    await pool.close()
