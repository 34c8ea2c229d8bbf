"""`real_kafka` and `real_minio`, for tests that are marked `real`; a pytest plugin, loaded by tests/conftest.py.

`pytest --real` runs such tests; otherwise they are left out, and a line says so. Where Java, Maven or Go is missing
they are skipped with that reason, and fail instead where `REQUIRE_REAL_SERVERS=1`. The programs are built before the
first test, so that no test's time limit has to cover it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from mnist_pipeline.local.processes import Sandbox
from servers import kafka, minio
from servers.cache import BuildFailed, ToolMissing
from servers.kafka import KafkaProgram, KafkaServer
from servers.minio import MinioServer

_Program = TypeVar("_Program")

_LEFT_OUT = pytest.StashKey[int]()
_KAFKA = pytest.StashKey["KafkaProgram | ToolMissing"]()
_MINIO = pytest.StashKey["Path | ToolMissing"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real", action="store_true", help="also run the tests on Apache Kafka and MinIO themselves")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real: runs on Apache Kafka or MinIO themselves, and only with --real")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("real"):
        return
    left_out = [item for item in items if item.get_closest_marker("real")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("real")]
    config.stash[_LEFT_OUT] = len(left_out)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    chosen = config.getoption("real") and not config.getoption("collectonly")
    if not chosen or not any(item.get_closest_marker("real") for item in session.items):
        return
    try:
        config.stash[_KAFKA] = _or_missing(kafka.install)
        config.stash[_MINIO] = _or_missing(minio.install)
    except BuildFailed as exc:
        pytest.exit(str(exc), returncode=pytest.ExitCode.TESTS_FAILED)


def _or_missing(install: Callable[[], _Program]) -> _Program | ToolMissing:
    try:
        return install()
    except ToolMissing as exc:
        return exc


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    kafka_program = config.stash.get(_KAFKA, None)
    minio_program = config.stash.get(_MINIO, None)
    lines = []
    if left_out := config.stash.get(_LEFT_OUT, 0):
        lines.append(f"{left_out} tests on Apache Kafka and MinIO themselves are left out; make test-real runs them")
    if isinstance(kafka_program, KafkaProgram):
        lines.append(f"real server: {kafka_program.version}")
    if isinstance(minio_program, Path):
        lines.append(f"real server: {minio.version(minio_program)}")
    return lines


def missing(name: str, reason: ToolMissing) -> NoReturn:
    """Skip the test with that reason, or fail it where real servers are required."""
    text = f"{name} cannot be run here: {reason}"
    if os.environ.get("REQUIRE_REAL_SERVERS") == "1":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


@pytest.fixture(scope="session")
def kafka_program(pytestconfig: pytest.Config) -> KafkaProgram:
    """What a `KafkaServer` of one's own is made with."""
    program = pytestconfig.stash[_KAFKA]
    if isinstance(program, ToolMissing):
        missing("Apache Kafka", program)
    return program


@pytest.fixture(scope="session")
def minio_program(pytestconfig: pytest.Config) -> Path:
    """What a `MinioServer` of one's own is made with."""
    program = pytestconfig.stash[_MINIO]
    if isinstance(program, ToolMissing):
        missing("MinIO", program)
    return program


@pytest.fixture(scope="session")
def real_kafka(kafka_program: KafkaProgram) -> Iterator[KafkaServer]:
    """One broker for all tests that do it no harm."""
    with Sandbox() as sandbox, KafkaServer(kafka_program, sandbox) as server:
        yield server


@pytest.fixture(scope="session")
def real_minio(minio_program: Path) -> Iterator[MinioServer]:
    """One MinIO for all tests that do it no harm."""
    with Sandbox() as sandbox, MinioServer(minio_program, sandbox) as server:
        yield server
