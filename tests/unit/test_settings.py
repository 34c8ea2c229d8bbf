"""settings.py: the environment as one frozen value, all problems at once, no secret shown."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import certifi
import numpy as np
import pytest

from digits import digits_settings
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import Reject
from mnist_pipeline.pipeline.interpretation import Prediction
from mnist_pipeline.pipeline.kafka_token import KafkaTokenEndpoint, KafkaTokenFile, MskToken
from mnist_pipeline.pipeline.settings import Settings, SettingsError
from mnist_pipeline.pipeline.task import Destination, Task, Tensor
from mnist_pipeline.pipeline.unknown_settings import unknown_settings
from recording import Recording

CREDENTIALS = {"MINIO_ACCESS_KEY": "minio", "MINIO_SECRET_KEY": "minio-s3cret"}
KAFKA = {"KAFKA_BOOTSTRAP_SERVERS": "kafka.database.svc.cluster.local"}
TOKEN = {**KAFKA, "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": "OAUTHBEARER"}
OAUTH = "KAFKA_SASL_OAUTHBEARER_"
CLIENT = [f"{OAUTH}CLIENT_ID", f"{OAUTH}CLIENT_SECRET"]


def read(environ: Mapping[str, str], task: Task | None = None, **flags: str) -> Settings:
    return Settings.from_environ(environ, task or Digits(), **flags)


def problems_of(environ: dict[str, str], protocol: str = "v1", task: Task | None = None) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        read(environ, task, predictor_protocol=protocol)
    return list(raised.value.problems)


def told(environ: Mapping[str, str], task: Task | None = None) -> list[str]:
    return unknown_settings(environ, task or Digits())


def test_an_empty_environment_has_neither_store_nor_kafka_and_the_defaults() -> None:
    task = Digits()
    assert read({}, task) == Settings(task=task)


def test_the_seeds_environments_work_as_they_are() -> None:
    first = read(
        {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "S3_USE_HTTPS": "0",
            "S3_ENDPOINT": "minio-service:9000",
            "AWS_ENDPOINT_URL": "http://minio-service:9000",
        }
    )
    assert first.minio is not None
    assert (first.minio.endpoint, first.minio.secure) == ("minio-service:9000", False)
    second = read({**KAFKA, "KAFKA_TOPIC": "test-topic", "REQUEST_TRACE_KEY": "test-trace-id"})
    assert second.minio is None
    assert second.kafka is not None
    assert (second.kafka.topic, second.trace_key) == ("test-topic", "test-trace-id")


@pytest.mark.parametrize(
    ("environ", "endpoint", "secure"),
    [
        ({}, "minio-service:9000", False),
        ({"S3_USE_HTTPS": "1"}, "minio-service:9000", True),
        ({"MINIO_ENDPOINT": "m:9000"}, "m:9000", False),
        ({"MINIO_ENDPOINT": "https://m"}, "m", True),
        ({"MINIO_ENDPOINT": "http://m:9000/", "S3_USE_HTTPS": "1"}, "m:9000", False),
        ({"S3_ENDPOINT": "s:1", "AWS_ENDPOINT_URL": "http://a:2"}, "s:1", False),
        ({"AWS_ENDPOINT_URL": "https://a:2"}, "a:2", True),
    ],
)
def test_the_endpoint_s_scheme_decides_on_tls_else_s3_use_https(
    environ: dict[str, str], endpoint: str, secure: bool
) -> None:
    minio = read({**CREDENTIALS, **environ}).minio
    assert minio is not None
    assert (minio.endpoint, minio.secure) == (endpoint, secure)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"MINIO_ACCESS_KEY": "a"}, ["MINIO_SECRET_KEY"]),
        ({"AWS_SECRET_ACCESS_KEY": "a"}, ["MINIO_ACCESS_KEY"]),
        ({"MINIO_ACCESS_KEY": "", "MINIO_SECRET_KEY": "b"}, ["MINIO_ACCESS_KEY"]),
        ({"MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": ""}, ["MINIO_SECRET_KEY"]),
        ({**CREDENTIALS, "MINIO_ENDPOINT": "ftp://x"}, ["MINIO_ENDPOINT"]),
        ({**CREDENTIALS, "S3_ENDPOINT": "http://x/bucket"}, ["S3_ENDPOINT"]),
        ({**CREDENTIALS, "MINIO_ENDPOINT": "x:99999999"}, ["MINIO_ENDPOINT"]),
        ({**CREDENTIALS, "MINIO_SECRET_KEY_FILE": "/nowhere"}, ["MINIO_SECRET_KEY_FILE"]),
        ({"MINIO_ACCESS_KEY_FILE": "/nowhere", "MINIO_SECRET_KEY": "b"}, ["MINIO_ACCESS_KEY_FILE"]),
        ({"MINIO_ACCESS_KEY": " ", "MINIO_SECRET_KEY": "b"}, ["MINIO_ACCESS_KEY"]),
        ({"MINIO_REGION": "eu central"}, ["MINIO_REGION"]),
        ({"SOURCE_BUCKETS": "a..b"}, ["SOURCE_BUCKETS"]),
        ({"REJECTED_BUCKET": "192.168.1.1"}, ["REJECTED_BUCKET"]),
        ({"REQUEST_TRACE_KEY": "Host"}, ["REQUEST_TRACE_KEY"]),
        ({"REQUEST_TRACE_KEY": "I-D"}, ["REQUEST_TRACE_KEY"]),
        ({"S3_USE_HTTPS": "maybe"}, ["S3_USE_HTTPS"]),
        ({"MINIO_CA_CERT": "/nowhere"}, ["MINIO_CA_CERT"]),
        ({"SOURCE_BUCKETS": "a,,b"}, ["SOURCE_BUCKETS"]),
        ({"SOURCE_BUCKETS": "Mnist"}, ["SOURCE_BUCKETS"]),
        ({"SOURCE_SUFFIXES": ","}, ["SOURCE_SUFFIXES"]),
        ({"DESTINATION": "digits"}, ["DESTINATION"]),
        ({"DESTINATION": "digit-{digit}-{name}"}, ["DESTINATION"]),
        ({"DESTINATION": "Digit-{digit}"}, ["DESTINATION"]),
        ({"DESTINATION": "{digit}"}, ["DESTINATION"]),
        ({"DESTINATION": "digits//{digit}"}, ["DESTINATION"]),
        ({"DESTINATION": "digits/../{digit}"}, ["DESTINATION"]),
        ({"DESTINATION": "digit-{digit}", "SOURCE_BUCKETS": "mnist,digit-3"}, ["DESTINATION"]),
        ({"REJECTED_BUCKET": "mnist"}, ["REJECTED_BUCKET"]),
        ({"REJECTED_BUCKET": "digit-3"}, ["REJECTED_BUCKET"]),
        ({"REJECTED_BUCKET": "x"}, ["REJECTED_BUCKET"]),
        ({"REVIEW_BELOW": "1.1"}, ["REVIEW_BELOW"]),
        ({"REVIEW_BELOW": "-0.1"}, ["REVIEW_BELOW"]),
        ({"REVIEW_BELOW": "nan"}, ["REVIEW_BELOW"]),
        ({"REVIEW_BELOW": "90%"}, ["REVIEW_BELOW"]),
        ({"REVIEW_BUCKET": "x"}, ["REVIEW_BUCKET"]),
        ({"REVIEW_BELOW": "0.9", "REVIEW_BUCKET": "mnist"}, ["REVIEW_BUCKET"]),
        ({"REVIEW_BELOW": "0.9", "REVIEW_BUCKET": "digit-3"}, ["REVIEW_BUCKET"]),
        ({"REVIEW_BELOW": "0.9", "REVIEW_BUCKET": "mnist-rejected"}, ["REVIEW_BUCKET"]),
        ({"REVIEW_BELOW": "0.9", "SOURCE_BUCKETS": "mnist,mnist-review"}, ["REVIEW_BUCKET"]),
        ({"REQUEST_TRACE_KEY": "trace id"}, ["REQUEST_TRACE_KEY"]),
        ({"REQUEST_TRACE_KEY": "id"}, ["REQUEST_TRACE_KEY"]),
        ({"EVENT_MODE": "batch"}, ["EVENT_MODE"]),
        ({"PREDICTOR_FORMAT": "onnx"}, ["PREDICTOR_FORMAT"]),
        ({"PREDICTOR_FORMAT": "openinference"}, ["PREDICTOR_FORMAT"]),
        ({"MAX_BODY_BYTES": "16MiB"}, ["MAX_BODY_BYTES"]),
        ({"MAX_OBJECT_BYTES": "0"}, ["MAX_OBJECT_BYTES"]),
        ({"MAX_IMAGE_PIXELS": "-1"}, ["MAX_IMAGE_PIXELS"]),
        ({"EVENT_TIMEOUT_SECONDS": "nan"}, ["EVENT_TIMEOUT_SECONDS"]),
        ({"EVENT_TIMEOUT_SECONDS": "soon"}, ["EVENT_TIMEOUT_SECONDS"]),
        ({"MAX_IN_FLIGHT": "0"}, ["MAX_IN_FLIGHT"]),
        ({"KAFKA_BOOTSTRAP_SERVERS": "http://k:9092"}, ["KAFKA_BOOTSTRAP_SERVERS"]),
        ({"KAFKA_BOOTSTRAP_SERVERS": "k:port"}, ["KAFKA_BOOTSTRAP_SERVERS"]),
        ({**KAFKA, "KAFKA_TOPIC": "a b"}, ["KAFKA_TOPIC"]),
        ({**KAFKA, "KAFKA_CLIENT": "librdkafka"}, ["KAFKA_CLIENT"]),
        ({**KAFKA, "KAFKA_API_VERSION": "new"}, ["KAFKA_API_VERSION"]),
        ({**KAFKA, "KAFKA_SECURITY_PROTOCOL": "TLS"}, ["KAFKA_SECURITY_PROTOCOL"]),
        (
            {**KAFKA, "KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
            ["KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"],
        ),
        ({**KAFKA, "KAFKA_SASL_USERNAME": "u"}, ["KAFKA_SASL_USERNAME"]),
        ({**TOKEN, "KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, [f"{OAUTH}TOKEN_FILE"]),
        ({**TOKEN, f"{OAUTH}TOKEN_FILE": "/nowhere"}, [f"{OAUTH}TOKEN_FILE"]),
        ({**TOKEN, f"{OAUTH}TOKEN_FILE": "/dev/null"}, [f"{OAUTH}TOKEN_FILE"]),
        (
            {**TOKEN, f"{OAUTH}TOKEN_FILE": __file__, f"{OAUTH}TOKEN_ENDPOINT_URL": "http://issuer"},
            [f"{OAUTH}TOKEN_FILE", f"{OAUTH}CLIENT_ID", f"{OAUTH}CLIENT_SECRET"],
        ),
        ({**TOKEN, f"{OAUTH}TOKEN_ENDPOINT_URL": "issuer:80"}, [f"{OAUTH}TOKEN_ENDPOINT_URL", *CLIENT]),
        ({**TOKEN, f"{OAUTH}TOKEN_ENDPOINT_URL": "http://u@issuer/"}, [f"{OAUTH}TOKEN_ENDPOINT_URL", *CLIENT]),
        ({**TOKEN, f"{OAUTH}TOKEN_ENDPOINT_URL": "http://[issuer"}, [f"{OAUTH}TOKEN_ENDPOINT_URL", *CLIENT]),
        ({**TOKEN, f"{OAUTH}TOKEN_ENDPOINT_URL": "https://issuer/token"}, CLIENT),
        (
            {**TOKEN, f"{OAUTH}TOKEN_ENDPOINT_URL": "https://issuer", f"{OAUTH}CLIENT_SECRET_FILE": "/nowhere"},
            [f"{OAUTH}CLIENT_SECRET_FILE", f"{OAUTH}CLIENT_ID"],
        ),
        (
            {**TOKEN, f"{OAUTH}TOKEN_FILE": __file__, f"{OAUTH}CLIENT_ID": "c", f"{OAUTH}SCOPE": "s"},
            [f"{OAUTH}CLIENT_ID", f"{OAUTH}SCOPE"],
        ),
        (
            {**TOKEN, f"{OAUTH}TOKEN_FILE": __file__, "KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD": "p"},
            ["KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"],
        ),
        (
            {**KAFKA, f"{OAUTH}TOKEN_FILE": __file__, f"{OAUTH}CLIENT_SECRET": "s"},
            [f"{OAUTH}TOKEN_FILE", f"{OAUTH}CLIENT_SECRET"],
        ),
        (
            {**TOKEN, "KAFKA_SASL_MECHANISM": "PLAIN", f"{OAUTH}TOKEN_FILE": __file__},
            ["KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD", f"{OAUTH}TOKEN_FILE"],
        ),
        ({**TOKEN, "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM", "KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, ["AWS_REGION"]),
        (
            {**TOKEN, "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM", "AWS_REGION": "r", f"{OAUTH}SCOPE": "s"},
            ["KAFKA_SECURITY_PROTOCOL", f"{OAUTH}SCOPE"],
        ),
        ({**KAFKA, "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM"}, ["KAFKA_SASL_MECHANISM"]),
        ({**KAFKA, "KAFKA_SSL_KEYFILE": "/nowhere"}, ["KAFKA_SSL_KEYFILE"]),
        ({**KAFKA, "KAFKA_SSL_CERTFILE": "/nowhere"}, ["KAFKA_SSL_CERTFILE"]),
        ({**KAFKA, "KAFKA_SSL_CAFILE": "/nowhere"}, ["KAFKA_SSL_CAFILE"]),
        (
            {"MAX_IN_FLIGHT": "0", "EVENT_MODE": "x", "REJECTED_BUCKET": "!"},
            ["REJECTED_BUCKET", "EVENT_MODE", "MAX_IN_FLIGHT"],
        ),
    ],
)
def test_row_34_every_problem_is_one_line_that_begins_with_its_variable(
    environ: dict[str, str], names: list[str]
) -> None:
    problems = problems_of(environ)
    assert [problem.split()[0] for problem in problems] == names
    assert all("\n" not in problem and len(problem.split()) > 2 for problem in problems)


def test_kafkas_tokens_come_from_a_file_an_endpoint_or_are_signed_for_amazon(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    from_file = {**TOKEN, f"{OAUTH}TOKEN_FILE": str(file)}
    endpoint = {f"{OAUTH}TOKEN_ENDPOINT_URL": "https://issuer/token?realm=a", f"{OAUTH}CLIENT_ID": "c"}
    from_endpoint = {**TOKEN, **endpoint, f"{OAUTH}CLIENT_SECRET_FILE": str(file), f"{OAUTH}SCOPE": "s"}
    for_amazon = {**KAFKA, "KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM"}
    expected = (
        (from_file, KafkaTokenFile(path=str(file))),
        (
            from_endpoint,
            KafkaTokenEndpoint(
                url="https://issuer/token?realm=a",
                client_id="c",
                client_secret="s3cret",
                client_secret_file=str(file),
                scope="s",
            ),
        ),
        ({**for_amazon, "AWS_DEFAULT_REGION": "eu-west-1"}, MskToken(region="eu-west-1")),
        ({**for_amazon, "AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "x"}, MskToken(region="eu-west-2")),
    )
    for environ, token in expected:
        kafka = read(environ).kafka
        assert kafka is not None
        assert kafka.token == token
        assert kafka.client_options()["sasl_mechanism"] == "OAUTHBEARER"
        assert "s3cret" not in repr(kafka)
        assert pickle.loads(pickle.dumps(kafka)) == kafka


def test_what_is_wrong_with_a_token_endpoint_is_told_without_its_text() -> None:
    for url in (
        "https://u:hidden@issuer",
        "https://issuer/#hidden",
        "ftp://hidden",
        "https://hid den",
        "https://[hidden",
    ):
        assert "hid" not in "".join(problems_of({**TOKEN, f"{OAUTH}TOKEN_ENDPOINT_URL": url}))


def test_row_34_a_secret_may_come_from_a_file_and_never_prints(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from-a-file\n")
    environ = {"MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY_FILE": str(file), **KAFKA}
    environ |= {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "PLAIN"}
    (user := tmp_path / "user").write_text("u\n")
    environ |= {"KAFKA_SASL_USERNAME_FILE": str(user), "KAFKA_SASL_PASSWORD_FILE": str(file)}
    settings = read(environ)
    assert settings.minio is not None
    assert settings.kafka is not None
    assert settings.minio.secret_key == settings.kafka.sasl_password == "from-a-file"
    assert settings.kafka.sasl_username == "u"
    assert (settings.kafka.sasl_username_file, settings.kafka.sasl_password_file) == (str(user), str(file))
    assert "from-a-file" not in repr(settings)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"AWS_ROLE_ARN": "arn"}, "AWS_WEB_IDENTITY_TOKEN_FILE is not set, but AWS_ROLE_ARN is"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/not/there"}, "AWS_WEB_IDENTITY_TOKEN_FILE names a file that cannot be read"),
        (
            {"AWS_WEB_IDENTITY_TOKEN_FILE": __file__, "MINIO_ENDPOINT": "https://s3.eu-west-1.amazonaws.com"},
            "AWS_ROLE_ARN is not set, but AWS_WEB_IDENTITY_TOKEN_FILE is",
        ),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": __file__, "AWS_ENDPOINT_URL_STS": "sts:1"}, "AWS_ENDPOINT_URL_STS is 'sts:1'"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "no url"}, "AWS_EC2_METADATA_SERVICE_ENDPOINT is 'no url'"),
    ],
)
def test_a_role_without_a_key_says_what_it_lacks_and_a_pair_of_keys_comes_before_it(
    environ: dict[str, str], problem: str
) -> None:
    (found,) = problems_of(environ)
    assert found.startswith(problem)
    minio = read({**environ, **CREDENTIALS}).minio
    assert minio is not None
    assert minio.role is None


def test_a_role_for_kafka_alone_makes_no_store() -> None:
    msk = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM", "AWS_REGION": "eu-west-1"}
    environ = {**KAFKA, **msk, "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"}
    assert read(environ).minio is None
    assert read({**environ, "MINIO_ENDPOINT": "https://minio"}).minio is not None


@pytest.mark.parametrize(
    ("environ", "sts"),
    [
        ({"MINIO_ENDPOINT": "https://minio:9000"}, "https://minio:9000"),
        ({"MINIO_ENDPOINT": "https://minio:9000", "AWS_ENDPOINT_URL_STS": "https://sts.test/"}, "https://sts.test"),
        (
            {
                "MINIO_ENDPOINT": "https://s3.cn-north-1.amazonaws.com.cn",
                "AWS_ROLE_ARN": "a",
                "AWS_REGION": "cn-north-1",
            },
            "https://sts.cn-north-1.amazonaws.com.cn",
        ),
        (
            {"MINIO_ENDPOINT": "https://s3.eu-west-1.amazonaws.com", "AWS_ROLE_ARN": "a", "MINIO_REGION": "eu-west-1"},
            "https://sts.eu-west-1.amazonaws.com",
        ),
    ],
)
def test_a_web_identity_is_told_to_the_store_s_own_sts_unless_it_is_aws(environ: dict[str, str], sts: str) -> None:
    minio = read({**environ, "AWS_WEB_IDENTITY_TOKEN_FILE": __file__}).minio
    assert minio is not None
    assert minio.role is not None
    assert minio.role.endpoint == sts


@pytest.mark.parametrize(
    ("environ", "problem", "secured"),
    [
        (
            {**KAFKA, "KAFKA_SSL_CAFILE": certifi.where()},
            "KAFKA_SSL_CAFILE is set, but KAFKA_SECURITY_PROTOCOL is PLAINTEXT",
            {"KAFKA_SECURITY_PROTOCOL": "SSL"},
        ),
        (
            {"MINIO_CA_CERT": certifi.where()},
            "MINIO_CA_CERT is set, but MINIO_ENDPOINT is without TLS",
            {"S3_USE_HTTPS": "1"},
        ),
        (
            {**CREDENTIALS, "MINIO_CA_CERT": certifi.where(), "S3_USE_HTTPS": "1", "MINIO_ENDPOINT": "http://m"},
            "MINIO_CA_CERT is set, but MINIO_ENDPOINT is without TLS",
            {"MINIO_ENDPOINT": "https://m"},
        ),
        (
            {**CREDENTIALS, "MINIO_CA_CERT": certifi.where(), "S3_ENDPOINT": "s:1", "AWS_ENDPOINT_URL": "https://a"},
            "MINIO_CA_CERT is set, but S3_ENDPOINT is without TLS",
            {"S3_ENDPOINT": ""},
        ),
    ],
)
def test_a_certificate_that_nothing_would_use_is_a_problem(
    environ: dict[str, str], problem: str, secured: dict[str, str]
) -> None:
    assert problems_of(environ) == [problem]
    read({**environ, **secured})


@pytest.mark.parametrize(("name", "wrong"), [("MINIO_ENDPOINT", "ftp://m"), ("S3_USE_HTTPS", "maybe")])
def test_a_certificate_is_no_problem_of_its_own_where_the_endpoint_is_not_understood(name: str, wrong: str) -> None:
    (problem,) = problems_of({"MINIO_CA_CERT": certifi.where(), name: wrong})
    assert problem.startswith(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_BROKERS", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_HOST", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_URL", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_TOPICS", "KAFKA_TOPIC"),
        ("KAFKA_SASL_PLAIN_PASSWORD", "KAFKA_SASL_PASSWORD"),
        ("KAFKA_SSL_CAFILE_FILE", "KAFKA_SSL_CAFILE"),
        ("KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT", f"{OAUTH}TOKEN_ENDPOINT_URL"),
        ("KAFKA_OAUTH_CLIENT_ID", f"{OAUTH}CLIENT_ID"),
        ("KAFKA_SSL_CA_LOCATION", "KAFKA_SSL_CAFILE"),
        ("KAKFA_TOPIC", "KAFKA_TOPIC"),
        ("kafka_topic", "KAFKA_TOPIC"),
        ("kafka.bootstrap-servers", "KAFKA_BOOTSTRAP_SERVERS"),
        ("MINIO_ENDPIONT", "MINIO_ENDPOINT"),
        ("MINIO_ENDPOINTS", "MINIO_ENDPOINT"),
        ("MINIO_SERVER", "MINIO_ENDPOINT"),
        ("MINIO_ACCES_KEY", "MINIO_ACCESS_KEY"),
        ("MINIO_CA_CERT_FILE", "MINIO_CA_CERT"),
        ("MINIO_PASSWORD", "MINIO_SECRET_KEY"),
        ("MINIO_SECURE", "S3_USE_HTTPS"),
        ("MNIO_ENDPOINT", "MINIO_ENDPOINT"),
        ("S3_ENDPONIT", "S3_ENDPOINT"),
        ("SOURCE_BUCKET", "SOURCE_BUCKETS"),
        ("SOURCE_SUFFIX", "SOURCE_SUFFIXES"),
        ("DESTINATON", "DESTINATION"),
        ("REJECT_BUCKET", "REJECTED_BUCKET"),
        ("REQUEST_TRACEKEY", "REQUEST_TRACE_KEY"),
        ("EVENT_TYPES", "EVENT_TYPE"),
        ("EVENT_TIMEOUT_SECS", "EVENT_TIMEOUT_SECONDS"),
        ("MAX_IN_FLIHGT", "MAX_IN_FLIGHT"),
        ("PREDICTOR_FORMATS", "PREDICTOR_FORMAT"),
        ("POD_NAMESPCE", "POD_NAMESPACE"),
        ("INFERENCE_SERVICENAME", "INFERENCE_SERVICE_NAME"),
    ],
)
def test_a_setting_that_nobody_reads_is_told_with_the_nearest_and_without_its_value(name: str, meant: str) -> None:
    assert told({name: "s3cret", **CREDENTIALS, **KAFKA}) == [f"{name} is no setting: is {meant} meant?"]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param("PATH HOME LANG PORT K_SERVICE PYTHONPATH http_proxy AAAA_AAAA", id="anybody's"),
        pytest.param(
            "KAFKA_SERVICE_HOST KAFKA_SERVICE_PORT KAFKA_SERVICE_PORT_TCP_CLIENTS KAFKA_PORT KAFKA_PORT_9092_TCP "
            "KAFKA_PORT_9092_TCP_ADDR KAFKA_PORT_9092_TCP_PORT KAFKA_PORT_9092_TCP_PROTO MINIO_SERVICE_PORT "
            "MINIO_SERVICE_SERVICE_HOST MINIO_SERVICE_SERVICE_PORT_HTTP MINIO_SERVICE_PORT_9000_TCP MINIO_PORT_53_UDP "
            "KAFKA_TOPIC_SERVICE_HOST SOURCE_BUCKET_PORT",
            id="Services",
        ),
        pytest.param(
            "MINIO_ROOT_USER MINIO_ROOT_PASSWORD MINIO_ROOT_USER_FILE MINIO_NOTIFY_KAFKA_ENABLE_PRIMARY MINIO_BROWSER "
            "MINIO_NOTIFY_KAFKA_BROKERS_PRIMARY MINIO_BROWSER_REDIRECT_URL MINIO_SITE_REGION MINIO_SERVER_URL "
            "MINIO_PROMETHEUS_AUTH_TYPE MINIO_VOLUMES MINIO_OPTS MINIO_STORAGE_CLASS_STANDARD MINIO_KMS_SECRET_KEY",
            id="MinIO's",
        ),
        pytest.param(
            "KAFKA_HEAP_OPTS KAFKA_OPTS KAFKA_JVM_PERFORMANCE_OPTS KAFKA_LOG4J_OPTS KAFKA_LOG4J_LOGGERS KAFKA_HOME "
            "KAFKA_CFG_LISTENERS KAFKA_NODE_ID KAFKA_PROCESS_ROLES KAFKA_LISTENERS KAFKA_ADVERTISED_LISTENERS "
            "KAFKA_LOG_DIRS KAFKA_BROKER_ID KAFKA_LISTENER_SECURITY_PROTOCOL_MAP KAFKA_CONTROLLER_QUORUM_VOTERS "
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR KAFKA_AUTO_CREATE_TOPICS_ENABLE KAFKA_JMX_PORT",
            id="Kafka's",
        ),
        pytest.param(
            "REVIEW_BELOW REVIEW_BUCKET AWS_SESSION_TOKEN AWS_ROLE_ARN AWS_WEB_IDENTITY_TOKEN_FILE AWS_REGION "
            "AWS_ENDPOINT_URL_S3",
            id="the contract's",
        ),
        pytest.param(
            "POD_NAME POD_IP MY_POD_NAMESPACE MAX_WORKERS MAX_REQUESTS EVENT_ID EVENT_NAME EVENT_SOURCE_URL "
            "SOURCE_DATE_EPOCH SOURCE_COMMIT REQUEST_METHOD REQUEST_ID S3_VERIFY_SSL S3_USE_VIRTUAL_BUCKET S3_REGION "
            "PREDICTOR_HOST INFERENCE_TIMEOUT DESTINATION_HOST",
            id="near ours",
        ),
    ],
)
def test_what_is_set_for_others_is_not_told(names: str) -> None:
    assert told(dict.fromkeys(names.split(), "x")) == []


@pytest.mark.parametrize("given", [{}, CREDENTIALS, {"MINIO_ACCESS_KEY_FILE": "/x", "KAFKA_SASL_PASSWORD_FILE": "/x"}])
def test_no_setting_that_is_read_is_told_whatever_else_is_set(given: dict[str, str]) -> None:
    environ = Recording(**KAFKA)
    read(environ)
    assert told({**dict.fromkeys(environ.asked, ""), **given}) == []


def test_the_names_that_are_told_come_in_order() -> None:
    sentences = told({"MINIO_ENDPIONT": "", "KAFKA_TOPIK": ""})
    assert [sentence.split()[0] for sentence in sentences] == ["KAFKA_TOPIK", "MINIO_ENDPIONT"]


def test_an_empty_file_variable_counts_as_unset() -> None:
    environ = {"MINIO_ACCESS_KEY_FILE": "", "MINIO_SECRET_KEY_FILE": "", "AWS_ACCESS_KEY_ID": "a"}
    minio = read({**environ, "AWS_SECRET_ACCESS_KEY": "b"}).minio
    assert minio is not None
    assert minio.access_key == "a"


def test_row_34_no_problem_shows_a_secret() -> None:
    environ = {"MINIO_SECRET_KEY": "s3cret", "KAFKA_SASL_PASSWORD": "s3cret", "MINIO_ENDPOINT": "http://u:s3cret@host"}
    problems = problems_of(environ)
    assert problems
    assert "s3cret" not in "\n".join(problems)


@pytest.mark.parametrize(
    ("protocol", "default", "also", "never"),
    [
        ("v1", "tensorflow", "torchserve", "openinference"),
        ("v2", "openinference", "openinference", "tensorflow"),
        ("grpc-v2", "openinference", "openinference", "torchserve"),
    ],
)
def test_the_predictor_s_format_goes_with_its_protocol(protocol: str, default: str, also: str, never: str) -> None:
    assert read({}, predictor_protocol=protocol).predictor_format == default
    settings = read({"PREDICTOR_FORMAT": also}, predictor_protocol=protocol)
    assert settings.predictor_format == also
    assert problems_of({"PREDICTOR_FORMAT": never}, protocol)[0].startswith("PREDICTOR_FORMAT ")


def test_the_event_source_names_the_model_unless_it_is_set() -> None:
    assert read({}, model_name="m").event_source == "mnist-pipeline/m"
    assert read({"EVENT_SOURCE": "mine"}, model_name="m").event_source == "mine"


@pytest.mark.parametrize("name", ["EVENT_TYPE", "EVENT_SOURCE", "INFERENCE_SERVICE_NAME", "POD_NAMESPACE"])
@pytest.mark.parametrize("value", ["a\nb", "a\x7f", "\udcff"])
def test_what_becomes_an_attribute_of_every_result_can_be_one(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} "):
        read({name: value})


def test_a_destination_is_a_bucket_or_a_bucket_and_a_prefix() -> None:
    assert digits_settings().destination_of(Prediction(7)) == Destination("digit-7")
    settings = digits_settings(destination="digits/digit-{digit}")
    assert settings.destination_of(Prediction(7)) == Destination("digits", "digit-7/")


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits_settings().trace_key = "x"  # type: ignore[misc]


@pytest.mark.parametrize("endpoint", ["https://user:hidden@h\u2100st:9000", "https://user:hidden@[", "http://[hidden"])
def test_an_endpoint_that_is_no_url_at_all_is_not_repeated(endpoint: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read({"MINIO_ENDPOINT": endpoint})
    (problem,) = raised.value.problems
    assert problem.startswith("MINIO_ENDPOINT ")
    assert "hidden" not in problem


def test_a_password_behind_a_bad_bootstrap_server_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as raised:
        read({"KAFKA_BOOTSTRAP_SERVERS": "https://kafka:9092,user:hidden@other:9092"})
    (problem,) = raised.value.problems
    assert problem.startswith("KAFKA_BOOTSTRAP_SERVERS has 'https://kafka:9092'")
    assert "hidden" not in problem


# Other tasks


class Photos(Task):
    """Photographs of two things."""

    name, suffixes, labels = "photos", (".jpg", ".jpeg"), ("cat", "dog")
    input = Tensor((3, 64, 64), pixels=True)

    def decode(self, data: bytes) -> Any:
        raise Reject("never", repr(data))


class Sorted(Photos):
    """They are filed where the task itself says."""

    def destination(self, prediction: Prediction) -> Destination:
        return Destination("animals", f"{prediction.label}s")


def kind(base: type[Task] = Photos, **parts: Any) -> Task:
    """Photos, or another task, with other parts."""
    task: Task = type("Kind", (base,), parts)()
    return task


def test_the_defaults_are_the_tasks_own() -> None:
    settings = read(KAFKA, Photos())
    assert (settings.source_buckets, settings.source_suffixes) == (("photos",), (".jpg", ".jpeg"))
    assert settings.destinations == (Destination("photos-cat"), Destination("photos-dog"))
    assert (settings.rejected_bucket, settings.review_bucket) == ("photos-rejected", "photos-review")
    assert settings.event_type == "io.kserve.photos.prediction"
    assert settings.rejected_type == "io.kserve.photos.prediction.rejected"
    assert (settings.event_source, settings.max_image_pixels) == ("mnist-pipeline/photos", 16_000_000)
    assert settings.kafka is not None
    assert settings.kafka.topic == "photos-predictions"
    task = kind(buckets=("inbox", "other-inbox"), filed_in="{name}/is-{label}", max_image_pixels=9)
    settings = read({}, task)
    assert (settings.source_buckets, task.max_image_pixels) == (("inbox", "other-inbox"), 9)
    assert settings.destinations == (Destination("photos", "is-cat/"), Destination("photos", "is-dog/"))
    assert read({"SOURCE_BUCKETS": "mine", "MAX_IMAGE_PIXELS": "5"}, task).source_buckets == ("mine",)
    assert task.max_image_pixels == 5
    assert read({}, task).max_image_pixels == 9


def test_a_tasks_suffixes_mean_capitals_too_unless_it_says_otherwise() -> None:
    settings = read({"SOURCE_SUFFIXES": ".Jpg,.gif"}, Photos())
    assert all(map(settings.is_wanted, ("1.jpg", "2.JPG", "3.Gif")))
    assert not settings.is_wanted("4.jpeg")
    exact = read({}, kind(any_case=False))
    assert exact.is_wanted("1.jpg")
    assert not exact.is_wanted("2.JPG")


@pytest.mark.parametrize(
    ("pattern", "filed"),
    [
        ("{label}", Destination("dog")),
        ("all/{label}s", Destination("all", "dogs/")),
        ("sorted-{label}/by/{label}", Destination("sorted-dog", "by/dog/")),
    ],
)
def test_a_destination_may_call_every_tasks_label_a_label(pattern: str, filed: Destination) -> None:
    assert read({"DESTINATION": pattern}, Photos()).destination_of(Prediction("dog")) == filed
    assert read({"DESTINATION": "digit-{label}-{digit}"}).destination_of(Prediction(7)) == Destination("digit-7-7")
    assert problems_of({"DESTINATION": "{digit}"}, task=Photos()) == [
        "DESTINATION is '{digit}': it must contain {label} and no other braces"
    ]


def test_a_label_is_filed_under_what_a_buckets_name_can_have_of_it() -> None:
    settings = read({}, kind(name="fashion", labels=("T-shirt/top", " Ankle_boot!", 3)))
    assert [one.bucket for one in settings.destinations] == ["fashion-t-shirt-top", "fashion-ankle-boot", "fashion-3"]
    assert settings.destination_of(Prediction("T-shirt/top")) == Destination("fashion-t-shirt-top")


@pytest.mark.parametrize("labels", [("C", "C++", "java"), ("\u732b", "java"), ("a/b", "java", "a-b")])
@pytest.mark.parametrize("filed_in", ["{name}-{label}", "sorted/{label}"])
def test_labels_that_would_share_a_place_are_a_problem_unless_the_task_files_them_itself(
    labels: tuple[str, ...], filed_in: str
) -> None:
    problem, *_ = problems_of({}, task=kind(labels=labels, filed_in=filed_in))
    assert problem.startswith("DESTINATION gives no places of their own to ")
    assert repr(labels[0]) in problem
    assert "java" not in problem
    read({}, kind(Sorted, labels=("C", "C++")))


def test_scores_below_review_below_are_doubtful_and_a_prediction_without_one_is_not() -> None:
    settings = read({"REVIEW_BELOW": "0.8", "REVIEW_BUCKET": "doubtful"})
    asked = [settings.is_doubtful(Prediction(7, score)) for score in (0.79, 0.8, 1.0, None)]
    assert asked == [True, False, False, False]
    assert settings.outputs[-2:] == (Destination("mnist-rejected"), Destination("doubtful"))
    assert not read({}).is_doubtful(Prediction(7, 0.0))
    assert read({"REVIEW_BELOW": "0"}).review_below == 0
    assert Destination("mnist-review") not in read({}).outputs


def test_a_task_s_review_below_holds_until_the_environment_gives_another() -> None:
    task = kind(review_below=0.5)
    assert read({}, task).review_below == Settings(task=task).review_below == 0.5
    assert read({}, task).place_of(Prediction("cat", 0.4)) == Destination("photos-review")
    assert read({}, task).place_of(Prediction("cat", 0.5)) == Destination("photos-cat")
    assert Destination("photos-review") in read({}, task).outputs
    for given in ("0", "0.9"):
        assert read({"REVIEW_BELOW": given}, task).review_below == float(given)
    assert told({"REVIEW_BUCKET": "doubtful"}, task) == []
    assert problems_of({"REVIEW_BUCKET": "photos"}, task=task) == [
        "REVIEW_BUCKET is photos, which is one of SOURCE_BUCKETS: it would loop"
    ]


def test_a_task_s_protocol_decides_on_the_format_until_a_flag_gives_another() -> None:
    task = kind(predictor_protocol="v2")
    assert Settings(task=task).predictor_format == read({}, task).predictor_format == "openinference"
    assert read({}, task, predictor_protocol="v1").predictor_format == "tensorflow"
    assert read({}, kind()).predictor_format == "tensorflow"


def test_a_review_bucket_without_a_score_is_told_and_may_be_any() -> None:
    assert told({"REVIEW_BUCKET": "mnist"}) == ["REVIEW_BUCKET is not used: REVIEW_BELOW is not set"]
    assert told({"REVIEW_BUCKET": "doubtful", "REVIEW_BELOW": "0.5"}) == []
    read({"REVIEW_BUCKET": "mnist"})


def test_a_task_files_where_its_own_destination_says_and_a_setting_that_it_overrides_is_told() -> None:
    settings = read({"DESTINATION": "{label}"}, Sorted())
    assert settings.destination_of(Prediction("cat")) == Destination("animals", "cats/")
    assert settings.destinations == (Destination("animals", "cats/"), Destination("animals", "dogs/"))
    assert told({"DESTINATION": "{label}"}, Sorted()) == [
        "DESTINATION is not used: Sorted.destination says where objects are filed"
    ]
    assert told({"DESTINATION": "{label}"}, Photos()) == told({}, Sorted()) == []


def test_a_task_may_file_some_labels_where_the_setting_says() -> None:
    class Mixed(Photos):
        def destination(self, prediction: Prediction) -> Destination | None:
            return Destination("urgent") if prediction.label == "cat" else None

    environ = {"DESTINATION": "photos/done-{label}"}
    settings = read(environ, Mixed())
    assert settings.destinations == (Destination("urgent"), Destination("photos", "done-dog/"))
    assert settings.destination_of(Prediction("dog")) in settings.outputs
    assert told(environ, Mixed()) == []


@pytest.mark.parametrize(
    ("destination", "problem"),
    [
        (lambda *_: "animals", "Kind.destination gives 'animals', which is no Destination"),
        (lambda *_: Destination("animals", "../up//x"), "Kind.destination fails: ValueError: no store has objects"),
        (lambda *_: dict[str, Destination]()["cat"], "Kind.destination fails: KeyError: 'cat'"),
    ],
)
def test_a_destination_that_cannot_work_is_told_before_anything_is_filed(destination: Any, problem: str) -> None:
    (given,) = problems_of({}, task=kind(destination=destination))
    assert given.startswith(problem)
    assert told({"DESTINATION": "{label}"}, kind(destination=destination)) in (
        [],
        ["DESTINATION is not used: Kind.destination says where objects are filed"],
    )


def test_a_destination_may_depend_on_the_score() -> None:
    def destination(_: Task, prediction: Prediction) -> Destination:
        assert prediction.score is not None
        return Destination("sure" if prediction.score > 0.5 else "unsure")

    assert read({}, kind(destination=destination)).destinations == (Destination("sure"),)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("ab", "SOURCE_BUCKETS has 'ab', which is no bucket name"),
        ("x" * 60, f"REJECTED_BUCKET has '{'x' * 60}-rejected', which is no bucket name"),
    ],
)
def test_a_bucket_that_comes_of_the_tasks_name_has_to_be_one(name: str, problem: str) -> None:
    assert problem in problems_of({}, task=kind(name=name, filed_in="sorted/{label}"))


@pytest.mark.parametrize(
    ("place", "environ", "problem"),
    [
        (Destination("photos"), {}, "Kind.destination gives the bucket photos, which is one of SOURCE_BUCKETS"),
        (Destination("X"), {}, "Kind.destination gives 'X', which is no bucket name"),
        (Destination("away"), {"REJECTED_BUCKET": "away"}, "REJECTED_BUCKET is away, which is where Kind.destination "),
    ],
)
def test_a_tasks_own_destination_is_held_to_what_is_asked_of_the_setting(
    place: Destination, environ: dict[str, str], problem: str
) -> None:
    (given,) = problems_of(environ, task=kind(destination=lambda *_: place))
    assert given.startswith(problem)


@pytest.mark.parametrize(
    ("parts", "problems"),
    [
        ({"labels": ()}, ['Kind lacks labels, as in: labels = ("cat", "dog")']),
        ({"suffixes": ".jpg"}, ["Kind.suffixes is a text, not a tuple: a comma is missing"]),
        ({"labels": "cat"}, ["Kind.labels is a text, not a tuple: a comma is missing"]),
        ({"buckets": "photos"}, ["Kind.buckets is a text, not a tuple: a comma is missing"]),
        ({"labels": (1, "1")}, ["Kind.labels has one label twice"]),
        ({"name": "My_Photos"}, ["Kind.name is 'My_Photos': lower-case letters, digits and single hyphens only"]),
        ({"review_below": 1.5}, ["Kind.review_below is 1.5, which is no number from 0 to 1"]),
        ({"review_below": "0.5"}, ["Kind.review_below is '0.5', which is no number from 0 to 1"]),
        ({"review_below": float("nan")}, ["Kind.review_below is nan, which is no number from 0 to 1"]),
        ({"predictor_protocol": "V2"}, ["Kind.predictor_protocol is 'V2', none of v1, v2, grpc-v2"]),
        ({"filed_in": "{kind}"}, ["Kind.filed_in is '{kind}': it must contain {label} and no other braces"]),
        ({"labels": {"cat", "dog"}}, ["Kind.labels is a set, not a tuple"]),
        ({"labels": {"cat": 1}}, ["Kind.labels is a dict, not a tuple"]),
        ({"labels": np.arange(3)}, ["Kind.labels is a ndarray, not a tuple"]),
        ({"labels": (one for one in "ab")}, ["Kind.labels is a generator, not a tuple"]),
        ({"labels": (True, 2)}, ["Kind.labels has one that is neither a text nor a whole number"]),
        ({"input": (4,)}, ['Kind.input is no Tensor, as in: input = Tensor((3, 64, 64), "float32")']),
        ({"suffixes": ("",)}, ["Kind.suffixes has '', which is no text"]),
        ({"suffixes": (b".x",)}, ["Kind.suffixes has b'.x', which is no text"]),
        ({"buckets": ("My_Photos",)}, ["Kind.buckets has 'My_Photos', which is no bucket name"]),
    ],
)
def test_a_task_that_cannot_work_is_told_why(parts: dict[str, Any], problems: list[str]) -> None:
    assert problems_of({"EVENT_MODE": "x", **KAFKA}, task=kind(**parts)) == problems
    with pytest.raises(SettingsError):
        Settings(task=kind(**parts))


@pytest.mark.parametrize("lacks", [{"name"}, {"suffixes"}, {"input"}, {"labels"}, {"name", "labels"}])
def test_a_task_that_lacks_something_is_told_how_to_say_it(lacks: set[str]) -> None:
    parts = {
        name: vars(Photos)[name] for name in ("name", "suffixes", "input", "labels", "decode") if name not in lacks
    }
    problems = problems_of({"DESTINATION": "{label}", **KAFKA}, task=kind(Task, **parts))
    assert {problem.split(",")[0] for problem in problems} == {f"Kind lacks {name}" for name in lacks}
    assert all(f"as in: {problem.split()[2].strip(',')} = " in problem for problem in problems)


def test_a_task_without_decode_is_shown_the_method_to_write() -> None:
    assert kind(decode=Task.decode).problems() == ["Kind lacks its method decode(self, data: bytes) -> numpy.ndarray"]


def test_torchserve_is_for_pictures() -> None:
    torchserve = {"PREDICTOR_FORMAT": "torchserve"}
    assert read(torchserve, Photos()).predictor_format == "torchserve"
    for shape, pixels in (((3, 64, 64), False), ((784,), True), ((4, 28, 28), True)):
        (problem,) = problems_of(torchserve, task=kind(input=Tensor(shape, pixels=pixels)))
        assert problem == "PREDICTOR_FORMAT is torchserve, which sends pictures, and the input of photos is none"


def test_kafkas_client_is_one_of_two() -> None:
    for environ, client in ((KAFKA, "kafka-python"), ({**KAFKA, "KAFKA_CLIENT": "confluent"}, "confluent")):
        kafka = read(environ).kafka
        assert kafka is not None
        assert kafka.client == client


class Configured(Photos):
    """It notes which settings it was given."""

    def __init__(self) -> None:
        self.pixels: list[int] = []

    def configure(self, settings: Settings) -> None:
        self.pixels.append(settings.max_image_pixels)


def test_a_task_is_configured_once_a_process_and_not_for_the_names_of_settings() -> None:
    task = Configured()
    assert told({"KAFKA_TOPIK": "x"}, task)
    assert task.pixels == []
    settings = read({"MAX_IMAGE_PIXELS": "5"}, task)
    assert task.pixels == [5]
    assert pickle.loads(pickle.dumps(settings)).task.pixels == [5, 5]


@pytest.mark.parametrize(
    ("datatype", "values", "why"),
    [
        ("int16", [float("nan"), 1], "not finite"),
        ("int16", [70000, 1], "no int16"),
        ("int16", [0.7, 0.9], "no int16"),
        ("uint8", [float("inf"), 1], "not finite"),
        ("uint8", [-1, 1], "no uint8"),
        ("float32", [1e300, 1], "not finite"),
    ],
)
def test_a_tensor_is_not_made_of_other_numbers_than_those_given(datatype: str, values: list[float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Tensor((2,), datatype).of(values)
    assert Tensor((2,), datatype).of([1.0, 2]).tolist() == [1, 2]


@pytest.mark.parametrize("shape", [(12,), (1, 12), (3, 2, 2), (1, 3, 2, 2), (3, 2, 2, 1)])
def test_a_tensor_may_come_flat_or_in_more_brackets(shape: tuple[int, ...]) -> None:
    assert Tensor((3, 2, 2)).of(np.arange(12).reshape(shape)).ravel().tolist() == list(range(12))


@pytest.mark.parametrize("shape", [(2, 2, 3), (2, 3, 2), (3, 4), (12, 2)])
def test_a_tensor_of_other_axes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the shape"):
        Tensor((3, 2, 2)).of(np.zeros(shape))


@pytest.mark.parametrize(
    ("given", "reason"), [("bad_sound", "badsound"), ("Bad" * 9, "bad" * 6 + "ba"), ("-", "rejected")]
)
def test_a_reason_is_made_one_word(given: str, reason: str) -> None:
    assert Reject(given, "why").reason == reason
