"""What both servers can do: be stopped, killed and frozen, and started again on the same ports with the same data."""

from __future__ import annotations

import abc
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_pipeline.local.processes import Child, Part, Sandbox

_READY_SECONDS = 60.0


class Server(Part):
    """One server program, started by `start()`; it serves after `wait_ready()`, which a `with` block calls.

    Args:
        sandbox: where it runs.
        name: of the part, for its log and for errors; each server of a sandbox has its own.
        argv: the program and its arguments, the same at every start.
        env: its environment, the same at every start.
    """

    def __init__(self, sandbox: Sandbox, name: str, argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
        self._sandbox = sandbox
        self._name = name
        self._argv = argv
        self._env = env
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        """The running program.

        Raises:
            RuntimeError: it does not run.
        """
        if self._child is None:
            raise RuntimeError(f"{self._name} does not run")
        return self._child

    @property
    def running(self) -> bool:
        """Whether it was started, and has not ended since."""
        return self._child is not None and self._child.running

    def start(self) -> None:
        """Start it, for the first time or again; return before it is ready."""
        self._child = self._sandbox.start(self._name, self._argv, env=self._env)

    def wait_ready(self) -> None:
        """Wait until it serves.

        Raises:
            PartFailed: it ended, or does not after a minute.
        """
        self.child.wait_ready(self.is_ready, timeout_seconds=_READY_SECONDS)

    @abc.abstractmethod
    def is_ready(self) -> bool:
        """Whether it serves."""

    def stop(self) -> int:
        """End it with SIGTERM; return its exit code."""
        self.thaw()
        child, self._child = self.child, None
        return self._sandbox.stop(child)

    def kill(self) -> None:
        """End it with SIGKILL."""
        child, self._child = self.child, None
        child.kill()
        self._sandbox.stop(child)

    def freeze(self) -> None:
        """Halt it: its sockets stay open, and the kernel goes on accepting."""
        os.kill(self.child.pid, signal.SIGSTOP)
        os.waitpid(self.child.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let it go on; it may also run already."""
        if self.child.running:
            os.kill(self.child.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop it if it runs; its data stay until the sandbox goes."""
        if self._child is not None:
            self.stop()
