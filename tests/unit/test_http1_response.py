"""Responses out of the bytes of a connection: whole, cut short, endless, or none at all."""

from __future__ import annotations

import itertools

import pytest

from mnist_pipeline.adapters.http1_response import BadResponse, Response, ResponseReader

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nseven"
LIMIT = 1000


def read(stream: bytes, *, is_head: bool = False, ends: bool = False) -> ResponseReader:
    reader = ResponseReader(is_head=is_head, limit=LIMIT)
    reader.feed(stream)
    if ends:
        reader.end()
    return reader


@pytest.mark.parametrize(
    ("stream", "body"),
    [
        (OK, b"seven"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"seven"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 102 .\r\n\r\n" + OK, b"seven"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nse\r\n3\r\nven\r\n0\r\n\r\n", b"seven"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nseven\r\n0\r\netag: trailer\r\n\r\n", b"seven"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    ],
)
def test_a_response_is_read_and_its_connection_is_of_use_after_it(stream: bytes, body: bytes) -> None:
    reader = read(stream)
    assert reader.response is not None
    assert reader.response.body == body
    assert "etag" not in reader.response.headers
    assert "link" not in reader.response.headers
    assert not reader.is_last


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nseven",
        b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\ncontent-length: 5\r\n\r\nseven",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nseven",
        OK + b"garbage",
        OK + OK,
    ],
)
def test_after_some_responses_the_connection_is_of_no_use(stream: bytes) -> None:
    reader = read(stream)
    assert reader.response is not None
    assert reader.response.body == b"seven"
    assert reader.is_last


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_a_body_without_a_length_ends_with_its_connection(head: bytes) -> None:
    assert read(head + b"seven").response is None
    assert read(head + b"seven", ends=True).response == Response(200, {}, b"seven")


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nseven",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nseven\r\n",
    ],
)
def test_what_breaks_off_is_no_response(stream: bytes) -> None:
    assert read(stream, ends=True).response is None


@pytest.mark.parametrize("headers", [b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b""])
def test_a_head_has_no_body_whatever_it_announces(headers: bytes) -> None:
    reader = read(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n", is_head=True)
    assert reader.response is not None
    assert reader.response.body == b""
    assert not reader.is_last


def test_a_body_that_a_head_may_not_have_is_not_taken_for_the_next_response() -> None:
    assert read(OK, is_head=True).is_last


@pytest.mark.parametrize(
    "stream",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nseven",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nseven",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nseven",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nseven",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nseven",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nseven\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nsevenX",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ],
)
def test_what_is_no_response_is_told(stream: bytes) -> None:
    with pytest.raises(BadResponse):
        read(stream)


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\nx: ", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 100),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_headers_without_an_end_are_not_read_to_it(beginning: bytes, piece: bytes) -> None:
    reader = read(beginning)
    endless = itertools.repeat(piece, 10_000)
    with pytest.raises(BadResponse):
        any(map(reader.feed, endless))


def test_a_thousand_headers_and_long_ones_are_read() -> None:
    many = b"".join(b"x-%d: y\r\n" % number for number in range(1000))
    reader = read(b"HTTP/1.1 200 OK\r\n" + many + b"long: " + b"z" * 50_000 + b"\r\ncontent-length: 0\r\n\r\n")
    assert reader.response is not None
    assert len(reader.response.headers) == 1002


def test_headers_are_utf_8_or_surrogates_without_blanks_around_and_of_two_the_first() -> None:
    reader = read(
        b"HTTP/1.1 200 OK\r\nA:  gr\xc3\xbcn \t\r\nb: gr\xfcn\r\nC: 1\r\nc: 2\r\nD: \x01\r\ncontent-length: 0\r\n\r\n"
    )
    assert reader.response is not None
    assert reader.response.headers == {"a": "grün", "b": "gr\udcfcn", "c": "1", "d": "\x01", "content-length": "0"}


@pytest.mark.parametrize(
    ("head", "length", "is_read"),
    [
        (b"200 OK\r\ncontent-length: %d", LIMIT, True),
        (b"200 OK\r\ncontent-length: %d", LIMIT + 1, False),
        (b"200 OK\r\nx: %d", LIMIT, True),
        (b"200 OK\r\nx: %d", LIMIT + 1, False),
        (b"403 Forbidden\r\ncontent-length: %d", 64 * 1024, True),
        (b"403 Forbidden\r\ncontent-length: %d", 64 * 1024 + 1, False),
    ],
)
def test_a_body_over_its_limit_is_none(head: bytes, length: int, is_read: bool) -> None:
    reader = read(b"HTTP/1.1 " + head % length + b"\r\n\r\n" + b"x" * length, ends=True)
    assert reader.response is not None
    assert reader.response.body == (b"x" * length if is_read else None)
    assert reader.is_last or is_read
