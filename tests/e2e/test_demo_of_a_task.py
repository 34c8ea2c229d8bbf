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
from PIL import Image

from e2e.places import search_path
from fashion import Fashion
from mnist_pipeline import Prediction, Task
from mnist_pipeline.local.stack import Stack
from mnist_pipeline.local.stand_in import form_for, guess
from readings import Readings
from thumbnails import Thumbnails

TESTS = Path(__file__).parents[1]
SOURCE = (TESTS / "api" / "thumbnails.py").read_text()


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": search_path()}
    given: Mapping[str, Any] = {"env": environment, **options}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=120, **given)


def make_pictures(folder: Path, suffix: str = ".jpg") -> None:
    for number in range(3):
        Image.new("RGB", (60, 40), (80 * number, 9, 200)).save(folder / f"{number}{suffix}")


def rows(said: str) -> list[tuple[str, str, str]]:
    """Name, label and place of each object in the table."""
    return re.findall(r"^(\S+) +[0-9a-f-]{36} +(\S+)   \d\.\d\d  (\S+) +\d+$", said, re.MULTILINE)


def test_the_demo_of_a_module_shows_the_label_and_the_place_of_each_object(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    ran = run("-m", "api.thumbnails", "demo", "--images", tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "No network for photos is here: a stand-in guesses." in ran.stdout
    found = rows(ran.stdout)
    assert [name for name, _, _ in found] == ["0.jpg", "1.jpg", "2.jpg"]
    assert all(label in Thumbnails.labels and place == f"photos-{label}" for _, label, place in found)
    inline = re.search(r'"predictions": \[\s+"(\w+)"', ran.stdout)
    assert inline is not None, ran.stdout
    assert inline[1] == found[0][1], "the same object is told to be the same inline"
    assert "All 3 objects left bucket photos" in ran.stdout
    assert "on topic photos-predictions once" in ran.stdout


def test_objects_that_are_no_pictures_go_through_the_task_s_own_reading_of_the_answers(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.CSV").write_text(",".join([f"0.{number}"] * 16))
    # A relative entry names the same folder to the transformer, which works in another.
    environment = {**os.environ, "PYTHONPATH": TESTS.name}
    ran = run("-m", "api.readings", "demo", "--images", tmp_path, cwd=TESTS.parent, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = rows(ran.stdout)
    assert len(found) == 3
    assert all(label in Readings.labels and place == f"sorted/{label}" for _, label, place in found)
    assert "All 3 objects left bucket readings" in ran.stdout


def test_the_demo_of_a_script_runs_whatever_its_name_and_ends_quietly_when_its_reader_does(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    script = tmp_path / "thumbnails"
    script.write_text(SOURCE)
    command = [sys.executable, str(script), "demo", "--images", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        assert " ready after " in demo.stdout.readline()
        demo.stdout.close()
        assert (demo.stderr.read(), demo.wait(60)) == ("", 141)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "photos has no objects of its own to show: give --images DIR"),
        (["--images", "."], "there is no object (.jpg, .jpeg) in ."),
        (["--images", "pictures", "--predictor_protocol", "v2"], "speaks v1, not v2: give --predictor_host"),
    ],
)
def test_what_the_demo_cannot_show_is_told_at_once(tmp_path: Path, arguments: Sequence[str], told: str) -> None:
    (tmp_path / "pictures").mkdir()
    make_pictures(tmp_path / "pictures")
    ran = run("-m", "api.thumbnails", "demo", *arguments, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert told in ran.stderr


def test_a_program_that_cannot_be_started_again_is_told(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    program = "from api.thumbnails import *; main(Thumbnails)"
    ran = run("-c", program, "demo", "--images", tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "this one is no module and no script" in ran.stderr


class Odd(Thumbnails):
    """Whose network answers what nobody else's does."""

    def interpret(self, outputs: Any, n: int) -> list[Prediction]:
        raise KeyError(f"{n} of {outputs}")


@pytest.mark.parametrize(("task", "form"), [(Fashion, "classes"), (Thumbnails, "classes"), (Readings, "score")])
def test_the_stand_in_answers_in_a_form_that_the_task_understands(task: type[Task], form: str) -> None:
    assert form_for(task()) == form


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
