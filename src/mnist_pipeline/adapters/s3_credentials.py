"""Who we are at the store: minio-py's providers of credentials, which block, for those who must not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider, StaticProvider

from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Minio

# So long before they end minio-py's providers fetch new ones.
_BEFORE_THE_END = timedelta(seconds=10)

MakeProvider = Callable[[], Provider]
"""Makes a provider, once a process; is pickled where the provider, which may hold connections, cannot be."""


class KeptCredentials:
    """The credentials of one provider, which is asked in a thread and only when they are not there or end.

    Belongs to one event loop. Who comes while it is being asked waits for the same answer.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._kept: Credentials | None = None
        self._asking: asyncio.Task[Credentials] | None = None

    @classmethod
    def of(cls, minio: Minio, make_provider: MakeProvider | None) -> KeptCredentials:
        """Those of the provider, or else the pair of the settings."""
        return cls(make_provider() if make_provider else StaticProvider(minio.access_key, minio.secret_key))

    async def retrieve(self, deadline: Deadline) -> Credentials:
        """Credentials that are valid now.

        Raises:
            StoreUnavailable: the provider has none, or is slow.
            DeadlineExceeded: there is no time to ask it.
        """
        if self._kept is None or _ends(self._kept):
            left = deadline.remaining()
            if self._asking is None:
                self._asking = asyncio.create_task(asyncio.to_thread(self._provider.retrieve))
                self._asking.add_done_callback(self._asked)
            try:
                self._kept = await asyncio.wait_for(asyncio.shield(self._asking), left)
            except Exception as exc:  # a provider raises what it likes; its text may hold what it has read
                kind, asked = type(exc).__name__, type(self._provider).__name__
                raise StoreUnavailable(f"no credentials for the store from {asked} ({kind})") from exc
        return self._kept

    def _asked(self, task: asyncio.Task[Credentials]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # looked at, where nobody waits any more


def _ends(credentials: Credentials) -> bool:
    if credentials.expiration is None:
        return False
    # minio-py keeps it in UTC without saying so.
    return credentials.expiration.replace(tzinfo=timezone.utc) - datetime.now(timezone.utc) < _BEFORE_THE_END
