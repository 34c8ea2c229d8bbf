"""Kustomize, and the strict check of manifests, for the tests beside this file.

They are skipped with the reason where these cannot be had, and fail instead where `REQUIRE_TOOLS=1`. The strict check
is a program `check.py` with the CRDs and rules that it knows, in the folder that `MANIFEST_CHECK` names; where that is
not set, its tests are skipped in any case.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from required import missing
from servers import kustomize, venvs
from servers.cache import BuildFailed, ToolMissing

_VALIDATOR = Path(kustomize.__file__).with_name("kubernetes-validate.txt")
_PYTHONS = ("3.13", "3.12", "3.11", "3.10")
_KUBERNETES = "1.34"


@pytest.fixture(scope="session")
def kustomize_program() -> Path:
    """What `servers.kustomize.rendered` runs."""
    try:
        return kustomize.install()
    except (ToolMissing, BuildFailed) as exc:
        missing(f"kustomize cannot be had here: {exc}")


@pytest.fixture(scope="session")
def strict_check() -> Callable[[str], str]:
    """A function that gives what is wrong with these manifests, one line each; the empty text is praise."""
    folder = os.environ.get("MANIFEST_CHECK")
    if not folder:
        pytest.skip("MANIFEST_CHECK is not set: no schemas and rules to check the manifests by")
    place = Path(folder)
    if not (place / "check.py").is_file():
        missing(f"MANIFEST_CHECK is {folder}, where no check.py is")
    try:
        python = venvs.install(_VALIDATOR, _PYTHONS)
    except ToolMissing as exc:
        missing(f"kubernetes-validate cannot be had here: {exc}")
    argv: list[str | Path] = [python, place / "check.py", "--tight", "--kube", _KUBERNETES]
    argv += ["--rules", place / "rules.yaml", "--crds", place / "crds", "-"]

    def check(manifests: str) -> str:
        done = subprocess.run(argv, input=manifests, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    return check


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reader puts into Secrets, each key a file."""
    folder = tmp_path_factory.mktemp("secrets")
    for key in ("access-key", "secret-key", "user", "password"):
        (folder / key).write_text("of-a-secret")
    authority = trustme.CA()
    certificate = authority.issue_cert("mnist.example")
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "user.crt"))
    certificate.private_key_pem.write_to_path(str(folder / "user.key"))
    return folder
