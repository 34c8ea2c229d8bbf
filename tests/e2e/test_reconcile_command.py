"""`mnist-pipeline reconcile` as a program, on the local stack: objects in a bucket whose notifications never come."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import uuid
from pathlib import Path

import pytest

from e2e.following import keys
from e2e.sinks import wait_until
from mnist_pipeline.local.processes import Child
from mnist_pipeline.local.servers import transformer_settings
from mnist_pipeline.local.stack import RESULTS_TOPIC, Stack
from mnist_pipeline.testing import digit_png


@pytest.fixture
def bucket(stack: Stack) -> str:
    """A source bucket of the test's own that notifies nobody."""
    name = f"missed-{uuid.uuid4()}"
    stack.minio().make_bucket(bucket_name=name)
    return name


def put(stack: Stack, bucket: str, key: str, data: bytes) -> None:
    stack.minio().put_object(bucket_name=bucket, object_name=key, data=io.BytesIO(data), length=len(data))


def start(stack: Stack, bucket: str, *args: str, **settings: str) -> Child:
    return stack.sandbox.start(
        f"reconcile-{uuid.uuid4()}",
        [
            *(sys.executable, "-m", "mnist_pipeline", "reconcile"),
            *("--predictor_host", f"127.0.0.1:{stack.predictor.http_port}", *args),
        ],
        env={
            **transformer_settings(stack.gateway, stack.broker),
            "KAFKA_TOPIC": RESULTS_TOPIC,
            "SOURCE_BUCKETS": bucket,
            **settings,
        },
    )


def ended(child: Child) -> tuple[int, str]:
    """Its exit code and what it has printed."""
    wait_until(lambda: not child.running, seconds=60)
    return child.kill(), Path(child.log).read_text()


def results_about(stack: Stack, bucket: str) -> dict[str, list[int]]:
    events = [json.loads(record.value or b"{}") for record in stack.results()]
    mine = [event for event in events if event.get("subject", "").startswith(bucket + "/")]
    return {event["subject"].partition("/")[2]: event["data"].get("predictions") for event in mine}


def test_row_33_what_was_missed_is_found_filed_and_published(stack: Stack, bucket: str) -> None:
    prefix = f"{uuid.uuid4()}/"
    names = {f"{prefix}{digit} +é.png": digit for digit in range(10)}
    for key, digit in names.items():
        put(stack, bucket, key, digit_png(digit))
    put(stack, bucket, f"{prefix}bad.png", b"no image")
    put(stack, bucket, f"{prefix}readme.txt", b"not ours")

    code, said = ended(start(stack, bucket, "--older-than", "1h"))
    assert (code, "nothing was missed" in said) == (0, True), said
    code, said = ended(start(stack, bucket, "--older-than", "0s", "--dry-run"))
    assert (code, said.count(f"{bucket}/{prefix}"), "11 missed" in said) == (1, 11, True), said
    assert len(keys(stack, bucket)) == 12

    code, said = ended(start(stack, bucket, "--older-than", "0s", "--rate", "100"))
    assert (code, "10 filed, 1 badimage; 0 left" in said) == (0, True), said
    assert keys(stack, bucket) == [f"{prefix}readme.txt"]
    assert keys(stack, "mnist-rejected", prefix) == [f"{prefix}bad.png"]
    for key, digit in names.items():
        assert keys(stack, f"digit-{digit}", prefix) == [key]
    assert results_about(stack, bucket) == {**{key: [digit] for key, digit in names.items()}, f"{prefix}bad.png": None}


def test_what_cannot_be_settled_is_left_and_told(stack: Stack, bucket: str) -> None:
    put(stack, bucket, "1.png", digit_png(1))
    code, said = ended(
        start(stack, bucket, "--older-than", "0s", "--predictor_host", "127.0.0.1:9", EVENT_TIMEOUT_SECONDS="5")
    )
    assert (code, "1 predictor; 1 left" in said) == (1, True), said
    assert keys(stack, bucket) == ["1.png"]
    code, said = ended(start(stack, f"{bucket}-of-nobody", "--older-than", "0s"))
    assert (code, "there is no bucket" in said) == (1, True), said


def test_wrong_settings_are_named_and_nothing_is_touched(stack: Stack, bucket: str) -> None:
    code, said = ended(start(stack, bucket, MAX_IN_FLIGHT="none"))
    assert (code, said.split()[0]) == (2, "MAX_IN_FLIGHT")
    for wrong in (["--older-than", "5"], ["--rate", "0"], ["--rate", "x"]):
        code, said = ended(start(stack, bucket, *wrong))
        assert (code, wrong[0] in said) == (2, True), said


def test_sigterm_finishes_what_is_in_hand(stack: Stack, bucket: str) -> None:
    for n in range(40):
        put(stack, bucket, f"{n:02}.png", digit_png(n % 10))
    child = start(stack, bucket, "--older-than", "0s", "--rate", "10")
    wait_until(lambda: len(keys(stack, bucket)) < 40, seconds=60)
    os.kill(child.pid, signal.SIGTERM)
    code, said = ended(child)
    left = len(keys(stack, bucket))
    assert (code, f"{40 - left} filed; 0 left" in said) == (1, True), said
    assert 0 < left < 40
