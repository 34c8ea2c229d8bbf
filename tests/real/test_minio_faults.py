"""`MinioObjectStore` on MinIO itself while that fails: frozen, killed, restarted; and for a user who may do little.

It is one throughout: a user under the package's policy, who files into a destination and may not write to the source.
"""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Minio
from servers.minio import MinioServer

pytestmark = pytest.mark.real

BUCKET = "digit-7"
SOURCE_BUCKET = "mnist"


@pytest.fixture(scope="module")
def fragile(minio_program: Path) -> Iterator[MinioServer]:
    """A MinIO of these tests' own, to be broken."""
    with Sandbox() as sandbox, MinioServer(minio_program, sandbox) as server:
        for bucket in (BUCKET, SOURCE_BUCKET):
            server.client().make_bucket(bucket_name=bucket)
        yield server


@pytest.fixture(scope="module")
def user(fragile: MinioServer) -> Minio:
    return fragile.add_transformer("transformer")


@pytest.fixture
async def store(fragile: MinioServer, user: Minio) -> AsyncIterator[MinioObjectStore]:
    """One that is connected; its MinIO is whole again after the test, and empty."""
    store = MinioObjectStore(user, connections=4)
    (await create(store))
    yield store
    if fragile.running:
        fragile.thaw()
    else:
        fragile.start()
    fragile.wait_ready()
    client = fragile.client()
    for found in client.list_objects(bucket_name=BUCKET, recursive=True):
        client.remove_object(bucket_name=BUCKET, object_name=str(found.object_name))
    (await store.close())


async def create(store: MinioObjectStore, key: str = "7.png", *, bucket: str = BUCKET, within: float = 20) -> bool:
    return await store.put(
        bucket,
        key,
        b"seven",
        content_type="image/png",
        content_headers={},
        metadata={},
        tags={},
        deadline=Deadline(within),
    )


async def fetch(store: MinioObjectStore, *, within: float = 20) -> bytes | None:
    return (await store.get(BUCKET, "7.png", None, limit=1000, deadline=Deadline(within))).data


async def seconds(call: Callable[[], Awaitable[object]]) -> float:
    started = time.monotonic()
    await call()
    return time.monotonic() - started


async def test_a_frozen_store_is_given_up_within_the_deadline_and_used_again_when_it_is_back(
    fragile: MinioServer, store: MinioObjectStore
) -> None:
    fragile.freeze()

    async def refused() -> None:
        with pytest.raises(StoreUnavailable, match="MINIO_ENDPOINT"):
            (await fetch(store, within=1))

    # By itself it waits 10 s for an answer.
    assert (await seconds(refused)) < 8
    assert (await seconds(refused)) < 8
    fragile.thaw()
    assert (await fetch(store)) == b"seven"


async def test_a_put_that_a_frozen_store_did_not_answer_is_done_at_most_once(
    fragile: MinioServer, store: MinioObjectStore
) -> None:
    fragile.freeze()
    with pytest.raises(StoreUnavailable):
        (await create(store, "8.png", within=1))
    fragile.thaw()
    (await create(store, "8.png"))
    assert not (await create(store, "8.png"))


async def test_a_killed_store_is_used_again_when_it_is_back_on_its_port_with_what_it_had(
    fragile: MinioServer, store: MinioObjectStore
) -> None:
    fragile.kill()
    with pytest.raises(StoreUnavailable, match="MINIO_ENDPOINT"):
        (await fetch(store))
    fragile.start()
    fragile.wait_ready()
    assert (await fetch(store)) == b"seven"
    assert not (await create(store))


async def test_a_user_without_the_right_is_told_so_and_one_with_a_wrong_password_by_the_variables_names(
    user: Minio, store: MinioObjectStore
) -> None:
    with pytest.raises(StoreUnavailable, match=r"AccessDenied.*MINIO_ACCESS_KEY"):
        (await create(store, bucket=SOURCE_BUCKET))
    assert (await fetch(store)) == b"seven"
    stranger = MinioObjectStore(replace(user, secret_key="a-wrong-secret"), connections=4)
    with pytest.raises(StoreUnavailable, match=r"SignatureDoesNotMatch.*MINIO_SECRET_KEY"):
        (await fetch(stranger))
    (await stranger.close())


async def test_what_was_uploaded_before_a_restart_is_there_after_it(
    fragile: MinioServer, store: MinioObjectStore
) -> None:
    fragile.client().put_object(bucket_name=BUCKET, object_name="9.png", data=io.BytesIO(b"nine"), length=4)
    fragile.stop()
    fragile.start()
    fragile.wait_ready()
    assert (await store.get(BUCKET, "9.png", None, limit=10, deadline=Deadline(20))).data == b"nine"
