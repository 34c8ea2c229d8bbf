"""The table of versions says what the tests run on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/howto/upgrade.md").read_text()


def row(part: str) -> str:
    (found,) = re.findall(rf"^\| {part} \| (.*) \|$", PAGE, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize(
    ("part", "file", "version"),
    [
        ("KServe", "requirements.lock", r"^kserve==(\S+)"),
        ("clients", "requirements.lock", r"^kafka-python==(\S+)"),
        ("clients", "requirements.lock", r"^confluent-kafka==(\S+)"),
        ("clients", "requirements.lock", r"^minio==(\S+)"),
        ("Apache Kafka", "tests/servers/pom.xml", r"<artifactId>kafka_2.13</artifactId>\s*<version>(.+)</version>"),
        ("MinIO", "tests/servers/minio.py", r'"github.com/minio/minio", "v0.0.0-\d+-(\w+)"'),
        ("predictors", "tests/servers/mlserver.txt", r"^mlserver==(\S+)"),
        ("Python", ".ci/run", r"^for version in (\S+) "),
        ("Python", ".ci/run", r"^for version in \S+ (\S+); do"),
    ],
)
def test_a_part_has_the_version_that_the_tests_have(part: str, file: str, version: str) -> None:
    (found,) = re.findall(version, (ROOT / file).read_text(), re.MULTILINE)
    assert found in row(part)
