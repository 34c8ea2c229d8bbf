"""The publisher and the member of a consumer group, on whichever client of Kafka is asked for."""

from __future__ import annotations

from collections.abc import Callable

from mnist_pipeline.adapters.group_member import GroupConsumer, GroupMember, Owner, Subscription
from mnist_pipeline.adapters.producer_connection import MOST_BYTES
from mnist_pipeline.pipeline.ports import Publisher
from mnist_pipeline.pipeline.settings import Kafka, SettingsError

_NOT_INSTALLED = "KAFKA_CLIENT is confluent, but confluent-kafka is not installed: pip install 'mnist-pipeline[fast]'"


def publisher_of(kafka: Kafka, *, most_bytes: int = MOST_BYTES) -> Publisher:
    """The publisher by `kafka.client`: only that client is imported. Messages of more than `most_bytes` are refused.

    Raises:
        SettingsError: it is not installed.
    """
    if kafka.client == "confluent":
        try:
            from mnist_pipeline.adapters.confluent_publisher import ConfluentPublisher  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise SettingsError([_NOT_INSTALLED]) from exc
        return ConfluentPublisher(kafka, most_bytes=most_bytes)
    from mnist_pipeline.adapters.kafka_publisher import KafkaPublisher  # noqa: PLC0415 - takes a third of a second

    return KafkaPublisher(kafka, most_bytes=most_bytes)


def member_of(
    kafka: Kafka,
    subscription: Subscription,
    owner: Owner,
    *,
    commit_seconds: float = 5.0,
    on_failure: Callable[[], None] | None = None,
) -> GroupMember:
    """A member of a consumer group, on the client by `kafka.client`; the arguments are `GroupMember`'s.

    Raises:
        SettingsError: the client is not installed.
    """
    consumer = _consumer_of(kafka, subscription, owner)
    return GroupMember(consumer, subscription, owner, commit_seconds=commit_seconds, on_failure=on_failure)


def _consumer_of(kafka: Kafka, subscription: Subscription, owner: Owner) -> GroupConsumer:
    if kafka.client == "confluent":
        try:
            from mnist_pipeline.adapters.confluent_consumer import ConfluentGroupConsumer  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise SettingsError([_NOT_INSTALLED]) from exc
        return ConfluentGroupConsumer(kafka, subscription, owner)
    from mnist_pipeline.adapters.kafka_consumer import KafkaGroupConsumer  # noqa: PLC0415 - takes a third of a second

    return KafkaGroupConsumer(kafka, subscription, owner)
