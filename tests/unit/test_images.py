from __future__ import annotations

import random
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

import mnist
from mnist_pipeline.mnist.images import to_tensor
from mnist_pipeline.pipeline.errors import BadImage, Reject
from mnist_pipeline.pipeline.pictures import to_png

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SEVEN = mnist.images()[0]  # the first test image


def encoded(image: Image.Image | NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(  # a PNG as no ordinary writer would make it
    width: int,
    height: int,
    rows: bytes,
    *,
    bits: int = 8,
    colours: int = 0,
    interlaced: bool = False,
    extra: bytes = b"",
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, interlaced)
    return SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def rows_of(pixels: NDArray[Any]) -> bytes:
    """The rows of a PNG, each behind filter type 0; wide pixels big-endian."""
    wire = pixels.astype(pixels.dtype.newbyteorder(">"))
    return b"".join(b"\0" + row.tobytes() for row in wire)


def drawing(side: int = 200, *, background: int = 0, ink: int = 255) -> NDArray[np.uint8]:
    """The seven at half of the side, right of and below the middle."""
    canvas = np.zeros((side, side), np.float64)
    half = side // 2
    digit = np.asarray(Image.fromarray(SEVEN).resize((half, half), Image.Resampling.BILINEAR)) / 255
    canvas[half - 10 : 2 * half - 10, half - 10 : 2 * half - 10] = digit
    return np.rint(background + canvas * (ink - background)).astype(np.uint8)


def likeness(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The correlation of two images: 1.0 for the same but for contrast, around 0 for different digits."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def is_the_seven(data: bytes) -> bool:
    tensor = to_tensor(data)
    assert tensor.shape == (28, 28)
    assert tensor.dtype == np.float32
    assert tensor.min() >= 0
    assert tensor.max() <= 1
    return likeness(tensor, SEVEN) > 0.6  # other digits are at most 0.5 like it


# --- MNIST's own convention


def test_each_of_mnists_test_images_passes_unchanged() -> None:
    for pixels in mnist.images():
        assert np.array_equal(to_tensor(encoded(pixels, compress_level=1)), pixels.astype(np.float32) / np.float32(255))


def test_kserves_sample_digit_passes_unchanged() -> None:
    data = (Path(mnist.FOLDER).parent / "kserve-sample-0.png").read_bytes()
    assert np.array_equal(np.rint(to_tensor(data) * 255), np.asarray(Image.open(BytesIO(data))))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(255 - SEVEN, id="black on white"),
        pytest.param(np.roll(SEVEN, -2, 0), id="two pixels too high"),
        pytest.param(np.roll(SEVEN, -1, 1), id="one pixel too far left"),
        pytest.param(SEVEN // 3, id="dim"),
        pytest.param(255 - SEVEN // 3, id="dim, black on white"),
        pytest.param(60 + SEVEN // 2, id="on grey"),
    ],
)
def test_row_16_a_28x28_image_that_is_not_in_the_convention_is_brought_into_it(changed: NDArray[np.uint8]) -> None:
    tensor = to_tensor(encoded(changed))
    assert not np.array_equal(tensor, changed.astype(np.float32) / np.float32(255))
    assert likeness(tensor, SEVEN) > 0.95


@pytest.mark.parametrize("side", [30, 56, 100, 280, 1100, 2500])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("background", "ink"), [(0, 255), (255, 0), (90, 140), (200, 150)])
def test_row_16_a_drawing_becomes_the_same_digit_whatever_its_size_and_greys(
    side: int, kind: str, background: int, ink: int
) -> None:
    assert is_the_seven(encoded(drawing(side, background=background, ink=ink), kind))


def test_the_digits_longest_side_is_20_pixels_and_its_mass_in_the_middle() -> None:
    tensor = to_tensor(encoded(drawing(400)))
    rows, columns = (np.flatnonzero((tensor > 0.5).any(axis)) for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(20, abs=1)
    middle = np.array([tensor.sum(1) @ np.arange(28), tensor.sum(0) @ np.arange(28)]) / tensor.sum()
    assert middle == pytest.approx([14, 14], abs=0.3)


def test_a_pasted_digit_resembles_its_original_more_than_any_other() -> None:
    draw = np.random.default_rng(3)
    originals = mnist.images()[:100]
    nearest = 0
    for row, original in enumerate(originals):
        side = int(draw.integers(40, 241))
        canvas = np.zeros((280, 280), np.uint8)
        top, left = draw.integers(0, 281 - side, 2)
        canvas[top : top + side, left : left + side] = np.asarray(Image.fromarray(original).resize((side, side)))
        tensor = to_tensor(encoded(canvas if row % 2 else 255 - canvas, "JPEG" if row % 3 else "PNG"))
        nearest += np.argmax([likeness(tensor, other) for other in originals]) == row
    assert nearest >= 98


def test_light_that_falls_off_to_one_side_does_not_hide_the_digit() -> None:
    down, across = np.mgrid[0:1:280j, 0:1:280j]
    photo = drawing(280, background=140, ink=60) + 90 * down - 60 * across
    assert is_the_seven(encoded(np.clip(photo, 0, 255).astype(np.uint8), "JPEG"))


def test_noise_all_over_does_not_hide_the_digit() -> None:
    noise = np.random.default_rng(1).normal(0, 12, (280, 280))
    photo = np.clip(drawing(280, background=180, ink=60) + noise, 0, 255).astype(np.uint8)
    assert is_the_seven(encoded(photo))


# --- kinds of images


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA", "I;16"])
def test_row_15_every_mode_of_png_gives_the_digit(mode: str) -> None:
    grey = Image.fromarray(drawing(background=255, ink=0))
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    image = wide if mode == wide.mode else grey.convert(mode)
    assert image.mode == mode
    assert is_the_seven(encoded(image))


@pytest.mark.parametrize("levels", [4095, 65535])
def test_row_15_16_bit_grey_is_scaled_and_keeps_its_levels(levels: int) -> None:
    pixels = (drawing().astype(np.uint32) * levels // 255).astype(np.uint16)
    assert is_the_seven(png(200, 200, rows_of(pixels), bits=16))
    assert is_the_seven(png(200, 200, rows_of(levels - pixels), bits=16))


def test_an_mnist_image_of_16_bits_passes_unchanged() -> None:
    tensor = to_tensor(png(28, 28, rows_of(SEVEN.astype(np.uint16) * 257), bits=16))
    assert tensor == pytest.approx(SEVEN / 255, abs=1e-6)


@pytest.mark.parametrize("colours", [2, 4, 6])
def test_16_bit_colours_and_alpha_give_the_digit(colours: int) -> None:
    wide = drawing().astype(np.uint16) * 257
    bands = {2: [wide] * 3, 4: [wide, np.full_like(wide, 65535)], 6: [*[wide] * 3, np.full_like(wide, 65535)]}[colours]
    assert is_the_seven(png(200, 200, rows_of(np.stack(bands, -1)), bits=16, colours=colours))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_a_pixel_give_the_digit(bits: int) -> None:
    levels = np.rint(drawing() / 255 * (2**bits - 1)).astype(np.uint8)
    spread = np.unpackbits(levels[..., None], axis=-1)[..., 8 - bits :].reshape(200, -1)
    assert is_the_seven(png(200, 200, rows_of(np.packbits(spread, axis=-1)), bits=bits))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("stroke", [0, 70, 255])
@pytest.mark.parametrize("side", [200, 1500])
def test_row_15_strokes_on_transparent_give_the_digit_whatever_lies_hidden_behind(
    mode: str, hidden: int, stroke: int, side: int
) -> None:
    alpha = drawing(side)
    grey = np.where(alpha > 0, stroke, hidden).astype(np.uint8)
    bands = [grey, alpha] if mode == "LA" else [grey, grey, grey, alpha]
    assert is_the_seven(encoded(Image.merge(mode, [Image.fromarray(band) for band in bands])))


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255), (230, 120)])
def test_a_card_with_round_corners_is_a_picture_of_its_own(paper: int, ink: int) -> None:
    down, across = np.mgrid[-1:1:200j, -1:1:200j]
    alpha = np.where(down**6 + across**6 < 0.9, 255, 0).astype(np.uint8)
    card = np.where(alpha > 0, drawing(background=paper, ink=ink), 128).astype(np.uint8)
    # The digit is moved away from the corner that is cut off.
    card = np.roll(card, (-30, -30), (0, 1))
    card[alpha == 0] = 0
    card[(alpha > 0) & (np.roll(alpha, (-30, -30), (0, 1)) == 0)] = paper
    assert is_the_seven(encoded(Image.merge("LA", [Image.fromarray(card), Image.fromarray(alpha)])))


def test_white_strokes_on_transparent_of_28x28_pass_unchanged() -> None:
    white = Image.new("L", (28, 28), 255)
    tensor = to_tensor(encoded(Image.merge("LA", [white, Image.fromarray(SEVEN)])))
    assert tensor == pytest.approx(SEVEN / 255, abs=1e-6)


@pytest.mark.parametrize("stroke", [0, 255])
def test_row_15_a_palette_with_transparency_gives_the_digit(stroke: int) -> None:
    image = Image.fromarray((drawing() > 127).astype(np.uint8)).convert("P")
    image.putpalette([stroke] * 6)
    assert is_the_seven(encoded(image, transparency=0))
    assert is_the_seven(encoded(image, transparency=b"\x10\xff"))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_named_by_trns_is_background(bits: int) -> None:
    # Background is the brightest grey, transparent; the strokes are the next darker one, which stays visible.
    top = 2**bits - 1
    levels = np.where(drawing() > 127, max(top - 1, 0) if bits < 8 else top // 2, top)
    if bits == 16:
        rows = rows_of(levels.astype(np.uint16))
    else:
        spread = np.unpackbits(levels.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :].reshape(200, -1)
        rows = rows_of(np.packbits(spread, axis=-1))
    extra = chunk(b"tRNS", struct.pack(">H", top))
    assert is_the_seven(png(200, 200, rows, bits=bits, extra=extra))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_named_by_trns_is_background(bits: int) -> None:
    """The strokes differ from the transparent colour in hue only: without tRNS there would be nothing to see."""
    scale = 1 if bits == 8 else 257
    stroke, hidden = np.array([255, 0, 0]) * scale, np.array([0, 130, 0]) * scale
    kind = np.uint8 if bits == 8 else np.uint16
    pixels = np.where((drawing() > 127)[..., None], stroke, hidden).astype(kind)
    extra = chunk(b"tRNS", struct.pack(">HHH", *hidden))
    assert is_the_seven(png(200, 200, rows_of(pixels), bits=bits, colours=2, extra=extra))


@pytest.mark.parametrize("transform", [0, 2])
def test_row_15_cmyk_and_ycck_jpegs_give_the_digit(transform: int) -> None:
    data = encoded(Image.fromarray(drawing(background=255, ink=0)).convert("CMYK"), "JPEG")
    adobe = data.index(b"Adobe")
    assert is_the_seven(data[: adobe + 11] + bytes([transform]) + data[adobe + 12 :])


def test_a_progressive_jpeg_gives_the_digit() -> None:
    assert is_the_seven(encoded(Image.fromarray(drawing()).convert("RGB"), "JPEG", progressive=True))


ORIENTED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture is stored under each EXIF orientation."""


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_row_15_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = Image.fromarray(drawing())
    stored = upright if (how := ORIENTED[orientation]) is None else upright.transpose(how)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert is_the_seven(encoded(stored, kind, exif=exif))


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_exif_orientation_is_applied_to_every_mode(mode: str) -> None:
    pixels = drawing().T[::-1]  # as it is stored under orientation 6
    wide = Image.fromarray(pixels.astype(np.uint16) * 257)
    stored = wide if mode == wide.mode else Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert is_the_seven(encoded(stored, exif=exif))


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_read_in_both_byte_orders(order: str) -> None:
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    stored = Image.fromarray(drawing()).transpose(Image.Transpose.ROTATE_90)
    data = encoded(stored)
    assert is_the_seven(data[:33] + chunk(b"eXIf", tiff) + data[33:])


@pytest.mark.parametrize(
    "tiff", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"nonsense", b"MM\0*\0\0\0\x08\0\x01"]
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's own, about what it skips
def test_broken_exif_is_ignored(tiff: bytes) -> None:
    data = encoded(drawing())
    assert is_the_seven(data[:33] + chunk(b"eXIf", tiff) + data[33:])
    data = encoded(drawing(), "JPEG")
    body = b"Exif\0\0" + tiff
    assert is_the_seven(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])


def test_row_15_an_interlaced_png_gives_the_digit() -> None:
    pixels = drawing()
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    rows = b"".join(rows_of(pixels[top::down, left::across]) for top, down, left, across in passes)
    assert is_the_seven(png(200, 200, rows, interlaced=True))


def test_row_15_an_animated_png_gives_its_first_picture() -> None:
    later = Image.fromarray(drawing(background=255, ink=255))
    data = encoded(Image.fromarray(drawing()), save_all=True, append_images=[later], duration=100)
    assert b"acTL" in data
    assert is_the_seven(data)


@pytest.mark.filterwarnings("ignore:Invalid APNG")  # Pillow's own
def test_a_broken_animation_still_has_its_still_picture() -> None:
    data = encoded(drawing())
    assert is_the_seven(data[:33] + chunk(b"acTL", bytes(8)) + data[33:])


def test_a_warning_of_pillows_that_is_made_an_error_is_a_refusal() -> None:
    data = encoded(drawing())
    with pytest.raises(BadImage, match="Invalid APNG"):
        to_tensor(data[:33] + chunk(b"acTL", bytes(8)) + data[33:])


# --- what is refused


SHORT = (
    SIGNATURE
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(rows_of(SEVEN))[:100])
    + chunk(b"IEND", b"")
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"hello, this is no image at all", "neither a PNG nor a JPEG", id="text"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "neither a PNG nor a JPEG", id="EPS"),
        pytest.param(b"%PDF-1.7\n", "neither a PNG nor a JPEG", id="PDF"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "neither a PNG nor a JPEG", id="SVG"),
        pytest.param(encoded(SEVEN, "GIF"), "neither a PNG nor a JPEG", id="GIF"),
        pytest.param(encoded(SEVEN, "TIFF"), "neither a PNG nor a JPEG", id="TIFF"),
        pytest.param(SIGNATURE, "truncated", id="a signature only"),
        pytest.param(b"\xff\xd8\xff\xd9", "truncated", id="a JPEG of nothing"),
        pytest.param(png(0, 28, b""), "damaged or truncated", id="no width"),
        pytest.param(png(28, 0, b""), "damaged or truncated", id="no height"),
        pytest.param(SHORT, "damaged or truncated", id="half of the pixels' stream"),
        pytest.param(png(28, 28, rows_of(SEVEN), bits=3), "damaged or truncated", id="three bits a pixel"),
        pytest.param(SIGNATURE + chunk(b"IEND", b""), "damaged or truncated", id="no header"),
        pytest.param(
            png(28, 28, rows_of(SEVEN), extra=chunk(b"IHDR", bytes(13))), "damaged or truncated", id="two headers"
        ),
        pytest.param(encoded(SEVEN).replace(b"IDAT", b"IDAt"), "damaged or truncated", id="no pixels' chunk"),
        pytest.param(encoded(np.zeros((28, 28), np.uint8)), "no digit", id="all black"),
        pytest.param(encoded(np.full((300, 200), 255, np.uint8), "JPEG"), "no digit", id="all white"),
        pytest.param(encoded(np.full((1, 1), 9, np.uint8)), "no digit", id="one pixel"),
        pytest.param(encoded(Image.new("RGBA", (50, 50))), "transparent", id="all transparent"),
    ],
)
def test_row_13_what_is_no_picture_of_a_digit_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Reject, match=reason):
        to_tensor(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_row_13_every_truncation_is_refused(kind: str) -> None:
    data = encoded(drawing(60), kind)
    for length in range(len(data) - 4):  # the last four bytes of a PNG are the checksum of its empty last chunk
        with pytest.raises(BadImage):
            to_tensor(data[:length])


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "L"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK")],
)
def test_damaged_bytes_give_a_tensor_or_a_refusal_and_nothing_else(kind: str, mode: str) -> None:
    draw = random.Random(f"{kind} {mode}")  # noqa: S311 - a test's damage
    whole = encoded(Image.fromarray(drawing(60)).convert(mode), kind)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(3, len(data))] = draw.randrange(256)
        try:
            tensor = to_tensor(bytes(data))
        except Reject:
            continue
        assert tensor.shape == (28, 28)
        assert np.isfinite(tensor).all()


def test_a_damaged_png_is_refused_by_its_checksum_and_not_quoted() -> None:
    data = bytearray(encoded(SEVEN))
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(BadImage, match=r"checksum of chunk \.\.\. is wrong"):
        to_tensor(bytes(data))


def test_row_14_too_many_pixels_are_refused_from_the_header_alone() -> None:
    with pytest.raises(BadImage, match="20000x30000, more than 16,000,000 pixels"):
        to_tensor(png(20_000, 30_000, b""))
    jpeg = bytearray(encoded(SEVEN, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 60_000)
    with pytest.raises(BadImage, match="60000x65000, more than 16,000,000 pixels"):
        to_tensor(bytes(jpeg))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_of_a_jpeg_of_50_megapixels_only_the_reduced_form_counts_but_of_a_progressive_one_all() -> None:
    photo = np.full((6120, 8160), 220, np.uint8)
    photo[2000:4000, 3000:5000] = drawing(2000, background=220, ink=40)
    data = encoded(photo, "JPEG")
    assert is_the_seven(data)
    done = subprocess.run([sys.executable, "-c", PEAK], input=data, capture_output=True, check=True)
    assert int(done.stdout) < 40
    with pytest.raises(BadImage, match="8160x6120, more than 16,000,000 pixels"):
        to_tensor(encoded(photo, "JPEG", progressive=True))


def test_the_limit_of_pixels_is_the_callers() -> None:
    data = encoded(drawing(100))
    assert is_the_seven(data)
    to_tensor(data, max_pixels=10_000)
    with pytest.raises(BadImage, match="more than 9,999 pixels"):
        to_tensor(data, max_pixels=9_999)


@pytest.mark.parametrize("before_the_pixels", [True, False])
@pytest.mark.parametrize(("kind", "head"), [(b"zTXt", b"Comment\0\0"), (b"iTXt", b"Comment\0\1\0en\0Comment\0")])
def test_row_14_text_that_inflates_without_end_is_refused(kind: bytes, head: bytes, *, before_the_pixels: bool) -> None:
    data = encoded(SEVEN)
    place = 33 if before_the_pixels else len(data) - 12
    for bomb in (
        chunk(kind, head + zlib.compress(bytes(100 << 20))),
        chunk(kind, head + zlib.compress(bytes(1 << 20))) * 65,
    ):
        with pytest.raises(BadImage, match="MAX_TEXT"):
            to_tensor(data[:place] + bomb + data[place:])


def test_a_profile_that_inflates_without_end_is_refused() -> None:
    data = encoded(SEVEN)
    with pytest.raises(BadImage, match="MAX_TEXT"):
        to_tensor(data[:33] + chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(100 << 20))) + data[33:])


def test_a_damaged_profile_is_ignored() -> None:
    damaged = chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(9_000))[:-4] + b"oops")
    data = encoded(SEVEN)
    assert np.array_equal(to_tensor(data[:33] + damaged + data[33:]), to_tensor(data))


def test_ordinary_text_and_profiles_do_no_harm() -> None:
    text = PngInfo()
    text.add_text("Comment", "a seven")
    text.add_text("Comment", "a seven" * 100, zip=True)
    text.add_itxt("Comment", "une sept", "fr", "Commentaire", zip=True)
    data = encoded(SEVEN, pnginfo=text, icc_profile=b"profile" * 100)
    assert np.array_equal(to_tensor(data), to_tensor(encoded(SEVEN)))


def test_a_jpeg_of_countless_scans_is_refused() -> None:
    data = encoded(drawing(), "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    with pytest.raises(BadImage, match="more than 100 scans"):
        to_tensor(data[:-2] + data[scan:-2] * 100 + data[-2:])


def test_a_refusal_can_be_written_to_a_header() -> None:
    with pytest.raises(BadImage) as caught:
        to_tensor("é\r\nX-Injected: 1".encode())
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


# --- how it behaves


# A process of its own, asked for its own high-water mark: getrusage would name its parent's, which fork copies.
PEAK = """
import re, sys
from pathlib import Path
from mnist_pipeline.mnist.images import to_tensor
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
data = sys.stdin.buffer.read()
before = peak()
to_tensor(data)
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("L", "PNG", {}),
        ("I;16", "PNG", {}),
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {"transparency": 0}),
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
        ("CMYK", "JPEG", {"progressive": True, "subsampling": 0}),
    ],
)
def test_row_14_the_largest_images_take_bounded_memory(mode: str, kind: str, options: dict[str, Any]) -> None:
    canvas = np.zeros((4000, 4000), np.uint8)
    canvas[1000:3000, 1000:3000] = drawing(2000)
    image = Image.fromarray(canvas.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(canvas).convert(mode)
    data = encoded(image, kind, **options)
    done = subprocess.run([sys.executable, "-c", PEAK], input=data, capture_output=True, check=True)
    megabytes = int(done.stdout)
    assert 0 < megabytes < 150


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("kind", "megabytes"), [("a header of 3,600 M pixels", 5), ("28x28 of 200 MB", 20), ("200 MB of text", 280)]
)
def test_row_14_a_bomb_takes_bounded_memory(kind: str, megabytes: int) -> None:
    zeros = bytes(200 << 20)
    bomb = {
        "a header of 3,600 M pixels": lambda: png(60_000, 60_000, b""),
        "28x28 of 200 MB": lambda: png(28, 28, zeros),
        "200 MB of text": lambda: png(
            28, 28, rows_of(SEVEN), extra=chunk(b"zTXt", b"Comment\0\0" + zlib.compress(zeros))
        ),
    }[kind]()
    refused = PEAK.replace("to_tensor(data)\n", "try:\n    to_tensor(data)\nexcept Reject:\n    pass\n")
    program = "from mnist_pipeline.pipeline.errors import Reject\n" + refused
    done = subprocess.run([sys.executable, "-c", program], input=bomb, capture_output=True, check=True)
    assert int(done.stdout) < megabytes


def test_many_threads_decode_at_once_and_leave_pillow_and_warnings_as_they_were() -> None:
    before = (list(warnings.filters), Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    files = [encoded(pixels) for pixels in mnist.images()[:200]]
    with ThreadPoolExecutor(8) as pool:
        tensors = list(pool.map(to_tensor, files))
    for pixels, tensor in zip(mnist.images(), tensors, strict=False):
        assert np.array_equal(np.rint(tensor * 255), pixels)
    assert before == (list(warnings.filters), Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_a_tensor_becomes_a_png_that_every_reader_opens_and_comes_back_the_same() -> None:
    for pixels in mnist.images()[:100]:
        data = to_png(to_tensor(encoded(pixels)))
        image = Image.open(BytesIO(data), formats=["PNG"])
        image.load()
        assert (image.mode, image.size) == ("L", (28, 28))
        assert np.array_equal(np.asarray(image), pixels)
        assert np.array_equal(to_tensor(data), to_tensor(encoded(pixels)))


def test_values_outside_0_and_1_are_cut_and_do_not_wrap_round() -> None:
    tensor = np.full((28, 28), 1.02, np.float32)
    tensor[0] = -0.02
    levels = np.asarray(Image.open(BytesIO(to_png(tensor))))
    assert (levels[0] == 0).all()
    assert (levels[1:] == 255).all()
