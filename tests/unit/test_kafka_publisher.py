"""`KafkaPublisher` where brokers are away, silent or frozen; what it does with honest ones is in tests/contract."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import kafka.errors
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.cluster import ClusterMetadata
from kafka.errors import KafkaTimeoutError
from kafka.net.compat import KafkaNetClient
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata

from mnist_pipeline.adapters import kafka_publisher
from mnist_pipeline.adapters.acknowledgements import Acknowledgements, Receipt
from mnist_pipeline.adapters.confluent_publisher import ConfluentPublisher
from mnist_pipeline.adapters.kafka_publisher import KafkaPublisher
from mnist_pipeline.pipeline.errors import DeadlineExceeded, KafkaUnavailable, MessageTooLarge
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Kafka
from unit.kafka_brokers import MESSAGE, BrokerProcess, Forwarder, longest_pause, no_thread_but, refused, seconds

pytestmark = [
    pytest.mark.usefixtures("collected_sockets"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"),
]

Connect = Callable[..., KafkaPublisher | ConfluentPublisher]

SECRET = "a-password-that-nobody-may-see"
NOBODY = "127.0.0.1:1"
API_VERSION = (2, 3)


@pytest.fixture
def broker() -> Iterator[BrokerProcess]:
    running = BrokerProcess()
    yield running
    running.close()


@pytest.fixture(params=[KafkaPublisher, ConfluentPublisher], ids=["kafka-python", "confluent"])
def publisher_to(request: pytest.FixtureRequest) -> Connect:
    """Makes a publisher to these servers; of each client in turn, where a test does not say which."""

    def connect(
        servers: str, *, timeout_seconds: float = 1.0, topic: str = "results", **options: Any
    ) -> KafkaPublisher | ConfluentPublisher:
        kafka = Kafka(bootstrap_servers=servers, topic=topic, **options)
        publisher: KafkaPublisher | ConfluentPublisher = request.param(kafka, timeout_seconds=timeout_seconds)
        return publisher

    return connect


only_kafka_python = pytest.mark.parametrize("publisher_to", [KafkaPublisher], indirect=True, ids=["kafka-python"])


@pytest.mark.parametrize("api_version", [None, API_VERSION])
async def test_row_34_a_broker_that_is_away_is_told_by_the_variables_name_and_without_the_password(
    publisher_to: Connect,
    api_version: tuple[int, int] | None,
) -> None:
    publisher = publisher_to(
        NOBODY,
        api_version=api_version,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="writer",
        sasl_password=SECRET,
    )
    failure = await refused(publisher, "KAFKA_BOOTSTRAP_SERVERS")
    assert SECRET not in f"{failure} {failure.__cause__}"
    with pytest.raises(KafkaUnavailable, match="KAFKA_BOOTSTRAP_SERVERS"):
        await publisher.check(deadline=Deadline(20))
    await publisher.close()


async def test_what_could_be_a_wrong_password_or_certificate_is_told_by_the_variables_names(
    publisher_to: Connect, silent: str
) -> None:
    await refused(publisher_to(silent), "KAFKA_SECURITY_PROTOCOL.*KAFKA_SASL_PASSWORD.*KAFKA_SSL_CAFILE")


@pytest.mark.usefixtures("nameless")
@pytest.mark.parametrize("api_version", [None, API_VERSION])
@pytest.mark.parametrize("servers", [NOBODY, "no-such-host.invalid:9092"])
async def test_row_34_where_nobody_listens_only_the_address_is_suspected(
    publisher_to: Connect, servers: str, api_version: tuple[int, int] | None
) -> None:
    failure = await refused(publisher_to(servers, api_version=api_version), "no connection.*KAFKA_BOOTSTRAP_SERVERS")
    assert "KAFKA_SASL" not in str(failure)
    assert "KAFKA_SSL" not in str(failure)


async def test_what_kafka_says_of_a_connection_is_noticed_where_its_log_is_silent(
    publisher_to: Connect, broker: BrokerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = publisher_to(broker.address, security_protocol="SSL")
    await refused(publisher, "no TLS.*KAFKA_SECURITY_PROTOCOL")
    assert not [record for record in caplog.records if record.name.startswith("kafka")]
    await publisher.close()


@pytest.mark.parametrize("api_version", [None, API_VERSION])
async def test_row_26_a_silent_broker_is_given_up_within_the_deadline(
    publisher_to: Connect, silent: str, api_version: tuple[int, int] | None
) -> None:
    publisher = publisher_to(silent, timeout_seconds=30, api_version=api_version)
    assert await seconds(refused(publisher, "KAFKA", within=0.5)) < 1.8
    assert await seconds(publisher.close()) < 4


async def test_a_silent_broker_is_given_up_after_the_timeout_where_the_deadline_is_far(
    publisher_to: Connect, silent: str
) -> None:
    publisher = publisher_to(silent, api_version=API_VERSION)
    assert await seconds(refused(publisher, "KAFKA_BOOTSTRAP_SERVERS", within=60)) < 3


async def test_many_wait_for_one_attempt_to_connect_and_not_for_one_after_another(
    publisher_to: Connect, silent: str
) -> None:
    publisher = publisher_to(silent)
    before = threading.active_count()
    started = time.monotonic()
    waiting = [asyncio.create_task(refused(publisher, "KAFKA_BOOTSTRAP_SERVERS")) for _ in range(32)]
    await asyncio.sleep(0.5)
    assert threading.active_count() - before <= (1 if isinstance(publisher, KafkaPublisher) else 2)
    await asyncio.gather(*waiting)
    assert time.monotonic() - started < 3


async def test_what_waiting_cannot_mend_is_told_long_before_the_timeout(publisher_to: Connect, silent: str) -> None:
    publisher = publisher_to(silent, timeout_seconds=30, security_protocol="SSL", ssl_cafile="/no/such/file")
    assert await seconds(refused(publisher, "KAFKA_SSL_CAFILE", within=60)) < 5


@only_kafka_python
async def test_row_26_a_failed_attempt_answers_for_a_second_and_is_then_repeated(publisher_to: Connect) -> None:
    publisher = publisher_to(NOBODY, security_protocol="NO_SUCH")
    assert await seconds(refused(publisher, "KAFKA")) > 0.5
    assert await seconds(refused(publisher, "KAFKA")) < 0.5
    await asyncio.sleep(1.1)
    assert await seconds(refused(publisher, "KAFKA")) > 0.5


@only_kafka_python
@pytest.mark.parametrize(
    ("options", "variable"),
    [
        ({"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "NO_SUCH"}, "KAFKA_SASL_MECHANISM"),
        ({"security_protocol": "SSL", "ssl_cafile": "/no/such/file"}, "KAFKA_SSL_CAFILE"),
        ({"api_version": (99,)}, "KAFKA_API_VERSION|KAFKA_BOOTSTRAP_SERVERS"),
    ],
)
async def test_row_34_settings_that_cannot_be_used_are_told_by_the_variables_names(
    publisher_to: Connect, broker: BrokerProcess, options: dict[str, Any], variable: str
) -> None:
    await refused(publisher_to(broker.address, **{"api_version": API_VERSION, **options}), variable)


@only_kafka_python
async def test_row_27_an_impossible_topic_is_told_by_the_variables_name(
    publisher_to: Connect, broker: BrokerProcess
) -> None:
    publisher = publisher_to(broker.address, topic="no topic", api_version=API_VERSION)
    await refused(publisher, "'no topic'.*KAFKA_TOPIC")
    await publisher.close()


async def test_row_26_a_frozen_broker_is_used_again_when_it_is_back(
    publisher_to: Connect, broker: BrokerProcess
) -> None:
    publisher = publisher_to(broker.address, api_version=API_VERSION)
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    broker.freeze()
    assert await seconds(refused(publisher, "'results'")) < 4
    assert await seconds(refused(publisher, "no broker answered.*KAFKA_BOOTSTRAP_SERVERS")) < 4
    broker.thaw()
    await asyncio.sleep(1.1)  # as long as a failed attempt answers for others
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    await publisher.close()


async def test_a_broker_that_freezes_for_less_than_the_timeout_is_waited_for(
    publisher_to: Connect, broker: BrokerProcess
) -> None:
    publisher = publisher_to(broker.address, api_version=API_VERSION, timeout_seconds=10)
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    broker.freeze()
    threading.Timer(0.7, broker.thaw).start()
    assert 0.5 < await seconds(publisher.publish(MESSAGE, deadline=Deadline(20))) < 5
    await publisher.close()


async def test_a_short_deadline_does_not_cost_the_others_their_connection(
    publisher_to: Connect, broker: BrokerProcess
) -> None:
    publisher = publisher_to(broker.address, api_version=API_VERSION, timeout_seconds=10)
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    broker.freeze()
    patient = asyncio.create_task(publisher.publish(MESSAGE, deadline=Deadline(20)))
    await refused(publisher, "'results'", within=0.3)
    broker.thaw()
    await patient
    await publisher.close()


async def test_row_26_a_broker_that_moved_is_found_again_through_the_bootstrap_servers(
    publisher_to: Connect, broker: BrokerProcess
) -> None:
    old = BrokerProcess()
    with Forwarder(old.address) as bootstrap:
        publisher = publisher_to(bootstrap.address, api_version=API_VERSION)
        await publisher.publish(MESSAGE, deadline=Deadline(20))
        old.close()
        bootstrap.target = broker.address
        # librdkafka looks for it while the message waits.
        if isinstance(publisher, KafkaPublisher):
            await refused(publisher, "'results'")
        await publisher.publish(MESSAGE, deadline=Deadline(20))
        await publisher.close()


async def test_close_ends_within_seconds_and_leaves_no_thread_even_with_a_frozen_broker(
    publisher_to: Connect, broker: BrokerProcess
) -> None:
    before = set(threading.enumerate())
    publisher = publisher_to(broker.address, api_version=API_VERSION, timeout_seconds=30)
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    broker.freeze()
    await refused(publisher, "'results'", within=0.3)
    assert await seconds(publisher.close()) < 4
    no_thread_but(before)


async def test_close_gives_up_what_is_in_flight_and_who_waits_is_told(
    publisher_to: Connect, broker: BrokerProcess
) -> None:
    publisher = publisher_to(broker.address, api_version=API_VERSION, timeout_seconds=30)
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    broker.freeze()
    waiting = [asyncio.create_task(refused(publisher, "'results'.*KAFKA_BOOTSTRAP_SERVERS")) for _ in range(8)]
    await asyncio.sleep(0.1)
    assert await seconds(publisher.close()) < 4
    assert await seconds(asyncio.gather(*waiting)) < 0.5


async def test_close_tells_all_who_wait_for_the_connection(publisher_to: Connect, silent: str) -> None:
    publisher = publisher_to(silent, timeout_seconds=30)
    waiting = [asyncio.create_task(refused(publisher, "KAFKA_BOOTSTRAP_SERVERS")) for _ in range(8)]
    await asyncio.sleep(0.2)
    assert await seconds(publisher.close()) < 4
    assert await seconds(asyncio.gather(*waiting)) < 0.5


async def test_close_while_connecting_lets_nothing_behind(publisher_to: Connect, broker: BrokerProcess) -> None:
    before = set(threading.enumerate())
    broker.freeze()
    publisher = publisher_to(broker.address, timeout_seconds=2)
    await refused(publisher, "KAFKA", within=0.2)
    await publisher.close()
    broker.thaw()
    no_thread_but(before)


async def test_a_publisher_is_pickled_without_its_producer_before_and_after_its_first_use(
    publisher_to: Connect,
    broker: BrokerProcess,
) -> None:
    publisher = publisher_to(broker.address, api_version=API_VERSION)
    for _ in range(2):
        twin = pickle.loads(pickle.dumps(publisher))
        await twin.publish(MESSAGE, deadline=Deadline(20))
        await twin.close()
        await publisher.publish(MESSAGE, deadline=Deadline(20))
    await publisher.close()


ERRORS = [
    kind
    for _, kind in inspect.getmembers(kafka.errors, inspect.isclass)
    if issubclass(kind, kafka.errors.KafkaError) and kind is not kafka.errors.NoError
]


def test_there_are_kafka_errors_to_translate() -> None:
    assert len(ERRORS) > 100


@only_kafka_python
@pytest.mark.parametrize("where", ["raised by send", "raised by the constructor", "in the future"])
async def test_no_error_of_the_library_gets_out(
    publisher_to: Connect, where: str, broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    error: Exception

    def failing(*_: object, **__: object) -> FutureRecordMetadata:
        if where == "in the future":
            future = FutureRecordMetadata(FutureProduceResult(TopicPartition("results", 0)), -1, None, None, -1, -1, -1)
            future.failure(error)
            return future
        raise error

    if where == "raised by the constructor":
        monkeypatch.setattr(KafkaNetClient, "__init__", failing)
    else:
        monkeypatch.setattr(KafkaProducer, "send", failing)
    too_large = (kafka.errors.MessageSizeTooLargeError, kafka.errors.RecordListTooLargeError)
    publisher = publisher_to(broker.address, api_version=API_VERSION)
    for kind in [*ERRORS, ValueError, TypeError, AssertionError, OSError, FileNotFoundError]:
        error = kind({}) if kind is kafka.errors.LogTruncationError else kind(SECRET, "more")
        if where == "raised by the constructor":
            publisher = publisher_to(NOBODY, api_version=API_VERSION)
        failure = await refused(publisher, "KAFKA|too large")
        sent = where != "raised by the constructor"
        assert isinstance(failure, MessageTooLarge) == (sent and issubclass(kind, too_large))
        assert failure.__cause__ is error
        assert SECRET not in str(failure)
    await publisher.close()


@only_kafka_python
@pytest.mark.parametrize("kind", [kafka.errors.TopicAuthorizationFailedError, kafka.errors.InvalidTopicError])
async def test_row_27_a_refused_topic_is_told_by_its_name_and_the_variables(
    publisher_to: Connect, kind: type[Exception], broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise kind

    monkeypatch.setattr(KafkaProducer, "send", failing)
    publisher = publisher_to(broker.address, api_version=API_VERSION)
    await refused(publisher, "'results'.*KAFKA_TOPIC")
    await publisher.close()


async def test_the_event_loop_goes_on_while_a_broker_is_silent_frozen_or_closed(
    publisher_to: Connect, silent: str, broker: BrokerProcess
) -> None:
    mute = publisher_to(silent)
    assert await longest_pause(refused(mute, "KAFKA")) < 0.5
    assert await longest_pause(mute.close()) < 0.5
    publisher = publisher_to(broker.address, api_version=API_VERSION)
    assert await longest_pause(publisher.publish(MESSAGE, deadline=Deadline(20))) < 0.5
    broker.freeze()
    assert await longest_pause(refused(publisher, "'results'")) < 0.5
    assert await longest_pause(refused(publisher, "KAFKA_BOOTSTRAP_SERVERS")) < 0.5
    assert await longest_pause(publisher.close()) < 0.5


async def test_a_cancelled_publish_ends_at_once_and_the_others_are_acknowledged(
    publisher_to: Connect, broker: BrokerProcess
) -> None:
    publisher = publisher_to(broker.address, api_version=API_VERSION, timeout_seconds=10)
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    broker.freeze()
    cancelled, patient = (
        asyncio.create_task(publisher.publish(MESSAGE, deadline=Deadline(20))) for _ in ("cancelled", "patient")
    )
    await asyncio.sleep(0.1)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert not patient.done()
    broker.thaw()
    await patient
    await publisher.close()


@only_kafka_python
async def test_a_topic_that_the_producer_has_forgotten_is_asked_for_again(
    publisher_to: Connect, broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = publisher_to(broker.address, api_version=API_VERSION)
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    send = KafkaProducer.send
    sent: list[object] = []

    def forgetting(producer: KafkaProducer, *args: Any, **options: Any) -> FutureRecordMetadata:
        if not sent:
            producer._metadata._partitions.clear()  # noqa: SLF001 - as an answer without the topic does
        sent.append(args)
        return send(producer, *args, **options)

    monkeypatch.setattr(KafkaProducer, "send", forgetting)
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    assert len(sent) == 2
    await publisher.close()


@only_kafka_python
async def test_a_message_whose_topic_is_known_again_too_late_is_not_begun(
    publisher_to: Connect, broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = publisher_to(broker.address, api_version=API_VERSION)
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    asked = asyncio.get_running_loop().create_future()
    sent: list[object] = []

    def unknown(*args: Any, **_: Any) -> None:
        sent.append(args)
        raise KafkaTimeoutError

    def known_late() -> None:
        time.sleep(0.3)  # as a busy event loop does
        asked.set_result(None)

    monkeypatch.setattr(KafkaProducer, "send", unknown)
    monkeypatch.setattr(kafka_publisher._Connection, "ask_for_topic", lambda _: asked)  # noqa: SLF001
    asyncio.get_running_loop().call_later(0.05, known_late)
    with pytest.raises(DeadlineExceeded):
        await publisher.publish(MESSAGE, deadline=Deadline(0.2))
    assert len(sent) == 1
    await publisher.close()


@only_kafka_python
async def test_a_topic_that_nobody_knows_is_asked_for_once_for_all_and_until_each_ones_deadline(
    publisher_to: Connect, broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClusterMetadata, "partitions_for_topic", lambda *_: None)
    publisher = publisher_to(broker.address, api_version=API_VERSION, timeout_seconds=2)
    impatient = asyncio.gather(*(refused(publisher, "'results'.*KAFKA_TOPIC", within=0.5) for _ in range(16)))
    patient = asyncio.gather(*(seconds(refused(publisher, "'results'.*KAFKA_TOPIC")) for _ in range(16)))
    assert await seconds(impatient) < 1.5
    assert [thread.name for thread in threading.enumerate()].count("kafka-topic") == 1
    assert 1.5 < max(await patient) < 4
    await publisher.close()


def test_a_publisher_is_used_on_one_event_loop_after_another(publisher_to: Connect, broker: BrokerProcess) -> None:
    publisher = publisher_to(broker.address, api_version=API_VERSION)

    async def publish(*, close: bool) -> None:
        await publisher.publish(MESSAGE, deadline=Deadline(20))
        if close:
            await publisher.close()

    asyncio.run(publish(close=False))
    asyncio.run(publish(close=True))
    asyncio.run(publish(close=True))


async def test_many_acknowledgements_wake_the_event_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    acks = Acknowledgements()
    wake = acks.loop.call_soon_threadsafe
    wake_ups: list[object] = []

    def counted(*args: Any) -> asyncio.Handle:
        wake_ups.append(args)
        return wake(*args)

    def settle_all(receipts: list[Receipt]) -> None:
        for receipt in receipts:
            acks.settle(receipt, None)

    monkeypatch.setattr(acks.loop, "call_soon_threadsafe", counted)
    for _ in range(2):
        receipts = [acks.receipt() for _ in range(50)]
        thread = threading.Thread(target=settle_all, args=(receipts,))
        thread.start()
        thread.join()
        assert await asyncio.gather(*receipts) == [None] * 50
    assert len(wake_ups) == 2


async def test_what_is_known_too_late_of_a_message_changes_nothing() -> None:
    acks, late = Acknowledgements(), TimeoutError()
    receipt = acks.receipt()
    with pytest.raises(TimeoutError) as caught:
        await acks.within(0.01, receipt, late)
    assert caught.value is late
    acks.settle(receipt, None)
    await asyncio.sleep(0.01)
    assert receipt.result() is late
