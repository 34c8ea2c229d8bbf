"""What MinIO's own Kafka target does, which its gateway code lacks: each notification becomes one record of a topic.

The gateway posts every notification to this webhook. Its body already has the form of MinIO's Kafka record,
`{"EventName", "Key", "Records": [one]}`, with `Key` decoded and `Records[].s3.object.key` query-escaped, so it goes on
byte for byte; it lacks only `contentType` and `x-minio-deployment-id`. The record's key is the body's `Key`, as with
MinIO. The gateway is answered 200 only after the broker's acknowledgement; it does not send a notification twice, so
another answer loses it.
"""

from __future__ import annotations

import http
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mnist_pipeline.local.processes import Part

_ACK_TIMEOUT_SECONDS = 30.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # The gateway opens a connection for each of a burst of uploads; the default of 5 would refuse some.
    request_queue_size = 1024
    forward: Notifications


class _Webhook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        """The gateway's way to ask at its start whether the webhook is there."""
        self._answer(http.HTTPStatus.OK)

    def do_POST(self) -> None:
        """One notification."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(http.HTTPStatus.OK if self.server.forward.produce(body) else http.HTTPStatus.SERVICE_UNAVAILABLE)

    def _answer(self, status: http.HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the method that is overridden
        """Say nothing: the records are the log."""


class Notifications(Part):
    """The webhook `url`, which produces to `topic` from its construction until `close()`.

    `produced` and `lost` count the notifications that the broker acknowledged and those that it did not.
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.topic = topic
        self.produced = 0
        self.lost = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        # Its log says nothing that each record's outcome does not say, and complains when the broker is closed first.
        self._producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 0, "log_level": 0})
        self._server = _Server(("127.0.0.1", 0), _Webhook)
        self._server.forward = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/notifications"
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="notifications-http", daemon=True),
            threading.Thread(target=self._poll, name="notifications-acks", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def produce(self, body: bytes) -> bool:
        """Produce one notification and wait; whether the broker has acknowledged it."""
        answered = threading.Event()
        errors: list[KafkaError | None] = []

        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            errors.append(error)
            answered.set()

        try:
            self._producer.produce(self.topic, key=json.loads(body)["Key"], value=body, on_delivery=on_delivery)
        except (ValueError, KeyError, TypeError, BufferError, KafkaException):
            acknowledged = False
        else:
            acknowledged = answered.wait(_ACK_TIMEOUT_SECONDS) and errors == [None]
        with self._lock:
            if acknowledged:
                self.produced += 1
            else:
                self.lost += 1
        return acknowledged

    def close(self) -> None:
        """Stop listening; safe to call twice."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(0.1)
        self._producer.flush(1.0)
