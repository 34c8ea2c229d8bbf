"""Time that nobody waits for: what takes minutes by an event loop's timers is tested in a moment, always the same."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class _Leap(selectors.PollSelector):
    """Leaps to the next timer instead of waiting for it, unless a thread has something to do until then."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self.threads:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self.seconds += max(timeout, 0)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """Its time begins at 0, and passes only where nothing else is left to do."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.seconds

    def run_in_executor(  # type: ignore[override]  # its type variables are of Python 3.11
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        self._leap.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: object) -> None:
        self._leap.threads -= 1


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """What `asyncio.run` does, on such a loop; no task may be left."""
    loop = _Loop()
    try:
        result = loop.run_until_complete(main)
        assert not asyncio.all_tasks(loop)
        return result
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def leaping(test: Callable[_Arguments, Coroutine[Any, Any, None]]) -> Callable[_Arguments, None]:
    """Run the test on such a loop: once `asyncio.sleep(60)` is over, all that belongs into that minute has happened."""

    @functools.wraps(test)
    def on_the_loop(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        run(test(*args, **kwargs))

    return on_the_loop


def now() -> float:
    """Seconds since the loop began."""
    return asyncio.get_running_loop().time()
