"""Running the images that `make image` has built, with the engine that is here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from required import missing

_spec = importlib.util.spec_from_file_location("images", Path(__file__).parents[2] / "docker" / "images.py")
if _spec is None or _spec.loader is None:
    raise AssertionError("docker/images.py is there")
images = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(images)

# As the restricted profile has it, and no network but the host's loopback, where the tests' servers are.
RESTRICTED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")


@dataclass(frozen=True)
class Engine:
    """Docker or podman."""

    program: str

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of its commands."""
        done = subprocess.run([self.program, *arguments], capture_output=True, text=True, check=False, timeout=120)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.program} {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done

    def inspect(self, name: str) -> dict[str, Any]:
        """What it knows of an image or a container."""
        (known,) = json.loads(self.run("inspect", name).stdout)
        return dict(known)

    @contextmanager
    def container(
        self, image: str, *, options: Sequence[str] = (), env: Mapping[str, str] | None = None, args: Sequence[str] = ()
    ) -> Iterator[str]:
        """A running container under the restricted profile; its name."""
        name = f"mnist-pipeline-test-{uuid.uuid4()}"
        settings = [part for pair in (env or {}).items() for part in ("--env", "=".join(pair))]
        self.run("run", "--detach", "--name", name, *RESTRICTED, *options, *settings, image, *args)
        try:
            yield name
        finally:
            self.run("rm", "--force", name, check=False)

    def logs(self, name: str) -> str:
        """What a container has written so far."""
        done = self.run("logs", name, check=False)
        return done.stdout + done.stderr


def engine() -> Engine:
    """The engine, once it has all images; else the test is skipped, or fails."""
    try:
        found = Engine(images.engine())
    except images.ToolMissing as exc:
        missing(str(exc))
    for image in images.NAMES:
        if found.run("inspect", images.tag(image), check=False).returncode != 0:
            missing(f"{images.tag(image)} is not built: make image")
    return found
