"""The environment, read once into one frozen value; every problem is reported at once, by its variable's name."""

from __future__ import annotations

import re
import ssl
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from mnist_pipeline.pipeline.predictor_formats import FORMATS

DIGITS = range(10)

# S3: 3 to 63 lower-case letters, digits, dots and hyphens, beginning and ending with a letter or a digit.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_TRACE_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# Names that events, payloads and HTTP have already, as they are compared: letters and digits, lower-case.
_RESERVED = {
    *("specversion", "id", "source", "type", "time", "subject", "data", "datacontenttype", "dataschema"),
    *("requesthost", "kserveisvcname", "kserveisvcnamespace", "records", "instances", "parameters", "inputs"),
    *("accept", "authorization", "connection", "contentlength", "contenttype", "cookie", "date", "host", "prefer"),
    *("traceparent", "tracestate", "transferencoding", "useragent"),
}
_SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

# Of these families whatever nobody reads is a mistake; of other names what is nearly one of ours.
_FAMILIES = ("KAFKA_", "MINIO_")
# What ours are called elsewhere, which no likeness of letters would find.
_ELSEWHERE = {
    "KAFKA_CA_CERT": "KAFKA_SSL_CAFILE",
    "KAFKA_URL": "KAFKA_BOOTSTRAP_SERVERS",
    "MINIO_BUCKET": "SOURCE_BUCKETS",
    "MINIO_PASSWORD": "MINIO_SECRET_KEY",
    "MINIO_SECURE": "S3_USE_HTTPS",
    "MINIO_SERVER": "MINIO_ENDPOINT",
    "MINIO_URL": "MINIO_ENDPOINT",
    "MINIO_USER": "MINIO_ACCESS_KEY",
    "MINIO_USE_SSL": "S3_USE_HTTPS",
}
# So alike are names that differ by a letter or a word's ending. POD_NAME and POD_NAMESPACE are not.
_ALIKE = 0.84
# No mistakes, though they look like it: what is set for others in the same environment.
_OF_OTHERS = re.compile(
    # Kubernetes tells every pod of each Service in its namespace: a Service `kafka` gives KAFKA_PORT=tcp://10.0.0.1:9092.
    r".*_SERVICE_(HOST|PORT(_.+)?)|.*_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?"
    # Credentials and regions of AWS are read by many, and by minio-py itself.
    r"|AWS_.*"
    # What the server reads (minio/minio, internal/config).
    r"|MINIO_(ROOT|NOTIFY|BROWSER|SITE|SERVER_URL|OPTS|VOLUMES|ADDRESS|CONSOLE|DOMAIN|PROMETHEUS|KMS|IDENTITY|POLICY"
    r"|STORAGE_CLASS|COMPRESSION|API|AUDIT|LOGGER|CACHE|HEAL|SCANNER|ETCD|ILM|BATCH|DRIVE|LAMBDA|SUBNET|CALLHOME|UPDATE"
    r"|CONFIG_ENV_FILE|LICENSE)(_.*)?"
    # What the server's scripts read, and its settings as images take them (apache/kafka, Bitnami's, Confluent's).
    r"|KAFKA_(.*_OPTS|OPTS|DEBUG|HOME|LOG4J.*|((CFG|JMX|NODE|BROKER_ID|BROKER_RACK|PROCESS_ROLES|LISTENERS?"
    r"|ADVERTISED|CONTROLLER|INTER_BROKER|OFFSETS|TRANSACTION|AUTO_CREATE|DELETE_TOPIC|LOG|NUM|DEFAULT_REPLICATION|MIN_INSYNC"
    r"|GROUP_INITIAL|CLUSTER|KRAFT|ZOOKEEPER|CONFLUENT)(_.*)?))"
)

CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""The variables that may name whom to trust for TLS to the predictor; KServe's controller sets the first."""

_Value = TypeVar("_Value")


class SettingsError(ValueError):
    """Settings that cannot work; `problems` has one line each, beginning with the variable's name."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, kw_only=True)
class Minio:
    """Where the object store is, and who we are there."""

    endpoint: str
    secure: bool
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    ca_cert: str | None = None


@dataclass(frozen=True, kw_only=True)
class Kafka:
    """Where the results go; None is kafka-python's own default."""

    bootstrap_servers: str
    topic: str = "mnist-predictions"
    security_protocol: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    api_version: tuple[int, ...] | None = None

    def client_options(self) -> dict[str, Any]:
        """What every client of kafka-python is told, by its own names for it; what is not set is left out."""
        options = {
            "bootstrap_servers": [server.strip() for server in self.bootstrap_servers.split(",")],
            "security_protocol": self.security_protocol,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "ssl_cafile": self.ssl_cafile,
            "ssl_certfile": self.ssl_certfile,
            "ssl_keyfile": self.ssl_keyfile,
            "api_version": self.api_version,
        }
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that the environment decides. `Settings()` has the defaults, without a store and without Kafka.

    `minio` is None: no store, inline requests only. `kafka` is None: nothing is published.
    """

    minio: Minio | None = None
    kafka: Kafka | None = None
    source_buckets: tuple[str, ...] = ("mnist",)
    source_suffixes: tuple[str, ...] = (".png",)
    destination: str = "digit-{digit}"
    rejected_bucket: str = "mnist-rejected"
    inference_service_name: str | None = None
    pod_namespace: str | None = None
    trace_key: str = "trace-id"
    event_type: str = "io.kserve.mnist.prediction"
    event_source: str = "mnist-pipeline/mnist"
    event_mode: Literal["structured", "binary"] = "structured"
    predictor_format: str = "tensorflow"
    max_body_bytes: int = 16 * 1024 * 1024
    max_object_bytes: int = 10 * 1024 * 1024
    max_image_pixels: int = 16_000_000
    event_timeout_seconds: float = 60
    max_in_flight: int = 64

    @property
    def rejected_type(self) -> str:
        """The type of a rejected object's or request's event."""
        return self.event_type + ".rejected"

    def destination_of(self, digit: int) -> tuple[str, str]:
        """Bucket and key prefix (empty, or ending in a slash) of a digit."""
        bucket, _, prefix = self.destination.replace("{digit}", str(digit)).partition("/")
        return bucket, prefix + "/" if prefix else ""

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], *, model_name: str = "mnist", predictor_protocol: str = "v1"
    ) -> Settings:
        """Read the variables of the README's table. Static problems only: nobody is asked whether a host is there.

        Raises:
            SettingsError: with every problem found.
        """
        return cls._read(_Reader(environ), model_name, predictor_protocol)

    @classmethod
    def _read(cls, read: _Reader, model_name: str, predictor_protocol: str) -> Settings:
        settings = cls(
            minio=_minio(read),
            kafka=_kafka(read),
            source_buckets=read.parsed("SOURCE_BUCKETS", _buckets, cls.source_buckets),
            source_suffixes=read.parsed("SOURCE_SUFFIXES", _names, cls.source_suffixes),
            destination=read.parsed("DESTINATION", _destination, cls.destination),
            rejected_bucket=read.parsed("REJECTED_BUCKET", _bucket, cls.rejected_bucket),
            inference_service_name=read.parsed("INFERENCE_SERVICE_NAME", _attribute, None),
            pod_namespace=read.parsed("POD_NAMESPACE", _attribute, None),
            trace_key=read.parsed("REQUEST_TRACE_KEY", _trace_key, cls.trace_key),
            event_type=read.parsed("EVENT_TYPE", _attribute, cls.event_type),
            event_source=read.parsed("EVENT_SOURCE", _attribute, f"mnist-pipeline/{model_name}"),
            event_mode=read.parsed("EVENT_MODE", _event_mode, cls.event_mode),
            predictor_format=_predictor_format(read, predictor_protocol),
            max_body_bytes=read.parsed("MAX_BODY_BYTES", _positive, cls.max_body_bytes),
            max_object_bytes=read.parsed("MAX_OBJECT_BYTES", _positive, cls.max_object_bytes),
            max_image_pixels=read.parsed("MAX_IMAGE_PIXELS", _positive, cls.max_image_pixels),
            event_timeout_seconds=read.parsed("EVENT_TIMEOUT_SECONDS", _seconds, cls.event_timeout_seconds),
            max_in_flight=read.parsed("MAX_IN_FLIGHT", _positive, cls.max_in_flight),
        )
        if settings.rejected_bucket in settings.source_buckets:
            read.problem(
                "REJECTED_BUCKET", f"is {settings.rejected_bucket}, which is one of SOURCE_BUCKETS: it would loop"
            )
        for bucket, prefix in sorted({settings.destination_of(digit) for digit in DIGITS}):
            if bucket == settings.rejected_bucket and not prefix:
                read.problem("REJECTED_BUCKET", f"is {bucket}, which is where DESTINATION files a digit")
            if bucket in settings.source_buckets and not prefix:
                read.problem("DESTINATION", f"gives the bucket {bucket}, which is one of SOURCE_BUCKETS: it would loop")
        if read.problems:
            raise SettingsError(read.problems)
        return settings


def unknown_settings(environ: Mapping[str, str]) -> list[str]:
    """What looks like a setting and is none: a sentence for each, with the setting nearest to it and never a value."""
    known = _known_names()
    sentences = []
    for name in sorted(environ.keys() - known):
        # As it would be spelled: the keys of a ConfigMap may have dots and hyphens.
        spelled = re.sub("[.-]", "_", name.upper())
        if not re.fullmatch("[A-Z][A-Z0-9_]*", spelled) or _OF_OTHERS.fullmatch(spelled):
            continue
        nearest = _nearest(spelled, known)
        if nearest:
            sentences.append(f"{name} is no setting: is {nearest} meant?")
    return sentences


def _known_names() -> set[str]:
    # KAFKA_TOPIC is asked for only where there is a Kafka.
    read = _Reader({"KAFKA_BOOTSTRAP_SERVERS": "kafka"})
    Settings._read(read, "mnist", "v1")  # noqa: SLF001 - the same module
    return read.asked


def _nearest(name: str, known: set[str]) -> str | None:
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    for family in _FAMILIES:
        if name.startswith(family):
            # Without what they have in common, by which KAFKA_HOST would be most like the shortest of them.
            rests = [one.removeprefix(family) for one in known if one.startswith(family)]
            return family + get_close_matches(name.removeprefix(family), rests, n=1, cutoff=0)[0]
    nearest = next(iter(get_close_matches(name, known, n=1, cutoff=_ALIKE)), None)
    # With a word more it is somebody else's: MY_POD_NAMESPACE, EVENT_SOURCE_URL.
    if nearest and (name.startswith(nearest + "_") or name.endswith("_" + nearest)):
        return None
    return nearest


class _Reader:
    """The environment, what of it was asked for, and the problems found in it so far."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.asked: set[str] = set()
        self.problems: list[str] = []

    def problem(self, name: str, says: str) -> None:
        self.problems.append(f"{name} {says}")

    def _get(self, name: str) -> str | None:
        self.asked.add(name)
        return self._environ.get(name)

    def text(self, name: str) -> str | None:
        """The variable without surrounding blanks; None where it is unset or empty."""
        return (self._get(name) or "").strip() or None

    def parsed(self, name: str, parse: Callable[[str], _Value], default: _Value) -> _Value:
        text = self.text(name)
        if text is None:
            return default
        try:
            return parse(text)
        except (ValueError, OSError) as exc:
            self.problem(name, str(exc))
            return default

    def secret(self, name: str) -> str | None:
        """The variable, or the content of the file that `<name>_FILE` names; empty where it is set but empty."""
        file = self.text(name + "_FILE")
        value = self._get(name)
        if file is None:
            return value
        if value is not None:
            self.problem(name + "_FILE", f"is set beside {name}: one of the two")
            return None
        try:
            return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            self.problem(name + "_FILE", f"names a file that cannot be read: {_plain(exc)}")
            return None

    def first_secret(self, *names: str) -> tuple[str, str | None]:
        """The first of these that is set, with its name; the first name where none is."""
        for name in names:
            if self._get(name) is not None or self.text(name + "_FILE"):
                return name, self.secret(name)
        return names[0], None


def _minio(read: _Reader) -> Minio | None:
    endpoint_name = next(
        (name for name in ("MINIO_ENDPOINT", "S3_ENDPOINT", "AWS_ENDPOINT_URL") if read.text(name)), "MINIO_ENDPOINT"
    )
    https = read.parsed("S3_USE_HTTPS", _flag, default=False)
    endpoint, secure = read.parsed(
        endpoint_name, lambda text: _endpoint(text, https=https), ("minio-service:9000", https)
    )
    region = read.parsed("MINIO_REGION", _region, Minio.region)
    ca_cert = read.parsed("MINIO_CA_CERT", _ca_file, None)
    told = any(problem.startswith((endpoint_name, "S3_USE_HTTPS")) for problem in read.problems)
    if ca_cert and not secure and not told:
        read.problem("MINIO_CA_CERT", f"is set, but {endpoint_name} is without TLS")
    before = len(read.problems)
    access_name, access_key = read.first_secret("MINIO_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
    secret_name, secret_key = read.first_secret("MINIO_SECRET_KEY", "AWS_SECRET_ACCESS_KEY")
    if len(read.problems) > before or (access_key is None and secret_key is None):
        return None
    for name, value, other in ((access_name, access_key, secret_name), (secret_name, secret_key, access_name)):
        if value is None:
            read.problem(name, f"is not set, but {other} is")
        elif not value.strip():
            read.problem(name, "is empty")
    return Minio(
        endpoint=endpoint,
        secure=secure,
        access_key=access_key or "",
        secret_key=secret_key or "",
        region=region,
        ca_cert=ca_cert,
    )


def _kafka(read: _Reader) -> Kafka | None:
    protocol = read.parsed("KAFKA_SECURITY_PROTOCOL", _one_of(*_SECURITY_PROTOCOLS), None)
    mechanism = read.parsed("KAFKA_SASL_MECHANISM", _one_of(*_SASL_MECHANISMS), None)
    username = read.text("KAFKA_SASL_USERNAME")
    password = read.secret("KAFKA_SASL_PASSWORD")
    sasl = (protocol or "").startswith("SASL_")
    given = {"KAFKA_SASL_MECHANISM": mechanism, "KAFKA_SASL_USERNAME": username, "KAFKA_SASL_PASSWORD": password}
    for name, value in given.items():
        if sasl and not value and not any(problem.startswith(name) for problem in read.problems):
            read.problem(name, f"is not set, but KAFKA_SECURITY_PROTOCOL is {protocol}")
        if value and not sasl:
            read.problem(name, f"is set, but KAFKA_SECURITY_PROTOCOL is {protocol or 'PLAINTEXT'}")
    ca_file = read.parsed("KAFKA_SSL_CAFILE", _ca_file, None)
    cert_file, key_file = read.text("KAFKA_SSL_CERTFILE"), read.text("KAFKA_SSL_KEYFILE")
    if cert_file:
        read.parsed("KAFKA_SSL_CERTFILE", lambda text: _certificate(text, key_file), None)
    elif key_file:
        read.problem("KAFKA_SSL_KEYFILE", "is set, but KAFKA_SSL_CERTFILE is not")
    for name in ("KAFKA_SSL_CAFILE", "KAFKA_SSL_CERTFILE"):
        told = any(problem.startswith(name) for problem in read.problems)
        if read.text(name) and not told and protocol not in ("SSL", "SASL_SSL"):
            read.problem(name, f"is set, but KAFKA_SECURITY_PROTOCOL is {protocol or 'PLAINTEXT'}")
    api_version = read.parsed("KAFKA_API_VERSION", _version, None)
    bootstrap_servers = read.parsed("KAFKA_BOOTSTRAP_SERVERS", _bootstrap_servers, None)
    if bootstrap_servers is None:
        return None
    return Kafka(
        bootstrap_servers=bootstrap_servers,
        topic=read.parsed("KAFKA_TOPIC", _topic, Kafka.topic),
        security_protocol=protocol,
        sasl_mechanism=mechanism,
        sasl_username=username,
        sasl_password=password,
        ssl_cafile=ca_file,
        ssl_certfile=cert_file,
        ssl_keyfile=key_file,
        api_version=api_version,
    )


def _predictor_format(read: _Reader, protocol: str) -> str:
    default = "tensorflow" if protocol == "v1" else "openinference"
    name = read.parsed("PREDICTOR_FORMAT", _one_of(*FORMATS), default)
    if protocol not in FORMATS[name].protocols:
        read.problem("PREDICTOR_FORMAT", f"is {name}, which does not go with --predictor_protocol {protocol}")
    return name


def _plain(exc: Exception) -> str:
    return getattr(exc, "strerror", None) or str(exc)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError(f"is {text!r}: it has an empty name between its commas")
    return names


def _is_bucket(text: str) -> bool:
    return bool(_BUCKET.fullmatch(text)) and ".." not in text and not re.fullmatch(r"(\d+\.){3}\d+", text)


def _region(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", text):
        raise ValueError(f"is {text!r}: letters, digits, hyphens and underscores only")
    return text


def _bucket(text: str) -> str:
    if not _is_bucket(text):
        raise ValueError(f"is {text!r}, which is no bucket name")
    return text


def _buckets(text: str) -> tuple[str, ...]:
    return tuple(_bucket(name) for name in _names(text))


def _destination(text: str) -> str:
    if "{digit}" not in text or "{" in text.replace("{digit}", ""):
        raise ValueError(f"is {text!r}: it must contain {{digit}} and no other braces")
    bucket, _, prefix = text.partition("/")
    if not _is_bucket(bucket.replace("{digit}", "0")):
        raise ValueError(f"is {text!r}: {bucket!r} gives no bucket name")
    if "/" in text and not all(part not in ("", ".", "..") for part in prefix.split("/")):
        raise ValueError(f"is {text!r}: the prefix has an empty part, or one of dots")
    return text


def has_control_characters(text: str) -> bool:
    """Whether there are any in it, C0, DEL and C1, or a lone surrogate, which no encoder takes."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _attribute(text: str) -> str:
    """A CloudEvent's attribute (CloudEvents 1.0, section 3.1)."""
    if has_control_characters(text):
        raise ValueError(f"is {text!a}, which has control characters or is not UTF-8")
    return text


def _trace_key(text: str) -> str:
    if not _TRACE_KEY.fullmatch(text):
        raise ValueError(f"is {text!r}: letters, digits, hyphens and underscores only, at most 64")
    if "".join(letter for letter in text.lower() if letter.isalnum()) in _RESERVED:
        raise ValueError(f"is {text!r}, a name that events, payloads or HTTP have already")
    return text


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is {text!r}, not one of {', '.join(choices)}")
        return text

    return parse


def _event_mode(text: str) -> Literal["structured", "binary"]:
    match text:
        case "structured" | "binary":
            return text
    raise ValueError(f"is {text!r}, not one of structured, binary")


def _flag(text: str) -> bool:
    if text.lower() not in ("0", "1", "false", "true"):
        raise ValueError(f"is {text!r}, not 0 or 1")
    return text.lower() in ("1", "true")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ValueError(f"is {text!r}, not a whole number above zero")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"is {text!r}, not a number of seconds above zero")
    return seconds


def _endpoint(text: str, *, https: bool) -> tuple[str, bool]:
    try:
        url = urlsplit(text if "://" in text else ("https://" if https else "http://") + text)
    except ValueError:
        # Its own message quotes what may hold a secret.
        raise ValueError("is neither host:port nor an http or https URL") from None
    try:
        port = url.port
    except ValueError:
        port = 0
    # First what may hold a secret: it is not repeated in the message.
    if url.username is not None or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError("has more than scheme, host and port")
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        raise ValueError(f"is {text!r}, neither host:port nor an http or https URL")
    return url.netloc, url.scheme == "https"


def _bootstrap_servers(text: str) -> str:
    for server in _names(text):
        _endpoint(server, https=False)
        if "://" in server or "/" in server:
            # Not the whole text: what has not been looked at yet may hold a secret.
            raise ValueError(f"has {server!r}: host:port, comma separated, without a scheme")
    return text


def _topic(text: str) -> str:
    # Kafka: letters, digits, dots, underscores and hyphens, at most 249, and neither "." nor "..".
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text) or text in (".", ".."):
        raise ValueError(f"is {text!r}, which is no topic name")
    return text


def _version(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(\.\d+){1,2}", text):
        raise ValueError(f"is {text!r}, not a version such as 2.3")
    return tuple(int(part) for part in text.split("."))


def _ca_file(text: str) -> str:
    try:
        ssl.create_default_context(cafile=text)
    except (OSError, ssl.SSLError) as exc:
        raise ValueError(f"names {text!r}, which is no readable PEM certificate: {_plain(exc)}") from exc
    return text


def _certificate(text: str, key_file: str | None) -> str:
    try:
        ssl.create_default_context().load_cert_chain(text, key_file)
    except (OSError, ssl.SSLError) as exc:
        beside = f" with KAFKA_SSL_KEYFILE {key_file!r}" if key_file else ""
        raise ValueError(f"names {text!r}, which is no readable certificate{beside}: {_plain(exc)}") from exc
    return text
