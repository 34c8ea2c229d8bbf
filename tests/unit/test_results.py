"""results.py: what goes out, on Kafka and as an HTTP reply."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

import pytest
from cloudevents.http import from_http

from mnist_pipeline.pipeline.cloud_events import CloudEvent
from mnist_pipeline.pipeline.events import Caller, Inline
from mnist_pipeline.pipeline.ports import ObjectVersion
from mnist_pipeline.pipeline.results import (
    Result,
    id_of,
    inline_result,
    object_identity,
    object_result,
    to_message,
    to_reply,
    trace_id_of,
)

CALLER = Caller(request_host="test.svc", isvc_name="test-transformer", isvc_namespace="kserve-test")
VERSION = ObjectVersion(
    bucket="mnist", key="0.png", version_id="v1", etag="abc", last_modified="Sun, 22 Nov 2026 04:43:17 GMT"
)


def inline(identity: tuple[str, ...] | None = ("s", "1", "t")) -> Result:
    request = Inline(instances=(1,), trace_id="16ec3446", identity=identity, caller=CALLER)
    return inline_result(request, {"predictions": [2]}, type="io.example", source="here")


def stored() -> Result:
    data = {"predictions": [2], "destination": "digit-2/0.png"}
    return object_result(VERSION, "t-1", data, type="io.example", source="here", caller=CALLER)


def test_an_inline_result_has_exactly_the_ten_fields_of_the_kafka_sink_transformer_in_their_order() -> None:
    message = to_message(inline(), mode="structured", trace_key="test-trace-id")
    event = json.loads(message.value)
    assert list(event) == [
        "specversion",
        "id",
        "source",
        "type",
        "time",
        "data",
        "request-host",
        "kserve-isvc-name",
        "kserve-isvc-namespace",
        "test-trace-id",
    ]
    assert event["data"] == {"predictions": [2]}
    assert event["specversion"] == "1.0"
    assert event["kserve-isvc-namespace"] == "kserve-test"


def test_the_kafka_key_is_the_trace_id_and_the_headers_have_it_too() -> None:
    for mode in ("structured", "binary"):
        message = to_message(inline(), mode=mode, trace_key="test-trace-id")
        assert message.key == b"16ec3446"
        assert ("test-trace-id", b"16ec3446") in message.headers


def test_an_object_s_result_has_subject_content_type_and_the_object() -> None:
    event = json.loads(to_message(stored(), mode="structured", trace_key="trace-id").value)
    assert event["subject"] == "mnist/0.png"
    assert event["datacontenttype"] == "application/json"
    assert event["data"]["predictions"] == [2]
    assert event["data"]["destination"] == "digit-2/0.png"
    assert event["data"]["object"] == {
        "bucket": "mnist",
        "key": "0.png",
        "etag": "abc",
        "lastModified": VERSION.last_modified,
        "versionId": "v1",
    }


def test_what_the_request_does_not_tell_is_left_out() -> None:
    event = json.loads(to_message(replace(inline(), caller=Caller()), mode="structured", trace_key="t").value)
    assert set(event) == {"specversion", "id", "source", "type", "time", "data", "t"}


def test_binary_mode_carries_attributes_as_ce_headers_and_the_four_as_plain_ones() -> None:
    message = to_message(stored(), mode="binary", trace_key="trace-id")
    headers = dict(message.headers)
    assert json.loads(message.value)["predictions"] == [2]
    assert headers["content-type"] == b"application/json"
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_subject"] == b"mnist/0.png"
    assert headers["request-host"] == b"test.svc"
    assert "ce_datacontenttype" not in headers
    assert all(name.isidentifier() or "-" in name for name in headers)


def test_a_reply_is_a_binary_cloudevent_that_a_strict_sdk_reads() -> None:
    headers, body = to_reply(replace(inline(), trace_id='né "50%"'), trace_key="test-trace-id")
    event = from_http(headers, body)
    assert event.data == {"predictions": [2]}
    assert event["kserveisvcname"] == "test-transformer"
    assert event["requesthost"] == "test.svc"
    assert event["testtraceid"] == "n%C3%A9%20%2250%25%22"
    assert all(value.isascii() and value.isprintable() for value in headers.values())


def test_the_same_object_gets_the_same_id_and_any_other_another() -> None:
    first = id_of(object_identity(VERSION))
    assert uuid.UUID(first).version == 5
    assert first == id_of(object_identity(replace(VERSION, content_type="x", metadata={"a": "b"})))
    others = [
        replace(VERSION, bucket="b"),
        replace(VERSION, key="k"),
        replace(VERSION, etag="e"),
        replace(VERSION, version_id="v2"),
    ]
    ids = {first, *(id_of(object_identity(other)) for other in others)}
    assert len(ids) == 5


@pytest.mark.parametrize("version_id", [None, "null"])
def test_without_a_version_the_age_tells_objects_apart(version_id: str | None) -> None:
    old = replace(VERSION, version_id=version_id)
    new = replace(old, last_modified="Sun, 22 Nov 2026 04:43:18 GMT")
    assert object_identity(old) != object_identity(new)


def test_parts_of_an_identity_do_not_run_into_each_other() -> None:
    assert id_of(("a", "bc")) != id_of(("ab", "c"))
    assert id_of(("a", 'b","c')) != id_of(("a", "b", "c"))


def test_a_request_without_identity_gets_a_new_id_each_time() -> None:
    assert inline(None).id != inline(None).id
    assert inline().id == inline().id


def test_a_derived_trace_id_is_stable_and_no_id() -> None:
    identity = object_identity(VERSION)
    assert trace_id_of(identity) == trace_id_of(identity) != id_of(identity)


def test_an_inline_cloudevent_without_trace_id_is_tagged_with_something() -> None:
    request = Inline(instances=(1,), cloudevent=CloudEvent(id="1", source="s", type="t"), identity=("s", "1", ""))
    assert inline_result(request, {}, type="t", source="s").trace_id
