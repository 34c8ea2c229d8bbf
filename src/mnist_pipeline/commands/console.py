"""What people see of a command: tables, and progress on a terminal; by rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

# Where there is no terminal nobody sees a line end; rich would take 80 columns.
_ENDLESS = 10_000

_NARROW = 110


def progress() -> Progress:
    """A bar on a terminal, gone at its end; elsewhere nothing. What is printed meanwhile stands above it."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console()
    return Progress(*columns, console=console, transient=True, disable=not console.file.isatty())


def is_narrow() -> bool:
    """Whether it is a terminal in which a long row folds."""
    console = Console()
    return console.file.isatty() and console.width < _NARROW


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Iterable[str] = ()) -> None:
    """Print columns one beside the other; `right` names those of numbers."""
    console = Console(highlight=False)
    is_terminal = console.file.isatty()  # rich takes FORCE_COLOR for a terminal
    if not is_terminal:
        console = Console(highlight=False, width=_ENDLESS)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    if is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    print(*(line.rstrip() for line in captured.get().splitlines()), sep="\n")


def printable(text: str) -> str:
    """The same, with what a terminal would obey written out: keys may have anything in them."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
