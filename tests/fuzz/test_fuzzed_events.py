"""events.py: whatever comes in becomes a value that is safe to use, or a refusal that is safe to show."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from digits import digits_settings
from fuzz.inputs import (
    HOSTILE,
    REAL_EVENTS,
    assert_refusal_can_be_shown,
    damaged,
    header_texts,
    json_values,
    keys,
    mutated,
    trace_ids,
)
from mnist_pipeline.pipeline.errors import BadTraceId, Permanent
from mnist_pipeline.pipeline.events import Inline, Nothing, Notification, parse
from mnist_pipeline.testing import minio_event

SETTINGS = digits_settings(trace_key="test-trace-id")
CPU_SECONDS = 2.0
"""For any of these inputs; far more than the milliseconds that they take, even on a busy machine."""

header_names = st.sampled_from(
    [
        *(
            "ce-specversion",
            "ce-id",
            "ce-source",
            "ce-type",
            "ce-testtraceid",
            "ce-kafkaheadertesttraceid",
            "ce-subject",
        ),
        *("test-trace-id", "host", "content-type", "kserve-isvc-name", "kserve-isvc-namespace"),
    ]
) | header_texts.map(str.lower)
headers = st.dictionaries(header_names, header_texts, max_size=6)

inline_requests = st.builds(
    lambda instances, more: {"instances": instances} | more,
    st.lists(st.just({"data": "aGVsbG8="}) | json_values, max_size=3),
    st.dictionaries(st.sampled_from(["test-trace-id", "parameters", "x"]), json_values, max_size=2),
)
real_requests = st.sampled_from(REAL_EVENTS) | inline_requests
envelopes = st.builds(
    lambda data, attributes: (
        {"specversion": "1.0", "id": "7", "source": "s", "type": "t"} | attributes | {"data": data}
    ),
    real_requests,
    st.dictionaries(st.sampled_from(["id", "source", "type", "testtraceid", "data_base64", "time"]), json_values),
)
hostile_records = st.builds(
    lambda name, bucket, key, version, source: {
        "eventName": name,
        "eventSource": source,
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "versionId": version}},
    },
    st.just("s3:ObjectCreated:Put") | st.sampled_from(HOSTILE),
    st.just("mnist") | st.sampled_from(["mnist-rejected", "digit-3", *HOSTILE]),
    st.sampled_from(["0.png", *HOSTILE, *(text + ".png" for text in HOSTILE)]) | keys(),
    st.none() | st.sampled_from(["null", "1", *HOSTILE]) | json_values,
    st.sampled_from(["minio:s3", "ceph:s3", "aws:s3", ""]),
)
near_requests = (real_requests | envelopes).flatmap(mutated)


def assert_is_a_value_or_a_refusal(body: bytes, given_headers: dict[str, str]) -> None:
    began = time.process_time()
    try:
        request = parse(body, given_headers, SETTINGS)
    except Permanent as refusal:
        assert_refusal_can_be_shown(refusal)
    else:
        assert isinstance(request, Notification | Inline | Nothing)
        if isinstance(request, Notification):
            assert_may_be_touched(request, body)
        if isinstance(request, Inline) and request.refusal is not None:
            assert_refusal_can_be_shown(request.refusal)
    assert time.process_time() - began < CPU_SECONDS


def assert_may_be_touched(request: Notification, body: bytes) -> None:
    for refusal in request.refused:
        assert_refusal_can_be_shown(refusal)
    for one in request.objects:
        assert one.bucket == "mnist"
        assert one.key.endswith(".png")
        assert len(one.key.encode()) <= 1024
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in one.key)
        assert not {".", ".."} & set(one.key.split("/"))
        assert all(other != one.key and other.endswith(".png") for other in one.other_keys)
    payload = json.loads(body)
    records: Any = payload.get("Records", payload.get("data", {})) if isinstance(payload, dict) else payload
    records = records.get("Records", []) if isinstance(records, dict) else records
    if records and all(isinstance(one, dict) and "s3" in one for one in records):
        assert len(request.objects) + len(request.refused) + request.ignored == len(records)


@given(st.binary(max_size=200), headers)
def test_any_bytes_are_a_value_or_a_refusal(body: bytes, given_headers: dict[str, str]) -> None:
    assert_is_a_value_or_a_refusal(body, given_headers)


@given(
    json_values | st.dictionaries(st.sampled_from(["Records", "instances", "specversion", "data"]), json_values),
    headers,
)
def test_any_json_is_a_value_or_a_refusal(payload: object, given_headers: dict[str, str]) -> None:
    assert_is_a_value_or_a_refusal(json.dumps(payload).encode(), given_headers)


@given(near_requests, headers)
@example(minio_event("mnist", "0.png") | {"Records": [{"eventName": "s3:ObjectCreated:Put"}] * 3}, {})
def test_a_changed_event_or_request_is_a_value_or_a_refusal(payload: object, given_headers: dict[str, str]) -> None:
    assert_is_a_value_or_a_refusal(json.dumps(payload).encode(), given_headers)


@given(st.lists(hostile_records | json_values, min_size=1, max_size=3), headers)
def test_a_hostile_record_is_a_reference_or_a_refusal(records: list[object], given_headers: dict[str, str]) -> None:
    assert_is_a_value_or_a_refusal(json.dumps({"Records": records}).encode(), given_headers)


@given((real_requests | envelopes).flatmap(lambda payload: damaged(json.dumps(payload).encode())), headers)
def test_damaged_bytes_of_an_event_or_request_are_a_value_or_a_refusal(
    body: bytes, given_headers: dict[str, str]
) -> None:
    assert_is_a_value_or_a_refusal(body, given_headers)


@given(st.integers(1, 200_000), st.sampled_from([b"[", b'{"instances":[', b'{"Records":', b'{"a":']))
def test_deep_nesting_is_a_value_or_a_refusal(depth: int, opening: bytes) -> None:
    assert_is_a_value_or_a_refusal(opening * depth, {})
    closing = bytes({"[": 93, "{": 125}[letter] for letter in opening.decode() if letter in "[{")[::-1]
    assert_is_a_value_or_a_refusal(opening * depth + b"1" + closing * depth, {})


@given(st.lists(keys(), min_size=1, max_size=4))
def test_every_key_arrives_as_it_was_uploaded(uploaded: list[str]) -> None:
    payload = minio_event("mnist", "0.png")
    payload["Records"] = [record for key in uploaded for record in minio_event("mnist", key)["Records"]]
    request = parse(json.dumps(payload).encode(), {}, SETTINGS)
    assert isinstance(request, Notification)
    assert [(one.bucket, one.key) for one in request.objects] == [("mnist", key) for key in uploaded]


@given(keys())
def test_a_key_is_decoded_once_and_not_at_all_from_ceph(key: str) -> None:
    once = quote_plus(key)
    payload = minio_event("mnist", once)  # which escapes it again
    request = parse(json.dumps(payload).encode(), {}, digits_settings(source_suffixes=("",)))
    escaped_fits = len(once.encode()) <= 1024
    if escaped_fits:
        assert isinstance(request, Notification)
        assert [one.key for one in request.objects] == [once]
    payload = minio_event("mnist", "0.png")
    payload["Records"][0]["eventSource"] = "ceph:s3"
    payload["Records"][0]["s3"]["object"]["key"] = key
    request = parse(json.dumps(payload).encode(), {}, SETTINGS)
    assert isinstance(request, Notification)
    assert [one.key for one in request.objects] == [key]


@given(
    trace_ids | st.integers(-(2**63), 2**63),
    st.sampled_from(["payload", "ce-testtraceid", "ce-kafkaheadertesttraceid"]),
)
def test_a_legal_trace_id_is_found_unchanged_wherever_it_is(trace_id: str | int, place: str) -> None:
    payload: dict[str, Any] = minio_event("mnist", "0.png")
    given_headers = {}
    if place == "payload":
        payload["test-trace-id"] = trace_id
    else:
        given_headers[place] = str(trace_id)
    request = parse(json.dumps(payload).encode(), given_headers, SETTINGS)
    assert isinstance(request, Notification)
    assert request.trace_id == str(trace_id)


@given(
    st.text(min_size=257, max_size=300)
    | st.builds("{}{}{}".format, st.text(max_size=20), st.characters(categories=["Cc"]), st.text(max_size=20))
    | st.lists(json_values)
    | st.dictionaries(st.text(max_size=5), json_values)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
)
def test_any_other_trace_id_is_refused(trace_id: object) -> None:
    payload = {"instances": [1], "test-trace-id": trace_id}
    with pytest.raises(BadTraceId) as refused:
        parse(json.dumps(payload).encode(), {}, SETTINGS)
    assert_refusal_can_be_shown(refused.value)


@given(real_requests, header_texts.filter(bool), st.none() | trace_ids)
def test_a_structured_event_is_a_binary_one_is_a_plain_one(payload: Any, source: str, trace_id: str | None) -> None:
    if trace_id is not None:
        payload = payload | {"test-trace-id": trace_id}
    attributes = {"specversion": "1.0", "id": "7", "source": source, "type": "t"}
    structured = _parsed(attributes | {"data": payload}, {})
    binary = _parsed(payload, {"ce-" + name: value for name, value in attributes.items()})
    plain = _parsed(payload, {})
    assert structured == binary
    if isinstance(binary, Inline) and isinstance(plain, Inline):
        assert (binary.instances, binary.trace_id or "7") == (plain.instances, plain.trace_id or "7")
    else:
        assert binary == plain


def _parsed(payload: object, given_headers: dict[str, str]) -> object:
    """The value, in a form that can be compared."""
    try:
        request = parse(json.dumps(payload).encode(), given_headers, SETTINGS)
    except Permanent as refusal:
        return repr(refusal)
    if isinstance(request, Notification):
        return request.objects, list(map(repr, request.refused)), request.ignored, request.trace_id
    if isinstance(request, Inline) and request.refusal is not None:
        return repr(request.refusal)
    return request
