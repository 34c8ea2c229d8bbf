"""Requests to an S3-compatible store, each within its time.

minio-py's own client blocks, and its public methods cannot send `If-None-Match` with a PUT, send a HEAD before each
copy, and lose what their classes of a bucket's configuration do not know. Its public parts are used: URLs, credentials
and errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult

from minio.credentials.credentials import Credentials
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import md5sum_hash, sha256_hash
from urllib3 import HTTPResponse

from mnist_pipeline.adapters.http1 import BrokenConnection, head_of
from mnist_pipeline.adapters.http1_pool import Pool, Times
from mnist_pipeline.adapters.http1_response import Response
from mnist_pipeline.adapters.s3_credentials import REFUSED, KeptCredentials, MakeProvider
from mnist_pipeline.adapters.s3_signature import authorization
from mnist_pipeline.adapters.s3_urls import Urls
from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Minio

READ_SECONDS = 10.0

MOST_ANSWER_BYTES = 16 * 1024 * 1024
"""Of what is no object: a listing of a thousand keys, each byte of them escaped, is 4 MB."""

_SUCCESS = (200, 204, 206)
# A digest of so many bytes takes less than the hop to a thread.
_QUICK_BYTES = 256 * 1024
# Not signed, because proxies may change them; the second, because bytes are filed as they are stored.
_UNSIGNED = {"User-Agent": "mnist-pipeline", "Accept-Encoding": "identity"}

# What a status means that comes without a word, as that of every HEAD does.
_SILENT = {
    301: "PermanentRedirect",
    307: "Redirect",
    400: "BadRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    409: "NoSuchBucket",
    412: "PreconditionFailed",
    501: "MethodNotAllowed",
}


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often one request may be sent, and how long each time may take.

    Only a broken connection is tried again, never an answer.
    """

    deadline: Deadline
    attempts: int = 2
    read_seconds: float = READ_SECONDS

    @classmethod
    def until(cls, deadline: Deadline, *, attempts: int) -> Patience:
        """Patience up to the deadline, for requests that move many bytes."""
        return cls(deadline=deadline, attempts=attempts, read_seconds=deadline.remaining())


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request to the store; of the answer's body at most `limit` bytes are read, and one chunk more."""

    method: str
    bucket: str
    key: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    limit: int = MOST_ANSWER_BYTES


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A success: its headers, by lower-case names, and its body, None where it is longer than the limit."""

    headers: Mapping[str, str]
    body: bytes | None


class S3:
    """One store, for one event loop; its connections are made when needed, after `close` too.

    It can be pickled at any time: the connections stay behind. Redirects are not followed: they would carry a
    signature, or repeat a DELETE.

    Args:
        minio: where the store is, and who we are there. Its `ca_cert`, where it has one, holds the only certificates
            that are trusted.
        connections: how many may be open at once; further requests wait for one.
        credentials: makes minio-py's provider of others than those of `minio`; picklable.
    """

    def __init__(self, minio: Minio, *, connections: int, credentials: MakeProvider | None = None) -> None:
        self._minio = minio
        self._connections = connections
        self._make_provider = credentials
        self._urls = Urls(minio)
        self._pool: Pool | None = None
        self._credentials: KeptCredentials | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None, "_credentials": None}

    async def send(self, request: Request, patience: Patience) -> Answer:
        """Send it, and read its answer.

        Raises:
            S3Error: the store answers with an error.
            BrokenConnection, asyncio.TimeoutError: there was no answer.
            DeadlineExceeded: there is no time for it.
            StoreUnavailable: a setting cannot be used, or there are no credentials.
            other errors of minio-py and Python: the answer makes no sense, or the request can be none.
        """
        if self._credentials is None:
            self._credentials = KeptCredentials.of(self._minio, self._make_provider)
        kept, deadline = self._credentials, patience.deadline
        credentials = await kept.retrieve(deadline)
        try:
            return await self._send(request, credentials, patience)
        except S3Error as exc:
            # What was refused for who asks was not done, so that nothing is done twice.
            if exc.code not in REFUSED or not await kept.are_replaced(credentials, deadline):
                raise
        return await self._send(request, await kept.retrieve(deadline), patience)

    async def close(self) -> None:
        """Close the connections, those in use too; a later request opens new ones."""
        pool, self._pool, self._credentials = self._pool, None, None
        if pool is not None:
            await pool.close()

    async def _send(self, request: Request, credentials: Credentials, patience: Patience) -> Answer:
        for _ in range(1, patience.attempts):
            with contextlib.suppress(BrokenConnection, asyncio.TimeoutError, TimeoutError):
                return await self._send_once(request, credentials, patience)
        return await self._send_once(request, credentials, patience)

    async def _send_once(self, request: Request, credentials: Credentials, patience: Patience) -> Answer:
        patience.deadline.remaining()
        url, headers = await self._signed(request, credentials)
        target = f"{url.path}?{url.query}" if url.query else url.path
        head = head_of(request.method, target, headers, len(request.body))
        pool = await self._opened()
        # Not before here, because nothing may be begun after the deadline.
        left = patience.deadline.remaining()
        # So that a second attempt has its time; a body that is large and comes at all has until the deadline.
        share = left / patience.attempts
        times = Times(total=left, connect=share, pause=min(patience.read_seconds, share))
        response = await pool.send(url.netloc, head, request.body, limit=request.limit, times=times)
        if response.status in _SUCCESS:
            return Answer(headers=response.headers, body=response.body)
        raise _error(request, response)

    async def _signed(self, request: Request, credentials: Credentials) -> tuple[SplitResult, dict[str, str]]:
        """The URL and the headers of a request, with the signature (AWS Signature Version 4)."""
        parts = self._urls.of(request.method, request.bucket, request.key, request.query)
        headers = {"Host": parts.netloc, **request.headers}
        if self._minio.secure:
            digest = "UNSIGNED-PAYLOAD"
            if request.body and "Content-MD5" not in headers:
                headers["Content-MD5"] = await _of_body(md5sum_hash, request.body)
        else:
            digest = await _of_body(sha256_hash, request.body)
        headers["x-amz-content-sha256"] = digest
        if credentials.session_token:
            headers["X-Amz-Security-Token"] = credentials.session_token
        headers["x-amz-date"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers["Authorization"] = authorization(
            request.method, parts, headers, digest, credentials=credentials, region=self._minio.region
        )
        return parts, {**headers, **_UNSIGNED}

    async def _opened(self) -> Pool:
        if self._pool is None:
            # Certificates are read from files.
            tls = await asyncio.to_thread(self._tls) if self._minio.secure else None
            # Another request may have opened it meanwhile.
            if self._pool is None:
                self._pool = Pool(self._connections, tls)
        return self._pool

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._minio.ca_cert)
        except OSError as exc:
            raise StoreUnavailable(f"MINIO_CA_CERT, {self._minio.ca_cert!r}, cannot be read: {exc.strerror}") from exc


async def _of_body(digest: Callable[[bytes], str | None], body: bytes) -> str:
    """A digest of a body: of a large one in a thread, because it takes milliseconds."""
    return (digest(body) if len(body) <= _QUICK_BYTES else await asyncio.to_thread(digest, body)) or ""


def _error(request: Request, response: Response) -> MinioException:
    """What minio-py makes of an answer that is no success: an S3Error, if it is one of S3's."""
    kind = response.headers.get("content-type", "")
    answer = HTTPResponse(
        body=response.body or b"", status=response.status, headers=response.headers, request_method=request.method
    )
    if response.body and "application/xml" in kind.split(";"):
        return S3Error.fromxml(answer)
    if request.method != "HEAD":
        return InvalidResponseError(response.status, kind, None)
    if (code := _SILENT.get(response.status)) is None:
        return ServerError(f"HTTP status code {response.status}", response.status)
    if code == "NoSuchKey" and request.key is None:
        code = "NoSuchBucket"
    return S3Error(answer, code, None, None, None, None, request.bucket, request.key)
