"""events.py: what comes in, as a frozen value or as a clear refusal."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from digits import digits_settings
from mnist_pipeline.pipeline.cloud_events import CloudEvent
from mnist_pipeline.pipeline.errors import BadEvent, BadKey, BadTraceId, MalformedBody, NotAllowed
from mnist_pipeline.pipeline.events import Inline, Nothing, Notification, Request, parse, trace_id_in
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.settings import Settings

SETTINGS = digits_settings(trace_key="test-trace-id")
REAL_EVENTS = Path(__file__).parent.parent / "data" / "minio-events"
BINARY = {"ce-specversion": "1.0", "ce-id": "7", "ce-source": "event-producer", "ce-type": "prediction-request"}


def real(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((REAL_EVENTS / f"{name}.json").read_text())["value"]
    return value


def read(payload: object, headers: dict[str, str] | None = None, settings: Settings = SETTINGS) -> Request:
    return parse(json.dumps(payload).encode(), headers or {}, settings)


def objects_of(payload: object, headers: dict[str, str] | None = None, settings: Settings = SETTINGS) -> Notification:
    request = read(payload, headers, settings)
    assert isinstance(request, Notification)
    return request


def inline_of(payload: object, headers: dict[str, str] | None = None) -> Inline:
    request = read(payload, headers)
    assert isinstance(request, Inline)
    return request


def record(
    key: str = "0.png", bucket: str = "mnist", name: str = "s3:ObjectCreated:Put", **more: Any
) -> dict[str, Any]:
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key, **more}}}


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("put-plain-usermeta", "plain.png"),
        ("put-space", "with space.png"),
        ("put-plus", "a+b.png"),
        ("put-percent", "50%25 100%.png"),
        ("put-slash", None),
        ("put-utf8", None),
        ("put-emoji", None),
        ("put-nfd", "e\u0301.png"),
        ("put-special", "s!*'()~;:@&=$,?#[]\\|\"<>^`{}.png"),
        ("put-unknown-length", None),
        ("multipart", None),
        ("overwrite", None),
        ("copy-1", None),
        ("put-empty", None),
    ],
)
def test_row_06_the_key_of_a_real_minio_record_is_decoded_exactly_once(file: str, key: str | None) -> None:
    event = real(file)
    bucket, _, plain = event["Key"].partition("/")  # MinIO's own decoded form
    settings = digits_settings(source_buckets=(bucket,), source_suffixes=(Path(plain).suffix,))
    request = objects_of(event, settings=settings)
    assert [(ref.bucket, ref.key) for ref in request.objects] == [(bucket, plain)]
    assert key is None or plain == key


@pytest.mark.parametrize(
    "file",
    ["delete", "delete-multi-0", "get", "head", "put-tagging", "delete-tagging", "copy-0", "copy-self-replace-0"],
)
def test_row_05_a_real_record_that_creates_nothing_is_ignored(file: str) -> None:
    request = objects_of(real(file))
    assert (request.objects, request.refused, request.ignored) == ((), (), 1)


@pytest.mark.parametrize(
    "name",
    [
        "s3:ObjectCreated:PutTagging",
        "s3:ObjectCreated:DeleteTagging",
        "s3:ObjectCreated:PutRetention",
        "s3:ObjectCreated:PutLegalHold",
        "s3:ObjectRemoved:Delete",
        "s3:ObjectAccessed:Get",
        "s3:Replication:OperationCompletedReplication",
        "s3:ObjectCreated:SomethingNew",
        "ObjectCreated",
    ],
)
def test_row_05_only_the_four_created_events_are_handled(name: str) -> None:
    request = objects_of({"Records": [record(name=name)]})
    assert (request.objects, request.refused, request.ignored) == ((), (), 1)


@pytest.mark.parametrize("name", ["Put", "Post", "Copy", "CompleteMultipartUpload"])
@pytest.mark.parametrize("prefix", ["s3:", ""])
def test_created_events_are_handled_with_and_without_the_s3_prefix(name: str, prefix: str) -> None:
    assert objects_of({"Records": [record(name=f"{prefix}ObjectCreated:{name}")]}).objects


def test_the_version_is_the_one_that_the_record_names_and_null_is_one() -> None:
    def version(**more: Any) -> str | None:
        return objects_of({"Records": [record(**more)]}).objects[0].version_id

    assert version(versionId="73662bd7") == "73662bd7"
    assert version(versionId="null") == "null"
    assert version() is None
    assert version(versionId="") is None
    assert real("versioned-put")["Records"][0]["s3"]["object"]["versionId"]


def test_row_06_ceph_writes_keys_as_they_are_and_sizes_as_strings() -> None:
    ceph = record("a+b%20c.png", name="ObjectCreated:Put", size="17") | {"eventSource": "ceph:s3"}
    assert objects_of({"Records": [ceph]}).objects == (
        ObjectRef(bucket="mnist", key="a+b%20c.png", other_keys=("a b c.png", "a+b c.png")),
    )


def test_the_kserve_sample_s_notification_is_an_object_with_its_version() -> None:
    event = {
        "EventType": "s3:ObjectCreated:Put",
        "Key": "mnist/0.png",
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "minio:s3",
                "eventName": "s3:ObjectCreated:Put",
                "responseElements": {"x-minio-origin-endpoint": "http://10.244.0.71:9000"},
                "s3": {
                    "bucket": {"name": "mnist", "arn": "arn:aws:s3:::mnist"},
                    "object": {"key": "0.png", "size": 324, "versionId": "1", "sequencer": "15D808BF706E0994"},
                },
                "source": {"host": "", "port": "", "userAgent": ""},
            }
        ],
    }
    assert objects_of(event).objects == (ObjectRef(bucket="mnist", key="0.png", version_id="1"),)


def test_row_04_several_records_are_several_objects_and_bad_ones_are_refused_alone() -> None:
    request = objects_of({"Records": [record("1.png"), record("2.txt"), record("3.png"), {"eventName": 1}, {}, None]})
    assert [ref.key for ref in request.objects] == ["1.png", "3.png"]
    assert [type(refusal) for refusal in request.refused] == [NotAllowed, BadEvent, BadEvent, BadEvent]


@pytest.mark.parametrize("key", ["x.txt", "x.PNG", "x.png/", "png", "x.png%00", "x.png+"])
def test_row_08_a_key_of_another_suffix_is_refused(key: str) -> None:
    request = objects_of({"Records": [record(key)]})
    assert not request.objects
    assert isinstance(request.refused[0], NotAllowed)


@pytest.mark.parametrize("bucket", ["other", "mnist2", "Mnist", ""])
def test_row_08_a_bucket_that_is_not_listed_is_refused(bucket: str) -> None:
    request = objects_of({"Records": [record(bucket=bucket)]})
    assert not request.objects
    assert isinstance(request.refused[0], NotAllowed)


def test_row_08_several_buckets_and_suffixes_may_be_listed_and_no_other_passes() -> None:
    settings = digits_settings(source_buckets=("a-one", "b-two"), source_suffixes=(".png", ".jpg"))
    event = {"Records": [record("1.png", "a-one"), record("2.jpg", "b-two"), record("3.gif", "a-one")]}
    request = objects_of(event, settings=settings)
    assert [(ref.bucket, ref.key) for ref in request.objects] == [("a-one", "1.png"), ("b-two", "2.jpg")]
    assert isinstance(request.refused[0], NotAllowed)


@pytest.mark.parametrize(
    ("bucket", "key"),
    [("digit-3", "0.png"), ("mnist-rejected", "0.png"), ("digit-0", "a/b.txt"), ("digit-9", "..%2Fx")],
)
def test_row_09_what_we_filed_or_rejected_ourselves_is_ignored_before_it_is_judged(bucket: str, key: str) -> None:
    request = objects_of({"Records": [record(key, bucket)]})
    assert (request.objects, request.refused, request.ignored) == ((), (), 1)


def test_a_destination_with_a_prefix_guards_that_prefix_only() -> None:
    settings = digits_settings(destination="mnist/sorted/digit-{digit}")
    request = objects_of({"Records": [record("sorted/digit-4/x.png"), record("x.png")]}, settings=settings)
    assert [ref.key for ref in request.objects] == ["x.png"]
    assert request.ignored == 1


@pytest.mark.parametrize(
    "key",
    ["../x.png", "a/../x.png", "a/..%2Fx.png", "a%0Ab.png", "a%00.png", "%7F.png", "%C2%85.png", "x%FF.png", "./x.png"],
)
def test_row_07_a_key_that_can_name_no_object_is_refused(key: str) -> None:
    request = objects_of({"Records": [record(key)]})
    assert not request.objects
    assert isinstance(request.refused[0], BadKey)
    assert "\n" not in str(request.refused[0])


def test_row_07_a_key_of_1024_bytes_is_taken_and_one_more_is_refused() -> None:
    longest = "é" * 510 + ".png"
    assert objects_of({"Records": [record(longest)]}).objects[0].key == longest
    assert isinstance(objects_of({"Records": [record("x" + longest)]}).refused[0], BadKey)


def test_dots_inside_a_name_are_no_segment_of_dots() -> None:
    assert objects_of({"Records": [record("a..b/...png")]}).objects


@pytest.mark.parametrize(
    "body", [b"{", b"nope", b"[1]", b"null", b'"x"', b"3", b"[" * 5000, b'{"a":' * 5000, b"\xff\xfe"]
)
def test_row_02_a_body_that_is_no_json_object_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        parse(body, {}, SETTINGS)


@pytest.mark.parametrize(
    "payload",
    [{}, {"Records": None}, {"Records": "x"}, {"Records": {}}, {"x": 1}],
)
def test_row_03_an_object_that_is_neither_an_event_nor_a_request_is_refused(payload: object) -> None:
    with pytest.raises(BadEvent):
        read(payload)


@pytest.mark.parametrize("instances", [[], None, {"0": 1}, "x"])
def test_a_request_without_instances_is_refused_under_its_trace_id(instances: object) -> None:
    request = inline_of({**EXAMPLE, "instances": instances})
    assert isinstance(request.refusal, BadEvent)
    assert request.identity
    assert request.trace_id == EXAMPLE["test-trace-id"]


def test_a_kafka_header_counts_beside_a_structured_event_in_the_record() -> None:
    envelope = {"specversion": "1.0", "id": "7", "source": "s", "type": "t", "data": {"instances": [1]}}
    request = inline_of(envelope, {**BINARY, "ce-kafkaheadertesttraceid": "k"})
    assert request.trace_id == "k"
    assert request.cloudevent == CloudEvent(id="7", source="s", type="t")


def test_a_cloudevent_s_id_that_is_no_trace_id_is_left_alone() -> None:
    request = inline_of({"instances": [1]}, {**BINARY, "ce-id": "x" * 300})
    assert request.trace_id is None
    assert request.identity == ("event-producer", "x" * 300, "")


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}, BINARY])
def test_row_01_an_empty_body_is_nothing_to_do(headers: dict[str, str]) -> None:
    assert parse(b"", headers, SETTINGS) == Nothing(reason="empty")


def test_row_03_an_s3_test_event_and_an_event_of_no_records_are_nothing_to_do() -> None:
    assert read({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "mnist"}) == Nothing(reason="testevent")
    assert read({"Records": []}) == Nothing(reason="empty")


EXAMPLE = {"test-trace-id": "16ec3446", "instances": [{"data": "iVBOR"}]}


def test_row_10_an_inline_request_is_the_same_plain_binary_and_structured() -> None:
    plain = inline_of(EXAMPLE, {"content-type": "application/json"})
    binary = inline_of(EXAMPLE, BINARY)
    structured = inline_of(
        {"specversion": "1.0", "id": "7", "source": "event-producer", "type": "prediction-request", "data": EXAMPLE},
        {"content-type": "application/cloudevents+json; charset=utf-8"},
    )
    assert plain.instances == binary.instances == structured.instances == ({"data": "iVBOR"},)
    assert plain.trace_id == binary.trace_id == structured.trace_id == "16ec3446"
    assert plain.cloudevent is None
    assert binary.cloudevent == structured.cloudevent
    assert binary.identity == structured.identity == ("event-producer", "7", "16ec3446")


def test_row_10_a_structured_event_without_time_or_its_content_type_is_known_by_its_shape() -> None:
    envelope = {
        "specversion": "1.0",
        "id": "7",
        "source": "s",
        "type": "t",
        "testtraceid": "abc",
        "data": {"Records": [record()]},
    }
    assert objects_of(envelope).trace_id == "abc"
    assert read({**envelope, "data": None}) == Nothing(reason="empty")
    with pytest.raises(MalformedBody):
        read({**envelope, "data": [1]})


@pytest.mark.parametrize("missing", ["id", "source", "type"])
def test_a_cloudevent_without_a_required_attribute_is_refused(missing: str) -> None:
    with pytest.raises(BadEvent, match=missing):
        read(EXAMPLE, {name: value for name, value in BINARY.items() if name != f"ce-{missing}"})


@pytest.mark.parametrize("kind", ["io.kserve.mnist.prediction", "io.kserve.mnist.prediction.rejected"])
def test_row_09_our_own_reply_that_comes_back_is_nothing_to_do(kind: str) -> None:
    own = {**BINARY, "ce-source": SETTINGS.event_source, "ce-type": kind}
    assert read({"predictions": [2]}, own) == Nothing(reason="ownreply")
    envelope = {
        "specversion": "1.0",
        "id": "7",
        "source": SETTINGS.event_source,
        "type": kind,
        "data": {"predictions": [2]},
    }
    assert read(envelope) == Nothing(reason="ownreply")


def test_somebody_else_s_reply_is_no_reply_of_ours() -> None:
    with pytest.raises(BadEvent):
        read({"predictions": [2]}, {**BINARY, "ce-type": SETTINGS.event_type})


@pytest.mark.parametrize(
    ("payload", "headers", "expected"),
    [
        ({"test-trace-id": "p"}, {"test-trace-id": "h", "ce-testtraceid": "e"}, "p"),
        ({"test-trace-id": 17}, {}, "17"),
        ({"test-trace-id": None}, {"test-trace-id": "h"}, "h"),
        ({}, {"ce-testtraceid": "e", "test-trace-id": "h"}, "e"),
        ({}, {"ce-test-trace-id": "e"}, "e"),
        ({}, {"test-trace-id": "h", "ce-kafkaheadertest-trace-id": "k"}, "h"),
        ({}, {"ce-kafkaheadertest-trace-id": "k"}, "k"),
        ({}, {"ce-kafkaheadertesttraceid": "k"}, "k"),
        ({}, {}, None),
        ({"test-trace-id": ""}, {}, None),
    ],
)
def test_row_11_the_trace_id_is_the_first_found_and_an_integer_s_digits(
    payload: dict[str, Any], headers: dict[str, str], expected: str | None
) -> None:
    assert objects_of({**payload, "Records": [record()]}, headers).trace_id == expected


@pytest.mark.parametrize("value", [["a"], {"a": 1}, True, 1.5, "x" * 257, "a\r\nb", "\u0000", "x" * 1_000_000])
def test_row_11_a_trace_id_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(BadTraceId) as raised:
        read({**EXAMPLE, "test-trace-id": value})
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("payload", [{"Records": [record()]}, {"instances": [1]}])
@pytest.mark.parametrize("value", ["x" * 257, "a\tb", "a\r\nb", "x" * 1_000_000])
@pytest.mark.parametrize(
    "name",
    [
        "test-trace-id",
        "ce-testtraceid",
        "ce-test-trace-id",
        "ce-kafkaheadertesttraceid",
        "ce-kafkaheadertest-trace-id",
    ],
)
def test_row_11_a_bad_trace_id_in_a_header_or_an_extension_is_refused_too(
    name: str, value: str, payload: dict[str, Any]
) -> None:
    with pytest.raises(BadTraceId):
        read(payload, {**BINARY, name: value})


@pytest.mark.parametrize("value", [["a"], {"a": 1}, True, "x" * 257, "a\r\nb"])
def test_row_11_a_bad_trace_id_among_a_structured_event_s_attributes_is_refused_too(value: object) -> None:
    envelope = {"specversion": "1.0", "id": "7", "source": "s", "type": "t", "data": {"Records": [record()]}}
    with pytest.raises(BadTraceId):
        read({**envelope, "testtraceid": value})
    assert objects_of({**envelope, "testtraceid": 17}).trace_id == "17"


def test_an_inline_cloudevent_without_a_trace_id_takes_its_own_id() -> None:
    assert inline_of({"instances": [1]}, BINARY).trace_id == "7"


def test_a_plain_inline_request_is_identified_by_trace_id_and_body_or_not_at_all() -> None:
    one, same = inline_of(EXAMPLE), inline_of(EXAMPLE)
    other = inline_of({**EXAMPLE, "instances": [{"data": "x"}]})
    assert one.identity == same.identity != other.identity
    assert inline_of({"instances": [1]}).identity is None


def test_the_caller_comes_from_the_headers_else_from_the_settings() -> None:
    settings = digits_settings(inference_service_name="svc", pod_namespace="ns")
    headers = {"host": "h", "kserve-isvc-name": "other"}
    caller = objects_of({"Records": [record()]}, headers, settings).caller
    assert (caller.request_host, caller.isvc_name, caller.isvc_namespace) == ("h", "other", "ns")


def test_an_object_s_metadata_gives_a_trace_id_or_says_why_not() -> None:
    assert trace_id_in({"test-trace-id": "abc"}, SETTINGS) == "abc"
    assert trace_id_in({}, SETTINGS) is None
    with pytest.raises(BadTraceId):
        trace_id_in({"test-trace-id": "x" * 300}, SETTINGS)


@pytest.mark.parametrize("key", ["x" * 100_000, "x" * 100_000 + ".png", "%ff" * 30_000, "../" * 30_000 + "0.png"])
def test_a_refusal_does_not_repeat_a_name_of_any_length(key: str) -> None:
    for refused in (objects_of({"Records": [record(key)]}), objects_of({"Records": [record("0.png", bucket=key)]})):
        (refusal,) = refused.refused
        assert len(str(refusal)) < 300


@pytest.mark.parametrize(
    ("sent", "meant"),
    [("caf%C3%A9%20x", "café x"), ("100%25", "100%"), ("100%", "100%"), ("%C3x", "%C3x"), ("50%25 %zz", "50% %zz")],
)
def test_values_of_a_binary_event_are_percent_decoded_where_they_can_be(sent: str, meant: str) -> None:
    assert inline_of({"instances": [1]}, {**BINARY, "ce-testtraceid": sent}).trace_id == meant


def test_row_09_our_own_reply_is_known_however_its_source_is_written() -> None:
    settings = replace(SETTINGS, event_source="é digits")
    own = {**BINARY, "ce-source": "%C3%A9%20digits", "ce-type": settings.event_type}
    assert parse(b'{"predictions": [2]}', own, settings) == Nothing(reason="ownreply")


# --- bodies that are no JSON object ---

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(PNG, None), (PNG, "application/json"), (b"\xff\xd8\xff\xe0", None), (b"x", "image/png"), (b"{}", "IMAGE/x; a=b")],
)
def test_row_47_a_body_that_is_an_image_is_one_inline_instance(body: bytes, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    plain, event = (
        parse(body, {**headers, "test-trace-id": "t"}, SETTINGS),
        parse(body, {**headers, **BINARY}, SETTINGS),
    )
    for request in (plain, event):
        assert isinstance(request, Inline)
        assert (request.instances, request.refusal) == ((body,), None)
        assert request.identity


def structured(**members: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "7", "source": "s", "type": "t", **members}


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_row_41_data_in_base64_or_as_text_are_read_as_data() -> None:
    event = json.dumps({"Records": [record()], "test-trace-id": "p"})
    for envelope in (structured(data_base64=in_base64(event.encode())), structured(data=event)):
        assert objects_of(envelope).trace_id == "p"
    image = structured(data_base64=in_base64(PNG), datacontenttype="image/png")
    assert inline_of(image).instances == (PNG,)
    assert read(structured(data_base64="")) == Nothing(reason="empty")


@pytest.mark.parametrize("data", ["!!", "e30", "e30=\n!", 7, ["e30="], in_base64(b"[1]"), in_base64(b"no JSON")])
def test_row_41_data_in_base64_that_are_none_are_malformed(data: object) -> None:
    with pytest.raises(MalformedBody):
        read(structured(data_base64=data))


@pytest.mark.parametrize("version", ["2.0", "0.2", "", 1, ["1.0"], None])
def test_an_event_of_a_version_that_is_not_known_is_refused(version: object) -> None:
    with pytest.raises(BadEvent):
        read(structured(specversion=version, data=EXAMPLE))


# --- envelopes and keys ---


def sqs(payload: object) -> dict[str, Any]:
    return {"messageId": "1", "body": json.dumps(payload)}


def test_row_43_records_are_found_however_deep_and_each_counts_for_itself() -> None:
    first, second = record("1.png"), record("2.png", name="s3:ObjectRemoved:Delete")
    test = {"Event": "s3:TestEvent"}
    request = objects_of([sqs({"Message": json.dumps([first, test])}), {"Records": [second, sqs("x")]}, {"body": 7}])
    assert [ref.key for ref in request.objects] == ["1.png"]
    assert [type(refusal) for refusal in request.refused] == [BadEvent, BadEvent]
    assert request.ignored == 2


def test_row_43_an_envelope_whose_members_contradict_each_other_is_read_by_the_one_that_is_a_list() -> None:
    request = objects_of([{"Messages": [record()], "Records": 5}])
    assert [ref.key for ref in request.objects] == ["0.png"]


def test_row_43_envelopes_without_end_are_refused() -> None:
    payload: object = record()
    for _ in range(9):
        payload = [payload]
    assert isinstance(objects_of({"Records": payload}).refused[0], BadEvent)


def test_row_43_a_batch_of_cloudevents_with_notifications_is_one() -> None:
    batch = [structured(data={"Records": [record(f"{number}.png")]}) for number in range(3)]
    headers = {"content-type": "application/cloudevents-batch+json"}
    assert [ref.key for ref in objects_of(batch, headers).objects] == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("reason", ["PutObject", "CopyObject"])
@pytest.mark.parametrize(("kind", "number"), [("Object Created", 1), ("Object Deleted", 0), ("Object Tags Added", 0)])
def test_row_43_of_eventbridge_only_created_objects_are_handled(kind: str, number: int, reason: str) -> None:
    named = {"key": "a+b.png", "etag": "e", "version-id": "v", "size": 1}
    detail = {"bucket": {"name": "mnist"}, "object": named, "reason": reason}
    request = objects_of({"detail-type": kind, "source": "aws.s3", "detail": detail})
    ref = ObjectRef(bucket="mnist", key="a+b.png", version_id="v", etag="e", other_keys=("a b.png",))
    assert request.objects == (ref,) * number
    assert request.ignored == 1 - number


@pytest.mark.parametrize(
    ("source", "written", "readings"),
    [
        ("minio:s3", "a+b.png", ["a b.png", "a+b.png"]),
        ("noobaa:s3", "a%2Bb.png", ["a+b.png", "a%2Bb.png"]),
        ("ceph:s3", "a%20b.png", ["a%20b.png", "a b.png"]),
        ("other:s3", "a+b%20c.png", ["a b c.png", "a+b c.png", "a+b%20c.png"]),
        ("minio:s3", "plain.png", ["plain.png"]),
        ("ceph:s3", "%FF.png", ["%FF.png"]),
        ("noobaa:s3", "100%FF.png", ["100%FF.png"]),
        ("ceph:s3", "a%0Ab.png", ["a%0Ab.png"]),
        ("minio:s3", "a%2Epng", ["a.png"]),
    ],
)
def test_row_42_a_key_is_read_every_way_by_which_it_may_be_touched(
    source: str, written: str, readings: list[str]
) -> None:
    (ref,) = objects_of({"Records": [record(written, eTag='"e"') | {"eventSource": source}]}).objects
    assert ([ref.key, *ref.other_keys], ref.etag) == (readings, "e")


@pytest.mark.parametrize(
    "body",
    [
        lambda event: b"\xef\xbb\xbf" + event,
        lambda event: json.dumps(event.decode()).encode(),
        lambda event: json.dumps([event.decode()]).encode(),
        lambda event: json.dumps({"schema": {"type": "struct"}, "payload": json.loads(event)}).encode(),
        lambda event: json.dumps(sqs(event.decode())).encode(),
        lambda event: json.dumps({"Type": "Notification", "Message": event.decode(), "SubscribeURL": "u"}).encode(),
        lambda event: json.dumps(structured(data_base64=base64.encodebytes(event).decode())).encode(),
        lambda event: json.dumps(structured(data=json.loads(event), data_base64="")).encode(),
    ],
)
def test_row_43_encodings_that_libraries_add_are_undone(body: Any) -> None:
    request = parse(body(json.dumps({"Records": [record()]}).encode()), {}, SETTINGS)
    assert isinstance(request, Notification)
    assert [ref.key for ref in request.objects] == ["0.png"]


def test_an_event_of_records_without_end_is_refused_and_takes_little_memory() -> None:
    with pytest.raises(BadEvent, match="more than 10,000 records"):
        read({"Records": [{}] * 10_001})
    assert all(refusal.__traceback__ is None for refusal in objects_of({"Records": [{}, record()]}).refused)


@pytest.mark.parametrize("more", [{"content-type": "application/cloudevents+json"}, {"ce-extensions": "abc"}])
def test_a_binary_event_is_one_whatever_else_its_headers_say(more: dict[str, str]) -> None:
    assert inline_of({"instances": [1]}, {**BINARY, **more}).cloudevent is not None


def test_row_41_data_beside_data_in_base64_are_malformed() -> None:
    with pytest.raises(MalformedBody):
        read(structured(data={"Records": []}, data_base64=in_base64(b"{}")))
