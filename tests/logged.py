"""What a test has caused in the log."""

from __future__ import annotations

import logging

import pytest


def by_us(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The records of our own code: a client that an earlier test has closed may still log from a thread of its own."""
    return [record for record in caplog.records if record.name.startswith("mnist_pipeline")]


def said_by_us(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Their messages."""
    return [record.getMessage() for record in by_us(caplog)]
