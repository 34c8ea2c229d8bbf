"""What tests of bad input see of a transformer's process: answers as they are sent, counters, log and memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from e2e.metrics import counted
from e2e.places import Place
from e2e.ways import ConsumeProcess, Way
from mnist_pipeline.local.servers import ModelServer
from required import missing
from servers.proxy import Proxy

PREDICT = "/v1/models/mnist:predict"


@dataclass(frozen=True)
class Sent:
    """A response as it was sent: header names in the case that they had."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def reason(self) -> str | None:
        """The value of `kne-reason`, spelt just so."""
        return dict(self.headers).get("kne-reason")


def exchange(
    server: ModelServer,
    body: bytes | Iterable[bytes] = b"",
    headers: Mapping[str, str | bytes] | None = None,
    *,
    method: str = "POST",
    path: str = PREDICT,
    content_length: bool = True,
) -> Sent:
    """One request with these headers and no other but Host and Content-Length; of several parts, a chunked one."""
    connection = HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if not isinstance(body, bytes):
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(iter(body), encode_chunked=True)
        else:
            if content_length:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
        response = connection.getresponse()
        return Sent(response.status, tuple(response.getheaders()), response.read())
    finally:
        connection.close()


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A transformer of one worker whose store lies behind a proxy."""

    place: Place
    server: ModelServer
    store: Proxy

    def send(self, payload: Any, headers: Mapping[str, str | bytes] | None = None) -> Sent:
        """Deliver one."""
        (sent,) = self.send_all([(payload, headers or {})])
        return sent

    def send_all(self, requests: Sequence[tuple[Any, Mapping[str, str | bytes]]]) -> list[Sent]:
        """Deliver several, whatever the way: bytes as they are, all else as JSON."""
        written = [
            (payload if isinstance(payload, bytes) else json.dumps(payload).encode(), headers)
            for payload, headers in requests
        ]
        if isinstance(self.server, ConsumeProcess):
            answers = self.server.answers_to(written)
            return [Sent(answer.status, tuple(answer.headers.items()), answer.body) for answer in answers]
        return [exchange(self.server, body, headers) for body, headers in written]

    def counted(self, outcome: str) -> float:
        """The counter of this outcome in its metrics."""
        return counted(self.server, outcome)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """See that meanwhile neither the store is asked for anything nor a result is published."""
        before = self.store.accepted, self.store.answered_bytes, len(self.place.read_results())
        yield
        assert (self.store.accepted, self.store.answered_bytes, len(self.place.read_results())) == before

    def assert_acked(self, reason: str, *requests: tuple[Any, Mapping[str, str | bytes]]) -> None:
        """See that these are answered 2xx with an empty body, counted by this reason, and nothing is touched."""
        before = self.counted(reason)
        with self.untouched():
            for (payload, _), sent in zip(requests, self.send_all(requests), strict=True):
                assert (sent.status, sent.body) == (200, b""), (payload, sent)
        assert self.counted(reason) == before + len(requests)

    def assert_refused(self, status: int, reason: str, *requests: tuple[Any, Mapping[str, str | bytes]]) -> None:
        """See that these are refused for good with this status and reason, and nothing is touched."""
        before = self.counted(reason)
        with self.untouched():
            for (payload, _), sent in zip(requests, self.send_all(requests), strict=True):
                assert (sent.status, sent.reason) == (status, reason), (payload, sent)
                assert b"Traceback" not in sent.body
        assert self.counted(reason) == before + len(requests)

    @contextmanager
    def logged(self) -> Iterator[list[str]]:
        """Fill a list with the lines that the process logs meanwhile."""
        begin = self.server.child.log.stat().st_size
        lines: list[str] = []
        yield lines
        with self.server.child.log.open("rb") as log:
            log.seek(begin)
            # Not splitlines(), which would take a forged end of a line for one.
            lines += log.read().decode().split("\n")[:-1]


@contextmanager
def watched_transformer(place: Place, way: Way, **settings: str) -> Iterator[Watched]:
    """Start one on the embedded servers."""
    with Proxy(int(place.settings["MINIO_ENDPOINT"].rpartition(":")[2])) as store:
        server = place.start(settings={"MINIO_ENDPOINT": f"http://127.0.0.1:{store.port}", **settings}, way=way)
        server.wait_ready()
        try:
            yield Watched(place=place, server=server, store=store)
        finally:
            server.close()


def peak_memory(server: ModelServer) -> int:
    """The most bytes that its process has held at once so far."""
    status = Path(f"/proc/{server.child.pid}/status")
    if not status.exists():
        missing("this system has no /proc, which tells a process's memory")
    (kilobytes,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(kilobytes) * 1024
