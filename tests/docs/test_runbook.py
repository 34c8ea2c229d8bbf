"""The runbook has every line that names a variable, and every warning."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/howto/runbook.md").read_text()
KNOWN = re.findall(r"`([^`\n]{6,})`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
# Where a site is set up, uploads are sent or results read, a person sees the line at once.
ROOMS = ("adapters", "consuming", "pipeline", "serving")
_WARNINGS = {"warning", "error", "exception"}
_NAMED = re.compile(r"(.*?)(?:; )?check (?:[A-Z]+_|--)")
# Of setup's own work, and what uvicorn says of a request.
_OTHERS = {"kafka_topics.py", "buckets.py", "http_protocol.py"}


def texts(node: ast.AST) -> Iterator[str]:
    """The constant texts in it."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def lines() -> Iterator[tuple[str, str]]:
    """Where a warning is, and the longest part of it that is always the same; and what comes before a `check`."""
    for room in ROOMS:
        for file in (ROOT / "src/mnist_pipeline" / room).glob("*.py"):
            if file.name in _OTHERS:
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _WARNINGS:
                    if node.args and isinstance(node.args[0], ast.Constant):
                        parts = re.split(r"%[.\d]*[srdg]", str(node.args[0].value))
                        yield file.name, max(parts, key=len).strip(" :;,")
                elif isinstance(node, ast.Constant) and (found := _NAMED.match(str(node.value))) and found[1]:
                    yield file.name, found[1].strip(" :;,")


@pytest.mark.parametrize(("file", "line"), sorted(set(lines())))
def test_a_line_is_in_the_runbook(file: str, line: str) -> None:
    assert any(one in line or line in one for one in KNOWN), f"{file} says {line!r}"
