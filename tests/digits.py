"""The settings of the digits' transformer, as tests change them."""

from __future__ import annotations

from typing import Any

from mnist_pipeline import Digits, Settings


def digits_settings(**changes: Any) -> Settings:
    """The defaults for digits, with changes; what a setting is must be known to `Settings`."""
    return Settings(**{"task": Digits(), **changes})
