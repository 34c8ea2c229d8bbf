"""How far a run through shards has come, as a file says it, so that one that was cut short goes on where it ended."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mnist_pipeline.site.shards import Shard


def text_of(run: Mapping[str, Any], left: Sequence[Shard]) -> str:
    """What is left of a run, a line of ASCII; `run` is what makes a run the same when it goes on."""
    return json.dumps({**run, "left": [asdict(shard) for shard in left]})


def read(path: Path, run: Mapping[str, Any]) -> list[Shard] | None:
    """What the file says is left; None: there is no file, nothing has been begun.

    Raises:
        ValueError: it is another run's, or not of this form.
        OSError: it cannot be read.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    match _parsed(text):
        case {"left": [*left], **others} if others == run:
            return [_shard(one) for one in left]
        case {"left": [*_], **others}:
            raise ValueError(f"is of another run, with {json.dumps(others)}")
    raise ValueError("does not say what is left of a run")


def write(path: Path, run: Mapping[str, Any], left: Sequence[Shard]) -> None:
    """Replace the file, so that there is always a whole one. Where nothing is left it goes: the next run begins at the
    front.

    Raises:
        OSError: it cannot be written.
    """
    if not left:
        path.unlink(missing_ok=True)
        return
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_text(text_of(run, left))
    new.replace(path)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _shard(left: Any) -> Shard:
    match left:
        case {"bucket": str(bucket), "after": str(after), "until": str() | None as until}:
            return Shard(bucket=bucket, after=after, until=until)
    raise ValueError("does not say what is left of a run")
