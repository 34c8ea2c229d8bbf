"""Undoes the content encoding of an object or of a request's body (RFC 9110, section 8.4); pure."""

from __future__ import annotations

import contextlib
import zlib

from mnist_pipeline.pipeline.errors import BadImage, ObjectTooLarge

_AS_IT_IS = frozenset({"", "identity", "aws-chunked"})
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_BITS = 16 + zlib.MAX_WBITS
_MOST_CODINGS = 4
_MOST_MEMBERS = 256


def decoded(data: bytes, encoding: str, *, limit: int) -> bytes:
    """The bytes without their encoding: the value of a Content-Encoding header, several codings with commas.

    `gzip`, `x-gzip` and `deflate` are known. What does not begin as they do was labelled wrongly, as some clients and
    proxies do, and is taken as it is. Never more than `limit` decoded bytes are in hand.

    Raises:
        BadImage: another encoding, or the bytes are damaged.
        ObjectTooLarge: decoded, they are more than `limit`.
    """
    codings = [coding.strip().lower() for coding in encoding.split(",")]
    codings = [coding for coding in codings if coding not in _AS_IT_IS]
    if len(codings) > _MOST_CODINGS:
        raise BadImage(f"the content has {len(codings)} encodings, more than {_MOST_CODINGS}")
    for coding in reversed(codings):
        if coding in ("gzip", "x-gzip"):
            if data.startswith(_GZIP_MAGIC):
                data = _inflated(data, _GZIP_BITS, limit)
        elif coding == "deflate":
            # What HTTP calls deflate is zlib's format; some senders leave its header out.
            if _is_zlib(data):
                data = _inflated(data, zlib.MAX_WBITS, limit)
            else:
                with contextlib.suppress(BadImage):
                    data = _inflated(data, -zlib.MAX_WBITS, limit)
        else:
            raise BadImage(f"the content encoding {coding!r:.40} is none of gzip and deflate")
    return data


def _is_zlib(data: bytes) -> bool:
    """Whether the bytes begin with a header of zlib (RFC 1950, section 2.2)."""
    return len(data) > 1 and data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0


def _inflated(data: bytes, bits: int, limit: int) -> bytes:
    whole = bytearray()
    for _ in range(_MOST_MEMBERS):
        stream = zlib.decompressobj(bits)
        try:
            whole += stream.decompress(data, limit + 1 - len(whole))
        except zlib.error as exc:
            raise BadImage("the encoded content is damaged") from exc
        if len(whole) > limit:
            raise ObjectTooLarge(f"the content is larger than {limit:,} bytes once it is decoded")
        if not stream.eof:
            raise BadImage("the encoded content is cut short")
        # A gzip file may have several members (RFC 1952, section 2.2).
        data = stream.unused_data
        if bits != _GZIP_BITS or not data.startswith(_GZIP_MAGIC):
            return bytes(whole)
    raise BadImage(f"the encoded content has more than {_MOST_MEMBERS} members")
