"""`Connections`: what the end of a connection means, and when there is no use in another; real brokers: tests/real."""

from __future__ import annotations

import ssl
import threading
import time
from typing import Any

import kafka.errors
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from mnist_pipeline.adapters import kafka_connection
from mnist_pipeline.adapters.kafka_connection import Connections, trouble_of
from mnist_pipeline.adapters.kafka_troubles import Certainty, Trouble
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.settings import Kafka

pytestmark = [
    pytest.mark.usefixtures("collected_sockets"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"),
]

SECRET = "a-password-that-nobody-may-see"
NOBODY = "127.0.0.1:1"
KAFKA = Kafka(bootstrap_servers=NOBODY, topic="any")
REFUSAL = Trouble("refused; check A")
HICCUP = Trouble("broken off; check B", Certainty.SURE)
AWAY = Trouble("away; check C", Certainty.GUESS)
API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36


def lost(below: Exception | None = None) -> kafka.errors.KafkaConnectionError:
    """As kafka-python reports a connection that broke."""
    return kafka.errors.KafkaConnectionError("socket disconnected" if below is None else below)


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, SECRET)
    error.reason = reason
    return error


def untrusted(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, SECRET)
    error.verify_code, error.verify_message = code, "why not"
    return error


@pytest.mark.parametrize(
    ("error", "unanswered", "variables", "certainty"),
    [
        (kafka.errors.SaslAuthenticationFailedError(SECRET), (), "KAFKA_SASL_PASSWORD", Certainty.LASTING),
        (lost(), (SASL_AUTHENTICATE,), "KAFKA_SASL_PASSWORD", Certainty.LASTING),
        (lost(), (SASL_HANDSHAKE,), "KAFKA_SASL_MECHANISM", Certainty.LASTING),
        (kafka.errors.UnsupportedSaslMechanismError(SECRET), (), "KAFKA_SASL_MECHANISM", Certainty.LASTING),
        (kafka.errors.IllegalSaslStateError(SECRET), (), "KAFKA_SECURITY_PROTOCOL", Certainty.LASTING),
        (lost(untrusted(20)), None, "KAFKA_SSL_CAFILE", Certainty.LASTING),
        (lost(untrusted(62)), None, "KAFKA_BOOTSTRAP_SERVERS", Certainty.LASTING),
        (lost(alert("TLSV13_ALERT_CERTIFICATE_REQUIRED")), (API_VERSIONS,), "KAFKA_SSL_CERTFILE", Certainty.LASTING),
        (FileNotFoundError(SECRET), None, "KAFKA_SSL_CAFILE", Certainty.LASTING),
        (kafka.errors.KafkaProtocolError(SECRET), (API_VERSIONS,), "KAFKA_SECURITY_PROTOCOL", Certainty.LASTING),
        (lost(ConnectionResetError(SECRET)), None, "KAFKA_SECURITY_PROTOCOL", Certainty.SURE),
        (lost(alert("UNEXPECTED_EOF_WHILE_READING")), None, "KAFKA_SECURITY_PROTOCOL", Certainty.SURE),
        (lost(), (API_VERSIONS,), "KAFKA_SECURITY_PROTOCOL", Certainty.GUESS),
        (lost(), None, "KAFKA_BOOTSTRAP_SERVERS", Certainty.GUESS),
        (KafkaUnavailable("no token; check KAFKA_X"), (SASL_HANDSHAKE,), "KAFKA_X", Certainty.SURE),
    ],
)
def test_the_end_of_a_connection_names_what_to_check_and_no_secret(
    error: Exception, unanswered: tuple[int, ...] | None, variables: str, certainty: Certainty
) -> None:
    trouble = trouble_of(error, unanswered)
    assert trouble is not None
    assert variables in trouble.text
    assert trouble.certainty is certainty
    assert SECRET not in trouble.text


@pytest.mark.parametrize("error", [kafka.errors.KafkaConnectionError(), kafka.errors.RequestTimedOutError(SECRET)])
def test_a_connection_that_we_closed_or_that_was_slow_is_no_trouble(error: Exception) -> None:
    assert trouble_of(error, (API_VERSIONS,)) is None


def test_an_idle_connection_that_a_broker_closes_is_no_trouble() -> None:
    assert trouble_of(lost(), ()) is None


def hung_up() -> Trouble:
    trouble = trouble_of(lost(), (API_VERSIONS,))
    assert trouble is not None
    return trouble


def test_it_is_hopeless_once_every_bootstrap_server_has_refused_us_and_not_for_one_refusal() -> None:
    connections = Connections(KAFKA)
    connections.note(0, REFUSAL)
    assert not connections.are_hopeless([0])
    connections.note(0, REFUSAL)
    assert connections.are_hopeless([0])
    assert not connections.are_hopeless([0, 1])
    connections.note(1, REFUSAL)
    assert connections.are_hopeless([0, 1])


@pytest.mark.parametrize("other", [HICCUP, AWAY])
def test_there_is_hope_where_a_broker_may_come_back(other: Trouble) -> None:
    connections = Connections(KAFKA)
    for trouble in (REFUSAL, REFUSAL, other):
        connections.note(0, trouble)
    assert not connections.are_hopeless([0])
    # Its next refusal may be the last word of a broker that is ending.
    connections.note(0, REFUSAL)
    assert not connections.are_hopeless([0])


def test_a_hang_up_without_a_word_does_not_outweigh_a_refusal_but_a_broker_that_went_away_does() -> None:
    connections = Connections(KAFKA)
    for trouble in (REFUSAL, hung_up(), REFUSAL, hung_up()):
        connections.note(0, trouble)
    assert connections.are_hopeless([0])
    assert connections.trouble == REFUSAL
    connections.note(0, AWAY)
    assert connections.trouble == AWAY
    connections.note(0, hung_up())
    assert connections.trouble == hung_up()


def test_the_surest_trouble_of_several_brokers_is_told_until_that_one_is_well() -> None:
    connections = Connections(KAFKA)
    connections.note(0, AWAY)
    connections.note(1, REFUSAL)
    assert connections.explain() == "not connected: refused; check A"
    connections.note_connected(1)
    assert connections.explain() == "not connected: away; check C"
    connections.forget()
    assert connections.trouble is None
    assert "KAFKA_BOOTSTRAP_SERVERS" in connections.explain()
    assert "KAFKA_SASL_PASSWORD" in connections.explain()


def test_of_two_guesses_the_newer_is_told() -> None:
    connections = Connections(KAFKA)
    connections.note(0, AWAY)
    connections.note(1, hung_up())
    assert connections.trouble == hung_up()
    connections.note(0, AWAY)
    assert connections.trouble == AWAY


@pytest.mark.parametrize("api_version", [None, (2, 3)])
@pytest.mark.parametrize("make", [KafkaProducer, KafkaConsumer, KafkaAdminClient])
def test_each_kind_of_client_says_why_it_is_not_connected_and_leaves_no_thread_behind(
    make: type[KafkaProducer | KafkaConsumer | KafkaAdminClient], api_version: tuple[int, int] | None
) -> None:
    before = set(threading.enumerate())
    with pytest.raises(KafkaUnavailable) as caught:
        Connections(KAFKA).open(make, timeout_seconds=0.3, api_version=api_version)
    assert str(caught.value) == "not connected: no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS"
    assert set(threading.enumerate()) <= before


def test_options_that_a_client_does_not_take_are_told_without_what_they_say() -> None:
    with pytest.raises(KafkaUnavailable, match="KAFKA_SECURITY_PROTOCOL") as caught:
        Connections(KAFKA).open(KafkaConsumer, timeout_seconds=1, no_such_option=SECRET)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("servers", [NOBODY, None])
def test_opening_is_given_up_from_another_thread_at_once(servers: str | None, silent: str) -> None:
    connections = Connections(KAFKA)
    threading.Timer(0.3, connections.give_up).start()
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(KafkaUnavailable):
            connections.open(KafkaConsumer, timeout_seconds=30, bootstrap_servers=servers or silent)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(("asked", "waits"), [(0, 2), (1000, 1000), (float("inf"), float("inf")), (None, None)])
def test_a_client_never_polls_without_waiting(
    asked: float | None, waits: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    polled: list[Any] = []
    monkeypatch.setattr("kafka.net.compat.KafkaNetClient.poll", lambda _, timeout_ms, **__: polled.append(timeout_ms))
    client = object.__new__(kafka_connection._Client)  # noqa: SLF001 - what `Connections` makes
    client.poll(asked)
    assert polled == [waits]
