"""settings.py: the environment as one frozen value, all problems at once, no secret shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import certifi
import pytest

from mnist_pipeline.pipeline.settings import Settings, SettingsError, unknown_settings
from recording import Recording

CREDENTIALS = {"MINIO_ACCESS_KEY": "minio", "MINIO_SECRET_KEY": "minio-s3cret"}
KAFKA = {"KAFKA_BOOTSTRAP_SERVERS": "kafka.database.svc.cluster.local"}


def problems_of(environ: dict[str, str], protocol: str = "v1") -> list[str]:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ(environ, predictor_protocol=protocol)
    return list(raised.value.problems)


def test_an_empty_environment_has_neither_store_nor_kafka_and_the_defaults() -> None:
    assert Settings.from_environ({}) == Settings()


def test_the_seeds_environments_work_as_they_are() -> None:
    first = Settings.from_environ(
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
    second = Settings.from_environ({**KAFKA, "KAFKA_TOPIC": "test-topic", "REQUEST_TRACE_KEY": "test-trace-id"})
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
    minio = Settings.from_environ({**CREDENTIALS, **environ}).minio
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
        ({"DESTINATION": "digits//{digit}"}, ["DESTINATION"]),
        ({"DESTINATION": "digits/../{digit}"}, ["DESTINATION"]),
        ({"DESTINATION": "digit-{digit}", "SOURCE_BUCKETS": "mnist,digit-3"}, ["DESTINATION"]),
        ({"REJECTED_BUCKET": "mnist"}, ["REJECTED_BUCKET"]),
        ({"REJECTED_BUCKET": "digit-3"}, ["REJECTED_BUCKET"]),
        ({"REJECTED_BUCKET": "x"}, ["REJECTED_BUCKET"]),
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
        ({**KAFKA, "KAFKA_API_VERSION": "new"}, ["KAFKA_API_VERSION"]),
        ({**KAFKA, "KAFKA_SECURITY_PROTOCOL": "TLS"}, ["KAFKA_SECURITY_PROTOCOL"]),
        (
            {**KAFKA, "KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
            ["KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"],
        ),
        ({**KAFKA, "KAFKA_SASL_USERNAME": "u"}, ["KAFKA_SASL_USERNAME"]),
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


def test_row_34_a_secret_may_come_from_a_file_and_never_prints(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from-a-file\n")
    environ = {"MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY_FILE": str(file), **KAFKA}
    environ |= {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "PLAIN"}
    environ |= {"KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD_FILE": str(file)}
    settings = Settings.from_environ(environ)
    assert settings.minio is not None
    assert settings.kafka is not None
    assert settings.minio.secret_key == settings.kafka.sasl_password == "from-a-file"
    assert "from-a-file" not in repr(settings)


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
    Settings.from_environ({**environ, **secured})


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
        ("KAFKA_SASL_USERNAME_FILE", "KAFKA_SASL_USERNAME"),
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
    assert unknown_settings({name: "s3cret", **CREDENTIALS, **KAFKA}) == [f"{name} is no setting: is {meant} meant?"]


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
    assert unknown_settings(dict.fromkeys(names.split(), "x")) == []


@pytest.mark.parametrize("given", [{}, CREDENTIALS, {"MINIO_ACCESS_KEY_FILE": "/x", "KAFKA_SASL_PASSWORD_FILE": "/x"}])
def test_no_setting_that_is_read_is_told_whatever_else_is_set(given: dict[str, str]) -> None:
    environ = Recording(**KAFKA)
    Settings.from_environ(environ)
    assert unknown_settings({**dict.fromkeys(environ.asked, ""), **given}) == []


def test_the_names_that_are_told_come_in_order() -> None:
    told = unknown_settings({"MINIO_ENDPIONT": "", "KAFKA_TOPIK": ""})
    assert [sentence.split()[0] for sentence in told] == ["KAFKA_TOPIK", "MINIO_ENDPIONT"]


def test_an_empty_file_variable_counts_as_unset() -> None:
    environ = {"MINIO_ACCESS_KEY_FILE": "", "MINIO_SECRET_KEY_FILE": "", "AWS_ACCESS_KEY_ID": "a"}
    minio = Settings.from_environ({**environ, "AWS_SECRET_ACCESS_KEY": "b"}).minio
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
    assert Settings.from_environ({}, predictor_protocol=protocol).predictor_format == default
    settings = Settings.from_environ({"PREDICTOR_FORMAT": also}, predictor_protocol=protocol)
    assert settings.predictor_format == also
    assert problems_of({"PREDICTOR_FORMAT": never}, protocol)[0].startswith("PREDICTOR_FORMAT ")


def test_the_event_source_names_the_model_unless_it_is_set() -> None:
    assert Settings.from_environ({}, model_name="m").event_source == "mnist-pipeline/m"
    assert Settings.from_environ({"EVENT_SOURCE": "mine"}, model_name="m").event_source == "mine"


@pytest.mark.parametrize("name", ["EVENT_TYPE", "EVENT_SOURCE", "INFERENCE_SERVICE_NAME", "POD_NAMESPACE"])
@pytest.mark.parametrize("value", ["a\nb", "a\x7f", "\udcff"])
def test_what_becomes_an_attribute_of_every_result_can_be_one(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} "):
        Settings.from_environ({name: value})


def test_a_destination_is_a_bucket_or_a_bucket_and_a_prefix() -> None:
    assert Settings().destination_of(7) == ("digit-7", "")
    assert Settings(destination="digits/digit-{digit}").destination_of(7) == ("digits", "digit-7/")


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().trace_key = "x"  # type: ignore[misc]


@pytest.mark.parametrize("endpoint", ["https://user:hidden@h\u2100st:9000", "https://user:hidden@[", "http://[hidden"])
def test_an_endpoint_that_is_no_url_at_all_is_not_repeated(endpoint: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ({"MINIO_ENDPOINT": endpoint})
    (problem,) = raised.value.problems
    assert problem.startswith("MINIO_ENDPOINT ")
    assert "hidden" not in problem


def test_a_password_behind_a_bad_bootstrap_server_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ({"KAFKA_BOOTSTRAP_SERVERS": "https://kafka:9092,user:hidden@other:9092"})
    (problem,) = raised.value.problems
    assert problem.startswith("KAFKA_BOOTSTRAP_SERVERS has 'https://kafka:9092'")
    assert "hidden" not in problem
