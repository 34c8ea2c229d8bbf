"""What may be written anew while we run, and what each client of Kafka makes of it; on brokers: tests/real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mnist_pipeline.adapters import kafka_connection, librdkafka
from mnist_pipeline.adapters.kafka_troubles import HUNG_UP, OUR_CERTIFICATE, REFUSED, Trouble
from mnist_pipeline.adapters.rotated_files import digest_of, secret_now
from mnist_pipeline.pipeline.settings import Kafka


@pytest.fixture
def kafka(tmp_path: Path) -> Kafka:
    """A user whose name and password are in files."""
    for name in ("username", "password"):
        (tmp_path / name).write_text(f"old-{name}")
    return Kafka(
        bootstrap_servers="k",
        topic="t",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="old-username",
        sasl_username_file=str(tmp_path / "username"),
        sasl_password="old-password",
        sasl_password_file=str(tmp_path / "password"),
    )


class Client:
    """One of confluent-kafka, which keeps what it is told.

    Attributes:
        users: the names and passwords.
    """

    def __init__(self) -> None:
        self.users: list[tuple[str, str]] = []

    def set_sasl_credentials(self, name: str, password: str) -> None:
        self.users.append((name, password))


def test_row_51_a_connection_of_kafka_python_is_made_with_what_the_files_hold_by_then(
    kafka: Kafka, tmp_path: Path
) -> None:
    connections = kafka_connection.Connections(kafka)

    def user() -> list[str]:
        return list(connections.credentials().values())

    assert user() == ["old-username", "old-password"]
    (tmp_path / "password").write_text("new-password\n")
    assert user() == ["old-username", "new-password"]
    (tmp_path / "username").write_text("new-username\n")
    assert user() == ["new-username", "new-password"]
    (tmp_path / "username").unlink()
    assert user() == ["old-username", "new-password"]


def test_without_files_a_connection_is_made_with_what_was_set(kafka: Kafka) -> None:
    set_ones = replace(kafka, sasl_username_file=None, sasl_password_file=None)
    assert set(kafka_connection.Connections(set_ones).credentials().values()) == {"old-username", "old-password"}
    assert kafka_connection.Connections(Kafka(bootstrap_servers="k", topic="t")).credentials() == {}


def opened(kafka: Kafka) -> tuple[librdkafka.Connections, Client]:
    connections = librdkafka.Connections(kafka, timeout_seconds=1)
    connections.open(lambda *_, **__: Client())  # type: ignore[arg-type]
    return connections, Client()


def test_row_51_librdkafka_is_told_another_user_once_where_the_one_it_has_is_refused(
    kafka: Kafka, tmp_path: Path
) -> None:
    connections, client = opened(kafka)
    (tmp_path / "password").write_text("new-password")
    connections.keep_current(client)
    connections.note(0, HUNG_UP)
    connections.keep_current(client)
    assert client.users == []
    connections.note(0, REFUSED)
    connections.keep_current(client)
    connections.keep_current(client)
    assert client.users == [("old-username", "new-password")]
    (tmp_path / "username").write_text("new-username")
    connections.keep_current(client)
    assert client.users[1:] == [("new-username", "new-password")]


@pytest.mark.parametrize(("trouble", "is_outdated"), [(OUR_CERTIFICATE, True), (REFUSED, False), (None, False)])
def test_row_51_a_client_of_librdkafka_is_outdated_where_certificates_are_refused_and_there_are_others(
    tmp_path: Path, trouble: Trouble | None, is_outdated: bool
) -> None:
    file = tmp_path / "public.crt"
    file.write_text("old")
    connections, client = opened(Kafka(bootstrap_servers="k", topic="t", ssl_certfile=str(file)))
    if trouble is not None:
        connections.note(0, trouble)
    connections.keep_current(client)
    assert not connections.is_outdated
    file.write_text("new")
    connections.keep_current(client)
    assert connections.is_outdated is is_outdated


def test_a_file_that_is_just_being_written_is_no_news(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    assert secret_now(str(file), "known") == "known"
    file.write_bytes(b"\xff")
    assert secret_now(str(file), "known") == "known"
    file.write_text("new\r\n")
    assert secret_now(str(file), "known") == "new"
    assert secret_now(None, "known") == "known"


def test_files_that_have_changed_are_told_from_those_that_have_not(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in "ab"]
    digests = {digest_of([*files, None])}
    for content in ("1", "2"):
        for file in files:
            Path(file).write_text(content)
            digests.add(digest_of([*files, None]))
    assert len(digests) == 5
    assert digest_of([*files, None]) in digests
