"""The event loop of a process, and the garbage collector beside it, set up for many small things a second."""

from __future__ import annotations

import asyncio
import gc

# An event makes some thousands of objects, nearly all of which go by themselves.
_GC_THRESHOLDS = (20_000, 20, 20)


def calm_garbage_collector() -> None:
    """Let it leave alone what was imported: to look for garbage in that, and as often as Python does by itself, takes
    8 % of all CPU.
    """
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def use_uvloop() -> None:
    """Let the next event loop be uvloop's, where it is installed; it is the current one too."""
    try:
        import uvloop  # noqa: PLC0415 - KServe brings it along, but not on every system
    except ImportError:
        return
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(asyncio.new_event_loop())
