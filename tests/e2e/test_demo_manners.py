"""`mnist-pipeline demo` as a new user tries it: one's own pictures, Ctrl-C, many, a machine that reads it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from e2e.following import wait_until
from mnist_pipeline.testing import digit_png

DEMO = [sys.executable, "-m", "mnist_pipeline", "demo"]
# Of a processor: Python itself has begun by then, however busy the machine is.
BEGUN_SECONDS = 0.2


def demo(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *arguments], capture_output=True, text=True, check=False, timeout=120, **options)


def test_a_blank_page_is_a_rejection_with_its_reason_and_no_failure(tmp_path: Path) -> None:
    folder = tmp_path / "my pictures é"
    (folder / "more").mkdir(parents=True)
    Image.new("L", (200, 200), 255).save(folder / "blank.png")
    digit = Image.open(io.BytesIO(digit_png(5))).resize((280, 280))
    for name in ("five.PNG", "five.jpg", "five.bmp", "five.gif", "five.webp"):
        digit.save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken\n.png").write_bytes(digit_png(1))
    os.mkfifo(folder / "pipe.png")  # of which nobody writes into the other end
    ran = demo("--images", folder)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert ran.stdout.splitlines()[:7] == [
        "left out: broken\\n.png: no key may have such characters",
        "left out: five.bmp: digits are read from PNG and JPEG only",
        "left out: five.gif: digits are read from PNG and JPEG only",
        "left out: five.webp: digits are read from PNG and JPEG only",
        "left out: more: a folder in the folder",
        "left out: notes.txt: its name does not end in .png, .jpg, .jpeg",
        "left out: pipe.png: no regular file",
    ]
    assert re.search(
        r"^blank.png .* -  mnist-rejected +\d+  rejected: nodigit: there is no digit", ran.stdout, re.MULTILINE
    )
    assert re.search(r"^five.PNG .* 5   0\.\d\d  digit-5 ", ran.stdout, re.MULTILINE)
    assert re.search(r"^five.jpg .* 5   0\.\d\d  digit-5 ", ran.stdout, re.MULTILINE)
    assert "prediction (1 in mnist-rejected, each with its reason), and each" in ran.stdout


def test_many_are_a_summary_unless_rows_are_asked_for() -> None:
    ran = demo("--count", "60")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^objects +60\npredicted +0: 6, 1: 6, .*, 9: 6\n", ran.stdout, re.MULTILINE)
    assert re.search(r"^ms to filed +p50: \d+, p99: \d+$", ran.stdout, re.MULTILINE)
    assert "trace id  " not in ran.stdout


def test_json_is_one_document_and_all_else_goes_to_the_standard_error() -> None:
    ran = demo("--count", "2", "--json")
    document = json.loads(ran.stdout)
    assert (ran.returncode, document["problems"], "ready after" in ran.stderr) == (0, [], True)
    assert [one["prediction"] for one in document["objects"]] == [0, 0]
    assert document["objects"][0]["destination"] == "digit-0/0-0003.png"
    assert document["summary"]["predicted"] == {"0": 2}


def test_a_terminal_gets_a_bar_and_colours_and_no_more_than_its_width() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*DEMO, "--count", "3"], stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    ) as running:
        os.close(theirs)
        said = b""
        # At its end a terminal's other side is an error on Linux, and nothing elsewhere.
        while part := _read(ours):
            said += part
    os.close(ours)
    assert running.returncode == 0, said
    assert b"\x1b[1mobject" in said
    assert b"trace id" not in said.partition(b"One inline")[0], "it does not fit"
    assert b"uploaded" in said


def _read(file: int) -> bytes:
    try:
        return os.read(file, 65536)
    except OSError:
        return b""


@pytest.mark.parametrize("seconds", [0.3, 0.7, 1.2, 1.8, 2.5])
def test_ctrl_c_ends_it_at_any_time_without_a_stack_and_leaves_nothing_behind(seconds: float) -> None:
    with subprocess.Popen([*DEMO, "--keep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        time.sleep(seconds)
        demo = psutil.Process(running.pid)
        wait_until(lambda: sum(demo.cpu_times()[:2]) > BEGUN_SECONDS, every=0.01)
        children = demo.children(recursive=True)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert "Traceback" not in said
    assert running.returncode in (130, -signal.SIGINT, 0)
    wait_until(lambda: not any(child.is_running() for child in children), "programs are left")


@pytest.fixture
def kept() -> Iterator[str]:
    """What `--keep` says, while it is kept; then Ctrl-C ends it well."""
    with subprocess.Popen([*DEMO, "--keep", "--count", "1"], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        said = ""
        try:
            while "X-Amz-Signature" not in said and (line := running.stdout.readline()):
                said += line
            yield said
        finally:
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=60)
    assert running.returncode == 0


def test_what_keep_says_can_be_pasted(kept: str, tmp_path: Path) -> None:
    exports = "\n".join(re.findall(r"^export .*$", kept, re.MULTILINE))
    submit = re.search(r"^.* submit .* --wait$", kept, re.MULTILINE)
    curls = re.findall(r"^curl -v(?:.*\\\n)*.*$", kept, re.MULTILINE)
    assert submit is not None, kept
    assert len(curls) == 2
    program = tmp_path / "mnist-pipeline"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mnist_pipeline "$@"\n')
    program.chmod(0o755)
    script = tmp_path / "pasted"
    script.write_text("\n".join((exports, submit[0], *curls)) + "\n")
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(
        ["/bin/sh", "-e", script], capture_output=True, text=True, check=False, timeout=90, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    assert "digit-0/0-0003.png" in ran.stdout
    assert '{"predictions":[2]}' in ran.stdout
    with urllib.request.urlopen(kept.rsplit(maxsplit=1)[-1], timeout=10) as answer:  # noqa: S310 - our own store
        assert answer.read().startswith(b"\x89PNG")
