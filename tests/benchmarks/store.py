"""What a call of `MinioObjectStore` costs us on MinIO: `PYTHONPATH=tests python -m benchmarks.store`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import TypeVar

from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from mnist_pipeline.adapters.event_loop import calm_garbage_collector, use_uvloop
from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.pipeline.ports import Deadline
from servers.minio import MinioServer, install

_ROUNDS = 5
_OBJECTS = 2000
_IN_FLIGHT = 32
_BUCKET = "mnist"
_BODY = bytes(300)

Item = TypeVar("Item")
Result = TypeVar("Result")


async def _timed(call: Callable[[Item], Awaitable[Result]], items: list[Item]) -> tuple[float, list[Result]]:
    """Own CPU milliseconds a call, and what the calls gave."""
    left = iter(items)
    results: list[Result] = []

    async def work() -> None:
        results.extend([await call(item) for item in left])

    began = time.process_time()
    await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))
    return (time.process_time() - began) / len(items) * 1000, results


async def _measure(store: MinioObjectStore) -> None:
    costs: dict[str, list[float]] = {"PUT": [], "GET": [], "DELETE": []}
    for number in range(_ROUNDS):
        keys = [f"{number}/{key}.png" for key in range(_OBJECTS)]
        cpu, _ = await _timed(
            lambda key: store.put(
                _BUCKET,
                key,
                _BODY,
                content_type="image/png",
                content_headers={},
                metadata={"trace-id": key},
                tags={},
                deadline=Deadline(60),
            ),
            keys,
        )
        costs["PUT"].append(cpu)
        cpu, stored = await _timed(
            lambda key: store.get(_BUCKET, key, None, limit=len(_BODY), deadline=Deadline(60)), keys
        )
        costs["GET"].append(cpu)
        cpu, _ = await _timed(lambda one: store.delete(one.version, deadline=Deadline(60)), stored)
        costs["DELETE"].append(cpu)
    await store.close()
    for call, each in costs.items():
        print(f"{call:6} {median(each):.3f} ms  ({', '.join(f'{cpu:.3f}' for cpu in each)})")


def main() -> None:
    """Print a line for each call."""
    with Sandbox() as sandbox, MinioServer(install(), sandbox) as server:
        server.wait_ready()
        server.client().make_bucket(bucket_name=_BUCKET)
        server.client().set_bucket_versioning(bucket_name=_BUCKET, config=VersioningConfig(ENABLED))
        use_uvloop()
        calm_garbage_collector()
        asyncio.get_event_loop().run_until_complete(_measure(MinioObjectStore(server.root)))


if __name__ == "__main__":
    main()
