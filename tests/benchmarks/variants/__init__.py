"""What is compared: programs that are started in the same way, `python -m MODULE --model_name … --http_port …`.

Some are posted their events, as KServe's transformers are. The others read them from Kafka, so many a batch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One program to measure.

    Attributes:
        name: in the table and in the names of topics.
        word: in `--variants`.
        module: the Python module that is the program.
        command: what stands before its flags.
        env: settings of its own, added to those that all variants get.
        batches: whether it reads its events from Kafka; else they are posted.
        files: whether it does the work; else it only answers.
        checked: whether a lost or misfiled object of its lets the benchmark fail.
        events_share: how many of the events it gets where every S3 call is slow; it would take minutes else.
        needs: a package without which it is left out.
        needs_setting: a setting without which it is left out: one that the transformer says it does not know.
    """

    name: str
    word: str
    module: str
    command: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    batches: bool = False
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
FLOOR_BATCH = "floor batch"
EMPTY = "empty KServe"

_FAST = {"KAFKA_CLIENT": "confluent"}

VARIANTS = (
    Variant(name=FLOOR, word="floor", module="benchmarks.variants.floor", checked=True),
    Variant(name=EMPTY, word="empty", module="benchmarks.variants.empty", files=False),
    Variant(name="sample", word="sample", module="benchmarks.variants.sample", events_share=0.25),
    Variant(name="ours", word="ours", module="mnist_pipeline", checked=True),
    Variant(
        name="ours [fast]",
        word="fast",
        module="mnist_pipeline",
        env=_FAST,
        checked=True,
        needs="confluent_kafka",
        needs_setting="KAFKA_CLIENT",
    ),
    Variant(name=FLOOR_BATCH, word="floor-batch", module="benchmarks.variants.floor_batch", batches=True),
    Variant(
        name="floor batch, one DELETE",
        word="floor-delete",
        module="benchmarks.variants.floor_batch",
        env={"ONE_DELETE": "1"},
        batches=True,
        checked=True,
    ),
    Variant(
        name="ours consume",
        word="consume",
        module="mnist_pipeline",
        command=("consume",),
        batches=True,
        checked=True,
    ),
    Variant(
        name="ours consume [fast]",
        word="consume-fast",
        module="mnist_pipeline",
        command=("consume",),
        env=_FAST,
        batches=True,
        checked=True,
        needs="confluent_kafka",
        needs_setting="KAFKA_CLIENT",
    ),
)


def chosen(words: list[str]) -> list[Variant]:
    """The variants that the words name; all where there are none.

    Raises:
        ValueError: a word names none.
    """
    if unknown := set(words) - set(known_words()):
        raise ValueError(f"no variant is called {', '.join(sorted(unknown))}; there are {', '.join(known_words())}")
    return [variant for variant in VARIANTS if not words or variant.word in words]


def known_words() -> list[str]:
    """Those that name a variant."""
    return [variant.word for variant in VARIANTS]
