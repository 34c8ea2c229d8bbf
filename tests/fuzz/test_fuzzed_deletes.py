"""s3_deletes.py: a key is named exactly or not at all, and no answer can free what it does not name."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.inputs import HOSTILE
from mnist_pipeline.adapters.s3_deletes import as_xml, batches, outcomes_in
from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.pipeline.ports import ObjectVersion

keys = st.text(max_size=20) | st.text(st.sampled_from("&<>\"'] \r\n\t\x00\x0b\x85\u2028\ufffe/."), max_size=8)
ids = st.sampled_from([None, "null", "73662bd7-fd57-4dac-b44a-30a18fd2ad73", "AWS.has_others", "<&>"])
versions = st.lists(
    st.builds(
        ObjectVersion,
        bucket=st.sampled_from(["mnist", "other", "No bucket"]),
        key=keys | st.sampled_from(HOSTILE),
        version_id=ids,
        etag=st.just("abc"),
        last_modified=st.just("Sun, 22 Nov 2026 04:44:26 GMT"),
    ),
    max_size=12,
)


def names(many: Sequence[ObjectVersion]) -> list[tuple[str, str | None]]:
    return [(version.key, version.version_id) for version in many]


@given(versions)
def test_each_version_is_in_one_batch_and_is_named_there_as_it_is(many: list[ObjectVersion]) -> None:
    found = list(batches(many))
    assert sorted(number for numbers in found for number in numbers) == list(range(len(many)))
    for batch in ([many[number] for number in numbers] for numbers in found if len(numbers) > 1):
        assert len({version.bucket for version in batch}) == 1
        body = as_xml(batch)
        named = [(one.findtext("{*}Key"), one.findtext("{*}VersionId")) for one in ET.fromstring(body)]  # noqa: S314 - ours
        assert named == list(dict.fromkeys(names(batch)))
        answer = body.replace(b"Object>", b"Deleted>")
        assert outcomes_in(answer, batch) == [True] * len(batch)


@given(st.binary(max_size=60) | st.text(st.sampled_from('<>/?! ="&;Deleted:xmlKey'), max_size=60).map(str.encode))
@example(b'<?xml version="1.0" encoding="unheard"?><DeleteResult/>')
@example(b"<DeleteResult><?pi?><!-- --><Deleted/></DeleteResult>")
def test_an_answer_without_the_name_frees_nothing(body: bytes) -> None:
    version = ObjectVersion(bucket="mnist", key="7.png", version_id="1", etag="abc", last_modified="")
    try:
        (outcome,) = outcomes_in(body, [version])
    except (ET.ParseError, ValueError, LookupError):
        return
    assert isinstance(outcome, StoreUnavailable)
