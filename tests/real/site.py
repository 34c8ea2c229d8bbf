"""A site as users run it: Apache Kafka, MinIO with its own Kafka target, and our commands as programs of their own.

The transformers are a MinIO user under the package's policy; `mnist-pipeline setup` and whoever uploads or looks are
its root user.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec

from e2e.following import wait_until
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.local.processes import Child, Part, PartFailed, Sandbox, answers_ok, free_port
from mnist_pipeline.local.servers import ModelServer, start_predictor, start_transformer
from mnist_pipeline.pipeline.settings import Minio
from servers.kafka import KafkaProgram, KafkaServer
from servers.minio import MinioServer, variables_of

SOURCE_BUCKET = "mnist"
DIGIT_BUCKETS = tuple(f"digit-{digit}" for digit in range(10))
REJECTED_BUCKET = "mnist-rejected"
NOTIFICATIONS_TOPIC = "mnist"
RESULTS_TOPIC = "mnist-predictions"
DEAD_LETTERS_TOPIC = "mnist-dead-letters"
PARTITIONS = 6

_GROUP = "sources"
_CONSUMERS = "consumers"
_API_VERSION = (4, 0)
_TARGET = "MINIO_NOTIFY_KAFKA_{}_PRIMARY"
_DELIVERING = "delivering topic"
_ASK_EVERY = 0.25
_SETTINGS = MappingProxyType(
    {
        "REQUEST_TRACE_KEY": "test-trace-id",
        "INFERENCE_SERVICE_NAME": "test-transformer",
        "POD_NAMESPACE": "kserve-test",
    }
)


@dataclass(frozen=True)
class Consumer:
    """A `mnist-pipeline consume`, and the port of its health."""

    child: Child
    port: int

    def wait_ready(self) -> None:
        """Wait until it consumes."""
        self.child.wait_ready(lambda: answers_ok(self.port, "/v2/health/ready"), timeout_seconds=60)


class Site(Part):
    """A broker, a store, a predictor and transformers, set up by `mnist-pipeline setup`; sources and consumers come and
    go.

    Its parts are its attributes: `sandbox`, `kafka`, `minio`, `predictor`, `transformers`; `user` is who those are in
    MinIO.

    Args:
        kafka_program: what `servers.kafka.install()` returned.
        minio_program: what `servers.minio.install()` returned.
        partitions: of each topic.
        transformers: how many of them.
    """

    sandbox: Sandbox
    kafka: KafkaServer
    minio: MinioServer
    user: Minio
    predictor: ModelServer
    transformers: tuple[ModelServer, ...]

    def __init__(
        self, kafka_program: KafkaProgram, minio_program: Path, *, partitions: int = PARTITIONS, transformers: int = 2
    ) -> None:
        self._programs = kafka_program, minio_program
        self._partitions = partitions
        self._number_of_transformers = transformers
        self._exit = contextlib.ExitStack()
        self._started_sources = 0

    def wait_ready(self) -> None:
        """Start the parts side by side, then set the site up.

        Raises:
            PartFailed: a part did not come up, or `mnist-pipeline setup` had something to complain of.
        """
        kafka_program, minio_program = self._programs
        self.sandbox = self._exit.enter_context(Sandbox())
        self.predictor = start_predictor(self.sandbox)
        self._exit.callback(self.predictor.close)
        self.kafka = KafkaServer(kafka_program, self.sandbox)
        self._exit.callback(self.kafka.close)
        self.minio = MinioServer(
            minio_program,
            self.sandbox,
            env={
                _TARGET.format("ENABLE"): "on",
                _TARGET.format("BROKERS"): self.kafka.bootstrap_servers,
                _TARGET.format("TOPIC"): NOTIFICATIONS_TOPIC,
                _TARGET.format("QUEUE_DIR"): str(self.sandbox.directory / "minio-queue"),
                "MINIO_PROMETHEUS_AUTH_TYPE": "public",
            },
        )
        self._exit.callback(self.minio.close)
        self.minio.wait_ready()
        self.user = self.minio.add_transformer("transformer")
        numbers = range(self._number_of_transformers)
        self.transformers = tuple(self.start_transformer(f"transformer-{number}") for number in numbers)
        self.kafka.wait_ready()
        self.setup("--partitions", str(self._partitions), "--dead-letter-topic", DEAD_LETTERS_TOPIC)
        for server in (self.predictor, *self.transformers):
            server.wait_ready()

    def close(self) -> None:
        """Stop everything and remove its data."""
        self._exit.close()

    @property
    def environment(self) -> dict[str, str]:
        """The settings with which our programs run here, all but `setup` as `user`."""
        return {
            **variables_of(self.user),
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "KAFKA_TOPIC": RESULTS_TOPIC,
            **_SETTINGS,
        }

    def start_transformer(self, name: str, settings: Mapping[str, str] | None = None) -> ModelServer:
        """Start a transformer with more `settings`; it ends with the site, if not before."""
        server = start_transformer(
            self.sandbox,
            predictor_host=f"127.0.0.1:{self.predictor.http_port}",
            env={**self.environment, **(settings or {})},
            name=name,
        )
        self._exit.callback(server.close)
        return server

    def setup(self, *arguments: str) -> list[str]:
        """Run `mnist-pipeline setup` as MinIO's root user; return the lines that it printed.

        Raises:
            PartFailed: its exit code is not 0.
        """
        done = subprocess.run(
            [sys.executable, "-m", "mnist_pipeline", "setup", "--topic", NOTIFICATIONS_TOPIC, *arguments],
            env={**os.environ, **self.environment, **variables_of(self.minio.root)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode != 0:
            raise PartFailed("setup", f"ended with code {done.returncode}", done.stdout + done.stderr)
        return done.stdout.splitlines()

    def start_source(self, transformer: ModelServer, *options: str) -> Child:
        """Start a `mnist-pipeline source` in the one consumer group; it delivers after `wait_delivering`."""
        self._started_sources += 1
        command = ["source", "--sink", transformer.predict_url, "--topic", NOTIFICATIONS_TOPIC, "--group", _GROUP]
        return self.sandbox.start(
            f"source-{self._started_sources}",
            [sys.executable, "-m", "mnist_pipeline", *command, "--initial-offset", "earliest", *options],
            env=self.environment,
        )

    def start_consumer(self, name: str) -> Consumer:
        """Start a `mnist-pipeline consume` in its one consumer group; it consumes once it is ready."""
        port = free_port()
        predictor = ("--predictor_host", f"127.0.0.1:{self.predictor.http_port}")
        command = ["consume", *predictor, "--topic", NOTIFICATIONS_TOPIC, "--group", _CONSUMERS]
        where = ("--dead-letter-topic", DEAD_LETTERS_TOPIC, "--host", "127.0.0.1", "--http_port", str(port))
        argv = [sys.executable, "-m", "mnist_pipeline", *command, *where]
        return Consumer(self.sandbox.start(name, argv, env=self.environment), port)

    @staticmethod
    def wait_delivering(source: Child) -> None:
        """Wait until the source has its partitions."""
        source.wait_ready(lambda: _DELIVERING in source.log.read_text(), timeout_seconds=60)

    @staticmethod
    def delivered(source: Child) -> int:
        """How many records a source that has ended says that it delivered, and gave none up.

        Raises:
            PartFailed: it says something else.
        """
        counted = re.search(r"delivered (\d+), attempts that failed \d+, dead letters 0$", source.log_tail())
        if counted is None:
            raise source.failed("has given records up, or did not end by itself")
        return int(counted[1])

    @contextlib.contextmanager
    def delivering(self, *options: str) -> Iterator[list[Child]]:
        """Deliver by one source a transformer while the block lasts, which may replace them in the list.

        Raises:
            PartFailed: a source did not begin, did not end well on SIGTERM, or has given records up.
        """
        sources = [self.start_source(transformer, *options) for transformer in self.transformers]
        try:
            for source in sources:
                self.wait_delivering(source)
            yield sources
        finally:
            codes = [self.sandbox.stop(source, grace_seconds=60) for source in sources]
        for source, code in zip(sources, codes, strict=True):
            self.delivered(source)
            if code != 0:
                raise source.failed(f"ended with code {code}")

    def wait_released(self, *, seconds: float = 150) -> None:
        """Wait until no version of anything is left in the source bucket."""
        wait_until(
            lambda: not self.versions(SOURCE_BUCKET),
            "versions are left in the source bucket",
            seconds=seconds,
            every=_ASK_EVERY,
        )

    def wait_settled(self, *, seconds: float = 150) -> None:
        """Wait until that, and until every notification is committed, which a source does every five seconds."""
        self.wait_released(seconds=seconds)
        self._wait_committed(_GROUP, seconds)

    def wait_consumed(self, *, seconds: float) -> None:
        """Wait until the consumers have committed every notification."""
        self._wait_committed(_CONSUMERS, seconds)

    def published(self) -> int:
        """How many results there are so far."""
        with self.kafka.admin() as admin:
            return sum(self._ends(admin, RESULTS_TOPIC).values())

    def versions(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys of all versions in the bucket, delete markers among them."""
        listed = self.minio.client().list_objects(
            bucket_name=bucket, prefix=prefix, recursive=True, include_version=True
        )
        return [str(one.object_name) for one in listed]

    def etags(self, bucket: str, prefix: str) -> dict[str, str]:
        """The ETag of every object in the bucket, by its key."""
        listed = self.minio.client().list_objects(bucket_name=bucket, prefix=prefix, recursive=True)
        return {str(one.object_name): str(one.etag) for one in listed}

    def records(self, topic: str = RESULTS_TOPIC) -> list[Record]:
        """All records of the topic so far."""
        return read_topic(self.kafka.bootstrap_servers, topic, api_version=_API_VERSION)

    def s3_requests(self) -> dict[str, int]:
        """How many requests MinIO has answered so far, by the S3 operation's name in lower case."""
        url = f"http://{self.minio.endpoint}/minio/metrics/v3/api/requests"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        counted = re.findall(r'^minio_api_requests_total\{[^}]*name="(\w+)"[^}]*\} (\d+)', text, re.MULTILINE)
        return {name.lower(): int(number) for name, number in counted}

    def _wait_committed(self, group: str, seconds: float) -> None:
        def committed() -> bool:
            with self.kafka.admin() as admin:
                ends = self._ends(admin, NOTIFICATIONS_TOPIC)
                offsets = admin.list_group_offsets({group: list(ends)})[group]
            return all(offsets[one].offset == end for one, end in ends.items() if end)

        wait_until(committed, "notifications are not committed", seconds=seconds, every=_ASK_EVERY)

    def _ends(self, admin: KafkaAdminClient, topic: str) -> dict[TopicPartition, int]:
        partitions = [TopicPartition(topic, number) for number in range(self._partitions)]
        ends = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        return {one: ends[one].offset for one in partitions}
