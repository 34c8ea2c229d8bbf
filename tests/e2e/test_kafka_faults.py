"""Rows 26 and 27: a transformer whose Kafka is away, frozen, killed or behind a bad line, or refuses a message."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import pytest

from e2e.following import wait_until
from e2e.metrics import Metrics
from e2e.places import REJECTED_BUCKET, Place, Upload
from e2e.ways import Way, deliver
from mnist_pipeline.adapters.group_member import Subscription
from mnist_pipeline.adapters.kafka import member_of, publisher_of
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.local.processes import Sandbox, answers_ok, free_port
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Kafka
from mnist_pipeline.testing import digit_png
from servers.kafka import KafkaProgram, KafkaServer
from servers.proxy import Proxy
from taking import Taker

pytestmark = pytest.mark.real

DEADLINE_SECONDS = 4
TOPIC = "results"
API_VERSION = (4, 0)
JSON = {"content-type": "application/json"}
READY = "/v1/models/mnist"
ALIVE = "/v2/health/live"


@dataclass(kw_only=True)
class Line:
    """A broker of these tests' own, and a proxy through which transformers reach it."""

    kafka: KafkaServer
    proxy: Proxy

    def heal(self) -> None:
        """Have all of it work again."""
        self.proxy.heal()
        if self.kafka.running:
            self.kafka.thaw()
        else:
            self.kafka.start()
        self.kafka.wait_ready()

    def break_down(self, fault: str) -> None:
        """Do what `fault` says, for a while or until `heal()`."""
        {
            "the broker frozen": self.kafka.freeze,
            "the broker killed": self.kafka.kill,
            "the broker stopped": self.kafka.stop,
            "the line cut": self.proxy.cut,
            "the line frozen": self.proxy.freeze,
        }[fault]()


FAULTS = ["the broker frozen", "the broker killed", "the broker stopped", "the line cut", "the line frozen"]


@pytest.fixture(scope="module")
def line(kafka_program: KafkaProgram) -> Iterator[Line]:
    port = free_port()
    with (
        Sandbox() as sandbox,
        KafkaServer(
            kafka_program,
            sandbox,
            listeners={"PROXIED": "PLAINTEXT"},
            advertised={"PROXIED": f"127.0.0.1:{port}"},
        ) as kafka,
        Proxy(int(kafka.address("PROXIED").rpartition(":")[2]), port=port) as proxy,
    ):
        kafka.create_topic(TOPIC)
        yield Line(kafka=kafka, proxy=proxy)


@pytest.fixture(scope="module")
def at_line(real_place: Place, line: Line) -> Place:
    """The place of the real servers, but with the broker that is broken."""
    settings = {
        **real_place.settings,
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{line.proxy.port}",
        "KAFKA_TOPIC": TOPIC,
        "EVENT_TIMEOUT_SECONDS": str(DEADLINE_SECONDS),
    }
    read = partial(read_topic, line.kafka.bootstrap_servers, TOPIC, api_version=API_VERSION)
    return replace(real_place, settings=settings, kafka=line.kafka, read_results=read)


@pytest.fixture(scope="module")
def server(at_line: Place) -> Iterator[ModelServer]:
    """A transformer that lives through all faults."""
    server = at_line.start()
    server.wait_ready()
    yield server
    server.close()


@pytest.fixture
def whole(line: Line) -> Iterator[Line]:
    """The broker, whole again after the test."""
    yield line
    line.heal()


def new_key() -> str:
    return f"{uuid.uuid4()}.png"


def status_of(server: ModelServer, upload: Upload) -> int:
    return deliver(server, upload.event, {"ce-id": "1"}).status


def probed(server: ModelServer, path: str) -> int | None:
    """What a probe is answered; None where nobody listens, or is too busy to answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (ConnectionError, TimeoutError):
        return None
    finally:
        connection.close()


def lines_with(server: ModelServer, *texts: str) -> list[str]:
    """The lines of its log that have all of these in them."""
    return [line for line in server.child.log.read_text().splitlines() if all(text in line for text in texts)]


def image() -> dict[str, str]:
    return {"data": base64.b64encode(digit_png(7)).decode()}


# --- away ---


def test_row_26_a_transformer_that_starts_while_kafka_is_away_is_alive_not_ready_and_works_once_it_is_there(
    at_line: Place, whole: Line
) -> None:
    place = at_line
    whole.kafka.stop()
    whole.proxy.cut()
    server = place.start()
    wait_until(lambda: probed(server, ALIVE) == http.client.OK, seconds=120)
    upload = place.upload(new_key(), digit_png(3))
    give_up = time.monotonic() + 8
    while time.monotonic() < give_up:
        assert probed(server, ALIVE) == http.client.OK
        assert probed(server, READY) == http.client.SERVICE_UNAVAILABLE
        assert status_of(server, upload) == 503
        time.sleep(0.5)
    assert server.child.running
    said = [line.partition("not ready")[2] for line in lines_with(server, " mnist_pipeline.", "not ready")]
    assert said
    assert all("KAFKA_BOOTSTRAP_SERVERS" in reason for reason in said)
    # A reason is told when it is new, and not by each of the checks.
    assert all(reason != before for before, reason in pairwise(said)), said
    assert place.is_left(upload)
    assert place.copies(upload) == {}

    whole.heal()
    server.wait_ready()
    assert status_of(server, upload) == 200
    assert place.copies(upload) == {f"digit-3/{upload.key}": upload.data}
    assert not place.is_left(upload)
    assert len(place.results(upload)) == 1
    server.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_row_26_kafka_away_at_publish_keeps_the_source_within_the_deadline_and_is_used_again_without_a_restart(
    at_line: Place, server: ModelServer, whole: Line, fault: str
) -> None:
    place, pid = at_line, server.child.pid
    good = [place.upload(new_key(), digit_png(digit)) for digit in range(4)]
    bad = place.upload(new_key(), b"no image")
    whole.break_down(fault)
    started = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(status_of, server, upload) for upload in (*good, bad)]
        while wait(answers, timeout=0.2).not_done:
            # Readiness is latched, and nothing waits for Kafka on the event loop.
            assert answers_ok(server.http_port, READY, timeout_seconds=3)
            assert answers_ok(server.http_port, ALIVE, timeout_seconds=3)
    assert time.monotonic() - started < DEADLINE_SECONDS + 3
    assert {answer.result() for answer in answers} <= {503, 504}
    # Filed, but neither announced nor released.
    assert [list(place.copies(upload)) for upload in good] == [
        [f"digit-{digit}/{upload.key}"] for digit, upload in enumerate(good)
    ]
    assert set(place.copies(bad)) <= {f"{REJECTED_BUCKET}/{bad.key}"}
    assert all(place.is_left(upload) for upload in (*good, bad))
    for upload in (*good, bad):
        (said,) = [line for line in lines_with(server, upload.key) if " ERROR " in line]
        assert f"'{TOPIC}'" in said or "KAFKA_BOOTSTRAP_SERVERS" in said

    whole.heal()
    wait_until(lambda: status_of(server, good[0]) == 200, seconds=30)
    assert {status_of(server, upload) for upload in good} == {200}
    assert status_of(server, bad) == 422
    assert not any(place.is_left(upload) for upload in (*good, bad))
    assert [place.copies(upload) for upload in (*good, bad)] == [
        {f"{bucket}/{upload.key}": upload.data}
        for bucket, upload in zip(
            [*(f"digit-{digit}" for digit in range(4)), REJECTED_BUCKET], [*good, bad], strict=True
        )
    ]
    # A message that was given up may still arrive, under the same id.
    ids = place.ids_by_subject()
    assert {len(ids[f"{place.bucket}/{upload.key}"]) for upload in (*good, bad)} == {1}
    assert (server.child.running, server.child.pid) == (True, pid)
    assert "Traceback" not in server.child.log.read_text()


@pytest.mark.parametrize("fault", FAULTS)
def test_row_26_kafka_away_while_records_are_in_hand_loses_none_and_is_used_again_without_a_restart(
    at_line: Place, whole: Line, fault: str
) -> None:
    place = at_line
    uploads = [place.upload(new_key(), digit_png(number % 10)) for number in range(80)]
    with Proxy(place.predictor.http_port) as predictor:
        consumer = place.consume(predictor_host=f"127.0.0.1:{predictor.port}")
        consumer.wait_ready()
        pid = consumer.child.pid
        # What is in hand when Kafka goes comes to its results only then.
        predictor.freeze()
        records = consumer.group.write_all([(json.dumps(upload.event).encode(), {}) for upload in uploads])
        wait_until(lambda: Metrics.of(consumer).value("in_flight") > 0, seconds=60)
        whole.break_down(fault)
        predictor.heal()
        # Longer than the group waits for a silent member.
        back = time.monotonic() + 12
        while time.monotonic() < back:
            assert answers_ok(consumer.http_port, ALIVE, timeout_seconds=3)
            time.sleep(0.2)
        assert all(place.is_left(upload) for upload in uploads)
        whole.heal()
        wait_until(lambda: all(consumer.group.has_settled(sent) for sent in records), seconds=90, every=0.1)
        assert (consumer.child.running, consumer.child.pid) == (True, pid)
        assert consumer.group.dead_letters == []
        assert "Traceback" not in consumer.child.log.read_text()
        consumer.close()
    assert [place.copies(upload) for upload in uploads] == [
        {f"digit-{number % 10}/{upload.key}": upload.data} for number, upload in enumerate(uploads)
    ]
    ids = place.ids_by_subject()
    assert {len(ids[f"{place.bucket}/{upload.key}"]) for upload in uploads} == {1}


def test_row_26_a_slow_line_to_kafka_is_waited_for(at_line: Place, server: ModelServer, whole: Line) -> None:
    upload = at_line.upload(new_key(), digit_png(5))
    whole.proxy.delay(0.5)
    started = time.monotonic()
    assert status_of(server, upload) == 200
    assert 0.4 < time.monotonic() - started < DEADLINE_SECONDS
    assert not at_line.is_left(upload)
    assert len(at_line.results(upload)) == 1


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
async def test_row_26_a_slow_line_to_kafka_can_be_connected_over(whole: Line, client: str) -> None:
    kafka = Kafka(bootstrap_servers=f"127.0.0.1:{whole.proxy.port}", topic=TOPIC, client=client)
    whole.proxy.delay(0.4)
    publisher = publisher_of(kafka)
    member = member_of(kafka, Subscription(topics=(TOPIC,), group=str(uuid.uuid4())), Taker())
    member.begin()
    try:
        await publisher.check(deadline=Deadline(20))
        await asyncio.to_thread(wait_until, lambda: member.is_assigned)
    finally:
        whole.heal()
        await asyncio.to_thread(member.close)
        await publisher.close()


# --- the topic ---


def test_row_27_a_topic_that_is_missing_is_named_and_found_once_it_is_made(
    at_line: Place, line: Line, way: Way
) -> None:
    topic = f"later-{uuid.uuid4()}"
    read = partial(read_topic, line.kafka.bootstrap_servers, topic, api_version=API_VERSION)
    place = replace(at_line, settings={**at_line.settings, "KAFKA_TOPIC": topic}, read_results=read)
    line.kafka.create_topic(topic)
    server = place.start(way=way)
    server.wait_ready()
    with line.kafka.admin() as admin:
        admin.delete_topics([topic])
    upload = place.upload(new_key(), digit_png(6))
    started = time.monotonic()
    assert status_of(server, upload) in (503, 504)
    assert time.monotonic() - started < DEADLINE_SECONDS + 3
    assert lines_with(server, " ERROR ", upload.key, f"'{topic}'")
    assert place.is_left(upload)
    line.kafka.create_topic(topic)
    wait_until(lambda: status_of(server, upload) == 200, seconds=30)
    assert not place.is_left(upload)
    assert place.ids_by_subject().keys() == {f"{place.bucket}/{upload.key}"}
    server.close()


def test_row_27_a_transformer_whose_topic_was_never_there_is_not_ready_and_names_it(
    at_line: Place, line: Line, way: Way
) -> None:
    topic = f"never-{uuid.uuid4()}"
    server = at_line.start(settings={"KAFKA_TOPIC": topic}, way=way)
    wait_until(lambda: probed(server, ALIVE) == http.client.OK, seconds=120)
    upload = at_line.upload(new_key(), digit_png(6))
    wait_until(lambda: probed(server, READY) == http.client.SERVICE_UNAVAILABLE)
    assert status_of(server, upload) == 503
    wait_until(lambda: bool(lines_with(server, "not ready", f"'{topic}'")))
    assert at_line.is_left(upload)
    line.kafka.create_topic(topic)
    server.wait_ready()
    assert status_of(server, upload) == 200
    server.close()


def test_row_27_a_message_too_large_for_the_topic_is_retried_for_an_object_and_rejected_for_an_inline_request(
    at_line: Place, line: Line, way: Way
) -> None:
    topic = f"narrow-{uuid.uuid4()}"
    line.kafka.create_topic(topic, max_message_bytes="2000")
    read = partial(read_topic, line.kafka.bootstrap_servers, topic, api_version=API_VERSION)
    place = replace(at_line, settings={**at_line.settings, "KAFKA_TOPIC": topic}, read_results=read)
    server = place.start(way=way)
    server.wait_ready()

    # Its key is in the message three times.
    key = f"{'/'.join(['a' * 200] * 4)}/{new_key()}"
    upload = place.upload(key, digit_png(7))
    assert status_of(server, upload) == 503
    assert lines_with(server, " ERROR ", upload.key, f"'{topic}'", "too large")
    assert place.is_left(upload)
    assert list(place.copies(upload)) == [f"digit-7/{upload.key}"]

    trace_id = str(uuid.uuid4())
    request = {"instances": [image()] * 1000, "test-trace-id": trace_id}
    answer = deliver(server, request, JSON)
    assert (answer.status, answer.headers["kne-reason"]) == (422, "resulttoolarge")
    (event,) = place.all_results()
    assert (event["test-trace-id"], event["data"]["reason"]) == (trace_id, "resulttoolarge")

    fits = place.upload(new_key(), digit_png(7))
    assert status_of(server, fits) == 200
    server.close()
