"""Uploading, asking and waiting: what the end-to-end tests of the stories do."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.local.stack import SOURCE_BUCKET, Stack

_DIGITS = files("mnist_pipeline.local").joinpath("digits")
IMAGES = {one.name: one.read_bytes() for one in _DIGITS.iterdir() if one.name.endswith(".png")}
"""The packaged digits: PNG by file name, which begins with the digit."""
EXAMPLE: dict[str, Any] = json.loads(_DIGITS.joinpath("image-with-trace-id.json").read_text())
"""The second example's request."""


@dataclass(frozen=True)
class Answer:
    """A response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def post(url: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """POST exactly these headers, and none that a client library would add but Host and Content-Length."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.putrequest("POST", parts.path, skip_accept_encoding=True)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            connection.putheader(name, value)
        connection.endheaders(data)
        response = connection.getresponse()
        answered = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, answered, response.read())
    finally:
        connection.close()


def upload(stack: Stack, objects: Mapping[str, bytes], *, metadata: Mapping[str, str] | None = None) -> None:
    """Put the objects into the source bucket, 32 at a time."""
    client = stack.minio()

    def put(item: tuple[str, bytes]) -> None:
        client.put_object(
            bucket_name=SOURCE_BUCKET,
            object_name=item[0],
            data=io.BytesIO(item[1]),
            length=len(item[1]),
            content_type="image/png",
            metadata=dict(metadata or {}),
        )

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(put, objects.items()))


def keys(stack: Stack, bucket: str, prefix: str = "") -> list[str]:
    listed = stack.minio().list_objects(bucket_name=bucket, prefix=prefix, recursive=True)
    return sorted(str(one.object_name) for one in listed)


def wait_until(
    condition: Callable[[], bool],
    otherwise: str = "it did not happen in time",
    *,
    seconds: float = 20.0,
    every: float = 0.01,
) -> None:
    """Wait until the condition holds; fail with what is so `otherwise`."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, otherwise
        time.sleep(every)


def wait_until_empty(stack: Stack, prefix: str, *, seconds: float = 60) -> None:
    """Wait until no object of this prefix is left in the source bucket."""
    give_up = time.monotonic() + seconds
    while left := keys(stack, SOURCE_BUCKET, prefix):
        assert time.monotonic() < give_up, f"{len(left)} objects are left: {left[:5]}"
        time.sleep(0.1)


def results_with(stack: Stack, **expected: str) -> list[tuple[Record, dict[str, Any]]]:
    """The results whose event has these attributes; `_` stands for `-` in a name."""
    found = []
    for record in stack.results():
        event = json.loads(record.value or b"{}")
        if all(event.get(name.replace("_", "-")) == value for name, value in expected.items()):
            found.append((record, event))
    return found
