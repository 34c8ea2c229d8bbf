"""What the dashboard and the alerts ask for is what a running transformer tells.

A dashboard whose metric was renamed is empty, and an alert on it never fires; nobody would notice.
"""

from __future__ import annotations

import base64
import re
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

import mnist_pipeline.pipeline.errors as tree
from e2e.following import post
from e2e.places import Place
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.outcomes import Kind
from mnist_pipeline.testing import digit_png
from observability import Query, needs_the_manifests, queries_of_dashboard, queries_of_rules, rules
from promql import Matcher, Selector, named_in

pytestmark = needs_the_manifests

# What Prometheus itself knows: of every target, and of its alerts.
_ITS_OWN = {"up", "ALERTS"}
_LABELS_OF_TARGETS = {"namespace", "pod", "container", "endpoint", "instance", "job"}

# What a label can be besides: the scrape has not seen everything that can happen.
_VALUES: dict[str, set[str]] = {
    "outcome": set(get_args(Kind)),
    "reason": {one.reason for one in vars(tree).values() if isinstance(one, type) and issubclass(one, PipelineError)},
}

# Values by metric, of each label: what a scrape has told.
Told = dict[str, dict[str, set[str]]]


@pytest.fixture(scope="module")
def told(embedded_place: Place) -> Told:
    """A scrape after one object that was filed, one that was rejected, and one inline request."""
    server = embedded_place.start()
    server.wait_ready()
    try:
        for key, data, status in (("good.png", digit_png(7), 200), ("bad.png", b"no picture", 422)):
            upload = embedded_place.upload(f"watched-{key}", data)
            assert post(server.predict_url, upload.event).status == status
        inline = {"instances": [{"data": base64.b64encode(digit_png(3)).decode()}]}
        assert post(server.predict_url, inline).status == 200
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:  # noqa: S310 - our own server
            text = answer.read().decode()
    finally:
        server.close()
    told: Told = defaultdict(lambda: defaultdict(set))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values = told[sample.name]
            for label, value in sample.labels.items():
                values[label].add(value)
    return told


def all_queries() -> list[Query]:
    return [*queries_of_rules(), *queries_of_dashboard()]


def selectors() -> Iterator[tuple[str, Selector]]:
    """Those of metrics that a transformer has to tell, each with the place where it stands."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for query in all_queries():
        for selector in named_in(query.text).selectors:
            if selector.metric not in _ITS_OWN | recorded:
                yield query.where, selector


def matchers() -> Iterator[tuple[str, Selector, Matcher]]:
    for where, selector in selectors():
        for matcher in selector.matchers:
            if matcher.label not in _LABELS_OF_TARGETS:
                yield where, selector, matcher


def test_every_metric_of_a_query_is_one_that_a_transformer_tells(told: Told) -> None:
    assert len(list(selectors())) > 30
    assert {(where, selector.metric) for where, selector in selectors() if selector.metric not in told} == set()


def test_every_label_that_a_query_compares_is_one_that_its_metric_has(told: Told) -> None:
    unknown = {
        (where, selector.metric, matcher.label)
        for where, selector, matcher in matchers()
        if matcher.label not in told[selector.metric]
    }
    assert unknown == set()


def test_every_label_by_which_a_query_groups_is_one_that_its_metrics_have(told: Told) -> None:
    for query in all_queries():
        named = named_in(query.text)
        labels = set(_LABELS_OF_TARGETS).union(*(told[metric] for metric in named.metrics))
        assert named.labels <= labels, query.where


def test_every_value_that_a_label_is_compared_with_is_one_that_it_can_have(told: Told) -> None:
    unknown = {
        (where, matcher.label, value)
        for where, selector, matcher in matchers()
        for value in matcher.values
        if value not in told[selector.metric][matcher.label] | _VALUES.get(matcher.label, set())
    }
    assert unknown == set()


def test_every_threshold_of_a_quantile_is_one_that_the_histogram_can_tell(told: Told) -> None:
    """A quantile is never above the last bucket's bound, however long it takes."""
    thresholds = 0
    for query in queries_of_rules():
        if (found := re.search(r"histogram_quantile\(.*?\)\s*[<>] ([\d.]+)", query.text, re.DOTALL)) is None:
            continue
        (buckets,) = (metric for metric in named_in(query.text).metrics if metric.endswith("_bucket"))
        bounds = sorted({float(bound) for bound in told[buckets]["le"]} - {float("inf")})
        assert bounds[0] < float(found[1]) < bounds[-1], query.where
        thresholds += 1
    assert thresholds == 2
