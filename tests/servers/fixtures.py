"""`real_kafka` and `real_minio`, for tests that are marked `real`; a pytest plugin, loaded by tests/conftest.py.

`pytest --real` runs such tests; otherwise they are left out, and a line says so. Where Java, Maven or Go is missing,
or a virtual environment cannot be made, they are skipped with that reason, and fail instead where
`REQUIRE_REAL_SERVERS=1`. The programs are built before the first test, so that no test's time limit has to cover it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

import required
from mnist_pipeline.local.processes import Sandbox
from servers import cloudevents, kafka, minio, mlserver
from servers.cache import BuildFailed, ToolMissing
from servers.kafka import KafkaProgram, KafkaServer
from servers.minio import MinioServer

_Program = TypeVar("_Program")

_LEFT_OUT = pytest.StashKey[int]()
_KAFKA = pytest.StashKey["KafkaProgram | ToolMissing"]()
_MINIO = pytest.StashKey["Path | ToolMissing"]()
_MC = pytest.StashKey["Path | ToolMissing"]()
_MLSERVER = pytest.StashKey["Path | ToolMissing"]()
_CLOUDEVENTS = pytest.StashKey["Path | ToolMissing"]()


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
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_out"] = len(left_out)


def pytest_sessionstart(session: pytest.Session) -> None:
    # Where tests run side by side, the process that starts the others sees no test, and can alone tell what it built.
    if session.config.getoption("real") and session.config.getoption("numprocesses", None):
        _install(session.config, {"mc", "mlserver_python", "cloudevents_python"})
        for line in pytest_report_collectionfinish(session.config):
            _terminal(session.config).write_line(line)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # Each of the others has collected all tests.
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) and not config.getoption("real"):
        for line in pytest_report_collectionfinish(config):
            _terminal(config).write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    chosen = config.getoption("real") and not config.getoption("collectonly")
    if chosen and any(item.get_closest_marker("real") for item in session.items):
        _install(config, {name for item in session.items for name in getattr(item, "fixturenames", ())})


def _install(config: pytest.Config, asked_for: set[str]) -> None:
    try:
        config.stash[_KAFKA] = _or_missing(kafka.install)
        config.stash[_MINIO] = _or_missing(minio.install)
        if "mc" in asked_for:
            config.stash[_MC] = _or_missing(minio.install_mc)
        if "mlserver_python" in asked_for:
            config.stash[_MLSERVER] = _or_missing(mlserver.install)
        if "cloudevents_python" in asked_for:
            config.stash[_CLOUDEVENTS] = _or_missing(cloudevents.install)
    except BuildFailed as exc:
        pytest.exit(str(exc), returncode=pytest.ExitCode.TESTS_FAILED)


def _terminal(config: pytest.Config) -> Any:
    return config.pluginmanager.get_plugin("terminalreporter")


def _or_missing(install: Callable[[], _Program]) -> _Program | ToolMissing:
    try:
        return install()
    except ToolMissing as exc:
        return exc


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    kafka_program = config.stash.get(_KAFKA, None)
    minio_program = config.stash.get(_MINIO, None)
    mlserver_python = config.stash.get(_MLSERVER, None)
    cloudevents_python = config.stash.get(_CLOUDEVENTS, None)
    lines = []
    if left_out := config.stash.get(_LEFT_OUT, 0):
        lines.append(f"{left_out} tests on Apache Kafka and MinIO themselves are left out; make test-real runs them")
    if isinstance(kafka_program, KafkaProgram):
        lines.append(f"real server: {kafka_program.version}")
    if isinstance(minio_program, Path):
        lines.append(f"real server: {minio.version(minio_program)}")
    if isinstance(mlserver_python, Path):
        lines.append(f"real server: {mlserver.version(mlserver_python)}")
    if isinstance(cloudevents_python, Path):
        lines.append(f"real reader: {cloudevents.version(cloudevents_python)}")
    return lines


def missing(name: str, reason: ToolMissing) -> NoReturn:
    """Skip the test with that reason, or fail it where real servers are required."""
    required.missing(f"{name} cannot be run here: {reason}", required_by="REQUIRE_REAL_SERVERS")


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
def mc(pytestconfig: pytest.Config) -> Path:
    """MinIO's client, a program; it is built only where a test asks for this."""
    program = pytestconfig.stash[_MC]
    if isinstance(program, ToolMissing):
        missing("mc", program)
    return program


@pytest.fixture(scope="session")
def mlserver_python(pytestconfig: pytest.Config) -> Path:
    """What an `MlserverServer` is made with; its environment is made only where a test asks for this."""
    python = pytestconfig.stash[_MLSERVER]
    if isinstance(python, ToolMissing):
        missing("MLServer", python)
    return python


@pytest.fixture(scope="session")
def cloudevents_python(pytestconfig: pytest.Config) -> Path:
    """What `servers.cloudevents.read` runs; its environment is made only where a test asks for this."""
    python = pytestconfig.stash[_CLOUDEVENTS]
    if isinstance(python, ToolMissing):
        missing("the strict CloudEvents SDK", python)
    return python


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
