"""bodies.py: which bodies are read, how many at once, and which are refused."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.types import Receive

from mnist_pipeline.serving.bodies import DRAIN, Bodies, BodyLimits, BodyRefused, ClientGone

LIMIT = 100
LIMITS = BodyLimits(each=LIMIT, together=10 * LIMIT, wait_seconds=0.05, read_seconds=5)


def messages(*chunks: bytes) -> list[dict[str, Any]]:
    """What an ASGI server gives of a body that comes in these chunks."""
    pending: list[dict[str, Any]] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    pending[-1]["more_body"] = False
    return pending


class Reading:
    """One body that is read: what came of it, and how many of its messages were taken."""

    def __init__(self, pending: list[dict[str, Any]], *, version: str = "1.1", **headers: str) -> None:
        self.pending = pending
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.scope = {"http_version": version, "headers": pairs}
        self.taken = 0

    async def receive(self) -> Any:
        self.taken += 1
        return self.pending[self.taken - 1]

    def body(self) -> bytes:
        async def read() -> bytes:
            async with Bodies(LIMITS).read(self.scope, self.receive) as body:
                return body

        return asyncio.run(read())

    def refused(self) -> BodyRefused:
        with pytest.raises(BodyRefused) as raised:
            self.body()
        return raised.value


def test_a_body_is_what_its_chunks_are_together() -> None:
    for body in (b"", b"[1]", b'{"a": 1}'):
        assert Reading(messages(body)).body() == body
    assert Reading(messages(b"ab", b"", b"cd")).body() == b"abcd"


def test_row_12_a_body_of_the_limit_passes_and_one_byte_more_is_refused() -> None:
    assert Reading(messages(b"x" * LIMIT)).body() == b"x" * LIMIT
    refused = Reading(messages(b"x" * LIMIT, b"x")).refused()
    assert (refused.error.status, refused.error.reason, refused.close) == (413, "bodytoolarge", False)
    assert "100" in str(refused)


def test_row_12_a_body_over_the_limit_is_read_to_its_end_so_that_the_client_sees_the_answer() -> None:
    reading = Reading(messages(*[b"x" * 50] * 2 * DRAIN))
    assert reading.refused().error.status == 413
    assert reading.taken == 2 * DRAIN


def test_row_12_a_body_far_over_the_limit_is_not_read_to_its_end_and_the_connection_closes() -> None:
    reading = Reading(messages(*[b"x" * 50] * 1000))
    refused = reading.refused()
    assert (refused.error.status, refused.close) == (413, True)
    assert reading.taken <= 2 * DRAIN + 1


@pytest.mark.parametrize("came", [b"", b"x" * 9])
def test_row_39_a_body_that_was_announced_and_did_not_come_is_no_empty_event(came: bytes) -> None:
    refused = Reading(messages(came), content_length="10").refused()
    assert (refused.error.status, refused.error.reason, refused.close) == (400, "bodymissing", True)


@pytest.mark.parametrize("came", [[], [b""], [b"{}"], [b"x" * 50]])
def test_row_39_a_client_that_leaves_in_mid_body_has_sent_nothing(came: list[bytes]) -> None:
    pending = [*messages(*came, b"")[:-1], {"type": "http.disconnect"}]
    with pytest.raises(ClientGone):
        Reading(pending, transfer_encoding="chunked").body()


def test_row_39_http_1_0_has_to_say_how_long_its_body_is() -> None:
    refused = Reading(messages(b""), version="1.0").refused()
    assert (refused.error.status, refused.close) == (411, True)
    assert Reading(messages(b""), version="1.0", content_length="0").body() == b""


@pytest.mark.parametrize(("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_an_encoded_body_is_decoded_within_the_limit(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    assert Reading(messages(encode(b"x" * LIMIT)), content_encoding=encoding).body() == b"x" * LIMIT
    bomb = Reading(messages(encode(b"x" * 50 * LIMIT)), content_encoding=encoding)
    assert bomb.refused().error.status == 413
    unknown = Reading(messages(b"x"), content_encoding="br").refused()
    assert (unknown.error.status, unknown.error.reason) == (400, "malformedbody")


class Crowd:
    """Many requests whose bodies are read at one place; each stays until it is let go."""

    def __init__(self, *, together: int, wait_seconds: float = 5.0) -> None:
        self.bodies = Bodies(replace(LIMITS, together=together, wait_seconds=wait_seconds, read_seconds=0.1))
        self.arrived: list[bytes] = []
        self.leave = asyncio.Semaphore(0)

    async def read(self, receive: Receive, *headers: tuple[bytes, bytes]) -> BodyRefused | None:
        """Read one body, and stay; or give why it was refused."""
        try:
            async with self.bodies.read({"http_version": "1.1", "headers": headers}, receive) as body:
                self.arrived.append(body)
                await self.leave.acquire()
        except BodyRefused as refused:
            return refused
        return None

    def come(self, *chunks: bytes, says_its_length: bool = True) -> asyncio.Task[BodyRefused | None]:
        """Send a request with these chunks."""
        pending = messages(*chunks)
        length = (b"content-length", str(sum(map(len, chunks))).encode())

        async def receive() -> Any:
            return pending.pop(0)

        async def exchange() -> BodyRefused | None:
            refused = await self.read(receive, length if says_its_length else (b"transfer-encoding", b"chunked"))
            assert not pending, "a client that still sends would not see its answer"
            return refused

        return asyncio.create_task(exchange())


async def _a_moment() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_bodies_wait_while_others_take_all_the_room_and_come_in_when_these_leave() -> None:
    async def run() -> None:
        crowd = Crowd(together=2 * LIMIT)
        tasks = [crowd.come(b"x" * 60, b"y" * 40) for _ in range(50)]
        for gone in range(50):
            await _a_moment()
            assert len(crowd.arrived) == min(gone + 2, 50)
            crowd.leave.release()
        assert [await task for task in tasks] == [None] * 50
        assert crowd.arrived == [b"x" * 60 + b"y" * 40] * 50

    asyncio.run(run())


def test_a_small_body_comes_in_where_a_large_one_waits() -> None:
    async def run() -> None:
        crowd = Crowd(together=LIMIT)
        first, large, small = crowd.come(b"a" * 90), crowd.come(b"b" * 20), crowd.come(b"c" * 10)
        await _a_moment()
        assert crowd.arrived == [b"a" * 90, b"c" * 10]
        for _ in range(3):
            crowd.leave.release()
        assert set(await asyncio.gather(first, large, small)) == {None}

    asyncio.run(run())


def test_a_body_that_does_not_say_its_length_takes_room_for_the_largest() -> None:
    async def run() -> None:
        crowd = Crowd(together=LIMIT)
        first, second = crowd.come(b"a", b"b", says_its_length=False), crowd.come(b"c")
        await _a_moment()
        assert crowd.arrived == [b"ab"]
        crowd.leave.release()
        await _a_moment()
        assert crowd.arrived == [b"ab", b"c"]
        crowd.leave.release()
        assert set(await asyncio.gather(first, second)) == {None}

    asyncio.run(run())


def test_a_body_that_is_there_at_once_takes_no_more_room_than_it_needs() -> None:
    async def run() -> None:
        crowd = Crowd(together=LIMIT)
        tasks = [crowd.come(b"a" * 50, says_its_length=False) for _ in range(2)]
        await _a_moment()
        assert len(crowd.arrived) == 2
        for _ in tasks:
            crowd.leave.release()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_silent_clients_hold_no_room_and_slow_ones_not_for_long() -> None:
    async def run() -> None:
        crowd = Crowd(together=LIMIT)
        never = asyncio.Event()

        async def stalled(*chunks: bytes) -> BodyRefused | None:
            pending = messages(*chunks, b"")[:-1]

            async def receive() -> Any:
                if not pending:
                    await never.wait()
                return pending.pop(0)

            return await crowd.read(receive, (b"content-length", b"%d" % LIMIT))

        silent = [asyncio.create_task(stalled()) for _ in range(3)]
        await _a_moment()
        first = crowd.come(b"a")
        await _a_moment()
        assert crowd.arrived == [b"a"]
        crowd.leave.release()
        await first
        slow = asyncio.create_task(stalled(b"b"))
        await _a_moment()
        second = crowd.come(b"c")
        refused = await slow
        assert refused is not None
        assert (refused.error.status, refused.close) == (504, True)
        crowd.leave.release()
        assert await second is None
        for one in silent:
            one.cancel()

    asyncio.run(run())


def test_a_body_over_the_limit_needs_no_room_to_be_refused() -> None:
    async def run() -> None:
        crowd = Crowd(together=LIMIT)
        first = crowd.come(b"a" * LIMIT)
        await _a_moment()
        refused = await asyncio.wait_for(crowd.come(b"b" * LIMIT, b"b"), 1)
        assert refused is not None
        assert refused.error.status == 413
        crowd.leave.release()
        await first

    asyncio.run(run())


def test_a_body_that_finds_no_room_is_read_to_its_end_and_told_to_come_again() -> None:
    async def run() -> None:
        crowd = Crowd(together=LIMIT, wait_seconds=0.05)
        first = crowd.come(b"a" * 50, b"a" * 49)
        await _a_moment()
        refused = await crowd.come(b"b", b"b" * 50, b"b" * 40)
        assert refused is not None
        assert (refused.error.status, refused.close) == (429, False)
        # What it held is free again, and no more than that.
        second, third = crowd.come(b"c"), crowd.come(b"d")
        await _a_moment()
        assert crowd.arrived == [b"a" * 99, b"c"]
        for _ in range(3):
            crowd.leave.release()
        assert set(await asyncio.gather(first, second, third)) == {None}

    asyncio.run(run())


def test_room_is_given_back_by_bodies_too_large_by_clients_that_leave_and_by_what_fails() -> None:
    async def run() -> None:
        bodies = Bodies(LIMITS)

        async def read(last: dict[str, Any]) -> None:
            pending = [*messages(b"x" * 50, b"")[:-1], last]

            async def receive() -> Any:
                return pending.pop(0)

            async with bodies.read({"http_version": "1.1", "headers": []}, receive):
                raise OSError

        for _ in range(50):
            for last in (messages(b"x" * 90)[0], messages(b"x")[0], {"type": "http.disconnect"}):
                with contextlib.suppress(BodyRefused, ClientGone, OSError):
                    await read(last)
        with pytest.raises(OSError):
            await asyncio.wait_for(read(messages(b"x")[0]), 1)

    asyncio.run(run())
