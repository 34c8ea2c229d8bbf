"""TLS, passwords, certificates and rights on Apache Kafka and MinIO themselves: what works, and what is said where not.

Every password used here is looked for in what our programs log.
"""

from __future__ import annotations

import gc
import http.client
import io
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from minio.commonconfig import ENABLED, Tags
from minio.versioningconfig import VersioningConfig

from e2e.following import post, wait_until
from e2e.sinks import Sink, always
from mnist_pipeline.adapters import kafka_troubles
from mnist_pipeline.adapters.confluent_publisher import ConfluentPublisher
from mnist_pipeline.adapters.kafka_publisher import KafkaPublisher
from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.commands import setup
from mnist_pipeline.local.processes import Child, Sandbox, answers_ok, free_port
from mnist_pipeline.local.servers import start_predictor, start_transformer
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import KafkaUnavailable, ObjectGone, ObjectRetained, StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline, Message
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.testing import digit_png, minio_event
from real.certificates import Authority
from servers.kafka import KafkaProgram, KafkaServer
from servers.minio import MinioServer, transformer_policy

pytestmark = [
    pytest.mark.real,
    # kafka-python leaves the sockets of failed connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"),
]

TOPIC = "mnist-predictions"
NOTIFICATIONS = "mnist"
SEEN_TOPIC = "only-seen"
GROUP = "mnist-pipeline-source"
MESSAGE = Message(key=b"k", value=b"{}")

SCRAM_PASSWORD = f"scram-{secrets.token_hex(8)}"
PLAIN_PASSWORD = f"plain-{secrets.token_hex(8)}"
STORE_PASSWORD = f"store-{secrets.token_hex(8)}"
WRONG_PASSWORD = f"wrong-{secrets.token_hex(8)}"
PASSWORDS = (SCRAM_PASSWORD, PLAIN_PASSWORD, STORE_PASSWORD, WRONG_PASSWORD)
NOBODY = "nobody-we-know"

# What a message about Kafka may name.
ADDRESS = {"KAFKA_BOOTSTRAP_SERVERS"}
CREDENTIALS = {"KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"}
OUR_CERTIFICATE = {"KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE"}
PROTOCOL = {"KAFKA_SECURITY_PROTOCOL"}
# Of a Kafka that says nothing at all.
SILENCE = {*ADDRESS, *kafka_troubles.CREDENTIALS.split(", "), "KAFKA_API_VERSION"}

Environment = dict[str, str]
AnyPublisher = KafkaPublisher | ConfluentPublisher
PublisherOf = Callable[..., AnyPublisher]
NotPublished = Callable[[Mapping[str, str]], Awaitable[str]]
Connect = Callable[..., MinioObjectStore]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that everybody trusts."""
    return Authority(tmp_path_factory.mktemp("certificates") / "ours")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("certificates") / "foreign")


@pytest.fixture(scope="module")
def kafka(kafka_program: KafkaProgram, ours: Authority) -> Iterator[KafkaServer]:
    """A broker with a listener for each way to be somebody, where only a few may do a little."""
    login = "org.apache.kafka.common.security"
    users = f'user_transformer="{PLAIN_PASSWORD}"'
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(ours.server("kafka") / "all.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(ours.ca_file),
        "listener.name.expired.ssl.keystore.type": "PEM",
        "listener.name.expired.ssl.keystore.location": str(ours.server("expired", expired=True) / "all.pem"),
        "listener.name.mutual.ssl.client.auth": "required",
        # Its user is the certificate's common name, not all of its subject.
        "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
        "listener.name.plain.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.plain.plain.sasl.jaas.config": f"{login}.plain.PlainLoginModule required {users};",
    }
    scram_users = [
        option
        for name in ("transformer", "stranger")
        for option in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={SCRAM_PASSWORD}]")
    ]
    listeners = {"SCRAM": "SASL_SSL", "PLAIN": "SASL_SSL", "MUTUAL": "SSL", "EXPIRED": "SSL"}
    with (
        Sandbox() as sandbox,
        KafkaServer(
            kafka_program, sandbox, listeners=listeners, properties=properties, format_options=scram_users
        ) as server,
    ):
        for topic in (TOPIC, NOTIFICATIONS, SEEN_TOPIC):
            server.create_topic(topic)
        rights = [
            (ResourceType.TOPIC, TOPIC, ACLOperation.WRITE),
            (ResourceType.TOPIC, SEEN_TOPIC, ACLOperation.DESCRIBE),
            (ResourceType.TOPIC, NOTIFICATIONS, ACLOperation.READ),
            (ResourceType.GROUP, GROUP, ACLOperation.READ),
        ]
        with server.admin() as admin:
            admin.create_acls(
                [
                    ACL("User:transformer", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))
                    for kind, name, operation in rights
                ]
            )
        yield server
    gc.collect()


@pytest.fixture(scope="module")
def scram(kafka: KafkaServer, ours: Authority) -> Environment:
    """What the user of the SCRAM listener sets."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.address("SCRAM"),
        "KAFKA_TOPIC": TOPIC,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": "transformer",
        "KAFKA_SASL_PASSWORD": SCRAM_PASSWORD,
        "KAFKA_SSL_CAFILE": str(ours.ca_file),
    }


@pytest.fixture(scope="module")
def plain(kafka: KafkaServer, scram: Environment) -> Environment:
    """The same for the PLAIN listener."""
    return {
        **scram,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.address("PLAIN"),
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_PASSWORD": PLAIN_PASSWORD,
    }


@pytest.fixture(scope="module")
def mutual(kafka: KafkaServer, ours: Authority) -> Environment:
    """The same for the listener that wants a certificate."""
    certificate = ours.client("transformer")
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.address("MUTUAL"),
        "KAFKA_TOPIC": TOPIC,
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CAFILE": str(ours.ca_file),
        "KAFKA_SSL_CERTFILE": str(certificate / "public.crt"),
        "KAFKA_SSL_KEYFILE": str(certificate / "private.key"),
    }


@pytest.fixture(params=["scram", "plain", "mutual"])
def secured(request: pytest.FixtureRequest) -> Environment:
    """Each of the three in turn."""
    environment: Environment = request.getfixturevalue(request.param)
    return environment


@pytest.fixture(params=[KafkaPublisher, ConfluentPublisher], ids=["kafka-python", "confluent"])
def publisher_of(request: pytest.FixtureRequest) -> PublisherOf:
    """Makes the publisher that an environment asks for; by each client in turn."""

    def publisher_of(environment: Mapping[str, str], *, timeout_seconds: float = 2.0) -> AnyPublisher:
        kafka = Settings.from_environ(environment, Digits()).kafka
        publisher: AnyPublisher = request.param(kafka, timeout_seconds=timeout_seconds)
        return publisher

    return publisher_of


def names_in(text: str, beginning: str) -> set[str]:
    """The variables that a message names."""
    return {word.strip(",;:.()") for word in text.split() if word.startswith(beginning)}


def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Log as `server.set_up_process` lets a transformer log: nothing of kafka-python's, all of ours."""
    caplog.set_level("CRITICAL", logger="kafka")
    # Last, because it also decides what is captured.
    caplog.set_level("DEBUG", logger="mnist_pipeline")


@pytest.fixture
def not_published(publisher_of: PublisherOf, caplog: pytest.LogCaptureFixture) -> NotPublished:
    """Publishes and checks in vain, and returns what both say."""

    async def not_published(environment: Mapping[str, str]) -> str:
        quiet(caplog)
        publisher = publisher_of(environment)
        with pytest.raises(KafkaUnavailable) as published:
            await publisher.publish(MESSAGE, deadline=Deadline(20))
        with pytest.raises(KafkaUnavailable) as checked:
            await publisher.check(deadline=Deadline(20))
        await publisher.close()
        said = [str(published.value), str(checked.value)]
        assert said[0].partition(": ")[2] == said[1].partition(": ")[2]
        assert "\n" not in said[0]
        no_password_in(f"{said}{caplog.text}")
        return said[0]

    return not_published


def names_of_an_untrusted(said: str, why: str, *names: str) -> None:
    """Check what is said of a certificate: librdkafka does not say what is wrong with it, and both are named."""
    assert "not trusted" in said
    if "not trusted;" not in said:
        assert why in said
        assert names_in(said, "KAFKA_") == set(names)
    else:
        assert names_in(said, "KAFKA_") == {"KAFKA_SSL_CAFILE", "KAFKA_BOOTSTRAP_SERVERS"}


def no_password_in(text: str) -> None:
    assert not [password for password in PASSWORDS if password in text]


async def test_results_are_published_and_notifications_delivered_over_each_secured_listener(
    secured: Environment, kafka: KafkaServer, publisher_of: PublisherOf
) -> None:
    publisher = publisher_of(secured, timeout_seconds=10)
    await publisher.check(deadline=Deadline(20))
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    await publisher.close()
    notifications = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "KAFKA_TOPIC": NOTIFICATIONS}
    notifier = publisher_of(notifications, timeout_seconds=10)
    await notifier.publish(Message(key=b"k", value=b'{"over": "tls"}'), deadline=Deadline(20))
    await notifier.close()

    with Sandbox() as sandbox, Sink(always(200)) as sink:
        options = ("--sink", sink.url, "--topic", NOTIFICATIONS, "--group", GROUP, "--initial-offset", "earliest")
        source = sandbox.start("source", [sys.executable, "-m", "mnist_pipeline", "source", *options], env=secured)
        wait_until(lambda: len(sink.received) > 0)
        assert sink.received[-1].body == b'{"over": "tls"}'
        sandbox.stop(source)
        no_password_in(source.log.read_text())


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"KAFKA_SASL_PASSWORD": WRONG_PASSWORD}, CREDENTIALS),
        ({"KAFKA_SASL_USERNAME": NOBODY}, CREDENTIALS),
    ],
)
@pytest.mark.parametrize("listener", ["scram", "plain"])
async def test_row_34_refused_credentials_are_told_by_their_two_variables(
    listener: str, wrong: Environment, names: set[str], request: pytest.FixtureRequest, not_published: NotPublished
) -> None:
    said = await not_published({**request.getfixturevalue(listener), **wrong})
    assert "refused the credentials" in said
    assert names_in(said, "KAFKA_") == names


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"KAFKA_SASL_PASSWORD": WRONG_PASSWORD}, CREDENTIALS),
        ({"KAFKA_SASL_USERNAME": "stranger"}, {"KAFKA_TOPIC"}),
    ],
)
def test_who_may_not_read_results_is_told_why_in_one_line(
    scram: Environment, wrong: Environment, names: set[str]
) -> None:
    command = [sys.executable, "-m", "mnist_pipeline", "results", "--trace-id", "k", "--timeout", "20s"]
    started = time.monotonic()
    ran = subprocess.run(
        command, env={**os.environ, **scram, **wrong}, capture_output=True, text=True, check=False, timeout=60
    )
    assert time.monotonic() - started < 15
    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (1, "", 1)
    assert names_in(ran.stderr, "KAFKA_") == names
    no_password_in(ran.stderr)


async def test_refused_credentials_are_told_where_the_broker_is_not_asked_for_its_version(
    scram: Environment, not_published: NotPublished
) -> None:
    said = await not_published({**scram, "KAFKA_SASL_PASSWORD": WRONG_PASSWORD, "KAFKA_API_VERSION": "2.6"})
    assert names_in(said, "KAFKA_") == CREDENTIALS


async def test_a_mechanism_that_the_listener_does_not_take_is_told(
    scram: Environment, not_published: NotPublished
) -> None:
    said = await not_published({**scram, "KAFKA_SASL_MECHANISM": "PLAIN"})
    assert names_in(said, "KAFKA_") == {"KAFKA_SASL_MECHANISM"} | PROTOCOL


@pytest.mark.parametrize("listener", ["scram", "mutual"])
async def test_row_34_a_broker_of_a_foreign_authority_is_told_by_the_ca_file(
    listener: str, foreign: Authority, request: pytest.FixtureRequest, not_published: NotPublished
) -> None:
    environment = request.getfixturevalue(listener)
    said = await not_published({**environment, "KAFKA_SSL_CAFILE": str(foreign.ca_file)})
    names_of_an_untrusted(said, "not trusted (unable to get local issuer certificate)", "KAFKA_SSL_CAFILE")


async def test_an_expired_certificate_of_a_broker_is_told_as_such(
    kafka: KafkaServer, mutual: Environment, not_published: NotPublished
) -> None:
    said = await not_published({**mutual, "KAFKA_BOOTSTRAP_SERVERS": kafka.address("EXPIRED")})
    names_of_an_untrusted(said, "not trusted (certificate has expired)", "KAFKA_SSL_CAFILE")


async def test_a_certificate_for_another_host_is_told_by_the_address(
    mutual: Environment, not_published: NotPublished
) -> None:
    port = mutual["KAFKA_BOOTSTRAP_SERVERS"].partition(":")[2]
    said = await not_published({**mutual, "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{port}"})
    names_of_an_untrusted(said, "not valid for 'localhost'", *ADDRESS)


async def test_a_client_certificate_that_is_missing_or_of_a_foreign_authority_is_told_by_its_two_variables(
    mutual: Environment, foreign: Authority, not_published: NotPublished
) -> None:
    missing = {name: value for name, value in mutual.items() if name not in OUR_CERTIFICATE}
    assert names_in(await not_published(missing), "KAFKA_") == OUR_CERTIFICATE
    alien = foreign.client(f"transformer-{secrets.token_hex(4)}")
    files_of = {
        "KAFKA_SSL_CERTFILE": str(alien / "public.crt"),
        "KAFKA_SSL_KEYFILE": str(alien / "private.key"),
    }
    assert names_in(await not_published({**mutual, **files_of}), "KAFKA_") == OUR_CERTIFICATE


async def test_a_listener_of_another_protocol_is_told_by_the_protocol(
    kafka: KafkaServer, scram: Environment, mutual: Environment, not_published: NotPublished
) -> None:
    tls_to_plaintext = {**mutual, "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    said = await not_published(tls_to_plaintext)
    assert "speaks no TLS" in said
    assert names_in(said, "KAFKA_") == PROTOCOL
    sasl_to_plaintext = {
        **scram,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SSL_CAFILE": "",
    }
    assert names_in(await not_published(sasl_to_plaintext), "KAFKA_") == PROTOCOL
    plaintext_to_tls = {"KAFKA_BOOTSTRAP_SERVERS": kafka.address("EXPIRED")}
    assert names_in(await not_published(plaintext_to_tls), "KAFKA_") >= PROTOCOL
    plaintext_to_sasl = {**mutual, "KAFKA_BOOTSTRAP_SERVERS": scram["KAFKA_BOOTSTRAP_SERVERS"]}
    assert names_in(await not_published(plaintext_to_sasl), "KAFKA_") >= PROTOCOL


@pytest.fixture
def wrong(request: pytest.FixtureRequest, scram: Environment, mutual: Environment, foreign: Authority) -> Environment:
    """A setting that cannot be right, by its name."""
    environments: dict[str, Environment] = {
        "password": {**scram, "KAFKA_SASL_PASSWORD": WRONG_PASSWORD},
        "authority": {**scram, "KAFKA_SSL_CAFILE": str(foreign.ca_file)},
        "no certificate": {name: value for name, value in mutual.items() if name not in OUR_CERTIFICATE},
        "address": {**scram, "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"},
    }
    return environments[request.param]


@pytest.mark.parametrize(
    ("wrong", "names"),
    [("password", CREDENTIALS), ("authority", {"KAFKA_SSL_CAFILE"}), ("no certificate", OUR_CERTIFICATE)],
    indirect=["wrong"],
)
async def test_row_34_what_waiting_cannot_mend_is_told_long_before_the_timeout(
    wrong: Environment, names: set[str], caplog: pytest.LogCaptureFixture, publisher_of: PublisherOf
) -> None:
    quiet(caplog)
    publisher = publisher_of(wrong, timeout_seconds=20)
    started = time.monotonic()
    with pytest.raises(KafkaUnavailable) as caught:
        await publisher.check(deadline=Deadline(20))
    assert time.monotonic() - started < 5
    await publisher.close()
    if "not trusted" in str(caught.value):
        names_of_an_untrusted(str(caught.value), "not trusted", *names)
    else:
        assert names_in(str(caught.value), "KAFKA_") == names


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ("password", CREDENTIALS),
        ("authority", {"KAFKA_SSL_CAFILE"}),
        ("no certificate", OUR_CERTIFICATE),
        ("address", ADDRESS),
    ],
    indirect=["wrong"],
)
def test_a_check_of_the_site_has_one_line_for_a_kafka_that_it_cannot_reach(
    wrong: Environment, names: set[str], stored: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_pipeline.adapters.kafka_topics._SECONDS", 3.0)
    out = io.StringIO()
    assert setup.main(["--check"], {**stored, **wrong}, out) == 1
    (line,) = [line for line in out.getvalue().splitlines() if "KAFKA_" in line]
    assert line.startswith("problem: Kafka: not connected: ")
    assert names_in(line, "KAFKA_") == names
    no_password_in(out.getvalue())


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
@pytest.mark.parametrize(
    ("wrong", "names"),
    [("password", CREDENTIALS), ("authority", {"KAFKA_SSL_CAFILE"}), ("address", ADDRESS)],
    indirect=["wrong"],
)
def test_a_source_that_cannot_reach_kafka_says_why_in_one_line_goes_on_trying_and_ends_at_once(
    wrong: Environment, names: set[str], client: str
) -> None:
    if client == "confluent" and "KAFKA_SSL_CAFILE" in names:
        names = {*names, "KAFKA_BOOTSTRAP_SERVERS"}  # librdkafka does not say what is wrong with a certificate
    with Sandbox() as sandbox:
        source = start_source(sandbox, {**wrong, "KAFKA_CLIENT": client})
        source.wait_ready(partial(names_a_variable, source.log), timeout_seconds=30)
        # Long enough for another attempt, where the first one was short.
        time.sleep(4)
        assert source.running
        started = time.monotonic()
        os.kill(source.pid, signal.SIGTERM)
        wait_until(lambda: not source.running)
        assert time.monotonic() - started < 5
        log = source.log.read_text()
    (line,) = [line for line in log.splitlines() if "KAFKA_" in line]
    assert line.endswith("trying again")
    assert names_in(line, "KAFKA_") == names
    assert not [other for other in log.splitlines() if " kafka." in other or "Traceback" in other]
    no_password_in(log)


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_a_source_whose_group_or_topic_is_not_ours_says_so_in_one_line(scram: Environment, client: str) -> None:
    ours = {**scram, "KAFKA_CLIENT": client}
    with Sandbox() as sandbox:
        strangers = start_source(sandbox, {**ours, "KAFKA_SASL_USERNAME": "stranger"}, name="stranger")
        other_group = start_source(sandbox, ours, "--group", "somebody-elses", name="group")
        for source, what in ((strangers, "not there, or our user may not see it"), (other_group, "not allowed")):
            source.wait_ready(partial(names_a_variable, source.log), timeout_seconds=30)
            time.sleep(1.5)
            (line,) = source.log.read_text().splitlines()
            assert what in line
            assert names_in(line, "KAFKA_") == {"KAFKA_SASL_USERNAME", "KAFKA_SSL_CERTFILE"}


def names_a_variable(log: Path) -> bool:
    return "KAFKA_" in log.read_text()


def start_source(sandbox: Sandbox, environment: Environment, *arguments: str, name: str = "source") -> Child:
    options = ("--sink", "http://127.0.0.1:1/", "--topic", NOTIFICATIONS, "--group", GROUP, *arguments)
    return sandbox.start(name, [sys.executable, "-m", "mnist_pipeline", "source", *options], env=environment)


async def test_row_27_a_topic_that_our_user_may_not_write_to_is_told_by_its_name(
    scram: Environment, caplog: pytest.LogCaptureFixture, publisher_of: PublisherOf
) -> None:
    quiet(caplog)
    publisher = publisher_of({**scram, "KAFKA_SASL_USERNAME": "stranger"})
    with pytest.raises(KafkaUnavailable, match=f"'{TOPIC}': refused.*KAFKA_TOPIC.*our user") as caught:
        await publisher.publish(MESSAGE, deadline=Deadline(20))
    await publisher.close()
    assert names_in(str(caught.value), "KAFKA_") == {"KAFKA_TOPIC"}


class _AnyCertificate(MinioServer):
    """A MinIO that counts as ready once it takes connections, because its certificate is trusted by nobody."""

    def is_ready(self) -> bool:
        host, _, port = self.endpoint.partition(":")
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return False
        return True


@pytest.fixture(scope="module")
def minio(minio_program: Path, ours: Authority) -> Iterator[MinioServer]:
    """MinIO over TLS with the site's buckets, and a user under the policy that the package has."""
    with (
        Sandbox() as sandbox,
        MinioServer(minio_program, sandbox, certificates=ours.server("minio"), ca_cert=ours.ca_file) as server,
    ):
        client = server.client()
        for bucket in ("mnist", "mnist-rejected", "somebody-elses", *(f"digit-{digit}" for digit in range(10))):
            client.make_bucket(bucket_name=bucket)
        client.set_bucket_versioning(bucket_name="mnist", config=VersioningConfig(ENABLED))
        server.add_user("transformer", STORE_PASSWORD, transformer_policy())
        yield server


@pytest.fixture(scope="module")
def stored(minio: MinioServer, ours: Authority) -> Environment:
    """What the user of that policy sets."""
    return {
        "MINIO_ENDPOINT": f"https://{minio.endpoint}",
        "MINIO_ACCESS_KEY": "transformer",
        "MINIO_SECRET_KEY": STORE_PASSWORD,
        "MINIO_CA_CERT": str(ours.ca_file),
    }


@pytest.fixture
async def connect(stored: Environment) -> AsyncIterator[Connect]:
    """Makes stores from what that user sets and what is given, closed after the test."""
    stores = []

    def store_of(**changed: str) -> MinioObjectStore:
        settings = Settings.from_environ({**stored, **changed}, Digits())
        assert settings.minio is not None
        stores.append(MinioObjectStore(settings.minio, connections=2))
        return stores[-1]

    yield store_of
    for store in stores:
        await store.close()


async def put(store: MinioObjectStore, bucket: str, key: str, data: bytes) -> bool:
    options = {"trace-id": "4711"}
    return await store.put(
        bucket,
        key,
        data,
        content_type="image/png",
        content_headers={},
        metadata=options,
        tags=options,
        deadline=Deadline(20),
    )


def upload(minio: MinioServer, key: str, data: bytes) -> None:
    """As a user does, with a tag."""
    tags = Tags.new_object_tags()
    tags["colour"] = "blue"
    minio.client().put_object(
        bucket_name="mnist",
        object_name=key,
        data=io.BytesIO(data),
        length=len(data),
        content_type="image/png",
        tags=tags,
    )


async def refused_by_store(store: MinioObjectStore, caplog: pytest.LogCaptureFixture) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await store.check("mnist", deadline=Deadline(20))
    said = str(caught.value)
    assert "\n" not in said
    no_password_in(f"{said}{caplog.text}")
    return said


async def test_an_object_is_filed_over_tls_with_a_private_authority_and_the_rights_of_our_policy(
    minio: MinioServer, connect: Connect
) -> None:
    store = connect()
    await store.check("mnist", deadline=Deadline(20))
    upload(minio, "a folder/7.png", b"seven")
    found = await store.get("mnist", "a folder/7.png", None, limit=1000, deadline=Deadline(20))
    assert (found.data, found.version.tags) == (b"seven", {"colour": "blue"})
    exact = found.version.version_id
    assert exact is not None
    assert (await store.get("mnist", "a folder/7.png", exact, limit=1000, deadline=Deadline(20))).data == b"seven"

    for bucket in (*(f"digit-{digit}" for digit in range(10)), "mnist-rejected"):
        assert await put(store, bucket, "a folder/7.png", b"seven")
        # The comparison after a 412, when an event is delivered again.
        assert not await put(store, bucket, "a folder/7.png", b"seven")
        there = await store.get(bucket, "a folder/7.png", None, limit=1000, deadline=Deadline(20))
        assert (there.data, there.version.metadata) == (b"seven", {"trace-id": "4711"})
        assert there.version.tags == {"trace-id": "4711"}

    upload(minio, "&<b>.png", b"eight")
    other = await store.get("mnist", "&<b>.png", None, limit=1000, deadline=Deadline(20))
    assert await store.delete_all([found.version, other.version], deadline=Deadline(20)) == [True, True]
    assert [*minio.client().list_objects(bucket_name="mnist", recursive=True, include_version=True)] == []


async def test_a_server_side_copy_and_a_late_event_work_under_our_policy(minio: MinioServer, connect: Connect) -> None:
    store = connect()
    upload(minio, "large.png", b"too large")
    version = (await store.get("mnist", "large.png", None, limit=3, deadline=Deadline(20))).version
    await store.copy(
        version, "mnist-rejected", "large.png", metadata={"reason": "objecttoolarge"}, deadline=Deadline(20)
    )
    assert await store.delete(version, deadline=Deadline(20))
    assert (await store.get("mnist-rejected", "large.png", None, limit=100, deadline=Deadline(20))).data == b"too large"
    for version_id in (None, version.version_id):
        with pytest.raises(ObjectGone):
            await store.get("mnist", "large.png", version_id, limit=100, deadline=Deadline(20))


async def test_our_policy_gives_no_more_than_the_path_takes(minio: MinioServer, connect: Connect) -> None:
    store = connect()
    upload(minio, "stays.png", b"nine")
    version = (await store.get("mnist", "stays.png", None, limit=100, deadline=Deadline(20))).version
    await put(store, "digit-9", "stays.png", b"nine")
    filed = (await store.get("digit-9", "stays.png", None, limit=100, deadline=Deadline(20))).version
    for denied in (
        lambda: put(store, "mnist", "new.png", b"new"),
        lambda: put(store, "somebody-elses", "new.png", b"new"),
        lambda: put(store, "digit-10", "new.png", b"new"),
        lambda: store.get("somebody-elses", "any.png", None, limit=100, deadline=Deadline(20)),
        lambda: store.check("digit-9", deadline=Deadline(20)),
    ):
        with pytest.raises(StoreUnavailable, match=r"AccessDenied.*MINIO_ACCESS_KEY"):
            await denied()
    with pytest.raises(ObjectRetained, match="AccessDenied"):
        await store.delete(replace(filed, version_id="null"), deadline=Deadline(20))
    assert await store.delete(version, deadline=Deadline(20))


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"MINIO_SECRET_KEY": WRONG_PASSWORD}, {"MINIO_SECRET_KEY"}),
        ({"MINIO_ACCESS_KEY": NOBODY}, {"MINIO_ACCESS_KEY"}),
        ({"MINIO_ENDPOINT": "https://localhost:{port}"}, {"MINIO_ENDPOINT"}),
        ({"MINIO_ENDPOINT": "http://127.0.0.1:{port}", "MINIO_CA_CERT": ""}, {"MINIO_ENDPOINT"}),
    ],
)
async def test_row_34_what_the_store_refuses_is_told_by_its_variables(
    wrong: Environment,
    names: set[str],
    minio: MinioServer,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = minio.endpoint.partition(":")[2]
    changed = {name: value.format(port=port) for name, value in wrong.items()}
    said = await refused_by_store(connect(**changed), caplog)
    assert names_in(said, "MINIO_") | names_in(said, "S3_") == names


async def test_row_34_a_store_of_a_foreign_authority_or_with_an_expired_certificate_is_told_by_the_ca_file(
    minio_program: Path,
    ours: Authority,
    foreign: Authority,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for ca_file in (str(foreign.ca_file), ""):
        said = await refused_by_store(connect(MINIO_CA_CERT=ca_file), caplog)
        assert "not trusted (unable to get local issuer certificate)" in said
        assert names_in(said, "MINIO_") == {"MINIO_CA_CERT"}
    certificates = ours.server("minio-expired", expired=True)
    with Sandbox() as sandbox, _AnyCertificate(minio_program, sandbox, certificates=certificates) as server:
        said = await refused_by_store(connect(MINIO_ENDPOINT=f"https://{server.endpoint}"), caplog)
        assert "not trusted (certificate has expired)" in said
        assert names_in(said, "MINIO_") == {"MINIO_CA_CERT"}


async def test_a_store_that_speaks_no_tls_is_told_by_the_endpoint(
    real_minio: MinioServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    said = await refused_by_store(connect(MINIO_ENDPOINT=f"https://{real_minio.endpoint}"), caplog)
    assert "speaks no TLS" in said
    assert names_in(said, "MINIO_") | names_in(said, "S3_") == {"MINIO_ENDPOINT", "S3_USE_HTTPS"}


def test_row_34_transformers_with_wrong_credentials_hosts_or_authorities_stay_up_unready_and_say_so_in_one_line(
    scram: Environment, stored: Environment, foreign: Authority
) -> None:
    right = {**stored, **scram}
    # What a line of each may name; where a resolver takes its time over a name, that looks like silence at first.
    wrongs: list[tuple[Environment, tuple[set[str], ...]]] = [
        ({"KAFKA_SASL_PASSWORD": WRONG_PASSWORD}, (CREDENTIALS,)),
        ({"KAFKA_SSL_CAFILE": str(foreign.ca_file)}, ({"KAFKA_SSL_CAFILE"},)),
        ({"KAFKA_BOOTSTRAP_SERVERS": "no-such-host.invalid:9092"}, (ADDRESS, SILENCE)),
        ({"MINIO_SECRET_KEY": WRONG_PASSWORD}, ({"MINIO_SECRET_KEY"},)),
        ({"MINIO_CA_CERT": str(foreign.ca_file)}, ({"MINIO_CA_CERT"},)),
        ({"MINIO_ENDPOINT": "https://no-such-host.invalid:9000"}, ({"MINIO_ENDPOINT"},)),
    ]
    with Sandbox() as sandbox:
        transformers = [
            start_transformer(sandbox, name=f"wrong-{n}", predictor_host="127.0.0.1:1", env={**right, **wrong})
            for n, (wrong, _) in enumerate(wrongs)
        ]
        for one in transformers:
            wait_until(partial(answers_ok, one.http_port, "/v2/health/live"), seconds=120)
        # Long enough for several checks of five seconds each.
        give_up = time.monotonic() + 13
        while time.monotonic() < give_up:
            for one in transformers:
                assert status(one.http_port, "/v1/models/mnist") == http.HTTPStatus.SERVICE_UNAVAILABLE
            time.sleep(0.5)
        wait_until(lambda: all("not ready" in one.child.log.read_text() for one in transformers), seconds=60)
        assert all(one.child.running for one in transformers)
        logs = [one.child.log.read_text() for one in transformers]
        for one in transformers:
            one.close()
    for log, (_, names) in zip(logs, wrongs, strict=True):
        said = [line for line in log.splitlines() if "KAFKA_" in line or "MINIO_" in line]
        assert said
        assert all("not ready" in line for line in said), said
        assert all(names_in(line, "KAFKA_") | names_in(line, "MINIO_") in names for line in said), said
        # A reason is told when it is new, and not by each of the checks.
        reasons = [line.partition("not ready")[2] for line in said]
        assert all(reason != before for before, reason in pairwise(reasons)), said
        assert "Unable to bootstrap" not in log
        no_password_in(log)


def test_row_27_a_topic_that_our_user_may_only_see_is_told_by_its_name_and_the_object_stays(
    scram: Environment, stored: Environment, minio: MinioServer
) -> None:
    with Sandbox() as sandbox, start_predictor(sandbox) as predictor:
        host = f"127.0.0.1:{predictor.http_port}"
        settings = {**stored, **scram, "KAFKA_TOPIC": SEEN_TOPIC}
        with start_transformer(sandbox, predictor_host=host, env=settings) as transformer:
            upload(minio, "seen.png", digit_png(4))
            started = time.monotonic()
            answer = post(transformer.predict_url, minio_event("mnist", "seen.png"), {"ce-id": "1"})
            assert time.monotonic() - started < 5
            log = transformer.child.log.read_text()
    assert (answer.status, answer.headers["kne-reason"]) == (503, "kafka")
    (line,) = [line for line in log.splitlines() if "seen.png" in line]
    assert f" ERROR mnist/'seen.png' is not settled: publish to '{SEEN_TOPIC}': refused" in line
    assert names_in(line, "KAFKA_") == {"KAFKA_TOPIC"}
    no_password_in(log)
    minio.client().stat_object(bucket_name="mnist", object_name="seen.png")


def status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()
