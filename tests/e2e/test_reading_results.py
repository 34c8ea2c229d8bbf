"""Results on a topic that others write to as well, read from a broker alone: what is there, missing or odd."""

from __future__ import annotations

import gc
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from kafka import KafkaProducer

from e2e.test_client import run
from mnist_pipeline import Digits, PredictionClient, PredictionRejected, PredictionResult, ResultTimeout, Settings
from mnist_pipeline.adapters.kafka import publisher_of
from mnist_pipeline.adapters.kafka_records import TopicReader
from mnist_pipeline.local.broker import Broker
from mnist_pipeline.pipeline.errors import BadKey, BadTraceId, KafkaUnavailable, NotAllowed
from mnist_pipeline.pipeline.ports import Deadline, Message
from mnist_pipeline.pipeline.settings import Kafka, Minio

API_VERSION = (2, 3)
NO_CONNECTION = "not connected: no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS"
NOT_UTF_8 = os.fsdecode(b"\xff")


class Topic:
    """A topic of results, written to by hand."""

    def __init__(self, broker: Broker) -> None:
        name = f"results-{uuid.uuid4()}"
        broker.create_topic(name, 4)
        self.kafka = Kafka(bootstrap_servers=broker.bootstrap_servers, topic=name, api_version=API_VERSION)
        self.environ = {
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "KAFKA_API_VERSION": "2.3",
            "KAFKA_TOPIC": name,
        }
        self._producer = KafkaProducer(**self.kafka.client_options())

    def client(self) -> PredictionClient:
        return PredictionClient(Settings(task=Digits(), kafka=self.kafka))

    def add(self, trace_id: str, data: Mapping[str, Any], **attributes: object) -> None:
        event = {"specversion": "1.0", "id": "1", "type": "prediction", "time": "2026-11-26T16:00:00+00:00"}
        value = orjson.dumps({**event, **attributes, "data": data})
        self._producer.send(self.kafka.topic, key=trace_id.encode(), value=value).get(timeout=10)

    def close(self) -> None:
        self._producer.close()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker({}) as running:
        yield running


@pytest.fixture
def topic(broker: Broker) -> Iterator[Topic]:
    topic = Topic(broker)
    yield topic
    topic.close()


def test_what_somebody_else_has_written_there_is_no_end_of_results(topic: Topic) -> None:
    topic.add("a", {"predictions": [1], "scores": ["high"]})
    topic.add("b", {"predictions": {"first": 1}, "scores": [None]}, subject=["x"])
    topic.add("c", {"predictions": [{"x": 1}], "destination": 7})
    topic.add("d", {"reason": {}, "message": []}, type="x.rejected")
    topic.add("\x1b[2J", {"predictions": [4]})
    topic.add("ours", {"predictions": [5], "scores": [0.5]}, subject="mnist/5.png")
    ran = run("results", "--since", "1m", **topic.environ)
    assert (ran.returncode, ran.stderr, len(ran.stdout.splitlines())) == (0, "", 6)
    assert "  ours  mnist/5.png  5 (0.50)\n" in ran.stdout
    assert "\x1b" not in ran.stdout


def test_of_several_results_with_a_trace_id_the_newest_counts(topic: Topic) -> None:
    topic.add("replayed", {"reason": "badimage", "message": "no picture"}, type="prediction.rejected")
    with topic.client() as client:
        with pytest.raises(PredictionRejected):
            client.result("replayed", timeout=20)
        topic.add("replayed", {"predictions": [4]})
        assert client.result("replayed", timeout=20).predictions == [4]
    ran = run("results", "--trace-id", "replayed", **topic.environ)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_broker_that_is_away_is_told_from_a_result_that_does_not_come(topic: Topic) -> None:
    away = Settings(task=Digits(), kafka=Kafka(bootstrap_servers="127.0.0.1:9", topic="t"))
    started = time.monotonic()
    with PredictionClient(away) as client, pytest.raises(KafkaUnavailable, match=NO_CONNECTION):
        client.result("x", timeout=2)
    assert time.monotonic() - started < 5
    with topic.client() as client, pytest.raises(ResultTimeout):
        client.result("x", timeout=1)


@pytest.mark.parametrize("name", ["kafka-python", "confluent"])
async def test_whichever_client_has_published_a_result_it_lies_where_its_key_is_looked_for(
    topic: Topic, name: str
) -> None:
    publisher = publisher_of(Kafka(**{**vars(topic.kafka), "client": name}))
    keys = [f"é-{uuid.uuid4()}".encode() for _ in range(12)]
    for key in keys:
        await publisher.publish(Message(key=key, value=b"{}"), deadline=Deadline(20))
    await publisher.close()
    read_from: set[int] = set()
    for key in keys:
        reader = TopicReader(topic.kafka)
        reader.open(key=key)
        found = []
        while not reader.is_at_end():
            found += reader.poll(1)
        reader.close()
        assert key in {record.key for record in found}
        read_from.update(reader.partitions)
    assert len(read_from) > 1


def test_a_reader_of_what_comes_leaves_out_what_is_there(topic: Topic) -> None:
    for number in range(8):
        topic.add(f"before {number}", {})
    reader = TopicReader(topic.kafka)
    reader.open(new_only=True)
    assert reader.is_at_end()
    topic.add("after", {})
    found: list[bytes | None] = []
    while not found:
        found += [record.key for record in reader.poll(1)]
    reader.close()
    assert found == [b"after"]


def test_results_that_are_not_read_to_their_end_leave_nothing_behind(topic: Topic) -> None:
    topic.add("a", {})
    with topic.client() as client:
        results = client.results(follow=True)
        assert next(results).trace_id == "a"
    # A coroutine that nobody awaits, or an error that nobody catches, is a warning, and so fails the test.
    with pytest.raises(RuntimeError, match="the client is closed"):
        next(results)
    del results
    gc.collect()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.result("a")
    gc.collect()


def test_a_call_that_waits_in_another_thread_while_the_client_is_closed_is_ended(topic: Topic) -> None:
    with topic.client() as client, ThreadPoolExecutor(1) as thread:
        waits = thread.submit(client.result, "never", timeout=60)
        time.sleep(0.5)
        assert not waits.done()
        client.close()
        with pytest.raises(RuntimeError, match="the client is closed"):
            waits.result(timeout=10)


def test_what_could_never_have_a_result_is_not_uploaded() -> None:
    nowhere = Minio(endpoint="127.0.0.1:9", secure=False, access_key="a", secret_key="s")
    with PredictionClient(Settings(task=Digits(), minio=nowhere)) as client:
        with pytest.raises(NotAllowed, match="SOURCE_BUCKETS"):
            client.upload(b"", key="0.png", bucket="digit-0")
        with pytest.raises(NotAllowed, match="SOURCE_SUFFIXES"):
            client.upload(b"", key="0.txt")
        with pytest.raises(BadKey):
            client.upload(b"", key="../0.png")
        for trace_id in ("a\nb", "x" * 257, NOT_UTF_8):
            with pytest.raises(BadTraceId):
                client.upload(b"", key="0.png", trace_id=trace_id)


@pytest.mark.parametrize("command", [("results",), ("submit", "0.png")])
@pytest.mark.parametrize("trace_id", ["a\nb", "x" * 257, NOT_UTF_8])
def test_a_trace_id_that_no_result_can_have_is_told(
    command: tuple[str, ...], trace_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("0.png").write_bytes(b"")
    ran = run(*command, "--trace-id", trace_id, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert (ran.returncode, ran.stdout, "argument --trace-id: the trace id " in ran.stderr) == (2, "", True)


def test_a_folder_without_pictures_sends_nothing_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    left_out = f"{tmp_path / 'notes.txt'} is left out: its name does not end in .png (SOURCE_SUFFIXES)\n"
    ran = run("submit", tmp_path, "--url", "http://127.0.0.1:9/")
    assert (ran.returncode, ran.stderr) == (2, left_out + "there is nothing to send\n")
    (tmp_path / "notes.txt").unlink()
    ran = run("submit", tmp_path, MINIO_ACCESS_KEY="a", MINIO_SECRET_KEY="s")
    assert (ran.returncode, ran.stderr) == (2, "there is nothing to send\n")
    os.mkfifo(tmp_path / "pipe.png")  # of which nobody writes into the other end
    ran = run("submit", tmp_path, MINIO_ACCESS_KEY="a", MINIO_SECRET_KEY="s")
    assert (ran.returncode, ran.stderr) == (
        2,
        f"{tmp_path / 'pipe.png'} is left out: no regular file\nthere is nothing to send\n",
    )


def test_the_result_of_somebody_s_own_data_has_no_scores_but_numbers() -> None:
    result = PredictionResult(trace_id="x", event={"type": "t", "data": {"scores": ["high"], "destination": 7}})
    assert (result.scores, result.destination, result.subject) == ([], None, None)
