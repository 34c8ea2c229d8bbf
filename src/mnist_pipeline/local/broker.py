"""An in-memory Kafka broker that speaks the real protocol, on loopback, inside this process.

It is librdkafka's mock cluster (`rdkafka_mock.h`), which the package confluent-kafka carries. Its Python API can only
start it (`test.mock.num.brokers`), with four partitions a topic, no CreateTopics and a three-second wait for the first
member of a consumer group; the C API of the same library, called here, has the choice of all three.

What differs from Apache Kafka: produce answers carry no true time, a partition keeps its newest 5 MiB, an empty fetch
is held for the whole `fetch_max_wait_ms`, and when a member leaves a group the next one waits for `session_timeout_ms`.
kafka-python needs `api_version=(2, 3)` with it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

from confluent_kafka import cimpl

from mnist_pipeline.local.processes import Part, PartFailed
from mnist_pipeline.pipeline.settings import Kafka

API_VERSION = (2, 3)
"""What kafka-python must be told as `api_version`."""

_PRODUCER = 0  # RD_KAFKA_PRODUCER
_CONF_OK = 0  # RD_KAFKA_CONF_OK
_ERROR_BYTES = 512
# A mock cluster counts its brokers from 1.
_BROKER_ID = 1


def _library() -> ctypes.CDLL:
    """The librdkafka that confluent-kafka's extension module is linked with, with the types of the calls used here."""
    # A symbol that is looked up in a shared object is looked up in what it was linked with too (dlsym, POSIX): so there
    # is no need to know where the wheel keeps librdkafka.
    library = ctypes.CDLL(cimpl.__file__)
    pointer, text, integer = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (integer, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [integer, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, integer]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (integer, [pointer, text, integer, integer]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_down": (integer, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_up": (integer, [pointer, ctypes.c_int32]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


class Broker(Part):
    """One broker; it lives until `close()`, and so do its records.

    Args:
        topics: the number of partitions of each topic. Another topic comes into being when it is first asked for, with
            four.

    Raises:
        PartFailed: librdkafka refused.
    """

    def __init__(self, topics: Mapping[str, int]) -> None:
        self._library = _library()
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        conf = self._library.rd_kafka_conf_new()
        # Errors only: else it warns that it has no bootstrap servers, which it has no use for.
        if self._library.rd_kafka_conf_set(conf, b"log_level", b"3", error, _ERROR_BYTES) != _CONF_OK:
            raise PartFailed("broker", f"refused its configuration: {error.value.decode()}")
        self._client = self._library.rd_kafka_new(_PRODUCER, conf, error, _ERROR_BYTES)
        if not self._client:
            raise PartFailed("broker", f"did not start: {error.value.decode()}")
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, 1)
        if not self._cluster:
            self._library.rd_kafka_destroy(self._client)
            raise PartFailed("broker", "did not start")
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.bootstrap_servers: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        try:
            for topic, partitions in topics.items():
                self.create_topic(topic, partitions)
        except PartFailed:
            self.close()
            raise

    def kafka(self, topic: str, *, client: str = "kafka-python") -> Kafka:
        """How to reach it."""
        return Kafka(bootstrap_servers=self.bootstrap_servers, topic=topic, client=client, api_version=API_VERSION)

    def create_topic(self, topic: str, partitions: int) -> None:
        """Make a topic.

        Raises:
            PartFailed: it exists already, or its name or number is not possible.
        """
        code = self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)
        if code:
            raise PartFailed(
                "broker", f"refused to make the topic {topic!r} with {partitions} partitions (error {code})"
            )

    def go_away(self) -> None:
        """Break all connections and refuse others, until `come_back`; its records stay."""
        self._library.rd_kafka_mock_broker_set_down(self._cluster, _BROKER_ID)

    def come_back(self) -> None:
        """Take connections again."""
        self._library.rd_kafka_mock_broker_set_up(self._cluster, _BROKER_ID)

    def close(self) -> None:
        """Stop the broker and forget all records; safe to call twice."""
        if self._cluster:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._library.rd_kafka_destroy(self._client)
            self._cluster = self._client = None
