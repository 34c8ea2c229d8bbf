"""A topic's records on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial

from mnist_pipeline.adapters.kafka_records import Record, TopicReader
from mnist_pipeline.pipeline.settings import Kafka

_POLL_SECONDS = 0.5


async def records(
    kafka: Kafka, *, key: bytes | None = None, since: datetime | None = None, follow: bool = False
) -> AsyncGenerator[Record, None]:
    """The records of a topic, each partition in its order.

    Args:
        kafka: where it is.
        key: only the partition where this key's records are.
        since: only those from this moment on; None: all that are there.
        follow: go on waiting for others; else it ends where the topic ended when it began.

    Raises:
        KafkaUnavailable: Kafka is away, slow, or refuses us or the topic.
    """
    reader = TopicReader(kafka)
    # kafka-python's consumer blocks, and is nobody's but this thread's.
    thread = ThreadPoolExecutor(1, thread_name_prefix="topic")
    loop = asyncio.get_running_loop()
    try:
        await loop.run_in_executor(thread, partial(reader.open, key=key, since=since))
        while follow or not await loop.run_in_executor(thread, reader.is_at_end):
            for record in await loop.run_in_executor(thread, reader.poll, _POLL_SECONDS):
                yield record
    finally:
        reader.give_up()
        thread.submit(reader.close)
        thread.shutdown(wait=False)
