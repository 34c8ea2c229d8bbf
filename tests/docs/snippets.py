"""The code blocks of a page, and how they are run.

A block is told how it is meant by its fence:

- ```` ```python title="sorter.py" ````: a file in the page's folder; without a title it runs, all of a page in
  one namespace;
- ```` ```sh ````: runs, and has to succeed;
- ```` ```console ````: each line that begins with `$` runs, and has to print what stands below it. A line `...`
  stands for any lines, and `…` for any characters;
- ```` ```json ````, ```` ```yaml ````: are read; in JSON `{…}` and `[…]` stand for something left out;
- `{on="stack"}`: it runs on the local stack, whose addresses take the place of those in it;
- `{untested="why"}`: it does not run, and why.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# The second is how MkDocs takes options that are not its own: between braces.
_FENCE = re.compile(r'^```(\w+)((?: title="[^"\n]*")?|(?: \{[^\n]*\}))\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_OPTION = re.compile(r'([a-z-]+)="([^"]*)"')
_SECONDS = 150


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block; `line` is that of its fence."""

    language: str
    line: int
    text: str
    title: str = ""
    on: str = ""
    untested: str = ""


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page of Markdown.

    Raises:
        ValueError: a fence is indented, has no language, or options that are none of these.
    """
    blocks = []
    for found in _FENCE.finditer(page):
        options = dict(_OPTION.findall(found[2]))
        if unknown := set(options) - {"title", "on", "untested"}:
            raise ValueError(f"a fence with {', '.join(unknown)}")
        blocks.append(
            Block(
                language=found[1],
                line=page[: found.start()].count("\n") + 1,
                text=found[3],
                title=options.get("title", ""),
                on=options.get("on", ""),
                untested=options.get("untested", ""),
            )
        )
    if page.count("```") != 2 * len(blocks):
        raise ValueError("a fence is indented, has no language or no end")
    return blocks


class Reader:
    """Does what a reader of a page would do, in a folder of its own."""

    def __init__(self, folder: Path, addresses: Mapping[str, str]) -> None:
        self._folder = folder
        self._addresses = addresses
        self._namespace: dict[str, Any] = {"__name__": "page"}

    def follow(self, block: Block) -> None:
        """Do what a block says; fails where it does not work."""
        {"python": self._python, "sh": self._sh, "console": self._console, "json": _json, "yaml": _yaml}[
            block.language
        ](block)

    def _python(self, block: Block) -> None:
        if block.title:
            (self._folder / block.title).write_text(block.text)
        else:
            code = compile(self._on_stack(block.text), f"line {block.line}", "exec")
            exec(code, self._namespace)  # noqa: S102 - our own pages

    def _sh(self, block: Block) -> None:
        code, printed = self._run(block.text)
        assert code == 0, printed

    def _console(self, block: Block) -> None:
        for step in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:.*\\\n)*.*\n", step)
            assert command is not None
            printed = self._run(command[0])[1].rstrip("\n") + "\n"
            assert re.fullmatch(_pattern(step[command.end() :]), printed), f"{command[0]} printed:\n{printed}"

    def _run(self, command: str) -> tuple[int, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ran = subprocess.run(
            ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", self._on_stack(command)],
            cwd=self._folder,
            env={**os.environ, "COLUMNS": "100", "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        return ran.returncode, ran.stdout

    def _on_stack(self, text: str) -> str:
        for theirs, ours in self._addresses.items():
            text = text.replace(theirs, ours)
        return text


def _pattern(printed: str) -> str:
    return "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace("…", ".*") + r"\n" for line in printed.splitlines()
    )


def _json(block: Block) -> None:
    json.loads(re.sub(r"([{\[])…([}\]])", r"\1\2", block.text))


def _yaml(block: Block) -> None:
    assert list(yaml.safe_load_all(block.text))
