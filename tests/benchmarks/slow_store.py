"""A proxy before the store, in a thread of ours: counts the requests, and holds each one as long as it is told to."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

from benchmarks import http1
from mnist_pipeline.local.processes import Part, free_port


class SlowStore(Part):
    """Passes whole requests on to `endpoint`, each `delay_seconds` later than it came.

    Attributes:
        endpoint: its own, `host:port`.
        delay_seconds: may be changed at any time.
        requests: how many have come so far, by method.
    """

    def __init__(self, endpoint: str) -> None:
        self.delay_seconds = 0.0
        self.requests: Counter[str] = Counter()
        self._host, _, port = endpoint.partition(":")
        self._port = int(port)
        own_port = free_port()
        self.endpoint = f"127.0.0.1:{own_port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow-store", daemon=True)
        self._thread.start()
        listening = asyncio.start_server(self._accept, "127.0.0.1", own_port, backlog=512)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)

    def close(self) -> None:
        """Stop; safe to call twice."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        answers = asyncio.create_task(_pass_on(there_reader, writer))
        try:
            while message := await http1.read(reader):
                self.requests[message.method] += 1
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                there_writer.write(message.head + message.body)
        finally:
            answers.cancel()
            there_writer.close()
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(64 * 1024):
        writer.write(data)
    writer.close()
