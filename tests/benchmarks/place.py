"""Where the variants run: a store and a broker, MinIO and Apache Kafka themselves where they can be had."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from mnist_pipeline.local import broker, gateway
from mnist_pipeline.local.processes import Sandbox
from servers import kafka, minio
from servers.cache import ToolMissing

SOURCE_BUCKET = "mnist"
DIGIT_BUCKETS = tuple(f"digit-{digit}" for digit in range(10))
KINDS = ("auto", "real", "local")
PARTITIONS = 6
"""Of each topic."""
_BUCKETS = (SOURCE_BUCKET, "mnist-rejected", *DIGIT_BUCKETS)
_REAL_API_VERSION = (4, 0)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A store and a broker that serve.

    Attributes:
        servers: what they say of themselves.
        api_version: what kafka-python is told where the broker cannot be probed, else None.
        versioned: whether the source bucket has versions.
        create_topic: makes a topic of so many partitions.
    """

    servers: tuple[str, str]
    endpoint: str
    access_key: str
    secret_key: str
    region: str
    bootstrap_servers: str
    api_version: tuple[int, int] | None
    versioned: bool
    create_topic: Callable[[str, int], object]

    @property
    def reading_api_version(self) -> tuple[int, int]:
        """What `read_topic` is told."""
        return self.api_version or _REAL_API_VERSION

    def client(self) -> Minio:
        """A client with all rights; an error is not retried."""
        return Minio(
            self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=False,
            region=self.region,
            http_client=urllib3.PoolManager(maxsize=16, timeout=60.0, retries=False),
        )

    def settings(self, topic: str, *, endpoint: str | None = None) -> dict[str, str]:
        """What points a variant here, or to a proxy's `endpoint` before the store."""
        settings = {
            "MINIO_ENDPOINT": f"http://{endpoint or self.endpoint}",
            "MINIO_ACCESS_KEY": self.access_key,
            "MINIO_SECRET_KEY": self.secret_key,
            "MINIO_REGION": self.region,
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "KAFKA_TOPIC": topic,
        }
        if self.api_version is not None:
            settings["KAFKA_API_VERSION"] = ".".join(str(number) for number in self.api_version)
        return settings


@contextlib.contextmanager
def opened(sandbox: Sandbox, kind: str, topics: Sequence[str]) -> Iterator[Place]:
    """A place with its buckets and topics, while the block lasts.

    Args:
        sandbox: where the servers run.
        kind: `real`, `local`, or `auto`: real where Java and the two programs are, or what builds them.
        topics: those of the results.

    Raises:
        ToolMissing: it must be real, and cannot.
    """
    with contextlib.ExitStack() as stack:
        place = _real(sandbox, stack, topics, required=kind == "real") if kind != "local" else None
        place = place or _local(sandbox, stack, topics)
        client = place.client()
        for bucket in _BUCKETS:
            client.make_bucket(bucket_name=bucket)
        if place.versioned:
            client.set_bucket_versioning(bucket_name=SOURCE_BUCKET, config=VersioningConfig(ENABLED))
        yield place


def _real(sandbox: Sandbox, stack: contextlib.ExitStack, topics: Sequence[str], *, required: bool) -> Place | None:
    try:
        kafka_program, minio_program = kafka.install(), minio.install()
    except ToolMissing:
        if required:
            raise
        return None
    broker_server = kafka.KafkaServer(kafka_program, sandbox)
    store = stack.enter_context(minio.MinioServer(minio_program, sandbox))
    stack.enter_context(broker_server)
    for topic in topics:
        broker_server.create_topic(topic, PARTITIONS)
    return Place(
        servers=(minio.version(minio_program), kafka_program.version),
        endpoint=store.endpoint,
        access_key=store.access_key,
        secret_key=store.secret_key,
        region=minio.REGION,
        bootstrap_servers=broker_server.bootstrap_servers,
        api_version=None,
        versioned=True,
        create_topic=broker_server.create_topic,
    )


def _local(sandbox: Sandbox, stack: contextlib.ExitStack, topics: Sequence[str]) -> Place:
    memory = stack.enter_context(broker.Broker(dict.fromkeys(topics, PARTITIONS)))
    store = stack.enter_context(gateway.Gateway(sandbox))
    return Place(
        servers=("MinIO's gateway code (juicefs), without versions", "librdkafka's broker in memory"),
        endpoint=store.endpoint,
        access_key=store.access_key,
        secret_key=store.secret_key,
        region=gateway.REGION,
        bootstrap_servers=memory.bootstrap_servers,
        api_version=broker.API_VERSION,
        versioned=False,
        create_topic=memory.create_topic,
    )
