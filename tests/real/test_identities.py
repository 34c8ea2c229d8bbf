"""Who we are at MinIO itself while that changes: keys that are rotated in their files, and credentials of its STS."""

from __future__ import annotations

import io
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.following import IMAGES, post, wait_until
from mnist_pipeline import Digits
from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.local.servers import ModelServer, start_predictor, start_transformer
from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.testing import minio_event
from servers.minio import MinioServer, transformer_policy, variables_of
from servers.tokens import Issuer, Provider

pytestmark = pytest.mark.real

CLIENT_ID = "mnist-pipeline"
POLICY = "of-the-transformer"
# MinIO's credentials end with the token; ten seconds before, ours are no longer used.
TOKEN_SECONDS = 14


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider(Issuer()) as provider:
        yield provider


@pytest.fixture(scope="module")
def minio(minio_program: Path, provider: Provider) -> Iterator[MinioServer]:
    env = {"MINIO_IDENTITY_OPENID_CONFIG_URL": provider.config_url, "MINIO_IDENTITY_OPENID_CLIENT_ID": CLIENT_ID}
    with Sandbox() as sandbox, MinioServer(minio_program, sandbox, env=env) as server:
        server.admin().policy_add(POLICY, policy=transformer_policy())
        for bucket in ("mnist", "digit-7", "mnist-rejected"):
            server.client().make_bucket(bucket_name=bucket)
        yield server


@pytest.fixture(scope="module")
def predictor() -> Iterator[ModelServer]:
    with Sandbox() as sandbox, start_predictor(sandbox) as server:
        yield server


@pytest.fixture
def variables(minio: MinioServer) -> dict[str, str]:
    """Where MinIO is, and not who we are."""
    return {name: value for name, value in variables_of(minio.root).items() if not name.endswith("_KEY")}


@contextmanager
def transformer(predictor: ModelServer, variables: dict[str, str]) -> Iterator[ModelServer]:
    with (
        Sandbox() as sandbox,
        start_transformer(sandbox, predictor_host=f"127.0.0.1:{predictor.http_port}", env=variables) as server,
    ):
        yield server


def file_digits(minio: MinioServer, server: ModelServer, *, until: Callable[[], bool]) -> int:
    """Upload sevens one after another and deliver their events once each; how many were filed, which is all of them."""
    filed = 0
    client = minio.client()
    while not until():
        key = f"{secrets.token_hex(8)}.png"
        client.put_object("mnist", key, io.BytesIO(IMAGES["7-0000.png"]), len(IMAGES["7-0000.png"]))
        answer = post(server.predict_url, minio_event("mnist", key))
        assert answer.status == 200, answer.body
        assert client.stat_object("digit-7", key)
        filed += 1
        time.sleep(0.02)
    return filed


def test_row_51_keys_that_are_rotated_in_their_files_are_used_without_a_restart_and_no_event_is_refused(
    minio: MinioServer, predictor: ModelServer, variables: dict[str, str], tmp_path: Path
) -> None:
    access, secret = tmp_path / "access-key", tmp_path / "secret-key"

    def rotate(name: str) -> None:
        """A new user in the files; then the old one is no more."""
        old = access.read_text() if access.exists() else None
        password = secrets.token_hex(16)
        minio.add_user(name, password, transformer_policy())
        secret.write_text(password)
        access.write_text(name)
        if old is not None:
            minio.admin().user_remove(old)

    rotate("user-0")
    variables |= {"MINIO_ACCESS_KEY_FILE": str(access), "MINIO_SECRET_KEY_FILE": str(secret)}
    with transformer(predictor, variables) as server:
        server.wait_ready()
        rotations = iter(["user-1", "user-2", "user-2-with-another-secret"])
        filed = 0
        for rotation in rotations:
            filed += file_digits(minio, server, until=countdown(5))
            if rotation in ("user-1", "user-2"):
                rotate(rotation)
            else:
                password = secrets.token_hex(16)
                minio.admin().user_add("user-2", password)
                secret.write_text(password)
        filed += file_digits(minio, server, until=countdown(5))
        assert filed == 20


def countdown(number: int) -> Callable[[], bool]:
    """True after so many calls."""
    left = iter(range(number))
    return lambda: next(left, None) is None


def test_row_51_credentials_for_a_web_identity_are_renewed_while_events_come(
    minio: MinioServer, provider: Provider, predictor: ModelServer, variables: dict[str, str], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    ended = threading.Event()

    def rotate() -> None:
        while not ended.is_set():
            new = tmp_path / "new"
            new.write_text(provider.token(TOKEN_SECONDS, audience=CLIENT_ID, policy=POLICY))
            new.replace(token)
            ended.wait(1)

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        wait_until(token.exists)
        with transformer(predictor, {**variables, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token)}) as server:
            server.wait_ready()
            # Longer than the first credentials last.
            end = time.monotonic() + TOKEN_SECONDS + 4
            assert file_digits(minio, server, until=lambda: time.monotonic() > end) > 20
    finally:
        ended.set()
        thread.join()


async def test_a_token_that_minio_refuses_is_named_by_its_variable_until_there_is_another(
    provider: Provider, variables: dict[str, str], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(provider.token(-60, audience=CLIENT_ID, policy=POLICY))
    settings = Settings.from_environ({**variables, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token)}, Digits())
    assert settings.minio is not None
    store = MinioObjectStore(settings.minio)
    with pytest.raises(StoreUnavailable, match="AWS_WEB_IDENTITY_TOKEN_FILE") as caught:
        await store.check("mnist", deadline=Deadline(10))
    assert token.read_text() not in str(caught.value)
    token.write_text(provider.token(3600, audience=CLIENT_ID, policy=POLICY))
    await store.check("mnist", deadline=Deadline(10))
    await store.close()
