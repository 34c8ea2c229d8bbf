"""A recording HTTP server in the transformer's place, and what the tests of the source do around it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from confluent_kafka import Producer

from mnist_pipeline.local.broker import Broker
from mnist_pipeline.local.processes import Part


@dataclass(frozen=True)
class Received:
    """One request as the sink saw it; `headers` has lower-case names and raw bytes."""

    at: float
    headers: dict[str, bytes]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["ce-id"].decode()


class Sink(Part):
    """An HTTP server that keeps every request and answers with what `answer` says of it: a status."""

    def __init__(self, answer: Callable[[Received], int], *, port: int = 0, keep_alive: bool = True) -> None:
        sink = self
        self.received: list[Received] = []
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                sink.connections += 1

            def do_POST(self) -> None:
                headers = {name.lower(): value.encode("latin-1") for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", b"0")))
                with sink._lock:
                    sink.received.append(received := Received(time.monotonic(), headers, body))
                    sink.at_once += 1
                    sink.most_at_once = max(sink.most_at_once, sink.at_once)
                status = answer(received)
                with sink._lock:
                    sink.at_once -= 1
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.send_header("kne-reason", "test")
                self.end_headers()
                # Without a `Connection: close`, as a server does whose keep-alive timeout passes.
                self.close_connection = not keep_alive

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the overridden name
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1/models/mnist:predict"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def always(status: int) -> Callable[[Received], int]:
    return lambda _received: status


def produce(broker: Broker, *values: bytes | None, topic: str = "mnist") -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    for number, value in enumerate(values):
        producer.produce(topic, key=f"key {number}", value=value)
    assert producer.flush(10) == 0
