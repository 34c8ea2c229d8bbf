"""What a query names is found in it."""

from __future__ import annotations

import pytest

from promql import Matcher, Named, Selector, named_in


def test_a_metric_is_told_from_functions_operators_and_numbers() -> None:
    named = named_in("histogram_quantile(0.99, sum(rate(a_bucket[5m]))) > 1e3 and b offset 15m unless c:d * on () e")
    assert named.metrics == {"a_bucket", "b", "c:d", "e"}


def test_labels_by_which_series_are_grouped_or_joined_are_found() -> None:
    named = named_in("sum by (x, y) (a) / on (z) group_left (v) max without (w) (b)")
    assert named == Named(
        selectors=(Selector(metric="a"), Selector(metric="b")), labels=frozenset(("x", "y", "z", "v", "w"))
    )


def test_what_labels_have_to_be_is_found_with_its_values() -> None:
    (selector,) = named_in('sum(rate(a{x=~"filed|review", y!="", z="a b, {c}"}[5m]))').selectors
    assert selector == Selector(
        metric="a",
        matchers=(
            Matcher(label="x", operator="=~", text="filed|review"),
            Matcher(label="y", operator="!=", text=""),
            Matcher(label="z", operator="=", text="a b, {c}"),
        ),
    )
    assert selector.matchers[0].values == ("filed", "review")


@pytest.mark.parametrize("text", [".*", "mnist-.+"])
def test_a_pattern_that_names_nothing_has_no_values(text: str) -> None:
    assert Matcher(label="x", operator="=~", text=text).values == ()


def test_an_aggregation_may_be_followed_by_its_labels() -> None:
    assert named_in("sum(a) by (x)") == Named(selectors=(Selector(metric="a"),), labels=frozenset(("x",)))


def test_a_selector_without_a_metric_is_an_error() -> None:
    with pytest.raises(ValueError, match="without a metric"):
        named_in('sum({x="1"})')
