"""Rows 4, 6, 10, 15, 16, 29 and 32: many events, events of many records, odd keys and odd pictures."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import signal
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mnist
from e2e.following import Answer, post, wait_until
from e2e.places import Place, Upload
from e2e.watching import peak_memory, watched_transformer
from e2e.ways import ConsumeProcess, Way, deliver, deliver_all
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.local.broker import API_VERSION
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.local.stack import Stack
from mnist_pipeline.testing import digit_png, minio_event

KNATIVE = {"ce-specversion": "1.0", "ce-id": "partition:0/offset:17", "ce-source": "source", "ce-type": "kafka"}
NOT_AN_IMAGE = b"plain text, named .png"
IN_FLIGHT = 32
# A fraction of what a dispatcher waits between the attempts that it makes while a record cannot be settled.
LONGEST_SECONDS = 15.0


@pytest.fixture(scope="module")
def server(place: Place, way: Way) -> Iterator[ModelServer]:
    # A second bucket of which the test says when it comes into being.
    server = place.start(settings={"SOURCE_BUCKETS": f"{place.bucket},{late_bucket(place)}"}, way=way)
    server.wait_ready()
    yield server
    server.close()


@pytest.fixture(scope="module")
def flooded(embedded_place: Place, stack: Stack, way: Way) -> Iterator[tuple[Place, ModelServer]]:
    """A transformer for very many events, and a place with a topic of their own, so that others need not read them."""
    topic, client = f"flood-{uuid.uuid4()}", embedded_place.client()
    place = replace(
        embedded_place,
        # A deadline that the last of the events meets on a busy machine too.
        settings={
            **embedded_place.settings,
            "KAFKA_TOPIC": topic,
            "MAX_IN_FLIGHT": "200",
            "EVENT_TIMEOUT_SECONDS": "120",
        },
        # To make one takes longer than to upload with it.
        client=lambda: client,
        read_results=partial(read_topic, stack.broker.bootstrap_servers, topic, api_version=API_VERSION),
    )
    server = place.start(way=way)
    server.wait_ready()
    yield place, server
    server.close()


def late_bucket(place: Place) -> str:
    return place.bucket.replace("source-", "source-late-")


def send(server: ModelServer, event: dict[str, Any], **headers: str) -> Answer:
    return deliver(server, event, {**KNATIVE, **headers})


def record_of(event: dict[str, Any]) -> dict[str, Any]:
    (record,) = event["Records"]
    return dict(record)


def assert_filed(place: Place, upload: Upload, digit: int) -> None:
    assert place.copies(upload) == {f"digit-{digit}/{upload.key}": upload.data}
    assert not place.is_left(upload)


# --- events of several records ---


@pytest.mark.parametrize("fetched", [True, False])
def test_row_04_a_good_a_retryable_and_a_bad_record_are_each_settled_however_often_they_come(
    place: Place, server: ModelServer, fetched: bool
) -> None:
    client, folder, bucket = place.client(), uuid.uuid4(), late_bucket(place)
    one, three = (place.upload(f"{folder}/{digit}.png", digit_png(digit)) for digit in (1, 3))
    bad = place.upload(f"{folder}/bad.png", NOT_AN_IMAGE)
    not_allowed = minio_event(place.bucket, f"{folder}/x.txt")
    late = f"{folder}/late.png"
    records = [one.event, minio_event(bucket, late), bad.event if fetched else not_allowed, three.event]
    event = {"Records": [record_of(record) for record in records]}

    assert send(server, event).status == 503
    # By Kafka an attempt that failed is told before the others of its event are settled.
    wait_until(lambda: not any(place.is_left(upload) for upload in (one, three, *([bad] if fetched else []))))
    assert_filed(place, one, 1)
    assert_filed(place, three, 3)
    if fetched:
        assert place.copies(bad) == {f"mnist-rejected/{bad.key}": bad.data}

    # An attempt between the two would find the bucket without the object, and take that for gone.
    os.kill(server.child.pid, signal.SIGSTOP)
    client.make_bucket(bucket_name=bucket)
    try:
        data = digit_png(5)
        client.put_object(bucket_name=bucket, object_name=late, data=io.BytesIO(data), length=len(data))
        os.kill(server.child.pid, signal.SIGCONT)
        answer = send(server, event)
        if answer.status == 503 and isinstance(server, ConsumeProcess):
            # Of the attempt that was under way when it was stopped.
            answer = send(server, event)
        assert answer.status == (200 if fetched else 422)
        assert_filed(place, Upload(bucket=bucket, key=late, data=data, event=event), 5)
    finally:
        for one_left in client.list_objects(bucket_name=bucket, recursive=True):
            client.remove_object(bucket_name=bucket, object_name=str(one_left.object_name))
        client.remove_bucket(bucket_name=bucket)
    for upload in (one, three):
        (result,) = place.results(upload)
        assert result["data"]["destination"].endswith(upload.key)


def test_row_04_good_records_are_filed_beside_a_bad_one_and_the_answer_is_422(
    place: Place, server: ModelServer
) -> None:
    folder = uuid.uuid4()
    good = [place.upload(f"{folder}/{digit}.png", digit_png(digit)) for digit in range(10)]
    bad = place.upload(f"{folder}/bad.png", NOT_AN_IMAGE)
    records = [record_of(upload.event) for upload in (*good[:4], bad, *good[4:])]
    answer = send(server, {"Records": records})
    assert (answer.status, answer.headers["kne-reason"]) == (422, "badimage")
    for digit, upload in enumerate(good):
        assert_filed(place, upload, digit)
    assert place.copies(bad) == {f"mnist-rejected/{bad.key}": bad.data}


# --- odd keys ---

ODD_NAMES = (
    "with space and  two",
    "a+b",
    "%2B",
    "%2F",
    "%252F 100% 50%25",
    "größe-数字-é",
    "e\u0301 nfd",
    "🎉",
    "s!*'()~;:@&=$,?#[]\\|\"<>^`{}_-.",
    "=?UTF-8?B?w6k=?=",
    "a..b/...",
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_row_06_an_object_is_filed_under_its_key_whatever_that_is(place: Place, server: ModelServer, name: str) -> None:
    upload = place.upload(f"{uuid.uuid4()}/{name}.png", digit_png(6))
    # Knative passes the record's key on, as raw bytes; here it names another object.
    other = place.upload(f"{uuid.uuid4()}.png", digit_png(6))
    answer = send(server, upload.event, **{"ce-key": f"{place.bucket}/{other.key}"})
    assert (answer.status, answer.body) == (200, b"")
    assert not place.is_left(upload)
    assert list(place.copies(upload)) == [f"digit-6/{upload.key}"]
    (result,) = place.results(upload)
    assert result["data"]["destination"] == f"digit-6/{upload.key}"
    assert place.is_left(other)


@pytest.mark.parametrize("pair", [("a b.png", "a+b.png"), ("a+b.png", "a%2Bb.png"), ("50%.png", "50%25.png")])
def test_row_06_a_key_is_not_taken_for_what_it_would_be_decoded_once_more_or_once_less(
    place: Place, server: ModelServer, pair: tuple[str, str]
) -> None:
    folder = uuid.uuid4()
    uploads = [place.upload(f"{folder}/{name}", digit_png(digit)) for digit, name in enumerate(pair)]
    for digit, upload in enumerate(uploads):
        assert send(server, upload.event).status == 200
        assert place.client().stat_object(bucket_name=f"digit-{digit}", object_name=upload.key).size
        assert [one.key for one in uploads if place.is_left(one)] == [one.key for one in uploads[digit + 1 :]]


def test_row_06_a_key_of_1024_bytes_is_filed_under_itself(place: Place, server: ModelServer) -> None:
    key = f"{uuid.uuid4()}" + f"/{'é' * 100}" * 4 + "/"
    key += "x" * (1020 - len(key.encode())) + ".png"
    upload = place.upload(key, digit_png(6))
    assert len(upload.key.encode()) == 1024
    assert send(server, upload.event).status == 200
    assert_filed(place, upload, 6)


# --- odd pictures ---


def kinds_of(pixels: Any) -> dict[str, bytes]:
    """A digit of 28x28, white on black, as other kinds of pictures; the names are as row 15 and 16 of the table."""
    grey = Image.fromarray(pixels)
    inverted = Image.fromarray(255 - pixels)
    large = grey.resize((1400, 1400), Image.Resampling.BICUBIC)
    paper = Image.new("L", (2000, 1500), 225)
    paper.paste(Image.fromarray(225 - np.asarray(large.resize((700, 700))) // 2), (900, 300))
    turned = Image.Exif()
    turned[0x0112] = 6
    palette = inverted.convert("P")
    wide = Image.fromarray(pixels.astype(np.uint16) * 257)
    black = Image.new("L", grey.size, 0)
    return {
        "as it is": encoded(grey),
        "black on white": encoded(inverted),
        "dim": encoded(Image.fromarray(pixels // 3)),
        "large": encoded(large),
        "a photo": encoded(paper, "JPEG"),
        "RGBA": encoded(Image.merge("RGBA", [black, black, black, grey])),
        "LA": encoded(Image.merge("LA", [black, grey])),
        "palette": encoded(palette),
        "1 bit": encoded(large.point(lambda level: 255 * (level > 127)).convert("1")),
        "16 bits": encoded(wide),
        "CMYK": encoded(large.convert("CMYK"), "JPEG"),
        "rotated by EXIF": encoded(large.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned),
        "animated": encoded(grey, save_all=True, append_images=[black], duration=100),
    }


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


@pytest.mark.parametrize("index", [0, 1, 2, 3, 4])
def test_row_15_and_row_16_a_digit_is_the_same_digit_in_every_kind_of_picture(stack: Stack, index: int) -> None:
    kinds = kinds_of(mnist.images()[index])
    instances = [{"data": base64.b64encode(data).decode()} for data in kinds.values()]
    answer = post(stack.transformer.predict_url, {"instances": instances}, {"Content-Type": "application/json"})
    digits = dict(zip(kinds, json.loads(answer.body)["predictions"], strict=True))
    assert digits == dict.fromkeys(kinds, int(mnist.labels()[index]))


# --- many at once ---


def test_row_29_two_hundred_events_in_flight_keep_their_own_key_digit_and_trace_id(
    flooded: tuple[Place, ModelServer],
) -> None:
    (place, server), folder = flooded, uuid.uuid4()
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        uploads = list(threads.map(lambda n: place.upload(f"{folder}/{n}.png", digit_png(n % 10)), range(200)))
    # Beside the objects, requests whose answers tell what they were about.
    images = [base64.b64encode(digit_png(digit)).decode() for digit in range(10)]

    def requests(number: int) -> list[dict[str, Any]]:
        trace_id, instances = f"{folder} {number}", [{"data": images[n % 10]} for n in (number, number + 1)]
        return [
            {**uploads[number].event, "test-trace-id": trace_id},
            {"instances": instances, "test-trace-id": trace_id + "i"},
        ]

    def ask(number: int) -> None:
        event, request = requests(number)
        answer = send(server, event)
        assert (answer.status, answer.body) == (200, b"")
        answer = post(server.predict_url, request, {"Content-Type": "application/json"})
        assert json.loads(answer.body) == {"predictions": [number % 10, (number + 1) % 10]}

    order = list(range(200))
    random.Random(29).shuffle(order)  # noqa: S311 - the same order each time
    if isinstance(server, ConsumeProcess):
        answers = deliver_all(server, [request for number in order for request in requests(number)])
        assert {answer.status for answer in answers} == {200}
    else:
        with ThreadPoolExecutor(200) as threads:
            for asked in [threads.submit(ask, number) for number in order]:
                asked.result()
    results = {event["test-trace-id"]: event for event in place.all_results() if str(folder) in event["test-trace-id"]}
    assert len(results) == 400
    for number, upload in enumerate(uploads):
        result, digit = results[f"{folder} {number}"], number % 10
        assert result["subject"] == f"{upload.bucket}/{upload.key}"
        assert result["data"]["predictions"] == [digit]
        assert result["data"]["destination"] == f"digit-{digit}/{upload.key}"
        assert results[f"{folder} {number}i"]["data"] == {"predictions": [digit, (digit + 1) % 10]}
    assert len({event["id"] for event in results.values()}) == 400
    assert keys_by_bucket(place, f"{folder}/") == {
        f"digit-{digit}": {upload.key for upload in uploads[digit::10]} for digit in range(10)
    }


def test_bodies_that_wait_for_a_slot_take_bounded_memory_and_are_told_to_come_again(embedded_place: Place) -> None:
    limit = 2_000_000
    settings = {"MAX_IN_FLIGHT": "1", "MAX_BODY_BYTES": str(limit), "EVENT_TIMEOUT_SECONDS": "8"}
    upload = embedded_place.upload(f"{uuid.uuid4()}.png", digit_png(7))
    image = base64.b64encode(digit_png(3)).decode()
    large = json.dumps({"instances": [{"data": image}], "padding": "x" * (limit - 2000)}).encode()
    with watched_transformer(embedded_place, "http", **settings) as watched, ThreadPoolExecutor(61) as threads:
        assert watched.send(large).status == 200
        before = peak_memory(watched.server)
        watched.store.freeze()
        in_the_slot = threads.submit(watched.send, upload.event)
        time.sleep(0.3)
        began = time.monotonic()
        sent = list(threads.map(watched.send, [large] * 60))
        waited = time.monotonic() - began
        # The event gives its slot up when the store has not answered for half of the deadline.
        answers = [(one.status, one.reason) for one in sent if one.status != 200]
        assert len(answers) > 50
        assert set(answers) == {(429, "busy")}
        # A quarter of the deadline for room, and one more for a slot.
        assert waited > 1.5
        # Together they are 60 times the limit; one is in hand, and of each other a socket's buffer.
        assert peak_memory(watched.server) - before < 30 * limit
        # Before the store is back: what it had held would still come in time.
        assert in_the_slot.result().status in (503, 504)
        watched.store.heal()
        assert watched.send(large).body == b'{"predictions":[3]}'
        assert watched.send(upload.event).status == 200


def keys_by_bucket(place: Place, folder: str) -> dict[str, set[str]]:
    """Every object under the folder, by its bucket."""
    client, found = place.client(), {}
    for bucket in (place.bucket, "mnist-rejected", *(f"digit-{digit}" for digit in range(10))):
        listed = client.list_objects(bucket_name=bucket, prefix=folder, recursive=True)
        if keys := {str(one.object_name) for one in listed}:
            found[bucket] = keys
    return found


def test_row_32_one_poison_among_a_thousand_is_rejected_and_holds_up_nothing(
    flooded: tuple[Place, ModelServer],
) -> None:
    (place, server), folder, poison = flooded, uuid.uuid4(), 500

    def upload(number: int) -> Upload:
        return place.upload(f"{folder}/{number}.png", NOT_AN_IMAGE if number == poison else digit_png(number % 10))

    def attempts(one: Upload) -> tuple[list[int], float]:
        """Deliver as Knative does: again while it may succeed; the statuses, and the time that it took."""
        began, statuses = time.monotonic(), [send(server, one.event).status]
        while statuses[-1] in (404, 408, 409, 429) or statuses[-1] >= 500:
            assert len(statuses) < 10
            time.sleep(0.3 * 2 ** len(statuses))
            statuses.append(send(server, one.event).status)
        return statuses, time.monotonic() - began

    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        uploads = list(threads.map(upload, range(1000)))
        if isinstance(server, ConsumeProcess):
            answers = deliver_all(server, [one.event for one in uploads], KNATIVE)
            assert [answer.status for answer in answers] == [422 if n == poison else 200 for n in range(1000)]
        else:
            settled = list(threads.map(attempts, uploads))
            assert [statuses for statuses, _ in settled] == [[422 if n == poison else 200] for n in range(1000)]
            assert max(seconds for _, seconds in settled) < LONGEST_SECONDS
    filed = {f"digit-{digit}": {one.key for one in uploads[digit::10]} for digit in range(10)}
    filed[f"digit-{poison % 10}"].remove(uploads[poison].key)
    assert keys_by_bucket(place, f"{folder}/") == {**filed, "mnist-rejected": {uploads[poison].key}}
