"""Who we are at the store: minio-py's providers of credentials, which block, for those who must not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from minio.credentials.credentials import Credentials
from minio.credentials.providers import IamAwsProvider, Provider, StaticProvider, WebIdentityProvider
from urllib3 import PoolManager, Timeout

from mnist_pipeline.adapters.threads import in_thread, is_done_within
from mnist_pipeline.pipeline.environment import content_of
from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.setting_values import is_aws
from mnist_pipeline.pipeline.settings import Minio

_log = logging.getLogger(__name__)

REFUSED = frozenset(
    (
        "AccessKeyDisabled",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "InvalidTokenId",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    )
)
"""Codes of S3 errors by which a store refuses who asks, and not what is asked."""

# Nothing is signed with credentials that end sooner.
_LAST_SECONDS = 10.0
# New ones are fetched after this share of the time that is left, while the old ones are in use.
_RENEWED_AFTER = 0.75
_PAUSE_SECONDS = 10.0
_REFUSED_PAUSE_SECONDS = 1.0
_CONNECT_SECONDS = 2.0
_READ_SECONDS = 5.0

MakeProvider = Callable[[], Provider]
"""Makes minio-py's provider of credentials, in a thread and whenever new ones are wanted; picklable."""


def provider_of(minio: Minio) -> Provider:
    """The provider that the settings ask for; what they have from files is read again.

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    if (role := minio.role) is None:
        read: dict[str, Any] = {name: content_of(file) for name, file in minio.key_files.items()}
        pair = replace(minio, **read)
        return StaticProvider(pair.access_key, pair.secret_key, pair.session_token)
    http_client = PoolManager(
        timeout=Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
        # urllib3 would log each further attempt with its URL, and in that stands the token.
        retries=False,
        # Of AWS's own addresses our authority knows nothing.
        ca_certs=None if role.endpoint is None or is_aws(role.endpoint) else minio.ca_cert,
    )
    if role.token_file is None:
        return IamAwsProvider(custom_endpoint=role.endpoint, http_client=http_client)
    token_file = role.token_file
    return WebIdentityProvider(
        jwt_provider_func=lambda: {"access_token": content_of(token_file)},
        sts_endpoint=role.endpoint or "",
        role_arn=role.arn,
        role_session_name=role.session_name,
        http_client=http_client,
    )


class KeptCredentials:
    """The credentials of a store, kept until they end or are refused.

    Belongs to one event loop. A provider is asked in a thread: while credentials last, beside those who use them; else
    who comes waits for the same answer.

    Args:
        make_provider: is called for each asking.
        hint: what to check where it gives none.
    """

    def __init__(self, make_provider: MakeProvider, hint: str = "") -> None:
        self._make_provider = make_provider
        self._hint = f"; {hint}" if hint else ""
        self._asked = "its provider"
        self._kept: Credentials | None = None
        self._asking: asyncio.Future[Credentials] | None = None
        self._renew_at = float("inf")
        self._ask_again_at = float("-inf")

    @classmethod
    def of(cls, minio: Minio, make_provider: MakeProvider | None) -> KeptCredentials:
        """Those of this provider, or else of the settings."""
        if make_provider is not None:
            return cls(make_provider)
        hint = "check " + " and ".join(minio.credential_variables)
        return cls(partial(provider_of, minio), hint)

    async def retrieve(self, deadline: Deadline) -> Credentials:
        """Credentials that are valid now.

        Raises:
            StoreUnavailable: the provider has none, or is slow.
            DeadlineExceeded: there is no time to ask it.
        """
        kept = self._kept
        if kept is None or _seconds_left(kept) < _LAST_SECONDS:
            return await self._answer(deadline)
        if time.monotonic() >= self._renew_at:
            self._ask()
        return kept

    async def are_replaced(self, refused: Credentials, deadline: Deadline) -> bool:
        """Whether there are others by now than these, which the store has refused.

        The provider is asked for them at most once a second; whoever comes sooner waits until then.

        Raises:
            StoreUnavailable, DeadlineExceeded: as `retrieve`.
        """
        pause = self._ask_again_at - time.monotonic()
        if self._kept is refused and self._asking is None and pause > 0:
            await asyncio.sleep(min(pause, deadline.remaining()))
        if self._kept is refused:
            if self._asking is None:
                self._ask_again_at = time.monotonic() + _REFUSED_PAUSE_SECONDS
            await self._answer(deadline)
        return self._kept is not None and _content(self._kept) != _content(refused)

    async def _answer(self, deadline: Deadline) -> Credentials:
        left = deadline.remaining()
        asking = self._ask()
        if not await is_done_within(asking, left):
            raise self._unavailable("TimeoutError")
        if failure := asking.exception():
            # Not from it: a provider's error may have the token in its text.
            raise self._unavailable(type(failure).__name__)
        return asking.result()

    def _ask(self) -> asyncio.Future[Credentials]:
        if self._asking is None:
            self._asking = in_thread(self._from_provider, name="s3-credentials")
            self._asking.add_done_callback(self._note)
        return self._asking

    def _from_provider(self) -> Credentials:
        provider = self._make_provider()
        self._asked = type(provider).__name__
        return provider.retrieve()

    def _note(self, asking: asyncio.Future[Credentials]) -> None:
        self._asking = None
        now = time.monotonic()
        if failure := asking.exception():
            self._renew_at = now + _PAUSE_SECONDS
            if self._kept is not None:
                _log.warning("those in use end soon: %s", self._unavailable(type(failure).__name__))
        else:
            self._kept = asking.result()
            self._renew_at = now + max(_seconds_left(self._kept) * _RENEWED_AFTER, _PAUSE_SECONDS)

    def _unavailable(self, kind: str) -> StoreUnavailable:
        return StoreUnavailable(f"no credentials for the store from {self._asked} ({kind}){self._hint}")


def _seconds_left(credentials: Credentials) -> float:
    if credentials.expiration is None:
        return float("inf")
    # minio-py keeps it in UTC without saying so.
    return (credentials.expiration.replace(tzinfo=timezone.utc) - datetime.now(timezone.utc)).total_seconds()


def _content(credentials: Credentials) -> tuple[str, str, str | None]:
    return credentials.access_key, credentials.secret_key, credentials.session_token
