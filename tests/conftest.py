"""What all tests share: they begin the same, and leave no program behind."""

from __future__ import annotations

import contextlib
from typing import Any

import psutil
import pytest

import inherited

# Before anything is imported that reads the environment.
inherited.leave_behind()

pytest_plugins = ["side_by_side", "servers.fixtures"]

_LEFT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEFT] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[_LEFT] += getattr(node, "workeroutput", {}).get("left", [])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what the tests have left running, and let the run fail for it where every test was green."""
    left = session.config.stash[_LEFT]
    for program in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            left.append(" ".join(program.cmdline()))
            program.kill()
    if hasattr(session.config, "workeroutput"):
        # One of several processes has nobody to tell but the first.
        session.config.workeroutput["left"] = left
        return
    terminal: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    for program in left:
        terminal.write_line(f"\nFAILED: a test has left this running: {program}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
