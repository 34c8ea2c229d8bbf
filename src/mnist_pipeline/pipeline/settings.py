"""The environment, read once into one frozen value; every problem is reported at once, by its variable's name."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

from mnist_pipeline.pipeline import setting_values as values
from mnist_pipeline.pipeline.environment import Reader
from mnist_pipeline.pipeline.interpretation import Label, Prediction
from mnist_pipeline.pipeline.kafka_token import KafkaToken, read_token
from mnist_pipeline.pipeline.pictures import is_picture
from mnist_pipeline.pipeline.predictor_formats import FORMATS
from mnist_pipeline.pipeline.task import Destination, Task

CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""The variables that may name whom to trust for TLS to the predictor; KServe's controller sets the first."""


class SettingsError(ValueError):
    """Settings that cannot work; `problems` has one line each, beginning with the variable's name."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, kw_only=True)
class MinioRole:
    """Whose credentials are asked for where there is no pair of keys.

    Attributes:
        variables: that decide on it, for messages.
        endpoint: who gives the credentials; None: whom AWS's variables of a container name.
        token_file: the file with the token of a web identity.
        arn: the role's name.
        session_name: of its use, in the store's log.
    """

    variables: tuple[str, ...]
    endpoint: str | None = None
    token_file: str | None = None
    arn: str | None = None
    session_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Minio:
    """Where the object store is, and who we are there: by a pair of keys, or else in a role.

    `key_files` says which of the keys were read from which file, and are read again where the store refuses them.
    """

    endpoint: str
    secure: bool
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    session_token: str | None = field(default=None, repr=False)
    key_files: Mapping[str, str] = field(default_factory=dict, hash=False)
    role: MinioRole | None = None
    region: str = "us-east-1"
    ca_cert: str | None = None

    @property
    def credential_variables(self) -> tuple[str, ...]:
        """The variables that say who we are."""
        return self.role.variables if self.role else ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")


@dataclass(frozen=True, kw_only=True)
class Kafka:
    """Where the results go; None is kafka-python's own default.

    `sasl_username` and `sasl_password` are what their files, if there are any, held at the start. `token` says where
    tokens come from, for a mechanism that takes those.
    """

    bootstrap_servers: str
    topic: str
    client: str = "kafka-python"
    security_protocol: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    sasl_username_file: str | None = None
    sasl_password_file: str | None = None
    token: KafkaToken | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    api_version: tuple[int, ...] | None = None

    def client_options(self) -> dict[str, Any]:
        """What every client of kafka-python is told, by its own names for it; what is not set is left out.

        A token is not among it, nor what the files with secrets hold by now: `adapters.kafka_connection` sees to those.
        """
        options = {
            "bootstrap_servers": [server.strip() for server in self.bootstrap_servers.split(",")],
            "security_protocol": self.security_protocol,
            "sasl_mechanism": self.sasl_mechanism if self.token is None else "OAUTHBEARER",
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
    """The task, and everything that the environment decides of it.

    `Settings(task=...)` has the task's defaults, without a store and without Kafka. `minio` is None: no store, inline
    requests only. `kafka` is None: nothing is published. What is empty is taken from the task.
    """

    task: Task
    minio: Minio | None = None
    kafka: Kafka | None = None
    source_buckets: tuple[str, ...] = ()
    source_suffixes: tuple[str, ...] = ()
    destination: str = ""
    rejected_bucket: str = ""
    review_below: float | None = None
    review_bucket: str = ""
    inference_service_name: str | None = None
    pod_namespace: str | None = None
    trace_key: str = "trace-id"
    event_type: str = ""
    event_source: str = ""
    event_mode: Literal["structured", "binary"] = "structured"
    predictor_format: str = ""
    log_format: Literal["console", "json"] = "console"
    max_body_bytes: int = 16 * 1024 * 1024
    max_object_bytes: int = 10 * 1024 * 1024
    max_image_pixels: int = 0
    event_timeout_seconds: float = 60
    max_in_flight: int = 64

    def __post_init__(self) -> None:
        task = self.task
        if problems := task.problems():
            raise SettingsError(problems)
        defaults: dict[str, Any] = {
            "source_buckets": task.buckets or (task.name,),
            "source_suffixes": task.suffixes,
            "destination": task.filed_in,
            "rejected_bucket": f"{task.name}-rejected",
            "review_bucket": f"{task.name}-review",
            "event_type": f"io.kserve.{task.name}.prediction",
            "event_source": f"mnist-pipeline/{task.name}",
            "predictor_format": _default_format(task.predictor_protocol),
            "max_image_pixels": type(task).max_image_pixels,
        }
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        if self.review_below is None:  # 0 is a setting: nothing is reviewed
            object.__setattr__(self, "review_below", task.review_below)
        task.configure(self)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.task.configure(self)  # a worker is another process

    @property
    def rejected_type(self) -> str:
        """The type of a rejected object's or request's event."""
        return self.event_type + ".rejected"

    def is_wanted(self, key: str) -> bool:
        """Whether a key ends in one of the suffixes that are taken."""
        if self.task.any_case:
            return key.lower().endswith(tuple(suffix.lower() for suffix in self.source_suffixes))
        return key.endswith(self.source_suffixes)

    def destination_of(self, prediction: Prediction) -> Destination:
        """Where an object with this prediction is filed, unless it is to be reviewed."""
        return self.task.destination(prediction) or self._by_pattern(prediction.label)

    def is_doubtful(self, prediction: Prediction) -> bool:
        """Whether the score is too low for an object to be filed without being looked at."""
        return self.review_below is not None and prediction.score is not None and prediction.score < self.review_below

    def place_of(self, prediction: Prediction) -> Destination:
        """Where an object with this prediction is filed, to be reviewed or not."""
        return Destination(self.review_bucket) if self.is_doubtful(prediction) else self.destination_of(prediction)

    @cached_property
    def destinations(self) -> tuple[Destination, ...]:
        """Everywhere that objects are filed for their labels."""
        task = self.task
        return tuple(dict.fromkeys((*task.destinations(), *map(self._by_pattern, task.labels_by_pattern()))))

    @property
    def aside_buckets(self) -> list[str]:
        """Where what is not filed for its label goes."""
        return [self.rejected_bucket] if self.review_below is None else [self.rejected_bucket, self.review_bucket]

    @cached_property
    def outputs(self) -> tuple[Destination, ...]:
        """Everywhere that we write: what lies there is not taken again."""
        return tuple(dict.fromkeys((*self.destinations, *map(Destination, self.aside_buckets))))

    def _by_pattern(self, label: str | int) -> Destination:
        if (known := self._places.get(label)) is not None:
            return known
        names = {"name": self.task.name, "label": values.slug(label), self.task.called: values.slug(label)}
        place = self._places[label] = Destination.named(self.destination.format_map(names))
        return place

    @cached_property
    def _places(self) -> dict[str | int, Destination]:
        """By label; there are as many as the task has labels."""
        return {}

    @classmethod
    def from_environ(
        cls,
        environ: Mapping[str, str],
        task: Task,
        *,
        model_name: str | None = None,
        predictor_protocol: str | None = None,
    ) -> Settings:
        """Read the variables of `setting_table`. Static problems only: nobody is asked whether a host is there.

        Raises:
            SettingsError: with every problem found.
        """
        return read_settings(Reader(environ), task, model_name, predictor_protocol)


def read_settings(read: Reader, task: Task, model_name: str | None, predictor_protocol: str | None) -> Settings:
    """The same from a reader, which knows afterwards what was asked for."""
    if problems := task.problems():
        raise SettingsError(problems)
    settings = Settings(
        task=task,
        minio=_minio(read),
        kafka=_kafka(read, task),
        source_buckets=read.parsed("SOURCE_BUCKETS", values.buckets, ()),
        source_suffixes=read.parsed("SOURCE_SUFFIXES", values.names, ()),
        destination=read.parsed("DESTINATION", partial(values.destination, called=task.called), ""),
        rejected_bucket=read.parsed("REJECTED_BUCKET", values.bucket, ""),
        review_below=read.parsed("REVIEW_BELOW", values.share, None),
        review_bucket=read.parsed("REVIEW_BUCKET", values.bucket, ""),
        inference_service_name=read.parsed("INFERENCE_SERVICE_NAME", values.attribute, None),
        pod_namespace=read.parsed("POD_NAMESPACE", values.attribute, None),
        trace_key=read.parsed("REQUEST_TRACE_KEY", values.trace_key, Settings.trace_key),
        event_type=read.parsed("EVENT_TYPE", values.attribute, ""),
        event_source=read.parsed("EVENT_SOURCE", values.attribute, f"mnist-pipeline/{model_name or task.name}"),
        event_mode=read.parsed("EVENT_MODE", values.event_mode, Settings.event_mode),
        predictor_format=_predictor_format(read, predictor_protocol or task.predictor_protocol, task),
        log_format=read.parsed("LOG_FORMAT", values.log_format, Settings.log_format),
        max_body_bytes=read.parsed("MAX_BODY_BYTES", values.positive, Settings.max_body_bytes),
        max_object_bytes=read.parsed("MAX_OBJECT_BYTES", values.positive, Settings.max_object_bytes),
        max_image_pixels=read.parsed("MAX_IMAGE_PIXELS", values.positive, 0),
        event_timeout_seconds=read.parsed("EVENT_TIMEOUT_SECONDS", values.seconds, Settings.event_timeout_seconds),
        max_in_flight=read.parsed("MAX_IN_FLIGHT", values.positive, Settings.max_in_flight),
    )
    _check_buckets(read, settings)
    if read.problems:
        raise SettingsError(read.problems)
    return settings


def _check_buckets(read: Reader, settings: Settings) -> None:
    """See that nothing that is written is read again, and that what can never be classified has a place of its own."""
    others = {"REJECTED_BUCKET": settings.rejected_bucket}
    if settings.review_below is not None:
        others["REVIEW_BUCKET"] = settings.review_bucket
    for name, bucket in (*others.items(), *(("SOURCE_BUCKETS", one) for one in settings.source_buckets)):
        if not values.is_bucket(bucket):
            read.problem(name, f"has {bucket!r}, which is no bucket name")
    for name, bucket in others.items():
        if bucket in settings.source_buckets:
            read.problem(name, f"is {bucket}, which is one of SOURCE_BUCKETS: it would loop")
    if len(set(others.values())) < len(others):
        read.problem("REVIEW_BUCKET", f"is {settings.review_bucket}, which is REJECTED_BUCKET too")
    try:
        by_pattern = settings.task.labels_by_pattern()
        places = settings.destinations
    except Exception as exc:  # noqa: BLE001 - the task's own code may raise anything
        read.problem(f"{type(settings.task).__name__}.destination", f"fails: {type(exc).__name__}: {exc}")
    else:
        _check_places(read, settings, by_pattern, places, others)


def _check_places(
    read: Reader,
    settings: Settings,
    by_pattern: Sequence[Label],
    places: Sequence[Destination],
    others: Mapping[str, str],
) -> None:
    """The same for where objects are filed for their labels."""
    filed = "DESTINATION" if by_pattern else f"{type(settings.task).__name__}.destination"
    if odd := [place for place in places if not isinstance(place, Destination)]:
        read.problem(filed, f"gives {odd[0]!r:.60}, which is no Destination")
        return
    slugs = Counter(map(values.slug, by_pattern))
    if alike := [label for label in by_pattern if not values.slug(label) or slugs[values.slug(label)] > 1]:
        read.problem(filed, f"gives no places of their own to {reprlib.repr(alike)}: a-z and 0-9 is all that is left")
    for name, bucket in others.items():
        if Destination(bucket) in places:
            read.problem(name, f"is {bucket}, which is where {filed} files a {settings.task.called}")
    if wrong := sorted({one.bucket for one in places if not values.is_bucket(one.bucket)}):
        read.problem(filed, f"gives {wrong[0]!r}, which is no bucket name")
    for destination in sorted(places, key=lambda one: (one.bucket, one.prefix)):
        if destination.bucket in settings.source_buckets and not destination.prefix:
            read.problem(filed, f"gives the bucket {destination.bucket}, which is one of SOURCE_BUCKETS: it would loop")


def _minio(read: Reader) -> Minio | None:
    endpoint_name = next(
        (name for name in ("MINIO_ENDPOINT", "S3_ENDPOINT", "AWS_ENDPOINT_URL") if read.text(name)), "MINIO_ENDPOINT"
    )
    https = read.parsed("S3_USE_HTTPS", values.flag, default=False)
    endpoint, secure = read.parsed(
        endpoint_name, lambda text: values.endpoint(text, https=https), ("minio-service:9000", https)
    )
    region = read.parsed("MINIO_REGION", values.region, Minio.region)
    ca_cert = read.parsed("MINIO_CA_CERT", values.ca_file, None)
    told = any(problem.startswith((endpoint_name, "S3_USE_HTTPS")) for problem in read.problems)
    if ca_cert and not secure and not told:
        read.problem("MINIO_CA_CERT", f"is set, but {endpoint_name} is without TLS")
    before = len(read.problems)
    store = partial(Minio, endpoint=endpoint, secure=secure, region=region, ca_cert=ca_cert)
    access_name, access_key = read.first_secret("MINIO_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
    secret_name, secret_key = read.first_secret("MINIO_SECRET_KEY", "AWS_SECRET_ACCESS_KEY")
    # What is meant for AWS's clients does not go with a pair that is meant for us.
    session_token = read.secret("AWS_SESSION_TOKEN") if access_name == "AWS_ACCESS_KEY_ID" else None
    if len(read.problems) > before:
        return None
    if access_key is None and secret_key is None:
        if read.text("KAFKA_SASL_MECHANISM") == "AWS_MSK_IAM" and not read.text(endpoint_name):
            return None  # the role is for Kafka alone
        role = _role(read, f"http{'s' * secure}://{endpoint}", read.text("AWS_REGION") or region)
        return store(role=role) if role else None
    for name, value, other in ((access_name, access_key, secret_name), (secret_name, secret_key, access_name)):
        if value is None:
            read.problem(name, f"is not set, but {other} is")
        elif not value.strip():
            read.problem(name, "is empty")
    names = {"access_key": access_name, "secret_key": secret_name}
    if session_token:
        names["session_token"] = "AWS_SESSION_TOKEN"  # noqa: S105 - a variable's name
    return store(
        access_key=access_key or "",
        secret_key=secret_key or "",
        session_token=session_token or None,
        key_files={key: file for key, name in names.items() if (file := read.text(name + "_FILE"))},
    )


def _role(read: Reader, store: str, region: str) -> MinioRole | None:
    """By the variables that AWS's clients read, in their order; None where none of them is set.

    EKS and ECS set them: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
    """
    web, arn, sts = "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL_STS"
    containers = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    instance = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    role_arn = read.text(arn)
    if read.text(web):
        token_file = read.parsed(web, values.readable, None)
        # MinIO gives credentials itself, and its roles may come from the token.
        is_aws = values.is_aws(store)
        if is_aws and role_arn is None:
            read.problem(arn, f"is not set, but {web} is")
        return MinioRole(
            variables=(web, arn, sts),
            endpoint=read.parsed(sts, values.url, values.sts_of_aws(region) if is_aws else store),
            token_file=token_file,
            arn=role_arn,
            session_name=read.text("AWS_ROLE_SESSION_NAME"),
        )
    if names := tuple(name for name in containers if read.text(name)):
        return MinioRole(variables=names)
    if read.text(instance):
        return MinioRole(variables=(instance,), endpoint=read.parsed(instance, values.url, None))
    if role_arn:
        read.problem(web, f"is not set, but {arn} is")
    return None


def _kafka(read: Reader, task: Task) -> Kafka | None:
    protocol = read.parsed("KAFKA_SECURITY_PROTOCOL", values.one_of(*values.SECURITY_PROTOCOLS), None)
    mechanism = read.parsed("KAFKA_SASL_MECHANISM", values.one_of(*values.SASL_MECHANISMS), None)
    username = read.secret("KAFKA_SASL_USERNAME")
    password = read.secret("KAFKA_SASL_PASSWORD")
    sasl = (protocol or "").startswith("SASL_")
    takes_token = sasl and mechanism in values.TOKEN_MECHANISMS
    instead = (
        f"KAFKA_SASL_MECHANISM is {mechanism}" if sasl else f"KAFKA_SECURITY_PROTOCOL is {protocol or 'PLAINTEXT'}"
    )
    given = {"KAFKA_SASL_MECHANISM": mechanism, "KAFKA_SASL_USERNAME": username, "KAFKA_SASL_PASSWORD": password}
    for name, value in given.items():
        is_wanted = sasl and (name == "KAFKA_SASL_MECHANISM" or not takes_token)
        if is_wanted and not value and not read.is_told(name):
            read.problem(name, f"is not set, but KAFKA_SECURITY_PROTOCOL is {protocol}")
        if value and not is_wanted:
            read.problem(name, f"is set, but {instead}")
    if mechanism == "AWS_MSK_IAM" and protocol == "SASL_PLAINTEXT":
        read.problem("KAFKA_SECURITY_PROTOCOL", f"is {protocol}, but {instead}, which is for SASL_SSL only")
    token = read_token(read, mechanism if sasl else None, instead)
    ca_file = read.parsed("KAFKA_SSL_CAFILE", values.ca_file, None)
    cert_file, key_file = read.text("KAFKA_SSL_CERTFILE"), read.text("KAFKA_SSL_KEYFILE")
    if cert_file:
        read.parsed("KAFKA_SSL_CERTFILE", lambda text: values.certificate(text, key_file), None)
    elif key_file:
        read.problem("KAFKA_SSL_KEYFILE", "is set, but KAFKA_SSL_CERTFILE is not")
    for name in ("KAFKA_SSL_CAFILE", "KAFKA_SSL_CERTFILE"):
        if read.text(name) and not read.is_told(name) and protocol not in ("SSL", "SASL_SSL"):
            read.problem(name, f"is set, but KAFKA_SECURITY_PROTOCOL is {protocol or 'PLAINTEXT'}")
    api_version = read.parsed("KAFKA_API_VERSION", values.version, None)
    client = read.parsed("KAFKA_CLIENT", values.one_of(*values.KAFKA_CLIENTS), Kafka.client)
    bootstrap_servers = read.parsed("KAFKA_BOOTSTRAP_SERVERS", values.bootstrap_servers, None)
    if bootstrap_servers is None:
        return None
    return Kafka(
        bootstrap_servers=bootstrap_servers,
        client=client,
        topic=read.parsed("KAFKA_TOPIC", values.topic, f"{task.name}-predictions"),
        security_protocol=protocol,
        sasl_mechanism=mechanism,
        sasl_username=username,
        sasl_password=password,
        sasl_username_file=read.text("KAFKA_SASL_USERNAME_FILE"),
        sasl_password_file=read.text("KAFKA_SASL_PASSWORD_FILE"),
        token=token,
        ssl_cafile=ca_file,
        ssl_certfile=cert_file,
        ssl_keyfile=key_file,
        api_version=api_version,
    )


def _predictor_format(read: Reader, protocol: str, task: Task) -> str:
    name = read.parsed("PREDICTOR_FORMAT", values.one_of(*FORMATS), _default_format(protocol))
    if protocol not in FORMATS[name].protocols:
        read.problem("PREDICTOR_FORMAT", f"is {name}, which does not go with --predictor_protocol {protocol}")
    if name == "torchserve" and not (task.input.pixels and is_picture(task.input.shape)):
        read.problem("PREDICTOR_FORMAT", f"is {name}, which sends pictures, and the input of {task.name} is none")
    return name


def _default_format(protocol: str) -> str:
    return "tensorflow" if protocol == "v1" else "openinference"
