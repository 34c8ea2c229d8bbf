"""`MinioObjectStore` on MinIO itself while that fails: frozen, killed, restarted; and for a user who may do little."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mnist_pipeline.errors import StoreUnavailable
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.minio_store import MinioObjectStore
from mnist_pipeline.ports import Deadline
from mnist_pipeline.settings import Minio
from servers.minio import REGION, MinioServer

pytestmark = pytest.mark.real

BUCKET = "mnist"


@pytest.fixture(scope="module")
def fragile(minio_program: Path) -> Iterator[MinioServer]:
    """A MinIO of these tests' own, to be broken."""
    with Sandbox() as sandbox, MinioServer(minio_program, sandbox) as server:
        server.client().make_bucket(bucket_name=BUCKET)
        yield server


@pytest.fixture
def store(fragile: MinioServer) -> Iterator[MinioObjectStore]:
    """One that is connected; its MinIO is whole again after the test, and empty."""
    store = store_of(fragile, fragile.access_key, fragile.secret_key)
    create(store)
    yield store
    if fragile.running:
        fragile.thaw()
    else:
        fragile.start()
    fragile.wait_ready()
    client = fragile.client()
    for found in client.list_objects(bucket_name=BUCKET, recursive=True):
        client.remove_object(bucket_name=BUCKET, object_name=str(found.object_name))
    store.close()


def store_of(server: MinioServer, access_key: str, secret_key: str) -> MinioObjectStore:
    minio = Minio(endpoint=server.endpoint, secure=False, access_key=access_key, secret_key=secret_key, region=REGION)
    return MinioObjectStore(minio, connections=4)


def create(store: MinioObjectStore, key: str = "7.png", *, within: float = 20) -> bool:
    return store.put(BUCKET, key, b"seven", content_type="image/png", metadata={}, tags={}, deadline=Deadline(within))


def fetch(store: MinioObjectStore, *, within: float = 20) -> bytes | None:
    return store.get(BUCKET, "7.png", None, limit=1000, deadline=Deadline(within)).data


def seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_a_frozen_store_is_given_up_within_the_deadline_and_used_again_when_it_is_back(
    fragile: MinioServer, store: MinioObjectStore
) -> None:
    fragile.freeze()

    def refused() -> None:
        with pytest.raises(StoreUnavailable, match="MINIO_ENDPOINT"):
            fetch(store, within=1)

    assert seconds(refused) < 2
    assert seconds(refused) < 2
    fragile.thaw()
    assert fetch(store) == b"seven"


def test_a_put_that_a_frozen_store_did_not_answer_is_done_at_most_once(
    fragile: MinioServer, store: MinioObjectStore
) -> None:
    fragile.freeze()
    with pytest.raises(StoreUnavailable):
        create(store, "8.png", within=1)
    fragile.thaw()
    create(store, "8.png")
    assert not create(store, "8.png")


def test_a_killed_store_is_used_again_when_it_is_back_on_its_port_with_what_it_had(
    fragile: MinioServer, store: MinioObjectStore
) -> None:
    fragile.kill()
    with pytest.raises(StoreUnavailable, match="MINIO_ENDPOINT"):
        fetch(store)
    fragile.start()
    fragile.wait_ready()
    assert fetch(store) == b"seven"
    assert not create(store)


@pytest.mark.usefixtures("store")
def test_a_user_without_the_right_is_told_so_and_one_with_a_wrong_password_by_the_variables_names(
    fragile: MinioServer,
) -> None:
    reading = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{BUCKET}/*"]}
    fragile.add_user("reader", "a-secret-of-the-reader", {"Version": "2012-10-17", "Statement": [reading]})
    reader = store_of(fragile, "reader", "a-secret-of-the-reader")
    assert fetch(reader) == b"seven"
    with pytest.raises(StoreUnavailable, match=r"AccessDenied.*MINIO_ACCESS_KEY"):
        create(reader, "8.png")
    stranger = store_of(fragile, "reader", "a-wrong-secret")
    with pytest.raises(StoreUnavailable, match=r"SignatureDoesNotMatch.*MINIO_SECRET_KEY"):
        fetch(stranger)
    reader.close()
    stranger.close()


def test_what_was_uploaded_before_a_restart_is_there_after_it(fragile: MinioServer, store: MinioObjectStore) -> None:
    fragile.client().put_object(bucket_name=BUCKET, object_name="9.png", data=io.BytesIO(b"nine"), length=4)
    fragile.stop()
    fragile.start()
    fragile.wait_ready()
    assert store.get(BUCKET, "9.png", None, limit=10, deadline=Deadline(20)).data == b"nine"
