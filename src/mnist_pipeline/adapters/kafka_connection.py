"""Connecting to Kafka with kafka-python, and why it fails where it does.

kafka-python (3.0.12) raises the same timeout for whatever reason, "Unable to bootstrap", tells that one to its log
alone, and goes on trying until the time is up, even where a broker has refused the password. `Connections` gets the
reason from the connections themselves: a wrong password is told from a broker that is away, and told soon.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
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
from kafka.net.selector import NetworkSelector

from mnist_pipeline.pipeline.errors import KafkaUnavailable

CREDENTIALS = (
    "KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD, KAFKA_SSL_CAFILE, "
    "KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE"
)
"""The variables that say who we are and whom we trust."""

# Not the first time: a broker that is just ending hangs up as one does that refuses a password.
_REFUSALS_ENOUGH = 2

# Kafka's numbers for requests (https://kafka.apache.org/protocol#protocol_api_keys).
_SASL_HANDSHAKE, _SASL_AUTHENTICATE = 17, 36
# What OpenSSL calls the alerts by which a broker refuses a client's certificate, or the lack of one.
_CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_HOST = (62, 64)

_T = TypeVar("_T")


class Certainty(IntEnum):
    """How much a failed connection tells."""

    GUESS = 0
    """Something else may be the matter, and it may pass."""
    SURE = 1
    """It is so, but it may pass."""
    LASTING = 2
    """A broker or a certificate says so, and waiting will not mend it."""


@dataclass(frozen=True)
class Trouble:
    """Why a connection failed: one line without a secret, which names the variables to check."""

    text: str
    certainty: Certainty = Certainty.LASTING


_REFUSED = Trouble("a broker refused the credentials; check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD")
_MECHANISM = Trouble("a broker does not take this mechanism; check KAFKA_SASL_MECHANISM, KAFKA_SECURITY_PROTOCOL")
_NO_SASL = Trouble("a broker takes no credentials there; check KAFKA_SECURITY_PROTOCOL")
_OUR_CERTIFICATE = Trouble(
    "a broker does not accept our certificate, or misses one; check KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE"
)
_NO_KAFKA = Trouble(
    "a broker speaks another protocol there, TLS for instance; check KAFKA_SECURITY_PROTOCOL, KAFKA_API_VERSION"
)
_UNUSABLE = Trouble(f"a setting or its file cannot be used; check {CREDENTIALS}, KAFKA_API_VERSION")
# A proxy whose broker is away breaks it off in the same way.
_NO_TLS = Trouble("a broker speaks no TLS there, or broke it off; check KAFKA_SECURITY_PROTOCOL", Certainty.SURE)
_HUNG_UP = Trouble(
    "a broker hung up without a word; check KAFKA_SECURITY_PROTOCOL, KAFKA_BOOTSTRAP_SERVERS", Certainty.GUESS
)
_NO_CONNECTION = Trouble("no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS", Certainty.GUESS)
_SILENCE = f"no broker answered; check KAFKA_BOOTSTRAP_SERVERS, {CREDENTIALS}, KAFKA_API_VERSION"

# What is raised for settings and files that kafka-python cannot use.
_UNUSABLE_ERRORS = (KafkaConfigurationError, ValueError, TypeError, AssertionError, OSError)

# What kafka-python's errors say by themselves.
_TROUBLES: tuple[tuple[tuple[type[Exception], ...], Trouble], ...] = (
    ((SaslAuthenticationFailedError,), _REFUSED),
    ((UnsupportedSaslMechanismError,), _MECHANISM),
    ((IllegalSaslStateError,), _NO_SASL),
    ((KafkaProtocolError,), _NO_KAFKA),
    (_UNUSABLE_ERRORS, _UNUSABLE),
)


class Connections:
    """The connections of one client of kafka-python, and why they fail.

        connections = Connections()
        admin = connections.open(KafkaAdminClient, timeout_seconds=10, **kafka.client_options())

    kafka-python's thread writes what becomes of them, ours read it. No exception is kept: those would keep sockets, and
    can hold secrets.
    """

    def __init__(self) -> None:
        # By broker, the newest last; replaced and never changed, because another thread may be reading it.
        self._troubles: dict[object, Trouble] = {}
        self._refusals = 0
        self._client: KafkaNetClient | None = None
        self._given_up = False

    def open(self, make: Callable[..., _T], *, timeout_seconds: float, **options: Any) -> _T:
        """Make a client, and return it once it knows the brokers.

        Args:
            make: kafka-python's `KafkaProducer`, `KafkaConsumer` or `KafkaAdminClient`.
            timeout_seconds: how long to try; shorter where every bootstrap server refuses us for good.
            options: more for `make`.

        Raises:
            KafkaUnavailable: it came to nothing; one line that names the variables to check.
        """
        self.forget()
        try:
            return make(kafka_client=self._connect, bootstrap_timeout_ms=int(timeout_seconds * 1000), **options)
        except (KafkaError, RuntimeError, LookupError, *_UNUSABLE_ERRORS) as exc:
            if self._client is not None:
                self._client.close()
            raise KafkaUnavailable(self._meaning(exc)) from exc

    def give_up(self) -> None:
        """Let `open` end in vain, now and later; for another thread, which wants to stop."""
        self._given_up = True
        client = self._client
        if client is not None:
            # It is closed already where `open` has ended meanwhile.
            with contextlib.suppress(RuntimeError):
                client._manager.call_soon(client._manager.close)  # noqa: SLF001 - nothing else ends a bootstrap

    @property
    def trouble(self) -> Trouble | None:
        """The surest, then the newest, of what is the matter with the brokers; None where nothing is known to be."""
        newest_first = reversed(self._troubles.values())
        return max(newest_first, key=lambda trouble: trouble.certainty, default=None)

    def explain(self) -> str:
        """Why there was no answer, as far as it is known; one line that names the variables to check."""
        trouble = self.trouble
        return _SILENCE if trouble is None else f"not connected: {trouble.text}"

    def forget(self) -> None:
        """Begin anew: what was the matter is over."""
        self._troubles = {}
        self._refusals = 0

    def note(self, node_id: object, trouble: Trouble) -> None:
        """Remember how the last connection to a broker ended."""
        known = self._troubles.get(node_id, trouble)
        # A broker that refuses us hangs up at times before it has said why.
        if trouble is not _HUNG_UP or known.certainty is Certainty.GUESS:
            self._troubles = {**self._without(node_id), node_id: trouble}
            self._refusals = self._refusals + 1 if trouble.certainty is Certainty.LASTING else 0

    def note_connected(self, node_id: object) -> None:
        """Remember that all is well with a broker now."""
        self._troubles = self._without(node_id)
        self._refusals = 0

    def are_hopeless(self, node_ids: Iterable[object]) -> bool:
        """Whether we gave up, or each of these brokers refuses us for a reason that waiting cannot mend."""
        if self._given_up:
            return True
        last = [self._troubles.get(node_id) for node_id in node_ids]
        refused = all(trouble is not None and trouble.certainty is Certainty.LASTING for trouble in last)
        return refused and self._refusals >= _REFUSALS_ENOUGH

    def _without(self, node_id: object) -> dict[object, Trouble]:
        return {other: trouble for other, trouble in self._troubles.items() if other != node_id}

    def _connect(self, **configs: Any) -> KafkaNetClient:
        net = NetworkSelector(**configs)
        manager = _Manager(self, net, **configs)
        self._client = KafkaNetClient(net=net, manager=manager)
        # By itself kafka-python asks no broker before it is used where KAFKA_API_VERSION is set.
        manager.bootstrap(configs["bootstrap_timeout_ms"])
        return self._client

    def _meaning(self, exc: Exception) -> str:
        """What the end of `open` means; the error's text is left out, it can hold settings and so a password."""
        if isinstance(exc, (KafkaTimeoutError, _GaveUp)):
            return self.explain()
        known = _UNUSABLE.text if isinstance(exc, _UNUSABLE_ERRORS) else self.explain()
        return f"{known} ({type(exc).__name__})"


class _GaveUp(KafkaConnectionError):  # type: ignore[misc]  # kafka-python has no types
    """There is no use in trying on."""


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


def _hang_up(unanswered: tuple[int, ...]) -> Trouble | None:
    """What it means that a broker hung up, by what it had been asked."""
    if _SASL_AUTHENTICATE in unanswered:
        return _REFUSED
    if _SASL_HANDSHAKE in unanswered:
        return _MECHANISM
    return _HUNG_UP if unanswered else None


def _refusal(error: ssl.SSLError) -> Trouble | None:
    """Whose certificate was refused, and why; the texts shown are OpenSSL's own."""
    if isinstance(error, ssl.SSLCertVerificationError):
        where = "KAFKA_BOOTSTRAP_SERVERS" if error.verify_code in _OTHER_HOST else "KAFKA_SSL_CAFILE"
        return Trouble(f"a broker's certificate is not trusted ({error.verify_message}); check {where}")
    # TLSV13_ALERT_CERTIFICATE_REQUIRED, SSLV3_ALERT_BAD_CERTIFICATE and so on.
    alert = error.reason or ""
    return _OUR_CERTIFICATE if "ALERT" in alert and any(name in alert for name in _CERTIFICATE_ALERTS) else None
