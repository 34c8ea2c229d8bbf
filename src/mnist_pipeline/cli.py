"""`mnist-pipeline COMMAND`: finds the command and runs it.

Nothing else is imported before `main` runs, so that Ctrl-C finds somebody who knows what to do with it.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from mnist_pipeline.commands import COMMANDS, EXIT_CODES
from mnist_pipeline.commands.usage import PROGRAM, called

if TYPE_CHECKING:
    from mnist_pipeline.pipeline.task import Task
    from mnist_pipeline.serving.transformer import ObjectTransformer

_PYTHONS = (signal.default_int_handler, signal.SIG_DFL)

# These ask the predictor by way of the model.
_WITH_MODEL = {"serve", "consume", "setup", "reconcile"}


def main(
    task: Task | type[Task] | None = None,
    argv: Sequence[str] | None = None,
    *,
    model: type[ObjectTransformer] | None = None,
) -> int:
    """Run the command that `argv` names, and give its exit code, one of `EXIT_CODES`.

        if __name__ == "__main__":  # workers import the file again
            raise SystemExit(main(Thumbnails))

    Args:
        task: what is one's own; None: the digits.
        argv: the arguments; None: those of the process.
        model: a subclass of `ObjectTransformer`, where one of KServe's hooks is overridden too.
    """
    before = signal.getsignal(signal.SIGINT)
    # Ctrl-C during the imports, which may make anything of an interrupt: nothing is begun, so that the process may end.
    _on_ctrl_c(signal.SIG_DFL)
    if argv is None:
        PROGRAM.set(called())
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a name may have what this terminal's encoding has not
                stream.reconfigure(errors="backslashreplace")
    try:
        return _main(task, list(sys.argv[1:] if argv is None else argv), model)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except OSError as exc:
        if exc.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        # Whoever reads has seen enough, as `head` has, or there is no room: what is left of it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if exc.errno == errno.EPIPE:
            return 141
        print(exc.strerror, file=sys.stderr)
        return 1
    finally:
        _on_ctrl_c(before)


def _on_ctrl_c(handler: Any) -> None:
    """Handle SIGINT so, where the program has no way of its own with it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) in _PYTHONS:
        signal.signal(signal.SIGINT, handler)


def _main(given: Task | type[Task] | None, arguments: list[str], model: type[ObjectTransformer] | None) -> int:
    from mnist_pipeline.commands.environment import tell_unknown_settings
    from mnist_pipeline.mnist.digits import Digits

    task = given or Digits
    task = task() if isinstance(task, type) else task
    first = arguments[0] if arguments else ""
    if first == "--version":
        from importlib.metadata import version  # it takes as long as all imports above together

        print(f"mnist-pipeline {version('mnist-pipeline')}", flush=True)
        return 0
    if first in ("-h", "--help"):
        print(usage(task), end="", flush=True)
        return 0
    if first == "--print-completion":
        from mnist_pipeline.commands import completion

        return completion.main(arguments[1:], task=task)
    # Flags alone are those of `serve`.
    name = "serve" if first.startswith("-") else first
    if name not in COMMANDS:
        if name:
            meant = get_close_matches(name, COMMANDS, 1)
            told = f"{name!a:.80} is no command" + (f": is {meant[0]} meant?" if meant else "")
            print(told, file=sys.stderr)
        print(usage(task), end="", file=sys.stderr)
        return 2
    if problems := task.problems():
        print(*problems, sep="\n", file=sys.stderr)
        return 2
    arguments = arguments[name == first :]
    if name != "demo":  # which makes its own settings
        tell_unknown_settings(arguments, task)
    return _run(name, arguments, {"task": task, "model": model} if name in _WITH_MODEL else {"task": task})


def _run(name: str, arguments: Sequence[str], parts: Mapping[str, Any]) -> int:
    try:
        command = import_module(f"mnist_pipeline.commands.{name}")
    except ModuleNotFoundError as exc:
        if exc.name is not None and exc.name.startswith("mnist_pipeline"):
            raise
        print(f"{exc.name} is not installed: pip install 'mnist-pipeline[local]'", file=sys.stderr)
        return 2
    _on_ctrl_c(signal.default_int_handler)
    code: int = command.main(arguments, **parts)
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


def serve(
    argv: Sequence[str] | None = None,
    *,
    task: Task | type[Task] | None = None,
    model: type[ObjectTransformer] | None = None,
) -> int:
    """Deprecated: `main(task, ["serve", *argv])`."""
    warnings.warn("serve() is main(task, ['serve', ...]) now, and goes in 0.3", DeprecationWarning, stacklevel=2)
    return main(task, ["serve", *(sys.argv[1:] if argv is None else argv)], model=model)


def usage(task: Task) -> str:
    """What `mnist-pipeline --help` prints."""
    from mnist_pipeline.mnist.digits import Digits

    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {says}" for name, says in COMMANDS.items())
    codes = "\n".join(f"  {code:<{width}}  {says}" for code, says in EXIT_CODES.items())
    demo = "demo" if isinstance(task, Digits) else "demo --images DIR"
    submit = f"submit {'7' if isinstance(task, Digits) else 'FILE'}{next(iter(task.suffixes), '')} --wait"
    told = f"""usage: mnist-pipeline COMMAND [--help] ...

{commands}

examples:
  mnist-pipeline {demo:<38} # see it work, on this machine alone
  mnist-pipeline serve --model_name {task.name} --predictor_host {task.name}-predictor
  mnist-pipeline {submit:<38} # and what became of it

exit codes:
{codes}

--version tells which one this is"""
    if " " not in PROGRAM.get():  # no shell completes the second word of `python -m`
        told += """; this lets Tab complete commands and flags (zsh and fish too):
  mnist-pipeline --print-completion bash > ~/.local/share/bash-completion/completions/mnist-pipeline"""
    return f"{told}\n".replace("mnist-pipeline", PROGRAM.get())
