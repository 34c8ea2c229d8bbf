"""`timeout_after`: asyncio's own `timeout`, for a Python that has none yet; unlike `wait_for` it makes no task."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout as timeout_after
else:
    from async_timeout import timeout as timeout_after  # aiohttp brings it along

__all__ = ["timeout_after"]
