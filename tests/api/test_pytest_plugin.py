"""The pytest plugin, in test suites of somebody else's."""

from __future__ import annotations

import subprocess
import sys

import pytest

# After each run pytester forgets the modules that came with it; half of a package, imported anew, does not go together.
import mnist_pipeline.local.stack
import mnist_pipeline.testing  # noqa: F401

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def ini(pytester: pytest.Pytester) -> None:
    """Another plugin that is installed here warns where it is not told."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")


OF_PHOTOS = """
    import pytest
    from thumbnails import Thumbnails

    @pytest.fixture(scope="session")
    def pipeline_task():
        return Thumbnails()
"""


def test_the_fixtures_are_about_the_digits_where_nothing_is_said(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from mnist_pipeline.testing import digit_png

        def test_a_seven(harness, object_store, publisher, stub_predictor):
            harness.send_object(digit_png(7), key="a.png")
            assert object_store.keys("digit-7") == ["a.png"]
            assert len(publisher.messages) == len(stub_predictor.batches) == 1

        def test_another_test_has_others(object_store, publisher, stub_predictor):
            assert (object_store.keys("digit-7"), publisher.messages, stub_predictor.batches) == ([], [], [])
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=2)


def test_they_are_about_the_task_that_conftest_names(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(OF_PHOTOS)
    pytester.makepyfile("""
        import io
        from PIL import Image

        def jpeg():
            file = io.BytesIO()
            Image.new("RGB", (9, 9)).save(file, "JPEG")
            return file.getvalue()

        def test_the_first_label_is_what_the_stub_answers(harness):
            assert harness.send_object(jpeg()).results[0]["data"]["predictions"] == ["cat"]

        def test_unless_its_answers_are_set(harness, stub_predictor):
            stub_predictor.answers = ["boat", [0, 0.9, 0.1, 0, 0]]
            assert [harness.send_object(jpeg()).results[0]["data"]["predictions"][0] for _ in range(3)] == [
                "boat", "dog", "boat"
            ]
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=2)


def test_a_project_s_own_fixtures_of_these_names_win(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def publisher():
            return "mine"

        def test_it(publisher):
            assert publisher == "mine"
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_the_local_stack_is_up_once_a_run_and_is_about_the_task(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(OF_PHOTOS)
    pytester.makepyfile("""
        import io
        import time
        from PIL import Image

        def test_a_photograph_is_filed_somewhere(local_stack):
            file = io.BytesIO()
            Image.new("RGB", (9, 9)).save(file, "JPEG")
            size = file.tell()
            file.seek(0)
            local_stack.minio().put_object(
                bucket_name="photos", object_name="a.jpg", data=file, length=size, content_type="image/jpeg"
            )
            end = time.monotonic() + 30
            while not local_stack.results() and time.monotonic() < end:
                time.sleep(0.1)
            assert len(local_stack.results()) == 1

        def test_it_is_the_same_one(local_stack):
            assert len(local_stack.results()) == 1
    """)
    pytester.runpytest_inprocess("-W", "ignore").assert_outcomes(passed=2)


def test_the_local_stack_runs_a_task_whose_module_is_no_program_and_tells_a_client_where_it_is(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest("""
        import pytest
        from thumbnails import Thumbnails

        class Cats(Thumbnails):
            name, buckets, filed_in = "cats", (), "sorted/{label}"

        @pytest.fixture(scope="session")
        def pipeline_task():
            return Cats()
    """)
    pytester.makepyfile("""
        import io
        from PIL import Image
        from mnist_pipeline import PredictionClient

        def test_a_photograph_arrives(local_stack):
            file = io.BytesIO()
            Image.new("RGB", (9, 9)).save(file, "JPEG")
            with PredictionClient.from_environ(local_stack.task, local_stack.environ) as client:
                result = client.result(client.upload(file.getvalue(), key="a.jpg"), timeout=30)
            assert result.subject == "cats/a.jpg"
    """)
    pytester.runpytest_inprocess("-W", "ignore").assert_outcomes(passed=1)


def test_without_the_extra_the_local_stack_is_skipped_with_its_reason(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import sys; sys.modules['confluent_kafka'] = None")
    pytester.makepyfile("def test_it(local_stack): pass")
    ran = pytester.runpytest_subprocess("-rs")
    ran.assert_outcomes(skipped=1)
    ran.stdout.fnmatch_lines(["*pip install 'mnist-pipeline?local?'*"])


def test_loading_it_imports_nothing_that_takes_time() -> None:
    code = "import mnist_pipeline.pytest_plugin, sys; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(ran.stdout.split()) & {"numpy", "PIL", "kserve", "minio", "kafka", "mnist_pipeline.testing"}
