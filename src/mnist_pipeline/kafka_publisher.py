"""`KafkaPublisher`: the port `Publisher` on kafka-python.

kafka-python's producer waits in three places: in its constructor, which asks a broker for its version, in `send()`,
which asks for the topic, and for the acknowledgement. Each of them is bounded here.

Where it cannot connect it raises the same timeout for whatever reason, and tells that one to its log alone. `_Client`
gets it from the connections themselves, so that a wrong password is told from a broker that is away.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from kafka import KafkaProducer
from kafka.errors import (
    AuthorizationError,
    IllegalSaslStateError,
    InvalidTopicError,
    KafkaConfigurationError,
    KafkaConnectionError,
    KafkaError,
    KafkaProtocolError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from mnist_pipeline.errors import KafkaUnavailable, MessageTooLarge, PipelineError
from mnist_pipeline.ports import Deadline, Message
from mnist_pipeline.settings import Kafka

log = logging.getLogger(__name__)

_SLICE_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_CLOSE_SECONDS = 3.0

_CREDENTIALS = (
    "KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD, KAFKA_SSL_CAFILE, "
    "KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE"
)

# What kafka-python raises, and what it means; the last ones are for settings and files that it cannot use.
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[PipelineError], str], ...] = (
    ((MessageSizeTooLargeError, RecordListTooLargeError), MessageTooLarge, "the message is too large"),
    (
        (TopicAuthorizationFailedError, UnknownTopicOrPartitionError, InvalidTopicError),
        KafkaUnavailable,
        "refused; check KAFKA_TOPIC and what our user may do",
    ),
    ((AuthorizationError, SaslAuthenticationFailedError), KafkaUnavailable, f"refused; check {_CREDENTIALS}"),
    ((KafkaTimeoutError,), KafkaUnavailable, "no answer in time; check KAFKA_TOPIC and KAFKA_BOOTSTRAP_SERVERS"),
    ((KafkaError,), KafkaUnavailable, "failed; check KAFKA_BOOTSTRAP_SERVERS"),
    (
        (ValueError, TypeError, AssertionError, OSError),
        KafkaUnavailable,
        f"a setting cannot be used; check KAFKA_TOPIC, KAFKA_API_VERSION, {_CREDENTIALS}",
    ),
)
_FOREIGN_ERRORS = tuple(kind for kinds, _, _ in _MEANINGS for kind in kinds)

# Kafka's numbers for requests (https://kafka.apache.org/protocol#protocol_api_keys).
_SASL_HANDSHAKE, _SASL_AUTHENTICATE = 17, 36
# What OpenSSL calls the alerts by which a broker refuses a client's certificate, or the lack of one.
_CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_HOST = (62, 64)

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Trouble:
    """Why a connection failed, in our words; `sure`: because a broker or a certificate said so."""

    text: str
    sure: bool = True


_REFUSED = _Trouble("a broker refused the credentials; check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD")
_MECHANISM = _Trouble("a broker does not take this mechanism; check KAFKA_SASL_MECHANISM, KAFKA_SECURITY_PROTOCOL")
_NO_SASL = _Trouble("a broker takes no credentials there; check KAFKA_SECURITY_PROTOCOL")
_OUR_CERTIFICATE = _Trouble(
    "a broker does not accept our certificate, or misses one; check KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE"
)
_NO_TLS = _Trouble("a broker speaks no TLS there, or broke it off; check KAFKA_SECURITY_PROTOCOL")
_NO_KAFKA = _Trouble(
    "a broker speaks another protocol there, TLS for instance; check KAFKA_SECURITY_PROTOCOL, KAFKA_API_VERSION"
)
_UNUSABLE = _Trouble(f"a setting or its file cannot be used; check {_CREDENTIALS}")
_HUNG_UP = _Trouble(
    "a broker hung up without a word; check KAFKA_SECURITY_PROTOCOL, KAFKA_BOOTSTRAP_SERVERS", sure=False
)
_NO_CONNECTION = _Trouble("no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS", sure=False)

# What kafka-python's errors say by themselves.
_TROUBLES: tuple[tuple[tuple[type[Exception], ...], _Trouble | None], ...] = (
    ((SaslAuthenticationFailedError,), _REFUSED),
    ((UnsupportedSaslMechanismError,), _MECHANISM),
    ((IllegalSaslStateError,), _NO_SASL),
    ((KafkaProtocolError,), _NO_KAFKA),
    ((KafkaConfigurationError, ValueError, TypeError, AssertionError, OSError), _UNUSABLE),
)


class _Attempt(Future[KafkaProducer]):
    """One producer, or why there is none, as soon as it is known."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = _Connections()


class _Connections:
    """The last trouble of one producer's connections; kafka-python's thread writes it, ours read it.

    It holds no exception: those would keep sockets, and can hold secrets.
    """

    def __init__(self) -> None:
        self.trouble: _Trouble | None = None

    def note(self, trouble: _Trouble | None) -> None:
        """Remember the trouble; a guess does not replace what is sure."""
        if trouble is not None and (trouble.sure or self.trouble is None or not self.trouble.sure):
            self.trouble = trouble


class _Client(KafkaNetClient):  # type: ignore[misc]  # kafka-python has no types
    """kafka-python's client, whose connections leave their trouble with `connections`."""

    def __init__(self, connections: _Connections, **configs: Any) -> None:
        net = NetworkSelector(**configs)
        super().__init__(net=net, manager=_Manager(connections, net, **configs))


class _Manager(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self, connections: _Connections, net: NetworkSelector, **configs: Any) -> None:
        super().__init__(net, **configs)
        self._connections = connections

    def get_connection(self, *args: Any, **kwargs: Any) -> KafkaConnection:
        connection = super().get_connection(*args, **kwargs)
        # Asked for again meanwhile, it tells the same twice; afterwards there is nothing to add.
        if connection.initializing:
            connection.close_future.add_errback(
                lambda error: self._connections.note(_trouble_of(error, _unanswered(connection)))
            )
        return connection


def _unanswered(connection: KafkaConnection) -> tuple[int, ...] | None:
    """The requests (their API keys) that a lost connection was waiting for; None where it was never made."""
    if connection.parser is None:
        return None
    # The parser's own list: the connection has emptied its before it tells anybody. And it takes some looking: where a
    # broker answers and hangs up at once, as after a wrong password, kafka-python drops the answer.
    return tuple(header.request_api_key for header in connection.parser.in_flight_requests)


def _trouble_of(error: Exception, unanswered: tuple[int, ...] | None) -> _Trouble | None:
    """What the end of a connection means; None for one that is normal, or that only took too long."""
    for kinds, trouble in _TROUBLES:
        if isinstance(error, kinds):
            return trouble
    # Of our own close() it has no arguments.
    if not isinstance(error, KafkaConnectionError) or not error.args:
        return None
    # The transport's own error: inside the one that was raised for it, or before it.
    below = next((part for part in error.args if isinstance(part, Exception)), error.__context__)
    if isinstance(below, ssl.SSLError) and (refusal := _refusal(below)):
        return refusal
    if unanswered is None:
        return _NO_TLS if isinstance(below, OSError) else _NO_CONNECTION
    return _hang_up(unanswered)


def _hang_up(unanswered: tuple[int, ...]) -> _Trouble | None:
    """What it means that a broker hung up, by what it had been asked."""
    if _SASL_AUTHENTICATE in unanswered:
        return _REFUSED
    if _SASL_HANDSHAKE in unanswered:
        return _MECHANISM
    return _HUNG_UP if unanswered else None


def _refusal(error: ssl.SSLError) -> _Trouble | None:
    """Whose certificate was refused, and why; the texts shown are OpenSSL's own."""
    if isinstance(error, ssl.SSLCertVerificationError):
        where = "KAFKA_BOOTSTRAP_SERVERS" if error.verify_code in _OTHER_HOST else "KAFKA_SSL_CAFILE"
        return _Trouble(f"a broker's certificate is not trusted ({error.verify_message}); check {where}")
    # TLSV13_ALERT_CERTIFICATE_REQUIRED, SSLV3_ALERT_BAD_CERTIFICATE and so on.
    alert = error.reason or ""
    return _OUR_CERTIFICATE if "ALERT" in alert and any(name in alert for name in _CERTIFICATE_ALERTS) else None


class KafkaPublisher:
    """A Kafka topic, by the port `Publisher`; made at the first call, once a process, and safe to share.

    It can be pickled at any time: the producer stays behind. A producer that let a whole `timeout_seconds` pass in vain
    is replaced, so that brokers which hung, moved or changed their passwords are found again without a restart.

    A record that was given up may still arrive: results are delivered at least once.

    Args:
        kafka: where the brokers are, who we are there, and the topic; secrets appear in no message.
        timeout_seconds: how long a broker may take to answer.
    """

    def __init__(self, kafka: Kafka, *, timeout_seconds: float = 10.0) -> None:
        self._topic = kafka.topic
        self._timeout_seconds = timeout_seconds
        # A batch counts as lost a second after its request does, so that the request's own error comes first.
        self._delivery_seconds = timeout_seconds + 1.0
        self._options: dict[str, Any] = {
            "client_id": "mnist-pipeline",
            "acks": "all",
            # The idempotent producer hangs for ever after a batch has expired in flight; and it would gain nothing, as
            # a redelivered event is published again anyway, under the same id.
            "enable_idempotence": False,
            "linger_ms": 0,
            "max_block_ms": int(_SLICE_SECONDS * 1000),
            "bootstrap_timeout_ms": int(timeout_seconds * 1000),
            "request_timeout_ms": int(timeout_seconds * 1000),
            "delivery_timeout_ms": int(self._delivery_seconds * 1000),
            # kafka-python's 30 s would be added to every outage.
            "reconnect_backoff_max_ms": 1000,
            "metrics_enabled": False,
            **kafka.client_options(),
        }
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None
        self._pause_until = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_attempt": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def publish(self, message: Message, *, deadline: Deadline) -> None:
        """Send the message and wait until all in-sync replicas have it."""
        with _translated(f"publish to {self._topic!r}"):
            attempt, producer = self._producer(deadline)
            future = self._patiently(
                attempt,
                lambda: producer.send(self._topic, key=message.key, value=message.value, headers=list(message.headers)),
                deadline,
            )
            started = time.monotonic()
            try:
                future.get(timeout=min(self._delivery_seconds + _SLICE_SECONDS, deadline.remaining()))
            except KafkaTimeoutError:
                if time.monotonic() - started >= self._timeout_seconds:
                    self._replace(attempt)
                raise

    def check(self, *, deadline: Deadline) -> None:
        """Ask for the topic's partitions; what a broker has told in the last minutes is not asked again."""
        with _translated(f"look up {self._topic!r}"):
            attempt, producer = self._producer(deadline)
            self._patiently(attempt, lambda: producer.partitions_for(self._topic), deadline)

    def close(self) -> None:
        """Drop what is in flight: nothing, once every publish has returned. A later call connects anew."""
        with self._lock:
            attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.add_done_callback(_close)

    def _producer(self, deadline: Deadline) -> tuple[_Attempt, KafkaProducer]:
        """The producer and the attempt that made it.

        One thread of its own constructs it, and every caller waits for that one until its own deadline; a failure
        answers everybody for a second, and then it is tried again.
        """
        left = deadline.remaining()
        with self._lock:
            attempt = self._attempt
            if attempt is None or (attempt.done() and attempt.exception() and time.monotonic() >= self._pause_until):
                attempt = self._attempt = _Attempt()
                threading.Thread(target=self._construct, args=(attempt,), name="kafka-connect", daemon=True).start()
        concurrent.futures.wait([attempt], timeout=left)
        failure = attempt.exception() if attempt.done() else KafkaTimeoutError("not connected before the deadline")
        if isinstance(failure, KafkaTimeoutError):
            trouble = attempt.connections.trouble
            if trouble is not None:
                raise KafkaUnavailable(f"not connected: {trouble.text}") from failure
            raise KafkaUnavailable(f"no broker answered; check KAFKA_BOOTSTRAP_SERVERS, {_CREDENTIALS}") from failure
        return attempt, attempt.result()

    def _construct(self, attempt: _Attempt) -> None:
        try:
            producer = KafkaProducer(kafka_client=partial(_Client, attempt.connections), **self._options)
        except Exception as exc:  # noqa: BLE001 - handed over to the threads that wait for it
            self._pause_until = time.monotonic() + _PAUSE_SECONDS
            attempt.set_exception(exc)
        else:
            attempt.set_result(producer)

    def _patiently(self, attempt: _Attempt, call: Callable[[], _T], deadline: Deadline) -> _T:
        """Repeat `call`, which gives up after a second without having done anything, until it is done or time is up."""
        started = time.monotonic()
        patience = min(self._timeout_seconds, deadline.remaining())
        while True:
            try:
                done = call()
            except KafkaTimeoutError as exc:
                waited = time.monotonic() - started
                if waited >= self._timeout_seconds:
                    self._replace(attempt)
                if waited >= patience:
                    trouble = attempt.connections.trouble
                    if trouble is None:
                        raise
                    # One broker of several may be away, and something else the matter.
                    guess = "" if trouble.sure else ", KAFKA_TOPIC"
                    raise KafkaUnavailable(f"not connected: {trouble.text}{guess}") from exc
            else:
                attempt.connections.trouble = None
                return done

    def _replace(self, attempt: _Attempt) -> None:
        with self._lock:
            if self._attempt is not attempt:
                return
            self._attempt = None
        log.warning("Kafka has not answered for %g s; connecting anew", self._timeout_seconds)
        _close(attempt)


def _close(attempt: Future[KafkaProducer]) -> None:
    if attempt.exception():
        return
    producer = attempt.result()
    # close() raises where records are in flight, and then leaves its thread and its connections behind.
    with contextlib.suppress(KafkaError):
        producer.close(timeout=0)
    sender = producer._sender  # noqa: SLF001 - the only way to end it then
    sender.force_close()
    sender.join(_CLOSE_SECONDS)


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """Let only our own errors out."""
    try:
        yield
    except _FOREIGN_ERRORS as exc:
        raise _failure(exc, action) from exc


def _failure(exc: Exception, action: str) -> PipelineError:
    """What a foreign error means; its text is left out, it can hold settings and so a password."""
    error, meaning = next((error, meaning) for kinds, error, meaning in _MEANINGS if isinstance(exc, kinds))
    return error(f"{action}: {meaning} ({type(exc).__name__})")
