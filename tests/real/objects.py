"""A thousand digits for a site, and whether each of them is filed once."""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from e2e.following import IMAGES
from mnist_pipeline.adapters.records import Record
from real.site import DIGIT_BUCKETS, REJECTED_BUCKET, SOURCE_BUCKET, Site

# What notifications escape, or must not lose: MinIO writes a key there as a query's value.
FOLDERS = ("", "with space/", "1+1=2/", "100%25 sure & more/", "été/", "日本/", "a/b/c/", "~(it's),;:@$!*/")


def fresh(name: str) -> str:
    """A folder that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:8]}/"


def thousand(prefix: str) -> dict[str, bytes]:
    """The twenty digits, fifty times each, under keys that begin their last part with the digit."""
    images = sorted(IMAGES.items())
    objects = {}
    for number in range(1000):
        name, data = images[number % 20]
        objects[f"{prefix}{FOLDERS[number % len(FOLDERS)]}{name[0]} é+%{number:03}.png"] = data
    return objects


def digit_of(key: str) -> int:
    return int(key.rpartition("/")[2][0])


def upload(site: Site, objects: Mapping[str, bytes]) -> None:
    client = site.minio.client()

    def put(item: tuple[str, bytes]) -> None:
        data = io.BytesIO(item[1])
        client.put_object(
            bucket_name=SOURCE_BUCKET,
            object_name=item[0],
            data=data,
            length=len(item[1]),
            content_type="image/png",
        )

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(put, objects.items()))


def filed(site: Site, prefix: str) -> int:
    return sum(len(site.etags(bucket, prefix)) for bucket in DIGIT_BUCKETS)


def results(site: Site, prefix: str) -> dict[str, list[tuple[Record, dict[str, Any]]]]:
    """The results of the objects under the prefix, by their keys."""
    found: dict[str, list[tuple[Record, dict[str, Any]]]] = {}
    begin = f"{SOURCE_BUCKET}/{prefix}"
    for record in site.records():
        event = json.loads(record.value or b"{}")
        if (subject := event.get("subject", "")).startswith(begin):
            found.setdefault(subject.removeprefix(f"{SOURCE_BUCKET}/"), []).append((record, event))
    return found


def assert_each_is_filed_once(site: Site, prefix: str, objects: Mapping[str, bytes]) -> None:
    """Each lies once, byte for byte, in the bucket of its digit, and its results have one id."""
    etags = {key: hashlib.md5(data, usedforsecurity=False).hexdigest() for key, data in objects.items()}
    for digit, bucket in enumerate(DIGIT_BUCKETS):
        assert site.etags(bucket, prefix) == {key: etag for key, etag in etags.items() if digit_of(key) == digit}
    assert site.etags(REJECTED_BUCKET, prefix) == {}
    of_keys = results(site, prefix)
    assert of_keys.keys() == objects.keys()
    ids = set()
    for key, published in of_keys.items():
        (one_id,) = {event["id"] for _, event in published}
        ids.add(one_id)
        for record, event in published:
            assert event["data"]["predictions"] == [digit_of(key)]
            assert event["data"]["destination"] == f"digit-{digit_of(key)}/{key}"
            assert record.key == event["test-trace-id"].encode()
    assert len(ids) == len(objects)
