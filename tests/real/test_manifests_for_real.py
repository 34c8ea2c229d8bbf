"""MinIO and the Job `setup` of `manifests/minio-kafka-source`, run as their containers say, on the real servers."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import S3Error

from manifests.rendering import FOLDER, Rendered, render
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.testing import digit_png
from real.cluster import Cluster
from servers import kustomize
from servers.cache import ToolMissing
from servers.fixtures import missing
from servers.kafka import KafkaServer

pytestmark = [
    pytest.mark.real,
    # The first one may have to wait until kustomize is built.
    pytest.mark.timeout(900),
    pytest.mark.skipif(not FOLDER.exists(), reason="manifests/ is not beside these tests: they run on a built wheel"),
]

SECRETS = {
    "minio-root": {"access-key": "the-root-user", "secret-key": "a-password-of-root"},
    "mnist-transformer-minio": {"access-key": "transformer", "secret-key": "its-password"},
    "mnist-setup-minio": {"access-key": "setup", "secret-key": "a-password-of-setup"},
}


@pytest.fixture(scope="module")
def overlay() -> Rendered:
    try:
        return render(kustomize.install(), FOLDER / "minio-kafka-source", "minio-kafka-source")
    except ToolMissing as exc:
        missing("kustomize", exc)


@pytest.fixture
def cluster(overlay: Rendered, minio_program: Path, real_kafka: KafkaServer) -> Iterator[Cluster]:
    with Sandbox() as sandbox:
        running = Cluster(overlay, sandbox, real_kafka.bootstrap_servers, SECRETS)
        running.start_minio(minio_program)
        yield running


def test_the_job_makes_users_buckets_and_notification_and_may_run_again(
    cluster: Cluster, real_kafka: KafkaServer
) -> None:
    for _ in range(2):
        users = cluster.run("users")
        assert users.returncode == 0, users.stderr
        made = cluster.run("setup")
        assert made.returncode == 0, made.stdout + made.stderr
    said = users.stdout + made.stdout
    assert {line.partition(":")[0] for line in said.splitlines()} == {"there"}, said

    root, transformer = (cluster.client(*SECRETS[name].values()) for name in ("minio-root", "mnist-transformer-minio"))
    image = digit_png(7)
    key = f"manifests-{time.time_ns()}.png"
    version = root.put_object(
        bucket_name="mnist", object_name=key, data=io.BytesIO(image), length=len(image)
    ).version_id
    assert version is not None
    with transformer.get_object(bucket_name="mnist", object_name=key, version_id=version) as answer:
        assert answer.read() == image
    with pytest.raises(S3Error, match="Access Denied"):
        transformer.put_object(bucket_name="mnist", object_name=key, data=io.BytesIO(image), length=len(image))

    until = time.monotonic() + 30
    keys: list[bytes | None] = []
    while f"mnist/{key}".encode() not in keys:
        assert time.monotonic() < until, "the notification has not come"
        time.sleep(0.5)
        keys = [record.key for record in read_topic(real_kafka.bootstrap_servers, "mnist", api_version=(4, 0))]


def test_the_users_new_password_is_taken_over_when_the_job_runs_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.run("users").returncode == 0
    monkeypatch.setitem(SECRETS["mnist-transformer-minio"], "secret-key", "another-password")
    assert cluster.run("users").returncode == 0
    with pytest.raises(S3Error, match="does not exist") as missing:  # the bucket, which nobody made
        cluster.client("transformer", "another-password").stat_object(bucket_name="mnist", object_name="a.png")
    assert missing.value.code in ("NoSuchBucket", "NoSuchKey")
    with pytest.raises(S3Error) as refused:
        cluster.client("transformer", "its-password").get_object(bucket_name="mnist", object_name="a.png")
    assert refused.value.code == "SignatureDoesNotMatch"


def test_nobody_signs_in_as_the_root_user_where_the_users_are_what_they_should_be(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.run("users").stdout.count("made: ") == 2
    monkeypatch.setitem(SECRETS["minio-root"], "secret-key", "not-the-password-of-root")
    again = cluster.run("users")
    assert (again.returncode, again.stdout.count("there: ")) == (0, 2), again.stderr
    monkeypatch.setitem(SECRETS["mnist-setup-minio"], "secret-key", "another-password")
    refused = cluster.run("users")
    assert refused.returncode != 0
    assert "SignatureDoesNotMatch" in refused.stderr


def test_a_user_who_may_do_other_than_the_policy_says_is_set_right(cluster: Cluster) -> None:
    assert cluster.run("users").returncode == 0
    too_little = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::*"]}
    root = cluster.admin(*SECRETS["minio-root"].values())
    root.policy_add("setup", policy={"Version": "2012-10-17", "Statement": [too_little]})
    assert [line.split(",")[0] for line in cluster.run("users").stdout.splitlines()] == [
        "there: transformer",
        "made: setup",
    ]
    assert cluster.run("setup").returncode == 0
