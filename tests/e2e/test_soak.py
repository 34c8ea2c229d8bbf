"""A short soak; `make soak` is the long one."""

from __future__ import annotations

import pytest

import soak

_EVENTS = 3_000


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_row_35_three_thousand_events_leave_memory_threads_sockets_and_files_as_they_were() -> None:
    if reason := soak.why_not_here():
        pytest.skip(reason)
    failed = [str(verdict) for verdict in soak.soak(_EVENTS) if not verdict.passed]
    assert not failed, failed


def test_a_process_that_grows_fails_the_soak() -> None:
    def sample(events: int, **more: int) -> soak.Sample:
        held = {"memory_kib": 100_000, "threads": 50, "sockets": 90, "other_files": 9, "temporary": 0} | more
        return soak.Sample(events=events, seconds=1.0, **held)

    def failed(**more: int) -> list[str]:
        samples = [sample(5_000), sample(50_000, **more)]
        verdicts = soak.judge(samples, soak.Tally(uploads=50_000, failed_attempts=1), 50_000)
        return [verdict.says for verdict in verdicts if not verdict.passed]

    assert failed() == []
    assert failed(memory_kib=105_000) == []
    assert failed(memory_kib=105_100) == ["memory after 50,000 events is 1.051 x that after 5,000 (at most 1.05)"]
    assert failed(threads=64, sockets=144, other_files=11) == []
    assert len(failed(threads=65)) == len(failed(sockets=145)) == len(failed(other_files=12)) == 1
    assert failed(temporary=1) == ["1 temporary files were left at most"]


def test_what_is_lost_or_told_twice_fails_the_soak() -> None:
    for wrong in ("misfiled", "unpublished", "with_several_ids", "wrongly_answered"):
        tally = soak.Tally(uploads=1, failed_attempts=1, **{wrong: ["soak/000001.png"]})  # type: ignore[arg-type]
        sample = soak.Sample(events=1, seconds=1.0, memory_kib=1, threads=1, sockets=1, other_files=1, temporary=0)
        (failed,) = [verdict for verdict in soak.judge([sample], tally, 1) if not verdict.passed]
        assert "soak/000001.png" in failed.says
