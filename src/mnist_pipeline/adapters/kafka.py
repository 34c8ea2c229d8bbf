"""The publisher on whichever client of Kafka is asked for."""

from __future__ import annotations

from mnist_pipeline.pipeline.ports import Publisher
from mnist_pipeline.pipeline.settings import Kafka, SettingsError


def publisher_of(kafka: Kafka) -> Publisher:
    """The publisher by `kafka.client`: only that client is imported.

    Raises:
        SettingsError: it is not installed.
    """
    if kafka.client == "confluent":
        try:
            from mnist_pipeline.adapters.confluent_publisher import ConfluentPublisher  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise SettingsError(
                ["KAFKA_CLIENT is confluent, but confluent-kafka is not installed: pip install 'mnist-pipeline[fast]'"]
            ) from exc
        return ConfluentPublisher(kafka)
    from mnist_pipeline.adapters.kafka_publisher import KafkaPublisher  # noqa: PLC0415 - takes a third of a second

    return KafkaPublisher(kafka)
