"""Reads one HTTP/1.1 response out of the bytes of a connection; pure.

https://www.rfc-editor.org/rfc/rfc9112, as far as llhttp has it, and as lenient as aiohttp is with it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

# Of headers. The 2 KB of metadata that S3 takes can be 150 short ones.
_MOST_HEAD_BYTES = 64 * 1024
# Of the body of what is no success: S3's errors are a few hundred bytes, and what is longer is none of them.
_MOST_ERROR_BYTES = 64 * 1024
# Classes of status codes (RFC 9110, section 15); after the first one another response follows.
_INFORMATIONAL = range(100, 200)
_SUCCESSFUL = range(200, 300)


class BadResponse(Exception):
    """What the server sends is not HTTP/1.1, or too long to be any use."""


@dataclass(frozen=True)
class Response:
    """A final response; the names of its headers are in lower case, and a body longer than the limit is None."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class ResponseReader:
    """Takes the bytes as they come; what it has read is in `response` once that is whole.

    Args:
        is_head: the request's method is HEAD, so that there is no body, whatever the headers announce.
        limit: of a success's body at most so many bytes are read, and one piece more.
    """

    def __init__(self, *, is_head: bool, limit: int) -> None:
        self.response: Response | None = None
        self.is_last = False
        """Whether the connection is of no use after it."""
        self.status = 0
        """Of the response; 0 until all of its headers are read."""
        self._is_head = is_head
        self._limit = limit
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        # It gives away the buffer that it has filled: a list of pieces, once joined, would take twice the room.
        self._body = io.BytesIO()
        self._lasts_to_the_end = False
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            BadResponse: this is none.
        """
        if self._parser is None:
            self.is_last = True
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as exc:
            if self.response is None:
                raise BadResponse(str(exc)) from exc
            self.is_last = True
        if not self.status:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES:
                raise BadResponse("there is no end of headers")

    def end(self) -> None:
        """Nothing more will come: the end of a body that has no length."""
        if self._lasts_to_the_end and self.response is None:
            self._complete(self._body.getvalue())

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A second response is one that nobody has asked for."""
        if self.response is not None:
            self.is_last = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep it, unless it follows the body; of two the first."""
        if not self.status:
            text = value.rstrip(b" \t").decode("utf-8", "surrogateescape")
            self._headers.setdefault(name.lower().decode("latin-1"), text)

    def on_headers_complete(self) -> None:
        """Find out what follows."""
        if self._parser is None:
            return
        status, headers = self._parser.get_status_code(), self._headers
        if status in _INFORMATIONAL:
            headers.clear()
            return
        self.status = status
        self.is_last = self._parser.get_http_version() != "1.1" or "close" in headers.get("connection", "").lower()
        if status not in _SUCCESSFUL:
            self._limit = _MOST_ERROR_BYTES
        if self._is_head:
            self._complete(b"")
        elif "transfer-encoding" in headers:
            self._lasts_to_the_end = not headers["transfer-encoding"].lower().endswith("chunked")
        elif "content-length" not in headers:
            self._lasts_to_the_end = True
        elif int(headers["content-length"]) > self._limit:
            self._give_up()

    def on_body(self, piece: bytes) -> None:
        """Keep it up to the limit."""
        if self.response is not None:
            self.is_last = True
            return
        self._body.write(piece)
        if self._body.tell() > self._limit:
            self._give_up()

    def on_message_complete(self) -> None:
        """The response is whole, if it is a final one."""
        if self.status and self.response is None:
            self._complete(self._body.getvalue())

    def _give_up(self) -> None:
        self.is_last = True
        self._complete(None)

    def _complete(self, body: bytes | None) -> None:
        self.response = Response(self.status, self._headers, body)
        self._parser = None  # which holds us too
