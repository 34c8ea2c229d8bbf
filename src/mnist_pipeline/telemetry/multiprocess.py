"""Several workers count together: prometheus-client then keeps its numbers in files, in a folder that they share."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder of the files: all processes that have the same one count together."""

# In memory, so that nothing of it is ever written to a disk.
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it is made by mkdtemp
_PREFIX = "mnist-pipeline-metrics-"
_LOCK = "lock"


@contextmanager
def counted_together(workers: int, environ: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Let workers that are started in the block count together, in a folder that is removed after it.

    One worker, or a folder that is named already, is left as it is. The folders of processes that were killed are
    removed too: a pod's memory outlives its containers.
    """
    if workers <= 1 or environ.get(MULTIPROCESS):
        yield
        return
    with ExitStack() as exit_:
        try:
            folder = exit_.enter_context(_folder())
        except OSError as exc:
            log.warning("/metrics tells of one worker at a time: no folder can be made for all of them (%s)", exc)
            yield
            return
        environ[MULTIPROCESS] = folder
        exit_.callback(environ.pop, MULTIPROCESS)
        _choose_values()
        exit_.callback(_choose_values)
        yield


@contextmanager
def _folder() -> Iterator[str]:
    """A folder of our own, in memory where there is room for it; it is ours for as long as we hold its lock."""
    parent = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for other in parent.glob(f"{_PREFIX}*"):
        _remove_if_left(other)
    folder = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
    try:
        with Path(folder, _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    """Remove a folder whose process has ended: a lock ends with whoever holds it, whatever ended that."""
    try:
        with (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # it is in use, or not ours, or just made or gone
        return


def _choose_values() -> None:
    """Have prometheus-client look at the variable anew: it does once, when it is imported."""
    if (values := sys.modules.get("prometheus_client.values")) is not None:
        values.ValueClass = values.get_value_class()  # type: ignore[attr-defined]
