"""The figures as a picture: own CPU and events a second, a line a variant, with the spread as a bar."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, Throughput
from benchmarks.variants import EMPTY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (10.5, 4.4)
_DPI = 90


def write(path: Path, rows: Sequence[Throughput], caption: str) -> None:
    """Draw `rows` into a PNG, with the caption below."""
    # It takes a second to import, and nothing else needs it.
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    drawing, (cpu, rate) = plt.subplots(1, 2, figsize=_INCHES)
    in_flight = sorted({row.in_flight for row in rows})
    for axes, label in ((cpu, "own CPU, ms an event"), (rate, "events a second")):
        axes.set_xlabel("events in flight")
        axes.set_ylabel(label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(in_flight, [str(number) for number in in_flight])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    variants = dict.fromkeys(row.variant for row in rows)
    for variant in variants:
        own = sorted((row for row in rows if row.variant == variant), key=lambda row: row.in_flight)
        places = [row.in_flight for row in own]
        _line(cpu, places, [row.cpu_ms for row in own], variant)
        # What does nothing answers thousands of events a second; the others would be one line at the bottom.
        if variant != EMPTY:
            _line(rate, places, [row.rate for row in own], variant)
        else:
            rate.errorbar([], [])  # so that each variant has the same colour on both sides
    for axes in (cpu, rate):
        axes.set_ylim(bottom=0)
    drawing.text(0.01, 0.01, "\n".join(textwrap.wrap(caption, 170)), fontsize=7, color="0.35", va="bottom")
    drawing.legend(*cpu.get_legend_handles_labels(), loc="upper center", ncols=len(variants), fontsize="small")
    drawing.tight_layout(rect=(0, 0.07, 1, 0.94))
    drawing.savefig(path, dpi=_DPI)
    plt.close(drawing)


def _line(axes: Axes, places: list[int], figures: list[Figure], label: str) -> None:
    medians = [figure.median for figure in figures]
    spread = (
        [figure.median - figure.least for figure in figures],
        [figure.most - figure.median for figure in figures],
    )
    axes.errorbar(places, medians, yerr=spread, marker="o", markersize=4, capsize=3, label=label)
