"""Bytes become tensors, by a task's `decode`: a few at a time, and off the event loop where it may take long."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mnist_pipeline.pipeline import content_encoding, instances
from mnist_pipeline.pipeline.errors import BadTensor, DeadlineExceeded, PipelineError, Retryable
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.task import Batch

log = logging.getLogger(__name__)

# Pixels take far more room than the bytes that they come from, so few images are decoded at once: as many as there are
# processors, and no more than four, because a container sees all of its node's, whatever its own share is.
DECODED_AT_ONCE = min(os.cpu_count() or 1, 4)

# So much is decoded on the event loop, in less than the hop to a thread and back takes: bytes, and pixels of a PNG.
_QUICK_BYTES = 4096
_QUICK_PIXELS = 64 * 64
# Of the instances of one request so many are decoded in one hop, so that another's have their turn between them.
_INSTANCES_A_HOP = 16

_PNG = b"\x89PNG\r\n\x1a\n"

_Result = TypeVar("_Result")


class Decoder:
    """Makes tensors of what comes from a store, or inline. It can be pickled: its threads stay behind."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._task = settings.task
        self._threads: ThreadPoolExecutor | None = None

    async def decode(self, data: bytes, deadline: Deadline, *, encoding: str = "") -> NDArray[Any]:
        """One object as a tensor such as `task.input` says; `encoding` is its Content-Encoding.

        Raises:
            Permanent: it can never be one, or without its encoding it is larger than an object may be.
            DeadlineExceeded: it takes longer than there is time; its thread is left to itself.
            Retryable: the task failed in a way of its own, which is not the object's fault.
        """
        if not encoding and _is_quick(data):
            return self._decoded(data)
        return await self._in_thread(partial(self._decoded, data, encoding), deadline)

    async def decode_all(self, given: Sequence[Any], deadline: Deadline) -> Batch:
        """The instances of an inline request, images and tensors, as `(N, …)`.

        Raises:
            Reject, BadTensor: one of them can never be one.
            DeadlineExceeded: they are more than can be decoded in the time.
        """
        tensor = self._task.input
        batch = np.empty((len(given), *tensor.shape), tensor.datatype)

        def decode(start: int, end: int) -> None:
            for index in range(start, end):
                deadline.remaining()  # thousands of images fit into one body
                batch[index] = self._instance(given[index])

        if len(given) == 1 and self._is_quick_instance(given[0]):
            decode(0, 1)
            return batch
        for start in range(0, len(given), _INSTANCES_A_HOP):
            await self._in_thread(partial(decode, start, min(start + _INSTANCES_A_HOP, len(given))), deadline)
        return batch

    def close(self) -> None:
        """End the threads; a later call starts new ones."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_threads": None}

    async def _in_thread(self, call: Callable[[], _Result], deadline: Deadline) -> _Result:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(DECODED_AT_ONCE, thread_name_prefix="decode")
        result = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await asyncio.wait_for(result, deadline.remaining())
        except asyncio.TimeoutError as exc:
            raise DeadlineExceeded("the event's deadline has passed while its bytes were decoded") from exc

    def _decoded(self, data: bytes, encoding: str = "") -> NDArray[Any]:
        if encoding:
            data = content_encoding.decoded(data, encoding, limit=self._settings.max_object_bytes)
        try:
            tensor = self._task.decode(data)
        except PipelineError:
            raise
        except Exception as exc:
            log.exception("%s.decode raised something else than Reject", type(self._task).__name__)
            raise Retryable(f"the object could not be decoded ({type(exc).__name__})") from exc
        try:
            return self._task.input.of(tensor)
        except ValueError as exc:
            # A bug of the task, and no object's fault.
            wanted = list(self._task.input.shape)
            raise Retryable(f"{type(self._task).__name__}.decode gave {exc} instead of {wanted}") from exc

    def _is_quick_instance(self, instance: Any) -> bool:
        content = instances.content_of(instance)
        if isinstance(content, str) and len(content) <= 2 * _QUICK_BYTES:
            content = instances.image_in(content)
        if isinstance(content, bytes):
            return _is_quick(content)
        # Nested lists do not tell how much is in them.
        return isinstance(content, np.ndarray)

    def _instance(self, instance: Any) -> NDArray[Any]:
        data = instances.content_of(instance)
        if isinstance(data, str):
            data = instances.image_in(data)
        if isinstance(data, bytes):
            return self._decoded(data)
        try:
            return self._task.input.of(data)
        except (ValueError, OverflowError) as exc:
            tensor = self._task.input
            says = f"an instance has {exc}: {tensor.size} finite numbers make one of {list(tensor.shape)}"
            raise BadTensor(says) from exc


def _is_quick(data: bytes) -> bool:
    """Whether it is a PNG so small that it takes less time than a hop to a thread: of nothing else a few bytes tell."""
    # Width and height of IHDR, which is the first chunk (PNG specification, section 11.2.2).
    pixels = int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    return data.startswith(_PNG) and len(data) <= _QUICK_BYTES and pixels <= _QUICK_PIXELS
