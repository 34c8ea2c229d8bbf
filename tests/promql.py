"""What a query of Prometheus names: metrics, labels, and the values that labels are compared with.

It takes a query whose syntax is right for granted: that is promtool's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*")
      | (?P<range>\[[^\]]*\])
      | (?P<number>[0-9][0-9a-z.]*)
      | (?P<name>[A-Za-z_:][\w:]*)
      | (?P<sign>=~|!~|!=|==|>=|<=|\S)""",
    re.VERBOSE,
)
_GROUPING = frozenset(("by", "without", "on", "ignoring", "group_left", "group_right"))
_OPERATORS = frozenset(("and", "or", "unless", "offset", "bool", "atan2"))


@dataclass(frozen=True, kw_only=True)
class Matcher:
    """What a label has to be, such as `outcome=~"filed|review"`."""

    label: str
    operator: str
    text: str

    @property
    def values(self) -> tuple[str, ...]:
        """Those that it names one by one; of a pattern, its words."""
        alternatives = self.text.split("|") if "~" in self.operator else [self.text]
        return tuple(one for one in alternatives if re.fullmatch(r"\w*", one))


@dataclass(frozen=True, kw_only=True)
class Selector:
    """A metric, and what its labels have to be."""

    metric: str
    matchers: tuple[Matcher, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a query names; `labels`: by which it groups or joins."""

    selectors: tuple[Selector, ...]
    labels: frozenset[str]

    @property
    def metrics(self) -> frozenset[str]:
        """The names of its metrics."""
        return frozenset(selector.metric for selector in self.selectors)


def named_in(query: str) -> Named:
    """Look through a query.

    Raises:
        ValueError: it selects by labels alone, without a metric's name.
    """
    tokens = [found[0] for found in _TOKEN.finditer(query)]
    selectors, labels = [], set[str]()
    rest = _Rest(tokens)
    for token in rest:
        if token == "{":
            raise ValueError(f"a selector without a metric: {query}")
        if token in _GROUPING:
            if rest.next_is("("):
                labels |= {one for one in rest.up_to(")") if one not in "(,"}
        elif _is_name(token) and token not in _OPERATORS and not (rest.next_is("(") or rest.next_is(*_GROUPING)):
            matchers = _matchers(rest.up_to("}")) if rest.next_is("{") else ()
            selectors.append(Selector(metric=token, matchers=matchers))
    return Named(selectors=tuple(selectors), labels=frozenset(labels))


class _Rest:
    """The tokens that are not read yet."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def __iter__(self) -> Iterator[str]:
        while self._at < len(self._tokens):
            self._at += 1
            yield self._tokens[self._at - 1]

    def next_is(self, *wanted: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at] in wanted

    def up_to(self, end: str) -> list[str]:
        begin = self._at
        self._at = self._tokens.index(end, begin) + 1
        return self._tokens[begin : self._at - 1]


def _is_name(token: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z_:][\w:]*", token))


def _matchers(tokens: list[str]) -> tuple[Matcher, ...]:
    told = [token for token in tokens if token not in "{,"]
    return tuple(
        Matcher(label=label, operator=operator, text=text[1:-1])
        for label, operator, text in zip(told[::3], told[1::3], told[2::3], strict=True)
    )
