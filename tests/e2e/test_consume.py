"""Row 53: `consume` where it is not as `serve`: batches, partitions, offsets, and records that are no requests."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from e2e.failing_task import MARK
from e2e.following import IMAGES, wait_until
from e2e.metrics import Metrics, counted
from e2e.places import REJECTED_BUCKET, Place, Upload
from e2e.test_client import run
from e2e.test_predictor_faults import DIGIT, HttpPredictor
from e2e.watching import peak_memory
from e2e.ways import ConsumeProcess, Group, Sent, create_topic
from mnist_pipeline.local.processes import answers_ok
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.testing import digit_png, minio_event
from servers.proxy import Proxy

AWAY_SECONDS = {"cut": 10.0, "freeze": 20.0}
# What hangs is to be found out more than once within the time that it is away; else slowness fails no attempt.
EVENT_SECONDS = {"cut": "60", "freeze": "8"}
STRUCTURED = {"content-type": "application/cloudevents+json"}
BINARY = {"ce-specversion": "1.0", "ce-source": "s", "ce-type": "t", "content-type": "application/json"}


@pytest.fixture(scope="module")
def consumer(place: Place) -> Iterator[ConsumeProcess]:
    """One that lives through all that does it no harm."""
    with ready(place.consume()) as consumer:
        yield consumer


@contextmanager
def ready(consumer: ConsumeProcess) -> Iterator[ConsumeProcess]:
    try:
        consumer.wait_ready()
        yield consumer
    finally:
        consumer.close()


def uploaded(place: Place, count: int, *, digit: int | None = None) -> list[Upload]:
    client, folder = place.client(), uuid.uuid4()
    # To make a client takes longer than to upload with it.
    place = replace(place, client=lambda: client)
    return [
        place.upload(f"{folder}/{number}.png", digit_png(number % 10 if digit is None else digit))
        for number in range(count)
    ]


def written(group: Group, uploads: Sequence[Upload], *, partition: int | None = None) -> list[Sent]:
    return group.write_all([(json.dumps(upload.event).encode(), {}) for upload in uploads], partition=partition)


def wait_until_in_hand(consumer: ConsumeProcess, count: int = 1) -> None:
    wait_until(lambda: Metrics.of(consumer).value("in_flight") >= count, seconds=60)


def wait_until_settled(group: Group, records: Sequence[Sent], *, seconds: float = 90) -> None:
    wait_until(lambda: all(group.has_settled(sent) for sent in records), seconds=seconds, every=0.05)


def left_of(place: Place, uploads: Sequence[Upload]) -> set[str]:
    """Their keys that are still in the source bucket, which is asked once."""
    folder = uploads[0].key.partition("/")[0]
    listed = place.client().list_objects(bucket_name=place.bucket, prefix=f"{folder}/", recursive=True)
    return {str(one.object_name) for one in listed}


def assert_filed_once(place: Place, uploads: Sequence[Upload], *, digit: int | None = None) -> None:
    """Each is in the right bucket and nowhere else, with one id."""
    folder = uploads[0].key.partition("/")[0]
    assert left_of(place, uploads) == set()
    found: dict[str, set[str]] = {}
    for bucket in (*(f"digit-{number}" for number in range(10)), REJECTED_BUCKET):
        for one in place.client().list_objects(bucket_name=bucket, prefix=f"{folder}/", recursive=True):
            found.setdefault(str(one.object_name), set()).add(bucket)
    assert found == {
        upload.key: {f"digit-{number % 10 if digit is None else digit}"} for number, upload in enumerate(uploads)
    }
    ids = place.ids_by_subject()
    assert {len(ids[f"{place.bucket}/{upload.key}"]) for upload in uploads} == {1}


def results_of(place: Place, trace_id: str) -> list[dict[str, Any]]:
    return [event for event in place.all_results() if event.get("test-trace-id") == trace_id]


def inline(digit: int, **more: Any) -> dict[str, Any]:
    return {"instances": [{"data": base64.b64encode(digit_png(digit)).decode()}], **more}


# --- records ---


def test_row_53_a_record_without_a_value_is_acknowledged(consumer: ConsumeProcess) -> None:
    before = counted(consumer, "empty")
    records = consumer.group.write_all([(None, {}), (None, BINARY), (None, STRUCTURED), (b"", {})])
    wait_until_settled(consumer.group, records)
    assert counted(consumer, "empty") == before + len(records)
    assert not any(consumer.group.dead_letter_of(sent) for sent in records)


def test_row_53_a_record_over_the_limit_is_refused_and_holds_up_nothing(place: Place, consumer: ConsumeProcess) -> None:
    large = consumer.group.write(b"x" * (int(place.settings["MAX_BODY_BYTES"]) + 1), partition=0)
    uploads = uploaded(place, 3)
    wait_until_settled(consumer.group, [large, *written(consumer.group, uploads, partition=0)])
    letter = consumer.group.dead_letter_of(large)
    assert letter is not None
    assert (letter.answer.status, letter.answer.headers["kne-reason"]) == (413, "bodytoolarge")
    assert_filed_once(place, uploads)


@pytest.mark.parametrize("mode", ["structured", "structured, as base64", "binary", "plain", "an image itself"])
def test_row_53_an_inline_request_is_published_whatever_record_it_comes_in(
    place: Place, consumer: ConsumeProcess, mode: str
) -> None:
    trace_id = str(uuid.uuid4())
    value, headers = {
        "structured": (
            {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "testtraceid": trace_id, "data": inline(3)},
            STRUCTURED,
        ),
        "structured, as base64": (
            {
                "specversion": "1.0",
                "id": "1",
                "source": "s",
                "type": "t",
                "testtraceid": trace_id,
                "data_base64": base64.b64encode(IMAGES["3-0018.png"]).decode(),
            },
            STRUCTURED,
        ),
        "binary": (inline(3), {**BINARY, "ce-id": "1", "ce-testtraceid": trace_id}),
        "plain": (inline(3, **{"test-trace-id": trace_id}), {}),
        "an image itself": (IMAGES["3-0018.png"], {"test-trace-id": trace_id}),
    }[mode]
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    sent = consumer.group.write(body, headers)
    wait_until_settled(consumer.group, [sent])
    assert consumer.group.dead_letter_of(sent) is None
    assert [event["data"] for event in results_of(place, trace_id)] == [{"predictions": [3]}]


def test_row_53_a_trace_id_in_a_record_s_header_is_the_result_s(place: Place, consumer: ConsumeProcess) -> None:
    (upload,), trace_id = uploaded(place, 1, digit=7), str(uuid.uuid4())
    sent = consumer.group.write(json.dumps(upload.event).encode(), {"test-trace-id": trace_id})
    wait_until_settled(consumer.group, [sent])
    assert [event["subject"] for event in results_of(place, trace_id)] == [f"{upload.bucket}/{upload.key}"]


def test_row_53_a_plain_request_without_a_trace_id_has_the_same_id_for_every_group(
    place: Place, consumer: ConsumeProcess
) -> None:
    before = len(place.read_results())
    sent = consumer.group.write(json.dumps(inline(4)).encode())
    wait_until_settled(consumer.group, [sent])
    again = Group(place.kafka, topic=consumer.group.topic)
    with ready(place.consume(again)):
        wait_until(lambda: again.has_settled(sent), seconds=60)
    subjectless = [event for event in place.all_results()[before:] if event["data"] == {"predictions": [4]}]
    assert len(subjectless) == 2
    assert len({event["id"] for event in subjectless}) == 1


@pytest.mark.real
def test_row_53_the_versions_of_a_key_are_filed_in_their_order(real_place: Place) -> None:
    with ready(real_place.consume()) as consumer:
        others = uploaded(real_place, 40)
        key = f"{uuid.uuid4()}.png"
        versions = [real_place.upload(key, digit_png(digit)) for digit in range(5)]
        among = [*others[:20], *versions, *others[20:]]
        wait_until_settled(consumer.group, written(consumer.group, among, partition=0))
    assert [event["data"]["predictions"] for event in real_place.results(versions[0])] == [[n] for n in range(5)]
    assert real_place.copies(versions[0]) == {f"digit-{n}/{key}": versions[n].data for n in range(5)}
    assert_filed_once(real_place, others)


# --- one poison in a batch ---


def test_row_53_of_a_batch_only_what_is_bad_is_given_up(place: Place, consumer: ConsumeProcess) -> None:
    uploads = uploaded(place, 30)
    image = place.upload(f"{uuid.uuid4()}.png", b"no image")
    values = [upload.event for upload in (*uploads, image)] + [minio_event("other", "0.png")]
    order = [*values[:7], *values[30:], *values[7:30]]
    records = consumer.group.write_all([(json.dumps(event).encode(), {}) for event in order], partition=1)
    wait_until_settled(consumer.group, records)
    letters = [consumer.group.dead_letter_of(sent) for sent in records]
    reasons = [letter and letter.answer.headers["kne-reason"] for letter in letters]
    assert reasons == [None] * 7 + ["badimage", "notallowed"] + [None] * 23
    assert_filed_once(place, uploads)
    assert place.copies(image) == {f"{REJECTED_BUCKET}/{image.key}": image.data}


class PoisonedPredictor(HttpPredictor):
    """Answers as one does whose network has a hole: NaN for zeros, and sevens for all else."""

    poison = Digits().decode(digit_png(0)).ravel()

    def answer_to(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        tensors = [np.ravel(one) for one in asked["instances"]]
        predictions = [float("nan") if np.allclose(one, self.poison, atol=1e-3) else DIGIT for one in tensors]
        return 200, json.dumps({"predictions": predictions}).encode()


def test_row_53_of_a_batch_only_what_the_predictor_or_the_task_cannot_do_is_given_up_and_stays(
    embedded_place: Place,
) -> None:
    place = embedded_place
    uploads = uploaded(place, 30, digit=DIGIT)
    poisons = [place.upload(f"{uuid.uuid4()}.png", data) for data in (digit_png(0), digit_png(DIGIT) + MARK)]
    with (
        PoisonedPredictor() as predictor,
        ready(
            place.consume(
                program="e2e.failing_task", args=("--retry", "2"), predictor_host=f"127.0.0.1:{predictor.port}"
            )
        ) as consumer,
    ):
        group = consumer.group
        records = written(group, [*uploads[:9], *poisons, *uploads[9:]], partition=0)
        wait_until_settled(group, records)
        letters = [group.dead_letter_of(sent) for sent in records]
        assert [letter is not None for letter in letters] == [False] * 9 + [True] * 2 + [False] * 21
        assert all(letter.answer.status >= http.client.INTERNAL_SERVER_ERROR for letter in letters if letter)
    assert_filed_once(place, uploads, digit=DIGIT)
    assert all(place.is_left(poison) and not place.copies(poison) for poison in poisons)


# --- what is committed ---


@contextmanager
def nothing_is_committed_that_is_not_filed(
    place: Place, group: Group, records: Mapping[str, Sent], uploads: Sequence[Upload]
) -> Iterator[None]:
    """See at every moment of the block that of no object that is left in the source the offset is committed."""
    done = threading.Event()
    wrong: list[str] = []

    def watch() -> None:
        while not done.is_set():
            # What is committed now was settled before the source is looked at.
            committed = dict(group.committed)
            left = left_of(place, uploads)
            wrong.extend(key for key in left if committed.get(records[key].partition, 0) > records[key].offset)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()
    assert wrong == []


# Not on the embedded broker, which loses count of who leads while a group's members come.
@pytest.mark.real
def test_row_53_a_rebalance_in_mid_batch_loses_nothing_and_commits_nothing_that_is_not_settled(
    real_place: Place,
) -> None:
    place = real_place
    group, uploads = Group(place.kafka, partitions=6), uploaded(place, 240)
    with Proxy(place.predictor.http_port) as proxy:
        host = f"127.0.0.1:{proxy.port}"
        with ready(place.consume(group, predictor_host=host)) as first:
            proxy.freeze()
            records = written(group, uploads)
            by_key = dict(zip((upload.key for upload in uploads), records, strict=True))
            with nothing_is_committed_that_is_not_filed(place, group, by_key, uploads):
                wait_until_in_hand(first)
                with ready(place.consume(group, predictor_host=host)) as second:
                    proxy.heal()
                    wait_until_settled(group, written(group, more := uploaded(place, 30)))
                    wait_until_settled(group, records)
                    assert min(
                        Metrics.of(one).value("events_total", outcome="filed", reason="") for one in (first, second)
                    )
    assert_filed_once(place, uploads)
    assert_filed_once(place, more)
    assert group.dead_letters == []


def test_row_53_a_member_that_is_killed_in_mid_batch_is_followed_by_another_where_its_offsets_are(
    place: Place,
) -> None:
    group, uploads = Group(place.kafka, partitions=2), uploaded(place, 120)
    with Proxy(place.predictor.http_port) as proxy:
        host = f"127.0.0.1:{proxy.port}"
        with ready(place.consume(group, predictor_host=host)) as first:
            records = written(group, uploads[:20])
            wait_until_settled(group, records)
            proxy.freeze()
            records += written(group, uploads[20:])
            by_key = dict(zip((upload.key for upload in uploads), records, strict=True))
            with nothing_is_committed_that_is_not_filed(place, group, by_key, uploads):
                wait_until_in_hand(first)
                assert first.child.kill() == -signal.SIGKILL
                assert [group.has_settled(sent) for sent in records] == [True] * 20 + [False] * 100
                proxy.heal()
                with ready(place.consume(group, predictor_host=host)):
                    wait_until_settled(group, records)
    assert_filed_once(place, uploads)


def test_row_53_a_member_that_is_told_to_end_settles_and_commits_what_it_has_in_hand(place: Place) -> None:
    group, uploads = Group(place.kafka, partitions=2), uploaded(place, 400)
    with Proxy(place.predictor.http_port) as proxy:
        consumer = place.consume(group, predictor_host=f"127.0.0.1:{proxy.port}")
        with ready(consumer):
            proxy.freeze()
            records = written(group, uploads)
            wait_until_in_hand(consumer, 64)
            told = time.monotonic()
            os.kill(consumer.child.pid, signal.SIGTERM)
            proxy.heal()
            wait_until(lambda: not consumer.child.running, seconds=30)
            assert time.monotonic() - told < 30
            assert consumer.child.kill() == 0
    left = left_of(place, uploads)
    assert 0 < len(left) <= len(uploads) - 64
    # Of each partition all before the offset, and nothing behind it.
    for upload, sent in zip(uploads, records, strict=True):
        assert group.has_settled(sent) is (upload.key not in left)


# --- away ---


@pytest.mark.parametrize(("part", "fault"), [("predictor", "cut"), ("predictor", "freeze"), ("store", "cut")])
def test_row_53_while_something_is_away_nothing_is_given_up_and_all_is_filed_once_it_is_back(
    embedded_place: Place, part: str, fault: str
) -> None:
    place, uploads = embedded_place, uploaded(embedded_place, 300)
    port = {
        "predictor": place.predictor.http_port,
        "store": int(place.settings["MINIO_ENDPOINT"].rpartition(":")[2]),
    }[part]
    with Proxy(port) as proxy:
        settings = {"EVENT_TIMEOUT_SECONDS": EVENT_SECONDS[fault]}
        if part == "store":
            settings["MINIO_ENDPOINT"] = f"http://127.0.0.1:{proxy.port}"
        host = f"127.0.0.1:{proxy.port}" if part == "predictor" else None
        with ready(place.consume(settings=settings, args=("--retry", "1"), predictor_host=host)) as consumer:
            before = peak_memory(consumer)
            getattr(proxy, fault)()
            records = written(consumer.group, uploads)
            back = time.monotonic() + AWAY_SECONDS[fault]
            while time.monotonic() < back:
                assert Metrics.of(consumer).value("in_flight") <= 64
                assert answers_ok(consumer.http_port, "/v2/health/live", timeout_seconds=5)
                time.sleep(0.2)
            assert left_of(place, uploads) == {upload.key for upload in uploads}
            proxy.heal()
            wait_until_settled(consumer.group, records)
            assert [letter.answer for letter in consumer.group.dead_letters] == []
            # The group has not gone on without it.
            assert "committing offsets failed" not in consumer.child.log.read_text()
            assert peak_memory(consumer) - before < 64 * 1024 * 1024
    assert_filed_once(place, uploads)


# --- flags ---


def test_row_53_without_dead_letters_what_is_refused_is_told_and_settled_in_batches_of_one_of_two_topics(
    place: Place,
) -> None:
    other = f"other-{uuid.uuid4()}"
    create_topic(place.kafka, other, 2)
    beside = Group(place.kafka, topic=other, partitions=2)
    group, uploads, more = Group(place.kafka), uploaded(place, 10), uploaded(place, 10)
    consumer = place.consume(group, dead_letters=False, args=("--batch", "1", "--topic", other))
    with ready(consumer):
        written(beside, more)
        records = [group.write(b"no JSON", partition=0), *written(group, uploads, partition=0)]
        wait_until_settled(group, records)
        wait_until(lambda: not left_of(place, more), seconds=60)
        assert counted(consumer, "malformedbody") == 1
        said = consumer.child.log.read_text()
    assert "there is no --dead-letter-topic" in said
    assert group.dead_letters == []
    assert_filed_once(place, uploads)
    assert_filed_once(place, more)


@pytest.mark.real
def test_row_53_a_topic_of_dead_letters_that_is_missing_is_named_by_one_that_is_not_ready(real_place: Place) -> None:
    group = Group(real_place.kafka)
    group.dead_letter_topic = f"never-{uuid.uuid4()}"
    consumer = real_place.consume(group)
    try:
        wait_until(lambda: answers_ok(consumer.http_port, "/v2/health/live"), seconds=120)
        wait_until(
            lambda: (
                not answers_ok(consumer.http_port, "/v2/health/ready", timeout_seconds=10)
                and f"'{group.dead_letter_topic}'" in consumer.child.log.read_text()
            )
        )
        create_topic(real_place.kafka, group.dead_letter_topic, 1)
        consumer.wait_ready()
    finally:
        consumer.close()


def test_row_53_its_dead_letters_are_replayed_to_serve(place: Place) -> None:
    uploads = uploaded(place, 3)
    trace_id = str(uuid.uuid4())
    bucket = f"late-{uuid.uuid4()}"
    with ready(place.consume(args=("--retry", "1"), settings={"DESTINATION": bucket + "/{digit}"})) as consumer:
        group = consumer.group
        refused = json.dumps({"instances": [[0.0]], "test-trace-id": trace_id}).encode()
        records = [*written(group, uploads), group.write(refused, {**BINARY, "ce-id": "1"})]
        wait_until_settled(group, records)
        assert len(group.dead_letters) == 4
    assert all(place.is_left(upload) for upload in uploads)
    server = place.start()
    server.wait_ready()
    command = ("replay", "--topic", group.dead_letter_topic, "--sink", server.predict_url)
    settings = {**place.settings, **place.owner, "SOURCE_BUCKETS": place.bucket}
    ran = run(*command, **settings)
    server.close()
    assert (ran.returncode, ran.stdout) == (1, "3 replayed, 1 not\n"), ran.stderr
    assert_filed_once(place, uploads)
    ids = {event["id"] for event in results_of(place, trace_id)}
    assert len(ids) == 1
