"""Pictures of digits as people draw, scan and photograph them, and of what is no digit: a kind a function, by a seed.

A function of `DIGITS` shows the one digit that it is given; what one of `OTHERS` makes is to be refused, or, of letters
and doodles, cannot be told from digits by its form alone. All is made from MNIST's test images, scikit-learn's digits
and Pillow's own font.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

import mnist

SIDE = 280
"""Of a picture, in pixels, where a kind does not say another."""

Draw: TypeAlias = np.random.Generator
Pixels: TypeAlias = NDArray[np.uint8]
Plane: TypeAlias = NDArray[np.floating[Any]]
"""`[height, width]`, 0 to 1: light, or how much of a pixel is covered with ink."""


def png(pixels: NDArray[Any]) -> bytes:
    """A PNG of the pixels: grey of 8 or 16 bits, or RGB."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def jpeg(pixels: Pixels, quality: int) -> bytes:
    """A JPEG of the pixels, grey or RGB."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def encoded(light: Plane, draw: Draw, *, grain: float = 0.01) -> bytes:
    """PNG or JPEG, of a camera's grain or none."""
    if grain:
        light = light + draw.normal(0, grain, light.shape)
    pixels = np.rint(light.clip(0, 1) * 255).astype(np.uint8)
    return jpeg(pixels, int(draw.integers(60, 96))) if draw.integers(2) else png(pixels)


# --- what lies on the paper


def strokes(digit: Pixels, length: float, *, turned: float = 0, heavier: float = 0) -> Image.Image:
    """How much of a pixel is ink, 0 to 255: the digit at so many pixels, turned by degrees, its strokes heavier or
    lighter by this share of the digit's length.
    """
    image = Image.fromarray(digit)
    image = image.crop(image.getbbox())
    scale = length / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    by = round(abs(heavier) * length)
    image = ImageOps.expand(image.resize(size, Image.Resampling.BICUBIC), by + 2)
    if by:
        image = image.filter(ImageFilter.MaxFilter(2 * by + 1) if heavier > 0 else ImageFilter.MinFilter(2 * by + 1))
    if heavier < 0:  # a pen's line is thin and still dark
        image = image.point(lambda level: min(255, 2 * level))
    if turned:
        image = image.rotate(turned, Image.Resampling.BICUBIC, expand=True)
    return image.crop(image.point(lambda level: 255 * (level > 40)).getbbox() or image.getbbox())


def sheet(
    digit: Pixels, draw: Draw, *, extent: tuple[float, float] = (0.3, 0.75), margin: float = 0.04, **how: float
) -> Plane:
    """The digit's ink somewhere on a square sheet: its longest side a share of the sheet's, at least a margin away."""
    ink = strokes(digit, SIDE * draw.uniform(*extent), **how)
    return laid(ink, draw, (margin, margin, 1 - margin, 1 - margin))


def laid(ink: Image.Image, draw: Draw, room: tuple[float, float, float, float]) -> Plane:
    """Ink at a random place in a part of the sheet: left, top, right and bottom, as shares of its side."""
    left, top, right, bottom = (round(SIDE * place) for place in room)
    shrunk = min(1, (right - left - 1) / ink.width, (bottom - top - 1) / ink.height)
    if shrunk < 1:
        ink = ink.resize((int(ink.width * shrunk), int(ink.height * shrunk)), Image.Resampling.BICUBIC)
    canvas = Image.new("L", (SIDE, SIDE))
    canvas.paste(ink, (int(draw.integers(left, right - ink.width)), int(draw.integers(top, bottom - ink.height))))
    return np.asarray(canvas) / 255


def in_ink(cover: Plane, draw: Draw, *, ink: tuple[float, float] = (0.05, 0.35)) -> Plane:
    """Dark ink on light paper, each of a random grey."""
    paper = draw.uniform(0.75, 0.97)
    return paper + cover * (draw.uniform(*ink) - paper)


def either_way(light: Plane, draw: Draw) -> Plane:
    """As it is, or as a negative."""
    return 1 - light if draw.integers(2) else light


def ramp(draw: Draw, *, of: tuple[int, int] = (SIDE, SIDE)) -> Plane:
    """From -0.5 to 0.5 or so along a random direction."""
    angle = draw.uniform(0, 2 * math.pi)
    down, across = np.mgrid[-0.5 : 0.5 : of[0] * 1j, -0.5 : 0.5 : of[1] * 1j]
    plane: Plane = math.cos(angle) * across + math.sin(angle) * down
    return plane


def shadow(draw: Draw) -> Plane:
    """How much light is left where a shadow of 45 % falls over a part, its edge hard or soft."""
    place: Plane = (ramp(draw) - draw.uniform(-0.3, 0.3)) / draw.uniform(0.005, 0.15)
    light: Plane = 1 - 0.45 / (1 + np.exp(-place.clip(-30, 30)))
    return light


def lines(draw: Draw, *, apart: float, width: float, both_ways: bool, lean: float = 1) -> Plane:
    """Ruled lines, or squares: how much of a pixel they cover."""
    angle = math.radians(draw.uniform(-lean, lean))
    down, across = np.mgrid[0:SIDE, 0:SIDE]
    cover: Plane = np.zeros((SIDE, SIDE))
    for turns in (0, 1)[: 1 + both_ways]:
        off = (down * math.cos(angle) + across * math.sin(angle) - draw.uniform(0, apart)) % apart
        line = (width / 2 + 0.5 - np.minimum(off, apart - off)).clip(0, 1)
        cover = np.maximum(cover, np.rot90(line, turns))
    return cover


def grain(draw: Draw, level: float, spread: float) -> Plane:
    """A table: one grey, with streaks along one axis."""
    streaks = np.repeat(draw.normal(0, spread, (SIDE, 1)), SIDE, 1) + draw.normal(0, spread / 2, (SIDE, SIDE))
    return level + (streaks if draw.integers(2) else streaks.T)


# --- the kinds that show a digit


def as_they_are(digit: Pixels, draw: Draw) -> bytes:
    del draw
    return png(digit)


def plain(digit: Pixels, draw: Draw) -> bytes:
    """Dark on light or light on dark, nothing else: what the others are compared with."""
    return encoded(either_way(in_ink(sheet(digit, draw), draw), draw), draw, grain=0)


def pasted(digit: Pixels, draw: Draw) -> bytes:
    """An MNIST image as it is, 40 to 240 pixels large, somewhere on 280; a third of them dim, half of them negative."""
    side = int(draw.integers(40, 240, endpoint=True))
    smooth = (Image.Resampling.LANCZOS, Image.Resampling.BILINEAR)[draw.integers(2)]
    top, left = draw.integers(0, SIDE - side, 2, endpoint=True)
    contrast = draw.uniform(60, 255) / 255 if draw.integers(3) == 0 else 1.0
    darkest = draw.uniform(0, 1 - contrast)
    canvas: Plane = np.zeros((SIDE, SIDE))
    canvas[top : top + side, left : left + side] = np.asarray(Image.fromarray(digit).resize((side, side), smooth)) / 255
    return encoded(darkest + contrast * either_way(canvas, draw), draw, grain=0)


def cropped(digit: Pixels, draw: Draw) -> bytes:
    """To the digit's own box, at any size."""
    image = Image.fromarray(digit)
    image = image.crop(image.getbbox())
    scale = draw.uniform(1, 14)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    return encoded(either_way(in_ink(np.asarray(image) / 255, draw), draw), draw, grain=0)


def framed(digit: Pixels, draw: Draw) -> bytes:
    """A line around, at the picture's edge or a little inside, thin or thick."""
    cover = sheet(digit, draw, extent=(0.3, 0.7), margin=0.14)
    width, inset = int(draw.integers(1, 12)), int(draw.integers(0, 14)) * int(draw.integers(2))
    frame = np.zeros((SIDE, SIDE))
    frame[inset : SIDE - inset, inset : SIDE - inset] = 1
    frame[inset + width : SIDE - inset - width, inset + width : SIDE - inset - width] = 0
    return encoded(either_way(in_ink(np.maximum(cover, frame), draw), draw), draw)


def framed_mnist(digit: Pixels, draw: Draw) -> bytes:
    """MNIST's own 28x28, one pixel of frame around it."""
    canvas = digit.copy()
    canvas[[0, -1], :] = canvas[:, [0, -1]] = draw.integers(120, 256)
    return png(canvas if draw.integers(2) else 255 - canvas)


def cell(digit: Pixels, draw: Draw) -> bytes:
    """Of a sudoku, with its lines, and pieces of what lies beyond them."""
    cover = sheet(digit, draw, extent=(0.45, 0.65), margin=0.17)
    width = int(draw.integers(2, 9))
    places = draw.integers(2, 26, 4)
    for place, cut in zip(places, ("top", "bottom", "left", "right"), strict=True):
        lines_at = {
            "top": np.s_[place : place + width, :],
            "bottom": np.s_[SIDE - place - width : SIDE - place, :],
            "left": np.s_[:, place : place + width],
            "right": np.s_[:, SIDE - place - width : SIDE - place],
        }
        cover[lines_at[cut]] = np.maximum(cover[lines_at[cut]], draw.uniform(0.5, 1))
    return encoded(either_way(in_ink(cover, draw), draw), draw)


def cut_cell(digit: Pixels, draw: Draw) -> bytes:
    """Cut at its lines, of which some are still seen, on one to four sides, a little aslant."""
    cover = sheet(digit, draw, extent=(0.5, 0.7), margin=0.12)
    down, across = np.mgrid[0:SIDE, 0:SIDE]
    for place in (down, across, SIDE - 1 - down, SIDE - 1 - across):
        if draw.integers(4):
            slope = draw.uniform(-0.03, 0.03) * (across if place is down or place.base is down else down)
            cover = np.maximum(cover, ((draw.uniform(-3, 12) + slope - place) > 0) * draw.uniform(0.6, 1))
    return encoded(either_way(in_ink(cover, draw), draw), draw)


def scan_edge(digit: Pixels, draw: Draw) -> bytes:
    """A scan's black edge, straight or aslant, on one side or two."""
    light = in_ink(sheet(digit, draw, margin=0.16), draw)
    for _ in range(draw.integers(1, 3)):
        straight = np.rot90(np.mgrid[-0.5 : 0.5 : SIDE * 1j, 0:SIDE][0], int(draw.integers(4)))
        edge = ramp(draw) if draw.integers(2) else straight
        reach = np.quantile(edge, draw.uniform(0.01, 0.045))
        light = np.where(edge < reach, draw.uniform(0, 0.2), light)
    return encoded(light, draw)


def _on_table(digit: Pixels, draw: Draw, table: Plane) -> Plane:
    """A turned sheet of paper on a table."""
    turned = draw.uniform(-12, 12)
    paper, ink = draw.uniform(0.75, 0.95), draw.uniform(0.05, 0.35)
    height, width = draw.uniform(0.66, 0.86, 2) * SIDE
    cover = strokes(digit, min(height, width) * draw.uniform(0.45, 0.75))
    page = Image.new("L", (round(width), round(height)))
    left, top = (
        int(draw.integers(4, max(5, room - size - 4))) for room, size in zip(page.size, cover.size, strict=True)
    )
    page.paste(cover, (left, top))
    both = [
        image.rotate(turned, Image.Resampling.BICUBIC, expand=True) for image in (page, Image.new("L", page.size, 255))
    ]
    left, top = (int(draw.integers(SIDE - size)) if size < SIDE else (SIDE - size) // 2 for size in both[0].size)
    canvases = []
    for image in both:
        canvas = Image.new("L", (SIDE, SIDE))
        canvas.paste(image, (left, top))
        canvases.append(np.asarray(canvas) / 255)
    inked, covered = canvases
    return table + covered * (paper - table) + inked * (ink - paper)


def on_dark_table(digit: Pixels, draw: Draw) -> bytes:
    return encoded(_on_table(digit, draw, grain(draw, draw.uniform(0.1, 0.4), 0.02)), draw)


def on_light_table(digit: Pixels, draw: Draw) -> bytes:
    return encoded(_on_table(digit, draw, grain(draw, draw.uniform(0.5, 0.68), 0.015)), draw)


def photographed(digit: Pixels, draw: Draw) -> bytes:
    """On a table, in uneven light, grained, a little out of focus."""
    light = _on_table(digit, draw, grain(draw, draw.uniform(0.1, 0.6), 0.02)) * (1 + 0.5 * ramp(draw))
    sharp = Image.fromarray((light.clip(0, 1) * 255).astype(np.uint8))
    return encoded(np.asarray(sharp.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 1.5)))) / 255, draw, grain=0.02)


def thumbed(digit: Pixels, draw: Draw) -> bytes:
    """A thumb that comes in from one side."""
    light = in_ink(laid(strokes(digit, SIDE * draw.uniform(0.3, 0.6)), draw, (0.05, 0.05, 0.95, 0.78)), draw)
    across = draw.uniform(0.15, 0.85) * SIDE
    down, right = np.mgrid[0:SIDE, 0:SIDE]
    reach, half = draw.uniform(0.1, 0.18) * SIDE, draw.uniform(0.08, 0.16) * SIDE
    lean = draw.uniform(-0.4, 0.4)
    inside = ((right - across - lean * (SIDE - down)) / half) ** 2 + ((SIDE - down) / reach).clip(0) ** 4 < 1
    light = np.where(inside, draw.uniform(0.35, 0.65), light)
    return encoded(light, draw)


def shadowed(digit: Pixels, draw: Draw) -> bytes:
    """A shadow of 45 % over a part, its edge hard or soft."""
    return encoded(in_ink(sheet(digit, draw), draw) * shadow(draw), draw)


def dark_corners(digit: Pixels, draw: Draw) -> bytes:
    light = in_ink(sheet(digit, draw), draw)
    down, across = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    return encoded(light * (1 - draw.uniform(0.2, 0.4) * (down**2 + across**2)), draw)


def _on_lines(digit: Pixels, draw: Draw, *, both_ways: bool) -> bytes:
    cover = sheet(digit, draw, extent=(0.4, 0.75))
    apart = SIDE * (draw.uniform(0.08, 0.2) if both_ways else draw.uniform(0.12, 0.35))
    ruled = lines(draw, apart=apart, width=draw.uniform(1, 3), both_ways=both_ways, lean=2) * draw.uniform(0.15, 0.55)
    return encoded(in_ink(np.maximum(cover, ruled), draw, ink=(0.05, 0.25)), draw)


def on_ruled_paper(digit: Pixels, draw: Draw) -> bytes:
    return _on_lines(digit, draw, both_ways=False)


def on_squared_paper(digit: Pixels, draw: Draw) -> bytes:
    return _on_lines(digit, draw, both_ways=True)


def coloured(digit: Pixels, draw: Draw) -> bytes:
    """Ink of one colour on paper of another, at least a little apart in lightness."""
    cover = sheet(digit, draw)
    while True:
        paper, ink = draw.uniform(0, 1, (2, 3))
        if abs((paper - ink) @ (0.299, 0.587, 0.114)) > 0.15:
            break
    pixels = np.rint((paper + cover[..., None] * (ink - paper)) * 255).astype(np.uint8)
    return jpeg(pixels, int(draw.integers(70, 96))) if draw.integers(2) else png(pixels)


def jpeg_noise(digit: Pixels, draw: Draw) -> bytes:
    """Of a quality of 8 to 30."""
    light = either_way(in_ink(sheet(digit, draw), draw), draw)
    return jpeg(np.rint(light.clip(0, 1) * 255).astype(np.uint8), int(draw.integers(8, 31)))


def low_contrast(digit: Pixels, draw: Draw) -> bytes:
    """Ink and paper 25 to 60 levels of 255 apart."""
    paper, apart = draw.uniform(0.35, 0.65), draw.uniform(25, 60) / 255
    return encoded(paper + sheet(digit, draw) * (apart if draw.integers(2) else -apart), draw)


def noisy(digit: Pixels, draw: Draw) -> bytes:
    """In bad light: grain of 5 to 10 % of the whole range."""
    return encoded(in_ink(sheet(digit, draw, extent=(0.45, 0.75)), draw), draw, grain=draw.uniform(0.05, 0.1))


def turned(digit: Pixels, draw: Draw) -> bytes:
    """By up to 15 degrees."""
    return encoded(either_way(in_ink(sheet(digit, draw, turned=draw.uniform(-15, 15)), draw), draw), draw)


def thin(digit: Pixels, draw: Draw) -> bytes:
    return encoded(in_ink(sheet(digit, draw, heavier=-draw.uniform(0.008, 0.025)), draw), draw)


def thick(digit: Pixels, draw: Draw) -> bytes:
    return encoded(in_ink(sheet(digit, draw, heavier=draw.uniform(0.015, 0.04)), draw), draw)


def few_bits(digit: Pixels, draw: Draw) -> bytes:
    """2 to 4 bits in the low ones of 8, where nobody has stretched them."""
    levels = 2 ** int(draw.integers(2, 5)) - 1
    return png(np.rint(either_way(sheet(digit, draw), draw) * levels).astype(np.uint8))


def few_bits_of_16(digit: Pixels, draw: Draw) -> bytes:
    """8 to 12 bits in the low ones of 16: cameras and scanners of science and medicine."""
    levels = 2 ** int(draw.integers(8, 13)) - 1
    return png(np.rint(either_way(in_ink(sheet(digit, draw), draw), draw) * levels).astype(np.uint16))


def specked(digit: Pixels, draw: Draw) -> bytes:
    """Dust, dots and short hairs."""
    cover = Image.fromarray((sheet(digit, draw, extent=(0.4, 0.75)) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(cover)
    for _ in range(draw.integers(3, 25)):
        x, y = draw.uniform(0, SIDE, 2)
        half = draw.uniform(0.5, 3)
        pen.ellipse((x - half, y - half, x + half, y + half), fill=int(draw.integers(120, 256)))
    return encoded(either_way(in_ink(np.asarray(cover) / 255, draw), draw), draw)


def beside_things(digit: Pixels, draw: Draw) -> bytes:
    """A pencil, a coin or a paper clip's shape in a corner."""
    light = in_ink(laid(strokes(digit, SIDE * draw.uniform(0.35, 0.55)), draw, (0.04, 0.04, 0.7, 0.7)), draw)
    thing = Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(thing)
    if draw.integers(2):
        middle, radius = draw.uniform(0.82, 0.9) * SIDE, draw.uniform(0.06, 0.09) * SIDE
        pen.ellipse((middle - radius, middle - radius, middle + radius, middle + radius), fill=255)
    else:
        ends = draw.uniform(0.78, 1.1, 2) * SIDE
        pen.line((ends[0], SIDE, SIDE, ends[1] - 0.5 * SIDE), fill=255, width=int(draw.integers(8, 22)))
    light = np.where(np.asarray(thing) > 0, draw.uniform(0.2, 0.6), light)
    return encoded(light, draw)


def large(digit: Pixels, draw: Draw) -> bytes:
    """A phone's picture, eight megapixels, of a sheet on a table."""
    small = Image.open(BytesIO(photographed(digit, draw))).convert("L")
    stream = BytesIO()
    small.resize((2800, 2800), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
    return stream.getvalue()


# --- the kinds that do not


def blank(digit: Pixels, draw: Draw) -> bytes:
    """Paper in uneven light, with a camera's noise, an edge, a shadow, folds or lines."""
    del digit
    light = np.full((SIDE, SIDE), draw.uniform(0.15, 0.95)) * (1 + draw.uniform(0, 0.5) * ramp(draw))
    what = draw.integers(6)
    if what == 0:
        light *= shadow(draw)
    if what == 1:
        light = np.where(ramp(draw) < -0.42, draw.uniform(0, 1), light)
    if what == 2:
        ruled = lines(draw, apart=draw.uniform(20, 60), width=1.5, both_ways=bool(draw.integers(2)))
        light *= 1 - ruled * draw.uniform(0.1, 0.6)
    if what == 3:
        light += draw.normal(0, draw.uniform(0.02, 0.1), light.shape)
    return encoded(light, draw, grain=draw.uniform(0, 0.04))


def tiny(digit: Pixels, draw: Draw) -> bytes:
    """A few pixels that hold nothing."""
    del digit
    height, width = draw.integers(1, 6, 2)
    return png(draw.integers(0, 256, (height, width), dtype=np.uint8))


def two_digits(digit: Pixels, draw: Draw) -> bytes:
    """Beside each other, or one above the other, of about one size."""
    other = mnist.images()[draw.integers(10_000)]
    length = SIDE * draw.uniform(0.3, 0.42)
    one, two = (strokes(each, length * draw.uniform(0.85, 1.1)) for each in (digit, other))
    cover = np.maximum(laid(one, draw, (0.03, 0.1, 0.48, 0.9)), laid(two, draw, (0.52, 0.1, 0.97, 0.9)))
    if draw.integers(4) == 0:
        cover = np.maximum(laid(one, draw, (0.1, 0.03, 0.9, 0.48)), laid(two, draw, (0.1, 0.52, 0.9, 0.97)))
    return encoded(either_way(in_ink(cover, draw), draw), draw)


def cut_off(digit: Pixels, draw: Draw) -> bytes:
    """A digit of which a third to a half lies outside of the picture."""
    cover = sheet(digit, draw, extent=(0.5, 0.8))
    (rows,), (columns,) = cover.max(1).nonzero(), cover.max(0).nonzero()
    by = draw.uniform(0.33, 0.5)
    side = draw.integers(4)
    if side < 2:
        cut = round(by * np.ptp(rows))
        cover = cover[rows[0] + cut :] if side else cover[: rows[-1] - cut]
    else:
        cut = round(by * np.ptp(columns))
        cover = cover[:, columns[0] + cut :] if side == 2 else cover[:, : columns[-1] - cut]
    return encoded(either_way(in_ink(cover, draw), draw), draw)


def letter(digit: Pixels, draw: Draw) -> bytes:
    """One that looks like no digit, in Pillow's own font, distorted."""
    del digit
    image = Image.new("L", (160, 160))
    text = "ACDEFGHJKMNPQRTUVWXYabdefhkmnprtuwxy"[draw.integers(36)]
    ImageDraw.Draw(image).text((80, 80), text, fill=255, font=ImageFont.load_default(110), anchor="mm")
    image = image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1, draw.uniform(-0.3, 0.3), 0, draw.uniform(-0.1, 0.1), 1, 0),
        Image.Resampling.BICUBIC,
    )
    cover = sheet(np.asarray(image), draw, turned=draw.uniform(-10, 10))
    return encoded(either_way(in_ink(cover, draw), draw), draw)


def doodle(digit: Pixels, draw: Draw) -> bytes:
    """Scribbles, zigzags, stars and blots."""
    del digit
    image = Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(image)
    width = int(draw.integers(5, 16))
    what = draw.integers(4)
    if what == 0:
        points: NDArray[Any] = draw.uniform(0.15, 0.85, (draw.integers(5, 14), 2)) * SIDE
    elif what == 1:
        n = int(draw.integers(6, 12))
        points = np.stack([np.linspace(0.15, 0.85, n), np.where(np.arange(n) % 2, 0.3, 0.7)], 1) * SIDE
    elif what == 2:
        turns: NDArray[Any] = np.linspace(0, draw.uniform(3, 6) * 2 * math.pi, 200)
        points = (0.5 + 0.35 * (turns / turns[-1])[:, None] * np.stack([np.cos(turns), np.sin(turns)], 1)) * SIDE
    else:
        turns = np.arange(6) * (4 * math.pi / 5) + draw.uniform(0, 6)
        points = (0.5 + 0.35 * np.stack([np.cos(turns), np.sin(turns)], 1)) * SIDE
    pen.line([tuple(point) for point in points.tolist()], fill=255, width=width, joint="curve")
    return encoded(either_way(in_ink(np.asarray(image) / 255, draw), draw), draw)


# --- another set


def optdigits(digit: Pixels, draw: Draw) -> bytes:
    """Of 8x8 pixels, as scikit-learn has them."""
    del draw
    return png(digit)


def optdigits_enlarged(digit: Pixels, draw: Draw) -> bytes:
    side = int(draw.integers(24, 200))
    larger = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    return encoded(either_way(np.asarray(larger) / 255, draw), draw, grain=0)


def _optdigits() -> tuple[Pixels, Pixels]:
    """The 1,797 digits of UCI's Optical Recognition of Handwritten Digits, `[N, 8, 8]`, and their labels."""
    table = np.loadtxt(Path(__file__).parent / "data" / "optdigits" / "digits.csv.gz", np.uint8, delimiter=",")
    return np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), table[:, -1]


Kind: TypeAlias = Callable[[Pixels, Draw], bytes]


def _named(*functions: Kind) -> dict[str, Kind]:
    return {function.__name__.replace("_", " "): function for function in functions}


DIGITS = _named(
    plain,
    as_they_are,
    pasted,
    cropped,
    framed,
    framed_mnist,
    cell,
    cut_cell,
    scan_edge,
    on_dark_table,
    on_light_table,
    photographed,
    thumbed,
    shadowed,
    dark_corners,
    on_ruled_paper,
    on_squared_paper,
    coloured,
    jpeg_noise,
    low_contrast,
    noisy,
    turned,
    thin,
    thick,
    few_bits,
    few_bits_of_16,
    specked,
    beside_things,
    large,
)
"""What shows one digit."""
OTHERS = _named(blank, tiny, two_digits, cut_off, letter, doodle)
"""What does not."""
OF_ANOTHER_SET = _named(optdigits, optdigits_enlarged)
ALL = DIGITS | OTHERS | OF_ANOTHER_SET


def pictures(kind: str, count: int, seed: int) -> Iterator[tuple[bytes, int]]:
    """At most `count` pictures of different digits, with their labels; of every kind of the same ones."""
    draw = np.random.default_rng(seed)
    images, labels = _optdigits() if kind in OF_ANOTHER_SET else (mnist.images(), mnist.labels())
    for row in draw.permutation(len(images))[:count]:
        yield ALL[kind](images[row], draw), int(labels[row])
