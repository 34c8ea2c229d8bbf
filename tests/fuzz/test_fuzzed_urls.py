"""s3_urls.py: whatever a request is about, its URL is minio-py's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from minio.helpers import BaseURL

from mnist_pipeline.adapters.s3_urls import Urls
from mnist_pipeline.pipeline.settings import Minio

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
ENDPOINTS = ("localhost:9000", "minio.example", "s3.amazonaws.com", "s3.eu-west-1.amazonaws.com", "[::1]:9000")


@given(
    st.sampled_from(ENDPOINTS).map("http://{}".format) | st.sampled_from(ENDPOINTS).map("https://{}".format),
    st.sampled_from(["GET", "PUT", "DELETE", "POST"]),
    st.sampled_from(["mnist", "my.bucket", "digit-0"]),
    st.lists(st.none() | texts, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(["versionId", "tagging", "delete", "list-type"]), texts | st.just("")),
)
def test_a_url_is_minio_py_s(url: str, method: str, bucket: str, keys: list[str | None], query: dict[str, str]) -> None:
    scheme, _, endpoint = url.partition("://")
    minio = Minio(endpoint=endpoint, secure=scheme == "https", access_key="a", secret_key="s", region="eu-west-1")
    urls, base = Urls(minio), BaseURL(url, minio.region)
    for key in keys:
        theirs = base.build(
            method=method, region=minio.region, bucket_name=bucket, object_name=key, query_params=dict(query)
        )
        assert urls.of(method, bucket, key, query) == theirs
