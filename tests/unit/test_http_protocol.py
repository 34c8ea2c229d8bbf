"""http_protocol.py: requests that offer an upgrade, over a socket, as any other request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from mnist_pipeline.serving.http_protocol import NoUpgradeProtocol

OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAA",
    "tls": "Connection: Upgrade\r\nUpgrade: TLS/1.2",
    "websocket": "Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "several": "connection: upgrade\r\nupgrade: foo/2, h2c",
}


class Conversation:
    """What the application was asked over one connection, and what came back."""

    def __init__(self, *segments: bytes) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.headers: dict[bytes, bytes] = {}
        self.answer = asyncio.run(self._talk(segments))

    async def _talk(self, segments: Sequence[bytes]) -> bytes:
        config = uvicorn.Config(self._app, interface="asgi3", log_config=None)
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: NoUpgradeProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for segment in segments:
                writer.write(segment)
                await writer.drain()
                await asyncio.sleep(0.002)
            asked = -1
            while asked < len(self.asked):
                asked = len(self.asked)
                await asyncio.sleep(0.02)  # an answer to a request that nobody sent would come now
            answer = await asyncio.wait_for(reader.read(65536), 5)
            writer.close()
        return answer

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.asked.append((f"{scope['method']} {scope['path']}?{scope['query_string'].decode()}", body))
        self.headers = dict(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


def head(offer: str, *lines: str) -> bytes:
    return "\r\n".join(["POST /predict?a=%20b HTTP/1.1", "Host: h", OFFERS[offer], *lines, "", ""]).encode()


BODIES = [b'{"a": 1}', b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n", b"\r\n\r\n", b"x" * 100_000]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("body", BODIES, ids=["json", "like a request", "blank", "large"])
def test_row_39_the_body_of_a_request_that_offers_an_upgrade_arrives_whole(offer: str, body: bytes) -> None:
    first = head(offer, f"Content-Length: {len(body)}")
    in_chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    chunked = head(offer, "Transfer-Encoding: chunked")
    for segments in ([first + body], [first, body], [first[:30], first[30:], body], [chunked + in_chunks]):
        talk = Conversation(*segments)
        assert talk.asked == [("POST /predict?a=%20b", body)]
        assert talk.answer.startswith(b"HTTP/1.1 200 OK")
        assert talk.answer.count(b"HTTP/1.1 ") == 1


def test_row_39_it_does_not_matter_where_the_segments_end() -> None:
    request = head("h2c", "Content-Length: 2") + b"{}"
    assert Conversation(*(bytes([byte]) for byte in request)).asked == [("POST /predict?a=%20b", b"{}")]


def test_row_39_nothing_of_the_offer_is_left_and_all_else_is() -> None:
    talk = Conversation(head("h2c", "Content-Length: 2", "ce-id: 1", "Connection: close") + b"{}")
    assert talk.headers == {b"host": b"h", b"content-length": b"2", b"ce-id": b"1", b"connection": b"close"}
    assert b"connection: close" in talk.answer.lower()


def test_row_39_pipelined_requests_stay_as_many_as_they_are() -> None:
    offered = head("tls", "Content-Length: 2") + b"{}"
    plain = b"POST /plain HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n[1]"
    talk = Conversation(offered + plain + offered * 300 + plain)
    assert [body for _, body in talk.asked] == [b"{}", b"[1]", *[b"{}"] * 300, b"[1]"]


def test_row_39_a_client_that_waits_for_100_continue_is_told_to_go_on() -> None:
    talk = Conversation(head("tls", "Content-Length: 2", "Expect: 100-continue"), b"{}")
    assert talk.answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert [body for _, body in talk.asked] == [b"{}"]


def test_row_39_an_offer_without_a_body_is_a_request_without_a_body() -> None:
    assert Conversation(head("websocket")).asked == [("POST /predict?a=%20b", b"")]


@pytest.mark.parametrize("request_line", [b"CONNECT h:80 HTTP/1.1", b"PRI * HTTP/2.0", b"nonsense"])
def test_what_is_no_request_is_a_400_and_reaches_nobody(request_line: bytes) -> None:
    talk = Conversation(request_line + b"\r\nHost: h\r\n\r\n")
    assert talk.asked == []
    assert talk.answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nkne-reason: badrequest\r\n" in talk.answer
