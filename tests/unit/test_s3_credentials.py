"""The credentials of a store that are not in its settings: who is asked for them, when, and what is sent."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone

import pytest
from aiohttp import web
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider

from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.adapters.s3_credentials import KeptCredentials
from mnist_pipeline.pipeline.errors import DeadlineExceeded, StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Minio

SECRET = "a-secret-that-nobody-may-see"


class Asked(Provider):
    """Gives credentials that end after so many seconds; counts how often, and whether the event loop was held up."""

    def __init__(self, *, seconds: float | None = None, takes: float = 0, fails: Exception | None = None) -> None:
        self.seconds = seconds
        self.takes = takes
        self.fails = fails
        self.threads: list[threading.Thread] = []

    def retrieve(self) -> Credentials:
        self.threads.append(threading.current_thread())
        time.sleep(self.takes)
        if self.fails:
            raise self.fails
        ends = None if self.seconds is None else datetime.now(timezone.utc) + timedelta(seconds=self.seconds)
        return Credentials("who", SECRET, f"token-{len(self.threads)}", ends)


def asked() -> Asked:
    return Asked()


def kept_of(provider: Asked) -> KeptCredentials:
    return KeptCredentials(lambda: provider, "check THIS")


@pytest.mark.parametrize(("seconds", "times"), [(None, 1), (3600, 1), (9, 3)])
async def test_a_provider_is_asked_again_only_when_what_it_gave_ends(seconds: float | None, times: int) -> None:
    kept = kept_of(provider := Asked(seconds=seconds))
    tokens = [(await kept.retrieve(Deadline(5))).session_token for _ in range(3)]
    assert len(provider.threads) == times
    assert tokens[-1] == f"token-{times}"
    assert threading.main_thread() not in provider.threads


async def test_who_comes_while_a_provider_is_asked_waits_for_the_same_answer() -> None:
    kept = kept_of(provider := Asked(seconds=3600, takes=0.1))
    given = await asyncio.gather(*(kept.retrieve(Deadline(5)) for _ in range(8)))
    assert {one.session_token for one in given} == {"token-1"}
    assert len(provider.threads) == 1


async def test_a_slow_provider_is_waited_for_until_the_deadline_and_its_answer_is_for_the_next() -> None:
    kept = kept_of(provider := Asked(takes=1.5))
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="Asked"):
            await kept.retrieve(Deadline(0.1))
    assert time.monotonic() - started < 1.2
    assert (await kept.retrieve(Deadline(5))).session_token == "token-1"
    assert len(provider.threads) == 1


async def test_nothing_is_asked_after_the_deadline() -> None:
    kept = kept_of(provider := Asked())
    with pytest.raises(DeadlineExceeded):
        await kept.retrieve(Deadline(0))
    assert provider.threads == []


async def test_a_provider_that_fails_is_told_without_its_words_and_asked_again() -> None:
    kept = kept_of(provider := Asked(fails=LookupError(SECRET)))
    with pytest.raises(StoreUnavailable, match=r"Asked.*LookupError") as caught:
        await kept.retrieve(Deadline(5))
    assert SECRET not in str(caught.value)
    provider.fails = None
    assert (await kept.retrieve(Deadline(5))).access_key == "who"


async def test_who_is_cancelled_leaves_the_others_their_answer() -> None:
    kept = kept_of(Asked(takes=0.2))
    first, second = (asyncio.create_task(kept.retrieve(Deadline(5))) for _ in range(2))
    await asyncio.sleep(0.05)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).session_token == "token-1"


@pytest.fixture
async def headers() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """A store that has nothing, where it is, and the headers of what it was asked."""
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response()

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"127.0.0.1:{runner.addresses[0][1]}", seen
    await runner.cleanup()


async def test_a_session_token_is_sent_and_signed_by_a_store_that_was_pickled(
    headers: tuple[str, list[dict[str, str]]],
) -> None:
    endpoint, seen = headers
    minio = Minio(endpoint=endpoint, secure=False, access_key="nobody", secret_key="none")
    store: MinioObjectStore = pickle.loads(pickle.dumps(MinioObjectStore(minio, credentials=asked)))
    await store.check("mnist", deadline=Deadline(5))
    await store.close()
    assert seen[0]["x-amz-security-token"] == "token-1"
    assert "Credential=who/" in seen[0]["authorization"]
    assert "x-amz-security-token" in seen[0]["authorization"]
