"""`PredictionClient`: the same client for code that is not async."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, TypeVar, final

from mnist_pipeline.client.client import AsyncPredictionClient
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.published import PredictionResult
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.task import Task

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _blocking(
    method: Callable[Concatenate[AsyncPredictionClient, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[PredictionClient, _P], _T]:
    """The method without `await`."""

    @functools.wraps(method)
    def call(self: PredictionClient, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._run(method(self._client, *args, **kwargs))

    return call


@final
class PredictionClient:
    """`AsyncPredictionClient` for code that is not async: its methods are the same, and block.

        with PredictionClient.from_environ() as client:
            sent = client.upload(data, key="0.png")
            print(client.result(sent).predictions)

    It has an event loop in a thread of its own, and may be used from several threads.
    """

    upload = _blocking(AsyncPredictionClient.upload)
    """As `AsyncPredictionClient.upload`."""
    ask = _blocking(AsyncPredictionClient.ask)
    """As `AsyncPredictionClient.ask`."""
    ask_instances = _blocking(AsyncPredictionClient.ask_instances)
    """As `AsyncPredictionClient.ask_instances`."""
    result = _blocking(AsyncPredictionClient.result)
    """As `AsyncPredictionClient.result`."""

    def __init__(self, settings: Settings, *, url: str | None = None) -> None:
        self._client = AsyncPredictionClient(settings, url=url)
        self._lock = threading.Lock()
        self._is_closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="prediction-client", daemon=True)
        self._thread.start()

    @classmethod
    def from_environ(
        cls, task: Task | type[Task] = Digits, environ: Mapping[str, str] | None = None, *, url: str | None = None
    ) -> PredictionClient:
        """With the settings of the environment, which are those of the transformer.

        Raises:
            SettingsError: they cannot work; a line for each.
        """
        return cls(AsyncPredictionClient.from_environ(task, environ).settings, url=url)

    def __enter__(self) -> PredictionClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def results(
        self, *, trace_id: str | None = None, since: datetime | None = None, follow: bool = False
    ) -> Iterator[PredictionResult]:
        """As `AsyncPredictionClient.results`."""
        found = self._client.results(trace_id=trace_id, since=since, follow=follow)
        try:
            while (result := self._run(_next(found))) is not None:
                yield result
        finally:
            if not self._is_closed:
                self._run(found.aclose())

    def close(self) -> None:
        """Close the connections, and end the thread; a call that waits in another one raises RuntimeError."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        ending.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._client.close()
        await self._loop.shutdown_asyncgens()  # results that nobody has read to their end

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        with self._lock:  # what is begun before the end is begun is ended by it
            if self._is_closed:
                coroutine.close()
                raise RuntimeError("the client is closed")
            running = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return running.result()
        except CancelledError as exc:
            raise RuntimeError("the client is closed") from exc
        except BaseException:
            running.cancel()  # Ctrl-C comes to this thread, and not to the loop's
            raise


async def _next(found: AsyncGenerator[PredictionResult, None]) -> PredictionResult | None:
    return await anext(found, None)
