"""How a publisher comes by its producer, and leaves it: without a blocking call on the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mnist_pipeline.adapters.acknowledgements import Acknowledgements
from mnist_pipeline.adapters.grouping import Grouping
from mnist_pipeline.adapters.threads import in_thread, is_done_within
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.ports import Deadline

log = logging.getLogger(__name__)

CLOSE_SECONDS = 3.0

MOST_BYTES = 1024 * 1024
"""Of a message, where nothing else is said; as many as brokers take where nothing else is said to them."""

_PAUSE_SECONDS = 1.0

_P = TypeVar("_P")


class ProducerConnection(Generic[_P]):
    """One producer of a client, or the attempt to make one; it is begun on the event loop that is running then.

    A client's own class says how to `open`, `shut`, `give_up` and `explain`.

    Attributes:
        acks: of its messages.
        group: lets them go together.
        opened: the producer, or why there is none, as soon as it is known.
        is_closing: whether it shall end.
    """

    acks: Acknowledgements
    opened: asyncio.Future[_P]

    def __init__(self) -> None:
        self.is_closing = False
        self.group = Grouping()
        self._producer: _P | None = None
        self._open_ended = threading.Event()
        self._retry_at = 0.0

    def open(self) -> _P:
        """Make a producer that knows its brokers; in a thread of its own.

        Raises:
            KafkaUnavailable: it came to nothing; one line that names the variables to check.
        """
        raise NotImplementedError

    def shut(self, producer: _P) -> None:
        """Let the producer drop what is in flight and end; in a thread of its own."""
        raise NotImplementedError

    def give_up(self) -> None:
        """Let `open` end soon; in another thread than that."""
        raise NotImplementedError

    def explain(self) -> str:
        """Why `open` has not ended yet; one line that names the variables to check."""
        raise NotImplementedError

    def begin(self) -> None:
        """Open it, without waiting for it."""
        self.acks = Acknowledgements()
        self.opened = in_thread(self._open, name="kafka-connect")

    def is_over(self) -> bool:
        """Whether it failed, and others have been told so for long enough; or its loop is not the running one."""
        if self.acks.loop is not asyncio.get_running_loop():
            return True
        failed = self.opened.done() and self.opened.exception() is not None
        return failed and time.monotonic() >= self._retry_at

    def close(self) -> list[asyncio.Future[None]]:
        """Shut it, without waiting for it; what can then be waited for."""
        self.is_closing = True
        return [in_thread(self._close, name="kafka-close")]

    def _open(self) -> _P:
        try:
            self._producer = self.open()
        finally:
            self._retry_at = time.monotonic() + _PAUSE_SECONDS
            self._open_ended.set()
        return self._producer

    def _close(self) -> None:
        if not self._open_ended.is_set():
            self.give_up()
            self._open_ended.wait()
        if self._producer is not None:
            self.shut(self._producer)


_C = TypeVar("_C", bound=ProducerConnection[Any])


class CurrentConnection(Generic[_C]):
    """The one connection that a publisher has now, made at the first use; pickled without it.

    Args:
        make: a connection that has not begun.
        timeout_seconds: for how long a broker has not answered where `replace` is called; for the log.
    """

    def __init__(self, make: Callable[[], _C], *, timeout_seconds: float) -> None:
        self._make = make
        self._timeout_seconds = timeout_seconds
        self._connection: _C | None = None
        self._closing: set[asyncio.Future[None]] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None, "_closing": set()}

    async def get(self, deadline: Deadline) -> _C:
        """The connection, once it is open.

        Every caller waits for the same attempt until its own deadline; a failure answers everybody for a second, and
        then it is tried again.
        """
        left = deadline.remaining()
        connection = self._connection
        if connection is None or connection.is_over():
            self._let_go()
            connection = self._make()
            connection.begin()
            self._connection = connection
        if not await is_done_within(connection.opened, left):
            raise KafkaUnavailable(connection.explain())
        failure = connection.opened.exception()
        if isinstance(failure, KafkaUnavailable):
            # Each task raises its own: a traceback grows wherever an error is raised.
            raise KafkaUnavailable(str(failure)) from failure.__cause__
        connection.opened.result()
        if connection.is_closing:
            raise KafkaUnavailable("closed while it was connecting")
        return connection

    def replace(self, connection: _C) -> None:
        """Connect anew at the next use, where it is still this one that let the whole timeout pass in vain."""
        if self._connection is connection:
            log.warning("Kafka has not answered for %g s; connecting anew", self._timeout_seconds)
            self._let_go()

    async def close(self) -> None:
        """Wait until the connection is shut, for a few seconds at most; a later use connects anew."""
        self._let_go()
        loop = asyncio.get_running_loop()
        if closing := [ending for ending in self._closing if ending.get_loop() is loop]:
            await asyncio.wait(closing, timeout=CLOSE_SECONDS)

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            for ending in connection.close():
                self._closing.add(ending)
                ending.add_done_callback(self._closing.discard)
