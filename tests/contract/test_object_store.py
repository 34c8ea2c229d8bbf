"""What every `ObjectStore` promises, checked over the one in memory, the embedded gateway and MinIO itself.

Most of it holds for buckets with and without versions, and is checked over both. The gateway's backend says what it
lacks; those promises are skipped there, with the reason. On MinIO the adapter is a user under the package's policy: it
may not do in a source what it does in a destination, nor the other way round. The tests arrange and look as root.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

import pytest
from minio import Minio
from minio.commonconfig import ENABLED, Tags
from minio.versioningconfig import VersioningConfig

from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.local.gateway import REGION, Gateway
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.pipeline import settings
from mnist_pipeline.pipeline.errors import (
    BadKey,
    DeadlineExceeded,
    MetadataTooLarge,
    ObjectGone,
    ObjectRetained,
    Permanent,
    StoreUnavailable,
)
from mnist_pipeline.pipeline.ports import CONTENT_HEADERS, Deadline, ListedObject, ObjectStore, ObjectVersion
from mnist_pipeline.site.reconcile import Listing
from mnist_pipeline.site.shards import Shard, Shards
from mnist_pipeline.testing import MemoryStore
from servers.minio import MinioServer, upload_with

LIMIT = 1_000_000
# Which buckets the policy means by which name.
BUCKETS = {"mnist": "source-*", "digit-?": "destination-*"}
NO_SOURCE, NO_DESTINATION = "source-none", "destination-none"


class Store(ObjectStore, Listing, Protocol):
    """The port, and what `mnist-pipeline reconcile` asks for beyond it."""


class Backend(Protocol):
    """A store, and what a test may do behind its back."""

    lacks: Mapping[str, str]
    versioned: bool

    @property
    def store(self) -> Store:
        """The one under test."""
        ...

    def make_source(self, *, versioned: bool | None = None) -> str:
        """Make an empty bucket to fetch from, with versions or without as the backend has them; return its name."""
        ...

    def make_destination(self) -> str:
        """Make an empty bucket to file into, with versions or without as the backend has them; return its name."""
        ...

    def make_lockable_source(self) -> str:
        """Make an empty bucket to fetch from, whose versions can be locked; return its name."""
        ...

    def lock(self, version: ObjectVersion, *, locked: bool = True) -> None:
        """Put the version under a legal hold, or end that."""
        ...

    def switch_versions_on(self, bucket: str) -> None:
        """Have the bucket's further uploads get version ids."""
        ...

    def upload(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Store an object as a user does, as `image/png`."""
        ...

    def upload_with(self, bucket: str, key: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Store an object as a user does who sends these content headers too."""
        ...

    def remove(self, bucket: str, key: str) -> None:
        """Delete an object as a user does, naming no version."""
        ...

    def destroy(self, version: ObjectVersion) -> None:
        """Delete this version as a user does who names it."""
        ...


class MemoryBackend:
    """The public fake."""

    def __init__(self, *, versioned: bool) -> None:
        self.store = MemoryStore()
        self.versioned = versioned
        self.lacks: Mapping[str, str] = {}

    def make_source(self, *, versioned: bool | None = None) -> str:
        """Make an empty bucket to fetch from."""
        return self._make(f"source-{len(self.store.buckets)}", versioned=versioned)

    def make_destination(self) -> str:
        """Make an empty bucket to file into, from which the policy lets nobody delete."""
        name = self._make(f"destination-{len(self.store.buckets)}")
        self.store.undeletable.add(name)
        return name

    def make_lockable_source(self) -> str:
        """Make an empty bucket to fetch from."""
        return self.make_source(versioned=True)

    def lock(self, version: ObjectVersion, *, locked: bool = True) -> None:
        """Lock the version, or let it go."""
        (self.store.locked.add if locked else self.store.locked.discard)(str(version.version_id))

    def _make(self, name: str, *, versioned: bool | None = None) -> str:
        self.store.buckets[name] = {}
        if self.versioned if versioned is None else versioned:
            self.switch_versions_on(name)
        return name

    def switch_versions_on(self, bucket: str) -> None:
        """Switch versioning on."""
        self.store.versioned.add(bucket)

    def upload(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Store an object."""
        self.store.upload(bucket, key, data, metadata=metadata, tags=tags)

    def upload_with(self, bucket: str, key: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Store an object with them."""
        self.store.upload(bucket, key, data, content_headers=headers)

    def remove(self, bucket: str, key: str) -> None:
        """Delete an object."""
        self.store.remove(bucket, key)

    def destroy(self, version: ObjectVersion) -> None:
        """Delete a version."""
        versions = self.store.buckets[version.bucket][version.key]
        versions[:] = [kept for kept in versions if kept.version != version]
        if not versions:
            del self.store.buckets[version.bucket][version.key]


@dataclass
class ServerBackend:
    """An S3 server, reached by `MinioObjectStore`; what users do goes through minio-py, as root."""

    user: settings.Minio
    client: Minio
    lacks: Mapping[str, str] = field(default_factory=dict)
    versioned: bool = False
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        """A store for each event loop, and so for each test."""
        self.store = MinioObjectStore(self.user, connections=16)

    def make_source(self, *, versioned: bool | None = None) -> str:
        """Make an empty bucket to fetch from."""
        return self._make(f"source-{next(self.numbers)}", versioned=versioned)

    def make_destination(self) -> str:
        """Make an empty bucket to file into."""
        return self._make(f"destination-{next(self.numbers)}")

    def make_lockable_source(self) -> str:
        """Make an empty bucket to fetch from, with object lock."""
        name = f"source-{next(self.numbers)}"
        self.client.make_bucket(bucket_name=name, object_lock=True)
        return name

    def lock(self, version: ObjectVersion, *, locked: bool = True) -> None:
        """Put the version under a legal hold, or end that."""
        switch = self.client.enable_object_legal_hold if locked else self.client.disable_object_legal_hold
        switch(bucket_name=version.bucket, object_name=version.key, version_id=version.version_id)

    def _make(self, name: str, *, versioned: bool | None = None) -> str:
        self.client.make_bucket(bucket_name=name)
        if self.versioned if versioned is None else versioned:
            self.switch_versions_on(name)
        return name

    def switch_versions_on(self, bucket: str) -> None:
        """Switch versioning on."""
        self.client.set_bucket_versioning(bucket_name=bucket, config=VersioningConfig(ENABLED))

    def upload(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Store an object."""
        object_tags = Tags.new_object_tags()
        object_tags.update(tags or {})
        self.client.put_object(
            bucket_name=bucket,
            object_name=key,
            data=io.BytesIO(data),
            length=len(data),
            content_type="image/png",
            metadata=dict(metadata or {}),
            tags=object_tags,
        )

    def upload_with(self, bucket: str, key: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Store an object with them."""
        upload_with(self.client, bucket, key, data, {"content-type": "image/png", **headers})

    def remove(self, bucket: str, key: str) -> None:
        """Delete an object."""
        self.client.remove_object(bucket_name=bucket, object_name=key)

    def destroy(self, version: ObjectVersion) -> None:
        """Delete a version."""
        self.client.remove_object(
            bucket_name=version.bucket, object_name=version.key, version_id=version.version_id or "null"
        )


@pytest.fixture(scope="module")
def gateway() -> Iterator[ServerBackend]:
    with Sandbox() as sandbox, Gateway(sandbox) as server:
        root = settings.Minio(
            endpoint=server.endpoint,
            secure=False,
            access_key=server.access_key,
            secret_key=server.secret_key,
            region=REGION,
        )
        lacks = {
            "conditional PUT": "the embedded gateway ignores If-None-Match of a PUT and overwrites",
            "content headers": "the embedded gateway keeps no content encoding, content language and expiry",
            "tags of nothing": "the embedded gateway answers InternalError to who tags what is not there",
            "refused keys": "the embedded gateway stores keys that MinIO refuses",
        }
        client = server.client()
        yield ServerBackend(user=root, client=client, lacks=lacks)
        client._http.clear()  # noqa: SLF001 - minio-py has no close()


@pytest.fixture(scope="module")
def minio(real_minio: MinioServer) -> ServerBackend:
    return ServerBackend(user=real_minio.add_transformer("contract", BUCKETS), client=real_minio.client())


async def _backend(name: str, request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    server, _, kind = name.partition(", ")
    versioned = kind == "versioned"
    if server == "memory":
        yield MemoryBackend(versioned=versioned)
        return
    running: ServerBackend = request.getfixturevalue(server)
    backend = replace(running, versioned=versioned)
    yield backend
    await backend.store.close()


PLAIN = ["memory", "gateway", pytest.param("minio", marks=pytest.mark.real)]
VERSIONED = ["memory, versioned", pytest.param("minio, versioned", marks=pytest.mark.real)]


@pytest.fixture(params=[*PLAIN, *VERSIONED])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """Each store, each kind of bucket."""
    async for backend in _backend(request.param, request):
        yield backend


@pytest.fixture(params=PLAIN)
async def plain(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """Each store, with buckets that have no versions."""
    async for backend in _backend(request.param, request):
        yield backend


@pytest.fixture(params=VERSIONED)
async def versioned(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """Each store that can have versions, with buckets that do."""
    async for backend in _backend(request.param, request):
        yield backend


def need(backend: Backend, feature: str) -> None:
    if feature in backend.lacks:
        pytest.skip(backend.lacks[feature])


def soon() -> Deadline:
    return Deadline(30)


async def fetch(
    backend: Backend, bucket: str, key: str, version_id: str | None = None
) -> tuple[ObjectVersion, bytes | None]:
    found = await backend.store.get(bucket, key, version_id, limit=LIMIT, deadline=soon())
    return found.version, found.data


async def create(
    backend: Backend, bucket: str, key: str, data: bytes, metadata: Mapping[str, str] | None = None
) -> bool:
    return await backend.store.put(
        bucket,
        key,
        data,
        content_type="image/png",
        content_headers={},
        metadata=metadata or {},
        tags={},
        deadline=soon(),
    )


async def test_an_upload_is_fetched_with_all_that_describes_it(backend: Backend) -> None:
    source = backend.make_source()
    backend.upload(source, "7.png", b"seven", metadata={"trace-id": "abc"}, tags={"shift": "night", "line": "a b"})
    version, data = await fetch(backend, source, "7.png")
    assert data == b"seven"
    assert (version.bucket, version.key) == (source, "7.png")
    assert (version.version_id is not None) == backend.versioned
    assert version.etag == "bb3aec0fdcdbc2974890f805c585d432"
    assert version.last_modified.endswith(" GMT")
    assert version.content_type == "image/png"
    assert version.metadata == {"trace-id": "abc"}
    assert version.tags == {"shift": "night", "line": "a b"}


async def test_an_empty_object_is_fetched_as_no_bytes(backend: Backend) -> None:
    source = backend.make_source()
    backend.upload(source, "empty.png", b"")
    assert (await fetch(backend, source, "empty.png"))[1] == b""


async def test_what_does_not_exist_is_gone(backend: Backend) -> None:
    source = backend.make_source()
    with pytest.raises(ObjectGone):
        (await fetch(backend, source, "none.png"))


async def test_a_missing_bucket_is_named_and_worth_a_retry(backend: Backend) -> None:
    with pytest.raises(StoreUnavailable, match=NO_SOURCE):
        (await fetch(backend, NO_SOURCE, "7.png"))
    with pytest.raises(StoreUnavailable, match=NO_DESTINATION):
        (await create(backend, NO_DESTINATION, "7.png", b"seven"))


async def test_an_object_up_to_the_limit_is_fetched_and_a_larger_one_only_described(backend: Backend) -> None:
    source = backend.make_source()
    backend.upload(source, "large.png", b"x" * 200_000, metadata={"trace-id": "abc"}, tags={"a": "b"})
    fits = await backend.store.get(source, "large.png", None, limit=200_000, deadline=soon())
    assert fits.data == b"x" * 200_000
    larger = await backend.store.get(source, "large.png", None, limit=199_999, deadline=soon())
    assert larger.data is None
    assert larger.version == fits.version


@pytest.mark.parametrize("version_id", [None, "1", "not a version"])
async def test_the_latest_is_fetched_where_no_version_or_an_impossible_one_is_named(
    backend: Backend, version_id: str | None
) -> None:
    source = backend.make_source()
    backend.upload(source, "7.png", b"six")
    backend.upload(source, "7.png", b"seven")
    version, data = await fetch(backend, source, "7.png", version_id)
    assert data == b"seven"
    assert (version.version_id is not None) == backend.versioned


async def test_null_is_the_version_of_an_object_that_has_no_version_id(plain: Backend) -> None:
    source = plain.make_source()
    plain.upload(source, "7.png", b"seven")
    version, data = await fetch(plain, source, "7.png", "null")
    assert data == b"seven"
    assert version.version_id is None


@pytest.mark.parametrize("version_id", ["null", "5b0e3d3c-7d0d-4c0a-9d62-0d2b0f6c1a11"])
async def test_a_version_that_an_object_does_not_have_is_gone(versioned: Backend, version_id: str) -> None:
    source = versioned.make_source()
    versioned.upload(source, "7.png", b"seven")
    with pytest.raises(ObjectGone):
        (await fetch(versioned, source, "7.png", version_id))


@pytest.mark.parametrize(
    "key",
    [
        "with space.png",
        "a+b.png",
        "50%.png",
        "%2B.png",
        "a/b/c.png",
        "ü日本.png",
        "🙂.png",
        "nfd-e\u0301.png",
        "s!*'()~;:@&=$,?#[]|\"<>^`{}.png",
        "d/" * 100 + "x" * 200 + ".png",
    ],
)
async def test_a_key_is_what_it_is_through_put_get_copy_and_delete(backend: Backend, key: str) -> None:
    source, destination = backend.make_source(), backend.make_destination()
    backend.upload(source, key, b"seven")
    version, data = await fetch(backend, source, key)
    assert data == b"seven"
    assert await create(backend, destination, key, b"seven")
    (await backend.store.copy(version, destination, "copy-of-" + key, metadata={}, deadline=soon()))
    assert await backend.store.delete(version, deadline=soon())
    with pytest.raises(ObjectGone):
        (await fetch(backend, source, key))
    assert (await fetch(backend, destination, key))[1] == b"seven"
    assert (await fetch(backend, destination, "copy-of-" + key))[1] == b"seven"


@pytest.mark.parametrize("key", ["a/../b.png", "./b.png", ".."])
async def test_a_key_that_would_be_resolved_on_the_way_is_bad(backend: Backend, key: str) -> None:
    source, destination = backend.make_source(), backend.make_destination()
    with pytest.raises(BadKey):
        (await fetch(backend, source, key))
    with pytest.raises(BadKey):
        (await create(backend, destination, key, b"seven"))


@pytest.mark.parametrize("key", ["d/" * 500 + "x" * 25, " "])
async def test_a_key_that_no_store_takes_is_bad(backend: Backend, key: str) -> None:
    source, destination = backend.make_source(), backend.make_destination()
    with pytest.raises(BadKey):
        (await fetch(backend, source, key))
    with pytest.raises(BadKey):
        (await create(backend, destination, key, b"seven"))


async def test_a_key_of_1024_bytes_is_taken(backend: Backend) -> None:
    destination, key = backend.make_destination(), "d/" * 500 + "x" * 24
    assert await create(backend, destination, key, b"seven")
    assert (await fetch(backend, destination, key))[1] == b"seven"


async def test_slashes_in_front_of_a_key_count_for_nothing(backend: Backend) -> None:
    need(backend, "refused keys")
    source, destination = backend.make_source(), backend.make_destination()
    assert await create(backend, destination, "/lead.png", b"seven")
    assert not (await create(backend, destination, "lead.png", b"other"))
    backend.upload(source, "lead.png", b"seven")
    version, data = await fetch(backend, source, "//lead.png")
    assert data == b"seven"
    assert version.key == "//lead.png"
    assert await backend.store.delete(version, deadline=soon())
    with pytest.raises(ObjectGone):
        (await fetch(backend, source, "lead.png"))


@pytest.mark.parametrize("key", ["a//b.png", "tail//", "x" * 256, "é" * 128])
async def test_nothing_is_copied_to_a_key_that_the_store_refuses(backend: Backend, key: str) -> None:
    need(backend, "refused keys")
    source, destination = backend.make_source(), backend.make_destination()
    backend.upload(source, "7.png", b"seven")
    version, _ = await fetch(backend, source, "7.png")
    with pytest.raises(Permanent):
        (await backend.store.copy(version, destination, key, metadata={}, deadline=soon()))


@pytest.mark.parametrize("key", ["a//b.png", "tail//", "x" * 256, "é" * 128])
async def test_a_key_that_the_store_refuses_is_bad(backend: Backend, key: str) -> None:
    need(backend, "refused keys")
    source, destination = backend.make_source(), backend.make_destination()
    with pytest.raises(BadKey):
        (await fetch(backend, source, key))
    with pytest.raises(BadKey):
        (await create(backend, destination, key, b"seven"))


async def test_what_is_put_keeps_its_content_type_metadata_and_tags(backend: Backend) -> None:
    destination = backend.make_destination()
    metadata = {"trace-id": "abc", "spaced": "a  b", "empty": ""}
    assert await backend.store.put(
        destination,
        "7.png",
        b"seven",
        content_type="image/jpeg",
        content_headers={},
        metadata=metadata,
        tags={"a b": "c/d=e", "f": ""},
        deadline=soon(),
    )
    version, data = await fetch(backend, destination, "7.png")
    assert data == b"seven"
    assert version.content_type == "image/jpeg"
    assert version.metadata == metadata
    assert version.tags == {"a b": "c/d=e", "f": ""}


HEADERS = {
    "cache-control": "max-age=60, no-transform",
    "content-disposition": "attachment; filename=\"7.png\"; filename*=UTF-8''%e2%82%ac.png",
    "content-encoding": "gzip",
    "content-language": "de, en",
    "expires": "Thu, 01 Dec 2033 16:00:00 GMT",
}


@pytest.mark.parametrize("headers", [HEADERS, *({name: value} for name, value in HEADERS.items())])
async def test_row_48_an_upload_keeps_its_content_headers_where_it_is_put_and_copied(
    backend: Backend, headers: dict[str, str]
) -> None:
    need(backend, "content headers")
    source, destination = backend.make_source(), backend.make_destination()
    backend.upload_with(source, "7.png", b"seven", headers)
    version, data = await fetch(backend, source, "7.png")
    assert (data, version.content_headers, version.metadata) == (b"seven", headers, {})
    assert await backend.store.put(
        destination,
        "put.png",
        b"seven",
        content_type=version.content_type,
        content_headers=version.content_headers,
        metadata={},
        tags={},
        deadline=soon(),
    )
    (await backend.store.copy(version, destination, "copied.png", metadata={}, deadline=soon()))
    for key in ("put.png", "copied.png"):
        there, data = await fetch(backend, destination, key)
        assert (data, there.content_type, there.content_headers) == (b"seven", "image/png", headers)


async def test_content_headers_of_more_than_8_kb_are_refused(backend: Backend) -> None:
    destination = backend.make_destination()
    with pytest.raises(MetadataTooLarge):
        (
            await backend.store.put(
                destination,
                "7.png",
                b"seven",
                content_type="image/png",
                content_headers=dict.fromkeys(CONTENT_HEADERS, "x" * 1700),
                metadata={},
                tags={},
                deadline=soon(),
            )
        )
    with pytest.raises(ObjectGone):
        (await fetch(backend, destination, "7.png"))


async def test_the_tags_of_the_object_that_is_there_are_replaced_and_nothing_else(backend: Backend) -> None:
    destination = backend.make_destination()
    assert await create(backend, destination, "7.png", b"seven", {"trace-id": "abc"})
    before, _ = await fetch(backend, destination, "7.png")
    for tags in ({"a b": "c d", "empty": ""}, {"published-as": "x" * 256}, {}):
        (await backend.store.set_tags(destination, "7.png", tags, deadline=soon()))
        assert (await fetch(backend, destination, "7.png")) == (replace(before, tags=tags), b"seven")


async def test_what_is_not_there_cannot_be_tagged(backend: Backend) -> None:
    need(backend, "tags of nothing")
    destination = backend.make_destination()
    with pytest.raises(ObjectGone):
        (await backend.store.set_tags(destination, "none.png", {"a": "b"}, deadline=soon()))


@pytest.mark.parametrize("tags", [{str(number): "x" for number in range(11)}, {"a": "x" * 257}])
async def test_more_tags_than_s3_takes_are_refused(backend: Backend, tags: dict[str, str]) -> None:
    destination = backend.make_destination()
    assert await create(backend, destination, "7.png", b"seven")
    with pytest.raises(StoreUnavailable):
        (await backend.store.set_tags(destination, "7.png", tags, deadline=soon()))
    assert (await fetch(backend, destination, "7.png"))[0].tags == {}


@pytest.mark.parametrize("value", ["grün 日本 🙂", "line\r\nx-injected: 1", "=?UTF-8?B?eA==?=", "tab\there", "\x00"])
async def test_metadata_that_no_header_can_hold_survives(backend: Backend, value: str) -> None:
    destination = backend.make_destination()
    assert await create(backend, destination, "7.png", b"seven", {"note": value})
    assert (await fetch(backend, destination, "7.png"))[0].metadata == {"note": value}


# Of the 2 KB the name takes 15 bytes, and an encoded word 12 beside its base64.
@pytest.mark.parametrize(("fits", "too_large"), [("x" * 2033, "x" * 2034), ("é" * 757, "é" * 758)])
async def test_metadata_of_2_kb_is_put_and_copied_and_of_a_byte_more_refused(
    backend: Backend, fits: str, too_large: str
) -> None:
    source, destination = backend.make_source(), backend.make_destination()
    assert await create(backend, destination, "7.png", b"seven", {"note": fits})
    assert (await fetch(backend, destination, "7.png"))[0].metadata == {"note": fits}
    with pytest.raises(MetadataTooLarge):
        (await create(backend, destination, "8.png", b"seven", {"note": too_large}))
    with pytest.raises(ObjectGone):
        (await fetch(backend, destination, "8.png"))
    backend.upload(source, "7.png", b"seven")
    version, _ = await fetch(backend, source, "7.png")
    (await backend.store.copy(version, destination, "9.png", metadata={"note": fits}, deadline=soon()))
    assert (await fetch(backend, destination, "9.png"))[0].metadata == {"note": fits}
    with pytest.raises(MetadataTooLarge):
        (await backend.store.copy(version, destination, "10.png", metadata={"note": too_large}, deadline=soon()))
    with pytest.raises(ObjectGone):
        (await fetch(backend, destination, "10.png"))


async def test_tags_that_no_header_can_hold_are_refused(backend: Backend) -> None:
    destination = backend.make_destination()
    tags = {f"{number}" + " " * 100 + "x": " " * 250 + "x" for number in range(10)}
    with pytest.raises(MetadataTooLarge):
        (
            await backend.store.put(
                destination,
                "7.png",
                b"seven",
                content_type="image/png",
                content_headers={},
                metadata={},
                tags=tags,
                deadline=soon(),
            )
        )
    with pytest.raises(ObjectGone):
        (await fetch(backend, destination, "7.png"))


async def test_nothing_is_overwritten(backend: Backend) -> None:
    need(backend, "conditional PUT")
    destination = backend.make_destination()
    backend.upload(destination, "7.png", b"first")
    assert not (await create(backend, destination, "7.png", b"second"))
    assert (await fetch(backend, destination, "7.png"))[1] == b"first"


async def test_of_racing_creators_one_wins(backend: Backend) -> None:
    need(backend, "conditional PUT")
    destination = backend.make_destination()
    won = await asyncio.gather(*[create(backend, destination, "7.png", b"%d" % number) for number in range(16)])
    assert won.count(True) == 1
    assert (await fetch(backend, destination, "7.png"))[1] == b"%d" % won.index(True)


async def test_a_name_is_free_again_after_a_user_deleted_its_version(backend: Backend) -> None:
    destination = backend.make_destination()
    assert await create(backend, destination, "7.png", b"first")
    backend.destroy((await fetch(backend, destination, "7.png"))[0])
    assert await create(backend, destination, "7.png", b"second")


async def test_a_name_is_free_again_after_a_user_deleted_its_object(backend: Backend) -> None:
    destination = backend.make_destination()
    backend.upload(destination, "7.png", b"first")
    backend.remove(destination, "7.png")
    with pytest.raises(ObjectGone):
        (await fetch(backend, destination, "7.png"))
    assert await create(backend, destination, "7.png", b"second")
    assert (await fetch(backend, destination, "7.png"))[1] == b"second"


async def test_a_copy_has_the_bytes_and_the_new_metadata(backend: Backend) -> None:
    source, rejected = backend.make_source(), backend.make_destination()
    backend.upload(source, "big 7.png", b"seven", metadata={"old": "1"}, tags={"shift": "night"})
    version, _ = await fetch(backend, source, "big 7.png")
    (await backend.store.copy(version, rejected, "big 7-ab.png", metadata={"reason": "grün"}, deadline=soon()))
    copied, data = await fetch(backend, rejected, "big 7-ab.png")
    assert data == b"seven"
    assert copied.metadata == {"reason": "grün"}
    assert copied.content_type == "image/png"
    assert (await fetch(backend, source, "big 7.png"))[0] == version


async def test_an_object_that_changed_before_its_copy_is_gone_and_not_copied(plain: Backend) -> None:
    source, rejected = plain.make_source(), plain.make_destination()
    plain.upload(source, "7.png", b"first")
    version, _ = await fetch(plain, source, "7.png")
    plain.upload(source, "7.png", b"second")
    with pytest.raises(ObjectGone):
        (await plain.store.copy(version, rejected, "7.png", metadata={}, deadline=soon()))
    with pytest.raises(ObjectGone):
        (await fetch(plain, rejected, "7.png"))


async def test_an_object_that_vanished_before_its_copy_is_gone(backend: Backend) -> None:
    source, rejected = backend.make_source(), backend.make_destination()
    backend.upload(source, "7.png", b"first")
    version, _ = await fetch(backend, source, "7.png")
    (await backend.store.delete(version, deadline=soon()))
    with pytest.raises(ObjectGone):
        (await backend.store.copy(version, rejected, "7.png", metadata={}, deadline=soon()))


async def test_a_copy_to_a_missing_bucket_is_worth_a_retry(backend: Backend) -> None:
    source = backend.make_source()
    backend.upload(source, "7.png", b"first")
    version, _ = await fetch(backend, source, "7.png")
    with pytest.raises(StoreUnavailable, match=NO_DESTINATION):
        (await backend.store.copy(version, NO_DESTINATION, "7.png", metadata={}, deadline=soon()))


async def test_deleting_what_is_gone_already_counts_as_done(backend: Backend) -> None:
    source = backend.make_source()
    backend.upload(source, "7.png", b"seven")
    version, _ = await fetch(backend, source, "7.png")
    assert await backend.store.delete(version, deadline=soon())
    assert await backend.store.delete(version, deadline=soon())


async def test_an_upload_that_replaced_the_object_is_not_deleted(plain: Backend) -> None:
    source = plain.make_source()
    plain.upload(source, "7.png", b"first")
    version, _ = await fetch(plain, source, "7.png")
    plain.upload(source, "7.png", b"second")
    assert not (await plain.store.delete(version, deadline=soon()))
    assert (await fetch(plain, source, "7.png"))[1] == b"second"


async def test_row_44_a_locked_version_is_fetched_and_copied_and_not_deleted_before_it_is_let_go(
    versioned: Backend,
) -> None:
    source, destination = versioned.make_lockable_source(), versioned.make_destination()
    versioned.upload(source, "7.png", b"first")
    locked, _ = await fetch(versioned, source, "7.png")
    versioned.lock(locked)
    versioned.upload(source, "7.png", b"second")
    free, _ = await fetch(versioned, source, "7.png")
    (await versioned.store.copy(locked, destination, "7.png", metadata={}, deadline=soon()))
    assert await versioned.store.delete(free, deadline=soon())
    for _ in range(2):
        with pytest.raises(ObjectRetained, match=r"7\.png"):
            (await versioned.store.delete(locked, deadline=soon()))
    assert (await fetch(versioned, source, "7.png")) == (locked, b"first")
    versioned.lock(locked, locked=False)
    assert await versioned.store.delete(locked, deadline=soon())
    with pytest.raises(ObjectGone):
        (await fetch(versioned, source, "7.png"))


NAMES = [
    "a.png",
    "with space.png",
    " a+b%2F50%.png",
    "a/b/c.png",
    "&amp;<key>\"']]>.png",
    "ü日本🙂.png",
    "全角\u3000.png",
]


async def test_all_are_deleted_whatever_their_names_and_what_is_gone_already_counts_as_done(backend: Backend) -> None:
    sources = [backend.make_source(), backend.make_source()]
    for source, key in itertools.product(sources, [*NAMES, "stays.png"]):
        backend.upload(source, key, b"seven")
    versions = [(await fetch(backend, source, key))[0] for key in NAMES for source in sources]
    assert await backend.store.delete(versions[3], deadline=soon())
    assert await backend.store.delete_all(versions, deadline=soon()) == [True] * len(versions)
    assert await backend.store.delete_all([*versions, *versions], deadline=soon()) == [True] * 2 * len(versions)
    for source in sources:
        assert [one.key for one in await backend.store.list_after(source, "", deadline=soon())] == ["stays.png"]


async def test_of_no_versions_none_is_deleted(backend: Backend) -> None:
    assert await backend.store.delete_all([], deadline=soon()) == []


async def test_more_than_a_thousand_are_deleted_at_once(backend: Backend) -> None:
    source = backend.make_source()
    names = [f"{number:04}.png" for number in range(1002)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: backend.upload(source, key, b"seven"), names))
    first = await asyncio.gather(*(fetch(backend, source, key) for key in names[:1001]))
    assert await backend.store.delete_all([version for version, _ in first], deadline=soon()) == [True] * 1001
    assert [one.key for one in await backend.store.list_after(source, "", deadline=soon())] == names[1001:]


async def test_of_all_only_an_upload_that_replaced_its_object_is_not_deleted(plain: Backend) -> None:
    source = plain.make_source()
    versions = []
    for key in ("a.png", "b.png", "c.png"):
        plain.upload(source, key, b"first")
        versions.append((await fetch(plain, source, key))[0])
    plain.upload(source, "b.png", b"second")
    assert await plain.store.delete_all(versions, deadline=soon()) == [True, False, True]
    assert (await fetch(plain, source, "b.png"))[1] == b"second"
    for key in ("a.png", "c.png"):
        with pytest.raises(ObjectGone):
            await fetch(plain, source, key)


async def test_of_all_only_the_named_versions_are_deleted(versioned: Backend) -> None:
    source = versioned.make_source(versioned=False)
    versioned.upload(source, "7.png", b"unversioned")
    old, _ = await fetch(versioned, source, "7.png")
    versioned.switch_versions_on(source)
    versions = [old]
    for data in (b"first", b"second", b"third"):
        versioned.upload(source, "7.png", data)
        versions.append((await fetch(versioned, source, "7.png"))[0])
    _, first, second, third = versions
    assert await versioned.store.delete_all([old, first, third], deadline=soon()) == [True, True, True]
    assert await fetch(versioned, source, "7.png") == (second, b"second")
    for version_id in ("null", first.version_id, third.version_id):
        with pytest.raises(ObjectGone):
            await fetch(versioned, source, "7.png", version_id)


async def test_row_44_of_all_only_the_locked_one_is_not_deleted(versioned: Backend) -> None:
    source = versioned.make_lockable_source()
    versions = []
    for key in ("a.png", "locked.png", "gone.png", "b.png"):
        versioned.upload(source, key, b"seven")
        versions.append((await fetch(versioned, source, key))[0])
    a, locked, gone, b = versions
    versioned.lock(locked)
    versioned.destroy(gone)
    refused = await versioned.store.delete_all([a, locked, gone, b], deadline=soon())
    assert [type(outcome) for outcome in refused] == [bool, ObjectRetained, bool, bool]
    assert "locked.png" in str(refused[1])
    assert await fetch(versioned, source, "locked.png") == (locked, b"seven")
    for key in ("a.png", "b.png"):
        with pytest.raises(ObjectGone):
            await fetch(versioned, source, key)
    versioned.lock(locked, locked=False)
    assert await versioned.store.delete_all([locked, a], deadline=soon()) == [True, True]


async def test_what_our_user_may_not_delete_is_told_of_each(versioned: Backend) -> None:
    source, destination = versioned.make_source(), versioned.make_destination()
    versions = []
    for bucket, key in ((destination, "a.png"), (source, "a.png"), (destination, "b.png")):
        versioned.upload(bucket, key, b"seven")
        versions.append((await fetch(versioned, bucket, key))[0])
    outcomes = await versioned.store.delete_all(versions, deadline=soon())
    assert [type(outcome) for outcome in outcomes] == [ObjectRetained, bool, ObjectRetained]
    for key in ("a.png", "b.png"):
        assert (await fetch(versioned, destination, key))[1] == b"seven"


async def test_a_missing_bucket_fails_those_that_were_in_it_and_the_call_where_nothing_else_was(
    versioned: Backend,
) -> None:
    source = versioned.make_source()
    versioned.upload(source, "7.png", b"seven")
    there, _ = await fetch(versioned, source, "7.png")
    lost = [replace(there, bucket=NO_SOURCE, key=key) for key in ("a.png", "b.png")]
    outcomes = await versioned.store.delete_all([lost[0], there, lost[1]], deadline=soon())
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, bool, StoreUnavailable]
    with pytest.raises(StoreUnavailable, match=NO_SOURCE):
        await versioned.store.delete_all(lost, deadline=soon())


async def test_each_version_is_fetched_copied_and_deleted_by_its_id(versioned: Backend) -> None:
    source, rejected = versioned.make_source(), versioned.make_destination()
    versioned.upload(source, "7.png", b"first")
    first, _ = await fetch(versioned, source, "7.png")
    versioned.upload(source, "7.png", b"second")
    second, _ = await fetch(versioned, source, "7.png")
    assert first.version_id not in (None, second.version_id)
    assert (await fetch(versioned, source, "7.png", first.version_id)) == (first, b"first")
    (await versioned.store.copy(first, rejected, "7.png", metadata={}, deadline=soon()))
    assert (await fetch(versioned, rejected, "7.png"))[1] == b"first"
    assert await versioned.store.delete(second, deadline=soon())
    assert (await fetch(versioned, source, "7.png")) == (first, b"first")
    with pytest.raises(ObjectGone):
        (await fetch(versioned, source, "7.png", second.version_id))
    assert await versioned.store.delete(second, deadline=soon())
    assert await versioned.store.delete(first, deadline=soon())
    with pytest.raises(ObjectGone):
        (await fetch(versioned, source, "7.png"))


async def test_an_older_version_is_deleted_and_the_newer_one_stays(versioned: Backend) -> None:
    source = versioned.make_source()
    versioned.upload(source, "7.png", b"first")
    first, _ = await fetch(versioned, source, "7.png")
    versioned.upload(source, "7.png", b"second")
    assert await versioned.store.delete(first, deadline=soon())
    assert (await fetch(versioned, source, "7.png"))[1] == b"second"
    with pytest.raises(ObjectGone):
        (await fetch(versioned, source, "7.png", first.version_id))


async def test_an_object_that_a_user_deleted_is_still_fetched_copied_and_deleted_by_its_version(
    versioned: Backend,
) -> None:
    source, rejected = versioned.make_source(), versioned.make_destination()
    versioned.upload(source, "7.png", b"seven")
    version, _ = await fetch(versioned, source, "7.png")
    versioned.remove(source, "7.png")
    with pytest.raises(ObjectGone):
        (await fetch(versioned, source, "7.png"))
    assert (await fetch(versioned, source, "7.png", version.version_id)) == (version, b"seven")
    (await versioned.store.copy(version, rejected, "7.png", metadata={}, deadline=soon()))
    assert (await fetch(versioned, rejected, "7.png"))[1] == b"seven"
    assert await versioned.store.delete(version, deadline=soon())
    with pytest.raises(ObjectGone):
        (await fetch(versioned, source, "7.png", version.version_id))


async def test_an_object_from_before_versions_is_released_without_touching_the_newer_one(versioned: Backend) -> None:
    source = versioned.make_source(versioned=False)
    versioned.upload(source, "7.png", b"old")
    old, _ = await fetch(versioned, source, "7.png")
    versioned.switch_versions_on(source)
    versioned.upload(source, "7.png", b"new")
    new, _ = await fetch(versioned, source, "7.png")
    assert (await fetch(versioned, source, "7.png", "null")) == (old, b"old")
    assert await versioned.store.delete(old, deadline=soon())
    assert (await fetch(versioned, source, "7.png")) == (new, b"new")
    with pytest.raises(ObjectGone):
        (await fetch(versioned, source, "7.png", "null"))


async def test_an_object_from_before_versions_is_copied_exactly_even_when_a_newer_one_is_there(
    versioned: Backend,
) -> None:
    source, rejected = versioned.make_source(versioned=False), versioned.make_destination()
    versioned.upload(source, "7.png", b"old")
    old, _ = await fetch(versioned, source, "7.png")
    versioned.switch_versions_on(source)
    versioned.upload(source, "7.png", b"new")
    (await versioned.store.copy(old, rejected, "7.png", metadata={}, deadline=soon()))
    assert (await fetch(versioned, rejected, "7.png"))[1] == b"old"


async def test_a_check_is_answered_for_an_empty_a_full_and_a_missing_bucket(backend: Backend) -> None:
    source = backend.make_source()
    (await backend.store.check(source, deadline=soon()))
    backend.upload(source, "7.png", b"seven")
    (await backend.store.check(source, deadline=soon()))
    (await backend.store.check(NO_SOURCE, deadline=soon()))


async def test_a_listing_goes_on_after_any_key_in_the_order_of_their_bytes(backend: Backend) -> None:
    source = backend.make_source()
    names = [
        "Z.png",
        "a/b c+%41&<\">'é.png",
        "a/b.png",
        "a.png",
        "x/日本/1.png",
        "\U0001f600.png",
        "\uffee.png",
        "~=?#.png",
    ]
    for key in names:
        backend.upload(source, key, b"x")
    backend.upload(source, "gone.png", b"x")
    backend.remove(source, "gone.png")
    in_order = sorted(names, key=str.encode)
    for number, after in enumerate(["", *in_order]):
        listed = await backend.store.list_after(source, after, deadline=soon())
        assert [one.key for one in listed] == in_order[number:]
        assert all(0 <= one.age_seconds < 60 for one in listed)
        assert {(one.size, one.etag) for one in listed} <= {(1, hashlib.md5(b"x", usedforsecurity=False).hexdigest())}


async def test_a_thousand_keys_are_listed_at_most_and_the_next_listing_has_the_rest(backend: Backend) -> None:
    source = backend.make_source()
    names = [f"{number:04}.png" for number in range(1001)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: backend.upload(source, key, b""), names))
    first = [one.key for one in (await backend.store.list_after(source, "", deadline=soon()))]
    assert first == names[:1000]
    assert [one.key for one in (await backend.store.list_after(source, first[-1], deadline=soon()))] == names[1000:]
    assert (await backend.store.list_after(source, names[-1], deadline=soon())) == []


async def test_shards_have_each_object_once_whatever_its_key(backend: Backend) -> None:
    source = backend.make_source()
    folders = ("", "2026/01/", "2026/11/", "a b+%41/", "日本/é/", "\U0001f600/\uffee/")
    names = [f"{folder}{number:04}.png" for folder in folders for number in range(250)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: backend.upload(source, key, b""), names))
    for most in (1, 4):
        listed, together = await in_shards(backend, source, most)
        assert sorted(listed) == sorted(names)
        assert together == 1 if most == 1 else 1 < together <= most


async def in_shards(backend: Backend, bucket: str, most: int) -> tuple[list[str], int]:
    """The keys of a bucket, listed in shards, and how many of them there were at once."""
    listed: list[str] = []
    # Pages of fifty, so that there is something to share.
    shards = Shards(Pages(backend.store, 50), [Shard(bucket=bucket)], most=most)
    together = 0

    async def deal(_: Shard, objects: Sequence[ListedObject]) -> None:
        nonlocal together
        listed.extend(one.key for one in objects)
        together = max(together, len(shards.left))

    await shards.walk(deal)
    return listed, together


class Pages:
    """A listing whose pages are small."""

    def __init__(self, listing: Listing, size: int) -> None:
        self._listing = listing
        self._size = size

    async def list_after(self, bucket: str, key: str, *, most: int = 1000, deadline: Deadline) -> list[ListedObject]:
        return await self._listing.list_after(bucket, key, most=min(most, self._size), deadline=deadline)


async def test_a_missing_bucket_cannot_be_listed(backend: Backend) -> None:
    with pytest.raises(StoreUnavailable, match="no-such-bucket"):
        (await backend.store.list_after("no-such-bucket", "", deadline=soon()))


async def test_nothing_is_begun_after_the_deadline(backend: Backend) -> None:
    source, destination = backend.make_source(), backend.make_destination()
    backend.upload(source, "7.png", b"seven")
    version, _ = await fetch(backend, source, "7.png")
    with pytest.raises(DeadlineExceeded):
        (await backend.store.get(source, "7.png", None, limit=LIMIT, deadline=Deadline(0)))
    with pytest.raises(DeadlineExceeded):
        (
            await backend.store.put(
                destination,
                "8.png",
                b"8",
                content_type="image/png",
                content_headers={},
                metadata={},
                tags={},
                deadline=Deadline(0),
            )
        )
    with pytest.raises(DeadlineExceeded):
        (await backend.store.copy(version, destination, "9.png", metadata={}, deadline=Deadline(0)))
    with pytest.raises(DeadlineExceeded):
        (await backend.store.delete(version, deadline=Deadline(0)))
    with pytest.raises(DeadlineExceeded):
        (await backend.store.delete_all([version, replace(version, key="8.png")], deadline=Deadline(0)))
    with pytest.raises(DeadlineExceeded):
        (await backend.store.set_tags(source, "7.png", {}, deadline=Deadline(0)))
    with pytest.raises(DeadlineExceeded):
        (await backend.store.check(source, deadline=Deadline(0)))
    with pytest.raises(DeadlineExceeded):
        (await backend.store.list_after(source, "", deadline=Deadline(0)))
    assert (await fetch(backend, source, "7.png"))[1] == b"seven"
    for absent in ("8.png", "9.png"):
        with pytest.raises(ObjectGone):
            (await fetch(backend, destination, absent))


async def test_a_closed_store_can_be_used_again(backend: Backend) -> None:
    source = backend.make_source()
    backend.upload(source, "7.png", b"seven")
    (await backend.store.close())
    assert (await fetch(backend, source, "7.png"))[1] == b"seven"
    (await backend.store.close())
    (await backend.store.close())
