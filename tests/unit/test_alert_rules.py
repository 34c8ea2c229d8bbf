"""The rules by which Prometheus calls somebody: they fire when they should, and say what to look at."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_pipeline.pipeline.setting_table import SETTINGS
from observability import alerts, dashboard, groups, needs_the_manifests, queries_of_rules
from promql import named_in
from promtool import complaints_about_rules, complaints_about_tests

pytestmark = needs_the_manifests

_TESTS = Path(__file__).with_name("alerts.yaml")
# Two sums divided, with or without what joins them.
_RATIO = re.compile(r"^\s*/", re.MULTILINE)


def test_prometheus_itself_takes_the_rules(tmp_path: Path) -> None:
    assert complaints_about_rules(groups(), tmp_path) == ""


def test_prometheus_itself_refuses_a_rule_that_is_wrong(tmp_path: Path) -> None:
    assert "parse error" in complaints_about_rules(
        [{"name": "x", "rules": [{"record": "y", "expr": "sum("}]}], tmp_path
    )


def test_every_alert_fires_when_it_should_and_is_quiet_otherwise(tmp_path: Path) -> None:
    assert complaints_about_tests(_TESTS, groups(), tmp_path) == ""


def test_every_alert_is_tried_with_what_it_is_for_and_with_what_it_is_not() -> None:
    loud, quiet = Counter[str](), Counter[str]()
    for test in yaml.safe_load(_TESTS.read_text())["tests"]:
        for one in test["promql_expr_test"]:
            (alert,) = re.findall(r'alertname="(\w+)"', one["expr"])
            (loud if one.get("exp_samples") else quiet)[alert] += 1
    names = {alert["alert"] for alert in alerts()}
    assert set(loud) == names
    assert set(quiet) == names - {"MnistPipelineSourcesRetained"}, "an alert that waits is tried while it waits"


def test_an_alert_says_how_urgent_it_is_what_is_wrong_and_what_to_look_at() -> None:
    for alert in alerts():
        assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"}, {"severity": "info"})
        says = alert["annotations"]
        assert set(says) == {"summary", "description", "look_at"}, alert["alert"]
        assert all(text.endswith((".", "?")) for text in says.values()), alert["alert"]
        # One and the same for all that fire, so that it can head a group of them, and a row of the documentation.
        assert "{{" not in says["summary"]


def test_the_names_of_alerts_are_their_own_and_those_that_the_dashboard_counts() -> None:
    names = [alert["alert"] for alert in alerts()]
    assert len(set(names)) == len(names)
    (pattern,) = {
        matcher.text
        for annotation in dashboard()["annotations"]["list"]
        for selector in named_in(annotation["target"]["expr"]).selectors
        for matcher in selector.matchers
        if matcher.label == "alertname"
    }
    assert all(re.fullmatch(pattern, name) for name in names)


def test_what_to_look_at_names_alerts_and_settings_that_there_are() -> None:
    names = {alert["alert"] for alert in alerts()}
    settings = {one.name for one in SETTINGS}
    for alert in alerts():
        told = " ".join(alert["annotations"].values())
        assert set(re.findall(r"\bMnistPipeline\w+", told)) <= names, alert["alert"]
        assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", told)) <= settings, alert["alert"]


def test_an_alert_s_text_uses_labels_that_it_has() -> None:
    for alert, query in _alerts_with_their_queries():
        used = set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"])))
        # A plain selection keeps the labels of its targets.
        kept = named_in(query).labels or {"namespace", "pod"}
        assert used <= kept, alert["alert"]


def test_a_ratio_calls_nobody_where_little_or_nothing_comes() -> None:
    ratios = [(alert, query) for alert, query in _alerts_with_their_queries() if _RATIO.search(query)]
    assert len(ratios) >= 4
    for alert, query in ratios:
        assert re.search(r"\band\b.*\)\s*>= \d+$", query, re.DOTALL), alert["alert"]


@pytest.mark.parametrize("words", ["histogram_quantile", "rate", "increase"])
def test_what_is_counted_is_told_for_each_model_of_each_namespace(words: str) -> None:
    asked = [query.text for query in queries_of_rules() if words in query.text]
    assert asked
    for text in asked:
        assert {"namespace", "model_name"} <= named_in(text).labels, text


def _alerts_with_their_queries() -> list[tuple[dict[str, Any], str]]:
    return [(alert, alert["expr"]) for alert in alerts()]
