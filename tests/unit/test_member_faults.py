"""A member of a consumer group whose brokers are away, hang or refuse it, on both clients."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

import pytest

from e2e.following import wait_until
from logged import said_by_us
from mnist_pipeline.adapters.group_member import GroupMember, Subscription
from mnist_pipeline.adapters.kafka import member_of
from mnist_pipeline.local.broker import API_VERSION, Broker
from mnist_pipeline.pipeline.settings import Kafka, SettingsError
from taking import Taker
from unit.kafka_brokers import BrokerProcess

SECRET = "a-password-that-nobody-may-see"
NOBODY = "127.0.0.1:1"
SUBSCRIPTION = Subscription(topics=("results",), group="test", initial_offset="earliest", session_timeout_seconds=6.0)

# kafka-python never closes a socket that was refused.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def log(collected_sockets: None, caplog: pytest.LogCaptureFixture) -> None:  # noqa: ARG001 - comes first
    """Our own is kept."""
    caplog.set_level(logging.INFO, logger="mnist_pipeline")


@pytest.fixture(params=["kafka-python", "confluent"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker({"results": 1}) as running:
        yield running


@pytest.fixture
def stoppable() -> Iterator[BrokerProcess]:
    broker = BrokerProcess()
    yield broker
    broker.close()


def at(servers: str, client: str) -> Kafka:
    return Kafka(bootstrap_servers=servers, topic="results", client=client, api_version=API_VERSION)


def seconds_to_close(member: GroupMember) -> float:
    started = time.monotonic()
    member.close()
    return time.monotonic() - started


def test_it_goes_on_trying_where_no_broker_is_there_and_says_so_once(
    client: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_pipeline.adapters.kafka_consumer.REQUEST_SECONDS", 0.2)
    monkeypatch.setattr("mnist_pipeline.adapters.confluent_consumer.REQUEST_SECONDS", 1.0)
    monkeypatch.setattr("mnist_pipeline.adapters.group_member._RETRY_SECONDS", 0.05)
    member = member_of(at(NOBODY, client), SUBSCRIPTION, Taker())
    member.begin()
    wait_until(lambda: bool(said_by_us(caplog)))
    time.sleep(2.5)  # long enough for another attempt
    (line,) = said_by_us(caplog)
    trouble = "not connected: no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS"
    assert line == f"topic results: {trouble}; trying again"
    assert member.trouble == trouble
    assert seconds_to_close(member) < 2


def test_it_goes_on_when_a_broker_that_was_away_is_back_and_says_both_once(
    client: str, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    member = member_of(at(broker.bootstrap_servers, client), SUBSCRIPTION, Taker())
    member.begin()
    wait_until(lambda: member.is_assigned)
    assert member.trouble is None
    broker.go_away()
    wait_until(lambda: member.trouble is not None)
    broker.come_back()
    wait_until(lambda: member.trouble is None and member.is_assigned)
    away, back = said_by_us(caplog)
    assert away == (
        "topic results: not connected: no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS; trying again"
    )
    assert back == "topic results: is read again"
    member.close()


def test_it_can_be_closed_while_it_is_connecting(client: str, silent: str) -> None:
    for seconds in (0, 0.5):
        member = member_of(at(silent, client), SUBSCRIPTION, Taker())
        member.begin()
        time.sleep(seconds)
        assert member.trouble is not None
        assert "KAFKA_BOOTSTRAP_SERVERS" in member.trouble
        assert seconds_to_close(member) < 2


def test_it_can_be_closed_although_the_broker_hangs_that_should_take_its_commit(
    client: str, stoppable: BrokerProcess
) -> None:
    taker = Taker()
    before = set(threading.enumerate())  # those of earlier tests are none of its business
    member = member_of(at(stoppable.address, client), SUBSCRIPTION, taker)
    member.begin()
    wait_until(lambda: member.is_assigned)
    (offsets,) = taker.ours.values()
    offsets.begin(0)
    offsets.settle(0)
    stoppable.freeze()
    assert seconds_to_close(member) < 6
    stoppable.thaw()
    wait_until(lambda: not any(thread.name == "kafka-member" for thread in {*threading.enumerate()} - before))


def test_settings_that_cannot_be_used_are_told_by_the_variables_names(
    client: str, silent: str, caplog: pytest.LogCaptureFixture
) -> None:
    secured = replace(at(silent, client), security_protocol="SASL_SSL", sasl_mechanism="PLAIN")
    kafka = replace(secured, sasl_username="anyone", sasl_password=SECRET, ssl_cafile="/no/such/file")
    member = member_of(kafka, SUBSCRIPTION, Taker())
    member.begin()
    wait_until(lambda: bool(said_by_us(caplog)))
    member.close()
    (line,) = said_by_us(caplog)
    assert "KAFKA_SSL_CAFILE" in line
    assert SECRET not in caplog.text


class Careless(Taker):
    """An owner with an error of its own."""

    def full(self) -> NoReturn:
        raise LookupError


def test_an_error_that_nobody_foresaw_ends_it_and_tells_its_owner(
    client: str, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()
    member = member_of(at(broker.bootstrap_servers, client), SUBSCRIPTION, Careless(), on_failure=told.set)
    member.begin()
    assert told.wait(20)
    assert not member.is_assigned
    member.close()
    (line,) = said_by_us(caplog)
    assert line == "the member of the consumer group ended in a way that nobody foresaw"


def test_a_client_that_is_not_installed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnist_pipeline.adapters.confluent_consumer", None)
    with pytest.raises(SettingsError, match="confluent-kafka is not installed"):
        member_of(at(NOBODY, "confluent"), SUBSCRIPTION, Taker())
