"""Threads that deliver records, each with a connection of its own."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from typing import Protocol

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.local.delivery import Delivery, place

_log = logging.getLogger(__name__)


class Done(Protocol):
    """Called with the lock held."""

    def __call__(self, record: Record, *, settled: bool) -> None:
        """`settled`: it is delivered, or given up."""


class Workers:
    """At most `most` of them; one more is started where none is idle."""

    def __init__(self, delivery: Delivery, lock: threading.Lock, *, most: int) -> None:
        self._delivery = delivery
        self._lock = lock
        self._most = most
        self._tasks: queue.SimpleQueue[tuple[Record, Done] | None] = queue.SimpleQueue()
        self._queued = 0
        self._idle = 0
        self._threads: list[threading.Thread] = []

    def put(self, record: Record, done: Done) -> None:
        """Have a record delivered, and `done` called then. The lock is held."""
        self._queued += 1
        self._tasks.put((record, done))
        if self._queued > self._idle and len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name=f"source-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            self._idle += 1
            thread.start()

    def end(self) -> None:
        """Wait until what is in hand is done with."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        connection = self._delivery.connect()
        with contextlib.closing(connection):
            while task := self._tasks.get():
                record, done = task
                with self._lock:
                    self._queued -= 1
                    self._idle -= 1
                try:
                    settled = self._delivery.deliver(connection, record)
                except Exception:  # noqa: BLE001 - whatever it is must not end the worker: the partition would stand still
                    _log.exception("%s is neither delivered nor given up; a restart brings it again", place(record))
                    settled = False
                with self._lock:
                    self._idle += 1
                    done(record, settled=settled)
