"""Requests to an S3-compatible store: signed by minio-py, sent by aiohttp, each within its time.

minio-py's own client blocks, and its public methods cannot send `If-None-Match` with a PUT, send a HEAD before each
copy, and lose what their classes of a bucket's configuration do not know. Its public parts are used: URLs, signatures,
credentials and errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import minio.time
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientTimeout
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import BaseURL, md5sum_hash, sha256_hash
from minio.signer import sign_v4_s3
from urllib3 import HTTPResponse
from yarl import URL

from mnist_pipeline.adapters.s3_credentials import KeptCredentials, MakeProvider
from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Minio

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0

MOST_ANSWER_BYTES = 16 * 1024 * 1024
"""Of what is no object: a listing of a thousand keys, each byte of them escaped, is 4 MB."""

_SUCCESS = (200, 204, 206)
_CHUNK_BYTES = 64 * 1024
_QUICK_BYTES = 256 * 1024
# An error is a few hundred bytes; what is longer is none of S3's.
_MOST_ERROR_BYTES = 64 * 1024
# Of an answer. The 2 KB of metadata that S3 takes can be 150 short ones; no less than http.client took.
_MOST_HEADERS = 1000
_MOST_HEADER_BYTES = 64 * 1024
# Not signed: proxies may change them.
_HEADERS = {"User-Agent": "mnist-pipeline", "Accept-Encoding": "identity"}

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
    """A success: its headers, and its body, None where it is longer than the limit that was given."""

    headers: Mapping[str, str]
    body: bytes | None


class BrokenConnection(Exception):
    """The connection broke, or none could be made; the cause says how."""


class S3:
    """One store, for one event loop; its session is made at the first request, and once more after `close`.

    It can be pickled at any time: the session stays behind. Redirects are not followed: they would carry a signature,
    or repeat a DELETE.

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
        self._session: aiohttp.ClientSession | None = None
        self._credentials: KeptCredentials | None = None
        self._base_url: BaseURL | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None, "_credentials": None, "_base_url": None}

    async def send(self, request: Request, patience: Patience) -> Answer:
        """Send it, and read its answer.

        Raises:
            S3Error: the store answers with an error.
            BrokenConnection, asyncio.TimeoutError: there was no answer.
            DeadlineExceeded: there is no time for it.
            StoreUnavailable: a setting cannot be used, or there are no credentials.
            other errors of aiohttp, minio-py and Python: the answer makes no sense, or the request can be none.
        """
        for _ in range(1, patience.attempts):
            with contextlib.suppress(BrokenConnection, asyncio.TimeoutError, TimeoutError):
                return await self._send(request, patience)
        return await self._send(request, patience)

    async def close(self) -> None:
        """Close the connections, those in use too; a later request opens new ones."""
        session, self._session, self._credentials = self._session, None, None
        if session is not None:
            await session.close()

    async def _send(self, request: Request, patience: Patience) -> Answer:
        url, headers = await self._signed(request, patience.deadline)
        session = await self._opened()
        # Not before here, because nothing may be begun after the deadline.
        left = patience.deadline.remaining()
        # So that a second attempt has its time; a body that is large and comes at all has until the deadline.
        share = left / patience.attempts
        timeout = ClientTimeout(
            total=left,
            connect=share,
            sock_connect=min(CONNECT_SECONDS, share),
            sock_read=min(patience.read_seconds, share),
            # aiohttp rounds longer ones up to whole seconds.
            ceil_threshold=math.inf,
        )
        async with session.request(
            request.method, url, headers=headers, data=_payload(request.body), allow_redirects=False, timeout=timeout
        ) as response:
            if response.status in _SUCCESS:
                return Answer(headers=response.headers, body=await _read(response, request.limit))
            error = await _read(response, _MOST_ERROR_BYTES)
        raise _error(request, response, error)

    async def _signed(self, request: Request, deadline: Deadline) -> tuple[URL, dict[str, Any]]:
        """The URL and the headers of a request, with the signature (AWS Signature Version 4)."""
        deadline.remaining()
        parts = self._base().build(
            method=request.method,
            region=self._minio.region,
            bucket_name=request.bucket,
            object_name=request.key,
            query_params=dict(request.query),
        )
        headers: dict[str, Any] = {**request.headers, "Host": parts.netloc}
        if self._credentials is None:
            self._credentials = KeptCredentials.of(self._minio, self._make_provider)
        credentials = await self._credentials.retrieve(deadline)
        if self._minio.secure:
            digest = "UNSIGNED-PAYLOAD"
            if request.body and "Content-MD5" not in headers:
                headers["Content-MD5"] = await _of_body(md5sum_hash, request.body)
        else:
            digest = await _of_body(sha256_hash, request.body)
        headers["x-amz-content-sha256"] = digest
        if credentials.session_token:
            headers["X-Amz-Security-Token"] = credentials.session_token
        now = minio.time.utcnow()
        headers["x-amz-date"] = minio.time.to_amz_date(now)
        signed = sign_v4_s3(
            method=request.method,
            url=parts,
            region=self._minio.region,
            headers=headers,
            credentials=credentials,
            content_sha256=digest,
            date=now,
        )
        return URL(parts.geturl(), encoded=True), signed

    def _base(self) -> BaseURL:
        """What minio-py makes URLs of: with the bucket in the path, or in the host's name where AWS wants it."""
        if self._base_url is None:
            scheme = "https" if self._minio.secure else "http"
            try:
                self._base_url = BaseURL(f"{scheme}://{self._minio.endpoint}", self._minio.region)
            except ValueError as exc:
                raise StoreUnavailable(f"check MINIO_ENDPOINT and MINIO_REGION: {exc}") from exc
        return self._base_url

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Certificates are read from files.
            tls = await asyncio.to_thread(self._tls) if self._minio.secure else True
            # Another request may have opened it meanwhile.
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=self._connections, ssl=tls),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers=_HEADERS,
                    skip_auto_headers=("Accept", "Content-Type"),
                    # Bytes are filed as they are stored.
                    auto_decompress=False,
                    max_line_size=_MOST_HEADER_BYTES,
                    max_field_size=_MOST_HEADER_BYTES,
                    max_headers=_MOST_HEADERS,
                    middlewares=(_once,),
                )
        return self._session

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._minio.ca_cert)
        except OSError as exc:
            raise StoreUnavailable(f"MINIO_CA_CERT, {self._minio.ca_cert!r}, cannot be read: {exc.strerror}") from exc


async def _of_body(digest: Callable[[bytes], str | None], body: bytes) -> str:
    """A digest of a body: of a large one in a thread, because it takes milliseconds."""
    return (digest(body) if len(body) <= _QUICK_BYTES else await asyncio.to_thread(digest, body)) or ""


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    """The body as aiohttp takes it: a large one piece by piece, so that others have their turn."""
    return (body if len(body) <= _QUICK_BYTES else io.BytesIO(body)) or None


async def _once(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Let aiohttp send a request once: by itself it sends a DELETE again whose connection broke."""
    try:
        return await handler(request)
    except (aiohttp.ClientConnectionError, asyncio.TimeoutError, TimeoutError) as exc:
        raise BrokenConnection from exc


async def _read(response: ClientResponse, limit: int) -> bytes | None:
    """The body, or None where it is longer than `limit`; of that at most one chunk more is read.

    What is not read to its end takes its connection with it. aiohttp raises where a body is shorter than announced.
    """
    if (response.content_length or 0) > limit:
        response.close()
        return None
    # BytesIO gives away the buffer that it has filled: a list of chunks, once joined, would take twice the room.
    body = io.BytesIO()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body.write(chunk)
        if body.tell() > limit:
            response.close()
            return None
    return body.getvalue()


def _error(request: Request, response: ClientResponse, body: bytes | None) -> MinioException:
    """What minio-py makes of an answer that is no success: an S3Error, if it is one of S3's."""
    kind = response.headers.get("content-type", "")
    headers = dict(response.headers)
    answer = HTTPResponse(body=body or b"", status=response.status, headers=headers, request_method=request.method)
    if body and "application/xml" in kind.split(";"):
        return S3Error.fromxml(answer)
    if request.method != "HEAD":
        return InvalidResponseError(response.status, kind, None)
    if (code := _SILENT.get(response.status)) is None:
        return ServerError(f"HTTP status code {response.status}", response.status)
    if code == "NoSuchKey" and request.key is None:
        code = "NoSuchBucket"
    return S3Error(answer, code, None, None, None, None, request.bucket, request.key)
