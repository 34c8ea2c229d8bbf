"""Prometheus' own check of rules and of queries, on the machines that have it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from required import missing


def complaints_about_rules(groups: Iterable[Mapping[str, Any]], folder: Path) -> str:
    """What it says about these groups of rules; the empty text is praise. The folder is for its files."""
    # JSON is YAML, too.
    (folder / "rules.yaml").write_text(json.dumps({"groups": list(groups)}))
    return _complaints("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml", folder=folder)


def complaints_about_queries(queries: Iterable[str], folder: Path) -> str:
    """What it says about the syntax of these queries: it reads rules, so each becomes one."""
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    return complaints_about_rules([{"name": "queries", "rules": rules}], folder)


def complaints_about_tests(tests: Path, groups: Iterable[Mapping[str, Any]], folder: Path) -> str:
    """What is not as a file of tests says of these groups of rules, to which it refers as `rules.yaml`."""
    (folder / "rules.yaml").write_text(json.dumps({"groups": list(groups)}))
    shutil.copy(tests, folder)
    return _complaints("test", "rules", tests.name, folder=folder)


def _complaints(*arguments: str, folder: Path) -> str:
    program = shutil.which("promtool")
    if program is None:
        missing("there is no program promtool on this machine; Debian's package prometheus has it")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
