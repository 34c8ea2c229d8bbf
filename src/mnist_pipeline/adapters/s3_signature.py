"""AWS Signature Version 4 of a request to S3; pure.

The same as minio-py's `sign_v4_s3`, which makes the day's key anew for every request.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import SplitResult

from minio.credentials.credentials import Credentials

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNSIGNED = ("authorization", "user-agent")


def authorization(
    method: str, url: SplitResult, headers: Mapping[str, str], digest: str, *, credentials: Credentials, region: str
) -> str:
    """The value of the header `Authorization`.

    Args:
        method: of the request.
        url: with its path and query escaped.
        headers: all that are to be signed, `Host` and `X-Amz-Date` among them.
        digest: what `X-Amz-Content-Sha256` says.
        credentials: who signs.
        region: of the store.
    """
    named = {name.lower(): _in_one_line(value) for name, value in headers.items()}
    signed = sorted(name for name in named if name not in _UNSIGNED)
    names = ";".join(signed)
    lines = [f"{name}:{named[name]}" for name in signed]
    request = "\n".join([method, url.path or "/", _in_order(url.query), *lines, "", names, digest])
    time = named["x-amz-date"]
    scope = f"{time[:8]}/{region}/s3/aws4_request"
    text = f"{_ALGORITHM}\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.digest(_key(credentials.secret_key, time[:8], region), text.encode(), "sha256").hex()
    return f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"


@functools.lru_cache(maxsize=8)
def _key(secret: str, day: str, region: str) -> bytes:
    """The key of a day, which takes longer to make than the rest of a signature."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _in_one_line(value: str) -> str:
    """A header's value without blanks around it, and with one where there are several."""
    while "  " in value:
        value = value.replace("  ", " ")
    return value.strip()


def _in_order(query: str) -> str:
    """The query, sorted by name."""
    if "&" not in query:
        return query
    return "&".join("=".join(pair) for pair in sorted(pair.split("=") for pair in query.split("&")))
