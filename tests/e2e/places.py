"""Where a transformer of a test's own runs: on the embedded servers, or on Apache Kafka and MinIO themselves."""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minio import Minio
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from e2e.ways import ConsumeProcess, Group, Way
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.local.broker import Broker
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.testing import minio_event
from servers.kafka import KafkaServer

DIGIT_BUCKETS = tuple(f"digit-{digit}" for digit in range(10))
REJECTED_BUCKET = "mnist-rejected"
RESULTS_TOPIC = "mnist-predictions"

_TESTS = Path(__file__).parent.parent


def search_path() -> str:
    """The PYTHONPATH of a program that lies among the tests."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(str(Path(entry).absolute()) for entry in filter(None, (str(_TESTS), *inherited)))


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One object that was uploaded, and the event that announces it."""

    bucket: str
    key: str
    data: bytes
    event: dict[str, Any]

    @property
    def version_id(self) -> str | None:
        """The version that the event is about."""
        version_id: str | None = self.event["Records"][0]["s3"]["object"].get("versionId")
        return version_id


@dataclass(kw_only=True)
class Place:
    """Servers that a test shares with others, and a source bucket of its own, whose events it delivers itself.

    Attributes:
        settings: those that point a transformer to the servers, and to `bucket`.
        owner: the variables of somebody with all rights in the store, where that is another than the transformer.
        client: makes a client of the store with all rights.
        kafka: the broker of `settings`.
        versioned: whether the store has versions.
    """

    sandbox: Sandbox
    settings: Mapping[str, str]
    predictor: ModelServer
    client: Callable[[], Minio]
    kafka: Broker | KafkaServer
    read_results: Callable[[], list[Record]]
    versioned: bool
    owner: Mapping[str, str] = field(default_factory=dict)
    bucket: str = field(default_factory=lambda: f"source-{uuid.uuid4()}")

    def make_buckets(self) -> None:
        """Make those that are not there yet; of them only the source has versions, as `mnist-pipeline setup` does."""
        client = self.client()
        for name in (self.bucket, REJECTED_BUCKET, *DIGIT_BUCKETS):
            if not client.bucket_exists(bucket_name=name):
                client.make_bucket(bucket_name=name)
        if self.versioned:
            client.set_bucket_versioning(bucket_name=self.bucket, config=VersioningConfig(ENABLED))

    def start(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        program: str = "mnist_pipeline",
        args: Sequence[str] = (),
        predictor_host: str | None = None,
        way: Way = "http",
    ) -> ModelServer:
        """Start a transformer, or another `program` that is one; it ends with the place, if not before."""
        if way == "kafka":
            return self.consume(settings=settings, program=program, args=args, predictor_host=predictor_host)
        return ModelServer(
            self.sandbox,
            f"transformer-{uuid.uuid4()}",
            program,
            model_name="mnist",
            args=(*self._predictor(predictor_host), *args),
            env=self._environment(settings),
        )

    def consume(
        self,
        group: Group | None = None,
        *,
        dead_letters: bool = True,
        settings: Mapping[str, str] | None = None,
        program: str = "mnist_pipeline",
        args: Sequence[str] = (),
        predictor_host: str | None = None,
    ) -> ConsumeProcess:
        """Start a member of a consumer group, or of this one."""
        return ConsumeProcess(
            self.sandbox,
            f"consumer-{uuid.uuid4()}",
            program,
            group=group or Group(self.kafka),
            dead_letters=dead_letters,
            args=(*self._predictor(predictor_host), *args),
            env=self._environment(settings),
        )

    def _predictor(self, host: str | None) -> tuple[str, str]:
        return "--predictor_host", host or f"127.0.0.1:{self.predictor.http_port}"

    def _environment(self, settings: Mapping[str, str] | None) -> dict[str, str]:
        return {**self.settings, "SOURCE_BUCKETS": self.bucket, "PYTHONPATH": search_path(), **(settings or {})}

    def upload(self, key: str, data: bytes, *, metadata: Mapping[str, str] | None = None) -> Upload:
        """Put an object into the source bucket."""
        put = self.client().put_object(
            bucket_name=self.bucket,
            object_name=key,
            data=io.BytesIO(data),
            length=len(data),
            content_type="image/png",
            metadata=dict(metadata or {}),
        )
        event = minio_event(self.bucket, key, version_id=put.version_id, etag=put.etag or "")
        return Upload(bucket=self.bucket, key=key, data=data, event=event)

    def is_left(self, upload: Upload) -> bool:
        """Whether any version of the key is still in the source bucket."""
        return bool(self._versions(upload.bucket, upload.key))

    def copies(self, upload: Upload) -> dict[str, bytes]:
        """What lies under names that begin like the upload's, without its suffix, elsewhere: bucket/key → bytes."""
        found = {}
        for bucket in (*DIGIT_BUCKETS, REJECTED_BUCKET):
            for key in self._versions(bucket, upload.key.rpartition(".")[0]):
                response = self.client().get_object(bucket_name=bucket, object_name=key)
                found[f"{bucket}/{key}"] = response.read()
                response.close()
                response.release_conn()
        return found

    def all_results(self) -> list[dict[str, Any]]:
        """The published events, oldest first."""
        return [json.loads(record.value or b"{}") for record in self.read_results()]

    def ids_by_subject(self) -> dict[str, set[str]]:
        """The different ids of the published events, by the object that they are about."""
        ids: dict[str, set[str]] = {}
        for event in self.all_results():
            ids.setdefault(event.get("subject", ""), set()).add(event["id"])
        return ids

    def results(self, upload: Upload) -> list[dict[str, Any]]:
        """Those about the upload's key."""
        return [event for event in self.all_results() if event.get("subject") == f"{upload.bucket}/{upload.key}"]

    def _versions(self, bucket: str, prefix: str) -> list[str]:
        listed = self.client().list_objects(
            bucket_name=bucket, prefix=prefix, recursive=True, include_version=self.versioned
        )
        return [str(one.object_name) for one in listed]
