"""The floor's batch mode: a bare script that reads the notifications from Kafka, and does their work a batch at a time.

As in the floor, the prescribed clients and threads, and no framework: each event takes the same steps, and what a batch
shares is one request to the predictor, one wait for all acks and one commit. With ONE_DELETE it also has one DELETE.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from typing import Any

from kafka import KafkaConsumer

from benchmarks.variants import answering, steps

_THREADS = 16
_POLL_MS = 500


class FloorBatch:
    """GET all, decode all, one POST to the predictor, PUT all, produce all, DELETE all."""

    def __init__(self, predict_url: str) -> None:
        self._store = steps.Store()
        self._results = steps.Results()
        self._predictor = steps.Predictor(predict_url)
        self._threads = ThreadPoolExecutor(_THREADS)

    def handle(self, notifications: Sequence[bytes]) -> None:
        """Do all that these ask for."""
        uploads = [steps.uploaded(json.loads(one)) for one in notifications]
        pngs = list(self._threads.map(self._store.get, uploads))
        digits = self._predictor.digits([steps.pixels(png) for png in pngs])
        buckets = [f"digit-{digit}" for digit in digits]
        list(self._threads.map(self._store.put, buckets, [upload.key for upload in uploads], pngs))
        self._results.send_all(map(steps.result, uploads, digits))
        if "ONE_DELETE" in os.environ:
            self._store.delete_all(uploads)
        else:
            list(self._threads.map(self._store.delete, uploads))


def consume(consumer: KafkaConsumer, floor: FloorBatch) -> None:
    """Handle a batch after the other, and commit each."""
    while True:
        partitions: dict[Any, list[Any]] = consumer.poll(timeout_ms=_POLL_MS)
        if notifications := [record.value for records in partitions.values() for record in records]:
            floor.handle(notifications)
            consumer.commit()


def main() -> None:
    """Consume until SIGTERM."""
    flags = steps.flags()
    floor = FloorBatch(steps.predict_url(flags))
    consumer = KafkaConsumer(
        flags.topic,
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id=flags.group,
        max_poll_records=flags.batch,
        auto_offset_reset=flags.initial_offset,
        enable_auto_commit=False,
        api_version=steps.api_version(),
    )
    probes = ThreadingHTTPServer(("127.0.0.1", flags.http_port), answering.Answering)
    threading.Thread(target=probes.serve_forever, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with contextlib.closing(consumer):
        consume(consumer, floor)


if __name__ == "__main__":
    main()
