"""Kustomize, built from its sources by Go: what a folder of manifests comes to."""

from __future__ import annotations

import subprocess
from pathlib import Path

from servers.cache import cached, run, tool

_MODULE, VERSION = "sigs.k8s.io/kustomize/kustomize/v5", "v5.8.1"


def install() -> Path:
    """Kustomize's program from the cache, or built into it: a minute of both CPUs.

    Raises:
        ToolMissing: it is not cached, and there is no Go.
        BuildFailed: Go could not build it, for want of a network say.
    """

    def build(directory: Path) -> None:
        run(
            [tool("go"), "install", "-ldflags", "-s -w", f"{_MODULE}@{VERSION}"],
            env={"CGO_ENABLED": "0", "GOBIN": str(directory)},
        )

    return cached(f"kustomize-{VERSION}", build) / "kustomize"


def rendered(program: Path, folder: Path) -> str:
    """What `kustomize build` prints for that folder, many YAML documents.

    Raises:
        ValueError: it cannot be built, with what kustomize says.
    """
    done = subprocess.run([program, "build", folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(done.stderr.strip())
    return done.stdout
