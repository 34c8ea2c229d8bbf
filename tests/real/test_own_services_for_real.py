"""The overlays of a reader with a Kafka and an S3 of their own, run as their containers say, on the real servers.

Kafka asks for a password (SCRAM) or a certificate, MinIO speaks TLS; the authority behind both is known to no system.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from minio import Minio

from e2e.following import wait_until
from manifests.rendering import FOLDER, render, render_site
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.local.processes import Sandbox, answers_ok, free_port
from mnist_pipeline.local.servers import start_predictor
from real.certificates import Authority
from real.cluster import Cluster
from servers import kustomize
from servers.cache import ToolMissing
from servers.fixtures import missing
from servers.kafka import KafkaProgram, KafkaServer
from servers.minio import MinioServer, transformer_policy

pytestmark = [
    pytest.mark.real,
    # The first one may have to wait until kustomize is built.
    pytest.mark.timeout(900),
    pytest.mark.skipif(not FOLDER.exists(), reason="manifests/ is not beside these tests: they run on a built wheel"),
]

README = FOLDER / "README.md"
DIGIT = FOLDER.parent / "tests" / "data" / "kserve-sample-0.png"
PASSWORD = "a-password-of-kafka"
# What of the broker's listeners a component is for.
LISTENERS = {"components/external-kafka": "SCRAM", "components/external-kafka/mtls": "MUTUAL"}


@dataclass(frozen=True, kw_only=True)
class Theirs:
    """A Kafka with a listener for each way to sign in, and the authority that signed all certificates."""

    kafka: KafkaServer
    authority: Authority
    client: Path

    def secrets(self, listener: str) -> dict[str, dict[str, str]]:
        """The Secrets of the page."""
        ca = {"ca.crt": self.authority.ca_file.read_text()}
        made = {
            name: {"access-key": name, "secret-key": f"password-of-{name}", **ca}
            for name in ("minio-root", "mnist-transformer-minio", "mnist-setup-minio")
        }
        if listener == "SCRAM":
            return {**made, "mnist-kafka": {"user": "mnist", "password": PASSWORD, **ca}}
        certificate, key = ((self.client / file).read_text() for file in ("public.crt", "private.key"))
        return {**made, "mnist-kafka": {"user.crt": certificate, "user.key": key, **ca}}

    def keys_in(self, topic: str) -> list[bytes | None]:
        """The keys of its records."""
        return [record.key for record in read_topic(self.kafka.bootstrap_servers, topic, api_version=(4, 0))]


@pytest.fixture(scope="module")
def theirs(kafka_program: KafkaProgram, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theirs]:
    authority = Authority(tmp_path_factory.mktemp("certificates") / "theirs")
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.server("kafka") / "all.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.ca_file),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }
    users = [
        option
        for name in ("mnist", "minio")
        for option in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={PASSWORD}]")
    ]
    listeners = {"SCRAM": "SASL_SSL", "MUTUAL": "SSL"}
    with (
        Sandbox() as sandbox,
        KafkaServer(kafka_program, sandbox, listeners=listeners, properties=properties, format_options=users) as kafka,
    ):
        yield Theirs(kafka=kafka, authority=authority, client=authority.client("mnist"))


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return kustomize.install()
    except ToolMissing as exc:
        missing("kustomize", exc)


def upload(client: Minio, key: str) -> None:
    image = DIGIT.read_bytes()
    client.put_object(bucket_name="mnist", object_name=key, data=io.BytesIO(image), length=len(image))


@pytest.mark.parametrize("component", LISTENERS)
def test_our_minio_and_the_job_sign_in_to_their_kafka(
    component: str, program: Path, minio_program: Path, theirs: Theirs, tmp_path: Path
) -> None:
    listener = LISTENERS[component]
    address, secrets = theirs.kafka.address(listener), theirs.secrets(listener)
    settings = [f"KAFKA_BOOTSTRAP_SERVERS={address}"]
    overlay = render_site(program, "minio-kafka-source", [component], settings, tmp_path)
    with Sandbox() as sandbox:
        cluster = Cluster(overlay, sandbox, address, secrets)
        cluster.start_minio(minio_program)
        for name in ("users", "setup"):
            done = cluster.run(name)
            assert done.returncode == 0, done.stdout + done.stderr
        root = secrets["minio-root"]
        upload(cluster.client(root["access-key"], root["secret-key"]), f"{listener}.png")
        wait_until(
            lambda: f"mnist/{listener}.png".encode() in theirs.keys_in("mnist"), "no notification came", seconds=30
        )


def test_the_page_takes_a_reader_to_a_filed_digit(
    program: Path, minio_program: Path, theirs: Theirs, tmp_path: Path
) -> None:
    """On `standard/`: in the other folders Knative stands between Kafka and the transformer."""
    page, address, secrets = README.read_text(), theirs.kafka.address("SCRAM"), theirs.secrets("SCRAM")
    certificates = theirs.authority.server("minio")
    of_setup = json.loads((FOLDER / "components" / "setup" / "setup-policy.json").read_text())
    (certificates / "CAs").mkdir()
    shutil.copy(theirs.authority.ca_file, certificates / "CAs")
    with Sandbox() as sandbox:
        target = {
            **dict(re.findall(r"^(MINIO_NOTIFY_KAFKA_\w+_PRIMARY)=(.*)$", page, re.MULTILINE)),
            "MINIO_NOTIFY_KAFKA_BROKERS_PRIMARY": address,
            "MINIO_NOTIFY_KAFKA_QUEUE_DIR_PRIMARY": str(sandbox.directory / "queue"),
            "MINIO_NOTIFY_KAFKA_SASL_PASSWORD_PRIMARY": PASSWORD,
        }
        with (
            MinioServer(
                minio_program, sandbox, env=target, certificates=certificates, ca_cert=theirs.authority.ca_file
            ) as minio,
            start_predictor(sandbox) as predictor,
        ):
            for name, policy in {
                "mnist-transformer-minio": transformer_policy(),
                "mnist-setup-minio": of_setup,
            }.items():
                minio.add_user(secrets[name]["access-key"], secrets[name]["secret-key"], policy)
            overlay = render(program, of_the_page(page, address, minio.endpoint, tmp_path), "mine")
            cluster = Cluster(overlay, sandbox, address, secrets)
            done = cluster.run("setup")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "made: notification of bucket mnist" in done.stdout

            port = free_port()
            host = f"--predictor_host=127.0.0.1:{predictor.http_port}"
            consumer = cluster.start("consumer", host, f"--http_port={port}")
            consumer.wait_ready(lambda: answers_ok(port, "/v2/health/ready"), timeout_seconds=60)
            upload(minio.client(), "0.png")

            def filed() -> list[str | None]:
                return [one.object_name for one in minio.client().list_objects(bucket_name="digit-0")]

            wait_until(lambda: filed() == ["0.png"], "it was not filed", seconds=30, every=0.2)
            wait_until(lambda: len(theirs.keys_in("mnist-predictions")) == 1, "no result came", seconds=30)


def of_the_page(page: str, kafka: str, s3: str, folder: Path) -> Path:
    """The overlay that the page shows, on `standard/`, with these addresses and the images of this repository."""
    (shown,) = re.findall(r'^```yaml title="mine/kustomization.yaml"\n(.*?)^```', page, re.DOTALL | re.MULTILINE)
    for told, here in {
        "manifests/minio-kafka-source": "manifests/standard",
        "kafka-1.example:9093,kafka-2.example:9093": kafka,
        "minio.example:9000": s3,
        "registry.example/": "",
    }.items():
        assert told in shown
        shown = shown.replace(told, here)
    shutil.copytree(FOLDER, folder / "manifests")
    (folder / "mine").mkdir()
    (folder / "mine" / "kustomization.yaml").write_text(shown)
    return folder / "mine"
