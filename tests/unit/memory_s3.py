"""A store in memory, over HTTP, for `mnist-pipeline setup`."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from mnist_pipeline import Digits, Task
from mnist_pipeline.commands import setup

if TYPE_CHECKING:
    from mnist_pipeline import ObjectTransformer

SECRET = "a-secret-that-nobody-may-see"


class MemoryS3(ThreadingHTTPServer):
    """So much of S3 as the command needs, over HTTP.

    `denied` names actions, or an action and a bucket; `broken` names actions, `versioned` buckets. `taken` has buckets
    that cannot be seen yet, and the code of the answer to whoever makes them. `locations` has what they were made with.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.configs: dict[str, dict[str, bytes]] = {}
        self.objects: dict[tuple[str, str], list[str]] = {}
        self.denied: set[str] = set()
        self.broken: set[str] = set()
        self.versioned: set[str] = set()
        self.honours_preconditions = True
        self.unknown_arns = 0
        self.taken: dict[str, str] = {}
        self.locations: dict[str, bytes] = {}
        self.done: list[str] = []

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str, bytes]:
        """The status, an error's code, and the body, or an error's message."""
        url = urlsplit(target)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        query = parse_qs(url.query, keep_blank_values=True)
        kinds = ("versioning", "lifecycle", "notification", "object-lock")
        kind = next((kind for kind in kinds if kind in query), "")
        noun = "Object" if key else kind.capitalize() or ("Bucket" if "list-type" not in query else "Listing")
        action = method.capitalize() + noun
        self.done.append(action)
        if {action, f"{action} {bucket}"} & self.denied:
            return 403, "AccessDenied", b""
        if action in self.broken:
            return 501, "NotImplemented", b""
        if action == "PutBucket" and bucket in self.taken:
            return 409, self.taken[bucket], b""
        if action == "PutBucket":
            self.configs[bucket] = {}
            self.locations[bucket] = body
        if bucket not in self.configs:
            return 404, "NoSuchBucket", b""
        if key:
            return self._object(method, bucket, key, headers, query)
        return self._bucket(method, bucket, kind, body)

    def _bucket(self, method: str, bucket: str, kind: str, body: bytes) -> tuple[int, str, bytes]:
        if method == "PUT" and kind:
            if kind == "notification" and self.unknown_arns:
                self.unknown_arns -= 1
                return 400, "InvalidArgument", b"A specified destination ARN does not exist"
            self.configs[bucket][kind] = body
        if method == "GET" and kind == "lifecycle" and kind not in self.configs[bucket]:
            return 404, "NoSuchLifecycleConfiguration", b""
        if method == "GET" and kind == "object-lock" and kind not in self.configs[bucket]:
            return 404, "ObjectLockConfigurationNotFoundError", b""
        return 200, "", self.configs[bucket].get(kind, f"<{kind.capitalize()}Configuration/>".encode())

    def _object(
        self, method: str, bucket: str, key: str, headers: Mapping[str, str], query: Mapping[str, list[str]]
    ) -> tuple[int, str, bytes]:
        versions = self.objects.setdefault((bucket, key), [])
        if method == "PUT":
            if versions and self.honours_preconditions and headers.get("If-None-Match") == "*":
                return 412, "PreconditionFailed", b""
            if bucket not in self.versioned:
                versions.clear()
            versions.append(f"v{len(versions)}" if bucket in self.versioned else "null")
            return 200, "", b""
        if method == "DELETE":
            (version,) = query["versionId"]
            if version in versions:
                versions.remove(version)
            return 204, "", b""
        return (200, "", b"") if versions else (404, "NoSuchKey", b"")

    @property
    def leftovers(self) -> list[tuple[str, str]]:
        return [place for place, versions in self.objects.items() if versions]


class Handler(BaseHTTPRequestHandler):
    """Hands each request to its `MemoryS3`."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one packet an answer
    server: MemoryS3

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, code, answer = self.server.answer(self.command, self.path, dict(self.headers.items()), body)
        if code:
            answer = f"<Error><Code>{code}</Code><Message>{answer.decode()}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        bucket, _, key = urlsplit(self.path).path.lstrip("/").partition("/")
        if key and status == 200 and (versions := self.server.objects[bucket, key]):
            self.send_header("x-amz-version-id", versions[-1])
        sent = b"" if self.command == "HEAD" or status == 204 else answer
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_HEAD = do_PUT = do_DELETE = handle_any  # noqa: N815 - names that the base class looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the method that is overridden
        """Say nothing."""


@contextmanager
def memory_s3() -> Iterator[MemoryS3]:
    """A store that runs."""
    with MemoryS3() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def set_up_on(
    store: MemoryS3,
    *arguments: str,
    task: type[Task] = Digits,
    model: type[ObjectTransformer] | None = None,
    **variables: str,
) -> tuple[int, list[str]]:
    """The exit code and the lines of `mnist-pipeline setup` on that store."""
    environ = {
        "MINIO_ENDPOINT": f"127.0.0.1:{store.server_address[1]}",
        "MINIO_ACCESS_KEY": "somebody",
        "MINIO_SECRET_KEY": SECRET,
        **variables,
    }
    code = setup.main(arguments, environ, out := io.StringIO(), task=task, model=model)
    assert SECRET not in out.getvalue()
    return code, out.getvalue().splitlines()
