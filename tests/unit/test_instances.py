"""instances.py: what one instance of an inline request holds."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from mnist_pipeline.pipeline.errors import BadImage
from mnist_pipeline.pipeline.instances import content_of, image_in, is_image

# Its base64 has both digits in which the alphabets differ, and needs padding.
IMAGE = b"\x89PNG\r\n\xfb\xff\xbf\x00" * 20
PLAIN = base64.b64encode(IMAGE).decode()
URL_SAFE = base64.urlsafe_b64encode(IMAGE).decode()


def test_the_example_tells_the_alphabets_apart_and_is_padded() -> None:
    assert {"+", "/", "="} <= set(PLAIN)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        base64.encodebytes(IMAGE).decode(),
        base64.encodebytes(IMAGE).decode().replace("\n", "\r\n"),
        f"  {PLAIN[:10]} \t{PLAIN[10:]}\n",
        PLAIN.rstrip("="),
        URL_SAFE,
        URL_SAFE.rstrip("="),
        f"data:image/png;base64,{PLAIN}",
        f"\nDATA:image/png;name=7.png;BASE64,{URL_SAFE}",
        f"data:;base64,{PLAIN.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
    ],
)
def test_row_47_base64_is_read_as_people_write_it(text: str) -> None:
    assert image_in(text) == IMAGE


@pytest.mark.parametrize(
    "text",
    [
        "???",
        "grün",
        "\ud800",
        "\u00a0AAAA\u00a0AAAA",
        f"{PLAIN[:-8]}!{PLAIN[-8:]}",
        "ab-_cd+/",
        "AAAAA",
        "AAA===",
        "AA==AA==",
        "data:image/png,AAAA",
        "data:image/png;base64,%",
        "file:///7.png",
        '{"a": 1}',
    ],
)
def test_row_47_what_is_no_base64_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(BadImage, match=r"^an instance's data is (not base64|a data URL without base64)$"):
        image_in(text)


@pytest.mark.parametrize(
    ("instance", "content"),
    [
        ("AAAA", "AAAA"),
        ({"data": "AAAA"}, "AAAA"),
        ({"data": b"raw"}, b"raw"),
        ({"b64": "AAAA"}, "AAAA"),
        ({"data": {"b64": "AAAA"}}, "AAAA"),
        ({"image_bytes": {"b64": "AAAA"}}, "AAAA"),
        ({"image_bytes": {"b64": "AAAA"}, "key": "1"}, "AAAA"),
        ({"data": [[0.5]]}, [[0.5]]),
        ([[0.5]], [[0.5]]),
        ({"b64": [0.5]}, None),
        ({"a": {"b64": "AAAA"}, "b": {"b64": "BBBB"}}, None),
        ({"image": "AAAA"}, None),
        ({"data": {"image": "AAAA"}}, None),
        ({}, None),
        (7, 7),
    ],
)
def test_row_47_an_image_is_found_under_data_and_b64_and_a_tensor_under_data_or_alone(
    instance: Any, content: Any
) -> None:
    assert content_of(instance) == content
    assert is_image(instance) == isinstance(content, str | bytes)
