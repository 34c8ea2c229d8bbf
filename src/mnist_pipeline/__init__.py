"""A KServe transformer: images arrive in MinIO, predictions leave through Kafka, nothing is lost or misfiled.

The public names are resolved when they are first used, so that `mnist_pipeline.testing` and the pure modules cost
neither the import of kserve nor that of the clients.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_pipeline.adapters.kafka_publisher import KafkaPublisher as KafkaPublisher
    from mnist_pipeline.adapters.object_store import MinioObjectStore as MinioObjectStore
    from mnist_pipeline.cli import main as main
    from mnist_pipeline.commands.serve import serve as serve
    from mnist_pipeline.mnist.digits import Digits as Digits
    from mnist_pipeline.pipeline.errors import BadImage as BadImage
    from mnist_pipeline.pipeline.errors import KafkaUnavailable as KafkaUnavailable
    from mnist_pipeline.pipeline.errors import Permanent as Permanent
    from mnist_pipeline.pipeline.errors import PipelineError as PipelineError
    from mnist_pipeline.pipeline.errors import Reject as Reject
    from mnist_pipeline.pipeline.errors import Retryable as Retryable
    from mnist_pipeline.pipeline.interpretation import Output as Output
    from mnist_pipeline.pipeline.interpretation import Prediction as Prediction
    from mnist_pipeline.pipeline.path import Pipeline as Pipeline
    from mnist_pipeline.pipeline.ports import ObjectStore as ObjectStore
    from mnist_pipeline.pipeline.ports import Publisher as Publisher
    from mnist_pipeline.pipeline.predictor_formats import OpenInference as OpenInference
    from mnist_pipeline.pipeline.predictor_formats import V1Format as V1Format
    from mnist_pipeline.pipeline.settings import Settings as Settings
    from mnist_pipeline.pipeline.task import Destination as Destination
    from mnist_pipeline.pipeline.task import Task as Task
    from mnist_pipeline.pipeline.task import Tensor as Tensor
    from mnist_pipeline.serving.transformer import MnistTransformer as MnistTransformer
    from mnist_pipeline.serving.transformer import ObjectTransformer as ObjectTransformer

_HOMES = {
    "BadImage": "pipeline.errors",
    "KafkaUnavailable": "pipeline.errors",
    "Destination": "pipeline.task",
    "Digits": "mnist.digits",
    "KafkaPublisher": "adapters.kafka_publisher",
    "MinioObjectStore": "adapters.object_store",
    "MnistTransformer": "serving.transformer",
    "ObjectStore": "pipeline.ports",
    "ObjectTransformer": "serving.transformer",
    "Output": "pipeline.interpretation",
    "OpenInference": "pipeline.predictor_formats",
    "Permanent": "pipeline.errors",
    "Pipeline": "pipeline.path",
    "PipelineError": "pipeline.errors",
    "Prediction": "pipeline.interpretation",
    "Publisher": "pipeline.ports",
    "Reject": "pipeline.errors",
    "Retryable": "pipeline.errors",
    "Settings": "pipeline.settings",
    "Task": "pipeline.task",
    "Tensor": "pipeline.task",
    "V1Format": "pipeline.predictor_formats",
    "main": "cli",
    "serve": "commands.serve",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
