"""Several coroutines at once, none of which is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")


async def concurrently(coroutines: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """What they return, in their order. All of them have ended when this does: by themselves where one raises, whose
    error is then raised, and cancelled where this is.
    """
    if len(coroutines) == 1:  # a task would cost as much as what is done in it
        return [await coroutines[0]]
    tasks = [asyncio.create_task(one) for one in coroutines]
    try:
        if tasks:
            await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return [task.result() for task in tasks]
