"""commands/consume.py: command lines and settings that cannot work."""

from __future__ import annotations

import os
import socket

import pytest

from mnist_pipeline import cli
from mnist_pipeline.mnist.digits import Digits

THERE = ("--predictor_host", "predictor")


@pytest.mark.parametrize(
    ("flags", "settings", "told"),
    [
        ((), {}, ["--predictor_host is missing", "KAFKA_BOOTSTRAP_SERVERS is not set"]),
        (THERE, {"KAFKA_BOOTSTRAP_SERVERS": ""}, ["KAFKA_BOOTSTRAP_SERVERS is not set"]),
        (THERE, {"MAX_IN_FLIGHT": "0"}, ["MAX_IN_FLIGHT", "KAFKA_BOOTSTRAP_SERVERS is not set"]),
        (
            (*THERE, "--topic", "a", "--topic", "mnist-predictions"),
            None,
            ["--topic is mnist-predictions, which is KAFKA"],
        ),
        ((*THERE, "--dead-letter-topic", "mnist"), None, ["--dead-letter-topic is mnist, which is read"]),
        (
            (*THERE, "--dead-letter-topic", "mnist-predictions"),
            None,
            ["--dead-letter-topic is mnist-predictions, which is"],
        ),
    ],
)
def test_all_that_cannot_work_is_told_at_once(
    flags: tuple[str, ...],
    settings: dict[str, str] | None,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in os.environ if name.startswith(("KAFKA_", "MINIO_"))]:
        monkeypatch.delenv(name)
    for name, value in (settings if settings is not None else {"KAFKA_BOOTSTRAP_SERVERS": "kafka"}).items():
        monkeypatch.setenv(name, value)
    assert cli.main(Digits, ["consume", *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [any(line.startswith(one) for line in lines) for one in told] == [True] * len(told)
    assert len(lines) == len(told)


def test_a_port_that_is_taken_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(Digits, ["consume", *THERE, "--host", "127.0.0.1", "--http_port", str(port)]) == 2
    assert capsys.readouterr().err == f"127.0.0.1, port {port}, cannot be listened on: Address already in use\n"
