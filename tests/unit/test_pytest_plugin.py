"""The pytest plugin, in runs of pytest such as a user's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

THUMBNAILS = Path(__file__).parents[2] / "examples" / "thumbnails"

TASK = """
import numpy as np
import pytest
from mnist_pipeline import Task, Tensor

class Sides(Task):
    name, suffixes, labels = "sides", (".txt",), ("left", "right")
    input = Tensor((2,))

    def decode(self, data):
        return np.array([len(data), 0], np.float32)

@pytest.fixture(scope="session")
def pipeline_task():
    return Sides
"""


def test_without_a_word_the_fixtures_are_about_digits_and_work_together(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from mnist_pipeline.testing import digit_png

        def test_a_seven(harness, object_store, publisher, stub_predictor):
            (result,) = harness.send_object(digit_png(7), key="a.png").results
            assert result["data"]["predictions"] == [7]
            assert object_store.keys("digit-7") == ["a.png"]
            assert [message.key.decode() for message in publisher.messages] == [result["trace-id"]]
            assert len(stub_predictor.batches) == 1

        def test_each_test_has_its_own(object_store, publisher, stub_predictor):
            assert (object_store.keys("digit-7"), publisher.messages, stub_predictor.batches) == ([], [], [])
    """)
    pytester.runpytest_inprocess("-p", "no:asyncio").assert_outcomes(passed=2)


def test_a_conftest_names_the_task_and_the_stub_is_told_its_answers(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(TASK)
    pytester.makepyfile("""
        def test_a_side(harness, object_store, stub_predictor):
            stub_predictor.answers = ["right"]
            harness.send_object(b"abc", key="a.txt")
            assert object_store.keys("sides-right") == ["a.txt"]
            assert object_store.keys("sides") == []
    """)
    pytester.runpytest_inprocess("-p", "no:asyncio").assert_outcomes(passed=1)


def test_a_stub_that_was_told_no_answers_says_what_to_write(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(TASK)
    pytester.makepyfile("def test_a_side(harness): harness.send_object(b'abc')")
    result = pytester.runpytest_inprocess("-p", "no:asyncio")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ValueError: *stub_predictor.answers = *"])


def test_a_project_s_own_fixtures_of_these_names_take_their_place(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        from mnist_pipeline.testing import MemoryStore

        @pytest.fixture
        def publisher():
            return "their own"

        @pytest.fixture
        def object_store():
            return MemoryStore("mnist", create_buckets=True)

        def test_theirs(publisher, harness, object_store):
            assert (publisher, harness.store) == ("their own", object_store)
    """)
    pytester.runpytest_inprocess("-p", "no:asyncio").assert_outcomes(passed=1)


def test_local_stack_is_skipped_with_its_reason_where_the_extra_is_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    pytester.makepyfile("def test_it(local_stack): pass")
    result = pytester.runpytest_inprocess("-p", "no:asyncio", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED *local_stack needs the extra mnist-pipeline[[]local[]]*"])


def test_a_run_that_uses_no_fixture_of_it_imports_nothing_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_it(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("mnist_pipeline")
            ours = [name for name in sys.modules if name.startswith("mnist_pipeline")]
            assert sorted(ours) == ["mnist_pipeline", "mnist_pipeline.pytest_plugin"]
            assert not {"numpy", "PIL", "orjson", "kserve"} & set(sys.modules)
    """)
    pytester.runpytest_subprocess("-p", "no:anyio", "-p", "no:_hypothesis_pytestplugin").assert_outcomes(passed=1)


@pytest.mark.skipif(not THUMBNAILS.exists(), reason="the examples are not beside these tests")
def test_the_outside_package_s_own_tests_pass_and_import_no_server_and_no_client(tmp_path: Path) -> None:
    """That they take under a second is for `.ci/run` to say, where nothing else runs."""
    told = tmp_path / "told.py"
    told.write_text(
        "import sys\n"
        "def pytest_sessionfinish():\n"
        "    print('imported:', *{'kserve', 'minio', 'kafka', 'aiohttp', 'grpc', 'confluent_kafka'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "told", "-p", "no:cacheprovider", "-p", "no:asyncio", "-s"]
    environment = {"PYTHONPATH": f"{THUMBNAILS / 'src'}:{tmp_path}", "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(command, cwd=THUMBNAILS, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "imported:\n" in ran.stdout
