"""Credentials that the settings do not hold: files that are rotated, an STS, and what EKS and EC2 give, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from aiohttp import web

from mnist_pipeline import Digits
from mnist_pipeline.adapters import s3_credentials
from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Minio, Settings

_ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>t-{key}</SessionToken><Expiration>{ends}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


@dataclass
class Store:
    """A store with an STS, and the addresses at which containers and machines of AWS ask.

    Attributes:
        valid: the access keys that are taken.
        lasts: for how many seconds the credentials that it gives are valid.
        given: how many it has given; their keys are `key-1`, `key-2` and so on, and all are valid.
        asked: the queries and headers with which it was asked for them.
        used: the access key and the session token of each request that came to the store.
        refuses: nobody gets credentials any more.
        forgets: the store does not take those that it gives.
    """

    url: str = ""
    valid: set[str] = field(default_factory=set)
    lasts: float = 3600
    given: int = 0
    asked: list[Mapping[str, str]] = field(default_factory=list)
    used: list[tuple[str, str | None]] = field(default_factory=list)
    refuses: bool = False
    forgets: bool = False

    def give(self, request: web.Request) -> tuple[str, str]:
        """A new access key, and when it ends."""
        if self.refuses:
            raise web.HTTPForbidden
        self.asked.append({**request.query, **{name.lower(): value for name, value in request.headers.items()}})
        self.given += 1
        key = f"key-{self.given}"
        if not self.forgets:
            self.valid.add(key)
        ends = datetime.now(timezone.utc) + timedelta(seconds=self.lasts)
        return key, ends.strftime("%Y-%m-%dT%H:%M:%SZ")

    async def sts(self, request: web.Request) -> web.Response:
        key, ends = self.give(request)
        return web.Response(text=_ANSWER.format(key=key, ends=ends))

    async def container(self, request: web.Request) -> web.Response:
        key, ends = self.give(request)
        found = {"AccessKeyId": key, "SecretAccessKey": "s", "Token": f"t-{key}", "Expiration": ends}
        return web.json_response(found)

    async def session(self, _: web.Request) -> web.Response:
        return web.Response(text="of-the-machine")

    async def roles(self, _: web.Request) -> web.Response:
        return web.Response(text="its-role")

    async def bucket(self, request: web.Request) -> web.Response:
        key = request.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
        self.used.append((key, request.headers.get("X-Amz-Security-Token")))
        if key in self.valid:
            return web.Response()
        error = "<Error><Code>InvalidAccessKeyId</Code><Message>no</Message></Error>"
        return web.Response(status=403, text=error, content_type="application/xml")


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = Store()
    app = web.Application()
    app.router.add_post("/", store.sts)
    app.router.add_get("/v1/credentials", store.container)
    app.router.add_put("/latest/api/token", store.session)
    app.router.add_get("/latest/meta-data/iam/security-credentials/", store.roles)
    app.router.add_get("/latest/meta-data/iam/security-credentials/its-role", store.container)
    app.router.add_get("/mnist", store.bucket)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    store.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield store
    await runner.cleanup()


def settings_of(store: Store, **variables: str) -> Minio:
    minio = Settings.from_environ({"MINIO_ENDPOINT": store.url, **variables}, Digits()).minio
    assert minio is not None
    return minio


@dataclass
class Client:
    """Asks the store for something."""

    store: MinioObjectStore

    async def ask(self) -> None:
        await self.store.check("mnist", deadline=Deadline(10))


@pytest.fixture
async def client(store: Store) -> AsyncIterator[Client]:
    """One whose store a test gives."""
    client = Client(MinioObjectStore(Minio(endpoint=store.url.partition("//")[2], secure=False)))
    yield client
    await client.store.close()


def as_user(client: Client, minio: Minio) -> None:
    client.store = MinioObjectStore(minio)


@pytest.fixture(autouse=True)
def _no_role_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def renewed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """New credentials are fetched after some tenths of a second, whenever the old ones end."""
    monkeypatch.setattr(s3_credentials, "_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(s3_credentials, "_RENEWED_AFTER", 0.0)


def write_token(file: Path, token: str) -> None:
    file.write_text(token)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """The file of a web identity."""
    file = tmp_path / "token"
    write_token(file, "jwt-1")
    return file


async def test_a_pair_with_a_session_token_is_used_as_it_is(store: Store, client: Client) -> None:
    store.valid = {"who"}
    keys = {"AWS_ACCESS_KEY_ID": "who", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
    as_user(client, settings_of(store, **keys, AWS_ROLE_ARN="arn:not:used"))
    await client.ask()
    assert store.used == [("who", "t")]


async def test_a_session_token_of_others_is_not_sent_with_our_own_pair(
    store: Store, client: Client, tmp_path: Path
) -> None:
    store.valid = {"who"}
    token = tmp_path / "token"
    write_token(token, "of-something-else")
    for theirs in ({"AWS_SESSION_TOKEN": "of-something-else"}, {"AWS_SESSION_TOKEN_FILE": str(token)}):
        as_user(client, settings_of(store, MINIO_ACCESS_KEY="who", MINIO_SECRET_KEY="s", **theirs))
        await client.ask()
    assert store.used == [("who", None)] * 2


async def test_row_51_files_are_read_again_where_the_store_refuses_what_was_in_them(
    store: Store, client: Client, tmp_path: Path
) -> None:
    access, secret = tmp_path / "access", tmp_path / "secret"
    access.write_text("old\n")
    secret.write_text("s\n")
    store.valid = {"old"}
    as_user(client, settings_of(store, MINIO_ACCESS_KEY_FILE=str(access), MINIO_SECRET_KEY_FILE=str(secret)))
    await client.ask()
    access.write_text("new\n")
    await client.ask()
    assert store.used == [("old", None)] * 2, "what works is used on"
    store.valid = {"new"}
    await asyncio.gather(*(client.ask() for _ in range(8)))
    await client.ask()
    assert store.used[-1] == ("new", None)


async def test_row_51_files_that_are_rotated_twice_within_a_second_have_no_request_refused(
    store: Store, client: Client, tmp_path: Path
) -> None:
    access = tmp_path / "access"
    store.valid = {"first"}
    write_token(access, "first")
    as_user(client, settings_of(store, MINIO_ACCESS_KEY_FILE=str(access), MINIO_SECRET_KEY="s"))
    for name in ("first", "second", "third"):
        write_token(access, name)
        store.valid = {name}
        await client.ask()
        assert store.used[-1] == (name, None)


async def test_files_that_hold_what_the_store_refuses_send_nothing_again_and_one_that_is_gone_is_told(
    store: Store, client: Client, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    as_user(client, settings_of(store, MINIO_ACCESS_KEY="who", MINIO_SECRET_KEY_FILE=str(secret)))
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match=r"InvalidAccessKeyId.*MINIO_ACCESS_KEY"):
            await client.ask()
    assert len(store.used) == 3, "nothing is sent again without new credentials"
    secret.unlink()
    with pytest.raises(StoreUnavailable, match=r"FileNotFoundError.*MINIO_SECRET_KEY"):
        await client.ask()


async def test_a_web_identity_gets_credentials_of_the_store_itself(store: Store, client: Client, token: Path) -> None:
    as_user(client, settings_of(store, AWS_WEB_IDENTITY_TOKEN_FILE=str(token)))
    await client.ask()
    await client.ask()
    assert store.used == [("key-1", "t-key-1")] * 2
    (asked,) = store.asked
    assert (asked["Action"], asked["WebIdentityToken"]) == ("AssumeRoleWithWebIdentity", "jwt-1")
    assert "RoleArn" not in asked


async def test_a_role_is_taken_on_at_the_sts_that_is_named(store: Store, client: Client, token: Path) -> None:
    variables = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": "arn:aws:iam::1:role/digits"}
    minio = settings_of(store, **variables, AWS_ENDPOINT_URL_STS=store.url, AWS_ROLE_SESSION_NAME="mnist")
    as_user(client, minio)
    await client.ask()
    assert (store.asked[0]["RoleArn"], store.asked[0]["RoleSessionName"]) == ("arn:aws:iam::1:role/digits", "mnist")


@pytest.mark.usefixtures("renewed_soon")
async def test_row_51_a_token_is_read_again_and_credentials_are_renewed_while_the_old_ones_last(
    store: Store, client: Client, token: Path
) -> None:
    as_user(client, settings_of(store, AWS_WEB_IDENTITY_TOKEN_FILE=str(token)))
    await client.ask()
    write_token(token, "jwt-2\n")
    while store.used[-1] == ("key-1", "t-key-1"):
        await client.ask()
        await asyncio.sleep(0.02)
    assert [asked["WebIdentityToken"] for asked in store.asked[:2]] == ["jwt-1", "jwt-2"]


@pytest.mark.usefixtures("renewed_soon")
async def test_credentials_that_cannot_be_renewed_are_used_to_their_end_and_that_is_said(
    store: Store, client: Client, token: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_user(client, settings_of(store, AWS_WEB_IDENTITY_TOKEN_FILE=str(token)))
    await client.ask()
    store.refuses = True
    while "those in use end soon" not in caplog.text:
        await asyncio.sleep(0.02)
        await client.ask()
    assert "AWS_WEB_IDENTITY_TOKEN_FILE" in caplog.text
    # An hour is left.
    monkeypatch.setattr(s3_credentials, "_LAST_SECONDS", 7200.0)
    with pytest.raises(StoreUnavailable, match=r"WebIdentityProvider.*AWS_WEB_IDENTITY_TOKEN_FILE"):
        await client.ask()
    monkeypatch.undo()
    store.refuses = False
    await client.ask()


@pytest.mark.parametrize("sts", ["http://127.0.0.1:9", None])
async def test_the_token_is_told_to_nobody_where_the_sts_is_away_or_refuses_it(
    store: Store, client: Client, token: Path, caplog: pytest.LogCaptureFixture, sts: str | None
) -> None:
    store.refuses = True
    as_user(client, settings_of(store, AWS_WEB_IDENTITY_TOKEN_FILE=str(token), AWS_ENDPOINT_URL_STS=sts or store.url))
    with caplog.at_level(logging.INFO), pytest.raises(StoreUnavailable) as caught:
        await client.ask()
    assert "jwt-1" not in caplog.text
    assert "jwt-1" not in "".join(traceback.format_exception(caught.value))


async def test_a_store_that_goes_on_refusing_has_its_sts_asked_once_a_second_at_most(
    store: Store, client: Client, token: Path
) -> None:
    store.forgets = True
    as_user(client, settings_of(store, AWS_WEB_IDENTITY_TOKEN_FILE=str(token)))
    started = time.monotonic()
    for _ in range(3):
        refusals = await asyncio.gather(*(client.ask() for _ in range(8)), return_exceptions=True)
        assert ["InvalidAccessKeyId" in str(one) for one in refusals] == [True] * 8
    assert store.given <= 3 + time.monotonic() - started


async def test_row_51_a_file_that_is_rotated_after_the_store_refuses_is_read_while_requests_keep_coming(
    store: Store, client: Client, tmp_path: Path
) -> None:
    access = tmp_path / "access"
    write_token(access, "old")
    as_user(client, settings_of(store, MINIO_ACCESS_KEY_FILE=str(access), MINIO_SECRET_KEY="s"))
    store.valid = {"new"}
    with pytest.raises(StoreUnavailable):
        await client.ask()
    write_token(access, "new")
    while store.used[-1] != ("new", None):
        with contextlib.suppress(StoreUnavailable):
            await client.ask()
        await asyncio.sleep(0.05)


async def test_credentials_that_a_store_no_longer_takes_are_replaced(store: Store, client: Client, token: Path) -> None:
    as_user(client, settings_of(store, AWS_WEB_IDENTITY_TOKEN_FILE=str(token)))
    await client.ask()
    store.valid.clear()
    await client.ask()
    assert [key for key, _ in store.used] == ["key-1", "key-1", "key-2"]


async def test_a_container_of_eks_asks_with_the_token_that_it_was_given(
    store: Store, client: Client, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{store.url}/v1/credentials"}
    variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(token)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    as_user(client, settings_of(store, **variables))
    await client.ask()
    assert store.used == [("key-1", "t-key-1")]
    assert store.asked[0]["authorization"] == "jwt-1"


async def test_a_machine_of_ec2_has_a_role_where_its_metadata_are_named(store: Store, client: Client) -> None:
    as_user(client, settings_of(store, AWS_EC2_METADATA_SERVICE_ENDPOINT=store.url))
    await client.ask()
    assert store.used == [("key-1", "t-key-1")]
    assert store.asked[0]["x-aws-ec2-metadata-token"] == "of-the-machine"


async def test_who_gives_no_credentials_is_named_by_the_variable(store: Store, client: Client) -> None:
    as_user(client, settings_of(store, AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:9"))
    with pytest.raises(StoreUnavailable, match="AWS_EC2_METADATA_SERVICE_ENDPOINT"):
        await client.ask()


def test_a_role_s_settings_hold_no_secret(token: Path) -> None:
    store = Store(url="http://minio:9000")
    minio = settings_of(store, AWS_WEB_IDENTITY_TOKEN_FILE=str(token))
    assert "jwt-1" not in repr(minio)
