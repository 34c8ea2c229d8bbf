"""Row 38: what surrounds the process: clock, time zone, locale, a read-only file system, a user without a home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest

from e2e.following import post
from e2e.places import Place
from mnist_pipeline import Digits, Settings
from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.local.processes import Sandbox, answers_ok, free_port
from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.testing import digit_png
from required import missing

# A user namespace, so that nobody need be root for it; in it, everything but /dev and /proc is read-only.
_BARE = 'mount -o remount,bind,ro / && exec unshare --user --map-user=1000 -- "$@"'


def bare(*command: str) -> list[str]:
    """The command, as uid 1000 on a read-only file system; the test is skipped where that cannot be had."""
    if shutil.which("unshare") is None:
        missing("there is no unshare(1) here")
    start = ["unshare", "--map-root-user", "--mount", "sh", "-c", _BARE, "sh"]
    tried = subprocess.run([*start, "touch", "file-of-the-tests"], capture_output=True, text=True, check=False)
    if "Read-only file system" not in tried.stderr:
        missing(f"no namespaces can be made here: {tried.stderr.strip()}")
    return [*start, *command]


@contextmanager
def transformer(place: Place, environment: Mapping[str, str]) -> Iterator[int]:
    """A transformer with this environment and no other but the place's settings; its HTTP port."""
    port = free_port()
    flags = ("--predictor_host", f"127.0.0.1:{place.predictor.http_port}", "--enable_grpc", "false")
    command = bare(sys.executable, "-m", "mnist_pipeline", "--http_port", str(port), *flags)
    inherited = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    search_path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    variables = {**inherited, **search_path, **place.settings, "SOURCE_BUCKETS": place.bucket, **environment}
    with Sandbox() as sandbox:
        only = ("env", "-i", *(f"{name}={value}" for name, value in variables.items()))
        child = sandbox.start("transformer", [*only, *command], env={})
        child.wait_ready(lambda: answers_ok(port, "/v1/models/mnist"), timeout_seconds=60)
        yield port
        assert child.stop(grace_seconds=60) == 0, child.log_tail()
        assert "Traceback" not in child.log.read_text(), child.log_tail()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TZ": "Pacific/Apia", "LC_ALL": "C", "LANG": "C"},
        {"TZ": "nowhere", "LC_ALL": "tr_TR.UTF-8", "HOME": "/nowhere", "TMPDIR": "/nowhere"},
    ],
)
def test_row_38_read_only_uid_1000_no_home_in_any_zone_and_locale(
    embedded_place: Place, environment: dict[str, str]
) -> None:
    place = embedded_place
    uploads = [place.upload(f"{uuid.uuid4()} é日本 I.png", digit_png(digit)) for digit in (3, 8)]
    rejected = place.upload(f"{uuid.uuid4()}.png", b"no image")
    with transformer(place, environment) as port:
        url = f"http://127.0.0.1:{port}/v1/models/mnist:predict"
        assert [post(url, upload.event, {"ce-id": "1"}).status for upload in uploads] == [200, 200]
        assert post(url, rejected.event).status == 422
    for upload, digit in zip(uploads, (3, 8), strict=True):
        assert list(place.copies(upload)) == [f"digit-{digit}/{upload.key}"]
        (result,) = place.results(upload)
        published = datetime.fromisoformat(result["time"])
        assert abs(datetime.now(timezone.utc) - published) < timedelta(minutes=5)


async def test_row_38_a_clock_that_is_wrong_is_told_and_nothing_is_lost(
    embedded_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_environ(embedded_place.settings, Digits()).minio
    assert settings is not None
    store = MinioObjectStore(settings)
    right = time.gmtime
    upload = embedded_place.upload(f"{uuid.uuid4()}.png", digit_png(1))
    monkeypatch.setattr(time, "gmtime", lambda: right(time.time() + 3600))
    with pytest.raises(StoreUnavailable, match="check the clocks"):
        await store.get(upload.bucket, upload.key, None, limit=1000, deadline=Deadline(20))
    monkeypatch.undo()
    stored = await store.get(upload.bucket, upload.key, None, limit=1000, deadline=Deadline(20))
    assert stored.data == upload.data
    await store.close()
