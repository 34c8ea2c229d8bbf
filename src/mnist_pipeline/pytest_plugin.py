"""The pytest plugin: fixtures for tests of a transformer, there wherever mnist-pipeline is installed.

    def test_a_seven_is_filed_as_a_seven(harness):
        harness.send_object(digit_png(7), key="a.png")
        assert harness.store.keys("digit-7") == ["a.png"]

They are about the digits; another transformer says in its `conftest.py`, once:

    @pytest.fixture(scope="session")
    def pipeline_task():
        return Thumbnails()

It stands at the top of the package and imports nothing by itself, so that it costs nothing where nobody asks for it.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mnist_pipeline.local.stack import Stack
    from mnist_pipeline.pipeline.task import Task
    from mnist_pipeline.testing import Harness, MemoryPublisher, MemoryStore, StubPredictor


@pytest.fixture(scope="session")
def pipeline_task() -> Task:
    """The task that the other fixtures are about: the digits, unless it is overridden, with the same scope."""
    from mnist_pipeline.mnist.digits import Digits

    return Digits()


@pytest.fixture
def object_store(pipeline_task: Task) -> MemoryStore:
    """A store in memory with the buckets that `setup` makes for the task."""
    from mnist_pipeline.pipeline.settings import Settings
    from mnist_pipeline.testing import MemoryStore

    return MemoryStore.of(Settings(task=pipeline_task))


@pytest.fixture
def publisher() -> MemoryPublisher:
    """A Kafka topic in memory."""
    from mnist_pipeline.testing import MemoryPublisher

    return MemoryPublisher()


@pytest.fixture
def stub_predictor(pipeline_task: Task) -> StubPredictor:
    """A predictor without a network: it recognises `digit_png`; of another task each tensor has the first label, unless
    its `answers` are set.
    """
    from mnist_pipeline.mnist.digits import Digits
    from mnist_pipeline.testing import StubPredictor

    return StubPredictor() if isinstance(pipeline_task, Digits) else StubPredictor(pipeline_task.labels[0])


@pytest.fixture
def harness(
    pipeline_task: Task, stub_predictor: StubPredictor, object_store: MemoryStore, publisher: MemoryPublisher
) -> Harness:
    """The task on these three."""
    from mnist_pipeline.testing import Harness

    return Harness(pipeline_task, stub_predictor, store=object_store, publisher=publisher)


@pytest.fixture(scope="session")
def local_stack(pipeline_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole path on this machine, once a run; skipped where the extra `[local]` is not installed."""
    for name in ("confluent_kafka", "onnxruntime"):
        pytest.importorskip(name, reason="pip install 'mnist-pipeline[local]'")
    from mnist_pipeline.local.stack import Stack

    # The module of a task may be no program: `main(…)` may stand in another one, or nowhere yet.
    program = tmp_path_factory.mktemp("local_stack") / "transformer.py"
    path = list(map(os.path.abspath, sys.path))
    program.write_text(_PROGRAM.format(path=path, pickled=pickle.dumps(pipeline_task)))
    with Stack(task=pipeline_task, program=str(program)) as stack:
        yield stack


_PROGRAM = """\
import pickle
import sys

sys.path[:] = {path!r}
from mnist_pipeline import main

if __name__ == "__main__":
    raise SystemExit(main(pickle.loads({pickled!r})))
"""
