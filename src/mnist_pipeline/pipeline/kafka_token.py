"""Where the tokens come from by which we are somebody to Kafka, as the environment says."""

from __future__ import annotations

from dataclasses import dataclass, field

from mnist_pipeline.pipeline import setting_values as values
from mnist_pipeline.pipeline.environment import Reader

TOKEN_FILE = "KAFKA_SASL_OAUTHBEARER_TOKEN_FILE"  # noqa: S105 - a variable's name
ENDPOINT_URL = "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL"
CLIENT_ID = "KAFKA_SASL_OAUTHBEARER_CLIENT_ID"
CLIENT_SECRET = "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET"  # noqa: S105 - the same
SCOPE = "KAFKA_SASL_OAUTHBEARER_SCOPE"
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


@dataclass(frozen=True, kw_only=True)
class KafkaTokenFile:
    """A file that somebody keeps fresh, such as Kubernetes' projected token of a service account."""

    path: str


@dataclass(frozen=True, kw_only=True)
class KafkaTokenEndpoint:
    """Who gives tokens to those with a client's credentials (RFC 6749, section 4.4).

    `client_secret` is what `client_secret_file`, if there is one, held at the start.
    """

    url: str = field(repr=False)  # its query may hold a secret
    client_id: str
    client_secret: str = field(repr=False)
    client_secret_file: str | None = None
    scope: str | None = None


@dataclass(frozen=True, kw_only=True)
class MskToken:
    """Signed by ourselves for Amazon MSK, with the credentials that AWS' own clients would find."""

    region: str


KafkaToken = KafkaTokenFile | KafkaTokenEndpoint | MskToken


def read_token(read: Reader, mechanism: str | None, instead: str) -> KafkaToken | None:
    """Where tokens come from with this mechanism; None where it takes none, or what is set is wrong.

    Args:
        read: the environment.
        mechanism: of SASL; None without SASL.
        instead: why there are no tokens, where there are none; for a problem's line.
    """
    path = read.parsed(TOKEN_FILE, values.token_file, None)
    url = read.parsed(ENDPOINT_URL, values.token_endpoint, None)
    secret = read.secret(CLIENT_SECRET)
    given = {name: read.text(name) for name in (TOKEN_FILE, ENDPOINT_URL, CLIENT_ID, SCOPE)} | {CLIENT_SECRET: secret}
    region = next((found for found in map(read.text, _REGIONS) if found), None)
    if mechanism == "OAUTHBEARER":
        _check(read, given)
        if path:
            return KafkaTokenFile(path=path)
        return KafkaTokenEndpoint(
            url=url or "",
            client_id=given[CLIENT_ID] or "",
            client_secret=secret or "",
            client_secret_file=read.text(CLIENT_SECRET + "_FILE"),
            scope=given[SCOPE],
        )
    for name in (name for name, value in given.items() if value):
        read.problem(name, f"is set, but {instead}")
    if mechanism != "AWS_MSK_IAM":
        return None
    if region is None:
        read.problem("AWS_REGION", "is not set, but KAFKA_SASL_MECHANISM is AWS_MSK_IAM")
    return MskToken(region=region or "")


def _check(read: Reader, given: dict[str, str | None]) -> None:
    """See that one source of tokens is set, and all of it."""
    if given[TOKEN_FILE] and given[ENDPOINT_URL]:
        read.problem(TOKEN_FILE, f"is set beside {ENDPOINT_URL}: one of the two")
    elif not given[TOKEN_FILE] and not given[ENDPOINT_URL]:
        read.problem(TOKEN_FILE, f"is not set, nor is {ENDPOINT_URL}, but KAFKA_SASL_MECHANISM is OAUTHBEARER")
    for name in (CLIENT_ID, CLIENT_SECRET):
        if given[ENDPOINT_URL] and not given[name] and not read.is_told(name):
            read.problem(name, f"is not set, but {ENDPOINT_URL} is")
    for name in (CLIENT_ID, CLIENT_SECRET, SCOPE):
        if given[name] and not given[ENDPOINT_URL]:
            read.problem(name, f"is set, but {ENDPOINT_URL} is not")
