"""`make image`: builds the images with whatever engine is here, and prints what they and their layers weigh.

The engine is Docker where its daemon answers, else buildah with podman. The base is `PYTHON_IMAGE` (by default
python:3.11-slim-bookworm); where no registry can be reached, a stand-in of the same name is made from the
distribution's own packages, and said to be one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NAMES = {
    "transformer": "mnist-pipeline",
    "predictor": "mnist-pipeline-predictor",
    "empty": "mnist-pipeline-empty-kserve",
}
BASE = "python:3.11-slim-bookworm"
MOST = 1.1
"""How many times an empty KServe image's size the transformer's may have."""

_PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
# What pip and TLS are told on the building machine holds for the build too, where there is such a file.
_OF_THE_MACHINE = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")


class ToolMissing(Exception):
    """There is no engine here, or nothing to build on; the text says what is missing."""


def engine() -> str:
    """The program that runs containers and tells of images: `docker` or `podman`.

    Raises:
        ToolMissing: neither is here.
    """
    if shutil.which("docker") and _succeeds(["docker", "info"]):
        return "docker"
    if shutil.which("buildah") and shutil.which("podman"):
        return "podman"
    raise ToolMissing("there is neither a Docker daemon nor buildah with podman")


def version() -> str:
    """The project's version, as pyproject.toml says it."""
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version = "))


def tag(image: str) -> str:
    """The name under which an image of `NAMES` is built here, and by which compose and the manifests know it."""
    return f"{NAMES[image]}:{version()}"


def build(image: str, base: str) -> None:
    """Build one of `NAMES` from docker/<image>.Dockerfile."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    arguments = [
        *("--file", f"docker/{image}.Dockerfile", "--tag", tag(image)),
        *("--build-arg", f"PYTHON_IMAGE={base}", "--build-arg", f"VERSION={version()}"),
        *("--build-arg", f"REVISION={revision or 'unknown'}"),
    ]
    if engine() == "docker":
        command = ["docker", "build", *arguments, "."]
    else:
        mounts = [part for path in _OF_THE_MACHINE if Path(path).exists() for part in ("-v", f"{path}:{path}:ro")]
        # No container is run for a RUN, so that it works inside one too; only the format docker has a HEALTHCHECK.
        options = ["--isolation", "chroot", "--network", "host", "--format", "docker", "--layers", *mounts]
        command = ["buildah", "bud", *options, *arguments, "."]
    _run(command)


def base_image() -> str:
    """The base to build on: `PYTHON_IMAGE`, or the stand-in where that cannot be had.

    Raises:
        ToolMissing: no registry is reached, and there is no mmdebstrap.
    """
    wanted = os.environ.get("PYTHON_IMAGE", BASE)
    if engine() == "docker":
        return wanted
    stand_in = f"localhost/{BASE}"
    for name in (wanted, stand_in):
        if _succeeds(["podman", "image", "exists", name]):
            return name
    if _succeeds(["buildah", "pull", "--quiet", wanted]):
        return wanted
    if shutil.which("mmdebstrap") is None:
        raise ToolMissing(f"{wanted} cannot be pulled, and there is no mmdebstrap to make a stand-in")
    print(f"{wanted} cannot be pulled: a stand-in is made from Debian's packages ({_PACKAGES})", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory, "base.tar")
        _run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(archive)])
        container = _output(["buildah", "from", "scratch"])
        _run(["buildah", "add", "--quiet", container, str(archive), "/"])
        # Where a file is mounted during a build, there has to be one.
        Path(directory, "pip.conf").touch()
        _run(["buildah", "copy", "--quiet", container, str(Path(directory, "pip.conf")), "/etc/pip.conf"])
        _run(["buildah", "commit", "--quiet", "--rm", container, stand_in])
    return stand_in


def inspect(name: str) -> dict[str, Any]:
    """What the engine knows of an image or a container."""
    (known,) = json.loads(_output([engine(), "inspect", name]))
    return dict(known)


def size(image: str) -> int:
    """The bytes of all layers of an image, not compressed."""
    return int(inspect(tag(image))["Size"])


def main(arguments: Sequence[str]) -> int:
    """Build all images, or those that are named, and print their sizes; exit code 1 where the first is too big."""
    try:
        program, base = engine(), base_image()
    except ToolMissing as exc:
        print(f"no image is built: {exc}")
        return 1 if os.environ.get("REQUIRE_TOOLS") == "1" else 0
    for image in arguments or NAMES:
        build(image, base)
    print(f"\nbuilt with {program} on {base}:")
    for image in arguments or NAMES:
        print(f"  {tag(image)}: {size(image) / 1e6:.1f} MB")
        for line in _output([program, "history", "--format", "{{.Size}}\t{{.CreatedBy}}", tag(image)]).splitlines():
            if not line.startswith("0"):
                print(f"    {line[:110]}")
    if arguments:
        return 0
    ratio = size("transformer") / size("empty")
    print(f"  the transformer's is {ratio:.3f} times an empty KServe image's (at most {MOST})")
    return 0 if ratio < MOST else 1


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
