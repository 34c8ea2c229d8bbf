"""Where the servers' programs are kept, outside the tree: built once on a machine, by whoever needs them first."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import inherited

_TAIL_LINES = 20


class ToolMissing(Exception):
    """A program that builds or runs a server is not on this machine."""


class BuildFailed(Exception):
    """A server could not be built: says which, and shows the end of what its build printed."""


def tool(name: str) -> str:
    """The path of a program that `PATH` finds.

    Raises:
        ToolMissing: it finds none.
    """
    path = shutil.which(name)
    if path is None:
        raise ToolMissing(f"there is no program {name} on this machine")
    return path


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
    """Run a program of a build to its end, `env` added to our environment; it may need a proxy.

    Raises:
        BuildFailed: its exit code is not 0.
    """
    done = subprocess.run(
        argv,
        env={**os.environ, **inherited.PROXIES, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-_TAIL_LINES:])
        raise BuildFailed(f"{Path(argv[0]).name} ended with code {done.returncode}:\n{tail}")


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The directory `name` of the cache, filled by `build` where it is not there yet.

    Other processes that want the same wait meanwhile; a build that fails leaves nothing behind.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnist-pipeline" / "servers"
    root.mkdir(parents=True, exist_ok=True)
    directory = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            with tempfile.TemporaryDirectory(dir=root, prefix=f"{name}.") as draft:
                contents = Path(draft) / "contents"
                contents.mkdir()
                build(contents)
                contents.rename(directory)
    return directory
