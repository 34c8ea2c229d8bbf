"""`PredictionClient`, `mnist-pipeline submit` and `results`, in both event modes, on the embedded servers and on Apache
Kafka and MinIO themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from e2e.following import post, wait_until
from e2e.places import Place
from mnist_pipeline import (
    AsyncPredictionClient,
    Digits,
    KeyTaken,
    PredictionClient,
    PredictionRejected,
    RequestFailed,
    RequestRefused,
    ResultTimeout,
    Settings,
)
from mnist_pipeline.adapters.kafka_records import TopicReader
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.settings import Kafka, SettingsError
from mnist_pipeline.testing import digit_png, minio_event


def run(*arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """`mnist-pipeline` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "mnist_pipeline", *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


@dataclass(frozen=True)
class User:
    """Somebody who sends to a transformer and reads its results."""

    place: Place
    server: ModelServer
    environ: Mapping[str, str]

    def client(self) -> PredictionClient:
        return PredictionClient.from_environ(environ=self.environ, url=self.server.predict_url)

    def announce(self, key: str) -> None:
        """Deliver the notification of an upload."""
        stat = self.place.client().stat_object(bucket_name=self.place.bucket, object_name=key)
        version = stat.version_id if self.place.versioned else None
        event = minio_event(self.place.bucket, key, version_id=version, etag=stat.etag or "")
        post(self.server.predict_url, event)

    def run(self, *arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, **{**self.environ, **settings})

    def kafka(self) -> Kafka:
        kafka = Settings.from_environ(self.environ, Digits()).kafka
        assert kafka is not None
        return kafka


@pytest.fixture(scope="module")
def user_in(place: Place, request: pytest.FixtureRequest) -> Iterator[Callable[[str], User]]:
    """Gives the user of a transformer in an event mode, one of each; both write to a topic of their own."""
    topic = f"results-{uuid.uuid4()}"
    if place.versioned:  # the embedded broker makes a topic by itself
        request.getfixturevalue("real_kafka").create_topic(topic, partitions=6)
    environ = {**place.settings, **place.owner, "SOURCE_BUCKETS": place.bucket, "KAFKA_TOPIC": topic}
    del environ["MAX_BODY_BYTES"]
    with contextlib.ExitStack() as servers:

        @functools.cache
        def user(mode: str) -> User:
            server = place.start(settings={"EVENT_MODE": mode, "KAFKA_TOPIC": topic})
            servers.callback(server.close)
            server.wait_ready()
            return User(place, server, environ)

        yield user


@pytest.fixture
def user(user_in: Callable[[str], User]) -> User:
    return user_in("structured")


@pytest.fixture(params=["structured", "binary"])
def any_user(user_in: Callable[[str], User], request: pytest.FixtureRequest) -> User:
    return user_in(request.param)


def records_of(kafka: Kafka, *, key: bytes | None = None) -> list[Record]:
    """All records of a topic, or of a key's partition."""
    reader = TopicReader(kafka)
    reader.open(key=key)
    assert key is None or len(reader.partitions) == 1
    records = []
    while not reader.is_at_end():
        records += reader.poll(1)
    reader.close()
    return records


def new_key() -> str:
    return f"{uuid.uuid4()}.png"


def test_an_upload_s_result_is_found_by_its_trace_id(any_user: User) -> None:
    key = new_key()
    with any_user.client() as client:
        sent = client.upload(digit_png(7), key=key)
        any_user.announce(key)
        result = client.result(sent, timeout=20)
    assert (sent.place, result.subject) == (f"{any_user.place.bucket}/{key}",) * 2
    assert (result.predictions, result.destination, result.trace_id) == ([7], f"digit-7/{key}", sent.trace_id)
    assert len(result.scores) == 1
    assert "test-trace-id" in result.event


def test_an_inline_request_s_result_is_found_by_its_trace_id(any_user: User) -> None:
    with any_user.client() as client:
        sent = client.ask(digit_png(1), digit_png(4), trace_id=f"mine-{uuid.uuid4()}")
        result = client.result(sent.trace_id, timeout=20)
        tensor = client.ask_instances([[0.0] * 784])
        assert len(client.result(tensor, timeout=20).predictions) == 1
    assert (result.predictions, result.subject, result.destination) == ([1, 4], None, None)


def test_results_prints_an_object_s_and_an_inline_result_by_trace_id(any_user: User) -> None:
    key = new_key()
    with any_user.client() as client:
        uploaded = client.upload(digit_png(3), key=key)
        any_user.announce(key)
        asked = client.ask(digit_png(5))
    of_object = any_user.run("results", "--trace-id", uploaded.trace_id)
    assert (of_object.returncode, of_object.stderr) == (0, "")
    assert f"  {uploaded.trace_id}  {any_user.place.bucket}/{key}  3 (" in of_object.stdout
    assert of_object.stdout.endswith(f"  digit-3/{key}\n")
    inline = any_user.run("results", "--trace-id", asked.trace_id, "--json")
    event = json.loads(inline.stdout)
    assert (event["data"], event["test-trace-id"]) == ({"predictions": [5]}, asked.trace_id)


def test_with_a_trace_id_only_the_partition_of_that_key_is_read(user: User) -> None:
    with user.client() as client:
        sent = [client.ask(digit_png(2)).trace_id for _ in range(12)]
    lies_in = {record.key: record.partition for record in records_of(user.kafka())}
    assert len({lies_in[trace_id.encode()] for trace_id in sent}) > 1
    for trace_id in sent:
        records = records_of(user.kafka(), key=trace_id.encode())
        assert {record.partition for record in records} == {lies_in[trace_id.encode()]}
        assert trace_id.encode() in {record.key for record in records}


def test_what_was_published_before_a_moment_is_left_out(user: User) -> None:
    with user.client() as client:
        before = client.result(client.ask(digit_png(0)), timeout=20)
        time.sleep(0.05)
        moment = datetime.now(timezone.utc)
        after = client.result(client.ask(digit_png(0)), timeout=20)
        found = {result.trace_id for result in client.results(since=moment)}
        assert after.trace_id in found
        assert before.trace_id not in found
        assert {before.trace_id, after.trace_id} <= {result.trace_id for result in client.results()}
        assert list(client.results(since=datetime.now(timezone.utc) + timedelta(hours=1))) == []


def test_a_rejection_is_an_error_of_its_own(any_user: User) -> None:
    key = new_key()
    with any_user.client() as client:
        sent = client.upload(b"no picture", key=key)
        any_user.announce(key)
        with pytest.raises(PredictionRejected, match="badimage") as raised:
            client.result(sent, timeout=20)
        assert raised.value.result.destination == f"mnist-rejected/{key}"
        with pytest.raises(RequestRefused) as refused:
            client.ask(b"no picture")
        assert (refused.value.status, refused.value.reason) == (422, "badimage")
    ran = any_user.run("results", "--trace-id", sent.trace_id)
    assert (ran.returncode, "rejected: badimage" in ran.stdout, "badimage: " in ran.stderr) == (1, True, True)


def test_a_result_that_does_not_come_is_an_error_of_its_own(user: User) -> None:
    with user.client() as client, pytest.raises(ResultTimeout, match="nobody after 1 s"):
        client.result("nobody", timeout=1)
    ran = user.run("results", "--trace-id", "nobody", "--timeout", "1s")
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "no result with the trace id nobody after 1 s\n")


def test_an_object_that_lies_there_is_not_written_over(user: User) -> None:
    if not user.place.versioned:
        pytest.skip("the embedded gateway ignores If-None-Match")
    key = new_key()
    with user.client() as client:
        sent = client.upload(digit_png(1), key=key)
        with pytest.raises(KeyTaken):
            client.upload(digit_png(2), key=key)
        # Sent again because its answer was lost, an upload meets itself.
        assert client.upload(digit_png(1), key=key, trace_id=sent.trace_id).place == sent.place
    user.announce(key)


def test_it_works_on_an_event_loop_and_many_at_once(user: User) -> None:
    async def ask() -> list[Any]:
        async with AsyncPredictionClient(
            Settings.from_environ(user.environ, Digits()), url=user.server.predict_url
        ) as client:
            sent = await asyncio.gather(*(client.ask(digit_png(digit)) for digit in range(10)))
            results = await asyncio.gather(*(client.result(one, timeout=30) for one in sent))
            return [result.predictions[0] for result in results]

    assert asyncio.run(ask()) == list(range(10))


def test_a_broker_topic_or_sink_that_is_not_there_is_one_sentence(user: User) -> None:
    absent = {**user.environ, "KAFKA_TOPIC": "absent"}
    with PredictionClient.from_environ(environ=absent) as client, pytest.raises(KafkaUnavailable, match="'absent'"):
        client.result("x", timeout=20)
    away = user.run("results", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    says = "not connected: no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS\n"
    assert (away.returncode, away.stderr) == (1, says)
    with PredictionClient.from_environ(environ=user.environ, url="http://127.0.0.1:9/") as client:
        with pytest.raises(RequestFailed, match="gave no answer") as raised:
            client.ask(digit_png(1))
        assert raised.value.status is None
        with pytest.raises(RequestFailed, match="gave no answer"):
            client.ask(digit_png(1), timeout=0.3)  # too little for another attempt


def test_what_a_client_lacks_is_told_by_its_name() -> None:
    with PredictionClient.from_environ(environ={}) as client:
        with pytest.raises(SettingsError, match="MINIO_ACCESS_KEY"):
            client.upload(b"", key="0.png")
        with pytest.raises(SettingsError, match="KAFKA_BOOTSTRAP_SERVERS"):
            client.result("x")
        with pytest.raises(SettingsError, match="url"):
            client.ask(b"")
    with pytest.raises(SettingsError, match="EVENT_MODE"):
        PredictionClient.from_environ(environ={"EVENT_MODE": "x"})
    with pytest.raises(SettingsError, match="url: 'localhost:8080' is no http or https URL"):
        PredictionClient.from_environ(environ={}, url="localhost:8080")


def test_submit_uploads_a_folder_and_waits_for_its_predictions(user: User, tmp_path: Path) -> None:
    folder, prefix = tmp_path / "with a blank", f"{uuid.uuid4()}/"
    (folder / "more").mkdir(parents=True)
    for digit in range(3):
        (folder / f"{digit}.png").write_bytes(digit_png(digit))
    (folder / "notes.txt").write_text("no picture")

    def deliver() -> None:
        for digit in range(3):
            end = time.monotonic() + 30
            while time.monotonic() < end:
                try:
                    user.announce(f"{prefix}{digit}.png")
                    break
                except Exception:  # noqa: BLE001 - it is not uploaded yet
                    time.sleep(0.1)

    deliverer = threading.Thread(target=deliver)
    deliverer.start()
    ran = user.run("submit", folder, "--prefix", prefix, "--wait", "--timeout", "40s")
    deliverer.join()
    assert ran.stderr.splitlines() == [
        f"{folder / 'more'} is left out: a folder in a folder",
        f"{folder / 'notes.txt'} is left out: its name does not end in .png (SOURCE_SUFFIXES)",
    ]
    for digit in range(3):
        assert f"  {user.place.bucket}/{prefix}{digit}.png  {digit} (" in ran.stdout
    assert (ran.returncode, len(ran.stdout.splitlines())) == (1, 3)


def test_ctrl_c_while_it_waits_tells_what_is_sent_already(user: User, tmp_path: Path) -> None:
    file = tmp_path / f"{uuid.uuid4()}.png"
    file.write_bytes(digit_png(1))
    command = [sys.executable, "-m", "mnist_pipeline", "submit", str(file), "--wait"]
    with subprocess.Popen(
        command, env={**os.environ, **user.environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        wait_until(lambda: file.name in keys_in(user.place), seconds=30)
        time.sleep(0.5)
        waiting.send_signal(signal.SIGINT)
        said, _ = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert said.endswith(f"  {user.place.bucket}/{file.name}\n")


def keys_in(place: Place) -> set[str | None]:
    return {one.object_name for one in place.client().list_objects(bucket_name=place.bucket, recursive=True)}


def test_submit_posts_inline_and_tells_what_is_refused(user: User, tmp_path: Path) -> None:
    good, bad = tmp_path / "8.bin", tmp_path / "empty.png"
    good.write_bytes(digit_png(8))
    bad.write_bytes(b"")
    trace_id = f"order {uuid.uuid4()}"
    ran = user.run("submit", good, "--url", user.server.predict_url, "--trace-id", trace_id, "--wait", "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["traceId"], told["file"]) == (0, trace_id, str(good))
    assert told["result"]["data"] == {"predictions": [8]}
    refused = user.run("submit", bad, "--url", user.server.predict_url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"{bad}: {user.server.predict_url} answered 422 badimage: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "the following arguments are required: IMAGE"),
        (["absent.png"], "absent.png: No such file or directory"),
        (["0.png", "1.png", "--trace-id", "x"], "--trace-id is of one image, and there are 2"),
        (["0.png", "folder/0.png"], "folder/0.png and 0.png would both be 0.png: give them in two goes"),
        (["0.png", "--prefix", "../"], "0.png: key '../0.png' has a segment of dots"),
        (["0.png", "--url", "localhost:8080"], "'localhost:8080' is no http or https URL"),
        (["0.png", "--wait", "--timeout", "5"], "'5' is no time such as"),
    ],
)
def test_submit_sends_nothing_for_a_command_line_that_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for name in ("0.png", "1.png", "folder/0.png"):
        Path(name).write_bytes(digit_png(0))
    ran = run("submit", *arguments, MINIO_ACCESS_KEY="a", MINIO_SECRET_KEY="s", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert (ran.returncode, ran.stdout, told in ran.stderr) == (2, "", True), ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("of_one", [False, True])
def test_results_follows_until_ctrl_c(user: User, *, of_one: bool) -> None:
    trace_id = str(uuid.uuid4())
    which = ["--trace-id", trace_id] if of_one else ["--since", "1m"]
    command = [sys.executable, "-m", "mnist_pipeline", "results", "--follow", *which]
    with subprocess.Popen(
        command, env={**os.environ, **user.environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        with user.client() as client:
            client.ask(digit_png(0))
            sent = client.ask(digit_png(6), trace_id=trace_id)
        while sent.trace_id not in (line := following.stdout.readline()):
            assert line, "it ended by itself"
            assert not of_one, "another's result was printed"
        assert "  inline  6" in line
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=20)
        assert (following.returncode, said) == (130, "\nstopped\n")
