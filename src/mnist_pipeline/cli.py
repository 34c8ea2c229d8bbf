"""`mnist-pipeline COMMAND`: finds the command and runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mnist_pipeline.commands.environment import tell_unknown_settings
from mnist_pipeline.commands.serve import serve
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.task import Task

if TYPE_CHECKING:
    from mnist_pipeline.serving.transformer import ObjectTransformer

_USAGE = """usage: mnist-pipeline [serve] --model_name NAME --predictor_host HOST[:PORT] [KServe's flags]
       mnist-pipeline setup [--check] [--topic TOPIC] [--notification-arn ARN] ...
       mnist-pipeline source --sink URL [--topic TOPIC] [--unordered] ...
       mnist-pipeline reconcile --predictor_host HOST[:PORT] [--older-than 5m] [--dry-run] [--rate N]
       mnist-pipeline demo [--count N] [--images DIR] [--predictor_host HOST[:PORT]] [--keep]

serve      the transformer, until SIGTERM (what is meant where no command is given)
setup      makes buckets, topics and the notification of a site, or checks them
source     delivers a topic's records over HTTP where there is no Knative
reconcile  finds the objects whose notification was lost, and sends them down the same path
demo       the whole path on this machine: uploads objects and shows where they go

mnist-pipeline COMMAND --help tells more; mnist-pipeline --version which one this is.
"""

# Each has a function `main(argv, ...) -> exit code`; imported only when it is wanted.
_COMMANDS = {
    "demo": "mnist_pipeline.commands.demo",
    "reconcile": "mnist_pipeline.commands.reconcile",
    "setup": "mnist_pipeline.commands.setup",
    "source": "mnist_pipeline.commands.source",
}
# What is told of the program itself.
_ABOUT: Mapping[str, Callable[[], str]] = {
    "-h": lambda: _USAGE,
    "--help": lambda: _USAGE,
    "--version": lambda: f"mnist-pipeline {version('mnist-pipeline')}\n",
}
# These ask the predictor by way of the model.
_WITH_MODEL = {"reconcile", "setup"}
# These, and `serve`, are told by the environment what to do; the demo makes its own.
_WITH_SETTINGS = {"reconcile", "setup", "source"}


def main(
    task: Task | type[Task] = Digits,
    argv: Sequence[str] | None = None,
    *,
    model: type[ObjectTransformer] | None = None,
) -> int:
    """Run the command that `argv` names, and give its exit code.

        if __name__ == "__main__":  # workers import the file again
            raise SystemExit(main(Thumbnails))

    Args:
        task: what is one's own; the digits, where it is left out.
        argv: the arguments; None: those of the process.
        model: a subclass of `ObjectTransformer`, where one of KServe's hooks is overridden too.
    """
    task = task() if isinstance(task, type) else task
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    if command in _COMMANDS:
        if problems := task.problems():
            print(*problems, sep="\n", file=sys.stderr)
            return 2
        if command in _WITH_SETTINGS:
            tell_unknown_settings(arguments, task)
        parts = {"task": task, "model": model} if command in _WITH_MODEL else {"task": task}
        return _run(_COMMANDS[command], arguments, parts)
    if command == "serve" or (command is None and arguments and arguments[0] not in _ABOUT):
        return serve(arguments, task=task, model=model)
    if command is None and arguments:
        print(_ABOUT[arguments[0]](), end="")
        return 0
    if command is not None:
        meant = get_close_matches(command, ("serve", *_COMMANDS), 1)
        print(f"{command!a:.80} is no command" + (f": is {meant[0]} meant?" if meant else ""), file=sys.stderr)
    print(_USAGE, end="", file=sys.stderr)
    return 2


def _run(module: str, arguments: Sequence[str], parts: Mapping[str, Any]) -> int:
    try:
        command = import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is not None and exc.name.startswith("mnist_pipeline"):
            raise
        print(f"{exc.name} is not installed: pip install 'mnist-pipeline[local]'", file=sys.stderr)
        return 2
    code: int = command.main(arguments, **parts)
    return code
