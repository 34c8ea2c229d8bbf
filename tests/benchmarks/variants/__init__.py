"""What is compared: programs that are started in the same way, `python -m MODULE --model_name … --http_port …`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One program to measure.

    Attributes:
        name: in the table, in `--variants` and in the names of topics.
        module: the Python module that is the program.
        env: settings of its own, added to those that all variants get.
        files: whether it does the work; else it only answers.
        checked: whether a lost or misfiled object of its lets the benchmark fail.
        events_share: how many of the events it gets where every S3 call is slow; it would take minutes else.
        needs: a package without which it is left out.
        needs_setting: a setting without which it is left out: one that the transformer says it does not know.
    """

    name: str
    module: str
    env: Mapping[str, str] = field(default_factory=dict)
    files: bool = True
    checked: bool = False
    events_share: float = 1.0
    needs: str | None = None
    needs_setting: str | None = None

    def missing_package(self) -> str | None:
        """The sentence that says which package is not there, None where all are."""
        if self.needs is None or importlib.util.find_spec(self.needs) is not None:
            return None
        return f"the package {self.needs} is not installed"

    def unknown_setting(self, log: str) -> str | None:
        """The sentence that says which setting it does not know, by what it wrote at its start."""
        if self.needs_setting is None or f"{self.needs_setting} is no setting" not in log:
            return None
        return f"the transformer has no setting {self.needs_setting} yet"


FLOOR = "floor"
EMPTY = "empty KServe"

VARIANTS = (
    Variant(name=FLOOR, module="benchmarks.variants.floor", checked=True),
    Variant(name=EMPTY, module="benchmarks.variants.empty", files=False),
    Variant(name="sample", module="benchmarks.variants.sample", events_share=0.25),
    Variant(name="ours", module="mnist_pipeline", checked=True),
    Variant(
        name="ours [fast]",
        module="mnist_pipeline",
        env={"KAFKA_CLIENT": "confluent"},
        checked=True,
        needs="confluent_kafka",
        needs_setting="KAFKA_CLIENT",
    ),
)


def chosen(words: list[str]) -> list[Variant]:
    """The variants that the words name, by the last word of a name too: `empty`, `fast`.

    Raises:
        ValueError: a word names none.
    """
    found = [variant for variant in VARIANTS if not words or {_short(variant.name), variant.name} & set(words)]
    known = {name for variant in VARIANTS for name in (_short(variant.name), variant.name)}
    if unknown := set(words) - known:
        raise ValueError(f"no variant is called {', '.join(sorted(unknown))}; there are {', '.join(short_names())}")
    return found


def short_names() -> list[str]:
    """The names as they are typed: `floor`, `empty`, `sample`, `ours`, `fast`."""
    return [_short(variant.name) for variant in VARIANTS]


def _short(name: str) -> str:
    return name.rpartition("[")[2].rstrip("]") if "[" in name else name.split(maxsplit=1)[0]
