"""Both stories end to end on MinIO's own Kafka target and Apache Kafka, `mnist-pipeline source` in KafkaSource's place.

Redelivery is part of it: when sources come, go or are killed, notifications are delivered again. So "filed once" is
what lies in the buckets, and "one result" is one id, however many records carry it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]  # its types are another package
import pytest
from boto3.s3.transfer import TransferConfig  # type: ignore[import-untyped]
from cloudevents.kafka import KafkaMessage, from_binary
from kafka import KafkaProducer

from e2e.following import EXAMPLE, IMAGES, Answer, post, wait_until
from e2e.sinks import Sink
from mnist_pipeline.adapters.group_member import Subscription
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.local.source import Source
from mnist_pipeline.pipeline.settings import Kafka
from mnist_pipeline.testing import minio_event
from real.objects import assert_each_is_filed_once, digit_of, filed, fresh, thousand, upload
from real.site import (
    NOTIFICATIONS_TOPIC,
    PARTITIONS,
    SOURCE_BUCKET,
    Site,
)
from servers.kafka import KafkaProgram
from servers.minio import REGION, variables_of

pytestmark = pytest.mark.real

CURL = {
    "Ce-Id": "1751444412",
    "Ce-Specversion": "1.0",
    "Ce-Type": "prediction-request-udf-attr",
    "Ce-Source": "event-producer",
    "Content-Type": "application/json",
}
HOST = "test-transformer-transformer.kserve-test.svc.cluster.local"


@pytest.fixture(scope="module")
def site(kafka_program: KafkaProgram, minio_program: Path) -> Iterator[Site]:
    with Site(kafka_program, minio_program) as site:
        yield site


# --- the first story: an upload ---


def test_the_site_that_setup_has_made_passes_its_check(site: Site) -> None:
    lines = site.setup("--check", "--predictor_host", f"127.0.0.1:{site.predictor.http_port}")
    assert [line for line in lines if not line.startswith("there: ")] == []


def test_a_thousand_objects_that_are_delivered_in_order_are_all_filed_once(site: Site) -> None:
    prefix = fresh("ordered")
    objects = thousand(prefix)
    with site.delivering() as sources:
        upload(site, objects)
        site.wait_settled()
    assert_each_is_filed_once(site, prefix, objects)
    assert all(site.delivered(source) > 0 for source in sources)
    assert {record.partition for record in site.records(NOTIFICATIONS_TOPIC)} == set(range(PARTITIONS))


def test_a_thousand_in_any_order_are_all_filed_once_although_a_source_is_killed_and_replaced(site: Site) -> None:
    prefix = fresh("unordered")
    objects = thousand(prefix)
    upload(site, objects)
    with site.delivering("--unordered", "--max-in-flight", "16") as sources:
        wait_until(lambda: filed(site, prefix) >= 100, "not even a hundred are filed", seconds=60, every=0.25)
        sources[1].kill()
        sources[1] = site.start_source(site.transformers[1], "--unordered", "--max-in-flight", "16")
        site.wait_delivering(sources[1])
        site.wait_settled()
    assert_each_is_filed_once(site, prefix, objects)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_source_that_keeps_a_partition_while_another_joins_skips_none_of_its_records(
    site: Site, ordered: bool
) -> None:
    topic = fresh("kept").rstrip("/")
    site.kafka.create_topic(topic, 2)
    # More than kafka-python gives at once by default; the source has paused both partitions when the other one joins.
    values = [b"%d" % number for number in range(1500)]
    producer = KafkaProducer(bootstrap_servers=site.kafka.bootstrap_servers)
    for number, value in enumerate(values):
        producer.send(topic, value=value, partition=number % 2)
    producer.close(timeout=20)
    joined = threading.Event()

    def answer_after_the_other_has_joined(_received: object) -> int:
        return 200 if joined.wait(60) else 503

    with Sink(answer_after_the_other_has_joined) as sink, contextlib.ExitStack() as sources:

        def join() -> None:
            sources.enter_context(
                Source(
                    Kafka(bootstrap_servers=site.kafka.bootstrap_servers, topic=topic),
                    Subscription(topics=(topic,), group=topic, initial_offset="earliest", session_timeout_seconds=6.0),
                    sink.url,
                    ordered=ordered,
                    max_in_flight=2,
                )
            )

        join()
        wait_until(lambda: len(sink.received) == 2, "nothing is delivered", seconds=60)
        join()
        joined.set()
        wait_until(
            lambda: {received.body for received in sink.received} == set(values), "records are skipped", seconds=30
        )


def test_what_is_uploaded_while_kafka_is_away_is_filed_once_it_is_back(site: Site) -> None:
    prefix = fresh("away")
    objects = dict(list(thousand(prefix).items())[:20])
    site.kafka.stop()
    try:
        upload(site, objects)
    finally:
        site.kafka.start()
        site.kafka.wait_ready()
    with site.delivering():
        site.wait_released()
    assert_each_is_filed_once(site, prefix, objects)


def assert_an_event_costs(requests: Mapping[str, int], site: Site, transformer: ModelServer, bucket: str) -> None:
    """The transformer makes just these S3 requests, by their operations' names, for an object of the bucket."""
    key = fresh("counted") + "7 é.png"
    client = site.minio.client()
    data = IMAGES["7-0000.png"]
    put = client.put_object(bucket_name=bucket, object_name=key, data=io.BytesIO(data), length=len(data))
    before = site.s3_requests()
    answer = post(
        transformer.predict_url, minio_event(bucket, key, version_id=put.version_id, etag=put.etag or ""), CURL
    )
    assert answer.status == 200
    # MinIO counts a request a moment after it has answered it.
    wait_until(
        lambda: site.s3_requests().get("deleteobject", 0) > before.get("deleteobject", 0), "no DELETE", seconds=5
    )
    after = site.s3_requests()
    assert {name: n - before.get(name, 0) for name, n in after.items() if n != before.get(name)} == requests
    assert site.etags("digit-7", key).keys() == {key}


def test_an_event_costs_three_requests_to_a_bucket_with_versions(site: Site) -> None:
    requests = {"getobject": 1, "putobject": 1, "deleteobject": 1}
    assert_an_event_costs(requests, site, site.transformers[0], SOURCE_BUCKET)


def test_an_event_costs_four_requests_to_a_bucket_without_versions(site: Site) -> None:
    bucket = "unversioned"
    site.minio.client().make_bucket(bucket_name=bucket)
    user = site.minio.add_transformer(f"transformer-of-{bucket}", {SOURCE_BUCKET: bucket})
    transformer = site.start_transformer(bucket, {"SOURCE_BUCKETS": bucket, **variables_of(user)})
    transformer.wait_ready()
    requests = {"getobject": 1, "putobject": 1, "headobject": 1, "deleteobject": 1}
    assert_an_event_costs(requests, site, transformer, bucket)
    transformer.close()


# --- uploads by others' clients ---


def event_names(site: Site, prefix: str) -> dict[str, str]:
    """The names of the uploads' events under the prefix, by their keys."""
    notified = [json.loads(record.value or b"{}") for record in site.records(NOTIFICATIONS_TOPIC)]
    begin = f"{SOURCE_BUCKET}/"
    return {
        event["Key"].removeprefix(begin): event["EventName"].removeprefix("s3:ObjectCreated:")
        for event in notified
        if event["Key"].startswith(begin + prefix)
    }


def test_what_boto3_uploads_whole_or_in_parts_is_filed(site: Site) -> None:
    prefix = fresh("boto3")
    objects = {f"{prefix}3 whole é+%.png": IMAGES["3-0018.png"], f"{prefix}8 in parts 日本.png": IMAGES["8-0061.png"]}
    whole, in_parts = objects
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{site.minio.endpoint}",
        aws_access_key_id=site.minio.access_key,
        aws_secret_access_key=site.minio.secret_key,
        region_name=REGION,
    )
    try:
        client.put_object(Bucket=SOURCE_BUCKET, Key=whole, Body=objects[whole], Metadata={"owner": "me"})
        multipart = TransferConfig(multipart_threshold=1)
        client.upload_fileobj(io.BytesIO(objects[in_parts]), SOURCE_BUCKET, in_parts, Config=multipart)
    finally:
        client.close()
    with site.delivering():
        site.wait_released()
    assert event_names(site, prefix) == {whole: "Put", in_parts: "CompleteMultipartUpload"}
    for key, data in objects.items():
        copied = site.minio.client().get_object(bucket_name=f"digit-{digit_of(key)}", object_name=key)
        with copied:
            assert copied.data == data
        copied.release_conn()
    assert_each_is_filed_once(site, prefix, objects)


def test_what_mc_copies_or_pipes_is_filed(site: Site, mc: Path, tmp_path: Path) -> None:
    prefix = fresh("mc")
    objects = {f"{prefix}5 copied é+%.png": IMAGES["5-0008.png"], f"{prefix}6 piped 日本.png": IMAGES["6-0011.png"]}
    copied, piped = objects
    image = tmp_path / "5 é.png"
    image.write_bytes(objects[copied])
    host = f"http://{site.minio.access_key}:{site.minio.secret_key}@{site.minio.endpoint}"

    def ours(*arguments: str | Path, stdin: bytes = b"") -> None:
        environment = {**os.environ, "MC_HOST_site": host, "MC_CONFIG_DIR": str(tmp_path / "mc")}
        subprocess.run([mc, "--quiet", *arguments], input=stdin, env=environment, check=True, capture_output=True)

    ours("cp", image, f"site/{SOURCE_BUCKET}/{copied}")
    ours("pipe", f"site/{SOURCE_BUCKET}/{piped}", stdin=objects[piped])
    with site.delivering():
        site.wait_released()
    assert event_names(site, prefix) == {copied: "Put", piped: "CompleteMultipartUpload"}
    assert_each_is_filed_once(site, prefix, objects)


# --- the second story: a request ---


def asked(transformer: ModelServer, body: Any) -> Answer:
    return post(transformer.predict_url, body, {**CURL, "Host": HOST})


def test_a_load_is_filed_and_measured_for_a_user_who_may_only_upload(site: Site) -> None:
    may_upload = {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": [f"arn:aws:s3:::{SOURCE_BUCKET}/*"]}
    site.minio.add_user("uploader", "uploader-secret", {"Version": "2012-10-17", "Statement": [may_upload]})
    who = {"MINIO_ACCESS_KEY": "uploader", "MINIO_SECRET_KEY": "uploader-secret"}
    with site.delivering():
        ran = subprocess.run(
            [sys.executable, "-m", "mnist_pipeline", "bench", "--count", "200", "--in-flight", "16", "--json"],
            env={**os.environ, **site.environment, **who},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert (ran.returncode, ran.stderr) == (0, "")
    told = json.loads(ran.stdout)
    assert told["objects"] == {"filed": 200, "to be reviewed": 0, "rejected": 0, "lost": 0, "not uploaded": 0}
    assert filed(site, told["prefix"].partition("/")[2]) == 200


def test_the_example_s_event_gives_the_example_s_result_with_its_ten_fields(site: Site) -> None:
    trace_id = str(uuid.uuid4())
    answer = asked(site.transformers[0], {**EXAMPLE, "test-trace-id": trace_id})
    assert (answer.status, answer.body) == (200, b"")
    (record,) = [record for record in site.records() if record.key == trace_id.encode()]
    assert dict(record.headers)["test-trace-id"] == trace_id.encode()
    event = json.loads(record.value or b"")
    assert uuid.UUID(event.pop("id")).version == 5
    assert event.pop("time").endswith("+00:00")
    assert event == {
        "specversion": "1.0",
        "source": "mnist-pipeline/mnist",
        "type": "io.kserve.mnist.prediction",
        "data": {"predictions": [2]},
        "request-host": HOST,
        "kserve-isvc-name": "test-transformer",
        "kserve-isvc-namespace": "kserve-test",
        "test-trace-id": trace_id,
    }


def test_a_request_that_comes_again_to_another_transformer_has_the_same_id(site: Site) -> None:
    trace_id = str(uuid.uuid4())
    for transformer in site.transformers:
        assert asked(transformer, {**EXAMPLE, "test-trace-id": trace_id}).status == 200
    ids = [json.loads(record.value or b"")["id"] for record in site.records() if record.key == trace_id.encode()]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_tombstone_in_the_topic_is_delivered_and_settled_and_publishes_nothing(site: Site) -> None:
    before = len(site.records())
    producer = KafkaProducer(bootstrap_servers=site.kafka.bootstrap_servers)
    producer.send(NOTIFICATIONS_TOPIC, key=b"mnist/gone.png", value=None).get(timeout=20)
    producer.close(timeout=5)
    with site.delivering():
        site.wait_settled()
    assert len(site.records()) == before


def test_a_strict_sdk_reads_the_binary_result(site: Site) -> None:
    transformer = site.start_transformer("binary", {"EVENT_MODE": "binary"})
    transformer.wait_ready()
    trace_id = str(uuid.uuid4())
    assert asked(transformer, {**EXAMPLE, "test-trace-id": trace_id}).status == 200
    transformer.close()
    (record,) = [record for record in site.records() if record.key == trace_id.encode()]
    event = from_binary(KafkaMessage(headers=dict(record.headers), key=record.key, value=record.value or b""))
    assert event.get_data() == {"predictions": [2]}
    attributes = event.get_attributes()
    assert {name: attributes[name] for name in ("specversion", "type", "source", "datacontenttype")} == {
        "specversion": "1.0",
        "type": "io.kserve.mnist.prediction",
        "source": "mnist-pipeline/mnist",
        "datacontenttype": "application/json",
    }
    assert uuid.UUID(attributes["id"]).version == 5
    headers = dict(record.headers)
    assert (headers["request-host"], headers["test-trace-id"]) == (HOST.encode(), trace_id.encode())
    assert (headers["kserve-isvc-name"], headers["kserve-isvc-namespace"]) == (b"test-transformer", b"kserve-test")
