"""An older version of the package and this one, side by side at one site: what an upgrade and a rollback come to."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from e2e.following import wait_until
from mnist_pipeline.local.servers import ModelServer
from real.objects import assert_each_is_filed_once, filed, fresh, thousand, upload
from real.site import Site
from servers.kafka import KafkaProgram

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
# The last commit before metrics, `consume` and roles; from the first release on, the release before.
OLD = "3146cdc35b0b01a9d32b559cd4da9f4881bc9e2e"


@pytest.fixture(scope="module")
def site(kafka_program: KafkaProgram, minio_program: Path) -> Iterator[Site]:
    with Site(kafka_program, minio_program) as site:
        yield site


@pytest.fixture(scope="module")
def old_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The older version's code."""
    archive = subprocess.run(["git", "archive", OLD, "src"], cwd=ROOT, capture_output=True, check=False)  # noqa: S607 - wherever git is
    if archive.returncode != 0:
        pytest.skip(f"there is no older version to be had here: {archive.stderr.decode(errors='replace').strip()}")
    directory = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(directory, filter="data")
    path = directory / "src"
    run = [sys.executable, "-c", "import mnist_pipeline; print(mnist_pipeline.__file__)"]
    found = subprocess.run(run, env={"PYTHONPATH": str(path)}, capture_output=True, check=True, text=True).stdout
    assert found.startswith(str(path)), "what runs is what was unpacked"
    return path


def start(site: Site, name: str, path: Path | None = None) -> ModelServer:
    """A transformer, of this version or of that which lies there."""
    server = site.start_transformer(name, {} if path is None else {"PYTHONPATH": str(path)})
    server.wait_ready()
    return server


def are_filed(site: Site, prefix: str, wanted: int) -> bool:
    return filed(site, prefix) >= wanted


def test_a_rollout_and_a_rollback_under_load_lose_nothing_and_file_each_object_once(site: Site, old_path: Path) -> None:
    prefix = fresh("versions")
    objects = thousand(prefix)
    parts = [dict(list(objects.items())[number::3]) for number in range(3)]
    site.transformers = (start(site, "old", old_path), start(site, "new"))
    options = ("--unordered", "--max-in-flight", "8")
    with site.delivering(*options) as sources:
        upload(site, parts[0])
        # While both serve, each of them goes, as a pod does, and another of the other version comes in its place.
        for number, path in enumerate((None, old_path)):
            other = start(site, f"instead-of-{number}", path)
            wanted = filed(site, prefix) + 20
            upload(site, parts[number + 1])
            wait_until(partial(are_filed, site, prefix, wanted), seconds=60, every=0.25)
            site.transformers[number].close()
            # Knative's sink is a Service with pods behind it; this one is a pod.
            site.sandbox.stop(sources[number], grace_seconds=60)
            assert site.delivered(sources[number]) > 0
            sources[number] = site.start_source(other, *options)
            site.wait_delivering(sources[number])
        site.wait_settled()
    assert_each_is_filed_once(site, prefix, objects)
