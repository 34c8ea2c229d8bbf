"""The URLs of a store's buckets and objects, as minio-py makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult

from minio.helpers import BaseURL, queryencode, quote

from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.pipeline.settings import Minio


class Urls:
    """With the bucket in the path, or in the host's name where AWS wants it.

    minio-py makes one for each bucket's objects. The others differ by their key: so they take a third of its time.
    """

    def __init__(self, minio: Minio) -> None:
        self._minio = minio
        self._base: BaseURL | None = None
        self._folders: dict[str, SplitResult] = {}

    def of(self, method: str, bucket: str, key: str | None, query: Mapping[str, str]) -> SplitResult:
        """The URL of a request, its path and query escaped.

        Raises:
            StoreUnavailable: the endpoint, or the region, cannot be used.
            ValueError: there can be no such bucket.
        """
        if key is None:
            return self._made(method=method, bucket_name=bucket, query_params=dict(query))
        folder = self._folders.get(bucket)
        if folder is None:
            one = self._made(method="GET", bucket_name=bucket, object_name="-")
            folder = self._folders[bucket] = one._replace(path=one.path.removesuffix("-"))
        pairs = [f"{queryencode(name)}={queryencode(query[name])}" for name in sorted(query)]
        return folder._replace(path=folder.path + quote(key), query="&".join(pairs))

    def _made(self, **request: Any) -> SplitResult:
        if self._base is None:
            scheme = "https" if self._minio.secure else "http"
            try:
                self._base = BaseURL(f"{scheme}://{self._minio.endpoint}", self._minio.region)
            except ValueError as exc:
                raise StoreUnavailable(f"check MINIO_ENDPOINT and MINIO_REGION: {exc}") from exc
        return self._base.build(region=self._minio.region, **request)
