"""What the figures were measured on: they do not travel without it."""

from __future__ import annotations

import os
import platform
import re
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import psutil

_PACKAGES = ("kserve", "minio", "kafka-python", "confluent-kafka", "aiohttp", "uvloop", "pillow")


def described() -> dict[str, object]:
    """The machine, its Python, the packages and the time."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": _kernel(),
        "python": platform.python_version(),
        "packages": {package: version for package in _PACKAGES if (version := _version(package))},
    }


def sentence(about: dict[str, object], servers: tuple[str, str]) -> str:
    """The same in one line, for the table and the plot."""
    return (
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, {about['kernel']}, Python {about['python']}; "
        f"{servers[0]}; {servers[1]}"
    )


def _cpu() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _kernel() -> str:
    # Without what a distributor or a provider has added.
    release = re.match(r"[\d.]+", platform.release())
    return f"{platform.system()} {release[0] if release else ''}".rstrip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
