"""`mnist-pipeline --print-completion SHELL`: a script by which a shell completes commands, flags and files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

import shtab

from mnist_pipeline.commands import COMMANDS
from mnist_pipeline.commands.usage import PROGRAM
from mnist_pipeline.pipeline.task import Task

# What stands for a value says what it is.
_KINDS = {"IMAGE": shtab.FILE, "DIR": shtab.DIRECTORY}


def main(argv: Sequence[str], *, task: Task) -> int:
    """Print the script; exit code 2 for a shell that is not known."""
    shells = shtab.SUPPORTED_SHELLS
    if len(argv) != 1 or argv[0] not in shells:
        print(f"usage: {PROGRAM.get()} --print-completion {{{','.join(shells)}}}", file=sys.stderr)
        return 2
    if " " in PROGRAM.get():
        print(f"a shell completes programs of one word, and {PROGRAM.get()} has several", file=sys.stderr)
        return 2
    print(shtab.complete(_all_commands(task), argv[0]))
    return 0


def _all_commands(task: Task) -> argparse.ArgumentParser:
    """One parser of all commands."""
    root = argparse.ArgumentParser(prog=PROGRAM.get(), allow_abbrev=False)
    commands = root.add_subparsers()
    for name, says in COMMANDS.items():
        try:
            parser = import_module(f"mnist_pipeline.commands.{name}").parser(task)
        except ModuleNotFoundError:
            parser = argparse.ArgumentParser()  # of an extra that is not installed
        for action in parser._actions:  # noqa: SLF001 - shtab has no other way to it
            if action.metavar in _KINDS:
                action.complete = _KINDS[action.metavar]
        commands.add_parser(name, parents=[parser], add_help=False, help=says)
    return root
