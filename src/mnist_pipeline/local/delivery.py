"""One record is delivered to a sink as Knative does it: posted, posted again, or given up as a dead letter."""

from __future__ import annotations

import collections
import http.client
import logging
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.local.knative import (
    Answer,
    Backoff,
    Request,
    Verdict,
    dead_letter_of,
    request_of,
    verdict,
    wait_seconds,
)

_log = logging.getLogger(__name__)

_DEAD_LETTERS_KEPT = 1_000
_URL_CHARACTERS = frozenset(map(chr, range(ord("!"), ord("~") + 1)))


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A record that was given up.

    `request` is what a dead-letter sink gets: the event; of a record that no event could be made of its value alone.
    No `answer`: the last attempt had none.
    """

    record: Record
    request: Request
    answer: Answer | None
    attempts: int


class SinkConnection:
    """One keep-alive connection to a sink, for one thread; the first `post` opens it.

    Raises:
        ValueError, http.client.InvalidURL: nothing can be posted to this URL.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout_seconds)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _URL_CHARACTERS.issuperset(self._path):
            raise ValueError(f"{url!r} has characters that a URL must escape")

    def post(self, request: Request) -> Answer:
        """Post it and read the whole answer.

        Raises:
            OSError, http.client.HTTPException: no answer.
            ValueError: a header that HTTP cannot carry, from a record's key with a line break for instance.
        """
        if self._connection.sock is not None and _is_readable(self._connection.sock):
            self._connection.close()  # the sink has closed it while it lay idle: that is no failed attempt
        try:
            self._connection.putrequest("POST", self._path, skip_accept_encoding=True)
            for name, value in request.headers:
                self._connection.putheader(name, value)
            if request.body is not None:
                self._connection.putheader("Content-Length", str(len(request.body)))
            self._connection.endheaders(request.body)
            response = self._connection.getresponse()
            return Answer(status=response.status, headers=tuple(response.getheaders()), body=response.read())
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close it; a later `post` opens a new one."""
        self._connection.close()


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How records are delivered; the arguments of `Source` of the same names say more."""

    sink_url: str
    namespace: str
    name: str
    retry: int
    backoff_seconds: float
    backoff_policy: Backoff
    timeout_seconds: float
    on_dead_letter: Callable[[DeadLetter], None] | None


class Delivery:
    """Delivers records, from any number of threads, until `closing` is set, and counts what became of them.

    `delivered`, `failed_attempts` and `dead_lettered` count; `dead_letters` holds the newest thousand.

    Raises:
        ValueError, http.client.InvalidURL: nothing can be posted to the sink's URL.
    """

    def __init__(self, manner: Manner, closing: threading.Event) -> None:
        self.delivered = 0
        self.failed_attempts = 0
        self.dead_lettered = 0
        self.dead_letters: collections.deque[DeadLetter] = collections.deque(maxlen=_DEAD_LETTERS_KEPT)
        self._manner = manner
        self._retry = manner.retry if manner.backoff_seconds > 0 else 0
        self._closing = closing
        self._lock = threading.Lock()
        self.connect()  # here, and not in every worker, it fails where it must

    def connect(self) -> SinkConnection:
        """A connection for one thread."""
        return SinkConnection(self._manner.sink_url, self._manner.timeout_seconds)

    def deliver(self, connection: SinkConnection, record: Record) -> bool:
        """Deliver one record; whether it is settled: not so where we are closing before its next attempt."""
        request: Request | None = None
        attempt = 0
        unforeseen = False
        while not self._closing.is_set():
            answer = None
            try:
                if request is None:
                    request = request_of(record, namespace=self._manner.namespace, name=self._manner.name)
                answer = self._attempt(connection, request)
            except Exception:  # noqa: BLE001 - it counts as no answer, so that the record ends as a dead letter
                if not unforeseen:
                    _log.exception("%s: an attempt failed in a way that was not foreseen", place(record))
                unforeseen = True
            outcome = verdict(None if answer is None else answer.status)
            if outcome is Verdict.COMMIT:
                with self._lock:
                    self.delivered += 1
                return True
            with self._lock:
                self.failed_attempts += 1
            attempt += 1
            if outcome is Verdict.DEAD_LETTER or attempt > self._retry:
                self._give_up(record, request or Request(headers=(), body=record.value), answer, attempt)
                return True
            self._closing.wait(
                wait_seconds(attempt, backoff_seconds=self._manner.backoff_seconds, policy=self._manner.backoff_policy)
            )
        return False

    def _attempt(self, connection: SinkConnection, request: Request) -> Answer | None:
        try:
            return connection.post(request)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            # A header that cannot be sent counts as no answer, as with Knative: its writer fails, so it retries.
            _log.debug("no answer from %s: %s", self._manner.sink_url, exc)
            return None

    def _give_up(self, record: Record, request: Request, answer: Answer | None, attempts: int) -> None:
        letter = DeadLetter(
            record=record,
            request=dead_letter_of(request, sink_url=self._manner.sink_url, answer=answer),
            answer=answer,
            attempts=attempts,
        )
        _log.warning(
            "gave up %s after %d attempts: %s",
            *(place(record), attempts),
            "no answer" if answer is None else f"status {answer.status}",
        )
        if self._manner.on_dead_letter is not None:
            try:
                self._manner.on_dead_letter(letter)
            except Exception:  # noqa: BLE001 - whatever the caller's function raises must not end the worker
                _log.exception("the dead letter of offset %d is lost", record.offset)
        with self._lock:
            self.dead_lettered += 1
            self.dead_letters.append(letter)


def place(record: Record) -> str:
    """Where a record is, as it stands in the log."""
    return f"partition {record.partition} offset {record.offset}"
