"""A pytest plugin: the public fakes as fixtures. It is loaded by its entry point wherever the package is installed.

    @pytest.fixture(scope="session")
    def pipeline_task():  # in conftest.py: what the others are about
        return Thumbnails

    def test_a_cat_is_filed_as_a_cat(harness, stub_predictor, object_store):
        stub_predictor.answers = ["cat"]
        harness.send_object(jpeg, key="a.jpg")
        assert object_store.keys("photos-cat") == ["a.jpg"]

A project's own fixtures of these names take their place. Nothing but pytest is imported until a fixture is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mnist_pipeline.local.stack import Stack
    from mnist_pipeline.pipeline.task import Task
    from mnist_pipeline.testing import Harness, MemoryPublisher, MemoryStore, StubPredictor

__all__ = ["harness", "local_stack", "object_store", "pipeline_task", "publisher", "stub_predictor"]


@pytest.fixture(scope="session")
def pipeline_task() -> type[Task]:
    """The task that the other fixtures are about: the digits, unless a conftest.py or a module overrides it.

    One that `local_stack` shall serve too has to be overridden in session scope, and importable by name.
    """
    from mnist_pipeline.mnist.digits import Digits

    return Digits


@pytest.fixture
def object_store(pipeline_task: type[Task]) -> MemoryStore:
    """The harness's store, with the buckets that `setup` makes for the task."""
    from mnist_pipeline.pipeline.settings import Settings
    from mnist_pipeline.testing import MemoryStore

    return MemoryStore.of(Settings(task=pipeline_task()))


@pytest.fixture
def publisher() -> MemoryPublisher:
    """The harness's publisher."""
    from mnist_pipeline.testing import MemoryPublisher

    return MemoryPublisher()


@pytest.fixture
def stub_predictor() -> StubPredictor:
    """The harness's predictor: it recognises the images of `digit_png`, and of another task says its `answers`."""
    from mnist_pipeline.testing import StubPredictor

    return StubPredictor()


@pytest.fixture
def harness(
    pipeline_task: type[Task], stub_predictor: StubPredictor, object_store: MemoryStore, publisher: MemoryPublisher
) -> Harness:
    """The task on the other three, with its own defaults and none of the environment's settings."""
    from mnist_pipeline.testing import Harness

    return Harness(pipeline_task, stub_predictor, store=object_store, publisher=publisher)


@pytest.fixture(scope="session")
def local_stack(pipeline_task: type[Task], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The task's transformer on the embedded stack, one for all tests of the session; needs `mnist-pipeline[local]`."""
    pytest.importorskip("confluent_kafka", reason="local_stack needs the extra mnist-pipeline[local]")
    from mnist_pipeline.local.stack import Stack

    module, name = pipeline_task.__module__, pipeline_task.__qualname__
    program = tmp_path_factory.mktemp("transformer") / "transformer.py"
    program.write_text(f"""\
from mnist_pipeline import main
from {module} import {name}

if __name__ == "__main__":
    raise SystemExit(main({name}))
""")
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100 - of text, as PYTHONPATH is
    with Stack(task=pipeline_task(), program=str(program), settings={"PYTHONPATH": path}) as stack:
        yield stack
