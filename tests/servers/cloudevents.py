"""The strict CloudEvents SDK (PyPI `cloudevents`, version 2), in its own environment, as a reader of Kafka messages.

KServe takes no version 2, so it cannot be had beside it.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from mnist_pipeline.adapters.records import Record
from servers import venvs

_REQUIREMENTS = Path(__file__).with_name("cloudevents.txt")
_PYTHONS = ("3.13", "3.12", "3.11", "3.10")
_READER = Path(__file__).with_name("cloudevents_reader.py")


def install() -> Path:
    """The Python of the SDK's virtual environment; see `servers.venvs`.

    Raises:
        ToolMissing: it cannot be made.
    """
    return venvs.install(_REQUIREMENTS, _PYTHONS)


def version(python: Path) -> str:
    """What is installed there."""
    return f"CloudEvents SDK {venvs.version(python, 'cloudevents')}"


def read(python: Path, record: Record) -> dict[str, Any]:
    """What the SDK's Kafka binding makes of a record: `attributes` and `data`, or what it has `refused`."""
    message = {
        "key": _base64(record.key or b""),
        "headers": [(name, _base64(value)) for name, value in record.headers],
        "value": _base64(record.value or b""),
    }
    done = subprocess.run(
        [python, "-I", _READER], input=json.dumps(message), capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise RuntimeError(f"the reader ended with code {done.returncode}:\n{done.stderr}")
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
