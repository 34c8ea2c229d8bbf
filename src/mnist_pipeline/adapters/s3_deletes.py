"""A multi-object delete (S3: DeleteObjects): which versions go together, its body and its answer; pure.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

from mnist_pipeline.adapters.s3_errors import DELETE_ANSWERS, REMOVED, place, refusal
from mnist_pipeline.adapters.s3_names import check_names
from mnist_pipeline.pipeline.errors import PipelineError, StoreUnavailable
from mnist_pipeline.pipeline.ports import ObjectVersion

_KEYS_A_REQUEST = 1000


def batches(versions: Sequence[ObjectVersion]) -> Iterator[list[int]]:
    """The numbers of those that can go in one request; what must go alone is a batch of its own."""
    by_bucket: dict[str, list[int]] = {}
    for number, version in enumerate(versions):
        if _can_go_with_others(version):
            by_bucket.setdefault(version.bucket, []).append(number)
        else:
            yield [number]
    for numbers in by_bucket.values():
        for first in range(0, len(numbers), _KEYS_A_REQUEST):
            yield numbers[first : first + _KEYS_A_REQUEST]


def _can_go_with_others(version: ObjectVersion) -> bool:
    """Whether the version's name is exact, and the same in the answer as in the request."""
    try:
        check_names(version.bucket, version.key)
    except PipelineError:
        return False
    # XML can carry no control characters, and has its own mind about ends of lines. MinIO drops slashes at the front.
    return version.version_id not in (None, "null") and version.key.isprintable() and not version.key.startswith("/")


def as_xml(versions: Sequence[ObjectVersion]) -> bytes:
    """The body of the request; each version is named once, because MinIO's answer leaves out the second.

    A thousand of them hold the event loop for half a millisecond, and for nine where ElementTree makes them.
    """
    objects = dict.fromkeys(
        f"<Object><Key>{escape(version.key)}</Key><VersionId>{escape(version.version_id or '')}</VersionId></Object>"
        for version in versions
    )
    return f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{"".join(objects)}</Delete>'.encode()


def outcomes_in(body: bytes, versions: Sequence[ObjectVersion]) -> list[bool | PipelineError]:
    """What an answer says of each of the versions that were to be deleted.

    Raises:
        ParseError, ValueError, LookupError: the answer cannot be read as XML.
    """
    codes: dict[tuple[str | None, str | None], str | None] = {}
    for element in ET.fromstring(body):  # noqa: S314 - as minio-py does
        kind, texts = _local(element), {_local(child): child.text for child in element}
        name = texts.get("Key"), texts.get("VersionId")
        if kind == "Error":
            codes[name] = texts.get("Code") or ""
        elif kind == "Deleted":
            codes.setdefault(name, None)
    return [_outcome(version, codes) for version in versions]


def _local(element: ET.Element) -> str:
    """The element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def _outcome(version: ObjectVersion, codes: Mapping[tuple[str | None, str | None], str | None]) -> bool | PipelineError:
    name = version.key, version.version_id
    if name not in codes:
        return StoreUnavailable(f"DELETE {place(version.bucket, version.key)}: the store's answer does not name it")
    code = codes[name]
    if code is None or code in REMOVED:
        return True
    return refusal(code, "DELETE", version.bucket, version.key, DELETE_ANSWERS)
