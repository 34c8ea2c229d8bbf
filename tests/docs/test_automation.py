"""What CI and pre-commit call is there, and is what people call."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def jobs_of(workflow: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(workflow.read_text())["jobs"].values())


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_a_workflow_calls_make_s_targets_and_ci_run_alone(workflow: Path) -> None:
    called = [step["run"] for job in jobs_of(workflow) for step in job["steps"] if "run" in step]
    assert called
    for command in called:
        target = re.fullmatch(r"make ([a-z-]+)( [A-Z]+=\S+)*", command)
        if target is None:
            script = command.split()[-1]
            assert (ROOT / script).stat().st_mode & 0o111, script
        else:
            assert re.search(rf"^{target[1]}:", MAKEFILE, re.MULTILINE), command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_a_workflow_ends_in_time_and_takes_its_actions_by_version_and_no_secret(workflow: Path) -> None:
    assert "secrets." not in workflow.read_text()
    for job in jobs_of(workflow):
        assert job["timeout-minutes"] <= 240
        for step in job["steps"]:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", step.get("uses", "a/a@v1.0.0")), step


def test_ci_runs_everything_on_some_machine() -> None:
    steps = [step.get("run", "") for workflow in WORKFLOWS for job in jobs_of(workflow) for step in job["steps"]]
    assert any(step.endswith(".ci/run") for step in steps)
    assert re.search(r"^make docs$", (ROOT / ".ci/run").read_text(), re.MULTILINE)


def test_pre_commit_calls_what_lint_calls_and_downloads_nothing() -> None:
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert lint is not None
    wanted = [line.strip().removeprefix("@$(BIN)/").removesuffix(" .") for line in lint[1].splitlines()]
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
    assert [hook["entry"].removeprefix(".venv/bin/") for hook in repo["hooks"]] == wanted
