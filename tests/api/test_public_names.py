"""What is public is whole: each name is there and described, and each type of ours that a user meets is public too."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import mnist_pipeline
from mnist_pipeline import testing

# What a hook of KServe's is given and gives on as it is, and what the server and the path have to do with each
# other: nobody who writes a task or a hook makes one, or looks into one.
HANDED_ON = {
    "Notification",
    "Inline",
    "Outcome",
    "Result",
    "Passage",
    "Wanted",
    "BodyLimits",
    "RestRequest",
    "V2Request",
}
PUBLIC = {name: getattr(module, name) for module in (mnist_pipeline, testing) for name in module.__all__}


def members_of(kind: type) -> Iterator[Any]:
    """What a user of a class calls, overrides or reads."""
    for name, member in inspect.getmembers(kind):
        if name == "__init__" or not name.startswith("_"):
            if isinstance(member, property):
                yield member.fget
            elif isinstance(member, functools.cached_property):
                yield member.func
            elif (inspect.isfunction(member) or inspect.ismethod(member)) and _is_ours(member):
                yield member


def _is_ours(member: Any) -> bool:
    return (member.__module__ or "").startswith("mnist_pipeline")


def types_in(hint: Any) -> Iterator[type]:
    """The classes in a type hint."""
    if inspect.isclass(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from types_in(argument)


def hints_of(public: Any) -> dict[str, Any]:
    """Those of a class or a function; some modules import a type for type checkers only."""
    return typing.get_type_hints(public, localns=PUBLIC)


def types_met(public: Any) -> Iterator[type]:
    """The classes in the signatures, attributes and bases of a public name."""
    if not inspect.isclass(public):
        hints = [hints_of(public)]
    else:
        yield from public.__bases__
        hints = [hints_of(public), *map(hints_of, members_of(public))]
    for hint in hints:
        for name, one in hint.items():
            if not name.startswith("_"):
                yield from types_in(one)


def errors_told(public: Any) -> set[str]:
    """The names in the `Raises:` of a public name, and of its members."""
    members = members_of(public) if inspect.isclass(public) else ()
    told = "\n".join(inspect.getdoc(one) or "" for one in (public, *members))
    sections = re.findall(r"^Raises:\n((?:    .*\n?)+)", told, re.MULTILINE)
    lines = re.findall(r"^    (\w[\w, ]*):", "".join(sections), re.MULTILINE)
    return {name for line in lines for name in line.split(", ")}


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_is_there_and_described(name: str) -> None:
    assert inspect.getdoc(PUBLIC[name])


@pytest.mark.parametrize("name", PUBLIC)
def test_each_type_of_ours_that_a_user_meets_is_public_too(name: str) -> None:
    met = {kind.__name__ for kind in types_met(PUBLIC[name]) if kind.__module__.startswith("mnist_pipeline")}
    assert met - PUBLIC.keys() - HANDED_ON == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_each_error_that_a_docstring_tells_of_can_be_caught_by_a_public_name(name: str) -> None:
    assert errors_told(PUBLIC[name]) - PUBLIC.keys() - vars(builtins).keys() == set()


@pytest.mark.parametrize("name", [name for name, public in PUBLIC.items() if inspect.isclass(public)])
def test_a_method_that_is_made_by_a_call_has_a_docstring_where_the_reference_looks_for_one(name: str) -> None:
    (kind,) = ast.parse(textwrap.dedent(inspect.getsource(PUBLIC[name]))).body
    assert isinstance(kind, ast.ClassDef)
    for made, after in zip(kind.body, [*kind.body[1:], None], strict=True):
        if isinstance(made, ast.Assign) and inspect.isroutine(vars(PUBLIC[name])[ast.unparse(made.targets[0])]):
            assert isinstance(after, ast.Expr), ast.unparse(made)


def test_type_checkers_see_the_names_that_are_there() -> None:
    source = inspect.getsource(mnist_pipeline)
    homes = {name: home for home, name in re.findall(r"from mnist_pipeline\.([\w.]+) import (\w+) as", source)}
    assert homes == {name: PUBLIC[name].__module__.removeprefix("mnist_pipeline.") for name in mnist_pipeline.__all__}


def test_a_name_that_was_renamed_still_works_and_says_what_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["mnist-pipeline", "serve"])
    with pytest.warns(DeprecationWarning, match=r"main\(task, \['serve', \.\.\.\]\) .* 0\.3"):
        assert mnist_pipeline.serve([]) == 2
