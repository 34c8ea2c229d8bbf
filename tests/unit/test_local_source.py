"""What the stand-in for a KafkaSource puts on the wire, and its bookkeeping."""

from __future__ import annotations

import base64
import gc
import json
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from mnist_pipeline.local.broker import API_VERSION, Broker
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
from mnist_pipeline.local.records import Record
from mnist_pipeline.local.source import Offsets, Source

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
        ({"data": {"instances": ["é"]}}, '{"instances":["é"]}'.encode(), None),
        ({"data": "a", "datacontenttype": "text/plain"}, b"a", b"text/plain"),
        ({"data": "a", "datacontenttype": "application/json"}, b'"a"', b"application/json"),
        ({"data_base64": "AAH/", "datacontenttype": "image/png"}, b"\x00\x01\xff", b"image/png"),
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


@pytest.mark.parametrize(
    ("value", "record_headers"),
    [
        (b"{", (("content-type", b"application/cloudevents+json"),)),
        (b"[]", (("content-type", b"application/cloudevents+json"),)),
        (b'{"specversion": "1.0", "id": "7"}', (("content-type", b"application/cloudevents+json"),)),
        (b"{}", EVENT_HEADERS[:-2]),
    ],
)
def test_a_broken_cloud_event_is_delivered_as_plain_data(
    value: bytes, record_headers: tuple[tuple[str, bytes], ...]
) -> None:
    record = replace(RECORD, value=value, headers=record_headers)
    assert headers(record)["ce-type"] == b"dev.knative.kafka.event"
    assert request(record).body == value


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


def test_offsets_are_committed_up_to_the_first_that_is_not_settled() -> None:
    offsets = Offsets()
    for offset in (5, 6, 9, 10):
        offsets.begin(offset)
    positions = []
    for offset in (6, 10, 5, 9):
        offsets.settle(offset)
        positions.append(offsets.position)
    assert positions == [None, None, 7, 11]


NOBODY = "127.0.0.1:1"


def said_by(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("mnist_pipeline")]


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
    monkeypatch.setattr("mnist_pipeline.local.source._CONNECT_SECONDS", 0.1)
    monkeypatch.setattr("mnist_pipeline.local.source._RECONNECT_SECONDS", 0.05)
    source = Source(NOBODY, "mnist", "http://127.0.0.1:1/", group="test")
    source.begin()
    until(lambda: said_by(caplog))
    time.sleep(0.5)
    source.close()
    (line,) = said_by(caplog)
    assert line == (
        "topic mnist: not connected: no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS; trying again"
    )
    gc.collect()  # those sockets now, not in the middle of another test


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the same
def test_a_source_says_once_that_its_broker_went_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="kafka")
    caplog.set_level(logging.INFO, logger="mnist_pipeline")
    with Broker({"mnist": 1}) as broker:
        source = Source(broker.bootstrap_servers, "mnist", "http://127.0.0.1:1/", group="test", api_version=API_VERSION)
        source.start()
    until(lambda: len(said_by(caplog)) > 1)
    time.sleep(1)
    source.close()
    assert said_by(caplog) == [
        "delivering topic mnist to http://127.0.0.1:1/",
        "topic mnist: not connected: no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS; trying again",
    ]
    gc.collect()  # the same


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the same
def test_a_source_that_has_to_be_ready_says_why_it_is_not_and_closes_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="kafka")
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        for servers, why in ((NOBODY, "no connection to a broker"), (f"127.0.0.1:{silent.getsockname()[1]}", "KAFKA_")):
            source = Source(servers, "mnist", "http://127.0.0.1:1/", group="test")
            started = time.monotonic()
            with pytest.raises(PartFailed, match=rf"source found no Kafka in 0\.3 s: .*{why}"):
                source.start(timeout_seconds=0.3)
            assert time.monotonic() - started < 3
    gc.collect()  # the same
