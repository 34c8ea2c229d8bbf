"""How many inputs each property is tried on: few, always the same, in `make test`; many new ones in `make fuzz`."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "test",
    max_examples=40,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "fuzz",
    settings.get_profile("test"),
    max_examples=5_000,
    stateful_step_count=50,
    derandomize=False,
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

_INPUTS = pytest.StashKey[dict[str, int]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_INPUTS] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    # What Hypothesis's own plugin leaves there for --hypothesis-show-statistics: a paragraph for each phase.
    if call.when == "call" and (statistics := getattr(item, "hypothesis_statistics", "")):
        tried = sum(map(int, re.findall(r"(\d+) (?:passing|failing|invalid)", statistics)))
        item.config.stash[_INPUTS][item.nodeid] = tried
    return (yield)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    inputs = config.stash[_INPUTS]
    if os.environ.get("HYPOTHESIS_PROFILE") != "fuzz" or not inputs:
        return
    terminalreporter.section("inputs tried")
    for line in _lines(inputs):
        terminalreporter.write_line(line)


def _lines(inputs: dict[str, int]) -> Iterator[str]:
    for nodeid, tried in inputs.items():
        yield f"{tried:>10,}  {nodeid}"
    yield f"{sum(inputs.values()):>10,}  in all"
