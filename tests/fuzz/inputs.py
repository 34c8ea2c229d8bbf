"""What the properties are tried on: JSON, headers, keys and pictures, from ordinary to hostile."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mnist_pipeline.pipeline.errors import Permanent

REAL_EVENTS = [
    json.loads(path.read_text())["value"]
    for path in sorted((Path(__file__).parent.parent / "data" / "minio-events").glob("*.json"))
]

FINAL = {status for status in range(400, 500) if status not in (404, 408, 409, 429)}
"""The statuses that Knative's dispatcher takes for final."""

MAX_TEXT = 1_000
"""No error's sentence is longer, or a hostile request could fill the log."""

# What HTTP can carry, as ASGI gives it: bytes read as Latin-1.
header_texts = st.text(st.characters(max_codepoint=255), max_size=40)

HOSTILE = [
    "",
    "%",
    "%ff",
    "..",
    "a/../b",
    "a%00",
    "a%0d%0ab",
    "0\r\nX: y",
    "\x1b[2J",
    "x" * 5_000,
    "%41" * 2_000,
    "é" * 900,
]
"""Texts where a name or a key should be."""

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

trace_ids = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=256)


def assert_refusal_can_be_shown(refusal: Permanent) -> None:
    """Its status is final, its reason fits into a `kne-` header, its sentence into one line of a log."""
    assert refusal.status in FINAL
    assert refusal.reason.isascii()
    assert refusal.reason.isalpha()
    assert refusal.reason.islower()
    assert_one_short_line(str(refusal))


def assert_one_short_line(text: str) -> None:
    assert text.isprintable(), repr(text)
    assert 0 < len(text) <= MAX_TEXT


@st.composite
def keys(draw: st.DrawFn, suffix: str = ".png") -> str:
    """Keys that MinIO takes: up to 1,024 bytes, no segment over 255, empty or of dots, no control characters."""
    pieces = (
        st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), max_size=20)
        | st.sampled_from(["%2B", "+", "%25", "%", "%2F", "%41", " ", "é", "e\u0301", "\U0001f600", "..", "&=?#"])
        | st.sampled_from(["a" * 100, "é" * 100, "\U0001f600" * 60])
    )
    segments = draw(st.lists(st.lists(pieces, min_size=1, max_size=4).map("".join), min_size=1, max_size=5))
    legal = [cut for segment in segments if (cut := _cut(segment, 255)) and cut not in (".", "..")] or ["0"]
    while len("/".join(legal).encode()) > 1024 - len(suffix) - 255:
        legal.pop()
    return "/".join([*legal[:-1], _cut(legal[-1], 255 - len(suffix)) + suffix])


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


@st.composite
def mutated(draw: st.DrawFn, real: Any) -> Any:
    """A copy of a JSON value in which a few places were changed, removed or doubled."""
    value = json.loads(json.dumps(real))
    for _ in range(draw(st.integers(0, 4))):
        place: Any = value
        while isinstance(place, dict | list) and place:
            step = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[step], dict | list) or draw(st.integers(0, 3)) == 0:
                _change(draw, place, step)
                break
            place = place[step]
    return value


def _change(draw: st.DrawFn, place: Any, step: Any) -> None:
    match draw(st.sampled_from(["json", "hostile", "remove", "double"])):
        case "json":
            place[step] = draw(json_values)
        case "hostile":
            place[step] = draw(st.sampled_from(HOSTILE))
        case "remove":
            del place[step]
        case "double":
            if isinstance(place, list):
                place.append(place[step])
            else:
                place[step] = [place[step], place[step]]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with a few of them flipped, cut off, cut out or put in."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut off", "cut out", "put in"])):
            case "flip" if at < len(data):
                data = data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
            case "cut off":
                data = data[:at]
            case "cut out":
                data = data[:at] + data[at + draw(st.integers(1, 16)) :]
            case _:
                data = data[:at] + draw(st.binary(min_size=1, max_size=16)) + data[at:]
    return data


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@st.composite
def pngs(draw: st.DrawFn) -> bytes:
    """PNG files whose checksums are right, whatever stands in the chunks (PNG specification, third edition)."""
    width, height = draw(st.tuples(st.integers(0, 40), st.integers(0, 40)))
    depth, colour = draw(st.sampled_from([(depth, colour) for colour in (0, 2, 3, 4, 6) for depth in (1, 2, 4, 8, 16)]))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    size = (-(-width * channels * depth // 8) + 1) * height
    # Few different bytes make few greys, and valid filter types.
    greys = draw(st.lists(st.integers(0, 255), min_size=1, max_size=6))
    pixels = bytes(draw(st.lists(st.sampled_from(greys), min_size=size, max_size=size))) if size < 64 else None
    if pixels is None:
        row = draw(st.binary(min_size=1, max_size=64))
        pixels = (row * (size // len(row) + 1))[:size]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, draw(st.integers(0, 1)))
    before = draw(
        st.lists(
            st.sampled_from([b"PLTE", b"tRNS", b"gAMA", b"pHYs", b"eXIf", b"tEXt", b"iCCP", b"acTL", b"fcTL"]).flatmap(
                lambda kind: st.binary(max_size=48).map(lambda data: _chunk(kind, data))
            ),
            max_size=4,
        )
    )
    if colour == 3 and draw(st.booleans()):
        before.insert(0, _chunk(b"PLTE", draw(st.binary(min_size=6, max_size=48))))
    data = _chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + b"".join(before) + data + _chunk(b"IEND", b"")
