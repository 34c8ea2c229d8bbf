"""FAULTS.md: the table and the tests that it links agree."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
ROW = re.compile(r"^\| (\d+) \| .+ \| .+ \| (.*) \|$", re.MULTILINE)


def linked() -> dict[int, set[str]]:
    """The files that the table links, by row."""
    rows = ROW.findall((TESTS / "FAULTS.md").read_text())
    return {int(row): set(re.findall(r"\]\(([^)]+)\)", cell)) for row, cell in rows}


def named() -> dict[int, set[str]]:
    """The files with tests that are named after a row, by row."""
    found: dict[int, set[str]] = {}
    for file in TESTS.rglob("test_*.py"):
        for row in re.findall(r"^(?:async )?def test_row_(\d\d)_", file.read_text(), re.MULTILINE):
            found.setdefault(int(row), set()).add(file.relative_to(TESTS).as_posix())
    return found


def test_every_row_is_in_the_table_once_and_in_order() -> None:
    assert [int(row) for row, _ in ROW.findall((TESTS / "FAULTS.md").read_text())] == list(range(1, 54))


def test_the_table_links_exactly_the_files_that_have_tests_named_after_each_row() -> None:
    assert linked() == named()
