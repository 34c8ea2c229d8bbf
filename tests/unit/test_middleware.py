"""middleware.py: what reaches KServe's decoder, and what does not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mnist_pipeline.middleware import DRAIN, PipelineMiddleware, original_headers

PREDICT = "/v1/models/mnist:predict"
LIMIT = 100


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
        asyncio.run(
            PipelineMiddleware(self.app, max_body_bytes=LIMIT, on_shutdown=self.nothing)(scope, self.receive, self.send)
        )

    async def nothing(self) -> None:
        raise AssertionError("nothing is shut down here")

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

        middleware = PipelineMiddleware(app, max_body_bytes=LIMIT, on_shutdown=closed)
        await middleware({"type": "lifespan"}, receive, send)

    asyncio.run(run())
    assert happened == ["lifespan.startup", "closed", "lifespan.shutdown"]


def test_grpc_metadata_and_plain_headers_are_left_as_they_are() -> None:
    assert original_headers({"trace-id": "t"}) == {"trace-id": "t"}
    assert original_headers(None) == {}
