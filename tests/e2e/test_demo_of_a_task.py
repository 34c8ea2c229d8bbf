"""The demo of another transformer, started as its user starts it: by its module, and by its script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from e2e.places import search_path

API = Path(__file__).parents[1] / "api"


@pytest.mark.parametrize(
    ("program", "suffix", "bucket"),
    [(["-m", "api.thumbnails"], ".jpg", "photos-"), ([str(API / "fashion.py")], ".png", "fashion-")],
    ids=["module", "script"],
)
def test_the_demo_shows_where_another_task_s_objects_go(
    tmp_path: Path, program: list[str], suffix: str, bucket: str
) -> None:
    for number in range(3):
        Image.new("RGB", (60, 40), (80 * number, 9, 200)).save(tmp_path / f"{number}{suffix}")
    (tmp_path / "notes.txt").write_text("no picture")
    command = [sys.executable, *program, "demo", "--images", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": search_path()}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "what follows is guessed" in ran.stdout
    assert ran.stdout.count(f" {bucket}") == 3
    assert "All 3 pictures left bucket" in ran.stdout


def test_a_task_without_pictures_of_its_own_asks_for_them() -> None:
    command = [sys.executable, "-m", "api.thumbnails", "demo"]
    environment = {**os.environ, "PYTHONPATH": search_path()}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert (ran.returncode, "give --images DIR" in ran.stderr) == (2, True)
