"""Tests in several processes at once, which pytest-xdist starts; a pytest plugin, loaded by tests/conftest.py.

The first process takes no test itself: it hands them out, a file at a time, and tells how they ended.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

import inherited

_AT_MOST = 8


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores, because tests wait too; for a single file, or what -k picks, the first alone."""
    files = {argument.partition("::")[0] for argument in config.args}
    if config.option.keyword or (len(files) == 1 and Path(*files).is_file()):
        return 0
    return min((os.cpu_count() or 1) + 1, _AT_MOST)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    # The first process has left it behind before it starts the others.
    node.workerinput["proxies"] = inherited.PROXIES


def pytest_configure(config: pytest.Config) -> None:
    inherited.PROXIES.update(getattr(config, "workerinput", {}).get("proxies", {}))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a test printed or logged may be no text that can be sent: half a surrogate pair in a key, say."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_encodable, value))
    return value
