"""What a producer and a consumer of confluent-kafka share: their settings, and why their connections fail."""

from __future__ import annotations

import logging
import time
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import TopicMetadata

from mnist_pipeline.adapters.kafka_troubles import (
    HUNG_UP,
    MECHANISM,
    NO_CONNECTION,
    NO_SASL,
    NO_TLS,
    OUR_CERTIFICATE,
    REFUSED,
    UNUSABLE,
    Certainty,
    Trouble,
    Troubles,
)
from mnist_pipeline.adapters.rotated_files import digest_of, user_now
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.settings import Kafka

# How long to wait for metadata at a time: meanwhile nobody hears why there are none, or that he is to end. Far away, or
# of a busy broker, they take longer.
_FIRST_LOOK_UP_SECONDS = 0.25
_LONGEST_LOOK_UP_SECONDS = 2.0

_NAMES = {
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
}
"""What librdkafka calls the options that kafka-python has."""

# librdkafka does not say what is wrong with a certificate: its authority, its age or its host.
_UNTRUSTED = Trouble("a broker's certificate is not trusted; check KAFKA_SSL_CAFILE, KAFKA_BOOTSTRAP_SERVERS")

# Of a connection that ended, by what librdkafka (2.16) says of it; the first that fits.
_TROUBLES: tuple[tuple[str, Trouble], ...] = (
    ("Request not valid in current SASL state", NO_SASL),
    ("mechanism handshake failed", MECHANISM),
    ("SASL", REFUSED),
    ("certificate verify failed", _UNTRUSTED),
    ("tls alert", OUR_CERTIFICATE),
    ("SSL", NO_TLS),
    ("Connect to", NO_CONNECTION),
    ("resolve", NO_CONNECTION),
    ("Disconnected", HUNG_UP),
)

# For so long a token is said to last, whatever it does: librdkafka asks for the next after four fifths of it, and
# nobody can tell it that a broker refuses the one it has, or that another is in the file.
_TOKEN_SECONDS = 1.0

_C = TypeVar("_C")


class Connections(Troubles):
    """The connections of one client of confluent-kafka, and why they fail.

    Args:
        kafka: where the brokers are, and who we are there.
        timeout_seconds: how long a broker may take to answer.
        config: more for the client, by librdkafka's names.

    Attributes:
        is_outdated: whether certificates are refused that have been replaced in their files: only a new client reads
            those.
    """

    def __init__(self, kafka: Kafka, *, timeout_seconds: float, **config: Any) -> None:
        super().__init__(kafka)
        given = kafka.client_options()
        timeout_ms = int(timeout_seconds * 1000)
        self._servers = [_address(server) for server in given["bootstrap_servers"]]
        self.is_outdated = False
        self._user: tuple[str, str] | None = None
        self._certificates = (kafka.ssl_cafile, kafka.ssl_certfile, kafka.ssl_keyfile)
        self._digest = b""
        self._look_up_seconds = _FIRST_LOOK_UP_SECONDS
        self._config: dict[str, Any] = {
            "bootstrap.servers": ",".join(given["bootstrap_servers"]),
            "client.id": "mnist-pipeline",
            "socket.timeout.ms": timeout_ms,
            "socket.connection.setup.timeout.ms": timeout_ms,
            "reconnect.backoff.max.ms": 1000,
            "socket.nagle.disable": True,
            "socket.keepalive.enable": True,
            **{name: given[ours] for ours, name in _NAMES.items() if ours in given},
            **{name.replace("_", "."): value for name, value in config.items()},
            "error_cb": self._noted,
        }
        if kafka.api_version is not None:
            # It asks a broker all the same, and believes this only of one that does not answer that.
            self._config["broker.version.fallback"] = ".".join(map(str, kafka.api_version))

    def open(self, make: type[_C]) -> _C:
        """A client, which connects by itself.

        Raises:
            KafkaUnavailable: its settings or their files cannot be used, or there is no token.
        """
        config = self._config.copy()
        if self._tokens is not None:
            self._tokens.get()  # Why there is none is told at once; the client's constructor waits ten seconds for it.
            config["oauth_cb"] = self._token
        if (user := user_now(self._kafka)) is not None:
            config["sasl.username"], config["sasl.password"] = self._user = user
        self._digest = digest_of(self._certificates)
        try:
            # Its log has the name of kafka-python's, because where that is too loud this is.
            return make(config, logger=logging.getLogger("kafka.librdkafka"))  # type: ignore[call-arg]
        except (KafkaException, ValueError, TypeError) as exc:
            raise KafkaUnavailable(f"{UNUSABLE.text} ({type(exc).__name__})") from exc

    def look_up(self, client: Any, topic: str) -> TopicMetadata | None:
        """What a broker tells of the topic; None where none has answered in time: the next may take twice as long."""
        try:
            found: TopicMetadata = client.list_topics(topic, timeout=self._look_up_seconds).topics[topic]
        except KafkaException:  # it says nothing: the reasons come to `_noted`
            self._look_up_seconds = min(2 * self._look_up_seconds, _LONGEST_LOOK_UP_SECONDS)
            return None
        self.forget()
        return found

    @property
    def is_hopeless(self) -> bool:
        """Whether each bootstrap server refuses us for a reason that waiting cannot mend."""
        return self.are_hopeless(self._servers)

    def keep_current(self, client: Any) -> None:
        """See what the files hold by now, where a broker refuses what they held before; to be called now and then."""
        trouble = self.trouble
        if trouble is REFUSED and (user := user_now(self._kafka)) is not None and user != self._user:
            self._user = user
            client.set_sasl_credentials(*user)
        elif trouble in (_UNTRUSTED, OUR_CERTIFICATE):
            self.is_outdated = digest_of(self._certificates) != self._digest

    def _token(self, _: str) -> tuple[str, float]:
        """A token, and when it is to be replaced; on a thread of librdkafka's own."""
        if self._tokens is None:
            raise AssertionError("it is asked for with a source only")
        try:
            token, seconds = self._tokens.get()
        except KafkaUnavailable as exc:
            self.note(None, Trouble(str(exc), Certainty.SURE))
            raise  # which has it ask again ten seconds later
        return token, time.time() + min(seconds, _TOKEN_SECONDS)

    def _noted(self, error: KafkaError) -> None:
        """Remember how a connection ended, from what librdkafka says of it."""
        # protocol://host:port/bootstrap: what is the matter
        where, _, what = error.str().partition(": ")
        trouble = next((trouble for words, trouble in _TROUBLES if words in what), None)
        if trouble is not None:
            self.note(_address(where), trouble)
        elif error.name() == "_ALL_BROKERS_DOWN" and self.trouble is None:
            # It says nothing of connections that were closed before an answer came.
            self.note(None, HUNG_UP)


def name_of(exc: Exception) -> str:
    """Of an error, as librdkafka calls it; its text is left out, it can hold settings and so a password."""
    return str(exc.args[0].name()) if isinstance(exc, KafkaException) else type(exc).__name__


def _address(broker: str) -> str:
    """`host:port` of a bootstrap server, or of a broker as librdkafka calls it."""
    host, _, port = broker.rpartition("://")[2].partition("/")[0].partition(":")
    return f"{host}:{port or 9092}"
