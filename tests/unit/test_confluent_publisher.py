"""`ConfluentPublisher`: what is its own; what it does as `KafkaPublisher` does is in test_kafka_publisher.py."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from kafka import KafkaConsumer, TopicPartition

from mnist_pipeline.adapters.confluent_publisher import ConfluentPublisher
from mnist_pipeline.adapters.kafka import publisher_of
from mnist_pipeline.adapters.kafka_publisher import KafkaPublisher
from mnist_pipeline.local.broker import Broker
from mnist_pipeline.pipeline.errors import MessageTooLarge
from mnist_pipeline.pipeline.ports import Deadline, Message
from mnist_pipeline.pipeline.settings import Kafka, SettingsError
from unit.kafka_brokers import no_thread_but, refused

SECRET = "a-password-that-nobody-may-see"
NOBODY = "127.0.0.1:1"
API_VERSION = (2, 3)
CODES = [code for code in range(-200, 200) if code and not KafkaError(code).name().startswith("ERR_")]


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker({"results": 1}) as running:
        yield running


def publisher_to(servers: str, **options: Any) -> ConfluentPublisher:
    return ConfluentPublisher(Kafka(bootstrap_servers=servers, topic="results", **options), timeout_seconds=1)


def test_there_are_errors_to_translate() -> None:
    assert len(CODES) > 100


class FailingProducer:
    """Raises an error, or reports it."""

    def __init__(self, error: Exception, *, report: bool) -> None:
        self._error = error
        self._report = report

    def produce(self, *_: object, on_delivery: Callable[[KafkaError, None], None], **__: object) -> None:
        """Fail."""
        if not self._report:
            raise self._error
        on_delivery(self._error.args[0], None)


@pytest.mark.parametrize("report", [False, True])
async def test_no_error_of_the_library_gets_out(*, report: bool, broker: Broker) -> None:
    errors: list[Exception] = [KafkaException(KafkaError(code, SECRET)) for code in CODES]
    if not report:
        errors += [kind(SECRET) for kind in (BufferError, RuntimeError, ValueError, TypeError)]
    publisher = publisher_to(broker.bootstrap_servers)
    await publisher.check(deadline=Deadline(20))
    connection = publisher._current._connection  # noqa: SLF001 - the methods of its producer cannot be replaced
    assert connection is not None
    opened = connection.opened
    for error in errors:
        connection.opened = asyncio.get_running_loop().create_future()
        connection.opened.set_result(FailingProducer(error, report=report))
        failure = await refused(publisher, "KAFKA|too large")
        name = error.args[0].name() if isinstance(error, KafkaException) else ""
        assert isinstance(failure, MessageTooLarge) == (name in {"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"})
        assert SECRET not in str(failure)
    connection.opened = opened
    await publisher.close()


async def test_settings_that_cannot_be_used_are_told_by_the_variables_names_and_at_once() -> None:
    for options in (
        {"security_protocol": "NO_SUCH"},
        {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "NO_SUCH", "sasl_password": SECRET},
        {"security_protocol": "SSL", "ssl_cafile": "/no/such/file"},
    ):
        before = set(threading.enumerate())
        publisher = publisher_to(NOBODY, **options)
        started = time.monotonic()
        failure = await refused(publisher, "KAFKA_SECURITY_PROTOCOL.*KAFKA_SASL_MECHANISM.*KAFKA_SSL_CAFILE")
        assert time.monotonic() - started < 0.9
        assert SECRET not in f"{failure} {failure.__cause__}"
        await publisher.close()
        no_thread_but(before)


async def test_nothing_is_written_past_our_log_while_no_broker_is_there(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="kafka")
    publisher = publisher_to(NOBODY)
    await refused(publisher, "KAFKA_BOOTSTRAP_SERVERS")
    await publisher.close()
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


async def test_a_key_goes_to_the_same_partition_as_by_kafka_python() -> None:
    keys = [b"%d" % number for number in range(40)]
    with Broker({"results": 6}) as broker:
        kafka = Kafka(bootstrap_servers=broker.bootstrap_servers, topic="results", api_version=API_VERSION)
        for publisher in (ConfluentPublisher(kafka), KafkaPublisher(kafka)):
            for key in keys:
                await publisher.publish(Message(key=key, value=b"v"), deadline=Deadline(20))
            await publisher.close()
        consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, api_version=API_VERSION)
        partitions = [TopicPartition("results", number) for number in range(6)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        found: dict[bytes, list[int]] = {key: [] for key in keys}
        while sum(map(len, found.values())) < 2 * len(keys):
            for partition, records in consumer.poll(timeout_ms=500).items():
                for record in records:
                    found[record.key].append(partition.partition)
        consumer.close()
    assert all(first == second for first, second in found.values())
    assert len({first for first, _ in found.values()}) > 1


def test_the_setting_chooses_the_client() -> None:
    for client, kind in (("kafka-python", KafkaPublisher), ("confluent", ConfluentPublisher)):
        assert type(publisher_of(Kafka(bootstrap_servers=NOBODY, topic="results", client=client))) is kind


def test_a_client_that_is_not_installed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mnist_pipeline.adapters.confluent_publisher")
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(SettingsError, match=r"^KAFKA_CLIENT is confluent, but .*pip install 'mnist-pipeline\[fast\]'$"):
        publisher_of(Kafka(bootstrap_servers=NOBODY, topic="results", client="confluent"))


def test_the_other_client_is_not_imported() -> None:
    program = (
        "import sys\n"
        "from mnist_pipeline.adapters.kafka import publisher_of\n"
        "from mnist_pipeline.pipeline.settings import Kafka\n"
        "publisher_of(Kafka(bootstrap_servers='127.0.0.1:1', topic='results', client=sys.argv[1]))\n"
        "print([name for name in ('kafka', 'confluent_kafka') if name in sys.modules])\n"
    )
    for client, imported in (("kafka-python", "kafka"), ("confluent", "confluent_kafka")):
        done = subprocess.run([sys.executable, "-c", program, client], capture_output=True, text=True, check=True)
        assert done.stdout == f"['{imported}']\n"
