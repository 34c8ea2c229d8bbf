"""Connecting to Kafka with kafka-python, and why it fails where it does.

kafka-python (3.0.12) raises the same timeout for whatever reason, "Unable to bootstrap", tells that one to its log
alone, and goes on trying until the time is up, even where a broker has refused the password. `Connections` gets the
reason from the connections themselves: a wrong password is told from a broker that is away, and told soon.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from kafka.errors import (
    IllegalSaslStateError,
    KafkaConfigurationError,
    KafkaConnectionError,
    KafkaError,
    KafkaProtocolError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.selector import NetworkSelector

from mnist_pipeline.adapters.kafka_tokens import Tokens
from mnist_pipeline.adapters.kafka_troubles import (
    HUNG_UP,
    MECHANISM,
    NO_CONNECTION,
    NO_KAFKA,
    NO_SASL,
    NO_TLS,
    OUR_CERTIFICATE,
    REFUSED,
    UNUSABLE,
    Certainty,
    Trouble,
    Troubles,
)
from mnist_pipeline.adapters.rotated_files import user_now
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.settings import Kafka

# Kafka's numbers for requests (https://kafka.apache.org/protocol#protocol_api_keys).
_SASL_HANDSHAKE, _SASL_AUTHENTICATE = 17, 36
# What OpenSSL calls the alerts by which a broker refuses a client's certificate, or the lack of one.
_CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_HOST = (62, 64)

_LEAST_POLL_MS = 2

_T = TypeVar("_T")


# What is raised for settings and files that kafka-python cannot use.
_UNUSABLE_ERRORS = (KafkaConfigurationError, ValueError, TypeError, AssertionError, OSError)

# What kafka-python's errors say by themselves.
_TROUBLES: tuple[tuple[tuple[type[Exception], ...], Trouble], ...] = (
    ((SaslAuthenticationFailedError,), REFUSED),
    ((UnsupportedSaslMechanismError,), MECHANISM),
    ((IllegalSaslStateError,), NO_SASL),
    ((KafkaProtocolError,), NO_KAFKA),
    (_UNUSABLE_ERRORS, UNUSABLE),
)


class Connections(Troubles):
    """The connections of one client of kafka-python, and why they fail.

        connections = Connections(kafka)
        admin = connections.open(KafkaAdminClient, timeout_seconds=10)

    One for each client.
    """

    def __init__(self, kafka: Kafka) -> None:
        super().__init__(kafka)
        self._client: KafkaNetClient | None = None
        self._given_up = False

    def open(self, make: Callable[..., _T], *, timeout_seconds: float, **options: Any) -> _T:
        """Make a client, and return it once it knows the brokers.

        Args:
            make: kafka-python's `KafkaProducer`, `KafkaConsumer` or `KafkaAdminClient`.
            timeout_seconds: how long to try; shorter where every bootstrap server refuses us for good.
            options: more for `make`, beside where the brokers are and who we are there.

        Raises:
            KafkaUnavailable: it came to nothing; one line that names the variables to check.
        """
        self.forget()
        if self._tokens is not None:
            self._tokens.get()  # Why there is none is told at once.
        given = {**self._kafka.client_options(), **self.credentials(), **options}
        try:
            return make(kafka_client=self._connect, bootstrap_timeout_ms=int(timeout_seconds * 1000), **given)
        except (KafkaError, RuntimeError, LookupError, *_UNUSABLE_ERRORS) as exc:
            if self._client is not None:
                self._client.close()
            raise KafkaUnavailable(self._meaning(exc)) from exc

    def credentials(self) -> dict[str, Any]:
        """Who we are as of now, by kafka-python's names, where that can change while a client lives."""
        if self._tokens is not None:
            return {"sasl_oauth_token_provider": _TokenProvider(self._tokens)}
        user = user_now(self._kafka)
        return {} if user is None else {"sasl_plain_username": user[0], "sasl_plain_password": user[1]}

    def give_up(self) -> None:
        """Let `open` end in vain, now and later; for another thread, which wants to stop."""
        self._given_up = True
        client = self._client
        if client is not None:
            # It is closed already where `open` has ended meanwhile.
            with contextlib.suppress(RuntimeError):
                client._manager.call_soon(client._manager.close)  # noqa: SLF001 - nothing else ends a bootstrap

    def are_hopeless(self, node_ids: Iterable[object]) -> bool:
        """Whether we gave up, or each of these brokers refuses us for a reason that waiting cannot mend."""
        return self._given_up or super().are_hopeless(node_ids)

    def _connect(self, **configs: Any) -> KafkaNetClient:
        net = NetworkSelector(**configs)
        manager = _Manager(self, net, **configs)
        self._client = _Client(net=net, manager=manager)
        # By itself kafka-python asks no broker before it is used where KAFKA_API_VERSION is set.
        manager.bootstrap(configs["bootstrap_timeout_ms"])
        return self._client

    def _meaning(self, exc: Exception) -> str:
        """What the end of `open` means; the error's text is left out, it can hold settings and so a password."""
        if isinstance(exc, (KafkaTimeoutError, _GaveUp)):
            return self.explain()
        known = UNUSABLE.text if isinstance(exc, _UNUSABLE_ERRORS) else self.explain()
        return f"{known} ({type(exc).__name__})"


class _TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python has no types
    """Asked by kafka-python for each connection, and each time that one must say anew who we are."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self._tokens = tokens

    def token(self) -> str:
        return self._tokens.get()[0]


class _GaveUp(KafkaConnectionError):  # type: ignore[misc]  # kafka-python has no types
    """There is no use in trying on."""


class _Client(KafkaNetClient):  # type: ignore[misc]  # kafka-python has no types
    """kafka-python's own, which never polls without waiting: what comes, or is to be sent, ends a wait at once.

    A producer's thread (3.0.12) polls so over and over while a batch that has expired is in flight at a broker that is
    silent, and leaves our event loop hardly any of the GIL.
    """

    def poll(self, timeout_ms: float | None = None, **options: Any) -> Any:
        return super().poll(timeout_ms if timeout_ms is None else max(timeout_ms, _LEAST_POLL_MS), **options)


class _Manager(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python has no types
    """kafka-python's own, which tells `connections` how each of its connections ends."""

    def __init__(self, connections: Connections, net: NetworkSelector, **configs: Any) -> None:
        super().__init__(net, **configs)
        self._connections = connections

    def get_connection(self, node_id: object, *args: Any, **kwargs: Any) -> KafkaConnection:
        if self.cluster.is_bootstrap(node_id):
            servers = [broker.node_id for broker in self.cluster.bootstrap_brokers()]
            # kafka-python's bootstrap ends by an error that is raised here; it raises errors of its own so.
            if self._connections.are_hopeless(servers):
                raise _GaveUp
        known = self._conns.get(node_id)
        if known is None:
            # A connection takes these options as they are when it is made; certificates it reads by itself.
            self.config.update(self._connections.credentials())
        connection = super().get_connection(node_id, *args, **kwargs)
        if connection is not known:
            self._watch(node_id, connection)
        return connection

    def _watch(self, node_id: object, connection: KafkaConnection) -> None:
        def lost(error: Exception) -> None:
            if trouble := trouble_of(error, _unanswered(connection)):
                self._connections.note(node_id, trouble)

        connection.init_future.add_callback(lambda _: self._connections.note_connected(node_id))
        connection.close_future.add_errback(lost)


def _unanswered(connection: KafkaConnection) -> tuple[int, ...] | None:
    """The requests (their API keys) that a lost connection was waiting for; None where it was never made."""
    if connection.parser is None:
        return None
    # The parser's own list: the connection has emptied its before it tells anybody. And it takes some looking: where a
    # broker answers and hangs up at once, as after a wrong password, kafka-python drops the answer.
    return tuple(header.request_api_key for header in connection.parser.in_flight_requests)


def trouble_of(error: Exception, unanswered: tuple[int, ...] | None) -> Trouble | None:
    """What the end of a connection means; None for one that is normal, or that only took too long.

    Args:
        error: with which kafka-python ended it.
        unanswered: the API keys of the requests that it was waiting for; None where it was never made.
    """
    if isinstance(error, KafkaUnavailable):  # no token
        return Trouble(str(error), Certainty.SURE)
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
        return NO_TLS if isinstance(below, OSError) else NO_CONNECTION
    return _hang_up(unanswered)


def _hang_up(unanswered: tuple[int, ...]) -> Trouble | None:
    """What it means that a broker hung up, by what it had been asked."""
    if _SASL_AUTHENTICATE in unanswered:
        return REFUSED
    if _SASL_HANDSHAKE in unanswered:
        return MECHANISM
    return HUNG_UP if unanswered else None


def _refusal(error: ssl.SSLError) -> Trouble | None:
    """Whose certificate was refused, and why; the texts shown are OpenSSL's own."""
    if isinstance(error, ssl.SSLCertVerificationError):
        where = "KAFKA_BOOTSTRAP_SERVERS" if error.verify_code in _OTHER_HOST else "KAFKA_SSL_CAFILE"
        return Trouble(f"a broker's certificate is not trusted ({error.verify_message}); check {where}")
    # TLSV13_ALERT_CERTIFICATE_REQUIRED, SSLV3_ALERT_BAD_CERTIFICATE and so on.
    alert = error.reason or ""
    return OUR_CERTIFICATE if "ALERT" in alert and any(name in alert for name in _CERTIFICATE_ALERTS) else None
