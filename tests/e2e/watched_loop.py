"""A transformer that tells what holds its event loop up: `python -m e2e.watched_loop`, on plain asyncio.

What a callback of the loop takes is looked at, as asyncio's own debug mode does, but without what other programs on the
machine make of it: the CPU time of the thread, and the time in which it neither ran nor could have run. A line goes to
stderr for each callback that computed for `LIMIT_SECONDS`, or was blocked for `BLOCKED_SECONDS`: that is more,
since another thread of the process may have to wait for a processor while it holds the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from mnist_pipeline import main

LIMIT_SECONDS, BLOCKED_SECONDS = 0.1, 1.0
MARK = "the event loop was held up"

_run = asyncio.Handle._run  # noqa: SLF001 - there is no other place to look at


def waited_for_a_processor() -> float:
    """Seconds in which this thread could have run, but others did (proc(5), `schedstat`); 0 where it is not told."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9
    except OSError:
        return 0.0


def watched(handle: asyncio.Handle) -> None:
    """Run a callback, and tell where it held the loop up."""
    wall, cpu = time.perf_counter(), time.thread_time()
    waited = waited_for_a_processor()
    _run(handle)
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    if wall < LIMIT_SECONDS:
        return
    blocked = wall - cpu - (waited_for_a_processor() - waited)
    if cpu >= LIMIT_SECONDS or blocked >= BLOCKED_SECONDS:
        sys.stderr.write(f"{MARK}: {cpu:.3f} s of computing, {blocked:.3f} s blocked, by {handle!r}\n")


if __name__ == "__main__":
    asyncio.Handle._run = watched  # type: ignore[method-assign,assignment]  # noqa: SLF001 - as above
    raise SystemExit(main(argv=["serve", *sys.argv[1:], "--event-loop", "asyncio"]))
