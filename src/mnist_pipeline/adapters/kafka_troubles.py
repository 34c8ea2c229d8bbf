"""Why Kafka cannot be used, in words that name the variables to check; the same whichever client finds out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from mnist_pipeline.adapters.kafka_tokens import Tokens
from mnist_pipeline.pipeline.settings import Kafka

CREDENTIALS = (
    "KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD, KAFKA_SSL_CAFILE, "
    "KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE"
)
"""The variables that say who we are and whom we trust."""

# Not the first time: a broker that is just ending hangs up as one does that refuses a password.
_REFUSALS_ENOUGH = 2


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


REFUSED = Trouble("a broker refused the credentials; check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD")
TOKEN_REFUSED = Trouble(
    "a broker refused the token; check KAFKA_SASL_OAUTHBEARER_TOKEN_FILE or KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL, "
    "KAFKA_SASL_OAUTHBEARER_CLIENT_ID, KAFKA_SASL_OAUTHBEARER_SCOPE"
)
MECHANISM = Trouble("a broker does not take this mechanism; check KAFKA_SASL_MECHANISM, KAFKA_SECURITY_PROTOCOL")
NO_SASL = Trouble("a broker takes no credentials there; check KAFKA_SECURITY_PROTOCOL")
OUR_CERTIFICATE = Trouble(
    "a broker does not accept our certificate, or misses one; check KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE"
)
NO_KAFKA = Trouble(
    "a broker speaks another protocol there, TLS for instance; check KAFKA_SECURITY_PROTOCOL, KAFKA_API_VERSION"
)
UNUSABLE = Trouble(f"a setting or its file cannot be used; check {CREDENTIALS}, KAFKA_API_VERSION")
# A proxy whose broker is away breaks it off in the same way.
NO_TLS = Trouble("a broker speaks no TLS there, or broke it off; check KAFKA_SECURITY_PROTOCOL", Certainty.SURE)
HUNG_UP = Trouble(
    "a broker hung up without a word; check KAFKA_SECURITY_PROTOCOL, KAFKA_BOOTSTRAP_SERVERS", Certainty.GUESS
)
NO_CONNECTION = Trouble("no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS", Certainty.GUESS)
_SILENCE = f"no broker answered; check KAFKA_BOOTSTRAP_SERVERS, {CREDENTIALS}, KAFKA_API_VERSION"


TOO_LARGE = "the message is too large"
TOPIC_REFUSED = "refused; check KAFKA_TOPIC and what our user may do"
USER_REFUSED = f"refused; check {CREDENTIALS}"
NO_ANSWER = "no answer in time; check KAFKA_TOPIC and KAFKA_BOOTSTRAP_SERVERS"
FAILED = "failed; check KAFKA_BOOTSTRAP_SERVERS"
BAD_SETTING = f"a setting cannot be used; check KAFKA_TOPIC, KAFKA_API_VERSION, {CREDENTIALS}"
"""What may become of a message, behind what was tried."""


class Troubles:
    """What is the matter with the brokers of one client, as its connections tell.

    The client's thread writes it, ours read it. No exception is kept: those would keep sockets, and can hold secrets.

    Args:
        kafka: where the brokers are, and who we are there.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._tokens = None if kafka.token is None else Tokens(kafka.token, kafka.ssl_cafile)
        # By broker, the newest last; replaced and never changed, because another thread may be reading it.
        self._troubles: dict[object, Trouble] = {}
        self._refusals = 0

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
        if trouble is REFUSED and self._tokens is not None:
            self._tokens.refused()
            trouble = TOKEN_REFUSED
        known = self._troubles.get(node_id, trouble)
        # A broker that refuses us hangs up at times before it has said why.
        if trouble is not HUNG_UP or known.certainty is Certainty.GUESS:
            self._troubles = {**self._without(node_id), node_id: trouble}
            self._refusals = self._refusals + 1 if trouble.certainty is Certainty.LASTING else 0

    def note_connected(self, node_id: object) -> None:
        """Remember that all is well with a broker now."""
        self._troubles = self._without(node_id)
        self._refusals = 0

    def are_hopeless(self, node_ids: Iterable[object]) -> bool:
        """Whether each of these brokers refuses us for a reason that waiting cannot mend."""
        last = [self._troubles.get(node_id) for node_id in node_ids]
        refused = all(trouble is not None and trouble.certainty is Certainty.LASTING for trouble in last)
        return refused and self._refusals >= _REFUSALS_ENOUGH

    def _without(self, node_id: object) -> dict[object, Trouble]:
        return {other: trouble for other, trouble in self._troubles.items() if other != node_id}
