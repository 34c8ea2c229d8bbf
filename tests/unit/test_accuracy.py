from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="the demo's network needs onnxruntime, of the extra [local]")

import accuracy
import kinds


def test_the_network_reads_mnists_test_digits() -> None:
    assert accuracy.measured("as they are", 500, seed=2).right >= 0.985  # the target of 99.4 % is for all 10,000


@pytest.mark.parametrize("kind", ["pasted", "cropped", "framed", "photographed", "shadowed"])
def test_the_network_reads_digits_among_other_ink(kind: str) -> None:
    assert accuracy.measured(kind, 100, seed=2).right >= 0.96


@pytest.mark.parametrize("digit", [2, 3, 5, 7, 9])
@pytest.mark.parametrize("kind", ["frame", "cell", "low16"])
def test_row_49_a_reported_picture_shows_the_digit_in_its_name(kind: str, digit: int) -> None:
    data = (Path(__file__).parents[1] / "data" / "reports" / "pictures" / f"{kind}-{digit}.png").read_bytes()
    assert accuracy.read(accuracy.Network(), data, digit).digit == digit


def test_a_seed_gives_the_same_pictures_each_time_and_every_kind_the_same_digits() -> None:
    assert list(kinds.pictures("pasted", 5, 4)) == list(kinds.pictures("pasted", 5, 4))
    assert list(kinds.pictures("pasted", 5, 4)) != list(kinds.pictures("pasted", 5, 5))
    labels = [[label for _, label in kinds.pictures(kind, 5, 4)] for kind in ("plain", "cell", "blank")]
    assert labels[0] == labels[1] == labels[2]


def test_a_command_that_misses_a_target_fails_and_shows_its_failures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    png = tmp_path / "shown" / "failures.png"
    monkeypatch.setattr("sys.argv", ["accuracy.py", "--count", "10", "--kinds", "cell", "doodle", "--png", str(png)])
    assert accuracy.main() == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(accuracy, "LEAST_RIGHT_ELSE", 1.01)
    assert accuracy.main() == 1
    said = capsys.readouterr().out
    assert "targets missed: none" in said
    assert "targets missed: plain, cell" in said
    assert "MISSED: less than 101.0% right" in said
