"""MinIO itself, built from its sources by Go: one process over one directory, on loopback."""

from __future__ import annotations

import mmap
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import urllib3
from minio import Minio, MinioAdmin, S3Error
from minio.credentials.providers import StaticProvider
from urllib3.exceptions import HTTPError

from mnist_pipeline.local.processes import Sandbox, free_port
from servers.cache import cached, run, tool
from servers.program import Server

REGION = "us-east-1"

# The last commit before the repository was archived; a release's tag is no version that Go resolves.
_MODULE = "github.com/minio/minio"
_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
_NOTHING: Mapping[str, str] = MappingProxyType({})


def install() -> Path:
    """MinIO's program from the cache, or built into it: some minutes of both CPUs, and 2 GB in Go's own caches.

    Raises:
        ToolMissing: it is not cached, and there is no Go.
        BuildFailed: Go could not build it.
    """
    return cached(f"minio-{_VERSION}", _build) / "minio"


def _build(directory: Path) -> None:
    # Without symbols it is a third smaller; without cgo it needs no C compiler.
    run(
        [tool("go"), "install", "-ldflags", "-s -w", f"{_MODULE}@{_VERSION}"],
        env={"CGO_ENABLED": "0", "GOBIN": str(directory)},
    )


def version(program: Path) -> str:
    """What the program says of itself: the module's version, which Go has built into it (`go version -m`)."""
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        found = re.search(rb"\nmod\t" + re.escape(_MODULE.encode()) + rb"\t(\S+)", contents)
        return f"MinIO {found[1].decode() if found else 'of an unknown version'}"


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
        """Whether it serves signed requests: its health checks are content a moment before it knows its users."""
        try:
            self.client().list_buckets()
        except (HTTPError, S3Error):
            return False
        return True

    def client(self) -> Minio:
        """A client with the root user's rights; an error is not retried."""
        return Minio(
            self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
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

    def close(self) -> None:
        """Stop it if it runs, and close the clients' connections."""
        super().close()
        self._pool.clear()
