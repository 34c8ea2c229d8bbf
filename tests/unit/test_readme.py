"""README.md claims what is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_pipeline import Digits, Settings
from recording import Recording

FILE = Path(__file__).parents[2] / "README.md"
README = FILE.read_text() if FILE.exists() else ""

pytestmark = pytest.mark.skipif(not README, reason="the README is not beside these tests: they run on a built wheel")


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_its_table_names_exactly_the_variables_that_are_read() -> None:
    environ = Recording(KAFKA_BOOTSTRAP_SERVERS="k", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
    Settings.from_environ(environ, Digits())
    first_column = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `")]
    named = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", " ".join(first_column)))
    assert named == {name for name in environ.asked if not name.endswith("_FILE")}


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.split("\n")[0])
def test_its_examples_run(block: str, tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    called = "from mnist_pipeline.testing import Harness\nHarness(Thumbnails, list)\n" if "main(Thumb" in block else ""
    example.write_text(block.replace('if __name__ == "__main__":', "if False:") + called)
    ran = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, ran.stderr
