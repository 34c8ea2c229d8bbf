"""Outlive a process to clean up after it: end the process groups it started, remove its temporary directory.

Run as a script of its own (`python -I -S reaper.py DIRECTORY`), with nothing but the standard library, so that it is
there within milliseconds. It reads lines from a pipe that only the parent holds open: `+PGID` for a group that runs,
`-PGID` for one that has ended. The pipe's end means that the parent is gone, however it went, SIGKILL included; then
whatever is still listed is ended. POSIX has no other portable way to tie a child's life to its parent's.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable

GRACE_SECONDS = 5.0


def remaining_groups(lines: Iterable[str]) -> set[int]:
    """The process groups that were announced and never taken back, once `lines` has ended."""
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    return groups


def signal_groups(groups: set[int], number: int) -> set[int]:
    """Send the signal (0: only look) to every group; return those that still exist."""
    alive = set()
    for group in groups:
        try:
            os.killpg(group, number)
        except OSError:  # no such group any more, or only zombies are left in it
            continue
        alive.add(group)
    return alive


def main() -> None:
    """Wait for the pipe on stdin to end, then clean up."""
    directory = sys.argv[1]
    alive = signal_groups(remaining_groups(sys.stdin), signal.SIGTERM)
    give_up = time.monotonic() + GRACE_SECONDS
    while alive and time.monotonic() < give_up:
        time.sleep(0.05)
        alive = signal_groups(alive, 0)
    signal_groups(alive, signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
