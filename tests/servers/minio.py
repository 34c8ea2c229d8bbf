"""MinIO itself, built from its sources by Go: one process over one directory, on loopback; and `mc`, its client."""

from __future__ import annotations

import json
import mmap
import re
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import urllib3
from minio import Minio, MinioAdmin, S3Error
from minio.credentials.providers import StaticProvider
from urllib3.exceptions import HTTPError

from mnist_pipeline.local.processes import Sandbox, free_port
from mnist_pipeline.pipeline import settings
from servers.cache import cached, run, tool
from servers.program import Server

REGION = "us-east-1"

# The last commits before the repositories were archived; a release's tag is no version that Go resolves.
_SERVER = "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c"
_CLIENT = "github.com/minio/mc", "v0.0.0-20250313080218-cf909e1063a9"
_BUCKET = "arn:aws:s3:::"
_NOTHING: Mapping[str, str] = MappingProxyType({})


def install() -> Path:
    """MinIO's program from the cache, or built into it: some minutes of both CPUs, and 2 GB in Go's own caches.

    Raises:
        ToolMissing: it is not cached, and there is no Go.
        BuildFailed: Go could not build it.
    """
    return _built(*_SERVER)


def install_mc() -> Path:
    """The program `mc` from the cache, or built into it, which is done sooner after `install()`.

    Raises:
        ToolMissing: it is not cached, and there is no Go.
        BuildFailed: Go could not build it.
    """
    return _built(*_CLIENT)


def _built(module: str, module_version: str) -> Path:
    name = module.rpartition("/")[2]

    def build(directory: Path) -> None:
        # Without symbols it is a third smaller; without cgo it needs no C compiler.
        run(
            [tool("go"), "install", "-ldflags", "-s -w", f"{module}@{module_version}"],
            env={"CGO_ENABLED": "0", "GOBIN": str(directory)},
        )

    return cached(f"{name}-{module_version}", build) / name


def version(program: Path) -> str:
    """What MinIO's program says of itself: the module's version, which Go has built into it (`go version -m`)."""
    module, _ = _SERVER
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        found = re.search(rb"\nmod\t" + re.escape(module.encode()) + rb"\t(\S+)", contents)
        return f"MinIO {found[1].decode() if found else 'of an unknown version'}"


def transformer_policy(buckets: Mapping[str, str] = _NOTHING) -> dict[str, Any]:
    """The policy that the package has for the transformer's user.

    Args:
        buckets: other names, or patterns, for buckets that the policy names: `{"mnist": "uploads"}`.
    """
    policy: dict[str, Any] = json.loads(files("mnist_pipeline.site").joinpath("minio-policy.json").read_text())
    for statement in policy["Statement"]:
        statement["Resource"] = [_renamed(resource, buckets) for resource in statement["Resource"]]
    return policy


def _renamed(resource: str, buckets: Mapping[str, str]) -> str:
    bucket, slash, keys = resource.removeprefix(_BUCKET).partition("/")
    return f"{_BUCKET}{buckets.get(bucket, bucket)}{slash}{keys}"


def variables_of(user: settings.Minio) -> dict[str, str]:
    """The environment variables by which a program of ours is that user."""
    variables = {
        "MINIO_ENDPOINT": user.endpoint,
        "S3_USE_HTTPS": str(int(user.secure)),
        "MINIO_ACCESS_KEY": user.access_key,
        "MINIO_SECRET_KEY": user.secret_key,
        "MINIO_REGION": user.region,
    }
    return variables if user.ca_cert is None else {**variables, "MINIO_CA_CERT": user.ca_cert}


def upload_with(
    client: Minio,
    bucket: str,
    key: str,
    data: bytes,
    headers: Mapping[str, str],
    *,
    query: Mapping[str, str] = _NOTHING,
) -> str | None:
    """Put an object with just these headers, which minio-py would sort out, and give its version id.

    What is in `query` counts as headers too, and is not encoded as minio-py encodes metadata.
    """
    url = client.get_presigned_url("PUT", bucket, key, extra_query_params=dict(query))
    with urllib3.PoolManager() as http:
        put = http.request("PUT", url, body=data, headers=dict(headers))
    if put.status != HTTPStatus.OK:
        raise AssertionError(put.data)
    return put.headers.get("x-amz-version-id")


class MinioServer(Server):
    """One MinIO with its root user, started by its constructor.

    Args:
        program: what `install()` returned.
        sandbox: where it runs and keeps its objects.
        name: of the part, for its log, its data and errors; each server of a sandbox has its own.
        env: more of its settings, such as `MINIO_NOTIFY_KAFKA_…`.
        certificates: a directory with `public.crt` and `private.key`, for TLS; None: it speaks plain HTTP.
        ca_cert: the file of CA certificates by which our own clients trust it.

    Raises:
        PartFailed: it cannot be started.
    """

    def __init__(
        self,
        program: Path,
        sandbox: Sandbox,
        *,
        name: str = "minio",
        env: Mapping[str, str] = _NOTHING,
        certificates: Path | None = None,
        ca_cert: Path | None = None,
    ) -> None:
        self.secure = certificates is not None
        self._ca_cert = ca_cert
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.access_key = "root-of-the-tests"
        self.secret_key = secrets.token_hex(16)
        self._pool = urllib3.PoolManager(
            maxsize=32, timeout=30.0, retries=False, ca_certs=None if ca_cert is None else str(ca_cert)
        )
        home = sandbox.directory / name
        home.mkdir()
        certificates = certificates or home / "certs"  # which need not be there
        options: list[str | Path] = ["--quiet", "--address", self.endpoint, "--certs-dir", certificates, home / "data"]
        environment = {
            "HOME": str(home),
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            **env,
        }
        super().__init__(sandbox, name, [program, "server", *options], environment)
        self.start()

    def is_ready(self) -> bool:
        """Whether it knows its users: its health checks are content before that, and it serves its root user."""
        try:
            self._client("nobody-we-know", "a-secret-of-nobody").list_buckets()
        except HTTPError:
            return False
        except S3Error as exc:
            return exc.code == "InvalidAccessKeyId"
        return False

    def client(self) -> Minio:
        """A client with the root user's rights; an error is not retried."""
        return self._client(self.access_key, self.secret_key)

    def _client(self, access_key: str, secret_key: str) -> Minio:
        return Minio(
            self.endpoint,
            access_key=access_key,
            secret_key=secret_key,
            secure=self.secure,
            region=REGION,
            http_client=self._pool,
        )

    def admin(self) -> MinioAdmin:
        """A client for users and policies."""
        return MinioAdmin(
            endpoint=self.endpoint,
            credentials=StaticProvider(self.access_key, self.secret_key),
            secure=self.secure,
            region=REGION,
            http_client=self._pool,
        )

    def add_user(self, access_key: str, secret_key: str, policy: Mapping[str, Any]) -> None:
        """Add a user who may do what the policy says (an IAM policy document), and nothing else."""
        admin = self.admin()
        admin.user_add(access_key, secret_key)
        admin.policy_add(f"of-{access_key}", policy=dict(policy))
        admin.attach_policy([f"of-{access_key}"], user=access_key)

    def add_transformer(self, access_key: str, buckets: Mapping[str, str] = _NOTHING) -> settings.Minio:
        """Add a user under `transformer_policy(buckets)`; return what a transformer needs to be that user."""
        user = self._settings(access_key, secrets.token_hex(16))
        self.add_user(user.access_key, user.secret_key, transformer_policy(buckets))
        return user

    @property
    def root(self) -> settings.Minio:
        """What a program of ours needs to be the root user."""
        return self._settings(self.access_key, self.secret_key)

    def _settings(self, access_key: str, secret_key: str) -> settings.Minio:
        return settings.Minio(
            endpoint=self.endpoint,
            secure=self.secure,
            access_key=access_key,
            secret_key=secret_key,
            region=REGION,
            ca_cert=None if self._ca_cert is None else str(self._ca_cert),
        )

    def close(self) -> None:
        """Stop it if it runs, and close the clients' connections."""
        super().close()
        self._pool.clear()
