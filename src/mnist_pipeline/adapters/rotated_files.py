"""Files with secrets and certificates, which are written anew while we run."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from mnist_pipeline.pipeline.environment import content_of


def secret_now(file: str | None, known: str) -> str:
    """What the file holds now; `known` where there is none, or while it is just being written."""
    try:
        return (content_of(file) if file else "") or known
    except (OSError, UnicodeDecodeError):
        return known


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
