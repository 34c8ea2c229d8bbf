"""Calls that block, each in a daemon thread of its own, waited for on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def in_thread(call: Callable[[], _T], *, name: str) -> asyncio.Future[_T]:
    """Begin `call` in a thread of its own; a future of the running loop says what came of it.

    Not in the loop's own pool: whoever waits there for a broker that is away would keep everybody else waiting, and the
    process from ending. The future may be left alone, and cancelling it does not end the call.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_T] = loop.create_future()
    # Read once, an error that nobody waits for is not complained of.
    outcome.add_done_callback(lambda done: None if done.cancelled() else done.exception())

    def finish(report: Callable[[], None]) -> None:
        if not outcome.done():
            report()

    def run() -> None:
        report: Callable[[], None]
        try:
            result = call()
        except Exception as exc:  # noqa: BLE001 - handed over to whoever waits
            error = exc

            def report() -> None:
                outcome.set_exception(error)
        else:

            def report() -> None:
                outcome.set_result(result)

        # The loop may have been closed meanwhile, and then nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(finish, report)

    threading.Thread(target=run, name=name, daemon=True).start()
    return outcome


async def is_done_within(future: asyncio.Future[_T], seconds: float) -> bool:
    """Wait for a future that others wait for too; whether it is done after so many seconds at most."""
    if not future.done():
        await asyncio.wait([future], timeout=seconds)
    return future.done()
