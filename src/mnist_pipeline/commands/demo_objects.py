"""What the demo uploads: packaged digits, or a user's own files."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.setting_values import has_control_characters
from mnist_pipeline.pipeline.task import Task

DIGITS = Path(str(files("mnist_pipeline.local").joinpath("digits")))
"""The packaged pictures and the example's request."""

_OF_DIGITS = (".png", ".jpg", ".jpeg")
_OTHER_PICTURES = (".bmp", ".gif", ".heic", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """An object to upload: its key, the file that has its bytes, and the trace id by which it is followed."""

    key: str
    file: Path
    trace_id: str

    @property
    def data(self) -> bytes:
        """Its bytes, read each time: a folder of photographs may be larger than memory."""
        return self.file.read_bytes()


def suffixes_of(task: Task) -> tuple[str, ...]:
    """What the demo takes of a folder: of digits JPEG too, as the transformer does where it is told to."""
    return _OF_DIGITS if isinstance(task, Digits) else tuple(task.suffixes)


def uploads(task: Task, folder: Path | None, count: int | None) -> tuple[list[Upload], list[str]]:
    """What to upload, the same files again where `count` is more than there are; and why others are left out.

    Raises:
        ValueError: there is nothing to upload, in a sentence.
    """
    if folder is None and not isinstance(task, Digits):
        raise ValueError(f"{task.name} has no objects of its own to show: give --images DIR")
    found, left_out = _files(task, folder or DIGITS)
    if not found:
        others = f": {left_out[0]}" if left_out else ""
        raise ValueError(f"there is nothing to upload ({', '.join(suffixes_of(task))}) in {folder}{others}")
    given: list[Upload] = []
    for number in range(count or len(found)):
        again, file = number // len(found), found[number % len(found)]
        key = f"again-{again}/{file.name}" if again else file.name
        given.append(Upload(key=key, file=file, trace_id=str(uuid.uuid4())))
    return given, left_out if folder else []


def _files(task: Task, folder: Path) -> tuple[list[Path], list[str]]:
    """The files that can be uploaded; and a sentence for each of the others."""
    found, left_out = [], []
    try:
        files = sorted(folder.iterdir())
    except OSError as exc:
        raise ValueError(f"--images wants a folder, and {folder} is none: {exc.strerror}") from exc
    for file in files:
        reason = _reason_against(task, file)
        if not reason:
            try:
                file.open("rb").close()
                found.append(file)
            except OSError as exc:
                reason = exc.strerror or type(exc).__name__
        if reason:
            left_out.append(f"{file.name}: {reason}")
    return found, left_out


def _reason_against(task: Task, file: Path) -> str:
    """Why it is not uploaded; empty where it is. Suffixes are taken in any case."""
    name, suffixes = file.name.lower(), suffixes_of(task)
    if file.is_dir():
        return "a folder in the folder"
    if file.exists() and not file.is_file():
        return "no regular file"
    if has_control_characters(file.name):
        return "no key may have such characters"
    # The suffixes of a task may be more than what Path calls one, such as `-thumb.png`.
    if name.endswith(tuple(suffix.lower() for suffix in suffixes)):
        return ""
    if isinstance(task, Digits) and name.endswith(_OTHER_PICTURES):
        return "digits are read from PNG and JPEG only"
    return f"its name does not end in {', '.join(suffixes)}"
