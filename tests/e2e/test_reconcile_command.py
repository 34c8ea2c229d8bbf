"""`mnist-pipeline reconcile` as a program: objects in a bucket whose notifications never come."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient

from e2e.following import wait_until
from e2e.places import REJECTED_BUCKET, Place, search_path
from mnist_pipeline.adapters.kafka_records import partition_of, read_topic
from mnist_pipeline.adapters.kafka_topics import Topics
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.local.broker import API_VERSION
from mnist_pipeline.local.processes import Child
from mnist_pipeline.mnist import images
from mnist_pipeline.pipeline.settings import Kafka
from mnist_pipeline.testing import digit_png


@pytest.fixture
def site(place: Place) -> Place:
    """A place with a source bucket of the test's own, which notifies nobody."""
    site = replace(place, bucket=f"source-{uuid.uuid4()}")
    site.make_buckets()
    return site


def start(site: Place, *args: str, program: str = "mnist_pipeline", **settings: str) -> Child:
    return run(
        site,
        "reconcile",
        "--predictor_host",
        f"127.0.0.1:{site.predictor.http_port}",
        *args,
        program=program,
        **settings,
    )


def run(site: Place, command: str, *args: str, program: str = "mnist_pipeline", **settings: str) -> Child:
    return site.sandbox.start(
        f"{command}-{uuid.uuid4()}",
        [sys.executable, "-m", program, command, *args],
        env={**site.settings, "SOURCE_BUCKETS": site.bucket, "PYTHONPATH": search_path(), **settings},
    )


def ended(child: Child) -> tuple[int, str]:
    """Its exit code and what it has printed."""
    wait_until(lambda: not child.running, seconds=60)
    return child.kill(), Path(child.log).read_text()


def left(site: Place) -> list[str]:
    """The keys of the source bucket's versions."""
    listed = site.client().list_objects(bucket_name=site.bucket, recursive=True, include_version=site.versioned)
    return sorted(str(one.object_name) for one in listed)


def test_row_33_what_was_missed_is_found_filed_and_published(site: Place) -> None:
    prefix = f"{uuid.uuid4()}/"
    uploads = [site.upload(f"{prefix}{digit} +é.png", digit_png(digit)) for digit in range(10)]
    bad = site.upload(f"{prefix}bad.png", b"no image")
    site.upload(f"{prefix}readme.txt", b"not ours")

    code, said = ended(start(site, "--older-than", "1h"))
    assert (code, "nothing was missed" in said) == (0, True), said
    code, said = ended(start(site, "--older-than", "0s", "--dry-run"))
    assert (code, said.count(f"{site.bucket}/{prefix}"), "11 missed" in said) == (1, 11, True), said
    assert len(left(site)) == 12

    code, said = ended(start(site, "--older-than", "0s", "--rate", "100"))
    assert (code, "10 filed, 1 badimage; 0 left" in said) == (0, True), said
    assert left(site) == [f"{prefix}readme.txt"]
    for digit, upload in enumerate(uploads):
        assert site.copies(upload) == {f"digit-{digit}/{upload.key}": upload.data}
        assert [event["data"]["predictions"] for event in site.results(upload)] == [[digit]]
    assert site.copies(bad) == {f"{REJECTED_BUCKET}/{bad.key}": bad.data}
    assert [event["type"].endswith(".rejected") for event in site.results(bad)] == [True]


def test_what_another_transformer_missed_goes_down_its_own_path(site: Place) -> None:
    picture = np.rint(images.to_tensor(digit_png(7)) * 255).astype(np.uint8)
    upload = site.upload(f"{uuid.uuid4()}.png", picture[::-1, ::-1].tobytes())
    bad = site.upload(f"{uuid.uuid4()}.png", digit_png(7))
    code, said = ended(start(site, "--older-than", "0s", program="e2e.raw_digits"))
    assert (code, "1 filed" in said, "1 badimage" in said, "; 0 left" in said) == (0, True, True, True), said
    filed = site.client().get_object(bucket_name="digit-9", object_name=f"raw-7/{upload.key}")
    assert filed.read() == upload.data
    assert [event["data"]["predictions"] for event in site.results(upload)] == [[7]]
    assert site.copies(bad) == {f"{REJECTED_BUCKET}/{bad.key}": bad.data}


@pytest.mark.real
def test_row_33_every_version_that_was_missed_is_filed(real_place: Place) -> None:
    site = replace(real_place, bucket=f"source-{uuid.uuid4()}")
    site.make_buckets()
    key = f"{uuid.uuid4()}.png"
    uploads = [site.upload(key, digit_png(digit)) for digit in (1, 2, 3)]
    code, said = ended(start(site, "--older-than", "0s"))
    assert (code, "3 filed; 0 left" in said) == (0, True), said
    assert left(site) == []
    assert site.copies(uploads[0]) == {f"digit-{digit}/{key}": digit_png(digit) for digit in (1, 2, 3)}


def test_what_cannot_be_settled_is_left_and_told(site: Place) -> None:
    upload = site.upload("1.png", digit_png(1))
    code, said = ended(start(site, "--older-than", "0s", "--predictor_host", "127.0.0.1:9", EVENT_TIMEOUT_SECONDS="5"))
    assert (code, "1 predictor; 1 left" in said) == (1, True), said
    assert site.is_left(upload)
    code, said = ended(start(replace(site, bucket="source-of-nobody"), "--older-than", "0s"))
    assert (code, "there is no bucket" in said) == (1, True), said


class Pushgateway(ThreadingHTTPServer):
    """Takes what is pushed, as Prometheus's Pushgateway does."""

    def __init__(self) -> None:
        self.pushed: dict[str, str] = {}
        pushed = self.pushed

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                pushed[self.path] = self.rfile.read(int(self.headers["content-length"])).decode()
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        super().__init__(("127.0.0.1", 0), Handler)


def answer_with_no_http(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"hello\r\n\r\n")


def test_its_metrics_are_pushed_at_the_end_and_it_is_no_failure_where_they_cannot_be(site: Place) -> None:
    site.upload(f"{uuid.uuid4()}.png", digit_png(1))
    with Pushgateway() as gateway:
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{gateway.server_port}"
        code, said = ended(start(site, "--older-than", "0s", "--pushgateway", host))
        gateway.shutdown()
    assert code == 0, said
    metrics = gateway.pushed["/metrics/job/mnist-pipeline-reconcile/model_name/mnist"]
    assert 'mnist_pipeline_events_total{model_name="mnist",outcome="filed",reason=""} 1.0' in metrics
    code, said = ended(start(site, "--older-than", "0s", "--pushgateway", host))
    assert (code, f"the metrics were not pushed to {host}" in said) == (0, True), said
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=answer_with_no_http, args=(other,), daemon=True).start()
        host = f"127.0.0.1:{other.getsockname()[1]}"
        code, said = ended(start(site, "--older-than", "0s", "--pushgateway", host))
    assert (code, f"the metrics were not pushed to {host}" in said) == (0, True), said


def test_wrong_settings_are_named_and_nothing_is_touched(site: Place) -> None:
    code, said = ended(start(site, MAX_IN_FLIGHT="none"))
    assert (code, said.split()[0]) == (2, "MAX_IN_FLIGHT")
    for wrong in (["--older-than", "5"], ["--rate", "0"], ["--rate", "x"]):
        code, said = ended(start(site, *wrong))
        assert (code, f"{wrong[0]}: '{wrong[1]}' is no" in said) == (2, True), said


def test_sigterm_finishes_what_is_in_hand(site: Place) -> None:
    for n in range(40):
        site.upload(f"{uuid.uuid4()}.png", digit_png(n % 10))
    child = start(site, "--older-than", "0s", "--rate", "10")
    wait_until(lambda: len(left(site)) < 40, seconds=60)
    os.kill(child.pid, signal.SIGTERM)
    code, said = ended(child)
    still = len(left(site))
    assert (code, f"{40 - still} filed; 0 left" in said) == (1, True), said
    assert 0 < still < 40


def make_topic(site: Place) -> str:
    """Make a topic of the test's own with four partitions."""
    topic = f"mnist-{uuid.uuid4()}"

    async def make() -> None:
        topics = await Topics.connect(kafka_of(site, topic))
        await topics.create(topic, partitions=4, replication=1)
        await topics.close()

    if site.versioned:
        asyncio.run(make())
    else:  # the embedded broker makes what it is asked for
        AdminClient({"bootstrap.servers": site.settings["KAFKA_BOOTSTRAP_SERVERS"]}).list_topics(topic, timeout=20)
    return topic


def kafka_of(site: Place, topic: str) -> Kafka:
    return Kafka(
        bootstrap_servers=site.settings["KAFKA_BOOTSTRAP_SERVERS"], topic=topic, api_version=api_version_of(site)
    )


def api_version_of(site: Place) -> tuple[int, int]:
    return (4, 0) if site.versioned else API_VERSION


def records_of(site: Place, topic: str) -> list[Record]:
    return read_topic(site.settings["KAFKA_BOOTSTRAP_SERVERS"], topic, api_version=api_version_of(site))


@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("number", "place"), [(400, "embedded"), pytest.param(3000, "real", marks=pytest.mark.real)], indirect=["place"]
)
def test_what_lies_there_is_announced_by_runs_of_which_one_was_killed_and_filed_by_the_source(
    site: Place, number: int, tmp_path: Path
) -> None:
    keys = [f"2026/{n % 7}/{n:04} +é.png" for n in range(number)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: site.upload(keys[n], digit_png(n % 10)), range(number)))
    topic, progress = make_topic(site), tmp_path / "progress.json"
    flags = ("--to-topic", topic, "--older-than", "0s", "--progress", str(progress))

    child = run(site, "reconcile", *flags, "--rate", str(number // 8))
    wait_until(lambda: progress.exists() and '"after": "2026' in progress.read_text(), seconds=60)
    child.kill()
    before = len(records_of(site, topic))
    assert 0 < before < number
    code, said = ended(run(site, "reconcile", *flags))
    records = records_of(site, topic)
    assert (code, f"{len(records) - before:,} announced; all of the listing is read" in said) == (0, True), said
    assert len(records) < before + number
    assert not progress.exists()

    partitions: dict[bytes, set[int]] = {}
    for record in records:
        partitions.setdefault(record.key or b"", set()).add(record.partition)
    assert partitions == {
        key: {partition_of(key, range(4))} for key in (f"{site.bucket}/{key}".encode() for key in keys)
    }

    with site.start() as transformer:
        sink = f"{transformer.url}/v1/models/mnist:predict"
        source = run(
            site,
            "source",
            "--sink",
            sink,
            "--topic",
            topic,
            "--initial-offset",
            "earliest",
            "--unordered",
            "--group",
            topic,
        )
        wait_until(lambda: not left(site), seconds=300)
        source.stop()
    filed = {
        f"{digit}/{one.object_name}"
        for digit in range(10)
        for one in site.client().list_objects(bucket_name=f"digit-{digit}", prefix="2026/", recursive=True)
    }
    assert filed == {f"{n % 10}/{key}" for n, key in enumerate(keys)}
    ids = site.ids_by_subject()
    assert [len(ids[f"{site.bucket}/{key}"]) for key in keys] == [1] * number


def test_sigterm_ends_the_announcing_where_it_is_and_a_line_says_how_it_goes_on(site: Place, tmp_path: Path) -> None:
    for n in range(40):
        site.upload(f"{n:02}.png", digit_png(n % 10))
    topic = make_topic(site)
    flags = ("--to-topic", topic, "--older-than", "0s")
    child = run(site, "reconcile", *flags, "--rate", "20")
    wait_until(lambda: len(records_of(site, topic)) > 0, seconds=60)
    os.kill(child.pid, signal.SIGTERM)
    code, said = ended(child)
    first = len(records_of(site, topic))
    assert (code, f"{first} announced; not all" in said) == (1, True), said
    progress = tmp_path / "progress.json"
    progress.write_text(said[said.index("{") :])
    code, said = ended(run(site, "reconcile", *flags, "--progress", str(progress)))
    assert (code, f"{40 - first} announced; all" in said) == (0, True), said
    assert sorted(record.key or b"" for record in records_of(site, topic)) == [
        f"{site.bucket}/{n:02}.png".encode() for n in range(40)
    ]


def test_nothing_is_announced_where_that_cannot_work(site: Place, tmp_path: Path) -> None:
    site.upload("1.png", digit_png(1))
    absent = f"no-{uuid.uuid4()}"
    code, said = ended(run(site, "reconcile", "--to-topic", absent, "--older-than", "0s"))
    told = f"there is no topic {absent}: mnist-pipeline setup --topic {absent} makes it"
    assert (code, told in said) == (1, True), said
    code, said = ended(run(site, "reconcile", "--to-topic", "x", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"))
    assert (code, "KAFKA_BOOTSTRAP_SERVERS" in said, "0 announced; not all" in said) == (1, True, True), said
    code, said = ended(run(site, "reconcile", "--to-topic", "mnist-predictions", KAFKA_TOPIC="mnist-predictions"))
    assert (code, said.split()[0]) == (2, "--to-topic")
    code, said = ended(run(site, "reconcile", "--to-topic", "x", KAFKA_BOOTSTRAP_SERVERS=""))
    assert (code, said.split()[0]) == (2, "KAFKA_BOOTSTRAP_SERVERS")
    other = tmp_path / "progress.json"
    other.write_text("{}")
    code, said = ended(run(site, "reconcile", "--to-topic", "x", "--progress", str(other)))
    assert (code, f"--progress: {other} does not say what is left" in said) == (2, True), said
    flags = ["--to-topic", make_topic(site), "--older-than", "0s", "--progress", str(tmp_path / "no" / "folder")]
    code, said = ended(run(site, "reconcile", *flags))
    assert (code, "folder cannot be written: No such file" in said, "0 announced" in said) == (1, True, True), said
    for flags in (["--progress", "f"], ["--to-topic", "x", "--pushgateway", "h:1"]):
        code, said = ended(start(site, *flags))
        assert (code, flags[-2] in said) == (2, True), said
