"""The demo of another transformer, started as its user starts it: by its module, and by its script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from e2e.places import search_path
from fashion import Fashion
from mnist_pipeline import Prediction, Task
from mnist_pipeline.local.stack import Stack
from mnist_pipeline.local.stand_in import form_for, guess
from readings import Readings
from thumbnails import Thumbnails

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SAMPLES = EXAMPLES / "samples"
SOURCE = EXAMPLES.joinpath("readings.py").read_text()
PATH = os.pathsep.join((str(EXAMPLES), str(EXAMPLES / "thumbnails" / "src"), search_path()))


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    given: Mapping[str, Any] = {"env": {**os.environ, "PYTHONPATH": PATH}, **options}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=120, **given)


def rows(said: str) -> list[tuple[str, str, str]]:
    """Name, label and place of each object in the table."""
    return re.findall(r"^(\S+) +[0-9a-f-]{36} +(\S.*?)   \d\.\d\d  (\S+) +\d+", said, re.MULTILINE)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_the_demo_of_a_package_shows_the_label_and_the_place_of_each_object(protocol: str) -> None:
    ran = run("-m", "thumbnails", "demo", "--images", SAMPLES / "photos", "--predictor_protocol", protocol)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "No network for photos is here: a stand-in guesses." in ran.stdout
    found = rows(ran.stdout)
    assert [name for name, _, _ in found] == ["boat.jpg", "car.JPG", "tree.jpg"]
    for _, label, place in found:
        assert label in Thumbnails.labels
        assert place in (f"photos-{label}", "photos-review")
    inline = re.search(r'"predictions": \[\s+"(\w+)"', ran.stdout)
    assert inline is not None, ran.stdout
    assert inline[1] == found[0][1], "the same object is told to be the same inline"
    assert "All 3 objects left bucket photos" in ran.stdout
    assert "on topic photos-predictions once" in ran.stdout


def test_the_demo_of_a_module_files_by_a_tensor_and_labels_of_its_own() -> None:
    ran = run("-m", "fashion", "demo", "--images", SAMPLES / "fashion")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = rows(ran.stdout)
    assert [name for name, _, _ in found] == ["bag.png", "trouser.png"]
    assert all(label in Fashion.labels and place.startswith("fashion-") for _, label, place in found)


def test_objects_that_are_no_pictures_go_through_the_task_s_own_reading_of_the_answers() -> None:
    # A relative entry names the same folder to the transformer, which works in another.
    ran = run(
        *("-m", "readings", "demo", "--images", SAMPLES / "readings"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": EXAMPLES.name},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = rows(ran.stdout)
    assert len(found) == 3
    assert all(label in Readings.labels and place == f"sorted/{label}" for _, label, place in found)
    assert "All 3 objects left bucket readings" in ran.stdout


def test_the_demo_of_a_script_runs_whatever_its_name_and_ends_quietly_when_its_reader_does(tmp_path: Path) -> None:
    script = tmp_path / "readings"
    script.write_text(SOURCE)
    command = [sys.executable, str(script), "demo", "--images", str(SAMPLES / "readings")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        assert " ready after " in demo.stdout.readline()
        demo.stdout.close()
        assert (demo.stderr.read(), demo.wait(60)) == ("", 141)


def test_help_is_called_as_the_user_has_called_it(tmp_path: Path) -> None:
    assert run("-m", "thumbnails", "demo", "--help").stdout.startswith("usage: python -m thumbnails demo ")
    script = tmp_path / "mine.py"
    script.write_text(SOURCE)
    said = run(script, "submit", "--help").stdout
    assert said.startswith("usage: python mine.py submit ")
    assert "  python mine.py submit 7.png " in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "photos has no objects of its own to show: give --images DIR"),
        (["--images", "."], "there is nothing to upload (.jpg, .jpeg) in ."),
        (["--images", "absent"], "--images wants a folder, and absent is none: No such file or directory"),
        (["--images", SAMPLES / "draw.py"], "draw.py is none: Not a directory"),
        (["--images", SAMPLES / "photos", "--count", "0"], "'0' is no whole number from 1 on"),
        (
            ["--images", SAMPLES / "photos", "--predictor_protocol", "grpc-v2"],
            "speaks v1 and v2, not grpc-v2: give --predictor_host",
        ),
    ],
)
def test_what_the_demo_cannot_show_is_told_at_once(tmp_path: Path, arguments: Sequence[str | Path], told: str) -> None:
    ran = run("-m", "thumbnails", "demo", *arguments, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert told in ran.stderr


def test_a_program_that_cannot_be_started_again_is_told() -> None:
    ran = run("-c", "from thumbnails.__main__ import run; run()", "demo", "--images", SAMPLES / "photos")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "this one is no module and no script" in ran.stderr


class Odd(Thumbnails):
    """Whose network answers what nobody else's does."""

    def interpret(self, outputs: Any, n: int) -> list[Prediction]:
        raise KeyError(f"{n} of {outputs}")


@pytest.mark.parametrize("protocol", ["v1", "v2"])
@pytest.mark.parametrize(("task", "form"), [(Fashion, "classes"), (Thumbnails, "classes"), (Readings, "score")])
def test_the_stand_in_answers_in_a_form_that_the_task_understands(task: type[Task], form: str, protocol: str) -> None:
    assert form_for(task(), protocol) == form


def test_a_task_that_understands_no_guess_needs_a_predictor_of_its_own() -> None:
    with pytest.raises(ValueError, match=r"Odd\.interpret takes none of the answers .* --predictor_host"):
        Stack(task=Odd())
    assert not Stack(task=Odd(), predictor_host="predictor:80").guesses


def test_the_same_tensor_gets_the_same_scores_and_another_one_others() -> None:
    scores = guess([[0.25, 1.0]], 5)
    assert scores == guess([[0.25, 1.0]], 5)
    assert len(scores) == 5
    assert sum(scores) == pytest.approx(1)
    assert scores != guess([[0.25, 0.5]], 5)
