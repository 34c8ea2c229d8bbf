"""`mnist-pipeline setup` on the embedded stack, which lacks just what a site needs of its store."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mnist_pipeline.commands import setup
from mnist_pipeline.local.broker import Broker
from mnist_pipeline.local.gateway import NOTIFICATION_ARN, Gateway
from mnist_pipeline.local.notifications import Notifications
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.local.servers import transformer_settings
from mnist_pipeline.local.stack import DIGIT_BUCKETS, Stack

BUCKETS = ("mnist", *DIGIT_BUCKETS, "mnist-rejected")


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    """The settings for an empty gateway and a broker with both topics."""
    with (
        Broker({"mnist": 6, "mnist-predictions": 6}) as broker,
        Notifications(broker.bootstrap_servers, "mnist") as notifications,
        Sandbox() as sandbox,
        Gateway(sandbox, webhook_url=notifications.url) as gateway,
    ):
        yield transformer_settings(gateway, broker)


def run(environ: dict[str, str], *arguments: str) -> tuple[int, list[str]]:
    out = io.StringIO()
    code = setup.main(["--notification-arn", NOTIFICATION_ARN, *arguments], environ, out)
    assert environ["MINIO_SECRET_KEY"] not in out.getvalue()
    return code, out.getvalue().splitlines()


def test_the_gateway_is_set_up_but_for_what_it_has_not(environ: dict[str, str]) -> None:
    code, lines = run(environ)
    assert code == 1
    missing = [line for line in lines if line.startswith("not done")]
    assert [line.split(": ")[1] for line in missing] == ["versioning of bucket mnist", "lifecycle of bucket mnist"]
    assert all("NotImplemented" in line for line in missing)
    assert [line for line in lines if line not in missing] == [
        "made: bucket mnist",
        "made: notification of bucket mnist",
        *(f"made: bucket {bucket}" for bucket in BUCKETS[1:]),
        "there: topic mnist",
        "there: topic mnist-predictions",
    ]

    again_code, again = run(environ)
    assert again_code == 1
    assert [line for line in again if not line.startswith("there: ")] == missing


def test_row_36_the_check_says_that_the_gateway_ignores_if_none_match_and_what_else_it_has_not(
    stack: Stack,
) -> None:
    environ = transformer_settings(stack.gateway, stack.broker)
    predictor = f"127.0.0.1:{stack.predictor.http_port}"
    run(environ)  # the stack's own notification is another one
    code, lines = run(environ, "--check", "--predictor_host", predictor)
    assert code == 1
    problems = [line.split(": ")[1] for line in lines if line.startswith("problem")]
    assert problems == [
        "versioning of bucket mnist",
        "lifecycle of bucket mnist",
        "If-None-Match in bucket mnist-rejected",
    ]
    (ignored,) = [line for line in lines if "If-None-Match" in line]
    assert "the store ignores it and overwrites" in ignored
    assert any(line.startswith(f"there: predictor {predictor} (a blank image is a ") for line in lines)
    keys = [found.object_name for found in stack.minio().list_objects(bucket_name="mnist-rejected", recursive=True)]
    assert not [key for key in keys if key and key.startswith("mnist-pipeline-check-")]


@pytest.mark.parametrize("protocol", ["v2", "grpc-v2"])
def test_the_check_asks_the_predictor_in_its_protocol(stack: Stack, protocol: str) -> None:
    port = stack.predictor.grpc_port if protocol == "grpc-v2" else stack.predictor.http_port
    environ = transformer_settings(stack.gateway, stack.broker)
    _, lines = run(environ, "--check", "--predictor_host", f"127.0.0.1:{port}", "--predictor_protocol", protocol)
    assert lines[-1].startswith(f"there: predictor 127.0.0.1:{port} ")


def test_a_topic_that_the_brokers_cannot_be_asked_to_make_is_said(environ: dict[str, str]) -> None:
    code, lines = run(environ, "--topic", "another", "--replication", "1")
    assert code == 1
    assert lines[-2].startswith("not done: topic another: ")
    assert lines[-1] == "there: topic mnist-predictions"


def test_it_runs_as_a_command_and_says_nothing_else(environ: dict[str, str]) -> None:
    wrong = {**os.environ, **environ, "MINIO_SECRET_KEY": "wrong-secret"}
    ran = subprocess.run(
        [sys.executable, "-m", "mnist_pipeline", "setup", "--check"],
        env=wrong,
        capture_output=True,
        text=True,
        check=False,
    )
    first, *others = ran.stdout.splitlines()
    assert (ran.returncode, ran.stderr) == (1, "")
    assert first.startswith("problem: store: ")
    assert "MINIO_SECRET_KEY" in first
    assert "wrong-secret" not in ran.stdout
    assert "there: topic mnist" in others
