"""Draws the sample objects beside it: `python draw.py`."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).parent


PICTURES: dict[str, list[tuple[str, tuple[int, ...], str]]] = {
    "photos/boat.jpg": [
        ("rectangle", (0, 0, 160, 80), "skyblue"),
        ("rectangle", (0, 80, 160, 120), "navy"),
        ("polygon", (50, 70, 110, 70, 80, 20), "white"),
    ],
    "photos/tree.jpg": [
        ("rectangle", (0, 0, 160, 120), "lightyellow"),
        ("rectangle", (74, 60, 86, 120), "sienna"),
        ("ellipse", (45, 10, 115, 75), "green"),
    ],
    "photos/car.JPG": [
        ("rectangle", (30, 50, 130, 90), "red"),
        ("ellipse", (40, 80, 64, 104), "gray"),
        ("ellipse", (96, 80, 120, 104), "gray"),
    ],
    "fashion/trouser.png": [
        ("rectangle", (50, 12, 110, 30), "white"),
        ("rectangle", (50, 30, 76, 110), "white"),
        ("rectangle", (84, 30, 110, 110), "white"),
    ],
    "fashion/bag.png": [("ellipse", (60, 10, 100, 70), "gray"), ("rectangle", (35, 45, 125, 105), "lightgray")],
}


def draw() -> None:
    """Draw all of them; always the same."""
    for name, shapes in PICTURES.items():
        picture = Image.new("RGB", (160, 120))
        for shape, box, colour in shapes:
            getattr(ImageDraw.Draw(picture), shape)(box, fill=colour)
        (HERE / name).parent.mkdir(exist_ok=True)
        picture.save(HERE / name, quality=85)
    numbers = np.random.default_rng(7).normal(20, 1, (3, 16))
    numbers[2, 9] += 30
    (HERE / "readings").mkdir(exist_ok=True)
    for name, row in zip(("monday", "tuesday", "wednesday"), numbers, strict=True):
        (HERE / f"readings/{name}.csv").write_text(",".join(f"{number:.2f}" for number in row) + "\n")


if __name__ == "__main__":
    draw()
