"""How a command's help is made: it teaches by examples, and is called as the user has called it."""

from __future__ import annotations

import argparse
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Any

PROGRAM = ContextVar("program", default="mnist-pipeline")
"""What a user types before the command: `mnist-pipeline`, or how another transformer is started."""


def command_parser(
    command: str, *, description: str, examples: str, codes: str, **more: Any
) -> argparse.ArgumentParser:
    """A parser whose help ends with examples, a comment beside each, and with what its exit codes say.

    `more` are arguments of ArgumentParser itself.
    """
    name = PROGRAM.get()
    return argparse.ArgumentParser(
        prog=f"{name} {command}",
        description=description,
        epilog=f"examples:\n{examples.replace('mnist-pipeline', name)}\nexit code:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **more,
    )


def called() -> str:
    """How this process was started, as it would be typed again."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        module = spec.name.removesuffix(".__main__")
        return "mnist-pipeline" if module == "mnist_pipeline" else f"python -m {module}"
    name = Path(sys.argv[0]).name
    return f"python {name}" if name.endswith(".py") else name
