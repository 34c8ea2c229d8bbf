"""A KServe transformer: images arrive in MinIO, predictions leave through Kafka, nothing is lost or misfiled.

Public, and changed only as docs/howto/upgrade.md says, is what this module and `mnist_pipeline.testing` have in their
`__all__`, beside the command line, the settings, requests, answers and results, and the fixtures of `pytest_plugin`.
Other modules may change at any time.

The names are resolved when they are first used, so that `mnist_pipeline.testing` and the pure modules cost neither the
import of kserve nor that of the clients.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_pipeline.adapters.kafka_publisher import KafkaPublisher as KafkaPublisher
    from mnist_pipeline.adapters.object_store import MinioObjectStore as MinioObjectStore
    from mnist_pipeline.cli import main as main
    from mnist_pipeline.cli import serve as serve
    from mnist_pipeline.client.blocking import PredictionClient as PredictionClient
    from mnist_pipeline.client.client import AsyncPredictionClient as AsyncPredictionClient
    from mnist_pipeline.client.client import Submission as Submission
    from mnist_pipeline.client.errors import ClientError as ClientError
    from mnist_pipeline.client.errors import KeyTaken as KeyTaken
    from mnist_pipeline.client.errors import PredictionRejected as PredictionRejected
    from mnist_pipeline.client.errors import RequestFailed as RequestFailed
    from mnist_pipeline.client.errors import RequestRefused as RequestRefused
    from mnist_pipeline.client.errors import ResultTimeout as ResultTimeout
    from mnist_pipeline.mnist.digits import Digits as Digits
    from mnist_pipeline.pipeline.errors import BadImage as BadImage
    from mnist_pipeline.pipeline.errors import BadKey as BadKey
    from mnist_pipeline.pipeline.errors import BadTraceId as BadTraceId
    from mnist_pipeline.pipeline.errors import DeadlineExceeded as DeadlineExceeded
    from mnist_pipeline.pipeline.errors import KafkaUnavailable as KafkaUnavailable
    from mnist_pipeline.pipeline.errors import MessageTooLarge as MessageTooLarge
    from mnist_pipeline.pipeline.errors import MetadataTooLarge as MetadataTooLarge
    from mnist_pipeline.pipeline.errors import NotAllowed as NotAllowed
    from mnist_pipeline.pipeline.errors import ObjectGone as ObjectGone
    from mnist_pipeline.pipeline.errors import ObjectRetained as ObjectRetained
    from mnist_pipeline.pipeline.errors import ObjectTooLarge as ObjectTooLarge
    from mnist_pipeline.pipeline.errors import Permanent as Permanent
    from mnist_pipeline.pipeline.errors import PipelineError as PipelineError
    from mnist_pipeline.pipeline.errors import PredictorUnavailable as PredictorUnavailable
    from mnist_pipeline.pipeline.errors import Reject as Reject
    from mnist_pipeline.pipeline.errors import ResultTooLarge as ResultTooLarge
    from mnist_pipeline.pipeline.errors import Retryable as Retryable
    from mnist_pipeline.pipeline.errors import StoreUnavailable as StoreUnavailable
    from mnist_pipeline.pipeline.interpretation import Output as Output
    from mnist_pipeline.pipeline.interpretation import Prediction as Prediction
    from mnist_pipeline.pipeline.kafka_token import KafkaTokenEndpoint as KafkaTokenEndpoint
    from mnist_pipeline.pipeline.kafka_token import KafkaTokenFile as KafkaTokenFile
    from mnist_pipeline.pipeline.kafka_token import MskToken as MskToken
    from mnist_pipeline.pipeline.outcomes import Observer as Observer
    from mnist_pipeline.pipeline.outcomes import Outcome as Outcome
    from mnist_pipeline.pipeline.path import Pipeline as Pipeline
    from mnist_pipeline.pipeline.ports import Deadline as Deadline
    from mnist_pipeline.pipeline.ports import ListedObject as ListedObject
    from mnist_pipeline.pipeline.ports import Message as Message
    from mnist_pipeline.pipeline.ports import ObjectStore as ObjectStore
    from mnist_pipeline.pipeline.ports import ObjectVersion as ObjectVersion
    from mnist_pipeline.pipeline.ports import Publisher as Publisher
    from mnist_pipeline.pipeline.ports import StoredObject as StoredObject
    from mnist_pipeline.pipeline.predictor_formats import InputSpec as InputSpec
    from mnist_pipeline.pipeline.predictor_formats import OpenInference as OpenInference
    from mnist_pipeline.pipeline.predictor_formats import V1Format as V1Format
    from mnist_pipeline.pipeline.published import PredictionResult as PredictionResult
    from mnist_pipeline.pipeline.settings import Kafka as Kafka
    from mnist_pipeline.pipeline.settings import Minio as Minio
    from mnist_pipeline.pipeline.settings import MinioRole as MinioRole
    from mnist_pipeline.pipeline.settings import Settings as Settings
    from mnist_pipeline.pipeline.settings import SettingsError as SettingsError
    from mnist_pipeline.pipeline.stages import Span as Span
    from mnist_pipeline.pipeline.stages import Tracer as Tracer
    from mnist_pipeline.pipeline.task import Destination as Destination
    from mnist_pipeline.pipeline.task import Task as Task
    from mnist_pipeline.pipeline.task import Tensor as Tensor
    from mnist_pipeline.serving.transformer import MnistTransformer as MnistTransformer
    from mnist_pipeline.serving.transformer import ObjectTransformer as ObjectTransformer

_HOMES = {
    "AsyncPredictionClient": "client.client",
    "BadImage": "pipeline.errors",
    "BadKey": "pipeline.errors",
    "BadTraceId": "pipeline.errors",
    "ClientError": "client.errors",
    "Deadline": "pipeline.ports",
    "DeadlineExceeded": "pipeline.errors",
    "Destination": "pipeline.task",
    "Digits": "mnist.digits",
    "InputSpec": "pipeline.predictor_formats",
    "Kafka": "pipeline.settings",
    "KafkaPublisher": "adapters.kafka_publisher",
    "KafkaTokenEndpoint": "pipeline.kafka_token",
    "KafkaTokenFile": "pipeline.kafka_token",
    "KafkaUnavailable": "pipeline.errors",
    "KeyTaken": "client.errors",
    "ListedObject": "pipeline.ports",
    "main": "cli",
    "Message": "pipeline.ports",
    "MessageTooLarge": "pipeline.errors",
    "MetadataTooLarge": "pipeline.errors",
    "Minio": "pipeline.settings",
    "MinioRole": "pipeline.settings",
    "MinioObjectStore": "adapters.object_store",
    "MnistTransformer": "serving.transformer",
    "MskToken": "pipeline.kafka_token",
    "NotAllowed": "pipeline.errors",
    "ObjectGone": "pipeline.errors",
    "ObjectRetained": "pipeline.errors",
    "ObjectStore": "pipeline.ports",
    "ObjectTooLarge": "pipeline.errors",
    "ObjectTransformer": "serving.transformer",
    "ObjectVersion": "pipeline.ports",
    "OpenInference": "pipeline.predictor_formats",
    "Observer": "pipeline.outcomes",
    "Outcome": "pipeline.outcomes",
    "Output": "pipeline.interpretation",
    "Permanent": "pipeline.errors",
    "Pipeline": "pipeline.path",
    "PipelineError": "pipeline.errors",
    "Prediction": "pipeline.interpretation",
    "PredictionClient": "client.blocking",
    "PredictionRejected": "client.errors",
    "PredictionResult": "pipeline.published",
    "PredictorUnavailable": "pipeline.errors",
    "Publisher": "pipeline.ports",
    "Reject": "pipeline.errors",
    "RequestFailed": "client.errors",
    "RequestRefused": "client.errors",
    "ResultTimeout": "client.errors",
    "ResultTooLarge": "pipeline.errors",
    "Retryable": "pipeline.errors",
    "serve": "cli",
    "Settings": "pipeline.settings",
    "SettingsError": "pipeline.settings",
    "Span": "pipeline.stages",
    "StoredObject": "pipeline.ports",
    "StoreUnavailable": "pipeline.errors",
    "Submission": "client.client",
    "Task": "pipeline.task",
    "Tensor": "pipeline.task",
    "Tracer": "pipeline.stages",
    "V1Format": "pipeline.predictor_formats",
}

__all__ = list(_HOMES)


# To type checkers every name would be there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
