"""One local stack for the tests that only use it, and places for transformers of a test's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import partial

import pytest

from e2e.places import RESULTS_TOPIC, Place
from e2e.ways import Way
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.local.servers import start_predictor, transformer_settings
from mnist_pipeline.local.stack import Stack
from servers.kafka import KafkaServer
from servers.minio import MinioServer, variables_of

SETTINGS = {
    "REQUEST_TRACE_KEY": "test-trace-id",
    "INFERENCE_SERVICE_NAME": "test-transformer",
    "POD_NAMESPACE": "kserve-test",
    "MAX_BODY_BYTES": "1000000",
    "EVENT_TIMEOUT_SECONDS": "20",
}

_REAL_API_VERSION = (4, 0)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with Stack(settings=SETTINGS) as stack:
        yield stack


@pytest.fixture(scope="module", params=["embedded", pytest.param("real", marks=pytest.mark.real)])
def place(request: pytest.FixtureRequest) -> Place:
    """The embedded servers, then the real ones."""
    place: Place = request.getfixturevalue(f"{request.param}_place")
    return place


@pytest.fixture(scope="module", params=["http", "kafka"])
def way(request: pytest.FixtureRequest) -> Way:
    """Both ways in."""
    found: Way = request.param
    return found


@pytest.fixture(scope="module")
def embedded_place(stack: Stack) -> Place:
    """A place on the embedded servers; their store has no versions and ignores If-None-Match."""
    place = Place(
        sandbox=stack.sandbox,
        settings={**transformer_settings(stack.gateway, stack.broker), **SETTINGS},
        predictor=stack.predictor,
        client=stack.minio,
        kafka=stack.broker,
        read_results=stack.results,
        versioned=False,
    )
    place.make_buckets()
    return place


@pytest.fixture(scope="module")
def real_place(real_minio: MinioServer, real_kafka: KafkaServer) -> Iterator[Place]:
    """A place on Apache Kafka and MinIO, whose transformers are a user under the package's policy."""
    topic = f"{RESULTS_TOPIC}-{uuid.uuid4()}"
    real_kafka.create_topic(topic)
    user = real_minio.add_transformer(f"transformer-{uuid.uuid4()}", {"mnist": "source-*"})
    with Sandbox() as sandbox, start_predictor(sandbox) as predictor:
        place = Place(
            sandbox=sandbox,
            settings={
                **variables_of(user),
                **SETTINGS,
                "KAFKA_BOOTSTRAP_SERVERS": real_kafka.bootstrap_servers,
                "KAFKA_TOPIC": topic,
            },
            predictor=predictor,
            client=real_minio.client,
            kafka=real_kafka,
            read_results=partial(read_topic, real_kafka.bootstrap_servers, topic, api_version=_REAL_API_VERSION),
            versioned=True,
            owner=variables_of(real_minio.root),
        )
        place.make_buckets()
        yield place
