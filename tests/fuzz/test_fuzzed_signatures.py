"""s3_signature.py: whatever is signed, minio-py signs it the same."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import NamedTuple
from urllib.parse import SplitResult, quote

import minio.time
from hypothesis import example, given
from hypothesis import strategies as st
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3

from mnist_pipeline.adapters.s3_signature import authorization

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)
values = texts | st.text(st.sampled_from(" \ta"), max_size=10)
pairs = st.tuples(names | texts.map(lambda text: quote(text, safe="")), texts.map(lambda text: quote(text, safe="")))
queries = st.lists(pairs, max_size=4).map(lambda query: "&".join(map("=".join, query))) | st.sampled_from(["acl", "="])


class Signed(NamedTuple):
    """What a signature is of."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    digest: str
    credentials: Credentials
    region: str
    date: datetime


signed = st.builds(
    Signed,
    st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
    texts.map(quote),
    queries,
    st.dictionaries(names, values, max_size=6),
    st.sampled_from(["UNSIGNED-PAYLOAD", "e3b0c442"]),
    st.builds(Credentials, texts.filter(bool), texts.filter(bool), st.none() | texts),
    st.sampled_from(["us-east-1", "eu-central-1", "", "日本"]),
    st.datetimes(timezones=st.just(timezone.utc)).filter(lambda date: date.year > 1000),
)
DATE = datetime(2026, 11, 27, tzinfo=timezone.utc)
WIDE = {"User-Agent": "a", "authorization": "b", "A": "  a  b   c ", "a": " \t a"}


@given(signed)
@example(Signed("PUT", "", "b=&a=2&a=1", WIDE, "x", Credentials("a", "b"), "c", DATE))
def test_a_signature_is_minio_py_s(of: Signed) -> None:
    url = SplitResult("https", "minio:9000", of.path, of.query, "")
    headers = {"Host": url.netloc, **of.headers, "x-amz-date": minio.time.to_amz_date(of.date)}
    theirs = sign_v4_s3(
        method=of.method,
        url=url,
        region=of.region,
        headers=dict(headers),
        credentials=of.credentials,
        content_sha256=of.digest,
        date=of.date,
    )
    ours = authorization(of.method, url, headers, of.digest, credentials=of.credentials, region=of.region)
    assert ours == theirs["Authorization"]
