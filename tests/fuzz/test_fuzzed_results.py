"""results.py and pipeline.py: what leaves is valid whatever came in, and names always fit."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import replace
from typing import Literal
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from fuzz.inputs import header_texts, keys, trace_ids
from mnist_pipeline.pipeline.errors import BadImage
from mnist_pipeline.pipeline.events import Caller
from mnist_pipeline.pipeline.filing import _fits, _names, _suffixed
from mnist_pipeline.pipeline.ports import ObjectVersion
from mnist_pipeline.pipeline.results import (
    Result,
    id_of,
    object_identity,
    object_result,
    rejected_data,
    to_message,
    to_reply,
    trace_id_of,
)
from mnist_pipeline.testing import digit_png

identities = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=5)
modes = st.sampled_from(["structured", "binary"])
callers = st.builds(
    Caller,
    request_host=st.none() | header_texts,
    isvc_name=st.none() | header_texts,
    isvc_namespace=st.none() | header_texts,
)
versions = st.builds(
    ObjectVersion,
    bucket=st.just("mnist"),
    key=keys(),
    version_id=st.none() | st.just("null") | st.uuids().map(str),
    etag=header_texts,
    last_modified=header_texts,
    metadata=st.dictionaries(header_texts, st.text(max_size=20), max_size=2),
)


@st.composite
def object_results(draw: st.DrawFn) -> Result:
    version, digit = draw(versions), draw(st.integers(0, 9))
    data = draw(st.just({"predictions": [digit]}) | st.just(rejected_data(BadImage("it is none"))))
    return object_result(version, draw(trace_ids), data, type="t", source="s", caller=draw(callers))


@given(object_results(), modes, st.sampled_from(["trace-id", "test-trace-id", "Trace_Id", "t"]))
def test_any_result_is_a_valid_message(result: Result, mode: Literal["structured", "binary"], trace_key: str) -> None:
    message = to_message(result, mode=mode, trace_key=trace_key)
    assert message.key.decode() == result.trace_id
    headers = dict(message.headers)
    assert len(headers) == len(message.headers)
    assert headers[trace_key].decode() == result.trace_id
    value = json.loads(message.value)
    if mode == "structured":
        assert value["specversion"] == "1.0"
        assert value[trace_key] == result.trace_id
        assert (value["id"], value["subject"], value["data"]) == (result.id, result.subject, result.data)
        assert value.get("request-host") == result.caller.request_host
    else:
        assert headers["ce_id"].decode() == result.id
        assert value == result.data
    assert str(uuid.UUID(result.id)) == result.id


@given(object_results(), st.sampled_from(["trace-id", "Trace_Id", "t"]))
def test_any_result_is_a_valid_reply(result: Result, trace_key: str) -> None:
    headers, body = to_reply(result, trace_key=trace_key)
    assert json.loads(body) == result.data
    for name, value in headers.items():
        assert name.isascii()
        assert name.isprintable()
        assert value.isascii()
        assert value.isprintable()
        assert " " not in value or name == "content-type"
    extension = "".join(letter for letter in trace_key.lower() if letter.isalnum())
    assert unquote(headers["ce-" + extension]) == result.trace_id
    assert unquote(headers["ce-subject"]) == result.subject


@given(versions, versions)
def test_ids_are_equal_exactly_where_identities_are(one: ObjectVersion, other: ObjectVersion) -> None:
    again = replace(one, metadata={}, tags={"a": "b"}, content_type="image/png")
    assert id_of(object_identity(again)) == id_of(object_identity(one))
    same = object_identity(one) == object_identity(other)
    assert (id_of(object_identity(one)) == id_of(object_identity(other))) == same


@given(identities, identities)
def test_other_parts_make_another_id_and_another_trace_id(one: list[str], other: list[str]) -> None:
    assert (id_of(one) == id_of(other)) == (one == other)
    assert (trace_id_of(one) == trace_id_of(other)) == (one == other)
    assert trace_id_of(one) != id_of(one)


@given(keys() | keys(suffix="") | keys(suffix=".tar.gz"), st.sampled_from(["", "digits/digit-7/", "é" * 60 + "/"]))
def test_every_name_of_an_object_fits_and_the_digest_makes_it_another(key: str, prefix: str) -> None:
    one, other = digit_png(1), digit_png(2)
    names, others = list(_names(prefix + key, one)), list(_names(prefix + key, other))
    for name in names + others:
        assert _fits(name)
        assert not {"", ".", ".."} & set(name.split("/"))
    if _fits(prefix + key):
        assert names.pop(0) == others.pop(0) == prefix + key
    assert len({*names, *others}) == 4
    assert hashlib.sha256(one).hexdigest() in names[-1]


@given(keys(), st.sampled_from(["0" * 12, "0" * 64]))
def test_a_suffixed_name_keeps_the_folder_the_stem_as_far_as_it_fits_and_the_suffix(key: str, digest: str) -> None:
    name = _suffixed(key, digest)
    stem, end = name.rsplit(f"-{digest}", 1)
    assert end == ".png"
    assert key.startswith(stem)
