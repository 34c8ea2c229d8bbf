"""Row 34: a transformer whose settings cannot work does not start; one whose settings are refused is not ready."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import certifi
import pytest

from e2e.following import wait_until
from e2e.places import Place
from e2e.ways import Way
from mnist_pipeline.local.processes import answers_ok

SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture(params=["serve", "consume"])
def command(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def run(command: str, settings: dict[str, str], *flags: str) -> tuple[int, list[str]]:
    """What the command says, and its exit code."""
    line = [sys.executable, "-m", "mnist_pipeline", command, "--model_name", "mnist", "--predictor_host", "predictor"]
    env = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", **settings}
    ran = subprocess.run([*line, *flags], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert SECRET not in ran.stdout + ran.stderr
    assert ran.stdout == ""
    return ran.returncode, ran.stderr.splitlines()


def test_row_34_settings_that_cannot_work_end_with_code_2_and_a_line_for_each_without_a_secret(
    command: str, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("no certificate")
    settings = {
        "MINIO_ENDPOINT": f"http://user:{SECRET}@minio:9000",
        "MINIO_SECRET_KEY": SECRET,
        "MINIO_CA_CERT": str(ca_file),
        "KAFKA_BOOTSTRAP_SERVERS": "kafka:many",
        "KAFKA_SASL_PASSWORD": SECRET,
        "EVENT_MODE": "batch",
        "MAX_IN_FLIGHT": "0",
    }
    code, lines = run(command, settings)
    assert code == 2
    named = [line.split()[0] for line in lines]
    assert sorted(named) == sorted({*settings} - {"MINIO_SECRET_KEY"} | {"MINIO_ACCESS_KEY"})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"MINIO_ACCESS_KEY": "mnist", "MINIO_SECRET_KEY_FILE": "/no/such/file"},
            "MINIO_SECRET_KEY_FILE names a file ",
        ),
        (
            {"MINIO_ENDPOINT": "http://minio:9000", "MINIO_CA_CERT": certifi.where()},
            "MINIO_CA_CERT is set, but MINIO_ENDPOINT is without TLS",
        ),
    ],
)
def test_row_34_one_wrong_setting_is_one_line(command: str, settings: dict[str, str], says: str) -> None:
    code, lines = run(command, settings)
    assert code == 2
    (line,) = lines
    assert line.startswith(says)


def test_row_34_what_looks_like_a_setting_and_is_none_is_a_line_without_its_value_before_what_ends_it(
    command: str,
) -> None:
    unknown = {"KAFKA_BOOTSTRAP_SERVER": SECRET, "MINIO_ENDPIONT": SECRET, "MINIO_SERVICE_SERVICE_HOST": "10.0.0.1"}
    code, lines = run(command, {**unknown, "EVENT_MODE": "batch"})
    assert code == 2
    assert lines == [
        "KAFKA_BOOTSTRAP_SERVER is no setting: is KAFKA_BOOTSTRAP_SERVERS meant?",
        "MINIO_ENDPIONT is no setting: is MINIO_ENDPOINT meant?",
        "EVENT_MODE is 'batch', not one of structured, binary",
    ]


def test_row_34_what_consume_cannot_do_without_is_a_line_for_each() -> None:
    code, lines = run("consume", {"KAFKA_BOOTSTRAP_SERVERS": "", "MAX_IN_FLIGHT": "0"})
    assert code == 2
    assert sorted(line.split()[0] for line in lines) == ["KAFKA_BOOTSTRAP_SERVERS", "MAX_IN_FLIGHT"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--topic", "results"), "--topic is results, which is KAFKA_TOPIC too"),
        (("--topic", "t", "--dead-letter-topic", "t"), "--dead-letter-topic is t, which is read"),
    ],
)
def test_row_34_a_topic_that_would_loop_is_a_line(flags: tuple[str, ...], says: str) -> None:
    code, (line,) = run("consume", {"KAFKA_TOPIC": "results"}, *flags)
    assert code == 2
    assert line.startswith(says)


def test_row_34_a_transformer_with_a_wrong_password_is_alive_not_ready_and_names_the_variable_once(
    embedded_place: Place, way: Way
) -> None:
    server = embedded_place.start(settings={"MINIO_SECRET_KEY": SECRET}, way=way)
    wait_until(lambda: answers_ok(server.http_port, "/v2/health/live"), seconds=120)
    # Long enough for several checks, which come once a second.
    give_up = time.monotonic() + 3
    while time.monotonic() < give_up:
        assert answers_ok(server.http_port, "/v2/health/live")
        assert not answers_ok(server.http_port, "/v1/models/mnist", timeout_seconds=5)
        time.sleep(0.1)
    assert server.child.running
    server.close()
    log = server.child.log.read_text()
    (line,) = [line for line in log.splitlines() if "MINIO_" in line or "KAFKA_" in line]
    assert " ERROR not ready: " in line
    assert "MINIO_SECRET_KEY" in line
    assert SECRET not in log
    assert "Traceback" not in log
