"""What all tests share: they begin the same, and leave no program behind."""

from __future__ import annotations

import contextlib
from typing import Any

import psutil
import pytest

import inherited

# Before anything is imported that reads the environment.
inherited.leave_behind()

pytest_plugins = ["servers.fixtures"]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what the tests have left running, and let the run fail for it where every test was green."""
    terminal: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    for program in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            terminal.write_line(f"\nFAILED: a test has left this running: {' '.join(program.cmdline())}", red=True)
            program.kill()
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
