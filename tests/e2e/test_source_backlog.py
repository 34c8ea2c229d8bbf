"""A source with a long backlog: it pauses its partitions, and other sources join meanwhile."""

from __future__ import annotations

import contextlib
import threading

import pytest
from confluent_kafka import Producer

from e2e.sinks import Sink, wait_until
from mnist_pipeline.local.broker import API_VERSION, Broker
from mnist_pipeline.local.source import Source


@pytest.mark.parametrize("ordered", [True, False])
def test_a_source_that_keeps_a_partition_while_another_joins_skips_none_of_its_records(ordered: bool) -> None:
    # More than kafka-python gives at once by default; the source has paused both partitions when the other one joins.
    values = [b"%d" % number for number in range(1500)]
    joined = threading.Event()

    def answer_after_the_other_has_joined(_received: object) -> int:
        return 200 if joined.wait(60) else 503

    with (
        Broker({"kept": 2}) as broker,
        Sink(answer_after_the_other_has_joined) as sink,
        contextlib.ExitStack() as sources,
    ):
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        for number, value in enumerate(values):
            producer.produce("kept", value=value, partition=number % 2)
        assert producer.flush(10) == 0

        def join() -> None:
            source = Source(
                broker.bootstrap_servers,
                "kept",
                sink.url,
                group="test",
                ordered=ordered,
                max_in_flight=2,
                initial_offset="earliest",
                api_version=API_VERSION,
                session_timeout_seconds=1,
            )
            sources.enter_context(source)

        join()
        wait_until(lambda: len(sink.received) == 2)
        join()
        joined.set()
        wait_until(lambda: {received.body for received in sink.received} == set(values), seconds=30)
