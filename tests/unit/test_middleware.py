"""middleware.py: what reaches KServe's decoder, and what does not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mnist_pipeline.middleware import DRAIN, BodyLimits, PipelineMiddleware, original_headers

PREDICT = "/v1/models/mnist:predict"
LIMIT = 100
LIMITS = BodyLimits(each=LIMIT, together=10 * LIMIT, wait_seconds=0.05, read_seconds=5)


async def nothing() -> None:
    """What there is to do at a shutdown."""


class Exchange:
    """One request through the middleware: what the application got, and what the client was sent."""

    def __init__(
        self, chunks: list[bytes], *, path: str = PREDICT, method: str = "POST", headers: dict[str, str] | None = None
    ) -> None:
        self.chunks = chunks
        self.read = 0
        self.headers: dict[str, str] | None = None
        self.body: bytes | None = None
        self.sent: list[dict[str, Any]] = []
        pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        scope = {"type": "http", "method": method, "path": path, "headers": pairs}
        asyncio.run(PipelineMiddleware(self.app, limits=LIMITS, on_shutdown=nothing)(scope, self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        if self.read == len(self.chunks):
            return {"type": "http.disconnect"}
        self.read += 1
        return {"type": "http.request", "body": self.chunks[self.read - 1], "more_body": self.read < len(self.chunks)}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        del send
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        message = await receive()
        assert not message["more_body"]
        self.body = message["body"]
        assert (await receive())["type"] == "http.disconnect"


def test_the_model_gets_the_bytes_as_they_came_whatever_kserve_would_make_of_them() -> None:
    for body in (b"", b"[1]", b'{"a": 1}'):
        assert Exchange([body]).body == body
    assert Exchange([b"ab", b"", b"cd"]).body == b"abcd"


def test_row_10_no_header_is_left_by_which_kserve_would_decode_or_answer_with_a_cloudevent() -> None:
    given = {"content-type": "application/json", "ce-id": "1", "ce-specversion": "1.0", "host": "h", "traceparent": "t"}
    headers = Exchange([b"{}"], headers=given).headers
    assert headers is not None
    assert not [name for name in headers if name.startswith("ce-")]
    assert headers["content-type"] not in ("application/json", "application/octet-stream")
    assert original_headers(headers) == {**headers, **given}


def test_an_event_without_a_content_type_has_none_afterwards_either() -> None:
    headers = Exchange([b"{}"], headers={"ce-id": "1"}).headers
    assert headers is not None
    assert "original-content-type" not in headers


@pytest.mark.parametrize("path", ["/v2/models/mnist/infer", "/v1/models/mnist:explain", "/v2/repository/models/m/load"])
def test_other_paths_keep_their_headers(path: str) -> None:
    exchange = Exchange([b"{}"], path=path, headers={"content-type": "application/json", "host": "h"})
    assert exchange.headers == {"content-type": "application/json", "host": "h"}


def test_on_no_path_does_kserve_see_a_cloudevent_that_it_would_answer_with_its_own() -> None:
    exchange = Exchange([b"{}"], path="/v2/models/mnist/infer", headers={"content-type": "a/b", "ce-id": "1"})
    assert exchange.headers == {"content-type": "a/b", "original-ce-id": "1"}
    assert original_headers(exchange.headers)["ce-id"] == "1"


@pytest.mark.parametrize("path", [PREDICT, "/v2/models/mnist/infer"])
def test_row_12_a_body_of_the_limit_passes_and_one_byte_more_is_refused(path: str) -> None:
    assert Exchange([b"x" * LIMIT], path=path).body == b"x" * LIMIT
    exchange = Exchange([b"x" * LIMIT, b"x"], path=path)
    assert exchange.body is None
    start, body = exchange.sent
    assert start["status"] == 413
    assert (b"kne-reason", b"bodytoolarge") in start["headers"]
    assert (b"connection", b"close") not in start["headers"]
    assert "100" in json.loads(body["body"])["detail"]


def test_row_12_a_body_over_the_limit_is_read_to_its_end_so_that_the_client_sees_the_answer() -> None:
    exchange = Exchange([b"x" * 50] * 2 * DRAIN)
    assert exchange.read == 2 * DRAIN
    assert exchange.sent[0]["status"] == 413


def test_row_12_a_body_far_over_the_limit_is_not_read_to_its_end_and_the_connection_closes() -> None:
    exchange = Exchange([b"x" * 50] * 1000)
    assert exchange.read <= 2 * DRAIN + 1
    assert exchange.sent[0]["status"] == 413
    assert (b"connection", b"close") in exchange.sent[0]["headers"]


def test_a_get_is_passed_on_untouched() -> None:
    exchange = Exchange([b"x" * 2 * LIMIT], method="GET", headers={"ce-id": "1"})
    assert exchange.body == b"x" * 2 * LIMIT
    assert exchange.headers == {"ce-id": "1"}


def test_the_clients_are_closed_once_the_server_has_shut_down() -> None:
    happened: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, send
        happened.append((await receive())["type"])
        happened.append((await receive())["type"])

    async def closed() -> None:
        happened.append("closed")

    async def run() -> None:
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            raise AssertionError(message)

        middleware = PipelineMiddleware(app, limits=LIMITS, on_shutdown=closed)
        await middleware({"type": "lifespan"}, receive, send)

    asyncio.run(run())
    assert happened == ["lifespan.startup", "closed", "lifespan.shutdown"]


def test_grpc_metadata_and_plain_headers_are_left_as_they_are() -> None:
    assert original_headers({"trace-id": "t"}) == {"trace-id": "t"}
    assert original_headers(None) == {}


class Crowd:
    """Many requests at one middleware; each stays with the application until it is let go."""

    def __init__(self, *, together: int, wait_seconds: float = 5.0) -> None:
        self.limits = BodyLimits(each=LIMIT, together=together, wait_seconds=wait_seconds, read_seconds=0.1)
        self.middleware = PipelineMiddleware(self.app, limits=self.limits, on_shutdown=nothing)
        self.arrived: list[bytes] = []
        self.leave = asyncio.Semaphore(0)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        del scope
        self.arrived.append((await receive())["body"])
        await self.leave.acquire()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def come(self, *chunks: bytes, says_its_length: bool = True) -> asyncio.Task[tuple[int, dict[bytes, bytes]]]:
        """Send a request with these chunks; its answer's status and headers."""

        async def exchange() -> tuple[int, dict[bytes, bytes]]:
            length = (b"content-length", str(sum(map(len, chunks))).encode())
            headers = [length] if says_its_length else [length, (b"transfer-encoding", b"chunked")]
            pending = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
            pending[-1]["more_body"] = False
            sent: list[dict[str, Any]] = []

            async def receive() -> Any:
                return pending.pop(0)

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": PREDICT, "headers": headers}
            await self.middleware(scope, receive, send)
            assert not pending, "a client that still sends would not see its answer"
            return sent[0]["status"], dict(sent[0]["headers"])

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
        answers = [await task for task in tasks]
        assert answers == [(200, {})] * 50
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
        assert [status for status, _ in await asyncio.gather(first, large, small)] == [200, 200, 200]

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
        assert [status for status, _ in await asyncio.gather(first, second)] == [200, 200]

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
        sent: list[dict[str, Any]] = []

        async def stalled(*chunks: bytes) -> None:
            pending = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]

            async def receive() -> Any:
                if not pending:
                    await never.wait()
                return pending.pop(0)

            async def send(message: Any) -> None:
                sent.append(message)

            headers = [(b"content-length", b"%d" % LIMIT)]
            await crowd.middleware(
                {"type": "http", "method": "POST", "path": PREDICT, "headers": headers}, receive, send
            )

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
        await slow
        assert sent[0]["status"] == 504
        assert (b"connection", b"close") in sent[0]["headers"]
        crowd.leave.release()
        assert (await second)[0] == 200
        for one in silent:
            one.cancel()

    asyncio.run(run())


def test_a_body_over_the_limit_needs_no_room_to_be_refused() -> None:
    async def run() -> None:
        crowd = Crowd(together=LIMIT)
        first = crowd.come(b"a" * LIMIT)
        await _a_moment()
        status, _ = await asyncio.wait_for(crowd.come(b"b" * LIMIT, b"b"), 1)
        assert status == 413
        crowd.leave.release()
        await first

    asyncio.run(run())


def test_a_body_that_finds_no_room_is_read_to_its_end_and_told_to_come_again() -> None:
    async def run() -> None:
        crowd = Crowd(together=LIMIT, wait_seconds=0.05)
        first = crowd.come(b"a" * 50, b"a" * 49)
        await _a_moment()
        assert await crowd.come(b"b", b"b" * 50, b"b" * 40) == (
            429,
            {b"content-type": b"application/json", b"kne-reason": b"busy"},
        )
        # What it held is free again, and no more than that.
        second, third = crowd.come(b"c"), crowd.come(b"d")
        await _a_moment()
        assert crowd.arrived == [b"a" * 99, b"c"]
        for _ in range(3):
            crowd.leave.release()
        assert [status for status, _ in await asyncio.gather(first, second, third)] == [200, 200, 200]

    asyncio.run(run())


def test_room_is_given_back_by_bodies_too_large_by_clients_that_leave_and_by_applications_that_fail() -> None:
    async def run() -> None:
        async def failing(*_: Any) -> None:
            raise OSError

        middleware = PipelineMiddleware(failing, limits=LIMITS, on_shutdown=nothing)
        answered: list[int] = []

        async def send(message: Any) -> None:
            answered.append(message.get("status"))

        for _ in range(50):
            for last in ({"type": "http.request", "body": b"x" * 90}, {"type": "http.disconnect"}):
                messages = iter([{"type": "http.request", "body": b"x" * 90, "more_body": True}, last])

                async def receive(messages: Any = messages) -> Any:
                    return next(messages)

                try:
                    await middleware({"type": "http", "method": "POST", "path": PREDICT, "headers": []}, receive, send)
                except OSError:
                    answered.append(0)
        assert set(answered) == {413, None, 0}

    asyncio.run(run())
