"""s3_headers.py: metadata travels through a header and back, and what another client wrote does no harm."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.inputs import header_texts
from mnist_pipeline.adapters.s3_headers import decoded, encoded

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
encoded_words = st.builds(
    "=?{}?{}?{}?=".format,
    st.sampled_from(["utf-8", "utf-7", "utf-16", "latin-1", "unicode_escape", "idna", "punycode", "x", ""])
    | header_texts,
    st.sampled_from("BbQqx"),
    header_texts | st.sampled_from(["+2AA-", r"\ud800", "/w==", "=ED=A0=80", "4pyT", "=", "=?"]),
)


@given(texts | st.text(st.sampled_from(" =?Ba\r\n\té"), max_size=40))
@example("=?UTF-8?B?4pyT?=")
@example(" ")
def test_metadata_comes_back_as_it_was(value: str) -> None:
    header = encoded(value)
    assert header.isascii()
    assert header.isprintable()
    assert decoded(header) == value


@given(texts)
def test_raw_utf_8_of_another_client_is_understood(value: str) -> None:
    if "=?" not in value:
        assert decoded(value.encode().decode("utf-8", "surrogateescape")) == value  # as it is read from the wire


@given(header_texts | encoded_words | st.lists(encoded_words, max_size=3).map(" ".join))
@example("=?utf-7?Q?+2AA-?=")
def test_whatever_another_client_wrote_can_be_sent_again(value: str) -> None:
    header = encoded(decoded(value))
    assert header.isascii()
    assert header.isprintable()
