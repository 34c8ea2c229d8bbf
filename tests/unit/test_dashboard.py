"""The dashboard is one that Grafana can show: whole, without overlaps, on the reader's own data source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from observability import FOLDER, Panel, dashboard, needs_the_manifests, panels, queries_of_dashboard, variables_in
from promql import named_in
from promtool import complaints_about_queries

pytestmark = needs_the_manifests

# Of Grafana's grid.
_COLUMNS = 24
# What `kubectl apply` can write into an annotation of the ConfigMap.
_MOST_BYTES = 262_144


def test_prometheus_itself_takes_its_queries(tmp_path: Path) -> None:
    assert complaints_about_queries((query.text for query in queries_of_dashboard()), tmp_path) == ""


def test_prometheus_itself_refuses_a_query_that_is_wrong(tmp_path: Path) -> None:
    assert "parse error" in complaints_about_queries(["sum(a", "b"], tmp_path)


def test_grafana_10_reads_it() -> None:
    # Grafana 10.0 writes 38; a later Grafana brings an earlier dashboard up to date by itself.
    assert dashboard()["schemaVersion"] == 38
    assert dashboard()["title"]
    assert dashboard()["uid"]
    assert "id" not in dashboard(), "an id is a database's own"
    assert "__inputs" not in dashboard(), "a provisioned dashboard is asked nothing"


def test_every_panel_has_an_id_of_its_own() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids)) > 10


def test_panels_lie_within_the_grid_and_not_over_each_other() -> None:
    for panel in panels():
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= _COLUMNS, panel["title"]
        assert place["y"] >= 0, panel["title"]
        assert place["h"] > 0, panel["title"]
    for one, other in combinations(panels(), 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def test_one_screen_shows_all_of_it() -> None:
    # 28 rows of 38 pixels are what a monitor of 1080 lines shows in kiosk mode.
    assert max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels()) <= 28


@pytest.mark.parametrize("field", ["title", "description"])
def test_every_panel_says_what_it_shows(field: str) -> None:
    texts = [panel[field] for panel in panels()]
    assert all(texts)
    assert len(set(texts)) == len(texts)


def test_every_panel_has_a_unit() -> None:
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels())


def test_everything_asks_the_data_source_that_the_reader_chooses() -> None:
    asked = list(_values_of(dashboard(), "datasource"))
    assert len(asked) > len(panels())
    for one in asked:
        assert one == {"type": "prometheus", "uid": "${datasource}"}


def test_every_variable_is_used_and_every_one_that_is_used_is_there() -> None:
    names = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert names == {"datasource", "namespace", "model_name"}
    assert variables_in(json.dumps(dashboard())) == names


def test_every_panel_shows_only_what_the_reader_has_chosen() -> None:
    for panel in panels():
        for target in panel["targets"]:
            assert "namespace" in variables_in(target["expr"]), panel["title"]
            about_events = "mnist_pipeline_" in target["expr"]
            assert not about_events or "model_name" in variables_in(target["expr"]), panel["title"]


def test_a_variable_that_is_all_lets_series_without_its_label_through() -> None:
    # A Prometheus beside a compose file knows no namespaces.
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            assert (variable["includeAll"], variable["allValue"]) == (True, ".*")


def test_a_legend_uses_labels_that_its_query_keeps() -> None:
    for query in queries_of_dashboard():
        assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= named_in(query.text).labels, query.where


def test_what_only_grows_is_shown_by_how_fast_it_grows() -> None:
    for query in queries_of_dashboard():
        for found in re.finditer(r"(\w+\()?(\w+_(?:total|bucket|sum|count))\b", query.text):
            assert found[1] in ("rate(", "increase("), query.where


def test_a_config_map_of_it_can_be_applied() -> None:
    assert len((FOLDER / "dashboard.json").read_bytes()) < _MOST_BYTES


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    apart = (
        one["x"] + one["w"] <= other["x"]
        or other["x"] + other["w"] <= one["x"]
        or one["y"] + one["h"] <= other["y"]
        or other["y"] + other["h"] <= one["y"]
    )
    return not apart


def _values_of(value: Any, key: str) -> Iterator[Panel]:
    """What stands under a key, wherever it is; not what is called so."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key:
                yield item
            else:
                yield from _values_of(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _values_of(item, key)
