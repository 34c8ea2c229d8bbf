"""docker/: what can be seen of the files themselves, without an engine."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from image.containers import images
from mnist_pipeline import Digits, Settings
from mnist_pipeline.commands import setup
from mnist_pipeline.commands import source as source_command
from recording import Recording
from required import missing

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
OURS = [name for name, service in COMPOSE["services"].items() if "mnist-pipeline" in service["image"]]


@pytest.mark.parametrize("file", sorted(DOCKER.glob("*.Dockerfile")), ids=lambda file: str(file.stem))
def test_hadolint_has_nothing_to_say(file: Path) -> None:
    # It lies beside the interpreter where pip has installed it.
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        missing("there is no hadolint for this system")
    done = subprocess.run([hadolint, file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("service", OURS)
def test_a_service_of_compose_has_settings_that_exist_and_can_work(service: str) -> None:
    environment = Recording(**COMPOSE["services"][service].get("environment", {}))
    Settings.from_environ(environment, Digits())
    assert environment.keys() <= environment.asked
    if service != "predictor":
        assert {"MINIO_ACCESS_KEY", "KAFKA_BOOTSTRAP_SERVERS"} <= environment.keys()


@pytest.mark.parametrize("service", OURS)
def test_a_service_of_compose_may_do_nothing_and_has_limits(service: str) -> None:
    described = COMPOSE["services"][service]
    assert described["read_only"] is True
    assert described["cap_drop"] == ["ALL"]
    assert described["user"] == "1000:1000"
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert described["mem_limit"]


def test_compose_listens_on_loopback_only() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def told(service: str, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What a command makes of the arguments that its service gives it."""
    described = COMPOSE["services"][service]
    program, command, *arguments = described["entrypoint"]
    assert (program, command) == ("mnist-pipeline", service)
    return parser.parse_args([*arguments, *described.get("command", [])])


def test_what_compose_s_notifications_go_to_is_what_setup_and_source_expect() -> None:
    minio = COMPOSE["services"]["minio"]["environment"]
    assert minio["MINIO_NOTIFY_KAFKA_QUEUE_DIR_PRIMARY"].startswith("/data/")
    # Nothing public tells what the commands take by default.
    of_setup = told("setup", setup.parser(Digits()))
    of_source = told("source", source_command.parser(Digits()))
    assert of_setup.notification_arn == f"arn:minio:sqs:{minio['MINIO_SITE_REGION']}:PRIMARY:kafka"
    assert of_setup.topic == of_source.topic == minio["MINIO_NOTIFY_KAFKA_TOPIC_PRIMARY"]


def test_compose_s_consumers_read_what_minio_writes_and_give_up_to_a_topic_that_setup_makes() -> None:
    of_consume = told("consume", import_module("mnist_pipeline.commands.consume").parser(Digits()))
    written = COMPOSE["services"]["minio"]["environment"]["MINIO_NOTIFY_KAFKA_TOPIC_PRIMARY"]
    assert (of_consume.topic or [Digits.name]) == [written]
    assert of_consume.dead_letter_topic == told("setup", setup.parser(Digits())).dead_letter_topic


def test_compose_starts_the_consumers_only_when_they_are_named_and_then_neither_source_nor_transformer() -> None:
    services = COMPOSE["services"]
    assert {name: service["profiles"] for name, service in services.items() if "profiles" in service} == {
        "consume": ["consume"]
    }
    started, found = set[str](), {"consume"}
    while found:
        started |= found
        found = {name for service in found for name in services[service].get("depends_on", ())}
    assert started == services.keys() - {"source", "transformer"}
    # A port of this machine can be had once, and there may be several of them.
    assert "ports" not in services["consume"]


def test_compose_takes_the_images_that_make_image_builds() -> None:
    taken = {service["image"].partition(":-")[2].rstrip("}") for service in COMPOSE["services"].values()}
    assert {images.tag("transformer"), images.tag("predictor")} <= taken
