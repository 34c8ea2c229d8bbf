"""Files with secrets and certificates, which are written anew while we run."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from mnist_pipeline.pipeline.environment import content_of
from mnist_pipeline.pipeline.settings import Kafka


def secret_now(file: str | None, known: str) -> str:
    """What the file holds now; `known` where there is none, or while it is just being written."""
    try:
        return (content_of(file) if file else "") or known
    except (OSError, UnicodeDecodeError):
        return known


def user_now(kafka: Kafka) -> tuple[str, str] | None:
    """Who we are to Kafka by name and password, as their files have it now; None where we are nobody by those."""
    if kafka.sasl_username is None or kafka.sasl_password is None:
        return None
    name = secret_now(kafka.sasl_username_file, kafka.sasl_username)
    return name, secret_now(kafka.sasl_password_file, kafka.sasl_password)


def digest_of(files: Iterable[str | None]) -> bytes:
    """What tells whether one of the files has changed; one that cannot be read counts as empty."""
    digest = sha256()
    for file in files:
        try:
            held = Path(file).read_bytes() if file else b""
        except OSError:
            held = b""
        digest.update(sha256(held).digest())
    return digest.digest()
