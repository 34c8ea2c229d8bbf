"""A source that has fetched more than it may deliver at once, and therefore pauses its partitions meanwhile."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from e2e.following import wait_until
from e2e.sinks import Sink, always
from mnist_pipeline.adapters.group_member import Subscription
from mnist_pipeline.local.broker import Broker
from mnist_pipeline.local.source import Source


@pytest.mark.parametrize("ordered", [True, False])
def test_a_source_that_pauses_what_it_fetches_skips_none_of_its_records(ordered: bool) -> None:
    # In each of two partitions more than kafka-python hands out at once by default, and less than it fetches at once.
    values = [b"%d" % number for number in range(1500)]
    with Broker({"long": 2}) as broker, Sink(always(200)) as sink:
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        for number, value in enumerate(values):
            producer.produce("long", value=value, partition=number % 2)
        assert producer.flush(10) == 0
        with Source(
            broker.kafka("long"),
            Subscription(topics=("long",), group="test", initial_offset="earliest"),
            sink.url,
            ordered=ordered,
            max_in_flight=2,
        ) as source:
            wait_until(lambda: source.delivered == len(values))
    assert {received.body for received in sink.received} == set(values)
