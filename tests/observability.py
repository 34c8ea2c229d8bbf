"""What `manifests/components/observability` asks Prometheus: the queries of its rules and of its dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "manifests" / "components" / "observability" / "parts"

Rule = dict[str, Any]
Panel = dict[str, Any]

needs_the_manifests = pytest.mark.skipif(
    not FOLDER.exists(), reason="manifests/ is not beside these tests: they run on a built wheel"
)

# Grafana's own, and one of a dashboard.
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query with a value in the place of every variable; `legend`: how its series are called."""

    where: str
    text: str
    legend: str = ""


def groups() -> list[dict[str, Any]]:
    """The groups of rules, as Prometheus reads them."""
    groups: list[dict[str, Any]] = yaml.safe_load((FOLDER / "prometheus-rule.yaml").read_text())["spec"]["groups"]
    return groups


def rules() -> list[Rule]:
    """All rules."""
    return [rule for group in groups() for rule in group["rules"]]


def alerts() -> list[Rule]:
    """Those that call somebody."""
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana reads it."""
    read: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
    return read


def panels() -> list[Panel]:
    """Its panels."""
    panels: list[Panel] = dashboard()["panels"]
    return panels


def variables_in(text: str) -> set[str]:
    """The names of the dashboard's variables that a text uses."""
    names = {found[1] or found[2] for found in _VARIABLE.finditer(text)}
    return {name for name in names if not name.startswith("__")}


def queries_of_rules() -> Iterator[Query]:
    """One for each rule."""
    for rule in rules():
        yield Query(where=rule.get("alert") or rule["record"], text=rule["expr"])


def queries_of_dashboard() -> Iterator[Query]:
    """Those of panels, of annotations, and of the values of variables."""
    for panel in panels():
        for target in panel["targets"]:
            where = f"panel {panel['title']!r}, {target['refId']}"
            yield Query(where=where, text=_filled(target["expr"]), legend=target["legendFormat"])
    for annotation in dashboard()["annotations"]["list"]:
        yield Query(where=f"annotation {annotation['name']!r}", text=_filled(annotation["target"]["expr"]))
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            asked = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert asked is not None, variable
            # Grafana's own function, said in PromQL.
            text = f"count by ({asked[2]}) ({_filled(asked[1])})"
            yield Query(where=f"variable {variable['name']!r}", text=text)


def _filled(text: str) -> str:
    return _VARIABLE.sub(".*", text.replace("$__rate_interval", "5m"))
