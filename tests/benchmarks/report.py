"""What was measured, as a table for people, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import checks, figures, machine, plot, table
from benchmarks.bench import Measured, Plan
from benchmarks.runs import BatchRun, PostedRun
from benchmarks.variants import EMPTY, Variant


def write(measured: Measured, plan: Plan, variants: Sequence[Variant], output: Path) -> list[str]:
    """Print the table, write the rest into the directory `output`; a sentence for each check that failed."""
    posted = [run for run in measured.runs if isinstance(run, PostedRun)]
    throughput = figures.throughput(posted)
    slow = figures.slow(posted)
    batched = figures.batched([run for run in measured.runs if isinstance(run, BatchRun)])
    whole = figures.whole(measured.runs, measured.outcomes, measured.ready, reference=EMPTY)
    problems = checks.problems(variants, whole, slow, batched, versioned=measured.versioned)
    about = machine.described()
    spread = f"median (least..most) of {plan.rounds} x {plan.events} events"
    caption = f"{machine.sentence(about, measured.servers)}; {spread}"

    output.mkdir(parents=True, exist_ok=True)
    everything = {
        "machine": about,
        "servers": measured.servers,
        "versioned": measured.versioned,
        "plan": asdict(plan),
        "left_out": measured.left_out,
        "problems": problems,
        "throughput": [asdict(row) for row in throughput],
        "slow_store": [asdict(row) for row in slow],
        "batches": [asdict(row) for row in batched],
        "whole": [asdict(row) for row in whole],
        "ready_seconds": measured.ready,
        "runs": [
            asdict(run) | (asdict(measured.outcomes[run.name]) if run.name in measured.outcomes else {})
            for run in measured.runs
        ],
    }
    (output / "bench.json").write_text(json.dumps(everything, indent=1) + "\n")
    if posted:
        plot.write(output / "bench.png", throughput, caption)

    tables = [
        *([table.throughputs(throughput), table.slows(slow)] if posted else []),
        *([table.batches(batched)] if batched else []),
        table.wholes(whole, EMPTY),
    ]
    left_out = [f"left out: {name}: {reason}" for name, reason in measured.left_out.items()]
    print(caption, *tables, *left_out, sep="\n\n")
    return problems
