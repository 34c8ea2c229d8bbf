"""Parts that others wrote, each in an environment of its own: MLServer as the predictor, and a strict CloudEvents SDK
that reads the results as they come out of Apache Kafka.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kserve.predictor_config import PredictorConfig

import mnist
from e2e.following import IMAGES, Answer, post
from mnist_pipeline import Digits
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.adapters.predictor_client import PredictorClient
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.local.servers import ModelServer, start_predictor, start_transformer
from mnist_pipeline.pipeline.errors import PredictorUnavailable, TensorRefused
from mnist_pipeline.pipeline.predictor_formats import OpenInference
from mnist_pipeline.pipeline.task import Batch
from mnist_pipeline.testing import minio_event
from servers import cloudevents
from servers.kafka import KafkaServer
from servers.minio import MinioServer
from servers.mlserver import MlserverServer

pytestmark = pytest.mark.real

PROTOCOLS = ("v2", "grpc-v2")


def inline(*images: bytes, **more: str) -> dict[str, Any]:
    return {"instances": [{"data": base64.b64encode(image).decode()} for image in images], **more}


# --- MLServer, a predictor ---


def tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    """A tensor as a model's settings declare it."""
    return {"name": name, "datatype": datatype, "shape": shape}


PROBABILITIES = tensor("probabilities", "FP32", -1, 10)
CLASSES = tensor("classes", "INT64", -1, 1)
MODELS = {
    "declared": {"inputs": [tensor("images", "FP32", -1, 28, 28)], "outputs": [PROBABILITIES]},
    "undeclared": {},
    "of-bytes": {"inputs": [tensor("pixels", "UINT8", -1, 28, 28, 1)], "outputs": [CLASSES]},
    "one-by-one": {"inputs": [tensor("image", "FP64", 1, 1, 28, 28)], "outputs": [PROBABILITIES, CLASSES]},
}
SERVED = [(model, protocol) for model in ("declared", "undeclared") for protocol in PROTOCOLS]


@pytest.fixture(scope="module")
def mlserver(mlserver_python: Path) -> Iterator[MlserverServer]:
    with Sandbox() as sandbox, MlserverServer(mlserver_python, sandbox, MODELS) as server:
        yield server


@pytest.fixture(scope="module")
def transformers(mlserver: MlserverServer) -> Iterator[dict[tuple[str, str], ModelServer]]:
    """A transformer for each of `SERVED`; each is ready only once MLServer has said that its model is."""
    with Sandbox() as sandbox:
        started = {
            (model, protocol): start_transformer(
                sandbox,
                predictor_host=address_of(mlserver, protocol),
                env={},
                name=f"transformer-{model}-{protocol}",
                model_name=model,
                predictor_protocol=protocol,
                args=["--enable_predictor_health_check"],
            )
            for model, protocol in SERVED
        }
        for server in started.values():
            server.wait_ready()
        yield started


def address_of(mlserver: MlserverServer, protocol: str) -> str:
    return mlserver.http_address if protocol == "v2" else mlserver.grpc_address


def ask(mlserver: MlserverServer, protocol: str, model: str, images: Batch) -> list[int]:
    async def digits() -> list[int]:
        config = PredictorConfig(address_of(mlserver, protocol), protocol)
        client = PredictorClient(model, config, OpenInference(), Digits(), connections=1)
        try:
            predictions = await client.predictions(images, {"traceparent": "00-1-2-00"}, timeout=20)
            return [int(prediction.label) for prediction in predictions]
        finally:
            await client.close()

    return asyncio.run(digits())


@pytest.mark.parametrize(("model", "protocol"), SERVED)
def test_a_transformer_tells_every_digit_with_mlserver_as_its_predictor(
    transformers: dict[tuple[str, str], ModelServer], model: str, protocol: str
) -> None:
    images = sorted(IMAGES.items())
    url = transformers[model, protocol].predict_url
    one = post(url, inline(IMAGES["7-0000.png"]))
    assert (one.status, json.loads(one.body)) == (200, {"predictions": [7]})
    many = post(url, inline(*(data for _, data in images)))
    assert (many.status, json.loads(many.body)) == (200, {"predictions": [int(name[0]) for name, _ in images]})


@pytest.mark.parametrize(("model", "protocol"), SERVED)
def test_a_tensor_of_the_caller_s_that_mlserver_refuses_is_the_caller_s_mistake(
    transformers: dict[tuple[str, str], ModelServer], model: str, protocol: str
) -> None:
    answer = post(transformers[model, protocol].predict_url, {"instances": [[2.0] * 784]})
    assert (answer.status, answer.headers["kne-reason"]) == (422, "badtensor")
    assert b"the pixels are not 0 to white" in answer.body


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", MODELS)
def test_mlserver_gets_its_tensors_in_the_shape_and_datatype_that_its_metadata_declares(
    mlserver: MlserverServer, protocol: str, model: str
) -> None:
    images = np.divide(mnist.images()[:20], 255, dtype=np.float32)
    assert ask(mlserver, protocol, model, images) == mnist.labels()[:20].tolist()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_refusal_of_mlserver_s_is_told_from_a_model_that_it_does_not_have(
    mlserver: MlserverServer, protocol: str
) -> None:
    too_white = np.full((1, 28, 28), 2, np.float32)
    with pytest.raises(TensorRefused, match="the pixels are not 0 to white"):
        ask(mlserver, protocol, "declared", too_white)
    with pytest.raises(PredictorUnavailable, match=r"Model absent .*not found") as caught:
        ask(mlserver, protocol, "absent", too_white)
    assert not isinstance(caught.value, TensorRefused)


# --- a strict CloudEvents SDK, a reader of results ---

TRACE_KEY = "test-trace-id"
HOST = "test-transformer-transformer.kserve-test.svc.cluster.local"
CURL = {
    "Host": HOST,
    "Ce-Id": "1751444412",
    "Ce-Specversion": "1.0",
    "Ce-Type": "prediction-request-udf-attr",
    "Ce-Source": "event-producer",
    "Content-Type": "application/json",
}
BUCKETS = ("foreign-uploads", "foreign-digits", "foreign-rejected")


@dataclass(frozen=True)
class Published:
    """Where each mode's transformer takes requests, and the broker to whose topic of the mode's name it publishes."""

    urls: dict[str, str]
    kafka: KafkaServer

    def ask(self, mode: str, body: Any) -> Answer:
        return post(self.urls[mode], body, CURL)

    def record_of(self, mode: str, trace_id: str) -> Record:
        """The one record under this trace id, as it came out of Kafka."""
        records = read_topic(self.kafka.bootstrap_servers, topic_of(mode), api_version=(4, 0))
        (record,) = [record for record in records if record.key == trace_id.encode()]
        return record


def topic_of(mode: str) -> str:
    return f"foreign-{mode}"


@pytest.fixture(scope="module")
def published(real_kafka: KafkaServer, real_minio: MinioServer) -> Iterator[Published]:
    uploads, digits, rejected = BUCKETS
    for bucket in BUCKETS:
        real_minio.client().make_bucket(bucket_name=bucket)
    settings = {
        "MINIO_ENDPOINT": real_minio.endpoint,
        "MINIO_ACCESS_KEY": real_minio.access_key,
        "MINIO_SECRET_KEY": real_minio.secret_key,
        "SOURCE_BUCKETS": uploads,
        "DESTINATION": digits + "/{digit}",
        "REJECTED_BUCKET": rejected,
        "KAFKA_BOOTSTRAP_SERVERS": real_kafka.bootstrap_servers,
        "REQUEST_TRACE_KEY": TRACE_KEY,
        "INFERENCE_SERVICE_NAME": "test-transformer",
        "POD_NAMESPACE": "kserve-test",
    }
    with Sandbox() as sandbox, contextlib.ExitStack() as servers:
        predictor = start_predictor(sandbox)
        started = {}
        for mode in ("binary", "structured"):
            real_kafka.create_topic(topic_of(mode))
            started[mode] = start_transformer(
                sandbox,
                predictor_host=f"127.0.0.1:{predictor.http_port}",
                env={**settings, "EVENT_MODE": mode, "KAFKA_TOPIC": topic_of(mode)},
                name=mode,
            )
        for server in (predictor, *started.values()):
            servers.enter_context(server)
        yield Published(urls={mode: server.predict_url for mode, server in started.items()}, kafka=real_kafka)


def assert_is_read(python: Path, record: Record, expected: dict[str, str]) -> Any:
    """The SDK finds the expected attributes and what every result has, no more; what is left are our own headers.

    Return the event's data.
    """
    read = cloudevents.read(python, record)
    headers = {name: value.decode() for name, value in record.headers}
    assert len(headers) == len(record.headers)
    trace_id = headers[TRACE_KEY]
    attributes = read["attributes"]
    # Where a message lacks them, the SDK makes an id and a time up.
    assert uuid.UUID(attributes["id"]) == uuid.UUID(headers["ce_id"], version=5)
    assert datetime.fromisoformat(attributes["time"]) == datetime.fromisoformat(headers["ce_time"])
    assert attributes == {
        "specversion": "1.0",
        "id": headers["ce_id"],
        "source": "mnist-pipeline/mnist",
        "time": attributes["time"],
        "datacontenttype": "application/json",
        "partitionkey": trace_id,  # so the SDK calls the record's key
        **expected,
    }
    plain = {name: value for name, value in headers.items() if name != "content-type" and not name.startswith("ce_")}
    assert plain.pop("server-timing").startswith("wait;dur=")
    assert plain == {
        "request-host": HOST,
        "kserve-isvc-name": "test-transformer",
        "kserve-isvc-namespace": "kserve-test",
        TRACE_KEY: trace_id,
    }
    return read["data"]


def test_a_strict_sdk_reads_the_binary_result_of_a_request(published: Published, cloudevents_python: Path) -> None:
    trace_id = f"é 日本 {uuid.uuid4()}"
    answer = published.ask("binary", inline(IMAGES["2-0001.png"], **{TRACE_KEY: trace_id}))
    assert (answer.status, answer.body) == (200, b"")
    record = published.record_of("binary", trace_id)
    data = assert_is_read(cloudevents_python, record, {"type": "io.kserve.mnist.prediction"})
    assert data == {"predictions": [2]}


def test_a_strict_sdk_reads_the_binary_result_of_an_object(
    published: Published, real_minio: MinioServer, cloudevents_python: Path
) -> None:
    bucket, digits, _ = BUCKETS
    trace_id, key, image = str(uuid.uuid4()), "a folder/3 é+%日本.png", IMAGES["3-0018.png"]
    put = real_minio.client().put_object(
        bucket_name=bucket,
        object_name=key,
        data=io.BytesIO(image),
        length=len(image),
        metadata={TRACE_KEY: trace_id},
    )
    assert published.ask("binary", minio_event(bucket, key)).status == 200
    record = published.record_of("binary", trace_id)
    expected = {"type": "io.kserve.mnist.prediction", "subject": f"{bucket}/{key}"}
    data = assert_is_read(cloudevents_python, record, expected)
    assert (data["predictions"], data["destination"]) == ([3], f"{digits}/3/{key}")
    assert {name: data["object"][name] for name in ("bucket", "key", "etag")} == {
        "bucket": bucket,
        "key": key,
        "etag": put.etag,
    }


def test_a_strict_sdk_reads_the_binary_result_of_what_was_rejected(
    published: Published, cloudevents_python: Path
) -> None:
    trace_id = str(uuid.uuid4())
    assert published.ask("binary", inline(b"no image", **{TRACE_KEY: trace_id})).status == 422
    record = published.record_of("binary", trace_id)
    data = assert_is_read(cloudevents_python, record, {"type": "io.kserve.mnist.prediction.rejected"})
    assert data.keys() == {"reason", "message"}


def test_a_strict_sdk_refuses_the_structured_result_for_its_four_hyphenated_names_alone(
    published: Published, cloudevents_python: Path
) -> None:
    trace_id = str(uuid.uuid4())
    assert published.ask("structured", inline(IMAGES["2-0001.png"], **{TRACE_KEY: trace_id})).status == 200
    record = published.record_of("structured", trace_id)
    refused = cloudevents.read(cloudevents_python, record)["refused"]
    assert refused == {
        name: [f"Extension attribute '{name}' should only contain lowercase letters and numbers"]
        for name in ("request-host", "kserve-isvc-name", "kserve-isvc-namespace", TRACE_KEY)
    }
