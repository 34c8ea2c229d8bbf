"""What a test does for want of a tool: it is skipped with the reason, or fails where the tools are required."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str, *, required_by: str = "REQUIRE_TOOLS") -> NoReturn:
    """Skip the test with that reason; fail it where the variable `required_by` is 1."""
    if os.environ.get(required_by) == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
