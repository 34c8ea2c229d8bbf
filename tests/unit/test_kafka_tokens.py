"""Tokens for Kafka: from a file, from an endpoint and for Amazon MSK; on Apache Kafka itself: tests/real."""

from __future__ import annotations

import base64
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mnist_pipeline.adapters import kafka_tokens
from mnist_pipeline.adapters.kafka_connection import Connections
from mnist_pipeline.adapters.kafka_tokens import Tokens
from mnist_pipeline.adapters.kafka_troubles import REFUSED
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.kafka_token import KafkaTokenEndpoint, KafkaTokenFile, MskToken
from mnist_pipeline.pipeline.settings import Kafka
from real.certificates import Authority
from servers.tokens import Endpoint

SECRET = "a-secret-that-nobody-may-see"
ENDPOINT = "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL"
CLIENT = "KAFKA_SASL_OAUTHBEARER_CLIENT_ID"


def granted(*, seconds: Any = 3600) -> Callable[[], tuple[int, Any]]:
    """Another token each time."""
    numbers = itertools.count(1)
    return lambda: (200, {"access_token": f"token-{next(numbers)}", "expires_in": seconds})


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(granted()) as running:
        yield running


class Clock:
    """The time, which passes as a test says."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def of(
    endpoint: Endpoint, clock: Clock | None = None, *, scope: str | None = None, ca_file: Path | None = None
) -> Tokens:
    source = KafkaTokenEndpoint(url=endpoint.url, client_id="me", client_secret=SECRET, scope=scope)
    return Tokens(source, None if ca_file is None else str(ca_file), clock=clock or Clock())


def text(tokens: Tokens) -> str:
    return tokens.get()[0]


def failure(tokens: Tokens) -> str:
    with pytest.raises(KafkaUnavailable) as caught:
        tokens.get()
    said = str(caught.value)
    assert SECRET not in said
    assert "\n" not in said
    return said


def test_row_51_a_file_is_read_for_each_use(tmp_path: Path) -> None:
    file = tmp_path / "token"
    tokens = Tokens(KafkaTokenFile(path=str(file)), None)
    for token in ("one", "another"):
        file.write_text(f"{token}\n")
        assert text(tokens) == token


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff"])
def test_a_file_without_a_token_is_told_by_its_variable_and_the_one_before_is_used_meanwhile(
    tmp_path: Path, content: bytes | None
) -> None:
    file, clock = tmp_path / "token", Clock()
    if content is not None:
        file.write_bytes(content)
    tokens = Tokens(KafkaTokenFile(path=str(file)), None, clock=clock)
    assert failure(tokens).endswith("; check KAFKA_SASL_OAUTHBEARER_TOKEN_FILE")
    file.write_text("one")
    clock.now += 1
    assert text(tokens) == "one"
    file.unlink()
    assert text(tokens) == "one"
    clock.now += 61
    failure(tokens)


@pytest.mark.parametrize("scope", [None, "kafka a&b"])
def test_an_endpoint_is_asked_with_the_clients_credentials_and_its_token_is_kept(
    endpoint: Endpoint, scope: str | None
) -> None:
    tokens = of(endpoint, scope=scope)
    assert [text(tokens) for _ in range(3)] == ["token-1"] * 3
    assert tokens.get()[1] == pytest.approx(3600, abs=60)
    ((authorization, form),) = endpoint.asked
    assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == f"me:{SECRET}"
    assert form == {"grant_type": ["client_credentials"]} | ({"scope": [scope]} if scope else {})


def test_row_51_another_token_is_asked_for_before_one_ends(endpoint: Endpoint) -> None:
    endpoint.answer = granted(seconds=100)
    tokens = of(endpoint, clock := Clock())
    given = []
    for clock.now in (0, 79, 81, 160, 162):
        given.append(text(tokens))
    assert given == ["token-1", "token-1", "token-2", "token-2", "token-3"]


def test_row_51_a_token_is_used_while_it_lasts_and_its_endpoint_is_away(endpoint: Endpoint) -> None:
    endpoint.answer = granted(seconds=100)
    tokens = of(endpoint, clock := Clock())
    assert text(tokens) == "token-1"
    endpoint.answer = (503, {})
    for clock.now in (81, 81.5, 99):
        assert text(tokens) == "token-1"
    # After a failure it is asked again a second later.
    assert len(endpoint.asked) == 3
    clock.now = 100.5
    assert "HTTP 503" in failure(tokens)
    endpoint.answer = granted()
    clock.now = 101.5
    assert text(tokens) == "token-1"


@pytest.mark.parametrize("seconds", ["100", 100.0, None])
def test_an_endpoint_may_say_in_other_ways_how_long_a_token_lasts(endpoint: Endpoint, seconds: Any) -> None:
    endpoint.answer = granted(seconds=seconds)
    assert text(of(endpoint, Clock())) == "token-1"


@pytest.mark.parametrize(
    ("answer", "says", "variable"),
    [
        ((401, {"error": "invalid_client", "error_description": SECRET}), "refused us (invalid_client)", CLIENT),
        ((400, {"error": "invalid_scope"}), "refused us (invalid_scope)", "KAFKA_SASL_OAUTHBEARER_SCOPE"),
        ((400, {"error": SECRET}), "HTTP 400", CLIENT),
        ((302, {}), "HTTP 302", ENDPOINT),
        ((500, {"access_token": "t"}), "HTTP 500", ENDPOINT),
        ((200, b"<html>"), "HTTP 200", ENDPOINT),
        ((200, [SECRET]), "HTTP 200", ENDPOINT),
        ((200, {"access_token": ""}), "HTTP 200", ENDPOINT),
        ((200, {"access_token": SECRET, "expires_in": 0}), "HTTP 200", ENDPOINT),
        ((200, {"access_token": SECRET, "expires_in": "soon"}), "HTTP 200", ENDPOINT),
        ((200, {"access_token": SECRET, "expires_in": True}), "HTTP 200", ENDPOINT),
    ],
)
def test_an_answer_without_a_token_is_told_by_the_variables_and_without_what_it_says(
    endpoint: Endpoint, answer: tuple[int, Any], says: str, variable: str
) -> None:
    endpoint.answer = answer
    said = failure(of(endpoint))
    assert says in said
    assert variable in said.partition("; check ")[2]
    assert len(endpoint.asked) == 1


def test_a_token_of_which_the_endpoint_does_not_say_how_long_it_lasts_is_good_for_a_minute(endpoint: Endpoint) -> None:
    endpoint.answer = (200, {"access_token": "t"})
    assert of(endpoint).get()[1] == pytest.approx(60, abs=5)


def test_an_endpoint_that_is_away_or_silent_is_told_by_its_url_in_time(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_tokens, "ENDPOINT_SECONDS", 0.3)
    endpoint.hangs = True
    began = time.monotonic()
    assert failure(of(endpoint)).endswith(f"; check {ENDPOINT}")
    assert time.monotonic() < began + 5
    endpoint.close()
    assert failure(of(endpoint)).endswith(f"; check {ENDPOINT}")


def test_an_endpoints_certificate_may_be_signed_by_kafkas_authority(tmp_path: Path) -> None:
    ours, foreign = Authority(tmp_path / "ours"), Authority(tmp_path / "foreign")
    with Endpoint(granted(), certificate=ours.server("issuer") / "all.pem") as endpoint:
        assert text(of(endpoint, ca_file=ours.ca_file)) == "token-1"
        for ca_file in (foreign.ca_file, None, tmp_path / "nowhere"):
            assert failure(of(endpoint, ca_file=ca_file)).endswith(f"; check {ENDPOINT}, KAFKA_SSL_CAFILE")


def test_row_51_a_clients_secret_is_read_from_its_file_each_time(endpoint: Endpoint, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    endpoint.answer = (401, {"error": "invalid_client"})
    source = KafkaTokenEndpoint(url=endpoint.url, client_id="me", client_secret=SECRET, client_secret_file=str(file))
    tokens = Tokens(source, None, clock=(clock := Clock()))
    failure(tokens)
    file.write_text("new\n")
    endpoint.answer = granted()
    clock.now += 1
    assert text(tokens) == "token-1"
    assert base64.b64decode(endpoint.asked[-1][0].removeprefix("Basic ")) == b"me:new"


def test_row_51_after_a_broker_has_refused_a_token_another_is_asked_for_but_not_at_once(endpoint: Endpoint) -> None:
    tokens = of(endpoint, clock := Clock())
    given = []
    for clock.now in (0, 0.5, 1, 1.5, 2.5):
        given.append(text(tokens))
        tokens.refused()
    assert given == ["token-1", "token-1", "token-2", "token-2", "token-3"]


def test_a_refused_token_is_told_by_the_variables_of_tokens(endpoint: Endpoint) -> None:
    source = KafkaTokenEndpoint(url=endpoint.url, client_id="me", client_secret=SECRET)
    connections = Connections(Kafka(bootstrap_servers="k", topic="t", token=source))
    assert connections.credentials()["sasl_oauth_token_provider"].token() == "token-1"
    connections.note(0, REFUSED)
    assert "refused the token; check KAFKA_SASL_OAUTHBEARER_TOKEN_FILE" in connections.explain()
    assert "PASSWORD" not in connections.explain()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which AWS' clients find nothing."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def test_a_token_for_amazon_msk_is_signed_with_what_aws_own_clients_find(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ACCESS_KEY_ID", "me")
    aws.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    token, seconds = Tokens(MskToken(region="eu-west-1"), None).get()
    url = urlsplit(base64.urlsafe_b64decode(token + "==").decode())
    query = parse_qs(url.query)
    assert url.hostname == "kafka.eu-west-1.amazonaws.com"
    assert query["Action"] == ["kafka-cluster:Connect"]
    assert query["X-Amz-Credential"][0].startswith("me/")
    assert seconds == pytest.approx(900, abs=60)
    assert SECRET not in url.query


def test_amazon_msk_without_credentials_or_the_extra_is_told(aws: pytest.MonkeyPatch) -> None:
    assert "check AWS_REGION" in failure(Tokens(MskToken(region="eu-west-1"), None))
    aws.setitem(sys.modules, "aws_msk_iam_sasl_signer", None)
    assert failure(Tokens(MskToken(region="eu-west-1"), None)).endswith("pip install 'mnist-pipeline[msk]'")
