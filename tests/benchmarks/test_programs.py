"""The benchmark's own programs: who sends, who predicts, who is slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kafka import KafkaConsumer, KafkaProducer

from benchmarks import figures, http1, load, plot, variants
from benchmarks.backlog import Backlog
from benchmarks.making import run
from benchmarks.place import PARTITIONS, Place
from benchmarks.predictor import Nearest
from benchmarks.process import Feed, Running
from benchmarks.slow_store import SlowStore
from benchmarks.variants import steps
from e2e.following import wait_until
from mnist_pipeline.local.broker import API_VERSION, Broker
from mnist_pipeline.local.processes import PartFailed, Sandbox
from mnist_pipeline.testing import digit_png, minio_event


def test_the_predictor_knows_the_ten_digits_flat_and_in_rows() -> None:
    rows = [steps.pixels(digit_png(digit)) for digit in range(10)]
    squares = [[row[start : start + 28] for start in range(0, 784, 28)] for row in rows]
    nearest = Nearest()
    for instances in (rows, squares):
        assert json.loads(nearest(json.dumps({"instances": instances}).encode())) == {"predictions": list(range(10))}


def test_the_steps_read_a_notification_of_a_key_that_is_escaped() -> None:
    upload = steps.uploaded(minio_event("mnist", "a b/ü.png", version_id="v", etag="e"))
    assert upload == steps.Upload(bucket="mnist", key="a b/ü.png", version_id="v", etag="e")
    assert steps.uploaded(minio_event("mnist", "a.png")).version_id is None


def test_an_event_is_a_cloud_event_without_a_content_type() -> None:
    head, _, body = load.request("http://127.0.0.1:1/v1/models/mnist:predict", 7, b"{}").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[:2] == ["POST /v1/models/mnist:predict HTTP/1.1", "Host: 127.0.0.1:1"]
    assert {"ce-id: partition:0/offset:7", "ce-specversion: 1.0", "Content-Length: 2"} <= set(lines)
    assert "content-type" not in head.decode().lower()
    assert body == b"{}"


def test_as_many_events_are_in_flight_as_were_asked_for_through_a_store_that_counts_and_waits() -> None:
    at_once: list[int] = []

    async def sent_through_the_proxy() -> tuple[load.Answers, SlowStore]:
        arrived = asyncio.Condition()
        waiting = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal waiting
            with contextlib.closing(writer):
                while message := await http1.read(reader):
                    async with arrived:
                        waiting += 1
                        at_once.append(waiting)
                        arrived.notify_all()
                        await arrived.wait_for(lambda: len(at_once) >= 4)
                        waiting -= 1
                    status = b"200 OK" if message.body != b"refuse" else b"503 Service Unavailable"
                    writer.write(b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\nok" % status)

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with SlowStore(f"127.0.0.1:{port}") as store:
                store.delay_seconds = 0.01
                answers = await load.send(f"http://{store.endpoint}/x", [b"one"] * 7 + [b"refuse"], 4)
                return answers, store

    answers, store = asyncio.run(sent_through_the_proxy())
    assert max(at_once) == 4
    assert store.requests == {"POST": 8}
    assert len(answers.milliseconds) == 8
    assert min(answers.milliseconds) >= 10
    assert answers.refused == {"503": 1}


def test_variants_are_named_by_one_word() -> None:
    assert [variant.name for variant in variants.chosen(["fast", "empty"])] == ["empty KServe", "ours [fast]"]
    assert variants.chosen([]) == list(variants.VARIANTS)
    words = ["floor", "empty", "sample", "ours", "fast", "floor-batch", "floor-delete", "consume", "consume-fast"]
    assert variants.known_words() == words
    with pytest.raises(ValueError, match="slow"):
        variants.chosen(["slow"])


def test_a_variant_whose_setting_is_not_known_is_left_out() -> None:
    (fast,) = variants.chosen(["fast"])
    assert fast.unknown_setting("… KAFKA_CLIENT is no setting: is KAFKA_TOPIC meant?") is not None
    assert fast.unknown_setting("ready") is None


def test_a_backlog_waits_for_the_results_and_for_the_commits_of_what_it_has_produced() -> None:
    with Broker({"feed": PARTITIONS, "results": PARTITIONS}) as broker, Sandbox() as sandbox:
        where = {"bootstrap_servers": broker.bootstrap_servers, "api_version": API_VERSION}
        consumer = KafkaConsumer(
            "feed", group_id="feed", auto_offset_reset="earliest", enable_auto_commit=False, **where
        )
        producer = KafkaProducer(**where)
        # One that has ended is not waited for: so each wait below ends at once, one way or the other.
        ended = sandbox.start("ended", [sys.executable, "-c", ""], env={})
        wait_until(lambda: not ended.running)
        running = cast("Running", SimpleNamespace(child=ended))
        with (
            contextlib.closing(consumer),
            contextlib.closing(producer),
            Backlog(cast("Place", SimpleNamespace(**where)), Feed(topic="feed", batch=2), "results") as backlog,
        ):
            for _ in range(2):  # the second time others' results are there already
                backlog.produce([json.dumps(minio_event("mnist", f"{number}.png")).encode() for number in range(3)])
                with pytest.raises(PartFailed, match="before all was done"):
                    backlog.wait_announced(running)
                read: list[Any] = []
                while len(read) < 3:
                    read += [record for records in consumer.poll(1000).values() for record in records]
                assert {record.key for record in read} == {b"mnist/0.png", b"mnist/1.png", b"mnist/2.png"}
                for _ in read:
                    producer.send("results", value=b"").get(timeout=10)
                backlog.wait_announced(running)
                with pytest.raises(PartFailed, match="before all was done"):
                    backlog.wait_committed(running)
                consumer.commit()
                backlog.wait_committed(running)


def test_the_picture_is_a_small_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = [
        run(name, in_flight=in_flight, round=turn, rate=100.0 * in_flight + turn)
        for name in "abcde"
        for in_flight in (1, 8, 32)
        for turn in (0, 1)
    ]
    plot.write(tmp_path / "bench.png", figures.throughput(runs), "what it was measured on")
    picture = (tmp_path / "bench.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 100_000
