"""Texts of the environment become values: one function a kind, each raising ValueError with what is wrong; pure."""

from __future__ import annotations

import re
import ssl
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

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
SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
KAFKA_CLIENTS = ("kafka-python", "confluent")
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM")
TOKEN_MECHANISMS = ("OAUTHBEARER", "AWS_MSK_IAM")
"""Those that take a token and no user name."""


def plain(exc: Exception) -> str:
    """What went wrong, without what Python puts around it."""
    return getattr(exc, "strerror", None) or str(exc)


def names(text: str) -> tuple[str, ...]:
    """Names, comma separated."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError(f"is {text!r}: it has an empty name between its commas")
    return names


def is_bucket(text: str) -> bool:
    """Whether S3 takes it for a bucket's name."""
    return bool(_BUCKET.fullmatch(text)) and ".." not in text and not re.fullmatch(r"(\d+\.){3}\d+", text)


def region(text: str) -> str:
    """A region of S3."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", text):
        raise ValueError(f"is {text!r}: letters, digits, hyphens and underscores only")
    return text


def bucket(text: str) -> str:
    """A bucket's name."""
    if not is_bucket(text):
        raise ValueError(f"is {text!r}, which is no bucket name")
    return text


def buckets(text: str) -> tuple[str, ...]:
    """Buckets' names, comma separated."""
    return tuple(bucket(name) for name in names(text))


def destination(text: str, *, called: str) -> str:
    """Bucket, or bucket/prefix, with what a label is `called` between braces in it."""
    kinds = {f"{{{called}}}", "{label}"}
    rest = text
    for kind in kinds:
        rest = rest.replace(kind, "000")  # alone it is a bucket's name, as many labels are
    if rest == text or "{" in rest or "}" in rest:
        raise ValueError(f"is {text!r}: it must contain {{{called}}} and no other braces")
    bucket, _, prefix = rest.partition("/")
    if not is_bucket(bucket):
        raise ValueError(f"is {text!r}: {text.partition('/')[0]!r} gives no bucket name")
    if "/" in text and not all(part not in ("", ".", "..") for part in prefix.split("/")):
        raise ValueError(f"is {text!r}: the prefix has an empty part, or one of dots")
    return text


def has_control_characters(text: str) -> bool:
    """Whether there are any in it, C0, DEL and C1, or a lone surrogate, which no encoder takes."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def attribute(text: str) -> str:
    """A CloudEvent's attribute (CloudEvents 1.0, section 3.1)."""
    if has_control_characters(text):
        raise ValueError(f"is {text!a}, which has control characters or is not UTF-8")
    return text


def trace_key(text: str) -> str:
    """A name for trace ids that nothing else has."""
    if not _TRACE_KEY.fullmatch(text):
        raise ValueError(f"is {text!r}: letters, digits, hyphens and underscores only, at most 64")
    if "".join(letter for letter in text.lower() if letter.isalnum()) in _RESERVED:
        raise ValueError(f"is {text!r}, a name that events, payloads or HTTP have already")
    return text


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser for one of these."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is {text!r}, not one of {', '.join(choices)}")
        return text

    return parse


def log_format(text: str) -> Literal["console", "json"]:
    """How the log is written."""
    match text:
        case "console" | "json":
            return text
    raise ValueError(f"is {text!r}, not one of console, json")


def event_mode(text: str) -> Literal["structured", "binary"]:
    """How a result event is written."""
    match text:
        case "structured" | "binary":
            return text
    raise ValueError(f"is {text!r}, not one of structured, binary")


def flag(text: str) -> bool:
    """0 or 1, or false or true."""
    if text.lower() not in ("0", "1", "false", "true"):
        raise ValueError(f"is {text!r}, not 0 or 1")
    return text.lower() in ("1", "true")


def positive(text: str) -> int:
    """A whole number above zero."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ValueError(f"is {text!r}, not a whole number above zero")
    return int(text)


def seconds(text: str) -> float:
    """A number of seconds above zero."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"is {text!r}, not a number of seconds above zero")
    return seconds


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"is {text!r}, not a number from 0 to 1")
    return share


def endpoint(text: str, *, https: bool) -> tuple[str, bool]:
    """A host and port or a URL, and whether it means TLS."""
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


def url(text: str) -> str:
    """A URL of HTTP, with nothing but scheme, host and port."""
    address, secure = endpoint(text, https=False)
    if "://" not in text:
        raise ValueError(f"is {text!r}, which is no http or https URL")
    return f"http{'s' * secure}://{address}"


def is_aws(store: str) -> bool:
    """Whether a store's URL is AWS's own."""
    return (urlsplit(store).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def sts_of_aws(region: str) -> str:
    """The URL of AWS's STS in a region: https://docs.aws.amazon.com/general/latest/gr/sts.html."""
    return f"https://sts.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


def bootstrap_servers(text: str) -> str:
    """Kafka's brokers, host:port, comma separated."""
    for server in names(text):
        endpoint(server, https=False)
        if "://" in server or "/" in server:
            # Not the whole text: what has not been looked at yet may hold a secret.
            raise ValueError(f"has {server!r}: host:port, comma separated, without a scheme")
    return text


def token_file(text: str) -> str:
    """A file with a token, which is not there for ever: what is in it now shows that it is the file that is meant."""
    try:
        is_empty = not Path(text).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"names a file that cannot be read: {plain(exc)}") from exc
    if is_empty:
        raise ValueError("names a file that is empty")
    return text


def token_endpoint(text: str) -> str:
    """The URL of an OAuth token endpoint."""
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        has_more = "@" in parts.netloc or bool(parts.fragment)
    except ValueError:
        is_url, has_more = False, False
    # It is not repeated in the message: it may hold a secret.
    if not is_url or not re.fullmatch("[!-~]+", text):
        raise ValueError("is no http or https URL")
    if has_more:
        raise ValueError("has a user or a fragment, which a token endpoint has not")
    return text


def topic(text: str) -> str:
    """A topic's name."""
    # Kafka: letters, digits, dots, underscores and hyphens, at most 249, and neither "." nor "..".
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text) or text in (".", ".."):
        raise ValueError(f"is {text!r}, which is no topic name")
    return text


def version(text: str) -> tuple[int, ...]:
    """A version such as 2.3."""
    if not re.fullmatch(r"\d+(\.\d+){1,2}", text):
        raise ValueError(f"is {text!r}, not a version such as 2.3")
    return tuple(int(part) for part in text.split("."))


def readable(text: str) -> str:
    """A file that can be read."""
    try:
        Path(text).read_bytes()
    except OSError as exc:
        raise ValueError(f"names a file that cannot be read: {plain(exc)}") from exc
    return text


def ca_file(text: str) -> str:
    """A file of CA certificates that OpenSSL can read."""
    try:
        ssl.create_default_context(cafile=text)
    except (OSError, ssl.SSLError) as exc:
        raise ValueError(f"names {text!r}, which is no readable PEM certificate: {plain(exc)}") from exc
    return text


def certificate(text: str, key_file: str | None) -> str:
    """A certificate's file that OpenSSL can read, with its key."""
    try:
        ssl.create_default_context().load_cert_chain(text, key_file)
    except (OSError, ssl.SSLError) as exc:
        beside = f" with KAFKA_SSL_KEYFILE {key_file!r}" if key_file else ""
        raise ValueError(f"names {text!r}, which is no readable certificate{beside}: {plain(exc)}") from exc
    return text


def slug(label: str | int) -> str:
    """A label as it can stand in a bucket's name: `T-shirt/top` is `t-shirt-top`."""
    return re.sub("[^a-z0-9]+", "-", str(label).lower()).strip("-")


def posted_to(text: str) -> str:
    """An http or https URL that can be posted to."""
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError(f"{text!r} is no http or https URL")
    if not re.fullmatch("[!-~]+", text):
        raise ValueError(f"nothing can be posted to {text!r}: it has characters that a URL must escape")
    return text
