"""The environment, read variable by variable; every problem is kept, by the variable's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from mnist_pipeline.pipeline.setting_values import plain

_Value = TypeVar("_Value")


def content_of(file: str) -> str:
    """A secret's file, without the line's end.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read.
    """
    return Path(file).read_text(encoding="utf-8").rstrip("\r\n")


class Reader:
    """The environment, what of it was asked for, and the problems found in it so far."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.asked: set[str] = set()
        self.problems: list[str] = []

    def problem(self, name: str, says: str) -> None:
        """Keep what is wrong with a variable."""
        self.problems.append(f"{name} {says}")

    def _get(self, name: str) -> str | None:
        self.asked.add(name)
        return self._environ.get(name)

    def text(self, name: str) -> str | None:
        """The variable without surrounding blanks; None where it is unset or empty."""
        return (self._get(name) or "").strip() or None

    def is_told(self, name: str) -> bool:
        """Whether a problem of the variable, or of its file, is known."""
        return any(problem.startswith(name) for problem in self.problems)

    def parsed(self, name: str, parse: Callable[[str], _Value], default: _Value) -> _Value:
        """The variable as `parse` reads it; `default` where it is unset or wrong, which is then a problem."""
        text = self.text(name)
        if text is None:
            return default
        try:
            return parse(text)
        except (ValueError, OSError) as exc:
            self.problem(name, str(exc))
            return default

    def secret(self, name: str) -> str | None:
        """The variable, or the content of the file that `<name>_FILE` names; empty where it is set but empty."""
        file = self.text(name + "_FILE")
        value = self._get(name)
        if file is None:
            return value
        if value is not None:
            self.problem(name + "_FILE", f"is set beside {name}: one of the two")
            return None
        try:
            return content_of(file)
        except (OSError, UnicodeDecodeError) as exc:
            self.problem(name + "_FILE", f"names a file that cannot be read: {plain(exc)}")
            return None

    def first_secret(self, *names: str) -> tuple[str, str | None]:
        """The first of these that is set, with its name; the first name where none is."""
        for name in names:
            if self._get(name) is not None or self.text(name + "_FILE"):
                return name, self.secret(name)
        return names[0], None
