"""The tokens by which a client is somebody to Kafka (SASL OAUTHBEARER), whichever client it is."""

from __future__ import annotations

import http
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson
import urllib3
from urllib3.exceptions import HTTPError, SSLError
from urllib3.util import Timeout, make_headers

from mnist_pipeline.adapters.rotated_files import secret_now
from mnist_pipeline.pipeline.environment import content_of
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.kafka_token import (
    CLIENT_ID,
    CLIENT_SECRET,
    ENDPOINT_URL,
    SCOPE,
    TOKEN_FILE,
    KafkaToken,
    KafkaTokenEndpoint,
    KafkaTokenFile,
    MskToken,
)
from mnist_pipeline.pipeline.setting_values import plain

ENDPOINT_SECONDS = 5.0
"""How long a token endpoint may take."""

# As Kafka's own clients keep one (`sasl.login.refresh.window.factor`).
_KEPT = 0.8
# After a failure, and after a broker has refused a token.
_PAUSE_SECONDS = 1.0
# Of a token that does not say how long it lasts.
_UNSAID_SECONDS = 60.0
_NOT_INSTALLED = "aws-msk-iam-sasl-signer-python is not installed: pip install 'mnist-pipeline[msk]'"
_MOST_BYTES = 64 * 1024
# What an endpoint may say of a refusal (RFC 6749, section 5.2); other words of its are not repeated.
_REFUSALS = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant"),
        *("unauthorized_client", "unsupported_grant_type", "invalid_scope"),
    }
)


@dataclass(frozen=True, kw_only=True)
class _Token:
    """A token that was just given.

    Attributes:
        seconds: for how long it can be used.
        kept_seconds: for how long it is, before another is asked for.
    """

    text: str = field(repr=False)
    seconds: float
    kept_seconds: float


class Tokens:
    """The tokens of one client, for any of its threads: each is kept for a while, and as long as there is no other.

    Args:
        source: where they come from.
        ca_file: whom to trust for TLS to an endpoint, beside those whom the system trusts.
        clock: the time, in seconds.
    """

    def __init__(self, source: KafkaToken, ca_file: str | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._ca_file = ca_file
        self._clock = clock
        self._lock = threading.Lock()
        self._text = ""
        self._failure = ""
        self._got_at = self._renew_at = self._ends_at = float("-inf")

    def get(self) -> tuple[str, float]:
        """A token, and for how many seconds more it can be used.

        Raises:
            KafkaUnavailable: there is none; one line that names the variables to check.
        """
        with self._lock:
            if self._clock() >= self._renew_at:
                self._renew()
            left = self._ends_at - self._clock()
            if left <= 0:
                raise KafkaUnavailable(self._failure)
            return self._text, left

    def refused(self) -> None:
        """Know that a broker refused the token: the next one is another, but not at once."""
        self._renew_at = min(self._renew_at, self._got_at + _PAUSE_SECONDS)

    def _renew(self) -> None:
        try:
            token = self._fetch()
        except KafkaUnavailable as exc:
            self._failure = str(exc)
            self._renew_at = self._clock() + _PAUSE_SECONDS
        else:
            self._text = token.text
            self._got_at = now = self._clock()
            self._renew_at, self._ends_at = now + token.kept_seconds, now + token.seconds

    def _fetch(self) -> _Token:
        match self._source:
            case KafkaTokenFile(path=path):
                return _from_file(path)
            case KafkaTokenEndpoint():
                return _from_endpoint(self._source, self._ca_file)
            case MskToken(region=region):
                return _from_aws(region)


def _from_file(path: str) -> _Token:
    try:
        text = content_of(path).strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise KafkaUnavailable(f"the token cannot be read: {plain(exc)}; check {TOKEN_FILE}") from exc
    if not text:
        raise KafkaUnavailable(f"there is no token in the file; check {TOKEN_FILE}")
    return _Token(text=text, seconds=_UNSAID_SECONDS, kept_seconds=0.0)


def _from_endpoint(endpoint: KafkaTokenEndpoint, ca_file: str | None) -> _Token:
    secret = secret_now(endpoint.client_secret_file, endpoint.client_secret)
    form = {"grant_type": "client_credentials"} | ({"scope": endpoint.scope} if endpoint.scope else {})
    try:
        trusted = ssl.create_default_context()
        if ca_file:
            trusted.load_verify_locations(ca_file)
        with urllib3.PoolManager(ssl_context=trusted) as pool:
            response = pool.request(
                "POST",
                endpoint.url,
                fields=form,
                encode_multipart=False,
                # The two as they stand, which is what Kafka's own clients and librdkafka send.
                headers=make_headers(basic_auth=f"{endpoint.client_id}:{secret}") | {"accept": "application/json"},
                timeout=Timeout(total=ENDPOINT_SECONDS),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            status, body = response.status, response.read(_MOST_BYTES)
    except (SSLError, ssl.SSLError, FileNotFoundError) as exc:
        raise KafkaUnavailable(f"no TLS to the token endpoint; check {ENDPOINT_URL}, KAFKA_SSL_CAFILE") from exc
    except (HTTPError, OSError, UnicodeError) as exc:
        raise KafkaUnavailable(f"no token endpoint ({type(exc).__name__}); check {ENDPOINT_URL}") from exc
    return _token_in(status, body)


def _token_in(status: int, body: bytes) -> _Token:
    """What an endpoint's answer means (RFC 6749, sections 5.1 and 5.2)."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    match answer:
        case {"access_token": str(text), **more} if status == http.HTTPStatus.OK and text:
            if (seconds := _seconds(more.get("expires_in"))) > 0:
                return _Token(text=text, seconds=seconds, kept_seconds=seconds * _KEPT)
        case {"error": str(error)} if error in _REFUSALS:
            what = f"the token endpoint refused us ({error})"
            raise KafkaUnavailable(f"{what}; check {CLIENT_ID}, {CLIENT_SECRET}, {SCOPE}")
    what = f"the token endpoint gave no token (HTTP {status})"
    raise KafkaUnavailable(f"{what}; check {ENDPOINT_URL}, {CLIENT_ID}, {CLIENT_SECRET}")


def _seconds(said: object) -> float:
    """What `expires_in` means, which some endpoints write as a string; 0 where that is no number."""
    if said is None:
        return _UNSAID_SECONDS
    try:
        return float(said) if isinstance(said, (int, float, str)) and not isinstance(said, bool) else 0.0
    except ValueError:
        return 0.0


def _from_aws(region: str) -> _Token:
    """For Amazon MSK: https://github.com/aws/aws-msk-iam-sasl-signer-python."""
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415 - an extra
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - the same
    except ImportError as exc:
        raise KafkaUnavailable(f"no token: KAFKA_SASL_MECHANISM is AWS_MSK_IAM, but {_NOT_INSTALLED}") from exc
    try:
        text, ends_ms = MSKAuthTokenProvider.generate_auth_token(region)
    # Without any credentials it fails over the None that it found.
    except (BotoCoreError, ClientError, AttributeError, ValueError, OSError) as exc:
        what = f"no credentials of AWS for a token ({type(exc).__name__})"
        raise KafkaUnavailable(f"{what}; check AWS_REGION, AWS_ROLE_ARN, AWS_ACCESS_KEY_ID") from exc
    seconds = ends_ms / 1000 - time.time()
    return _Token(text=text, seconds=seconds, kept_seconds=seconds * _KEPT)
