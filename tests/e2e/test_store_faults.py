"""Rows 17 to 23 and 28: a transformer whose store loses objects, fails, or changes them under its hands."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import struct
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from minio.commonconfig import COMPLIANCE, ENABLED, Tags
from minio.datatypes import Object
from minio.retention import Retention
from minio.versioningconfig import VersioningConfig
from PIL import Image

from e2e.following import wait_until
from e2e.metrics import Metrics, counted
from e2e.places import REJECTED_BUCKET, Place, Upload
from e2e.watching import peak_memory
from e2e.ways import Way, deliver, deliver_all
from mnist_pipeline.local.processes import answers_ok
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.pipeline.decoding import DECODED_AT_ONCE
from mnist_pipeline.testing import digit_png, minio_event
from servers.minio import MinioServer, transformer_policy, upload_with
from servers.proxy import Proxy

DEADLINE_SECONDS = 4
LARGE_PIXELS = 4_000
# What decoding 16 million pixels may take for a moment, in bytes.
PIXELS_IN_HAND = 300 * 1024 * 1024


@pytest.fixture(scope="module")
def replicas(place: Place, way: Way) -> Iterator[tuple[ModelServer, ModelServer]]:
    """Two transformers of one place."""
    both = place.start(way=way), place.start(way=way)
    for one in both:
        one.wait_ready()
    yield both
    for one in both:
        one.close()


def status_of(server: ModelServer, upload: Upload) -> int:
    return deliver(server, upload.event, {"ce-id": "1"}).status


def statuses_of(server: ModelServer, uploads: Sequence[Upload], *, at_once: int = 1) -> list[int]:
    """Those of several, which go together where there are batches."""
    events = [upload.event for upload in uploads]
    return [answer.status for answer in deliver_all(server, events, {"ce-id": "1"}, at_once=at_once)]


def deliver_until_done(server: ModelServer, upload: Upload) -> int:
    """As Knative does; the embedded store answers 500 now and then where two requests meet at one object."""
    for _ in range(10):
        status = status_of(server, upload)
        if status < 500:
            break
    return status


def user_metadata(found: Object) -> dict[str, str]:
    """What describes the object by its user's choice, without the prefix of the headers."""
    headers = {name.lower(): value for name, value in (found.metadata or {}).items()}
    return {name[len("x-amz-meta-") :]: value for name, value in headers.items() if name.startswith("x-amz-meta-")}


def new_key() -> str:
    return f"{uuid.uuid4()}.png"


def large_png(digit: int, *, side: int, size: int = 0) -> bytes:
    """A drawing of so many pixels a side, made `size` bytes long by a chunk that decoders skip (PNG, section 4.7)."""
    with Image.open(io.BytesIO(digit_png(digit))) as small, io.BytesIO() as file:
        small.resize((side, side)).save(file, format="PNG", compress_level=1)
        png = file.getvalue()
    padding = max(size - len(png) - 12, 0)
    chunk = b"prVt" + b"\0" * padding
    # Before IEND, the last 12 bytes.
    return png[:-12] + struct.pack(">I", padding) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[-12:]


# --- what is there ---


def test_row_17_an_object_that_is_gone_is_acknowledged_and_counted(
    place: Place, replicas: tuple[ModelServer, ModelServer]
) -> None:
    before = counted(replicas[0], "gone")
    never = Upload(bucket=place.bucket, key="never.png", data=b"", event=minio_event(place.bucket, "never.png"))
    upload = place.upload(new_key(), digit_png(1))
    assert [status_of(replicas[0], one) for one in (never, upload, upload)] == [200, 200, 200]
    assert counted(replicas[0], "gone") == before + 2
    assert len(place.results(upload)) == 1


def test_row_18_64_images_of_10_mib_and_16_million_pixels_at_once_take_bounded_memory(
    embedded_place: Place, way: Way
) -> None:
    place = embedded_place
    server = place.start(settings={"EVENT_TIMEOUT_SECONDS": "120"}, way=way)
    server.wait_ready()
    uploads = [place.upload(new_key(), digit_png(3))]
    assert status_of(server, uploads[0]) == 200
    before = peak_memory(server)
    large = large_png(3, side=LARGE_PIXELS, size=10 * 1024 * 1024)
    assert len(large) == 10 * 1024 * 1024
    uploads = [place.upload(new_key(), large) for _ in range(64)]
    assert statuses_of(server, uploads, at_once=64) == [200] * 64
    assert not any(place.is_left(upload) for upload in uploads)
    grown = peak_memory(server) - before
    server.close()
    bound = 64 * len(large) + DECODED_AT_ONCE * PIXELS_IN_HAND
    assert grown < 1.1 * bound, f"{grown:,} bytes"


# --- overwritten ---


@pytest.mark.real
def test_row_19_of_300_objects_that_are_overwritten_in_flight_every_version_is_filed_on_two_replicas(
    real_place: Place,
    way: Way,
) -> None:
    place = real_place
    one, other = place.start(way=way), place.start(way=way)
    one.wait_ready()
    other.wait_ready()
    races = range(300)

    def race(number: int) -> tuple[Upload, Upload]:
        key, digit = new_key(), number % 10
        first = place.upload(key, digit_png(digit))
        with ThreadPoolExecutor(3) as threads:
            answers = [threads.submit(status_of, server, first) for server in (one, other)]
            time.sleep(number % 20 / 1000)
            second = place.upload(key, digit_png((digit + 1) % 10))
            answers += [threads.submit(status_of, server, second) for server in (other, one)]
            assert {answer.result() for answer in answers} == {200}
        return first, second

    with ThreadPoolExecutor(16) as threads:
        pairs = list(threads.map(race, races))
    for number, (first, second) in zip(races, pairs, strict=True):
        names = {f"digit-{(number + later) % 10}/{first.key}" for later in (0, 1)}
        copies = place.copies(first)
        assert copies.keys() == names
        assert set(copies.values()) == {first.data, second.data}
        assert not place.is_left(first)
    ids = place.ids_by_subject()
    assert {len(ids[f"{place.bucket}/{first.key}"]) for first, _ in pairs} == {2}
    for server in (one, other):
        server.close()


@pytest.mark.real
def test_row_19_an_object_from_before_versions_that_is_overwritten_after_loses_nothing(
    real_place: Place, way: Way
) -> None:
    place = replace(real_place, bucket=f"source-{uuid.uuid4()}", versioned=False)
    place.make_buckets()
    first = place.upload(new_key(), digit_png(1))
    place.client().set_bucket_versioning(bucket_name=place.bucket, config=VersioningConfig(ENABLED))
    place = replace(place, versioned=True)
    second = place.upload(first.key, digit_png(2))
    server = place.start(way=way)
    server.wait_ready()
    # The first event names no version, so it may find the second object; what lies under that stays for a redelivery.
    assert [status_of(server, one) for one in (first, second, first)] == [200, 200, 200]
    assert place.copies(first) == {f"digit-1/{first.key}": first.data, f"digit-2/{first.key}": second.data}
    assert not place.is_left(first)
    server.close()


@pytest.mark.real
def test_row_19_the_event_of_an_older_version_that_comes_twice_touches_no_newer_one(
    real_place: Place,
    way: Way,
) -> None:
    place = real_place
    server = place.start(way=way)
    server.wait_ready()
    older = place.upload(new_key(), digit_png(4))
    newer = place.upload(older.key, digit_png(5))
    assert [status_of(server, older) for _ in range(2)] == [200, 200]
    assert place.copies(older) == {f"digit-4/{older.key}": older.data}
    assert place.is_left(newer)
    assert status_of(server, newer) == 200
    assert not place.is_left(newer)
    server.close()


# --- missing and forbidden ---


def test_row_20_a_missing_bucket_is_retried_and_named_and_converges_once_it_is_made(
    embedded_place: Place, way: Way
) -> None:
    place = embedded_place
    late = f"late-{uuid.uuid4()}"
    server = place.start(settings={"DESTINATION": late + "/{digit}"}, way=way)
    server.wait_ready()
    upload = place.upload(new_key(), digit_png(6))
    assert status_of(server, upload) == 503
    assert f"there is no bucket '{late}'" in server.child.log.read_text()
    assert place.is_left(upload)
    place.client().make_bucket(bucket_name=late)
    assert status_of(server, upload) == 200
    found = place.client().stat_object(bucket_name=late, object_name=f"6/{upload.key}")
    assert found.etag == hashlib.md5(upload.data, usedforsecurity=False).hexdigest()
    assert not place.is_left(upload)
    assert len({event["id"] for event in place.results(upload)}) == 1
    server.close()


def test_row_20_a_missing_source_bucket_is_retried_and_named(embedded_place: Place, way: Way) -> None:
    place = replace(embedded_place, bucket=f"source-{uuid.uuid4()}")
    server = place.start(way=way)
    server.wait_ready()
    upload = Upload(bucket=place.bucket, key="7.png", data=digit_png(7), event=minio_event(place.bucket, "7.png"))
    assert status_of(server, upload) == 503
    assert f"there is no bucket '{place.bucket}'" in server.child.log.read_text()
    place.make_buckets()
    key = new_key()
    assert status_of(server, place.upload(key, digit_png(7))) == 200
    server.close()


@pytest.mark.real
def test_row_20_what_the_store_forbids_is_retried_and_named(real_place: Place) -> None:
    place = real_place
    forbidden = f"forbidden-{uuid.uuid4()}"
    place.client().make_bucket(bucket_name=forbidden)
    server = place.start(settings={"DESTINATION": forbidden + "/{digit}"})
    server.wait_ready()
    upload = place.upload(new_key(), digit_png(6))
    assert status_of(server, upload) == 503
    said = server.child.log.read_text()
    assert f"'{forbidden}'" in said
    assert "AccessDenied" in said
    server.close()
    whole = place.start()
    whole.wait_ready()
    assert status_of(whole, upload) == 200
    assert place.copies(upload) == {f"digit-6/{upload.key}": upload.data}
    whole.close()


@pytest.mark.real
@pytest.mark.parametrize("described_by", ["metadata", "tags"])
def test_an_image_that_cannot_be_sent_again_with_all_its_description_is_filed_with_its_trace_id(
    real_place: Place, described_by: str
) -> None:
    place, client = real_place, real_place.client()
    key, trace_key, trace_id = new_key(), real_place.settings["REQUEST_TRACE_KEY"], str(uuid.uuid4())
    trace = {f"x-amz-meta-{trace_key}": trace_id}
    # minio-py sends UTF-8 as we do; in a signed query it can be raw.
    raw = {"x-amz-meta-note": "日本" * 300} if described_by == "metadata" else {}
    version_id = upload_with(
        client, place.bucket, key, digit_png(7), {"content-type": "image/png"}, query={**trace, **raw}
    )
    if described_by == "tags":
        tags = Tags.new_object_tags()
        # S3's own limits, and each blank takes three bytes of a header.
        tags.update({f"{number}" + " " * 126 + "x": " " * 255 + "x" for number in range(10)})
        client.set_object_tags(bucket_name=place.bucket, object_name=key, tags=tags)
    event = minio_event(place.bucket, key, version_id=version_id)
    upload = Upload(bucket=place.bucket, key=key, data=digit_png(7), event=event)
    server = place.start()
    server.wait_ready()
    assert status_of(server, upload) == 200
    assert place.copies(upload) == {f"digit-7/{key}": upload.data}
    assert not place.is_left(upload)
    filed = client.stat_object(bucket_name="digit-7", object_name=key)
    assert user_metadata(filed) == {trace_key: trace_id}
    assert "x-amz-tagging-count" not in (filed.metadata or {})
    assert [event[trace_key] for event in place.results(upload)] == [trace_id]
    assert f"'{key}' had more metadata or tags than the store takes" in server.child.log.read_text()
    server.close()


@pytest.mark.real
def test_an_object_whose_metadata_has_no_room_for_the_reason_is_rejected_with_it_all_the_same(
    real_place: Place,
) -> None:
    place, trace_key = real_place, real_place.settings["REQUEST_TRACE_KEY"]
    server = place.start(settings={"MAX_OBJECT_BYTES": "1000"})
    server.wait_ready()
    uploads = [
        place.upload(new_key(), data, metadata={trace_key: str(number), "note": "x" * 1990})
        for number, data in enumerate([b"no image", b"x" * 1001])
    ]
    assert statuses_of(server, uploads) == [422, 422]
    for number, (upload, reason) in enumerate(zip(uploads, ("badimage", "objecttoolarge"), strict=True)):
        ((place_now, data),) = place.copies(upload).items()
        bucket, _, key = place_now.partition("/")
        assert (bucket, data) == (REJECTED_BUCKET, upload.data)
        assert not place.is_left(upload)
        rejected = place.client().stat_object(bucket_name=bucket, object_name=key)
        assert user_metadata(rejected) == {trace_key: str(number), "rejected-reason": reason}
        assert [event[trace_key] for event in place.results(upload)] == [str(number)]
    server.close()


CONTENT_HEADERS = {
    "content-type": "image/png",
    "cache-control": "max-age=60",
    "content-disposition": 'attachment; filename="7.png"',
    "content-language": "de",
    "expires": "Thu, 01 Dec 2033 16:00:00 GMT",
}


@pytest.mark.real
def test_row_48_an_object_moved_is_the_same_object_and_its_trace_id_leads_to_its_result(
    real_place: Place, way: Way
) -> None:
    place, client, trace_key = real_place, real_place.client(), real_place.settings["REQUEST_TRACE_KEY"]
    server = place.start(settings={"MAX_OBJECT_BYTES": "1000"}, way=way)
    server.wait_ready()
    contents = [
        (gzip.compress(digit_png(7)), "gzip", 200),
        (zlib.compress(digit_png(7)), "deflate", 200),
        (digit_png(7), "gzip", 200),
        (digit_png(7), "br", 422),
        (gzip.compress(bytes(1001)), "gzip", 422),
        (b"x" * 1001, "gzip", 422),
    ]
    for data, encoding, status in contents:
        key, headers = new_key(), {**CONTENT_HEADERS, "content-encoding": encoding}
        version_id = upload_with(client, place.bucket, key, data, headers)
        event = minio_event(place.bucket, key, version_id=version_id)
        upload = Upload(bucket=place.bucket, key=key, data=data, event=event)
        assert status_of(server, upload) == status
        assert not place.is_left(upload)
        (result,) = place.results(upload)
        bucket, _, key_now = result["data"]["destination"].partition("/")
        assert bucket == ("digit-7" if status == 200 else REJECTED_BUCKET)
        # A client decodes what it gets.
        copy = client.stat_object(bucket_name=bucket, object_name=key_now)
        assert copy.etag == hashlib.md5(data, usedforsecurity=False).hexdigest()
        described = {name.lower(): value for name, value in (copy.metadata or {}).items()}
        assert {name: described.get(name) for name in headers} == headers
        assert user_metadata(copy)[trace_key] == result[trace_key]
    server.close()


# --- retained ---


def settings_of_keeper(place: Place, minio: MinioServer) -> dict[str, str]:
    """Who may do all that a transformer does, but delete."""
    policy = transformer_policy({"mnist": "source-*"})
    for statement in policy["Statement"]:
        statement["Action"] = [action for action in statement["Action"] if "Delete" not in action]
    name, secret = f"keeper-{uuid.uuid4()}", str(uuid.uuid4())
    minio.add_user(name, secret, policy)
    return {**place.settings, "MINIO_ACCESS_KEY": name, "MINIO_SECRET_KEY": secret}


def retain(place: Place, uploads: Sequence[Upload], because: str) -> datetime:
    """Have them kept, where that is why, until then: for as long as the next step may take."""
    until = datetime.now(timezone.utc) + timedelta(seconds=20)
    for upload in uploads if because == "a retention" else []:
        kept = Retention(COMPLIANCE, until)
        place.client().set_object_retention(place.bucket, upload.key, kept, upload.version_id)
    return until


@pytest.mark.real
@pytest.mark.parametrize("because", ["a legal hold", "a retention", "no right", "no right, no versions"])
def test_row_44_what_cannot_be_released_is_filed_and_published_once_and_let_go_once_it_can_be(
    real_place: Place, real_minio: MinioServer, because: str, way: Way
) -> None:
    place = replace(real_place, bucket=f"source-{uuid.uuid4()}", versioned=because != "no right, no versions")
    client = place.client()
    if not because.startswith("no right"):
        client.make_bucket(bucket_name=place.bucket, object_lock=True)
    place.make_buckets()
    uploads = [place.upload(new_key(), data) for data in (digit_png(7), b"no image", b"x" * 1001)]
    place.settings = {**place.settings, "MAX_OBJECT_BYTES": "1000"}
    limited = place.settings
    if because.startswith("no right"):
        place.settings = settings_of_keeper(place, real_minio)
    if because == "a legal hold":
        for upload in uploads:
            client.enable_object_legal_hold(place.bucket, upload.key, upload.version_id)

    server = place.start(way=way)
    server.wait_ready()
    for _ in range(2):
        retain(place, uploads, because)
        assert statuses_of(server, uploads) == [200, 422, 422]
    for _ in range(2):
        until = retain(place, uploads, because)
        assert reconciled(place) == (0, "1 badimage, 1 objecttoolarge, 1 retained; 0 left unsettled")
    assert counted(server, "retained") == 2
    assert all(place.is_left(upload) for upload in uploads)
    assert [len(place.results(upload)) for upload in uploads] == [1, 1, 1]
    assert [[*place.copies(upload).values()] for upload in uploads] == [[upload.data] for upload in uploads]
    log = server.child.log.read_text()
    named = [rf"{place.bucket}/'{re.escape(upload.key)}' is .*; it stays, though all is done" for upload in uploads]
    assert all(re.search(line, log) for line in named)
    server.close()

    place.settings = limited
    for upload in uploads if because == "a legal hold" else []:
        client.disable_object_legal_hold(place.bucket, upload.key, upload.version_id)
    if because == "a retention":
        time.sleep(max(0.0, (until - datetime.now(timezone.utc)).total_seconds()) + 1)
    assert reconciled(place) == (0, "1 badimage, 1 filed, 1 objecttoolarge; 0 left unsettled")
    assert not any(place.is_left(upload) for upload in uploads)
    assert [len(place.results(upload)) for upload in uploads] == [1, 1, 1]


def reconciled(place: Place) -> tuple[int, str]:
    """The exit code and the summary of `mnist-pipeline reconcile`, its counts sorted."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mnist_pipeline", "reconcile", "--older-than", "0s"),
            *("--predictor_host", f"127.0.0.1:{place.predictor.http_port}"),
        ],
        env={**os.environ, **place.settings, "SOURCE_BUCKETS": place.bucket},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    counts, _, left = done.stdout.strip().partition("; ")
    return done.returncode, f"{', '.join(sorted(counts.split(', ')))}; {left}"


# --- two readings of one key ---


@pytest.mark.real
@pytest.mark.parametrize("versioned", [True, False])
def test_row_42_of_two_objects_that_an_event_may_mean_the_one_with_its_etag_is_filed(
    real_place: Place, versioned: bool
) -> None:
    place = replace(real_place, bucket=f"source-{uuid.uuid4()}", versioned=versioned)
    place.make_buckets()
    server = place.start()
    server.wait_ready()
    for meant in (0, 1):
        stem = uuid.uuid4()
        uploads = [place.upload(f"{stem} {sign}b.png", digit_png(n)) for n, sign in ((3, "+"), (4, " "))]
        # As a store writes it that escapes no keys, or one that escapes them all: both can be read so.
        event = uploads[meant].event
        event["Records"][0]["s3"]["object"]["key"] = f"{stem} +b.png"
        assert status_of(server, uploads[meant]) == 200
        assert [place.is_left(upload) for upload in uploads] == [meant == 1, meant == 0]
        assert place.copies(uploads[meant]) == {f"digit-{meant + 3}/{uploads[meant].key}": uploads[meant].data}
        if versioned:  # else the one that is left may be the one that was meant, overwritten since
            assert status_of(server, uploads[meant]) == 200
            assert [place.is_left(upload) for upload in uploads] == [meant == 1, meant == 0]
    server.close()


# --- failing ---


@pytest.fixture(scope="module")
def proxied(place: Place, way: Way) -> Iterator[tuple[ModelServer, Proxy]]:
    """A transformer with a short deadline, and a proxy between it and the store."""
    endpoint = place.settings["MINIO_ENDPOINT"]
    with Proxy(int(endpoint.rpartition(":")[2])) as proxy:
        server = place.start(
            settings={
                "MINIO_ENDPOINT": f"http://127.0.0.1:{proxy.port}",
                "EVENT_TIMEOUT_SECONDS": str(DEADLINE_SECONDS),
            },
            way=way,
        )
        server.wait_ready()
        yield server, proxy
        server.close()


@pytest.mark.parametrize("fault", ["cut", "freeze", "reset in mid-body"])
def test_row_21_a_store_that_fails_is_retried_within_the_deadline_and_its_connections_are_released(
    place: Place, way: Way, proxied: tuple[ModelServer, Proxy], fault: str
) -> None:
    server, proxy = proxied
    uploads = [place.upload(new_key(), large_png(digit, side=280, size=200_000)) for digit in range(8)]
    if fault == "cut":
        proxy.cut()
    elif fault == "freeze":
        proxy.freeze()
    else:
        proxy.reset_after(100_000)
    before = sum(Metrics.of(server).failed.values())
    started = time.monotonic()
    answers = statuses_of(server, uploads, at_once=8)
    assert time.monotonic() - started < DEADLINE_SECONDS + 2
    failed = {200, 503} if fault == "reset in mid-body" else {503, 504}
    assert set(answers) <= failed
    assert sum(Metrics.of(server).failed.values()) > before
    assert answers_ok(server.http_port, "/v2/health/live")
    left = [upload for upload, answer in zip(uploads, answers, strict=True) if answer != 200]
    # A record is tried again by itself, and a reset spares whom it will.
    assert all(place.is_left(upload) for upload in left) or (fault, way) == ("reset in mid-body", "kafka")
    proxy.heal()
    assert [deliver_until_done(server, upload) for upload in left] == [200] * len(left)
    assert [list(place.copies(upload)) for upload in uploads] == [
        [f"digit-{digit}/{upload.key}"] for digit, upload in enumerate(uploads)
    ]
    wait_until(lambda: proxy.open_connections <= 8)


def test_row_21_a_slow_store_is_waited_for(place: Place, proxied: tuple[ModelServer, Proxy]) -> None:
    server, proxy = proxied
    upload = place.upload(new_key(), digit_png(9))
    proxy.delay(0.3)
    started = time.monotonic()
    assert status_of(server, upload) == 200
    assert 0.9 < time.monotonic() - started < DEADLINE_SECONDS
    proxy.heal()


# --- filed before, and delivered again ---


@pytest.mark.real
def test_row_23_what_lies_in_the_destination_is_never_overwritten(real_place: Place, way: Way) -> None:
    place = real_place
    server = place.start(way=way)
    server.wait_ready()
    key, digest = new_key(), hashlib.sha256(digit_png(2)).hexdigest()[:12]
    place.client().put_object(bucket_name="digit-2", object_name=key, data=io.BytesIO(b"other"), length=5)
    assert status_of(server, place.upload(key, digit_png(2))) == 200
    beside = key.replace(".png", f"-{digest}.png")
    upload = place.upload(key, digit_png(2))
    assert status_of(server, upload) == 200
    assert place.copies(upload) == {f"digit-2/{key}": b"other", f"digit-2/{beside}": digit_png(2)}
    assert not place.is_left(upload)
    assert {event["data"]["destination"] for event in place.results(upload)} == {f"digit-2/{beside}"}
    server.close()


def test_row_28_events_that_come_four_times_in_turn_and_at_once_on_two_replicas_converge(
    place: Place, replicas: tuple[ModelServer, ModelServer]
) -> None:
    uploads = [place.upload(new_key(), digit_png(number % 10)) for number in range(40)]
    with ThreadPoolExecutor(16) as threads:
        servers = (*replicas, *replicas)
        answers = [threads.submit(deliver_until_done, server, upload) for upload in uploads for server in servers]
        assert {answer.result() for answer in answers} == {200}
    for number, upload in enumerate(uploads):
        assert place.copies(upload) == {f"digit-{number % 10}/{upload.key}": upload.data}
        assert not place.is_left(upload)
    ids = place.ids_by_subject()
    assert {len(ids[f"{place.bucket}/{upload.key}"]) for upload in uploads} == {1}
