"""content_encoding.py: what was compressed on its way is read, and never more of it than fits."""

from __future__ import annotations

import functools
import gzip
import tracemalloc
import zlib

import pytest

from mnist_pipeline.pipeline.content_encoding import decoded
from mnist_pipeline.pipeline.errors import BadImage, ObjectTooLarge
from mnist_pipeline.testing import digit_png

PNG, JPEG = digit_png(7), b"\xff\xd8\xff\xe0" + bytes(range(256))
LIMIT = 10_000

# A test is named after its bytes, and with the time in them it would have another name in each process.
gzipped = functools.partial(gzip.compress, mtime=0)


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("", PNG),
        ("identity", PNG),
        ("aws-chunked", PNG),
        ("gzip", gzipped(PNG)),
        ("X-GZIP", gzipped(PNG)),
        ("aws-chunked, gzip", gzipped(PNG)),
        ("gzip,aws-chunked", gzipped(PNG)),
        ("gzip", gzipped(PNG[:50]) + gzipped(PNG[50:])),
        ("gzip", gzipped(PNG) + b"\0\0"),
        ("deflate", zlib.compress(PNG)),
        ("deflate", raw_deflate(PNG)),
        ("deflate, gzip", gzipped(zlib.compress(PNG))),
        ("gzip", PNG),
        ("deflate", PNG),
        ("gzip, gzip", gzipped(PNG)),
    ],
)
def test_row_48_what_is_encoded_is_decoded_and_what_is_only_called_so_is_taken_as_it_is(
    encoding: str, data: bytes
) -> None:
    assert decoded(data, encoding, limit=LIMIT) == PNG


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_jpeg_that_is_only_called_encoded_is_taken_as_it_is(encoding: str) -> None:
    assert decoded(JPEG, encoding, limit=LIMIT) == JPEG


@pytest.mark.parametrize(
    ("encoding", "data", "says"),
    [
        ("br", PNG, "'br' is none of gzip and deflate"),
        ("zstd, gzip", gzipped(PNG), "'zstd'"),
        ("x" * 1000, PNG, "xxx"),
        ("gzip", gzipped(PNG)[:-1], "cut short"),
        ("gzip", gzipped(PNG)[:-8] + bytes(8), "damaged"),
        ("gzip", b"\x1f\x8b", "cut short"),
        ("deflate", zlib.compress(PNG)[:-1], "cut short"),
        ("gzip", gzipped(b"") * 300, "members"),
        (",".join(["gzip"] * 5), PNG, "5 encodings"),
    ],
)
def test_row_48_an_encoding_that_cannot_be_undone_is_refused(encoding: str, data: bytes, says: str) -> None:
    with pytest.raises(BadImage, match=says) as caught:
        decoded(data, encoding, limit=LIMIT)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("larger", [False, True])
def test_as_much_as_the_limit_is_decoded_and_not_a_byte_more(encoding: str, larger: bool) -> None:
    data = bytes(LIMIT + larger)
    packed = gzip.compress(data) if encoding == "gzip" else zlib.compress(data)
    if larger:
        with pytest.raises(ObjectTooLarge, match="10,000 bytes"):
            decoded(packed, encoding, limit=LIMIT)
    else:
        assert decoded(packed, encoding, limit=LIMIT) == data


def test_row_48_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(gzip.compress(bytes(100_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(ObjectTooLarge):
            decoded(bomb, "gzip, gzip", limit=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
