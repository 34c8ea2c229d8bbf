"""Kafka records as plain values, and reading a whole topic of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record as it lies in a topic; `value` is None for a tombstone."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def record_of(consumed: Any) -> Record:
    """The plain value of kafka-python's ConsumerRecord; a header without a value gets an empty one."""
    return Record(
        topic=consumed.topic,
        partition=consumed.partition,
        offset=consumed.offset,
        timestamp_ms=consumed.timestamp,
        key=consumed.key,
        value=consumed.value,
        headers=tuple((name, value or b"") for name, value in consumed.headers),
    )


def read_topic(bootstrap_servers: str, topic: str, *, api_version: tuple[int, int]) -> list[Record]:
    """All records that the topic holds now, by time, without joining a consumer group."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        api_version=api_version,
        enable_auto_commit=False,
        fetch_max_wait_ms=10,
    )
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            return []
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        records: list[Record] = []
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for batch in consumer.poll(timeout_ms=1_000).values():
                records.extend(record_of(consumed) for consumed in batch)
        return sorted(records, key=lambda record: (record.timestamp_ms, record.partition, record.offset))
    finally:
        consumer.close()
