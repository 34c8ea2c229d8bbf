"""`mnist-pipeline bench` on the local stack, and on sites of which the test plays the transformer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.following import wait_until
from e2e.test_client import run
from e2e.test_reading_results import Topic
from mnist_pipeline import AsyncPredictionClient, Digits, Settings, cli
from mnist_pipeline.client.load import Load
from mnist_pipeline.commands.bench import parser
from mnist_pipeline.local.broker import Broker
from mnist_pipeline.local.stack import Stack
from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.testing import digit_png
from thumbnails import Thumbnails


class Site:
    """A bucket whose uploads nobody is told of, and a topic on which the test writes their results."""

    def __init__(self, stack: Stack, broker: Broker) -> None:
        self.bucket = f"source-{uuid.uuid4()}"
        self._client = stack.minio()
        self._client.make_bucket(bucket_name=self.bucket)
        self._topic = Topic(broker)
        self.environ = {**stack.environ, **self._topic.environ, "SOURCE_BUCKETS": self.bucket}
        self.answered: set[str] = set()

    def unanswered(self) -> list[str]:
        """The keys that have no result yet, in their order."""
        listed = self._client.list_objects(bucket_name=self.bucket, recursive=True)
        return sorted({str(one.object_name) for one in listed} - self.answered)

    def wait_unanswered(self, count: int) -> list[str]:
        """Wait until so many have no result."""
        wait_until(lambda: len(self.unanswered()) >= count, seconds=60)
        return self.unanswered()

    def answer(self, key: str, data: dict[str, Any], **attributes: object) -> None:
        """Write a result, twice, as it may come."""
        found = self._client.stat_object(bucket_name=self.bucket, object_name=key)
        trace_id = (found.metadata or {})["x-amz-meta-test-trace-id"]
        self.answered.add(key)
        for _ in range(2):
            self._topic.add(trace_id, data, **attributes)

    def bench(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "mnist_pipeline", "bench", "--json", *arguments],
            env={**os.environ, **self.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self._topic.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker({}) as running:
        yield running


@pytest.fixture
def site(stack: Stack, broker: Broker) -> Iterator[Site]:
    site = Site(stack, broker)
    yield site
    site.close()


def ended(bench: subprocess.Popen[str]) -> tuple[int, dict[str, Any], list[str]]:
    """Its exit code, what it has printed, and the lines of its standard error."""
    with bench:
        out, err = bench.communicate(timeout=60)
    return bench.returncode, json.loads(out) if out else {}, err.splitlines()


def test_a_load_of_digits_is_filed_and_measured(stack: Stack) -> None:
    ran = run("bench", "--count", "25", "--in-flight", "4", "--json", **stack.environ)
    assert (ran.returncode, ran.stderr) == (0, "")
    told = json.loads(ran.stdout)
    counts = {"filed": 25, "to be reviewed": 0, "rejected": 0, "lost": 0, "not uploaded": 0}
    assert (told["objects"], told["withoutResult"], told["notUploaded"]) == (counts, {}, [])
    assert told["eventsPerSecond"] == pytest.approx(25 / told["seconds"], rel=0.01)
    took = told["milliseconds"]
    assert {"upload", "delivery", "fetch", "file", "upload to result"} <= set(took)
    for one in took.values():
        assert 0 <= one["p50"] <= one["p90"] <= one["p99"] <= one["max"]
    assert took["upload"]["max"] < took["upload to result"]["max"] <= told["seconds"] * 1000
    assert sum(objects for _, _, objects in told["histogram"]) == 25
    bucket, _, prefix = told["prefix"].partition("/")
    assert bucket == stack.source_bucket
    # The packaged digits, in turn.
    copies = stack.minio().list_objects(bucket_name="digit-0", prefix=prefix)
    assert [str(one.object_name).removeprefix(prefix) for one in copies] == [
        "000000-0-0003.png",
        "000001-0-0010.png",
        "000020-0-0003.png",
        "000021-0-0010.png",
    ]


def test_one_s_own_files_are_uploaded_and_people_see_counts_percentiles_and_a_histogram(
    stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / "7.png").write_bytes(digit_png(7))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    ran = run("bench", "--count", "4", "--file", tmp_path, **stack.environ)
    left_out = f"{tmp_path / 'notes.txt'} is left out: its name does not end in .png (SOURCE_SUFFIXES)\n"
    assert (ran.returncode, ran.stderr) == (0, left_out)
    head, *lines = ran.stdout.splitlines()
    assert head.startswith(f"4 objects as {stack.source_bucket}/bench-")
    cells = [line.split() for line in lines]
    assert ["filed", "2"] in cells
    assert ["rejected", "2"] in cells
    assert ["milliseconds", "p50", "p90", "p99", "max"] in cells
    assert ["ms,", "upload", "to", "result", "objects"] in cells
    assert sum(int(row[-2]) for row in cells if row and set(row[-1]) == {"█"}) == 4


def test_at_most_so_many_are_in_flight(site: Site) -> None:
    bench = site.bench("--count", "7", "--in-flight", "3")
    for left in range(7, 0, -1):
        waiting = site.wait_unanswered(min(left, 3))
        assert len(waiting) <= 3
        site.answer(waiting[0], {"predictions": [1], "review": left == 1})
    code, told, problems = ended(bench)
    assert (code, problems) == (0, [])
    assert told["objects"] == {"filed": 7, "to be reviewed": 1, "rejected": 0, "lost": 0, "not uploaded": 0}


def test_what_has_no_result_in_time_is_lost_and_told_by_its_trace_id(site: Site) -> None:
    bench = site.bench("--count", "3", "--in-flight", "2", "--timeout", "8s")
    lost, answered = site.wait_unanswered(2)
    site.answer(answered, {"reason": "badimage"}, type="prediction.rejected")
    site.answer(site.wait_unanswered(2)[1], {"predictions": [1]})
    code, told, problems = ended(bench)
    ((trace_id, place),) = told["withoutResult"].items()
    assert place == f"{site.bucket}/{lost}"
    assert (code, problems) == (1, [f"lost: {trace_id}  {place}"])
    assert told["objects"] == {"filed": 1, "to be reviewed": 0, "rejected": 1, "lost": 1, "not uploaded": 0}


def test_where_nothing_moves_it_ends_before_all_is_uploaded(site: Site) -> None:
    code, told, problems = ended(site.bench("--count", "9", "--in-flight", "2", "--timeout", "1s"))
    assert (code, len(problems), len(told["withoutResult"])) == (1, 2, 2)
    assert told["objects"] == {"filed": 0, "to be reviewed": 0, "rejected": 0, "lost": 2, "not uploaded": 7}
    assert told["milliseconds"] == {}


def test_ctrl_c_tells_what_was_measured_until_then(site: Site) -> None:
    bench = site.bench("--count", "9", "--in-flight", "2")
    first = site.wait_unanswered(2)[0]
    site.answer(first, {"predictions": [1]})
    # The third is uploaded once the first one's result is read.
    site.wait_unanswered(2)
    bench.send_signal(signal.SIGINT)
    code, told, problems = ended(bench)
    assert (code, problems) == (130, ["", "stopped"])
    del told["objects"]["to be reviewed"]
    assert told["objects"] == {"filed": 1, "rejected": 0, "without a result yet": 2, "not uploaded": 6}


def test_without_kafka_nothing_is_uploaded(site: Site) -> None:
    code, told, problems = ended(site.bench("--count", "2", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9"))
    assert (code, told, len(problems)) == (1, {}, 1)
    assert "check KAFKA_BOOTSTRAP_SERVERS" in problems[0]
    assert site.unanswered() == []


def test_what_was_uploaded_is_not_called_lost_where_kafka_has_gone_away(site: Site, broker: Broker) -> None:
    bench = site.bench("--count", "2", "--timeout", "6s")
    site.wait_unanswered(2)
    broker.go_away()
    code, told, (problem,) = ended(bench)
    assert (code, told["objects"]["without a result yet"]) == (1, 2)
    assert "check KAFKA_BOOTSTRAP_SERVERS" in problem


def test_where_the_store_takes_nothing_it_ends_at_once(site: Site) -> None:
    code, told, problems = ended(site.bench("--count", "50", "--in-flight", "1", SOURCE_BUCKETS="nowhere"))
    assert (code, told["objects"]["not uploaded"], len(told["notUploaded"])) == (1, 50, 1)
    assert problems == [f"not uploaded: {told['notUploaded'][0]}"]
    assert problems[0].startswith("not uploaded: nowhere/bench-")


async def test_an_object_that_has_a_result_is_uploaded_whatever_the_store_says(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, has_result = Topic(broker), asyncio.Event()

    async def upload(_: object, data: bytes, *, key: str, bucket: str, trace_id: str) -> None:
        has_result.clear()
        await asyncio.to_thread(topic.add, trace_id, {"predictions": [len(data)]}, subject=f"{bucket}/{key}")
        await has_result.wait()
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(AsyncPredictionClient, "upload", upload)
    client = AsyncPredictionClient(Settings(task=Digits(), kafka=topic.kafka))
    load = Load(client, topic.kafka, bucket="mnist", in_flight=1, timeout=60, on_result=has_result.set)
    await load.run([("0.png", b""), ("1.png", b"1")])
    topic.close()
    assert load.failed == []
    assert [one.result and one.result.predictions for one in load.sent.values()] == [[0], [1]]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--bucket", "another"], "bucket 'another' is not one of SOURCE_BUCKETS"),
        (["--file", "absent.png"], "absent.png: No such file or directory"),
        (["--file", "."], "there is nothing to upload"),
        (["--count", "0"], "'0' is no whole number from 1 on"),
    ],
)
def test_nothing_is_uploaded_for_a_command_line_that_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("bench", *arguments, MINIO_ACCESS_KEY="a", MINIO_SECRET_KEY="s", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert (ran.returncode, ran.stdout, told in ran.stderr) == (2, "", True), ran.stderr


def test_a_task_without_pictures_of_its_own_wants_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(Thumbnails, ["bench"])
    assert "the following arguments are required: --file" in capsys.readouterr().err
    examples = parser(Thumbnails()).epilog or ""
    assert all("--file" in line for line in examples.splitlines() if "mnist-pipeline bench" in line)


def test_both_servers_are_asked_for_by_the_names_of_their_settings() -> None:
    ran = run("bench")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert [line.split()[0] for line in ran.stderr.splitlines()] == ["MINIO_ACCESS_KEY", "KAFKA_BOOTSTRAP_SERVERS"]
