"""The steps of an event as the prescribed clients take them, shared by the variants that are written here."""

from __future__ import annotations

import argparse
import io
import json
import os
import urllib.parse
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import urllib3
from kafka import KafkaProducer
from minio import Minio
from minio.deleteobjects import DeleteObject
from PIL import Image

CONNECTIONS = 64
"""As many as there are events in flight at most."""
_ACK_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The object that a notification names; `version_id` is None in a bucket without versions."""

    bucket: str
    key: str
    version_id: str | None
    etag: str


def uploaded(notification: dict[str, Any]) -> Upload:
    """The object of MinIO's notification, which has one record."""
    described = notification["Records"][0]["s3"]
    return Upload(
        bucket=described["bucket"]["name"],
        key=urllib.parse.unquote_plus(described["object"]["key"]),
        version_id=described["object"].get("versionId"),
        etag=described["object"]["eTag"],
    )


def pixels(png: bytes) -> list[float]:
    """The 784 values in 0..1 of a PNG of 28 by 28 pixels."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        values: list[float] = (np.asarray(image, dtype=np.float32).reshape(784) / 255).tolist()
    return values


def result(upload: Upload, digit: int) -> tuple[bytes, bytes]:
    """Key and value of the record that announces a digit: a structured CloudEvent."""
    trace_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{upload.bucket}/{upload.key}/{upload.version_id}/{upload.etag}"))
    event = {
        "specversion": "1.0",
        "id": trace_id,
        "source": "benchmark",
        "type": "io.kserve.mnist.prediction",
        "subject": f"{upload.bucket}/{upload.key}",
        "datacontenttype": "application/json",
        "data": {"predictions": [digit], "destination": f"digit-{digit}/{upload.key}"},
        "trace-id": trace_id,
    }
    return trace_id.encode(), json.dumps(event).encode()


class Store:
    """MinIO by minio-py, as the environment names it; safe to share between threads."""

    def __init__(self) -> None:
        self._minio = Minio(
            os.environ["MINIO_ENDPOINT"].removeprefix("http://"),
            access_key=os.environ["MINIO_ACCESS_KEY"],
            secret_key=os.environ["MINIO_SECRET_KEY"],
            secure=False,
            region=os.environ["MINIO_REGION"],
            http_client=urllib3.PoolManager(maxsize=CONNECTIONS, timeout=30.0, retries=False),
        )

    def get(self, upload: Upload) -> bytes:
        """The bytes of that version."""
        answer = self._minio.get_object(bucket_name=upload.bucket, object_name=upload.key, version_id=upload.version_id)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Store the object."""
        self._minio.put_object(
            bucket_name=bucket, object_name=key, data=io.BytesIO(data), length=len(data), content_type="image/png"
        )

    def delete(self, upload: Upload) -> None:
        """Remove that version."""
        self._minio.remove_object(bucket_name=upload.bucket, object_name=upload.key, version_id=upload.version_id)

    def delete_all(self, uploads: Sequence[Upload]) -> None:
        """Remove those versions, which are of one bucket, by one request.

        Raises:
            RuntimeError: one of them was not removed.
        """
        objects = [DeleteObject(upload.key, upload.version_id) for upload in uploads]
        if errors := list(self._minio.remove_objects(bucket_name=uploads[0].bucket, delete_object_list=objects)):
            raise RuntimeError(f"{len(errors)} of {len(uploads)} were not removed: {errors[0].message}")


class Predictor:
    """The predictor at a URL, by urllib3; safe to share between threads."""

    def __init__(self, url: str) -> None:
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS, timeout=30.0, retries=False)
        self._url = url

    def digits(self, images: Sequence[list[float]]) -> list[int]:
        """The digit of each image."""
        question = json.dumps({"instances": images})
        answer = self._pool.request("POST", self._url, body=question, headers={"Content-Type": "application/json"})
        digits: list[int] = json.loads(answer.data)["predictions"]
        return digits


def api_version() -> tuple[int, ...] | None:
    """What kafka-python is told where the broker cannot be probed, else None."""
    given = os.environ.get("KAFKA_API_VERSION")
    return None if given is None else tuple(int(number) for number in given.split("."))


class Results:
    """The topic of results by kafka-python, as the environment names it; safe to share between threads."""

    def __init__(self) -> None:
        self._topic = os.environ["KAFKA_TOPIC"]
        self._producer = KafkaProducer(
            bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            acks="all",
            api_version=api_version(),
        )

    def send(self, key: bytes, value: bytes) -> None:
        """Produce one record, and wait for its own ack."""
        self._producer.send(self._topic, key=key, value=value).get(timeout=_ACK_SECONDS)

    def send_all(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Produce records, and wait for all acks."""
        sent = [self._producer.send(self._topic, key=key, value=value) for key, value in records]
        self._producer.flush(timeout=_ACK_SECONDS)
        for one in sent:
            one.get(timeout=0)


def flags() -> argparse.Namespace:
    """The flags that a bare script takes of KServe's server or of `mnist-pipeline consume`; it ignores the others."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_name", required=True)
    parser.add_argument("--predictor_host", required=True)
    parser.add_argument("--http_port", type=int, required=True)
    parser.add_argument("--topic")
    parser.add_argument("--group")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--initial-offset")
    return parser.parse_known_args()[0]


def predict_url(flags: argparse.Namespace) -> str:
    """Where the predictor is asked, in V1."""
    return f"http://{flags.predictor_host}/v1/models/{flags.model_name}:predict"
