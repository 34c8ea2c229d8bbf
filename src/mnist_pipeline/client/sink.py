"""A sink of CloudEvents over HTTP: the transformer, or a Broker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp

from mnist_pipeline.client.errors import RequestFailed, RequestRefused
from mnist_pipeline.pipeline.ports import Deadline

_ATTEMPTS = 4
_BACKOFF_SECONDS = 0.5
_SAID_LENGTH = 200
_RETRYABLE = frozenset({404, 408, 409, 429})
"""As for Knative's dispatcher, and every 5xx."""


class Sink:
    """Where events are posted; for one event loop.

    Args:
        url: the transformer's `…/v1/models/<model>:predict`, or a Broker's.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: bytes, headers: Mapping[str, str], *, deadline: Deadline) -> None:
        """Post one event; a few times where the answer says to come again, or where there is none.

        Raises:
            RequestRefused: it would be refused another time too; its `reason` says why.
            RequestFailed: nobody answered, or the last answer says to come again.
            DeadlineExceeded: the time is over.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._post_once(body, headers, deadline.remaining())
            except RequestRefused:
                raise
            except RequestFailed:
                pause = _BACKOFF_SECONDS * 2 ** (attempt - 1)
                if attempt == _ATTEMPTS or pause >= deadline.remaining():
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _post_once(self, body: bytes, headers: Mapping[str, str], seconds: float) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.post(
                self.url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
                    return
                text = await answer.text(errors="replace")
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as exc:
            raise RequestFailed(f"{self.url} gave no answer ({type(exc).__name__})") from exc
        status, reason = answer.status, answer.headers.get("kne-reason", "")
        says = f"{self.url} answered {status} {reason or answer.reason}: {text[:_SAID_LENGTH]!a}"
        may_come = status in _RETRYABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        raise (RequestFailed if may_come else RequestRefused)(says, status=status, reason=reason)
