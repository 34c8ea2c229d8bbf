"""`MinioObjectStore` against servers that misbehave on purpose, on loopback; for honest ones see tests/contract."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import inspect
import logging
import os
import pickle
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import minio.error
import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mnist_pipeline.adapters.http1 import BrokenConnection
from mnist_pipeline.adapters.http1_pool import Pool
from mnist_pipeline.adapters.http1_response import BadResponse
from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.pipeline.errors import (
    BadKey,
    DeadlineExceeded,
    MetadataTooLarge,
    ObjectGone,
    ObjectRetained,
    ObjectTooLarge,
    PipelineError,
    StoreUnavailable,
)
from mnist_pipeline.pipeline.ports import Deadline, ObjectVersion, StoredObject
from mnist_pipeline.pipeline.settings import Minio

SECRET = "a-secret-that-nobody-may-see"
LIMIT = 1000
VERSION_ID = "73662bd7-fd57-4dac-b44a-30a18fd2ad73"
MODIFIED = "Sun, 22 Nov 2026 04:44:26 GMT"


@dataclass(frozen=True)
class Request:
    """What a client has sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[socket.socket], None]
"""Writes an answer, or does something worse to the connection."""


@dataclass
class Server:
    """An HTTP server that gives the answers it was told, one a request, the last one for ever."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self._open: list[socket.socket] = []

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as stream:
                while line := stream.readline():
                    method, _, target = line.decode("latin-1").rpartition(" ")[0].partition(" ")
                    headers = {}
                    while line := stream.readline().strip():
                        name, _, value = line.decode("latin-1").partition(":")
                        headers[name.lower()] = value.strip()
                    body = stream.read(int(headers.get("content-length", "0")))
                    with self._lock:
                        self.requests.append(Request(method, target, headers, body))
                        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                    answer(connection)

    def close(self) -> None:
        """Close all connections and wait for the threads."""
        # shutdown() wakes accept(), close() alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)


def answer(status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> Answer:
    """A whole answer; `length` is the Content-Length where it shall lie, underscores in names are hyphens."""
    fields = {"content-length": str(len(body) if length is None else length)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = f"HTTP/1.1 {status} .\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return lambda connection: connection.sendall(head.encode() + b"\r\n" + body)


def found(body: bytes = b"seven", *, length: int | None = None, **headers: str) -> Answer:
    """An object."""
    return answer(200, body, length=length, etag='"abc"', last_modified=MODIFIED, **headers)


def refused(status: int, code: str) -> Answer:
    """An S3 error."""
    body = f"<Error><Code>{code}</Code><Message>m</Message><Resource>/r</Resource></Error>".encode()
    return answer(status, body, content_type="application/xml")


def then(*steps: Answer) -> Answer:
    """One after the other, on one connection."""

    def all_of_them(connection: socket.socket) -> None:
        for step in steps:
            step(connection)

    return all_of_them


def reset(connection: socket.socket) -> None:
    """Break the connection (RST)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # A file made of the socket keeps it open beyond close().
    os.close(connection.detach())


def hang_up(connection: socket.socket) -> None:
    """End the connection properly (FIN)."""
    connection.shutdown(socket.SHUT_RDWR)


def silence(connection: socket.socket) -> None:
    """Say nothing until the client goes."""
    connection.recv(1)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def store_at(
    endpoint: str, *, secure: bool = False, ca_cert: str | None = None, connections: int = 4
) -> MinioObjectStore:
    minio = Minio(endpoint=endpoint, secure=secure, access_key="reader", secret_key=SECRET, ca_cert=ca_cert)
    MADE.append(MinioObjectStore(minio, connections=connections))
    return MADE[-1]


MADE: list[MinioObjectStore] = []


@pytest.fixture(autouse=True)
async def closing() -> AsyncIterator[None]:
    """Close the stores of a test on its own event loop."""
    yield
    while MADE:
        await MADE.pop().close()


@pytest.fixture
def store(server: Server) -> MinioObjectStore:
    return store_at(server.endpoint)


async def fetch(
    store: MinioObjectStore, version_id: str | None = None, *, key: str = "7.png", within: float = 20
) -> StoredObject:
    return await store.get("mnist", key, version_id, limit=LIMIT, deadline=Deadline(within))


async def create(store: MinioObjectStore, data: bytes = b"seven", **metadata: str) -> bool:
    return await store.put(
        "digit-7",
        "7.png",
        data,
        content_type="image/png",
        content_headers={},
        metadata=metadata,
        tags={},
        deadline=Deadline(20),
    )


def version(version_id: str | None = VERSION_ID) -> ObjectVersion:
    return ObjectVersion(bucket="mnist", key="a b.png", version_id=version_id, etag="abc", last_modified=MODIFIED)


def sent(server: Server) -> list[str]:
    return [f"{request.method} {request.target}" for request in server.requests]


# What is sent.


async def test_a_get_is_one_request_with_the_version_that_was_asked_for(
    server: Server, store: MinioObjectStore
) -> None:
    server.answers = [found(x_amz_version_id=VERSION_ID, x_amz_meta_Trace_Id="t", content_type="image/jpeg")]
    got = await fetch(store, VERSION_ID)
    assert sent(server) == [f"GET /mnist/7.png?versionId={VERSION_ID}"]
    assert got == StoredObject(
        version=ObjectVersion(
            bucket="mnist",
            key="7.png",
            version_id=VERSION_ID,
            etag="abc",
            last_modified=MODIFIED,
            content_type="image/jpeg",
            metadata={"trace-id": "t"},
        ),
        data=b"seven",
    )


async def test_a_version_that_the_store_calls_invalid_is_asked_for_once_more_without_it(
    server: Server, store: MinioObjectStore
) -> None:
    server.answers = [refused(400, "InvalidArgument"), found()]
    assert (await fetch(store, "1")).data == b"seven"
    assert sent(server) == ["GET /mnist/7.png?versionId=1", "GET /mnist/7.png"]


async def test_tags_are_asked_for_only_where_there_are_some_and_of_the_same_version(
    server: Server, store: MinioObjectStore
) -> None:
    tagging = (
        b'<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><TagSet><Tag><Key>a</Key><Value>b c</Value></Tag>'
        b"<Tag><Key>d</Key><Value></Value></Tag></TagSet></Tagging>"
    )
    server.answers = [found(x_amz_version_id=VERSION_ID, x_amz_tagging_count="2"), answer(200, tagging)]
    assert (await fetch(store)).version.tags == {"a": "b c", "d": ""}
    assert sent(server) == ["GET /mnist/7.png", f"GET /mnist/7.png?tagging=&versionId={VERSION_ID}"]


async def test_a_put_creates_and_never_overwrites(server: Server, store: MinioObjectStore) -> None:
    server.answers = [answer(200), refused(412, "PreconditionFailed")]
    assert await create(store, trace_id="t")
    assert not (await create(store, b"other"))
    headers = server.requests[0].headers
    assert sent(server) == ["PUT /digit-7/7.png"] * 2
    assert server.requests[0].body == b"seven"
    assert (headers["if-none-match"], headers["content-type"], headers["x-amz-meta-trace_id"]) == (
        "*",
        "image/png",
        "t",
    )
    assert "x-amz-tagging" not in headers
    signed = re.search("SignedHeaders=([^,]*)", headers["authorization"])
    assert signed is not None
    assert "if-none-match" in signed[1].split(";")


async def test_nothing_is_accepted_in_another_coding_and_a_proxy_may_change_that(
    server: Server, store: MinioObjectStore
) -> None:
    server.answers = [found()]
    await fetch(store)
    headers = server.requests[0].headers
    assert (headers["accept-encoding"], headers["user-agent"]) == ("identity", "mnist-pipeline")
    signed = re.search("SignedHeaders=([^,]*)", headers["authorization"])
    assert signed is not None
    assert signed[1] == "host;x-amz-content-sha256;x-amz-date"


async def test_a_copy_is_one_request_for_one_version(server: Server, store: MinioObjectStore) -> None:
    server.answers = [answer(200, b"<CopyObjectResult><ETag>&#34;abc&#34;</ETag></CopyObjectResult>")]
    (
        await store.copy(
            version(), "rejected", "a b-12.png", metadata={"reason": "objecttoolarge"}, deadline=Deadline(20)
        )
    )
    (await store.copy(version(None), "rejected", "a b-12.png", metadata={}, deadline=Deadline(20)))
    assert sent(server) == ["PUT /rejected/a%20b-12.png"] * 2
    headers = server.requests[0].headers
    assert headers["x-amz-copy-source"] == f"/mnist/a%20b.png?versionId={VERSION_ID}"
    assert headers["x-amz-copy-source-if-match"] == '"abc"'
    assert headers["x-amz-metadata-directive"] == "REPLACE"
    assert headers["x-amz-meta-reason"] == "objecttoolarge"
    assert server.requests[1].headers["x-amz-copy-source"] == "/mnist/a%20b.png?versionId=null"


async def test_a_version_is_deleted_by_its_id_alone(server: Server, store: MinioObjectStore) -> None:
    server.answers = [answer(204)]
    assert await store.delete(version(), deadline=Deadline(20))
    assert sent(server) == [f"DELETE /mnist/a%20b.png?versionId={VERSION_ID}"]


@pytest.mark.parametrize("version_id", [None, "null"])
async def test_an_object_without_a_version_id_is_compared_before_it_is_deleted(
    server: Server, store: MinioObjectStore, version_id: str | None
) -> None:
    server.answers = [found(b"", length=5), answer(204)]
    assert await store.delete(version(version_id), deadline=Deadline(20))
    assert sent(server) == ["HEAD /mnist/a%20b.png?versionId=null", "DELETE /mnist/a%20b.png?versionId=null"]


@pytest.mark.parametrize(
    ("answered", "done"),
    [
        (answer(200, etag='"other"', last_modified=MODIFIED), False),
        (answer(200, etag='"abc"', last_modified="Sun, 22 Nov 2026 04:44:27 GMT"), False),
        (answer(404), True),
        (answer(405), True),
    ],
)
async def test_another_or_no_object_in_its_place_is_left_alone(
    server: Server, store: MinioObjectStore, answered: Answer, done: bool
) -> None:
    server.answers = [answered]
    assert (await store.delete(version(None), deadline=Deadline(20))) is done
    assert sent(server) == ["HEAD /mnist/a%20b.png?versionId=null"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "InvalidRequest"),
        (403, "AccessDenied"),
        (403, "AllAccessDisabled"),
        (403, "ObjectLockedByBucketPolicy"),
        (405, "MethodNotAllowed"),
        (409, "FileImmutable"),
        (501, "NotImplemented"),
    ],
)
async def test_row_44_a_delete_that_would_be_refused_again_is_told_as_such(
    server: Server, store: MinioObjectStore, status: int, code: str
) -> None:
    server.answers = [refused(status, code)]
    with pytest.raises(ObjectRetained, match=rf"DELETE 'mnist'/'a b\.png': the store answered '{code}'"):
        (await store.delete(version(), deadline=Deadline(20)))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"),
        (400, "ExpiredToken"),
        (403, "RequestTimeTooSkewed"),
        (503, "SlowDown"),
        (500, "InternalError"),
        (409, "OperationAborted"),
        (404, "NoSuchBucket"),
    ],
)
@pytest.mark.parametrize("version_id", [VERSION_ID, None])
async def test_row_44_a_delete_that_may_succeed_later_is_worth_a_retry(
    server: Server, store: MinioObjectStore, status: int, code: str, version_id: str | None
) -> None:
    server.answers = [found(b"", length=5), refused(status, code)] if version_id is None else [refused(status, code)]
    with pytest.raises(StoreUnavailable, match="DELETE"):
        (await store.delete(version(version_id), deadline=Deadline(20)))


@pytest.mark.parametrize(("code", "expected"), [("AccessDenied", ObjectRetained), ("ExpiredToken", StoreUnavailable)])
async def test_row_44_a_head_that_is_refused_without_a_word_is_followed_by_a_get_that_tells_why(
    server: Server, store: MinioObjectStore, code: str, expected: type[PipelineError]
) -> None:
    server.answers = [answer(403), refused(403, code)]
    with pytest.raises(expected, match=code):
        (await store.delete(version(None), deadline=Deadline(20)))
    assert sent(server) == ["HEAD /mnist/a%20b.png?versionId=null", "GET /mnist/a%20b.png?versionId=null"]


# Many deletes.


def versions_of(*keys: str, bucket: str = "mnist", version_id: str | None = VERSION_ID) -> list[ObjectVersion]:
    return [replace(version(version_id), bucket=bucket, key=key) for key in keys]


def result(*elements: str) -> Answer:
    """An answer to a multi-object delete."""
    text = f'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{"".join(elements)}</DeleteResult>'
    return answer(200, text.encode(), content_type="application/xml")


def deleted(*keys: str) -> str:
    return "".join(f"<Deleted><Key>{escape(key)}</Key><VersionId>{VERSION_ID}</VersionId></Deleted>" for key in keys)


def not_deleted(key: str, code: str) -> str:
    return f"<Error><Code>{code}</Code><Key>{escape(key)}</Key><VersionId>{VERSION_ID}</VersionId></Error>"


def named_in(request: Request) -> list[tuple[str | None, str | None]]:
    """The names in the body of a multi-object delete."""
    root = ET.fromstring(request.body)  # noqa: S314 - ours
    return [(one.findtext("{*}Key"), one.findtext("{*}VersionId")) for one in root.iterfind("{*}Object")]


async def test_many_versions_are_deleted_by_one_request_that_names_each_once(
    server: Server, store: MinioObjectStore
) -> None:
    keys = ["a b.png", "&amp;<\"'>]]>.png", "%2F+.png", "ü🙂.png"]
    server.answers = [result(deleted(*keys))]
    assert await store.delete_all(versions_of(*keys, *keys), deadline=Deadline(20)) == [True] * 8
    assert sent(server) == ["POST /mnist?delete="]
    assert named_in(server.requests[0]) == [(key, VERSION_ID) for key in keys]
    digest = hashlib.md5(server.requests[0].body).digest()  # noqa: S324 - S3's
    assert server.requests[0].headers["content-md5"] == base64.b64encode(digest).decode()


async def test_a_thousand_versions_of_one_bucket_go_in_a_request_at_most(
    server: Server, store: MinioObjectStore
) -> None:
    keys = [f"{number}.png" for number in range(2002)]
    server.answers = [result(deleted(*keys, "7.png"))]
    many = versions_of(*keys) + versions_of("7.png", "8.png", bucket="other")
    assert await store.delete_all(many, deadline=Deadline(20)) == [True] * 2004
    assert sorted((request.target, len(named_in(request))) for request in server.requests) == [
        ("/mnist?delete=", 2),
        ("/mnist?delete=", 1000),
        ("/mnist?delete=", 1000),
        ("/other?delete=", 2),
    ]


async def test_one_version_is_deleted_without_a_body(server: Server, store: MinioObjectStore) -> None:
    server.answers = [answer(204)]
    assert await store.delete_all([version()], deadline=Deadline(20)) == [True]
    assert sent(server) == [f"DELETE /mnist/a%20b.png?versionId={VERSION_ID}"]


@pytest.mark.parametrize("key", ["a\rb.png", "a\nb.png", "a\tb.png", "\x01.png", "\ufffe.png", "/a.png"])
async def test_a_key_that_may_not_come_through_in_xml_is_deleted_alone(
    server: Server, store: MinioObjectStore, key: str
) -> None:
    server.answers = [result(deleted("7.png", "8.png"))]
    assert await store.delete_all(versions_of("7.png", key, "8.png"), deadline=Deadline(20)) == [True] * 3
    (together,) = [request for request in server.requests if request.method == "POST"]
    assert named_in(together) == [("7.png", VERSION_ID), ("8.png", VERSION_ID)]
    (alone,) = [request for request in server.requests if request.method == "DELETE"]
    assert alone.target == f"/mnist/{urllib.parse.quote(key)}?versionId={VERSION_ID}"


@pytest.mark.parametrize("version_id", [None, "null"])
async def test_objects_without_version_ids_are_compared_one_by_one_a_few_at_a_time(
    server: Server, version_id: str | None
) -> None:
    store = store_at(server.endpoint, connections=16)
    server.answers = [then(lambda _: time.sleep(0.01), found(b""))]
    keys = [f"{number}.png" for number in range(40)]
    assert await store.delete_all(versions_of(*keys, version_id=version_id), deadline=Deadline(20)) == [True] * 40
    for key in keys:
        one = [line for line in sent(server) if f"/mnist/{key}?" in line]
        assert one == [f"HEAD /mnist/{key}?versionId=null", f"DELETE /mnist/{key}?versionId=null"]
    assert server.connections <= 8


async def test_what_cannot_be_asked_for_fails_alone(server: Server, store: MinioObjectStore) -> None:
    server.answers = [result(deleted("7.png", "8.png"))]
    many = [
        *versions_of("7.png", "a/../b.png", "x" * 1025, "8.png"),
        *versions_of("7.png", "8.png", bucket="No bucket's name"),
    ]
    outcomes = await store.delete_all(many, deadline=Deadline(20))
    assert [type(outcome) for outcome in outcomes] == [bool, BadKey, BadKey, bool, StoreUnavailable, StoreUnavailable]
    assert sent(server) == ["POST /mnist?delete="]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("AccessDenied", ObjectRetained),
        ("InvalidRequest", ObjectRetained),
        ("NotImplemented", ObjectRetained),
        ("NoSuchKey", bool),
        ("NoSuchVersion", bool),
        ("InternalError", StoreUnavailable),
        ("SlowDown", StoreUnavailable),
        ("ExpiredToken", StoreUnavailable),
        ("Deleted", StoreUnavailable),
        ("", StoreUnavailable),
    ],
)
async def test_row_44_what_is_refused_among_many_is_told_as_of_one(
    server: Server, store: MinioObjectStore, code: str, expected: type
) -> None:
    server.answers = [result(deleted("a.png"), not_deleted("b.png", code), deleted("c.png"))]
    outcomes = await store.delete_all(versions_of("a.png", "b.png", "c.png"), deadline=Deadline(20))
    assert [type(outcome) for outcome in outcomes] == [bool, expected, bool]
    assert outcomes[1] is True or f"DELETE 'mnist'/'b.png': the store answered '{code}'" in str(outcomes[1])


async def test_what_is_both_deleted_and_refused_is_refused(server: Server, store: MinioObjectStore) -> None:
    both = [deleted("a.png"), not_deleted("a.png", "AccessDenied")]
    for elements in (both, both[::-1]):
        server.answers = [result(*elements, deleted("b.png"))]
        outcomes = await store.delete_all(versions_of("a.png", "b.png"), deadline=Deadline(20))
        assert [type(outcome) for outcome in outcomes] == [ObjectRetained, bool]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "<Deleted/>",
        deleted("other.png"),
        "<Deleted><Key>a.png</Key></Deleted>",
        "<Deleted><Key>a.png</Key><VersionId>another</VersionId></Deleted>",
        f"<Unheard><Key>a.png</Key><VersionId>{VERSION_ID}</VersionId></Unheard>",
    ],
)
async def test_a_version_that_the_answer_does_not_name_may_still_be_there(
    server: Server, store: MinioObjectStore, said: str
) -> None:
    server.answers = [result(said, deleted("b.png"))]
    outcomes = await store.delete_all(versions_of("a.png", "b.png"), deadline=Deadline(20))
    assert outcomes[1] is True
    assert isinstance(outcomes[0], StoreUnavailable)
    assert "a.png" in str(outcomes[0])


@pytest.mark.parametrize(
    "answered",
    [
        answer(200),
        answer(204),
        answer(200, b"<html>welcome"),
        answer(200, b'<?xml version="1.0" encoding="unheard"?><DeleteResult/>'),
        answer(200, deleted("a.png")[:-3].encode()),
        answer(200, b"<Error><Code>SlowDown</Code></Error>"),
        result(),
        result(not_deleted("a.png", "SlowDown"), not_deleted("b.png", "InternalError")),
        refused(403, "InvalidAccessKeyId"),
        refused(404, "NoSuchBucket"),
        refused(503, "SlowDown"),
        answer(307, location="/other?delete="),
        reset,
        hang_up,
        silence,
    ],
)
async def test_many_deletes_of_which_nothing_is_known_are_worth_a_retry_and_sent_once(
    server: Server, store: MinioObjectStore, answered: Answer
) -> None:
    server.answers = [answered, result(deleted("a.png", "b.png"))]
    with pytest.raises(StoreUnavailable, match="DELETE 'mnist'"):
        await store.delete_all(versions_of("a.png", "b.png"), deadline=Deadline(0.5 if answered is silence else 20))
    assert sent(server) == ["POST /mnist?delete="]


@pytest.mark.parametrize("broken", [reset, hang_up, silence, refused(503, "SlowDown")])
async def test_what_one_request_has_deleted_is_told_where_another_one_fails(
    server: Server, store: MinioObjectStore, broken: Answer
) -> None:
    server.answers = [broken, result(deleted("a.png", "b.png"))]
    many = [*versions_of("a.png", "b.png"), *versions_of("a.png", "b.png", bucket="other")]
    outcomes = await store.delete_all(many, deadline=Deadline(2 if broken is silence else 20))
    # Either of the two may be the first to arrive.
    ends = [[bool, bool, StoreUnavailable, StoreUnavailable], [StoreUnavailable, StoreUnavailable, bool, bool]]
    assert [type(outcome) for outcome in outcomes] in ends
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (403, "AccessDenied"), (405, "MethodNotAllowed")]
)
async def test_row_44_a_store_that_refuses_to_delete_many_is_asked_to_delete_each(
    server: Server, store: MinioObjectStore, status: int, code: str
) -> None:
    server.answers = [refused(status, code), answer(204), refused(403, "AccessDenied"), refused(503, "SlowDown")]
    outcomes = await store.delete_all(versions_of("a.png", "b.png", "c.png"), deadline=Deadline(20))
    assert [type(outcome) for outcome in outcomes] == [bool, ObjectRetained, StoreUnavailable]
    assert sent(server) == [
        "POST /mnist?delete=",
        *(f"DELETE /mnist/{key}.png?versionId={VERSION_ID}" for key in "abc"),
    ]


async def test_tags_are_replaced_by_one_request(server: Server, store: MinioObjectStore) -> None:
    server.answers = [answer(200), refused(404, "NoSuchKey")]
    (await store.set_tags("digit-7", "7.png", {"a": "<b> & ü", "c": ""}, deadline=Deadline(20)))
    assert sent(server) == ["PUT /digit-7/7.png?tagging="]
    body = server.requests[0].body
    tags = [(tag.findtext("Key"), tag.findtext("Value")) for tag in ET.fromstring(body).iter("Tag")]  # noqa: S314 - ours
    assert tags == [("a", "<b> & ü"), ("c", "")]
    assert server.requests[0].headers["content-md5"] == base64.b64encode(hashlib.md5(body).digest()).decode()  # noqa: S324 - S3's
    with pytest.raises(ObjectGone):
        (await store.set_tags("digit-7", "7.png", {}, deadline=Deadline(20)))


async def test_the_window_of_unversioned_buckets_is_told_once(
    server: Server, store: MinioObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [answer(404)]
    for _ in range(3):
        (await store.delete(version(None), deadline=Deadline(20)))
    assert [record.levelno for record in caplog.records if record.name == "mnist_pipeline.adapters.object_store"] == [
        logging.WARNING
    ]


async def test_a_version_that_is_gone_counts_as_deleted(server: Server, store: MinioObjectStore) -> None:
    server.answers = [refused(404, "NoSuchVersion")]
    assert await store.delete(version(), deadline=Deadline(20))


async def test_a_check_lists_one_key_and_takes_a_missing_bucket_for_an_answer(
    server: Server, store: MinioObjectStore
) -> None:
    server.answers = [answer(200, b"<ListBucketResult/>"), refused(404, "NoSuchBucket")]
    (await store.check("mnist", deadline=Deadline(20)))
    (await store.check("none", deadline=Deadline(20)))
    assert sent(server)[0] == "GET /mnist?delimiter=&list-type=2&max-keys=1&prefix="


async def test_a_listing_is_gone_on_with_by_the_store_s_token_where_a_page_ended_and_else_by_the_key(
    server: Server, store: MinioObjectStore
) -> None:
    page = (
        b"<ListBucketResult><NextContinuationToken>a token+/</NextContinuationToken><Contents><Key>a%2B.png</Key>"
        b"<LastModified>2026-11-22T04:43:56.615Z</LastModified><ETag>&quot;abc&quot;</ETag><Size>5</Size></Contents>"
        b"</ListBucketResult>"
    )
    server.answers = [answer(200, page, date="Sun, 22 Nov 2026 04:44:06 GMT")]
    for after in ("", "a+.png", "b.png", "a+.png", "a+.png"):
        (one,) = await store.list_after("mnist", after, deadline=Deadline(20))
    assert (one.key, one.size, one.etag, one.age_seconds) == ("a+.png", 5, "abc", 9.385)
    assert one.modified == datetime(2026, 11, 22, 4, 43, 56, 615000, tzinfo=timezone.utc)
    targets = [parse_qs(urlsplit(target).query, keep_blank_values=True) for target in sent(server)]
    begun = [(query.get("start-after"), query.get("continuation-token")) for query in targets]
    assert begun == [
        ([""], None),
        (None, ["a token+/"]),
        (["b.png"], None),
        (None, ["a token+/"]),
        (None, ["a token+/"]),
    ]


async def test_of_listings_that_nobody_goes_on_with_only_a_few_are_remembered(
    server: Server, store: MinioObjectStore
) -> None:
    def page_of(number: int) -> Answer:
        page = f"""<ListBucketResult><NextContinuationToken>token</NextContinuationToken><Contents><Key>{number}</Key>
            <LastModified>2026-11-22T04:43:56.615Z</LastModified></Contents></ListBucketResult>"""
        return answer(200, page.encode(), date="Sun, 22 Nov 2026 04:44:06 GMT")

    server.answers = [page_of(number) for number in range(150)]
    for _ in range(150):
        await store.list_after("mnist", "", deadline=Deadline(20))
    for number, name in (("49", "start-after"), ("50", "continuation-token")):
        await store.list_after("mnist", number, deadline=Deadline(20))
        assert name in sent(server)[-1]


# What the store's refusals mean.


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchKey", ObjectGone),
        (404, "NoSuchVersion", ObjectGone),
        (405, "MethodNotAllowed", ObjectGone),
        (400, "XMinioInvalidObjectName", BadKey),
        (400, "KeyTooLongError", BadKey),
        (400, "InvalidArgument", BadKey),
        (404, "NoSuchBucket", StoreUnavailable),
        (400, "InvalidBucketName", StoreUnavailable),
        (400, "ExpiredToken", StoreUnavailable),
        (403, "AccessDenied", StoreUnavailable),
        (500, "InternalError", StoreUnavailable),
        (501, "NotImplemented", StoreUnavailable),
        (503, "SlowDown", StoreUnavailable),
        (503, "XMinioServerNotInitialized", StoreUnavailable),
    ],
)
async def test_a_refused_get(
    server: Server, store: MinioObjectStore, status: int, code: str, expected: type[PipelineError]
) -> None:
    server.answers = [refused(status, code)]
    with pytest.raises(expected, match="'mnist'") as caught:
        (await fetch(store))
    assert type(caught.value) is expected
    assert isinstance(caught.value.__cause__, minio.error.S3Error)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "XMinioInvalidObjectName", BadKey),
        (400, "KeyTooLongError", BadKey),
        (400, "InvalidArgument", StoreUnavailable),
        (400, "MetadataTooLarge", MetadataTooLarge),
        (400, "RequestHeaderSectionTooLarge", MetadataTooLarge),
        (404, "NoSuchBucket", StoreUnavailable),
        (409, "ConditionalRequestConflict", StoreUnavailable),
        (501, "NotImplemented", StoreUnavailable),
        (507, "XMinioStorageFull", StoreUnavailable),
    ],
)
async def test_a_refused_put(
    server: Server, store: MinioObjectStore, status: int, code: str, expected: type[PipelineError]
) -> None:
    server.answers = [refused(status, code)]
    with pytest.raises(expected, match="'digit-7'") as caught:
        (await create(store))
    assert type(caught.value) is expected
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        (refused(412, "PreconditionFailed"), ObjectGone),
        (refused(404, "NoSuchKey"), ObjectGone),
        (refused(404, "NoSuchVersion"), ObjectGone),
        (refused(400, "EntityTooLarge"), ObjectTooLarge),
        (refused(400, "InvalidRequest"), ObjectTooLarge),
        (refused(400, "KeyTooLongError"), ObjectTooLarge),
        (refused(400, "MetadataTooLarge"), MetadataTooLarge),
        (refused(404, "NoSuchBucket"), StoreUnavailable),
        (refused(403, "AccessDenied"), StoreUnavailable),
        (answer(200, b"<Error><Code>InternalError</Code></Error>"), StoreUnavailable),
        (answer(200, b"<Error><Code>SlowDown</Code>"), StoreUnavailable),
        (answer(200), StoreUnavailable),
    ],
)
async def test_a_refused_copy(
    server: Server, store: MinioObjectStore, answered: Answer, expected: type[PipelineError]
) -> None:
    server.answers = [answered]
    with pytest.raises(expected) as caught:
        (await store.copy(version(), "rejected", "7.png", metadata={}, deadline=Deadline(20)))
    assert type(caught.value) is expected
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("AccessDenied", "MINIO_ACCESS_KEY.*MINIO_SECRET_KEY"),
        ("InvalidAccessKeyId", "MINIO_ACCESS_KEY"),
        ("SignatureDoesNotMatch", "MINIO_SECRET_KEY"),
    ],
)
async def test_refused_credentials_are_told_by_the_variables_names_and_without_the_secret(
    server: Server, store: MinioObjectStore, code: str, names: str
) -> None:
    server.answers = [refused(403, code)]
    with pytest.raises(StoreUnavailable, match=f"{code}.*{names}") as caught:
        (await store.check("mnist", deadline=Deadline(20)))
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize("key", ["", "a/../b", "./a", "\ud800.png"])
async def test_a_key_that_cannot_be_sent_is_bad_and_not_sent(server: Server, store: MinioObjectStore, key: str) -> None:
    with pytest.raises(BadKey):
        (await fetch(store, key=key))
    assert server.requests == []


async def test_a_key_cannot_forge_a_line_of_the_log(server: Server, store: MinioObjectStore) -> None:
    server.answers = [refused(503, "SlowDown")]
    with pytest.raises(StoreUnavailable) as caught:
        (await fetch(store, key="a\nERROR forged" + "x" * 900))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


# What the store breaks.


@pytest.mark.parametrize(
    "answered",
    [
        answer(503, b"<html>busy</html>", content_type="text/html", retry_after="30"),
        answer(502, b"\xff\xfe\x00", content_type="text/html"),
        answer(500, b"\xff\xfe\x00", content_type="application/xml"),
        answer(500, b"<Error><Code>", content_type="application/xml"),
        answer(503),
        answer(307, location="http://127.0.0.1:1/mnist/7.png"),
        answer(200, b"seven", last_modified=MODIFIED),
        lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n"),
        lambda connection: connection.sendall(b"HTTP/1.1 200 .\r\nx: " + b"y" * 70_000 + b"\r\n\r\n"),
    ],
    ids=["html", "binary", "binary xml", "cut xml", "empty", "redirect", "no etag", "ssh", "long"],
)
async def test_row_21_an_answer_that_makes_no_sense_is_worth_a_retry_and_comes_at_once(
    server: Server, store: MinioObjectStore, answered: Answer
) -> None:
    server.answers = [then(answered, hang_up)]
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"'mnist'/'7.png'|without an ETag"):
        (await fetch(store))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("call", ["get", "put", "copy", "delete", "delete_all", "set_tags", "check"])
async def test_row_21_a_store_that_never_answers_is_given_up_within_the_deadline(
    server: Server, store: MinioObjectStore, call: str
) -> None:
    server.answers = [silence]
    calls: dict[str, Callable[[Deadline], Awaitable[object]]] = {
        "get": lambda deadline: store.get("mnist", "7.png", None, limit=LIMIT, deadline=deadline),
        "put": lambda deadline: store.put(
            "mnist", "7.png", b"", content_type="image/png", content_headers={}, metadata={}, tags={}, deadline=deadline
        ),
        "copy": lambda deadline: store.copy(version(), "mnist", "7.png", metadata={}, deadline=deadline),
        "delete": lambda deadline: store.delete(version(), deadline=deadline),
        "delete_all": lambda deadline: store.delete_all(versions_of("7.png", "8.png"), deadline=deadline),
        "set_tags": lambda deadline: store.set_tags("mnist", "7.png", {}, deadline=deadline),
        "check": lambda deadline: store.check("mnist", deadline=deadline),
    }
    started = time.monotonic()
    with pytest.raises((StoreUnavailable, DeadlineExceeded)):
        await calls[call](Deadline(0.6))
    # By itself it waits 10 s for an answer.
    assert time.monotonic() - started < 8


async def test_a_host_that_swallows_connections_is_given_up_within_the_deadline() -> None:
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # A full backlog drops further SYNs, as a black hole does.
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(listener.getsockname())
        await asyncio.sleep(0.1)
        store = store_at(f"127.0.0.1:{listener.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="MINIO_ENDPOINT"):
            (await fetch(store, within=0.8))
        assert 0.3 < time.monotonic() - started < 4


@pytest.mark.usefixtures("nameless")
@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "no-such-host.invalid:9000", "127.0.0.1:99999", "h/path"])
async def test_an_unreachable_or_impossible_endpoint_is_told_by_the_variables_name(endpoint: str) -> None:
    with pytest.raises(StoreUnavailable, match="MINIO_ENDPOINT") as caught:
        (await fetch(store_at(endpoint)))
    assert SECRET not in str(caught.value)


async def test_a_region_that_minio_py_does_not_take_is_told_by_the_variables_name() -> None:
    minio = Minio(endpoint="127.0.0.1:1", secure=False, access_key="reader", secret_key=SECRET, region="-us-")
    with pytest.raises(StoreUnavailable, match=r"MINIO_REGION.*-us-"):
        await fetch(MinioObjectStore(minio))


async def test_an_endless_answer_that_is_no_object_is_not_read_to_its_end(
    server: Server, store: MinioObjectStore
) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 .\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    server.answers = [endless]
    with pytest.raises(StoreUnavailable, match="makes no sense"):
        await store.list_after("mnist", "", deadline=Deadline(20))


async def test_a_body_that_breaks_off_is_worth_a_retry_and_the_next_get_works(
    server: Server, store: MinioObjectStore
) -> None:
    server.answers = [then(found(b"sev", length=5), reset), then(found(b"sev", length=5), hang_up), found()]
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            (await fetch(store))
    assert (await fetch(store)).data == b"seven"
    assert server.connections == 3


async def test_a_body_that_trickles_in_is_given_up_at_the_deadline(server: Server, store: MinioObjectStore) -> None:
    def trickle(connection: socket.socket) -> None:
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.05)

    server.answers = [then(found(b"", length=100), trickle)]
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        (await fetch(store, within=0.5))
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("length", [LIMIT + 1, 10**15])
async def test_an_object_over_the_limit_is_not_read_and_its_connection_not_kept(
    server: Server, store: MinioObjectStore, length: int
) -> None:
    server.answers = [then(found(b"x" * 10, length=length), silence), found()]
    started = time.monotonic()
    assert (await fetch(store)).data is None
    assert (await fetch(store)).data == b"seven"
    assert time.monotonic() - started < 2
    assert server.connections == 2


async def test_an_endless_body_without_a_length_is_read_up_to_the_limit(
    server: Server, store: MinioObjectStore
) -> None:
    written = 0

    def endless(connection: socket.socket) -> None:
        nonlocal written
        connection.sendall(b'HTTP/1.1 200 .\r\netag: "abc"\r\ntransfer-encoding: chunked\r\n\r\n')
        while written < 100_000_000:
            written += connection.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    server.answers = [endless]
    assert (await fetch(store)).data is None
    server.close()
    assert written < 20_000_000


async def test_a_compressed_object_is_fetched_as_it_is_stored(server: Server, store: MinioObjectStore) -> None:
    server.answers = [found(b"\x1f\x8bno gzip", content_encoding="gzip")]
    assert (await fetch(store)).data == b"\x1f\x8bno gzip"


async def test_a_get_is_sent_again_when_its_connection_breaks(server: Server, store: MinioObjectStore) -> None:
    server.answers = [reset, found()]
    assert (await fetch(store)).data == b"seven"
    assert len(server.requests) == 2


@pytest.mark.parametrize("broken", [reset, hang_up, silence])
async def test_a_delete_is_sent_once_even_when_its_connection_breaks(
    server: Server, store: MinioObjectStore, broken: Answer
) -> None:
    server.answers = [broken, answer(204)]
    with pytest.raises(StoreUnavailable):
        (await store.delete(version(), deadline=Deadline(0.5)))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_delete_is_not_redirected(server: Server, store: MinioObjectStore, status: int) -> None:
    server.answers = [answer(status, location="/mnist/other.png"), answer(204)]
    with pytest.raises(StoreUnavailable):
        (await store.delete(version(), deadline=Deadline(20)))
    assert len(server.requests) == 1


async def test_a_large_body_may_take_longer_to_send_than_a_connection_to_open(
    server: Server, store: MinioObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_requests = Server._serve  # noqa: SLF001 - our own

    def slowly(self: Server, connection: socket.socket) -> None:
        time.sleep(3.4)
        read_requests(self, connection)

    monkeypatch.setattr(Server, "_serve", slowly)
    server.answers = [answer(200)]
    assert await create(store, b"x" * 20_000_000)


async def test_a_busy_store_that_names_a_time_to_wait_is_not_waited_for_and_its_code_is_told(
    server: Server, store: MinioObjectStore
) -> None:
    body = b"<Error><Code>SlowDown</Code></Error>"
    server.answers = [answer(503, body, content_type="application/xml", retry_after="30")]
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="SlowDown"):
        (await fetch(store))
    assert time.monotonic() - started < 2
    assert len(server.requests) == 1


# Metadata.


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("plain", "plain"),
        ("grün 日本", "grün 日本"),
        ("=?UTF-8?B?Z3LDvG4=?=", "grün"),
        ("=?utf-8?q?gr=C3=BCn?= =?utf-8?q?_und_rot?=", "grün und rot"),
        ("=?no-such-charset?B?eA==?=", "=?no-such-charset?B?eA==?="),
        ("=?UTF-8?B?/w==?=", "=?UTF-8?B?/w==?="),
        ("=?UTF-8?B?x?=", "=?UTF-8?B?x?="),
        ("=?gr\u00fcn?B?eA==?=", "=?gr\u00fcn?B?eA==?="),
        ("=?utf-7?Q?+2AA-?=", "=?utf-7?Q?+2AA-?="),  # a lone surrogate, which could not be sent again
    ],
)
async def test_metadata_is_read_as_raw_utf_8_and_as_encoded_words(
    server: Server, store: MinioObjectStore, header: str, value: str
) -> None:
    server.answers = [found(x_amz_meta_note=header)]
    assert (await fetch(store)).version.metadata == {"note": value}


async def test_metadata_in_another_charset_does_not_stop_a_get(server: Server, store: MinioObjectStore) -> None:
    server.answers = [
        lambda connection: connection.sendall(
            b'HTTP/1.1 200 .\r\ncontent-length: 0\r\netag: "abc"\r\nx-amz-meta-note: gr\xfcn\r\n\r\n'
        )
    ]
    assert (await fetch(store)).version.metadata == {"note": "grün"}


@pytest.mark.parametrize("content_type", ["image/png; name=grün", "x" * 1025])
async def test_a_content_type_that_could_not_be_signed_or_sent_is_replaced(
    server: Server, store: MinioObjectStore, content_type: str
) -> None:
    server.answers = [found(content_type=content_type)]
    assert (await fetch(store)).version.content_type == "application/octet-stream"


async def test_row_48_content_headers_are_fetched_but_for_what_could_not_be_sent_again(
    server: Server, store: MinioObjectStore
) -> None:
    server.answers = [
        found(
            cache_control="no-cache",
            content_disposition="attachment; filename=grün.png",
            content_encoding="aws-chunked, gzip",
            content_language="x" * 1025,
            expires="0",
        ),
        found(content_encoding="aws-chunked"),
    ]
    expected = {"cache-control": "no-cache", "content-encoding": "gzip", "expires": "0"}
    assert (await fetch(store)).version.content_headers == expected
    assert (await fetch(store)).version.content_headers == {}


async def test_a_content_type_of_1024_characters_is_kept(server: Server, store: MinioObjectStore) -> None:
    server.answers = [found(content_type="x" * 1024)]
    assert (await fetch(store)).version.content_type == "x" * 1024


async def test_as_many_and_as_long_headers_as_a_store_may_have_kept_are_read(
    server: Server, store: MinioObjectStore
) -> None:
    metadata = {f"m{number}": "x" for number in range(150)}
    headers = {f"x_amz_meta_{name}": value for name, value in metadata.items()}
    server.answers = [found(b"", length=0, content_disposition="x" * 20_000, **headers)]
    assert (await fetch(store)).version.metadata == metadata


# Connections, pickling, certificates.


async def test_one_connection_serves_many_requests_in_turn(server: Server, store: MinioObjectStore) -> None:
    server.answers = [found()]
    for _ in range(20):
        (await fetch(store))
    assert (len(server.requests), server.connections) == (20, 1)


async def test_refusals_give_their_connection_back(server: Server) -> None:
    store = store_at(server.endpoint, connections=1)
    server.answers = [refused(404, "NoSuchKey"), answer(502, b"x"), refused(404, "NoSuchKey")]
    for expected in (ObjectGone, StoreUnavailable, ObjectGone):
        with pytest.raises(expected):
            (await fetch(store, within=2))
    (await store.close())


async def test_objects_over_the_limit_give_their_connection_back(server: Server) -> None:
    store = store_at(server.endpoint, connections=1)
    server.answers = [then(found(b"x" * 10, length=LIMIT + 1), silence)]
    for _ in range(3):
        assert (await fetch(store, within=2)).data is None
    (await store.close())


async def test_no_more_connections_are_open_than_allowed(server: Server) -> None:
    store = store_at(server.endpoint, connections=2)
    server.answers = [then(lambda _: time.sleep(0.02), found())]
    together = await asyncio.gather(*[fetch(store) for _ in range(24)])
    assert [got.data for got in together] == [b"seven"] * 24
    assert server.connections == 2
    (await store.close())


async def test_a_store_is_pickled_without_its_connections_before_and_after_its_first_use(
    server: Server, store: MinioObjectStore
) -> None:
    server.answers = [found()]
    for _ in range(2):
        twin = pickle.loads(pickle.dumps(store))
        assert (await fetch(twin)).data == b"seven"
        (await twin.close())
        assert (await fetch(store)).data == b"seven"
    assert server.connections == 3


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    running = Server(tls=context)
    running.answers = [found()]
    yield running
    running.close()


async def test_a_certificate_of_the_given_authority_is_trusted(tls_server: Server, certificate: Path) -> None:
    store = store_at(tls_server.endpoint.replace("127.0.0.1", "localhost"), secure=True, ca_cert=str(certificate))
    assert (await fetch(store)).data == b"seven"
    (await store.close())


async def test_a_foreign_certificate_is_told_by_the_variables_name(tls_server: Server) -> None:
    with pytest.raises(StoreUnavailable, match="MINIO_CA_CERT"):
        (await fetch(store_at(tls_server.endpoint, secure=True)))


async def test_a_certificate_for_another_host_is_told_by_the_variables_name(
    tls_server: Server, certificate: Path
) -> None:
    with pytest.raises(StoreUnavailable, match="MINIO_ENDPOINT"):
        (await fetch(store_at(tls_server.endpoint, secure=True, ca_cert=str(certificate))))


async def test_a_file_of_certificates_that_cannot_be_read_is_told_by_the_variables_name(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    for path in (broken, tmp_path / "none.pem"):
        with pytest.raises(StoreUnavailable, match=f"MINIO_CA_CERT.*{path.name}"):
            (await fetch(store_at("127.0.0.1:1", secure=True, ca_cert=str(path))))


async def test_tls_to_a_plain_server_and_plain_to_a_tls_server_are_told_by_the_variables_name(
    server: Server, tls_server: Server
) -> None:
    server.answers = [hang_up]
    for endpoint, secure in ((server.endpoint, True), (tls_server.endpoint, False)):
        with pytest.raises(StoreUnavailable, match="MINIO_ENDPOINT"):
            (await fetch(store_at(endpoint, secure=secure), within=2))


# Every error of the libraries.


def _made(kind: type[BaseException]) -> BaseException:
    if kind is minio.error.S3Error:
        return minio.error.S3Error(
            urllib3.HTTPResponse(status=400), "NewCode", "message", "/r", "request", "host", "mnist", "7.png"
        )
    return kind.__new__(kind)


FOREIGN = [
    BrokenConnection,
    BadResponse,
    asyncio.TimeoutError,
    ConnectionResetError,
    ssl.SSLError,
    *(kind for _, kind in inspect.getmembers(minio.error, inspect.isclass) if issubclass(kind, Exception)),
]


def test_there_are_foreign_errors_to_translate() -> None:
    assert minio.error.S3Error in FOREIGN


@pytest.mark.parametrize("kind", FOREIGN)
async def test_no_error_of_a_library_gets_out(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    raised = _made(kind)

    def broken(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(Pool, "send", broken)
    store = store_at("127.0.0.1:1")
    with pytest.raises(StoreUnavailable, match=r"GET 'mnist'/'7\.png'") as caught:
        await fetch(store)
    assert caught.value.__cause__ is raised
    for call in (
        create(store),
        store.copy(version(), "rejected", "7.png", metadata={}, deadline=Deadline(20)),
        store.delete(version(), deadline=Deadline(20)),
        store.delete(version(None), deadline=Deadline(20)),
        store.delete_all(versions_of("7.png", "8.png"), deadline=Deadline(20)),
        store.delete_all(versions_of("7.png", "8.png", version_id=None), deadline=Deadline(20)),
        store.set_tags("mnist", "7.png", {}, deadline=Deadline(20)),
        store.check("mnist", deadline=Deadline(20)),
    ):
        with pytest.raises(StoreUnavailable):
            await call
