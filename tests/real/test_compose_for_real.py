"""What the services of `docker/compose.yaml` run, in their environments, as programs of this machine.

What our images run is in their Dockerfiles. What apache/kafka does with its environment is done by a class of Kafka.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from minio import Minio

from e2e.following import wait_until
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.local.processes import Child, Sandbox, answers_ok, free_port
from servers.kafka import KafkaProgram

# The first one may wait a minute for `setup`, and two for each of KServe's servers.
pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

TESTS = Path(__file__).parents[1]
DOCKER = TESTS.parent / "docker"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
PROGRAMS = {"python": (sys.executable,), "mnist-pipeline": (sys.executable, "-m", "mnist_pipeline")}
# Where a service listens it does not name itself: `--address :9000`.
ADDRESS = re.compile(r"([a-z]*):(\d{4})\b")


class Compose:
    """Starts services in a sandbox: their addresses are on loopback, their volumes are its directories."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        listening = ("minio:9000", "kafka:9092", "kafka:9093", "predictor:8080", "transformer:8080")
        self.addresses = {address: f"127.0.0.1:{free_port()}" for address in listening}

    def here(self, service: str, text: str) -> str:
        """What the service is told, as it has to be here; a KeyError where it names an address of nobody's."""
        for name, path in (volume.split(":") for volume in SERVICES[service].get("volumes", [])):
            if text == path or text.startswith(f"{path}/"):
                return f"{self.sandbox.directory}/volume-{name}{text.removeprefix(path)}"
        return ADDRESS.sub(lambda found: self.addresses[f"{found[1] or service}:{found[2]}"], text)

    def environment(self, service: str) -> dict[str, str]:
        return {name: self.here(service, text) for name, text in SERVICES[service].get("environment", {}).items()}

    def argv(self, service: str) -> list[str]:
        """The command line of a service that runs an image of ours."""
        described = SERVICES[service]
        file = DOCKER / f"{'predictor' if 'predictor' in described['image'] else 'transformer'}.Dockerfile"
        of_image = dict(re.findall(r"^(ENTRYPOINT|CMD) (.+)$", file.read_text(), re.MULTILINE))
        if "entrypoint" in described:
            of_image["CMD"] = "[]"  # it goes with the entrypoint that is overridden
        entrypoint = described.get("entrypoint") or json.loads(of_image["ENTRYPOINT"])
        command = described.get("command") or json.loads(of_image.get("CMD", "[]"))
        program, *arguments = (self.here(service, word) for word in (*entrypoint, *command))
        return [*PROGRAMS[program], *arguments]

    def run(self, service: str, argv: list[str], **more: str) -> tuple[int, str]:
        """Run a program in the service's environment to its end: its exit code, and what it printed."""
        child = self.sandbox.start(service, argv, env={**self.environment(service), **more})
        wait_until(lambda: not child.running, f"{service} does not end", seconds=120)
        printed = child.log.read_text()
        child.log.unlink()
        return self.sandbox.stop(child), printed

    def set_up(self) -> tuple[int, str]:
        return self.run("setup", self.argv("setup"))

    def start_minio(self, program: Path) -> None:
        argv: list[str | Path] = [program, *(self.here("minio", word) for word in SERVICES["minio"]["command"])]
        # It looks for certificates at home, and in the world for a newer version of itself.
        ours = {"HOME": str(self.sandbox.directory), "MINIO_UPDATE": "off"}
        self.sandbox.start("minio", argv, env={**self.environment("minio"), **ours})

    def start_kafka(self, program: KafkaProgram) -> None:
        """Configure, format and start it as its image does (apache/kafka: docker/jvm/launch)."""
        options = [SERVICES["kafka"]["environment"]["KAFKA_HEAP_OPTS"]]
        folders = {name: self.sandbox.directory / f"kafka-{name}" for name in ("default", "mounted", "final")}
        for folder in folders.values():
            folder.mkdir()
        # They have to be there. What the image has in them does not count where the environment has settings.
        for name in ("server.properties", "log4j2.yaml", "tools-log4j2.yaml"):
            (folders["default"] / name).touch()
        arguments = ["setup", *(f"--{name}-configs-dir={folder}" for name, folder in folders.items())]
        configure = [*program.command("kafka.docker.KafkaDockerWrapper", options=options), *arguments]
        code, printed = self.run("kafka", configure, CLUSTER_ID="5L6g3nShT-eMCtK--X86sw")
        assert code == 0, printed
        argv = [*program.command("kafka.Kafka", options=options), f"{folders['final']}/server.properties"]
        self.sandbox.start("kafka", argv, env={})

    def upload(self, key: str) -> None:
        image = (TESTS / "data" / "kserve-sample-0.png").read_bytes()
        self._minio().put_object(bucket_name="mnist", object_name=key, data=io.BytesIO(image), length=len(image))

    def lying(self) -> list[str]:
        """Every version of every object."""
        client = self._minio()
        buckets = [bucket.name for bucket in client.list_buckets()]
        versions = (client.list_objects(bucket_name=bucket, recursive=True, include_version=True) for bucket in buckets)
        return [f"{one.bucket_name}/{one.object_name}" for bucket in versions for one in bucket]

    def _minio(self) -> Minio:
        root = SERVICES["minio"]["environment"]
        keys = (root["MINIO_ROOT_USER"], root["MINIO_ROOT_PASSWORD"])
        return Minio(self.addresses["minio:9000"], *keys, secure=False)

    def start_consumer(self) -> Child:
        # In its container it listens on 8080.
        port = free_port()
        child = self.sandbox.start(
            "consume", [*self.argv("consume"), "--http_port", str(port)], env=self.environment("consume")
        )
        child.wait_ready(lambda: answers_ok(port, "/v2/health/ready"), timeout_seconds=120)
        return child

    def child(self, service: str) -> Child:
        (found,) = (child for child in self.sandbox.children if child.name == service)
        return found

    def start_model_server(self, service: str) -> None:
        port = self.addresses[f"{service}:8080"].rpartition(":")[2]
        # By itself it listens on 8080 and 8081, and so does the other one, in a container of its own.
        ports = ("--http_port", port, "--grpc_port", str(free_port()))
        child = self.sandbox.start(service, [*self.argv(service), *ports], env=self.environment(service))
        child.wait_ready(lambda: answers_ok(int(port), "/v1/models/mnist"), timeout_seconds=120)


@pytest.fixture(scope="module")
def compose(minio_program: Path, kafka_program: KafkaProgram) -> Iterator[Compose]:
    """All services, each once what it depends on is there."""
    with Sandbox() as sandbox:
        compose = Compose(sandbox)
        compose.start_minio(minio_program)
        compose.start_kafka(kafka_program)
        # Nothing waits until these two are ready: instead `setup` is tried again, by `restart: on-failure`.
        give_up = time.monotonic() + 60
        while (ended := compose.set_up())[0] != 0:
            assert time.monotonic() < give_up, ended[1]
        compose.start_model_server("predictor")
        compose.start_model_server("transformer")
        sandbox.start("source", compose.argv("source"), env=compose.environment("source"))
        yield compose


def test_setup_that_runs_again_finds_everything_there(compose: Compose) -> None:
    code, printed = compose.set_up()
    assert (code, {line.partition(":")[0] for line in printed.splitlines()}) == (0, {"there"}), printed


def test_kafka_has_all_that_its_environment_says_and_knows_what_it_means(compose: Compose) -> None:
    broker = ConfigResource("BROKER", SERVICES["kafka"]["environment"]["KAFKA_NODE_ID"])
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=compose.addresses["kafka:9092"])) as admin:
        ((settings,),) = (of.values() for of in admin.describe_configs([broker], config_filter="all").values())
    told = {name.removeprefix("KAFKA_"): text for name, text in compose.environment("kafka").items()}
    del told["HEAP_OPTS"]  # Java's
    assert {name: settings[name.lower().replace("_", ".")]["value"] for name in told} == told
    assert [name for name, setting in settings.items() if setting["config_type"] == "UNKNOWN"] == []


def test_an_uploaded_zero_is_filed_under_zero_alone_and_published_under_one_id(compose: Compose) -> None:
    compose.upload("0.png")
    # Asked of the source, so that the end of its log tells why it is not so.
    compose.child("source").wait_ready(lambda: compose.lying() == ["digit-0/0.png"], timeout_seconds=60)
    topic = SERVICES["transformer"]["environment"]["KAFKA_TOPIC"]
    records = read_topic(compose.addresses["kafka:9092"], topic, api_version=(4, 0))
    events = [json.loads(record.value or b"{}") for record in records]
    assert {(event["subject"], *event["data"]["predictions"]) for event in events} == {("mnist/0.png", 0)}
    assert len({event["id"] for event in events}) == 1


def test_straight_from_kafka_an_uploaded_zero_is_filed_too(compose: Compose) -> None:
    for service in ("source", "transformer"):
        compose.sandbox.stop(compose.child(service))
    consumer = compose.start_consumer()
    compose.upload("straight.png")
    consumer.wait_ready(lambda: "digit-0/straight.png" in compose.lying(), timeout_seconds=60)
    # What is there is filed before it is released.
    consumer.wait_ready(lambda: "mnist/straight.png" not in compose.lying(), timeout_seconds=60)


def test_what_a_service_waits_for_is_there_and_what_has_to_end_is_not_started_again() -> None:
    for service in SERVICES.values():
        depends = service.get("depends_on", {})
        assert {*depends} <= SERVICES.keys()
        for name in depends if isinstance(depends, dict) else ():
            ends = SERVICES[name]["restart"] == "on-failure"
            assert depends[name]["condition"] == ("service_completed_successfully" if ends else "service_started")
