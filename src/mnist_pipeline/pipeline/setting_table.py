"""What each variable of the environment means: for `serve --help` and for the reference in docs/."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import fill


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    Attributes:
        name: of the variable.
        otherwise: variables that are read where it is unset, the first of them that is set.
        default: as one would write it; empty where there is none. A task may have another.
        meaning: in one sentence.
        is_secret: the variable `<name>_FILE` may name a file with the value.
    """

    name: str
    otherwise: tuple[str, ...] = ()
    default: str = ""
    meaning: str
    is_secret: bool = False


SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="MINIO_ENDPOINT",
        otherwise=("S3_ENDPOINT", "AWS_ENDPOINT_URL"),
        default="minio-service:9000",
        meaning="The store, as host:port or as a URL, whose scheme decides on TLS.",
    ),
    Setting(name="S3_USE_HTTPS", default="0", meaning="Whether to use TLS where the endpoint has no scheme: 0 or 1."),
    Setting(
        name="MINIO_ACCESS_KEY",
        otherwise=("AWS_ACCESS_KEY_ID",),
        meaning="Who we are to the store. Without both keys there is no store, and only inline requests are handled.",
        is_secret=True,
    ),
    Setting(
        name="MINIO_SECRET_KEY",
        otherwise=("AWS_SECRET_ACCESS_KEY",),
        meaning="The secret that goes with the access key.",
        is_secret=True,
    ),
    Setting(name="MINIO_REGION", default="us-east-1", meaning="The store's region."),
    Setting(
        name="MINIO_CA_CERT", meaning="A PEM file: the authority that signed the store's certificate; only with TLS."
    ),
    Setting(
        name="SOURCE_BUCKETS",
        default="mnist",
        meaning="The only buckets from which objects are taken, comma separated.",
    ),
    Setting(
        name="SOURCE_SUFFIXES",
        default=".png",
        meaning="The only endings of keys that are taken, comma separated.",
    ),
    Setting(
        name="DESTINATION",
        default="digit-{digit}",
        meaning="Where an object is filed: a bucket, or bucket/prefix, with its label between braces.",
    ),
    Setting(
        name="REJECTED_BUCKET", default="mnist-rejected", meaning="Where an object goes that can never be classified."
    ),
    Setting(
        name="REVIEW_BELOW",
        meaning="A score from 0 to 1. An object with a lower one is filed for people to look at.",
    ),
    Setting(name="REVIEW_BUCKET", default="mnist-review", meaning="Where an object for people to look at is filed."),
    Setting(
        name="KAFKA_BOOTSTRAP_SERVERS",
        meaning="Kafka, as host:port, comma separated. Without it nothing is published, and a CloudEvent with an "
        "inline request is answered with its result.",
    ),
    Setting(name="KAFKA_TOPIC", default="mnist-predictions", meaning="The topic of the results."),
    Setting(
        name="KAFKA_SECURITY_PROTOCOL",
        meaning="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; PLAINTEXT where it is unset.",
    ),
    Setting(
        name="KAFKA_SASL_MECHANISM",
        meaning="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, with a user name and a password; OAUTHBEARER, with a token; "
        "AWS_MSK_IAM, for Amazon MSK, which needs the extra mnist-pipeline[msk].",
    ),
    Setting(name="KAFKA_SASL_USERNAME", meaning="Who we are to Kafka.", is_secret=True),
    Setting(name="KAFKA_SASL_PASSWORD", meaning="The password that goes with the user name.", is_secret=True),
    Setting(
        name="KAFKA_SASL_OAUTHBEARER_TOKEN_FILE",
        meaning="A file with a token for OAUTHBEARER, such as a projected token of Kubernetes; read for each use.",
    ),
    Setting(
        name="KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL",
        meaning="Who gives tokens for OAUTHBEARER instead, by OAuth 2.0's client credentials. Its certificate may be "
        "signed by the authority of KAFKA_SSL_CAFILE or by any that the system trusts.",
    ),
    Setting(name="KAFKA_SASL_OAUTHBEARER_CLIENT_ID", meaning="Who we are to the token endpoint."),
    Setting(
        name="KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET",
        meaning="The secret that goes with the client id.",
        is_secret=True,
    ),
    Setting(name="KAFKA_SASL_OAUTHBEARER_SCOPE", meaning="The scope that the token endpoint is asked for, if any."),
    Setting(
        name="AWS_REGION",
        otherwise=("AWS_DEFAULT_REGION",),
        meaning="The region of Amazon MSK, for AWS_MSK_IAM. The credentials are found as AWS' own clients find them.",
    ),
    Setting(name="KAFKA_SSL_CAFILE", meaning="A PEM file: the authority that signed the brokers' certificates."),
    Setting(name="KAFKA_SSL_CERTFILE", meaning="A PEM file: our own certificate."),
    Setting(name="KAFKA_SSL_KEYFILE", meaning="A PEM file: our certificate's key, where it is not in the same file."),
    Setting(
        name="KAFKA_CLIENT",
        default="kafka-python",
        meaning="kafka-python, or confluent, which costs less CPU and needs the extra mnist-pipeline[fast].",
    ),
    Setting(
        name="KAFKA_API_VERSION",
        meaning="The brokers' version, such as 2.3, where they cannot be asked for it.",
    ),
    Setting(
        name="INFERENCE_SERVICE_NAME",
        meaning="kserve-isvc-name of a result whose request lacks this header; KServe's controller sets it.",
    ),
    Setting(name="POD_NAMESPACE", meaning="kserve-isvc-namespace of a result whose request lacks this header."),
    Setting(
        name="REQUEST_TRACE_KEY",
        default="trace-id",
        meaning="What the trace id is called in payloads, headers, objects' metadata and results.",
    ),
    Setting(
        name="EVENT_TYPE",
        default="io.kserve.mnist.prediction",
        meaning="The results' CloudEvents type; a rejection's ends in .rejected.",
    ),
    Setting(
        name="EVENT_SOURCE",
        default="mnist-pipeline/mnist",
        meaning="The results' CloudEvents source; by default it ends in the model's name.",
    ),
    Setting(
        name="EVENT_MODE",
        default="structured",
        meaning="How a result is written: structured, or binary, which every CloudEvents SDK can read.",
    ),
    Setting(
        name="PREDICTOR_FORMAT",
        default="tensorflow",
        meaning="tensorflow or torchserve with the predictor protocol v1; openinference, the only one, with v2 and "
        "grpc-v2.",
    ),
    Setting(
        name="LOG_FORMAT",
        default="console",
        meaning="How the log is written: console, lines to read, or json, an object a line.",
    ),
    Setting(
        name="MAX_BODY_BYTES",
        default="16777216",
        meaning="The largest body of a request over HTTP; all bodies together may have MAX_IN_FLIGHT times as much. "
        "Over gRPC KServe's --grpc_max_receive_message_length counts.",
    ),
    Setting(name="MAX_OBJECT_BYTES", default="10485760", meaning="The largest object that is read."),
    Setting(
        name="MAX_IMAGE_PIXELS",
        default="16000000",
        meaning="The most pixels that an image is decoded to; a digit's JPEG is reduced while it is decoded.",
    ),
    Setting(
        name="EVENT_TIMEOUT_SECONDS",
        default="60",
        meaning="How long all that one event needs may take. Fetching may take half of it, the predictor half of the "
        "rest.",
    ),
    Setting(
        name="MAX_IN_FLIGHT",
        default="64",
        meaning="How many requests each worker handles at once. One more waits a while, then it is answered 429.",
    ),
)
"""All of them, in the order in which they are told."""


def told(settings: Iterable[Setting] = SETTINGS) -> str:
    """The settings as plain text, for a terminal."""
    lines = []
    for one in settings:
        names = one.name + (" or _FILE" if one.is_secret else "") + "".join(f", else {name}" for name in one.otherwise)
        lines.append(names + (f" (default: {one.default})" if one.default else ""))
        lines.append(fill(one.meaning, 100, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)
