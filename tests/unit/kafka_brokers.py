"""Brokers that can be frozen or moved, and what tests of publishers ask of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable

import pytest

from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.ports import Deadline, Message, Publisher

MESSAGE = Message(key=b"k", value=b"v", headers=(("ce_id", b"1"),))


class BrokerProcess:
    """The embedded broker in a process of its own, which can be frozen."""

    def __init__(self) -> None:
        program = (
            "import sys\n"
            "from mnist_pipeline.local.broker import Broker\n"
            "with Broker({'results': 1}) as broker:\n"
            "    print(broker.bootstrap_servers, flush=True)\n"
            "    sys.stdin.read()\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def freeze(self) -> None:
        """Stop it: its sockets stay open, and the kernel goes on accepting."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


class Forwarder:
    """An address whose connections lead to another one, `target`, which may change."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                host, _, port = self.target.partition(":")
                far = socket.create_connection((host, int(port)))
                for ends in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._pump, args=ends))
                    self._threads[-1].start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        source.close()

    def __enter__(self) -> Forwarder:  # noqa: PYI034 - Self is Python 3.11
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown() wakes accept(), close() alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


async def seconds(call: Awaitable[object]) -> float:
    started = time.monotonic()
    await call
    return time.monotonic() - started


async def refused(publisher: Publisher, match: str, *, within: float = 20) -> KafkaUnavailable:
    with pytest.raises(KafkaUnavailable, match=match) as caught:
        await publisher.publish(MESSAGE, deadline=Deadline(within))
    return caught.value


def no_thread_but(before: set[threading.Thread]) -> None:
    """All others are over, or have nothing left to do but to end."""
    for thread in set(threading.enumerate()) - before:
        thread.join(0.5)
        assert not thread.is_alive()


async def longest_pause(meanwhile: Awaitable[object]) -> float:
    """The seconds for which the event loop did nothing else, at most, while it waited for something."""
    longest, last = 0.0, time.monotonic()
    waiting = asyncio.ensure_future(meanwhile)
    while not waiting.done():
        await asyncio.sleep(0.005)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    await waiting
    return longest
