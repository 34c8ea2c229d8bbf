"""Just as much of HTTP/1.1 as the benchmark's own programs speak to each other: kept connections, known lengths."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Message:
    """A request or an answer: its head with the empty line, and its body."""

    head: bytes
    body: bytes

    @property
    def method(self) -> str:
        """Of a request."""
        return self.head.split(b" ", 1)[0].decode()

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.head.split(b" ", 2)[1])


async def read(reader: asyncio.StreamReader) -> Message | None:
    """The next message, None where the other side has closed.

    Raises:
        ValueError: its body comes in chunks.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if _CHUNKED.search(head):
            raise ValueError(f"a body in chunks: {head.decode(errors='replace')}")
        length = _LENGTH.search(head)
        return Message(head=head, body=b"" if length is None else await reader.readexactly(int(length[1])))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
