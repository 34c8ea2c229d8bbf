"""A KServe transformer: images arrive in MinIO, predictions leave through Kafka, nothing is lost or misfiled.

The public names are resolved when they are first used, so that `mnist_pipeline.testing` and the pure modules cost
neither the import of kserve nor that of the clients.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_pipeline.cli import main as main
    from mnist_pipeline.cli import serve as serve
    from mnist_pipeline.errors import Permanent as Permanent
    from mnist_pipeline.errors import PipelineError as PipelineError
    from mnist_pipeline.errors import Retryable as Retryable
    from mnist_pipeline.kafka_publisher import KafkaPublisher as KafkaPublisher
    from mnist_pipeline.minio_store import MinioObjectStore as MinioObjectStore
    from mnist_pipeline.pipeline import Pipeline as Pipeline
    from mnist_pipeline.ports import ObjectStore as ObjectStore
    from mnist_pipeline.ports import Publisher as Publisher
    from mnist_pipeline.predictors import OpenInference as OpenInference
    from mnist_pipeline.predictors import V1Format as V1Format
    from mnist_pipeline.settings import Settings as Settings
    from mnist_pipeline.transformer import MnistTransformer as MnistTransformer

_HOMES = {
    "KafkaPublisher": "kafka_publisher",
    "MinioObjectStore": "minio_store",
    "MnistTransformer": "transformer",
    "ObjectStore": "ports",
    "OpenInference": "predictors",
    "Permanent": "errors",
    "Pipeline": "pipeline",
    "PipelineError": "errors",
    "Publisher": "ports",
    "Retryable": "errors",
    "Settings": "settings",
    "V1Format": "predictors",
    "main": "cli",
    "serve": "cli",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
