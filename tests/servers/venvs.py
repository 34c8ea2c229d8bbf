"""Programs in Python whose requirements clash with ours: each in a virtual environment of its own, made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path

from servers.cache import BuildFailed, ToolMissing, cached, run

# Fails where a system has taken out what makes virtual environments; says which interpreter answers.
_LOOK = (
    "import ensurepip, sys, venv;"
    "print(sys.implementation.name, *sys.version_info[:2], sep='.');"
    "print(sys.version, sys.base_prefix)"
)
# `make` constrains pip to what the package itself is locked to.
_UNCONSTRAINED = {"PIP_CONSTRAINT": "", "PIP_BUILD_CONSTRAINT": ""}


def install(requirements: Path, pythons: Sequence[str]) -> Path:
    """The Python of a virtual environment with exactly these requirements, from the cache or made into it.

    Run its modules (`-m`): the cache moves an environment once it is whole, so its scripts name another place.

    Args:
        requirements: a lock file; its name is the environment's.
        pythons: the versions that all of it can run with, such as `3.12`, the best first. The one that runs us is
            taken if it is among them.

    Raises:
        ToolMissing: this machine has no such Python, or pip could not install everything, for want of a network say.
    """
    python, about = _interpreter(pythons)
    made_from = hashlib.sha256(requirements.read_bytes() + about.encode()).hexdigest()

    def make(directory: Path) -> None:
        run([python, "-m", "venv", directory])
        # Locked means complete; and most of what is there is never imported, so never compiled.
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile")
        pip = (directory / "bin" / "python", "-I", "-m", "pip")
        run([*pip, "install", *options, "--requirement", requirements], env=_UNCONSTRAINED)

    try:
        return cached(f"{requirements.stem}-{made_from[:12]}", make) / "bin" / "python"
    except BuildFailed as exc:
        # Without a network pip says the same six times; the last time is the reason.
        lines = [line for line in str(exc).splitlines() if "Retry(total=" not in line or "Retry(total=0," in line]
        raise ToolMissing("its virtual environment cannot be made: " + "\n".join(lines)) from exc


def version(python: Path, distribution: str) -> str:
    """The version of what is installed under that name in the virtual environment of that Python."""
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    (found,) = distributions(name=distribution, path=[str(packages)])
    return found.version


def _interpreter(versions: Sequence[str]) -> tuple[str, str]:
    """An interpreter of one of these versions, and the text by which it is told from every other."""
    wanted = [f"cpython.{version}" for version in versions]
    for path in _interpreters(versions):
        looked = subprocess.run([path, "-I", "-c", _LOOK], capture_output=True, text=True, check=False)
        if looked.returncode == 0 and looked.stdout.splitlines()[0] in wanted:
            return path, looked.stdout
    raise ToolMissing(f"there is no Python {' or '.join(versions)} on this machine that makes virtual environments")


def _interpreters(versions: Sequence[str]) -> Iterator[str]:
    yield sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in versions:
        # pyenv's own program of that name fails unless that version is chosen.
        if (path := shutil.which(f"python{version}")) is not None:
            yield path
        yield from sorted(str(path) for path in pyenv.glob(f"{version}.*/bin/python"))
