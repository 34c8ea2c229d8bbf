"""Many objects through consumers that come, go and are killed: nothing is lost, and each object has one id.

`SCALE_OBJECTS` says how many.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e.following import IMAGES, wait_until
from real.site import DEAD_LETTERS_TOPIC, DIGIT_BUCKETS, REJECTED_BUCKET, SOURCE_BUCKET, Consumer, Site
from servers.kafka import KafkaProgram

OBJECTS = int(os.environ.get("SCALE_OBJECTS", "3000"))
PARTITIONS = 12
# So many a second at least, and some time for what does not depend on their number.
SECONDS = 60 + OBJECTS / 50

pytestmark = [pytest.mark.real, pytest.mark.timeout(4 * SECONDS)]

Say = Callable[[str], None]


@pytest.fixture
def site(kafka_program: KafkaProgram, minio_program: Path) -> Iterator[Site]:
    with Site(kafka_program, minio_program, partitions=PARTITIONS, transformers=0) as site:
        yield site


@pytest.fixture
def say(pytestconfig: pytest.Config) -> Say:
    """Write a line where people see it."""
    terminal: Any = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    return lambda line: terminal.write_line(f"\n{line}")


def objects() -> list[tuple[str, bytes]]:
    """Keys whose last part begins with the digit, and images no two of which are the same."""
    images = sorted(IMAGES.items())
    made = []
    for number in range(OBJECTS):
        name, data = images[number % len(images)]
        # What follows its last chunk is no part of a PNG.
        made.append((f"{number % 100:02}/{name[0]}-{number:06}.png", data + b"%d" % number))
    return made


def bucket_of(key: str) -> str:
    return f"digit-{key.rpartition('/')[2][0]}"


def upload(site: Site, many: Sequence[tuple[str, bytes]]) -> None:
    client = site.minio.client()

    def put(one: tuple[str, bytes]) -> None:
        key, data = one
        client.put_object(bucket_name=SOURCE_BUCKET, object_name=key, data=io.BytesIO(data), length=len(data))

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(put, many))


def cpu_seconds(consumers: Sequence[Consumer]) -> float:
    times = [psutil.Process(consumer.child.pid).cpu_times() for consumer in consumers]
    return float(sum(one.user + one.system for one in times))


def test_nothing_is_lost_although_of_three_consumers_one_is_killed_and_another_one_joins(site: Site, say: Say) -> None:
    everything = objects()
    before, after = everything[: OBJECTS * 2 // 3], everything[OBJECTS * 2 // 3 :]
    upload(site, before)
    consumers = [site.start_consumer(f"consumer-{number}") for number in range(3)]
    for consumer in consumers:
        consumer.wait_ready()
    began, results_before, cpu = time.monotonic(), site.published(), -cpu_seconds(consumers)
    wait_until(lambda: site.published() >= OBJECTS // 3, "not even a third is filed", seconds=SECONDS, every=0.25)
    killed = consumers.pop(0)
    cpu += cpu_seconds([killed])
    killed.child.kill()
    upload(site, after)
    joined = site.start_consumer("consumer-3")
    joined.wait_ready()
    cpu -= cpu_seconds([joined])
    consumers.append(joined)
    site.wait_consumed(seconds=SECONDS)
    seconds, cpu = time.monotonic() - began, cpu + cpu_seconds(consumers)
    assert [site.sandbox.stop(consumer.child, grace_seconds=60) for consumer in consumers] == [0, 0, 0]

    assert site.versions(SOURCE_BUCKET) == []
    assert site.etags(REJECTED_BUCKET, "") == {}
    assert site.records(DEAD_LETTERS_TOPIC) == []
    etags = {key: hashlib.md5(data, usedforsecurity=False).hexdigest() for key, data in everything}
    for bucket in DIGIT_BUCKETS:
        assert site.etags(bucket, "") == {key: etag for key, etag in etags.items() if bucket_of(key) == bucket}
    client = site.minio.client()
    for key, data in everything[:: max(OBJECTS // 50, 1)]:
        with client.get_object(bucket_name=bucket_of(key), object_name=key) as copied:
            assert copied.data == data
        copied.release_conn()

    results = [json.loads(record.value or b"") for record in site.records()]
    ids = {(result["data"]["object"]["key"], result["id"]) for result in results}
    assert {key for key, _ in ids} == etags.keys()
    assert len(ids) == len({one_id for _, one_id in ids}) == OBJECTS
    consumed = OBJECTS - results_before
    say(
        f"{consumed:,} of {OBJECTS:,} objects, once three consumers were ready, in {seconds:.0f} s:"
        f" {consumed / seconds:.0f} a second, {1000 * cpu / consumed:.2f} ms of the consumers' CPU each;"
        f" {len(results) - OBJECTS} results came twice"
    )
