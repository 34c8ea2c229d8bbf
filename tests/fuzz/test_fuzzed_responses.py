"""http1_response.py: what comes in any pieces is read the same, and what is no response is told as such."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mnist_pipeline.adapters.http1_response import BadResponse, Response, ResponseReader

LIMIT = 50

heads = st.builds(
    "HTTP/1.{} {} OK\r\n{}\r\n".format,
    st.sampled_from("10"),
    st.sampled_from([100, 103, 200, 204, 206, 304, 404, 503]),
    st.lists(
        st.sampled_from(
            [
                "Content-Length: 5\r\n",
                "content-length: 60\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Connection: close\r\n",
                "X-Amz-Meta-A: grün  \r\n",
                "ETag: \x01\r\n",
            ]
        ),
        max_size=3,
    ).map("".join),
).map(str.encode)
bodies = st.sampled_from(
    [b"seven", b"x" * 60, b"5\r\nseven\r\n0\r\n\r\n", b"5\r\nseven\r\n0\r\na: b\r\n\r\n", b"5;a\r\nse"]
)
streams = st.lists(heads | bodies | st.binary(max_size=20), max_size=5).map(b"".join)


def read(pieces: list[bytes], *, is_head: bool) -> tuple[Response | type[BadResponse] | None, bool]:
    """What is read of a connection that ends behind these pieces, and whether it is of use after it."""
    reader = ResponseReader(is_head=is_head, limit=LIMIT)
    try:
        for piece in pieces:
            reader.feed(piece)
    except BadResponse:
        return BadResponse, False
    is_useful = reader.response is not None and not reader.is_last
    reader.end()
    return reader.response, is_useful


@given(streams, st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_the_pieces_in_which_a_response_comes_do_not_matter(stream: bytes, cuts: list[int], is_head: bool) -> None:
    ends = sorted(min(cut, len(stream)) for cut in cuts)
    pieces = [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]
    whole = read([stream], is_head=is_head)
    assert read(pieces, is_head=is_head) == whole
    assert read([bytes([byte]) for byte in stream], is_head=is_head) == whole


@given(st.binary(max_size=200), st.booleans())
def test_bytes_of_any_kind_are_read_or_told_to_be_no_response(stream: bytes, is_head: bool) -> None:
    response, _ = read([stream], is_head=is_head)
    assert response in (None, BadResponse) or isinstance(response, Response)
