"""MinIO and the Job `setup` of `manifests/minio-kafka-source`, run as their containers say, on the real servers."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import urllib3
from minio import Minio, S3Error

from manifests.rendering import FOLDER, MINIO_IMAGE, TRANSFORMER_IMAGE, Container, Rendered, render
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.local.processes import Sandbox, free_port
from mnist_pipeline.testing import digit_png
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

KEYS = {
    "minio-root": ("the-root-user", "a-password-of-root"),
    "mnist-transformer-minio": ("transformer", "its-password"),
}


class Cluster:
    """Runs containers of a rendered overlay as programs of this machine, their mounts as directories of the sandbox."""

    def __init__(self, overlay: Rendered, sandbox: Sandbox, kafka: str) -> None:
        self.overlay = overlay
        self.sandbox = sandbox
        self.address = f"127.0.0.1:{free_port()}"
        self._elsewhere = {
            overlay.config_map(self._settings_name())["KAFKA_BOOTSTRAP_SERVERS"]: kafka,
            "minio-service:9000": self.address,
        }

    def _settings_name(self) -> str:
        (name,) = [
            one["metadata"]["name"]
            for one in self.overlay.of_kind("ConfigMap")
            if one["metadata"]["name"].startswith("mnist-pipeline-")
        ]
        return str(name)

    def container(self, image: str, name: str) -> Container:
        (found,) = [one for one in self.overlay.containers(image) if one.where.endswith(f"container {name}")]
        return found

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a container of our image to its end."""
        container = self.container(TRANSFORMER_IMAGE, name)
        argv = self._argv(container)
        argv = [sys.executable, *argv[1:]] if argv[0] == "python" else [sys.executable, "-m", "mnist_pipeline", *argv]
        env = {**os.environ, **self._environment(container)}
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)

    def start_minio(self, program: Path) -> None:
        container = self.container(MINIO_IMAGE, "minio")
        _, *arguments = self._argv(container)
        argv: list[str | Path] = [program, *arguments, "--address", self.address]
        child = self.sandbox.start("minio", argv, env=self._environment(container))
        pool = urllib3.PoolManager(timeout=5, retries=False)
        probe = f"http://{self.address}{container.fields['readinessProbe']['httpGet']['path']}"

        def ready() -> bool:
            try:
                return pool.request("GET", probe).status == 200
            except urllib3.exceptions.HTTPError:
                return False

        child.wait_ready(ready, timeout_seconds=60)

    def client(self, access_key: str, secret_key: str) -> Minio:
        return Minio(self.address, access_key=access_key, secret_key=secret_key, secure=False, region="us-east-1")

    def _argv(self, container: Container) -> list[str]:
        return [self._here(container, word) for word in container.command_line]

    def _environment(self, container: Container) -> dict[str, str]:
        return {name: self._here(container, text) for name, text in self.overlay.environment(container).items()}

    def _here(self, container: Container, text: str) -> str:
        for mount in container.fields["volumeMounts"]:
            path: str = mount["mountPath"]
            if text == path or text.startswith(path + "/"):
                return str(self._directory(container, mount["name"])) + text.removeprefix(path)
        return self._elsewhere.get(text, text)

    def _directory(self, container: Container, volume: str) -> Path:
        """What is mounted, made anew each time from the Secret or ConfigMap that it comes from."""
        source: Mapping[str, Any] = next(
            (one for one in container.pod["volumes"] if one["name"] == volume), {"claim": volume}
        )
        contents: dict[str, str] = {}
        name = f"volume-{volume}"
        if "secret" in source:
            name = f"secret-{source['secret']['secretName']}"
            access_key, secret_key = KEYS[source["secret"]["secretName"]]
            contents = {"access-key": access_key, "secret-key": secret_key}
        if "configMap" in source:
            contents = self.overlay.config_map(source["configMap"]["name"])
        directory = self.sandbox.directory / name
        directory.mkdir(exist_ok=True)
        for file, text in contents.items():
            (directory / file).write_text(text)
        return directory


@pytest.fixture(scope="module")
def overlay() -> Rendered:
    try:
        return render(kustomize.install(), FOLDER / "minio-kafka-source", "minio-kafka-source")
    except ToolMissing as exc:
        missing("kustomize", exc)


@pytest.fixture
def cluster(overlay: Rendered, minio_program: Path, real_kafka: KafkaServer) -> Iterator[Cluster]:
    with Sandbox() as sandbox:
        running = Cluster(overlay, sandbox, real_kafka.bootstrap_servers)
        running.start_minio(minio_program)
        yield running


def test_the_job_makes_user_buckets_and_notification_and_may_run_again(
    cluster: Cluster, real_kafka: KafkaServer
) -> None:
    for _ in range(2):
        user = cluster.run("user")
        assert user.returncode == 0, user.stderr
        made = cluster.run("setup")
        assert made.returncode == 0, made.stdout + made.stderr
    assert {line.partition(":")[0] for line in made.stdout.splitlines()} == {"there"}, made.stdout

    root, transformer = (cluster.client(*KEYS[name]) for name in ("minio-root", "mnist-transformer-minio"))
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
    assert cluster.run("user").returncode == 0
    monkeypatch.setitem(KEYS, "mnist-transformer-minio", ("transformer", "another-password"))
    assert cluster.run("user").returncode == 0
    with pytest.raises(S3Error, match="does not exist") as missing:  # the bucket, which nobody made
        cluster.client("transformer", "another-password").stat_object(bucket_name="mnist", object_name="a.png")
    assert missing.value.code in ("NoSuchBucket", "NoSuchKey")
    with pytest.raises(S3Error) as refused:
        cluster.client("transformer", "its-password").get_object(bucket_name="mnist", object_name="a.png")
    assert refused.value.code == "SignatureDoesNotMatch"
