"""What the stand-in for a KafkaSource puts on the wire, and its bookkeeping."""

from __future__ import annotations

import base64
import gc
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from kafka import KafkaConsumer

from e2e.sinks import Sink, always, produce
from logged import by_us, said_by_us
from mnist_pipeline.adapters.group_member import Subscription
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.local.broker import Broker
from mnist_pipeline.local.delivery import DeadLetter
from mnist_pipeline.local.knative import (
    Answer,
    Request,
    Verdict,
    dead_letter_of,
    header_bytes,
    request_of,
    verdict,
    wait_seconds,
)
from mnist_pipeline.local.processes import PartFailed
from mnist_pipeline.local.source import Source
from mnist_pipeline.pipeline.settings import Kafka

RECORD = Record(
    topic="mnist",
    partition=0,
    offset=17,
    timestamp_ms=1795322606302,
    key=b"mnist/0.png",
    value=b'{"EventName": "s3:ObjectCreated:Put"}',
)


def request(record: Record) -> Request:
    return request_of(record, namespace="ns", name="digits")


def headers(record: Record) -> dict[str, bytes]:
    pairs = request(record).headers
    assert len({name for name, _ in pairs}) == len(pairs), "a header came twice"
    return dict(pairs)


def test_a_plain_record_is_posted_with_exactly_the_headers_of_a_kafka_source() -> None:
    assert headers(RECORD) == {
        "Prefer": b"reply",
        "Kn-Namespace": b"ns",
        "ce-specversion": b"1.0",
        "ce-id": b"partition:0/offset:17",
        "ce-source": b"/apis/v1/namespaces/ns/kafkasources/digits#mnist",
        "ce-type": b"dev.knative.kafka.event",
        "ce-subject": b"partition:0#17",
        "ce-time": b"2026-11-22T04:43:26.302Z",
        "ce-partitionkey": b"mnist/0.png",
        "ce-key": b"mnist/0.png",
        "ce-knativekafkapartition": b"0",
        "ce-knativekafkaoffset": b"17",
    }
    assert request(RECORD).body == RECORD.value


def test_a_tombstone_has_no_body_and_an_empty_value_has_an_empty_one() -> None:
    assert request(replace(RECORD, value=None)).body is None
    assert request(replace(RECORD, value=b"")).body == b""


@pytest.mark.parametrize("key", [None, b""])
def test_a_record_without_a_key_has_no_key_attributes(key: bytes | None) -> None:
    assert not {"ce-key", "ce-partitionkey"} & set(headers(replace(RECORD, key=key)))


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("a b+%2B.png", b"a b+%2B.png"),
        ("é", b"\xe9"),
        ("日本", b"??"),
        ("é日\U0001f600", b"\xe9???"),
    ],
)
def test_a_key_is_sent_as_latin_1_with_a_question_mark_for_each_utf_16_unit_beyond(key: str, sent: bytes) -> None:
    assert headers(replace(RECORD, key=key.encode()))["ce-key"] == sent
    assert header_bytes(key) == sent


def test_a_key_that_is_no_utf_8_is_sent_with_question_marks() -> None:
    assert headers(replace(RECORD, key=b"a\xffb"))["ce-key"] == b"a?b"


def test_kafka_headers_become_extensions_whose_names_keep_only_lower_case_letters_and_digits() -> None:
    sent = headers(replace(RECORD, headers=(("Trace-Id", b"abc"), ("x_1", b"\xc3\xa9"))))
    assert sent["ce-kafkaheadertraceid"] == b"abc"
    assert sent["ce-kafkaheaderx1"] == b"\xe9"


def test_a_content_type_is_sent_only_where_the_record_carries_one_and_in_lower_case() -> None:
    sent = headers(replace(RECORD, headers=(("Content-Type", b"Application/JSON"),)))
    assert sent["content-type"] == b"application/json"
    assert "ce-kafkaheadercontenttype" not in sent


def test_a_traceparent_is_sent_as_an_extension_and_as_itself() -> None:
    traceparent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = headers(replace(RECORD, headers=(("traceparent", traceparent),)))
    assert sent["traceparent"] == sent["ce-kafkaheadertraceparent"] == traceparent


EVENT_HEADERS = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"7"),
    ("ce_source", b"/me"),
    ("ce_type", b"digit"),
    ("ce_traceid", b"abc"),
)


def test_a_binary_cloud_event_is_delivered_as_itself() -> None:
    record = replace(RECORD, headers=(*EVENT_HEADERS, ("content-type", b"application/json")))
    assert headers(record) == {
        "Prefer": b"reply",
        "Kn-Namespace": b"ns",
        "ce-specversion": b"1.0",
        "ce-id": b"7",
        "ce-source": b"/me",
        "ce-type": b"digit",
        "ce-traceid": b"abc",
        "ce-knativekafkapartition": b"0",
        "ce-knativekafkaoffset": b"17",
        "content-type": b"application/json",
    }
    assert request(record).body == RECORD.value


@pytest.mark.parametrize(
    ("part", "body", "content_type"),
    [
        ({"data": {"instances": ["é"]}}, '{"instances":["é"]}'.encode(), b"application/json"),
        ({"data": None}, b"null", b"application/json"),
        ({"data": [1], "datacontenttype": "application/x+json;a=b"}, b"[1]", b"application/x+json;a=b"),
        ({"data": "a", "datacontenttype": "text/plain"}, b"a", b"text/plain"),
        ({"data": "a", "datacontenttype": "application/json5"}, b"a", b"application/json5"),
        ({"data": "a", "datacontenttype": "application/json"}, b'"a"', b"application/json"),
        ({"data_base64": "AAH/", "datacontenttype": "image/png"}, b"\x00\x01\xff", b"image/png"),
        ({"data_base64": "AAH/"}, b"\x00\x01\xff", None),
        ({}, None, None),
    ],
)
def test_a_structured_cloud_event_is_delivered_in_binary_mode(
    part: dict[str, object], body: bytes | None, content_type: bytes | None
) -> None:
    envelope = {"specversion": "1.0", "id": "7", "source": "/me", "type": "digit", "flag": True, "number": 3, **part}
    content_type_header = ("content-type", b"application/cloudevents+json; charset=UTF-8")
    record = replace(RECORD, value=json.dumps(envelope).encode(), headers=(content_type_header,))
    sent = headers(record)
    assert (sent["ce-id"], sent["ce-type"], sent["ce-flag"], sent["ce-number"]) == (b"7", b"digit", b"true", b"3")
    assert sent.get("content-type") == content_type
    assert request(record).body == body


STRUCTURED = (("content-type", b"application/cloudevents+json"),)
ENVELOPE = b'"specversion": "1.0", "id": "7", "source": "/me", "type": "digit"'


@pytest.mark.parametrize(
    ("members", "body"),
    [
        (rb'"data": {"x": "\ud800"}', b'{"x":"?"}'),
        (rb'"data": "a\udc00\ud800b", "datacontenttype": "text/plain"', b"a??b"),
        (rb'"data": "\ud83d\ude00"', '"😀"'.encode()),
    ],
)
def test_a_lone_surrogate_in_a_structured_cloud_events_data_is_sent_as_a_question_mark(
    members: bytes, body: bytes
) -> None:
    record = replace(RECORD, value=b"{%s, %s}" % (ENVELOPE, members), headers=STRUCTURED)
    assert headers(record)["ce-type"] == b"digit"
    assert request(record).body == body


@pytest.mark.parametrize(
    "members",
    [
        rb'"data": {"\ud800": 1}',
        b'"data": "\xed\xa0\x80"',
        b'"data": "\xff"',
        b'"data": NaN',
        b'"data": 1e400',
        b'"data": ' + b"[" * 100_000 + b"]" * 100_000,
        b'"data": 1, "data_base64": "AA=="',
        b'"data": 1, "datacontenttype": "text/plain"',
        b'"data": {}, "datacontenttype": "application/json5"',
        b'"data": 1, "datacontenttype": 1',
        b'"data_base64": "*"',
        b'"data_base64": null',
        b'"subject": 5',
        b'"extension": 1.5',
        b'"an_extension": 1',
        rb'"\ud800": 1',
        b'"specversion": "2.0"',
        b'"id": 7',
    ],
    ids=lambda members: members[:40],
)
def test_a_structured_cloud_event_that_cannot_be_unpacked_is_delivered_as_plain_data(members: bytes) -> None:
    record = replace(RECORD, value=b"{%s, %s}" % (ENVELOPE, members), headers=STRUCTURED)
    assert headers(record)["ce-type"] == b"dev.knative.kafka.event"
    assert request(record).body == record.value


@pytest.mark.parametrize(
    ("value", "record_headers"),
    [
        (None, STRUCTURED),
        (b"{", STRUCTURED),
        (b"[]", STRUCTURED),
        (b'{"specversion": "1.0", "id": "7"}', STRUCTURED),
        (b"{}", EVENT_HEADERS[:3]),
        (b"{}", (*EVENT_HEADERS, ("ce_an-extension", b"1"))),
    ],
)
def test_a_broken_cloud_event_is_delivered_as_plain_data(
    value: bytes | None, record_headers: tuple[tuple[str, bytes], ...]
) -> None:
    record = replace(RECORD, value=value, headers=record_headers)
    assert headers(record)["ce-type"] == b"dev.knative.kafka.event"
    assert request(record).body == value


@pytest.mark.parametrize(
    ("milliseconds", "sent"),
    [
        (1795322606300, b"2026-11-22T04:43:26.3Z"),
        (1795322606020, b"2026-11-22T04:43:26.02Z"),
        (1795322600000, b"2026-11-22T04:43:20Z"),
        (-1, b"1969-12-31T23:59:59.999Z"),
        (253402300800000, b"+10000-01-01T00:00:00Z"),
        (1795322606302000, b"+58861-07-04T19:58:22Z"),
        (2**63 - 1, b"+292278994-08-17T07:12:55.807Z"),
    ],
)
def test_the_time_is_written_as_java_writes_it_beyond_the_year_9999_too(milliseconds: int, sent: bytes) -> None:
    assert headers(replace(RECORD, timestamp_ms=milliseconds))["ce-time"] == sent


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([200, 201, 202, 204, 299], Verdict.COMMIT),
        ([404, 408, 409, 429, 500, 501, 502, 503, 504, 599, None], Verdict.RETRY),
        ([300, 301, 302, 304, 307, 400, 401, 403, 405, 410, 413, 415, 422, 499], Verdict.DEAD_LETTER),
    ],
)
def test_the_answer_decides_as_in_knatives_table(statuses: list[int | None], expected: Verdict) -> None:
    assert {verdict(status) for status in statuses} == {expected}


def test_waits_grow_exponentially_from_twice_the_backoff_or_linearly_from_once() -> None:
    assert [wait_seconds(attempt, backoff_seconds=0.25) for attempt in (1, 2, 3)] == [0.5, 1.0, 2.0]
    linear = [wait_seconds(attempt, backoff_seconds=0.25, policy="linear") for attempt in (1, 2, 3)]
    assert linear == [0.25, 0.5, 0.75]


def test_a_dead_letter_keeps_the_event_and_says_what_went_wrong() -> None:
    answer = Answer(status=422, headers=(("Kne-Reason", "badimage"), ("Content-Length", "2")), body=b"no" * 1000)
    letter = dead_letter_of(request(RECORD), sink_url="http://sink", answer=answer)
    added = dict(letter.headers[len(request(RECORD).headers) :])
    assert letter.headers[: len(request(RECORD).headers)] == request(RECORD).headers
    assert letter.body == RECORD.value
    data = added.pop("ce-knativeerrordata")
    assert added == {
        "ce-knativeerrordest": b"http://sink",
        "ce-knativeerrorcode": b"422",
        "ce-reason": b"badimage",
    }
    assert base64.b64decode(data) == (b"no" * 512)  # the first 1,024 bytes


def test_a_dead_letter_without_an_answer_names_the_destination_only() -> None:
    letter = dead_letter_of(request(RECORD), sink_url="http://sink", answer=None)
    assert [name for name, _ in letter.headers if "error" in name] == ["ce-knativeerrordest"]


NOBODY = "127.0.0.1:1"
MNIST = Subscription(topics=("mnist",), group="test")


def at(servers: str) -> Kafka:
    return Kafka(bootstrap_servers=servers, topic="mnist")


def until(true: Callable[[], object]) -> None:
    give_up = time.monotonic() + 10
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # kafka-python never closes a socket that was refused
def test_a_source_goes_on_trying_where_kafka_is_away_and_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.CRITICAL, logger="kafka")
    caplog.set_level(logging.INFO, logger="mnist_pipeline")
    monkeypatch.setattr("mnist_pipeline.adapters.kafka_consumer.REQUEST_SECONDS", 0.2)
    monkeypatch.setattr("mnist_pipeline.adapters.group_member._RETRY_SECONDS", 0.05)
    source = Source(at(NOBODY), MNIST, "http://127.0.0.1:1/")
    source.begin()
    until(lambda: said_by_us(caplog))
    time.sleep(0.5)
    source.close()
    (line,) = said_by_us(caplog)
    assert line == (
        "topic mnist: not connected: no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS; trying again"
    )
    gc.collect()  # those sockets now, not in the middle of another test


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the same
def test_a_source_says_once_that_its_broker_went_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="kafka")
    caplog.set_level(logging.INFO, logger="mnist_pipeline")
    with Broker({"mnist": 1}) as broker:
        source = Source(broker.kafka("mnist"), MNIST, "http://127.0.0.1:1/")
        source.start()
    until(lambda: len(said_by_us(caplog)) > 1)
    time.sleep(1)
    source.close()
    begun, away = said_by_us(caplog)
    assert begun == "delivering topic mnist to http://127.0.0.1:1/"
    assert "no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS" in away
    gc.collect()  # the same


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the same
def test_a_source_that_has_to_be_ready_says_why_it_is_not_and_closes_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="kafka")
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        for servers, why in ((NOBODY, "no connection to a broker"), (f"127.0.0.1:{silent.getsockname()[1]}", "KAFKA_")):
            source = Source(at(servers), MNIST, "http://127.0.0.1:1/")
            started = time.monotonic()
            with pytest.raises(PartFailed, match=rf"source has no partition after 0\.3 s: .*{why}"):
                source.start(timeout_seconds=0.3)
            assert time.monotonic() - started < 3
    gc.collect()  # the same


class Unforeseen(Exception):
    """Nothing that the source knows of."""


def unforeseen_at(value: bytes, wrapped: Callable[..., Request]) -> Callable[..., Request]:
    """The same function, but for a record or a request with this value."""

    def failing(first: Record | Request, **options: object) -> Request:
        if value == (first.value if isinstance(first, Record) else first.body):
            raise Unforeseen
        return wrapped(first, **options)

    return failing


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(always(200)) as sink:
        yield sink


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker({"mnist": 1}) as broker:
        yield broker


def source_of(broker: Broker, sink_url: str, letters: list[DeadLetter]) -> Source:
    return Source(
        broker.kafka("mnist"),
        replace(MNIST, initial_offset="earliest"),
        sink_url,
        retry=2,
        backoff_seconds=0.01,
        on_dead_letter=letters.append,
    )


def test_a_record_that_no_request_can_be_made_of_ends_as_a_dead_letter_and_the_next_ones_are_delivered(
    broker: Broker, sink: Sink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mnist_pipeline.local.delivery.request_of", unforeseen_at(b"poison", request_of))
    letters: list[DeadLetter] = []
    produce(broker, b"1", b"poison", b"2")
    with source_of(broker, sink.url, letters) as source:
        until(lambda: source.delivered == 2)
    (letter,) = letters
    assert (letter.record.value, letter.request.body, letter.answer, letter.attempts) == (b"poison", b"poison", None, 3)
    assert [received.body for received in sink.received] == [b"1", b"2"]
    stacks = [record.getMessage() for record in by_us(caplog) if record.exc_info]
    assert stacks == ["partition 0 offset 1: an attempt failed in a way that was not foreseen"]
    with source_of(broker, sink.url, letters) as source:
        produce(broker, b"3")
        until(lambda: source.delivered)
    assert sink.received[2].body == b"3", "a settled record came again"


def test_a_record_that_can_be_neither_delivered_nor_given_up_holds_up_no_other_and_comes_again_after_a_restart(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    letters: list[DeadLetter] = []
    produce(broker, b"1", b"poison", b"2")
    with Sink(lambda received: 422 if received.body == b"poison" else 200) as sink:
        with monkeypatch.context() as patched:
            patched.setattr("mnist_pipeline.local.delivery.dead_letter_of", unforeseen_at(b"poison", dead_letter_of))
            with source_of(broker, sink.url, letters) as source:
                until(lambda: source.delivered == 2)
        assert not letters
        stacks = [record.getMessage() for record in by_us(caplog) if record.exc_info]
        assert stacks == ["partition 0 offset 1 is neither delivered nor given up; a restart brings it again"]
        with source_of(broker, sink.url, letters) as source:
            until(lambda: source.delivered)
        assert [received.body for received in sink.received] == [b"1", b"poison", b"2", b"poison", b"2"]
    (letter,) = letters
    assert letter.record.value == b"poison"


@pytest.mark.parametrize("url", ["http://sink:99999/", "http://sink/a b", "http://sink/é", "http://a b/"])
def test_a_url_that_nothing_can_be_posted_to_is_refused_at_once(url: str) -> None:
    with pytest.raises((ValueError, http.client.InvalidURL)):
        Source(at(NOBODY), MNIST, url)


def test_a_source_that_cannot_go_on_says_so_and_tells_its_owner(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def poll(*_args: object, **_more: object) -> None:
        raise Unforeseen

    monkeypatch.setattr(KafkaConsumer, "poll", poll)
    told = threading.Event()
    source = Source(
        broker.kafka("mnist"),
        MNIST,
        "http://127.0.0.1:1/",
        on_failure=told.set,
    )
    source.begin()
    assert told.wait(20)
    source.close()
    assert source.failed
    assert "in a way that nobody foresaw" in caplog.text
