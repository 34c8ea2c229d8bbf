"""`mnist-pipeline replay`: dead letters of a topic and rejected objects, on the embedded servers and on real ones."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
from kafka import KafkaProducer

from e2e.following import post, wait_until
from e2e.places import REJECTED_BUCKET, Place
from e2e.sinks import Sink, always
from e2e.test_client import run
from logged import said_by_us
from mnist_pipeline.client.replay import GivenUp, Replay
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.pipeline.cloud_events import event_headers
from mnist_pipeline.testing import digit_png

# As Knative's Kafka Broker keeps what a source or a Trigger has given up.
GIVEN_UP = {
    "knativeerrordest": "http://transformer/",
    "knativeerrorcode": "503",
    "knativeerrordata": base64.b64encode(b"away").decode(),
}


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[ModelServer]:
    server = place.start()
    server.wait_ready()
    yield server
    server.close()


def settings_of(place: Place) -> dict[str, str]:
    return {**place.settings, **place.owner, "SOURCE_BUCKETS": place.bucket}


class DeadLetters:
    """A topic of dead letters."""

    def __init__(self, place: Place, topic: str) -> None:
        self.topic = topic
        version = place.settings.get("KAFKA_API_VERSION")
        self._producer = KafkaProducer(
            bootstrap_servers=place.settings["KAFKA_BOOTSTRAP_SERVERS"],
            **({"api_version": tuple(map(int, version.split(".")))} if version else {}),
        )

    def add(self, body: Any, attributes: Mapping[str, str] | None = None, *, at: float | None = None) -> None:
        """An event in binary mode; without attributes a record that is none. `at`: when it was given up."""
        record = {"timestamp_ms": int(1000 * (at or time.time()))}
        value = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = [] if attributes is None else [("content-type", b"application/json")]
        headers += [(f"ce_{name}", text.encode()) for name, text in (attributes or {}).items()]
        self._producer.send(self.topic, value=value, key=b"", headers=headers, **record).get(timeout=10)

    def close(self) -> None:
        self._producer.close()


@pytest.fixture
def letters(place: Place, request: pytest.FixtureRequest) -> Iterator[DeadLetters]:
    topic = f"dead-{uuid.uuid4()}"
    if place.versioned:  # the embedded broker makes a topic by itself
        request.getfixturevalue("real_kafka").create_topic(topic)
    letters = DeadLetters(place, topic)
    yield letters
    letters.close()


def attributes(**more: str) -> dict[str, str]:
    return {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "test", "type": "dev.knative.kafka.event", **more}


def test_dead_letters_go_down_the_path_again_inline_ones_too(
    place: Place, server: ModelServer, letters: DeadLetters
) -> None:
    upload = place.upload(f"{uuid.uuid4()}.png", digit_png(4))
    trace_id = str(uuid.uuid4())
    inline = {"test-trace-id": trace_id, "instances": [{"data": base64.b64encode(digit_png(9)).decode()}]}
    letters.add(upload.event, attributes(**GIVEN_UP, reason="store"))
    letters.add(inline, attributes(**GIVEN_UP, reason="kafka"))
    command = ("replay", "--topic", letters.topic, "--sink", server.predict_url)
    dry = run(*command, "--dry-run", **settings_of(place))
    assert (dry.returncode, dry.stderr) == (1, "2 to be replayed\n")
    assert sorted(line.split("  ")[1] for line in dry.stdout.splitlines()) == ["kafka", "store"]
    assert place.is_left(upload)
    ran = run(*command, **settings_of(place))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "2 replayed, 0 not\n", "")
    assert place.copies(upload) == {f"digit-4/{upload.key}": upload.data}
    assert not place.is_left(upload)
    # Nothing is filed twice, and the same work has the same id.
    assert run(*command, **settings_of(place)).returncode == 0
    assert len(place.results(upload)) == 1
    events = [event for event in place.all_results() if event.get("test-trace-id") == trace_id]
    assert [event["data"] for event in events] == [{"predictions": [9]}] * 2
    assert len({event["id"] for event in events}) == 1


def test_only_what_was_given_up_for_a_reason_or_lately_is_sent(place: Place, letters: DeadLetters) -> None:
    letters.add({}, attributes(reason="store"), at=time.time() - 7200)
    letters.add({}, attributes(reason="kafka"))
    letters.add(b"no event")
    with Sink(always(200)) as sink:
        command = ("replay", "--topic", letters.topic, "--sink", sink.url)
        ran = run(*command, "--reason", "store", **settings_of(place))
        assert (ran.returncode, ran.stdout, len(sink.received)) == (0, "1 replayed, 0 not\n", 1)
        assert "is left out: it is no CloudEvent" in ran.stderr
        # The attributes are those that the event had before it was given up.
        assert {name for name in sink.received[0].headers if name.startswith("ce-")} == {
            f"ce-{name}" for name in attributes()
        }
        assert run(*command, "--since", "1h", **settings_of(place)).stdout == "1 replayed, 0 not\n"


def test_what_is_refused_again_is_told_and_the_others_go_on(place: Place, letters: DeadLetters) -> None:
    for number in range(3):
        letters.add({"number": number}, attributes())
    with Sink(lambda received: 422 if b"1" in received.body else 200) as sink:
        ran = run("replay", "--topic", letters.topic, "--sink", sink.url, **settings_of(place))
    assert (ran.returncode, ran.stdout) == (1, "2 replayed, 1 not\n")
    assert "answered 422 test" in ran.stderr


def test_a_sink_that_says_to_come_again_is_asked_again(place: Place, letters: DeadLetters) -> None:
    letters.add({}, attributes())
    answers = iter([503, 429, 200])
    with Sink(lambda _: next(answers)) as sink:
        ran = run("replay", "--topic", letters.topic, "--sink", sink.url, **settings_of(place))
    assert (ran.returncode, ran.stdout, len(sink.received)) == (0, "1 replayed, 0 not\n", 3)


def test_it_goes_at_a_rate_and_ends_after_what_is_in_hand(place: Place, letters: DeadLetters) -> None:
    for _ in range(9):
        letters.add({}, attributes())
    command = [sys.executable, "-m", "mnist_pipeline", "replay", "--topic", letters.topic, "--rate", "4"]
    with Sink(always(200)) as sink:
        with subprocess.Popen(
            [*command, "--sink", sink.url],
            env={**os.environ, **settings_of(place)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as replaying:
            wait_until(lambda: len(sink.received) == 3, seconds=30)
            replaying.send_signal(signal.SIGINT)
            said, _ = replaying.communicate(timeout=20)
        assert replaying.returncode == 1
        assert said == f"{len(sink.received)} replayed, 0 not\n"
        assert sink.received[2].at - sink.received[0].at >= 0.4
        assert len(sink.received) < 9


async def given_up(number: int, send: Callable[[], Awaitable[None]]) -> AsyncIterator[GivenUp]:
    for place in range(number):
        yield GivenUp(name=f"letter {place}", reason="store", send=send)


async def test_it_stops_as_well_while_it_finds_nothing_to_be_sent() -> None:
    replay, looked_at = Replay(), []

    async def endless() -> AsyncIterator[GivenUp]:
        async for one in given_up(1_000, never):
            looked_at.append(one)
            if len(looked_at) == 3:
                replay.stop()
            yield one

    async def never() -> None:
        raise AssertionError("it has another reason")

    await replay.run(endless(), reason="badimage")
    assert (len(looked_at), replay.sent, replay.failed) == (3, 0, 0)


async def test_what_nobody_foresaw_is_counted_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[None] = []

    async def send() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise ZeroDivisionError

    replay = Replay()
    await replay.run(given_up(20, send))
    assert (replay.sent, replay.failed) == (19, 1)
    assert said_by_us(caplog) == ["letter 1 failed in a way that nobody foresaw"]


def test_rejected_objects_are_uploaded_again_once(place: Place, server: ModelServer) -> None:
    upload = place.upload(f"{uuid.uuid4()}.png", b"not yet", metadata={"by": "me"})
    post(server.predict_url, upload.event)
    assert place.copies(upload) == {f"{REJECTED_BUCKET}/{upload.key}": upload.data}
    command = ("replay", "--rejected", "--bucket", place.bucket)
    assert upload.key in run(*command, "--dry-run", **settings_of(place)).stdout
    assert upload.key not in run(*command, "--dry-run", "--reason", "nodigit", **settings_of(place)).stdout
    ran = run(*command, **settings_of(place))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert place.is_left(upload)
    there = place.client().stat_object(bucket_name=place.bucket, object_name=upload.key).metadata or {}
    described = {name.lower(): value for name, value in there.items()}
    assert (described["x-amz-meta-by"], "x-amz-meta-rejected-reason" in described) == ("me", False)
    assert described["x-amz-meta-test-trace-id"]
    # Nothing is deleted, and what was sent again is not sent once more.
    assert f"{REJECTED_BUCKET}/{upload.key}" in place.copies(upload)
    assert upload.key not in run(*command, "--dry-run", **settings_of(place)).stdout
    assert upload.key in run(*command, "--dry-run", "--again", **settings_of(place)).stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "one of the arguments --topic --rejected is required"),
        (["--topic", "t"], "--topic needs --sink"),
        (["--topic", "a b", "--sink", "http://x"], "--topic"),
        (["--topic", "t", "--sink", "http://x"], "KAFKA_BOOTSTRAP_SERVERS is not set"),
        (["--rejected"], "MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set"),
        (["--rejected", "--bucket", "other"], "--bucket: which of SOURCE_BUCKETS is meant, mnist?"),
    ],
)
def test_a_command_line_that_cannot_work_is_told(arguments: list[str], told: str) -> None:
    with_store = {"MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": "s"} if "--bucket" in arguments else {}
    ran = run("replay", *arguments, **with_store)
    assert (ran.returncode, ran.stdout, told in ran.stderr) == (2, "", True), ran.stderr


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            (("ce_specversion", b"1.0"), ("ce_subject", "été".encode())),
            {"ce-specversion": "1.0", "ce-subject": "%C3%A9t%C3%A9"},
        ),
        (
            (("content-type", b"application/cloudevents+json; charset=UTF-8"),),
            {"content-type": "application/cloudevents+json; charset=UTF-8"},
        ),
        ((("content-type", b"application/json"),), None),
        ((), None),
    ],
)
def test_events_in_both_modes_are_posted_as_http_has_them(headers: Any, expected: Mapping[str, str] | None) -> None:
    assert event_headers(headers) == expected
