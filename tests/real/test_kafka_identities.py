"""Who we are to Apache Kafka itself, on either client: by tokens, and by what is rotated in its files."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, ScramMechanism, UserScramCredentialUpsertion

from mnist_pipeline.adapters.group_member import GroupMember, Subscription
from mnist_pipeline.adapters.kafka import member_of, publisher_of
from mnist_pipeline.adapters.kafka_records import TopicReader
from mnist_pipeline.adapters.kafka_topics import Topics
from mnist_pipeline.local.processes import Sandbox, free_port
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.ports import Deadline, Message, Publisher
from mnist_pipeline.pipeline.settings import Kafka, Settings
from real.certificates import Authority
from servers.kafka import KafkaProgram, KafkaServer
from servers.proxy import Proxy
from servers.tokens import AUDIENCE, ISSUER, Endpoint, Issuer
from taking import Taker

pytestmark = [
    pytest.mark.real,
    # kafka-python leaves the sockets of closed clients to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # and of those that were refused
]

Environment = dict[str, str]

OLD_PASSWORD, NEW_PASSWORD = "the-old-password", "the-new-password"
# Short, so that some end while a test runs; each is replaced when a third or half of that is over.
TOKEN_SECONDS = 6.0

_numbers = itertools.count()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("identities")


@pytest.fixture(scope="module")
def ours(home: Path) -> Authority:
    return Authority(home / "ours")


@pytest.fixture(scope="module")
def authorities(home: Path, ours: Authority) -> tuple[Authority, Authority]:
    """Who signs clients' certificates at first, and who does once that one is not trusted any more."""
    return ours, Authority(home / "new")


@pytest.fixture(scope="module")
def issuer(home: Path) -> Issuer:
    issuer = Issuer()
    (home / "keys.json").write_text(json.dumps(issuer.keys))
    return issuer


class Site:
    """A broker behind proxies: all connections to a listener can be cut."""

    def __init__(self, server: KafkaServer, ports: Mapping[str, int]) -> None:
        self.server = server
        self.proxies = {
            listener: Proxy(int(server.address(listener).rpartition(":")[2]), port=port)
            for listener, port in ports.items()
        }

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self.proxies[listener].port}"

    def reconnect(self, listener: str) -> None:
        """Have everybody connect anew, and say again who they are."""
        self.proxies[listener].cut()
        self.proxies[listener].heal()

    def set_password(self, user: str, password: str) -> None:
        with self.server.admin() as admin:
            told = admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(user, ScramMechanism.SCRAM_SHA_512, password=password)]
            )
        assert told == {user: None}

    async def trust(self, ca_file: Path, *, other: Path) -> None:
        """Take certificates of clients from this authority only, and see that a client with the other is refused."""
        setting = {"listener.name.mutual.ssl.truststore.location": str(ca_file)}
        resource = ConfigResource(ConfigResourceType.BROKER, "1", configs=setting)
        with self.server.admin() as admin:
            admin.alter_configs([resource], raise_on_unknown=False)
        await until(lambda: self._refuses(other))

    def _refuses(self, certificate: Path) -> bool:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(certificate / "all.pem")
        address = self.server.address("MUTUAL").split(":")
        with socket.create_connection((address[0], int(address[1]))) as plain, context.wrap_socket(plain) as secure:
            # TLS 1.3 tells a client behind its handshake; else the broker waits for a request.
            secure.settimeout(0.5)
            try:
                return secure.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True


@pytest.fixture(scope="module")
def site(kafka_program: KafkaProgram, home: Path, ours: Authority, issuer: Issuer) -> Iterator[Site]:
    """One broker for all tests of this file, with a listener for each way to be somebody."""
    assert issuer
    security = "org.apache.kafka.common.security"
    keys = (home / "keys.json").as_uri()
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(ours.server("kafka") / "all.pem"),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.truststore.type": "PEM",
        "listener.name.mutual.ssl.truststore.location": str(ours.ca_file),
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": f"{security}.scram.ScramLoginModule required;",
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.oauthbearer.sasl.jaas.config": (
            f"{security}.oauthbearer.OAuthBearerLoginModule required;"
        ),
        "listener.name.oauth.oauthbearer.sasl.server.callback.handler.class": (
            f"{security}.oauthbearer.OAuthBearerValidatorCallbackHandler"
        ),
        # A session ends with its token, unless a newer one is shown on the same connection (KIP-368).
        "listener.name.oauth.oauthbearer.connections.max.reauth.ms": "3600000",
        "sasl.oauthbearer.jwks.endpoint.url": keys,
        "sasl.oauthbearer.expected.issuer": ISSUER,
        "sasl.oauthbearer.expected.audience": AUDIENCE,
        "sasl.oauthbearer.clock.skew.seconds": "0",
    }
    listeners = {"SCRAM": "SASL_SSL", "OAUTH": "SASL_SSL", "MUTUAL": "SSL"}
    ports = {listener: free_port() for listener in listeners}
    with (
        Sandbox() as sandbox,
        KafkaServer(
            kafka_program,
            sandbox,
            listeners=listeners,
            advertised={listener: f"127.0.0.1:{port}" for listener, port in ports.items()},
            properties=properties,
            java_options=[f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}"],
        ) as server,
    ):
        site = Site(server, ports)
        yield site
        for proxy in site.proxies.values():
            proxy.close()
    gc.collect()


@pytest.fixture(params=["kafka-python", "confluent"])
def client(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Pair:
    """A publisher and a member of a group that takes what it publishes, with the same settings."""

    def __init__(self, kafka: Kafka) -> None:
        self.publisher: Publisher = publisher_of(kafka)
        self.taker = Taker()
        topic = kafka.topic
        subscription = Subscription(topics=(topic,), group=topic, initial_offset="earliest", session_timeout_seconds=6)
        self.member: GroupMember = member_of(kafka, subscription, self.taker, commit_seconds=0.2)
        self.member.begin()

    async def deliver(self, value: bytes) -> int:
        """Publish it, as often as it takes, as an event comes again that is not settled; how often it took."""
        give_up = time.monotonic() + 60
        for attempt in itertools.count(1):
            try:
                await self.publisher.publish(Message(key=b"k", value=value), deadline=Deadline(20))
            except KafkaUnavailable:
                assert time.monotonic() < give_up
                await asyncio.sleep(0.1)
            else:
                return attempt
        raise AssertionError

    async def taken(self, *values: bytes) -> None:
        """Wait until all of these were taken."""
        await until(lambda: {*values} <= {*self.taker.values()}, seconds=60)

    async def close(self) -> None:
        await self.publisher.close()
        await asyncio.to_thread(self.member.close)


Connect = Callable[..., Pair]


@pytest.fixture
async def connect(site: Site, ours: Authority, client: str) -> AsyncIterator[Connect]:
    """Makes pairs on a new topic, from the variables given, on each client in turn."""
    pairs = []

    def connect(listener: str, **variables: str) -> Pair:
        kafka = kafka_of(site, ours, listener, KAFKA_CLIENT=client, **variables)
        site.server.create_topic(kafka.topic)
        pairs.append(Pair(kafka))
        return pairs[-1]

    yield connect
    for pair in pairs:
        await pair.close()
    gc.collect()


def kafka_of(site: Site, ours: Authority, listener: str, **variables: str) -> Kafka:
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": site.address(listener),
        "KAFKA_TOPIC": f"results-{next(_numbers)}",
        "KAFKA_SSL_CAFILE": str(ours.ca_file),
        **{"MUTUAL": {"KAFKA_SECURITY_PROTOCOL": "SSL"}}.get(listener, {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}),
        **variables,
    }
    kafka = Settings.from_environ(environment, Digits()).kafka
    assert kafka is not None
    return kafka


async def until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        await asyncio.sleep(0.02)


def oauth(**variables: str) -> Environment:
    named = {f"KAFKA_SASL_OAUTHBEARER_{name}": value for name, value in variables.items()}
    return {"KAFKA_SASL_MECHANISM": "OAUTHBEARER", **named}


def granted(
    issuer: Issuer, seconds: float, *, kept: float | None = None
) -> Callable[[], tuple[int, dict[str, object]]]:
    """An endpoint's answer: a new token."""
    more = {"token_type": "Bearer", "expires_in": kept or seconds}
    return lambda: (200, {"access_token": issuer.token(seconds), **more})


async def test_row_51_nothing_is_refused_while_tokens_in_a_file_end_and_are_replaced(
    connect: Connect, issuer: Issuer, tmp_path: Path
) -> None:
    file = tmp_path / "token"

    async def keep_fresh() -> None:
        while True:
            fresh = tmp_path / "fresh"
            fresh.write_text(issuer.token(TOKEN_SECONDS))
            fresh.replace(file)
            await asyncio.sleep(TOKEN_SECONDS / 3)

    keeping = asyncio.create_task(keep_fresh())
    await until(file.exists)
    pair = connect("OAUTH", **oauth(TOKEN_FILE=str(file)))
    await publish_beyond_the_first_tokens(pair)
    keeping.cancel()


async def publish_beyond_the_first_tokens(pair: Pair) -> None:
    """Publish one after another, until what both clients have begun with has ended; each at the first attempt."""
    values = [b"first"]
    assert await pair.deliver(b"first") == 1
    await pair.taken(b"first")
    end = time.monotonic() + TOKEN_SECONDS + 1
    while time.monotonic() < end:
        values.append(b"%d" % len(values))
        assert await pair.deliver(values[-1]) == 1
        await asyncio.sleep(0.05)
    await pair.taken(*values)


async def test_row_51_nothing_is_refused_while_tokens_of_an_endpoint_end(connect: Connect, issuer: Issuer) -> None:
    with Endpoint(granted(issuer, TOKEN_SECONDS, kept=TOKEN_SECONDS / 2)) as endpoint:
        pair = connect("OAUTH", **oauth(TOKEN_ENDPOINT_URL=endpoint.url, CLIENT_ID="me", CLIENT_SECRET="mine"))
        began = time.monotonic()
        await publish_beyond_the_first_tokens(pair)
        # The publisher and the member have tokens of their own, and keep each for a while.
        kept = (time.monotonic() - began) / (TOKEN_SECONDS / 2 * 0.8)
        assert 4 <= len(endpoint.asked) <= 2 * (kept + 3)


async def test_row_51_nothing_is_lost_while_an_endpoint_is_away_for_longer_than_a_token_lasts(
    connect: Connect, issuer: Issuer
) -> None:
    with Endpoint(granted(issuer, TOKEN_SECONDS)) as endpoint:
        pair = connect("OAUTH", **oauth(TOKEN_ENDPOINT_URL=endpoint.url, CLIENT_ID="me", CLIENT_SECRET="mine"))
        await pair.deliver(b"before")
        await pair.taken(b"before")
        endpoint.answer = (503, {})
        # A broker ends a session whose token has ended.
        await until(lambda: "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL" in (pair.member.trouble or ""))
        meanwhile = asyncio.create_task(pair.deliver(b"meanwhile"))
        endpoint.answer = granted(issuer, 60)
        await meanwhile
        await pair.taken(b"meanwhile")
        await until(lambda: pair.member.trouble is None)


async def test_a_token_that_is_refused_is_told_by_its_variables_and_another_in_its_file_is_taken(
    connect: Connect, issuer: Issuer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    wrong = issuer.token(60, audience="somebody-else")
    file.write_text(wrong)
    pair = connect("OAUTH", **oauth(TOKEN_FILE=str(file)))
    with pytest.raises(KafkaUnavailable, match="refused the token; check KAFKA_SASL_OAUTHBEARER_TOKEN_FILE") as caught:
        await pair.publisher.publish(Message(key=b"k", value=b"v"), deadline=Deadline(20))
    assert "PASSWORD" not in str(caught.value)
    await until(lambda: "KAFKA_SASL_OAUTHBEARER_TOKEN_FILE" in (pair.member.trouble or ""))
    file.write_text(issuer.token(60))
    await pair.deliver(b"v")
    await pair.taken(b"v")
    assert wrong not in caplog.text


async def test_an_endpoint_that_refuses_us_is_told_by_its_variables(connect: Connect, issuer: Issuer) -> None:
    with Endpoint((401, {"error": "invalid_client"})) as endpoint:
        pair = connect("OAUTH", **oauth(TOKEN_ENDPOINT_URL=endpoint.url, CLIENT_ID="me", CLIENT_SECRET="s3cret"))
        with pytest.raises(
            KafkaUnavailable, match=r"invalid_client\); check KAFKA_SASL_OAUTHBEARER_CLIENT_ID"
        ) as caught:
            await pair.publisher.publish(Message(key=b"k", value=b"v"), deadline=Deadline(20))
        assert "s3cret" not in str(caught.value)
        await until(lambda: "KAFKA_SASL_OAUTHBEARER_CLIENT_ID" in (pair.member.trouble or ""))
        endpoint.answer = granted(issuer, 60)
        await pair.deliver(b"v")
        await pair.taken(b"v")


async def test_setup_and_readers_have_tokens_too(site: Site, ours: Authority, issuer: Issuer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(issuer.token(60))
    kafka = kafka_of(site, ours, "OAUTH", **oauth(TOKEN_FILE=str(file)))
    topics = await Topics.connect(kafka)
    await topics.create(kafka.topic, partitions=1, replication=1)
    assert await topics.describe(kafka.topic) is not None
    await topics.close()
    reader = TopicReader(kafka)
    await asyncio.to_thread(reader.open)
    assert reader.is_at_end()
    reader.close()


async def test_row_51_a_password_that_is_rotated_in_its_file_is_used_without_a_restart(
    site: Site, connect: Connect, client: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(OLD_PASSWORD)
    site.set_password(client, OLD_PASSWORD)
    user = {"KAFKA_SASL_USERNAME": client, "KAFKA_SASL_PASSWORD_FILE": str(file)}
    pair = connect("SCRAM", KAFKA_SASL_MECHANISM="SCRAM-SHA-512", **user)
    await pair.deliver(b"before")
    await pair.taken(b"before")

    site.set_password(client, NEW_PASSWORD)
    site.reconnect("SCRAM")
    meanwhile = asyncio.create_task(pair.deliver(b"meanwhile"))
    await until(lambda: "KAFKA_SASL_PASSWORD" in (pair.member.trouble or ""))
    file.write_text(NEW_PASSWORD)
    await meanwhile
    assert await pair.deliver(b"after") == 1
    await pair.taken(b"meanwhile", b"after")
    await until(lambda: pair.member.trouble is None)


async def test_row_51_a_certificate_that_is_rotated_in_its_files_is_used_without_a_restart(
    site: Site, connect: Connect, authorities: tuple[Authority, Authority], client: str, tmp_path: Path
) -> None:
    ours, new = authorities
    old_files, new_files = ours.client(client), new.client(client)
    shutil.copytree(old_files, tmp_path, dirs_exist_ok=True)
    files = {"CERTFILE": "public.crt", "KEYFILE": "private.key"}
    pair = connect("MUTUAL", **{f"KAFKA_SSL_{name}": str(tmp_path / file) for name, file in files.items()})
    await pair.deliver(b"before")
    await pair.taken(b"before")

    await site.trust(new.ca_file, other=old_files)
    try:
        site.reconnect("MUTUAL")
        meanwhile = asyncio.create_task(pair.deliver(b"meanwhile"))
        await until(lambda: "KAFKA_SSL_CERTFILE" in (pair.member.trouble or ""))
        shutil.copytree(new_files, tmp_path, dirs_exist_ok=True)
        await meanwhile
        assert await pair.deliver(b"after") == 1
        await pair.taken(b"meanwhile", b"after")
        await until(lambda: pair.member.trouble is None)
    finally:
        await site.trust(ours.ca_file, other=new_files)
