from __future__ import annotations

import pytest

pytest.importorskip("onnxruntime", reason="the demo's network needs onnxruntime, of the extra [local]")

import accuracy
import mnist


@pytest.fixture(scope="module")
def network() -> accuracy.Network:
    return accuracy.Network()


def test_the_network_reads_mnists_test_digits(network: accuracy.Network) -> None:
    rows = range(0, 10_000, 20)
    pixels, labels = mnist.images(), mnist.labels()
    share = accuracy.accuracy(network, [(accuracy.png(pixels[row]), int(labels[row])) for row in rows])
    assert share >= 0.985  # 500 of them; the target of 99.3 % is for all 10,000


def test_the_network_reads_digits_of_any_size_place_and_polarity(network: accuracy.Network) -> None:
    assert accuracy.accuracy(network, accuracy.pasted_digits(300, seed=2)) >= 0.975


def test_a_seed_gives_the_same_pasted_digits_each_time() -> None:
    assert list(accuracy.pasted_digits(5, seed=4)) == list(accuracy.pasted_digits(5, seed=4))
    assert list(accuracy.pasted_digits(5, seed=4)) != list(accuracy.pasted_digits(5, seed=5))


def test_a_command_that_misses_a_target_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["accuracy.py", "--canvas", "20"])
    monkeypatch.setattr(accuracy, "TARGET_ON_A_CANVAS", 1.01)
    assert accuracy.main() == 1
    reached, missed = capsys.readouterr().out.splitlines()
    assert "reached" in reached
    assert "missed" in missed
