"""The table of settings says what is read, and what is taken where nothing is set."""

from __future__ import annotations

import pytest

from mnist_pipeline import Digits, Settings
from mnist_pipeline.pipeline.setting_table import SETTINGS, Setting, told
from recording import Recording

# What the settings are read beside: without these two, some are not looked at.
BESIDE = {"KAFKA_BOOTSTRAP_SERVERS": "k", "MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": "b"}


def test_it_names_exactly_the_variables_that_are_read() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    token, machine = {"AWS_WEB_IDENTITY_TOKEN_FILE": __file__}, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://m"}
    environs = [Recording(KAFKA_BOOTSTRAP_SERVERS="k", **who) for who in (keys, token, machine)]
    for environ in environs:
        Settings.from_environ(environ, Digits())
    asked = {name for environ in environs for name in environ.asked}
    named = [name for one in SETTINGS for name in (one.name, *one.otherwise)]
    secret = {f"{name}_FILE" for one in SETTINGS if one.is_secret for name in (one.name, *one.otherwise)}
    assert sorted(named) == sorted(asked - secret)
    assert secret <= asked


@pytest.mark.parametrize("one", [one for one in SETTINGS if one.default], ids=lambda one: one.name)
def test_a_default_changes_nothing_where_it_is_set(one: Setting) -> None:
    digits = Digits()
    unset = Settings.from_environ(BESIDE, digits)
    assert Settings.from_environ({**BESIDE, one.name: one.default}, digits) == unset


def test_what_has_no_default_is_none_or_nothing() -> None:
    without = {one.name for one in SETTINGS if not one.default}
    settings = Settings.from_environ(BESIDE, Digits())
    assert "REVIEW_BELOW" in without
    assert settings.review_below is None
    assert settings.kafka is not None
    assert {name for name in vars(settings.kafka) if vars(settings.kafka)[name]} == {
        "bootstrap_servers",
        "topic",
        "client",
    }


def test_each_meaning_is_a_sentence() -> None:
    assert [one.name for one in SETTINGS if not one.meaning.endswith(".")] == []


def test_a_terminal_is_told_names_defaults_and_meanings() -> None:
    assert (
        told([one for one in SETTINGS if one.name in ("MINIO_ACCESS_KEY", "MINIO_REGION")])
        == """\
MINIO_ACCESS_KEY or _FILE, else AWS_ACCESS_KEY_ID
    Who we are to the store. Without both keys and without a role there is no store, and only inline
    requests are handled. A file is read again where the store refuses what was in it.
MINIO_REGION (default: us-east-1)
    The store's region."""
    )
