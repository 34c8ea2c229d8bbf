"""Child programs and the temporary directory they work in; neither outlives this process.

with Sandbox() as sandbox:
    child = sandbox.start("gateway", [program, "--option"], env={"NAME": "value"})
    child.wait_ready(lambda: answers(url), timeout_seconds=30)
"""

from __future__ import annotations

import abc
import collections
import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mnist_pipeline.local import reaper

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing since 3.11

STOP_GRACE_SECONDS = 10.0
_PROBE_INTERVAL_SECONDS = 0.05
_LOG_TAIL_LINES = 20

# What a child inherits of our environment. A list of what is let through, not of what is kept out: a `MINIO_…`,
# `KAFKA_…`, `S3_…` or proxy variable of the user's shell must not change how the parts on loopback find each other.
_INHERITED = (
    "COVERAGE_PROCESS_START",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "TZ",
    "VIRTUAL_ENV",
)

# Below the ephemeral range of Linux (32768) and macOS (49152), so that no outgoing connection takes the port between
# our look and the child's bind.
_PORTS = range(20_000, 32_000)
# How many of the ports that were given away last are kept from everybody who asks, while their programs still start.
_PORTS_KEPT = 64
_kept: collections.deque[int] = collections.deque()


def _inherited_environment() -> dict[str, str]:
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # A child works in another directory, where a relative entry would name another place.
    if search_path := os.environ.get("PYTHONPATH"):
        environment["PYTHONPATH"] = os.pathsep.join(
            str(Path(entry).absolute()) for entry in search_path.split(os.pathsep)
        )
    return environment


@contextlib.contextmanager
def _unblocked(number: signal.Signals) -> Iterator[None]:
    """Let what is started meanwhile be reached by the signal, although whoever started us has blocked it."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class PartFailed(Exception):
    """A part of the local stack did not come up, or ended on its own: says which, and shows the end of its log."""

    def __init__(self, part: str, problem: str, log_tail: str = "") -> None:
        super().__init__(f"{part} {problem}" + (f"\nthe end of its log:\n{log_tail}" if log_tail else ""))
        self.part = part
        self.problem = problem
        self.log_tail = log_tail


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens, and which no other caller is given for now.

    A program may take seconds until it listens. Till then the UDP port of the same number, which nobody else needs, is
    held in its place: other processes see that too, and it is free again when we end, in whatever way.
    """
    for port in random.sample(_PORTS, k=min(200, len(_PORTS))):
        with socket.socket(type=socket.SOCK_DGRAM) as held, socket.socket() as probe:
            # As servers do: a port whose last connections still linger in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                held.bind(("127.0.0.1", port))
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _kept.append(held.detach())
            if len(_kept) > _PORTS_KEPT:
                os.close(_kept.popleft())
            return port
    raise PartFailed("the network", "has no free port on 127.0.0.1")


def answers_ok(port: int, path: str, *, timeout_seconds: float = 2.0) -> bool:
    """Whether `GET http://127.0.0.1:<port><path>` is answered 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Part(abc.ABC):
    """What works until `close()`; a `with` block waits until it is ready, and closes it."""

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_ready(self) -> None:  # noqa: B027 - most parts are ready once they are constructed
        """Return when it does its work.

        Raises:
            PartFailed: it does not.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Stop it and release what it holds; safe to call twice."""


class Child:
    """One running child program, the leader of its own process group; made by `Sandbox.start`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        """The process id, which is its process group's id too."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the program has not ended yet."""
        return self._process.poll() is None

    def log_tail(self) -> str:
        """The last lines of what it wrote to stdout and stderr."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
        return ""

    def failed(self, problem: str) -> PartFailed:
        """The error that says this part has `problem`, with the end of its log."""
        return PartFailed(self.name, problem, self.log_tail())

    def wait_ready(self, probe: Callable[[], bool], *, timeout_seconds: float) -> None:
        """Wait until `probe()` is true.

        Raises:
            PartFailed: the program ended, or the time is up.
        """
        give_up = time.monotonic() + timeout_seconds
        while not probe():
            if not self.running:
                raise self.failed(f"ended with code {self._process.returncode} before it was ready")
            if time.monotonic() > give_up:
                raise self.failed(f"was not ready after {timeout_seconds:g} s")
            time.sleep(_PROBE_INTERVAL_SECONDS)

    def stop(self, *, grace_seconds: float = STOP_GRACE_SECONDS) -> int:
        """SIGTERM to the program, SIGKILL to what is left of its group after the grace; return its exit code."""
        if self.running:
            # Only the leader: as Kubernetes does it, who signals a container's first process and no other.
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_seconds)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL to the program and to all of its group; return its exit code."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()


class Sandbox(Part):
    """A temporary directory and the child programs that work in it.

    `close()`, or leaving the `with` block, stops the children in reverse order and removes the directory. Should this
    process end without it, by SIGKILL for instance, a small watcher does the same.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mnist-pipeline-"))
        self.children: list[Child] = []
        self._closed = False
        # Away from the terminal: Ctrl-C must not reach it.
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def start(self, name: str, argv: Sequence[str | Path], *, env: Mapping[str, str]) -> Child:
        """Start a program in the directory; what it prints goes to `<directory>/<name>.log`.

        Args:
            name: of the part, for its log and for errors.
            argv: the program and its arguments.
            env: added to the few variables that a child inherits.

        Raises:
            PartFailed: there is no such program.
        """
        log = self.directory / f"{name}.log"
        ours = {"TMPDIR": str(self.directory), "PYTHONUNBUFFERED": "1"}
        with log.open("ab") as output:
            try:
                # Its own process group: Ctrl-C reaches us alone and the parts are stopped in order.
                with _unblocked(signal.SIGTERM):
                    process = subprocess.Popen(
                        argv,
                        env={**_inherited_environment(), **ours, **env},
                        cwd=self.directory,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
            except OSError as exc:
                raise PartFailed(name, f"cannot be started: {exc}") from exc
        self._tell_reaper(f"+{process.pid}")
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def stop(self, child: Child, *, grace_seconds: float = STOP_GRACE_SECONDS) -> int:
        """Stop one child for good; return its exit code."""
        code = child.stop(grace_seconds=grace_seconds)
        self.children.remove(child)
        self._tell_reaper(f"-{child.pid}")
        return code

    def close(self) -> None:
        """Stop the children, the last one first, and remove the directory; safe to call twice."""
        if self._closed:
            return
        for child in reversed(self.children.copy()):
            self.stop(child)
        shutil.rmtree(self.directory, ignore_errors=True)
        self._closed = True
        self._reaper.communicate()

    def _tell_reaper(self, line: str) -> None:
        pipe = self._reaper.stdin
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # somebody killed it: we still clean up ourselves
                pipe.write(f"{line}\n".encode())
                pipe.flush()
