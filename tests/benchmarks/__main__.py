"""Compare the transformer with a bare script and an empty KServe, side by side: `make bench`.

All variants run at once and are asked in turn, round by round, so that whatever else the machine does meets each of
them: first those that are posted their events, then those that read them from Kafka, a batch at a time. Own CPU is what
holds; events a second depend on how many cores are left to the store and the broker. Written are a table to stdout, all
figures to `bench.json` and a picture to `bench.png`. The exit code is 1 where an object was lost or misfiled, or took
more S3 requests than it should; never because of a time.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import place, report, variants
from benchmarks.bench import Plan, run
from mnist_pipeline.local.processes import PartFailed
from servers.cache import BuildFailed, ToolMissing

_SMALL = Plan(rounds=1, events=100, in_flight=(1, 8, 64), batches=(1, 32), warm_up=20, starts=1)


def main() -> int:
    """Run the command; its exit code."""
    default = Plan()
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help=f"default {default.rounds}")
    parser.add_argument("--events", type=int, help=f"of each run; default {default.events}")
    parser.add_argument("--in-flight", type=int, nargs="+", help=f"default {' '.join(map(str, default.in_flight))}")
    parser.add_argument("--batches", type=int, nargs="+", help=f"default {' '.join(map(str, default.batches))}")
    parser.add_argument("--starts", type=int, help=f"turns of starting each variant; default {default.starts}")
    parser.add_argument("--variants", nargs="+", default=[], choices=variants.known_words(), help="default: all")
    parser.add_argument("--stack", choices=place.KINDS, default="auto", help="auto: MinIO and Apache Kafka if possible")
    parser.add_argument("--output", type=Path, default=Path("build/bench"), help="directory; default %(default)s")
    parser.add_argument("--small", action="store_true", help="a minute, for the checks and not for the figures")
    flags = parser.parse_args()
    plan = _SMALL if flags.small else default
    named = {name: getattr(flags, name) for name in ("rounds", "events", "in_flight", "batches", "starts")}
    plan = replace(plan, **{name: value for name, value in named.items() if value is not None})
    chosen = variants.chosen(flags.variants)
    try:
        measured = run(plan, chosen, stack=flags.stack)
    except (PartFailed, BuildFailed, ToolMissing) as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # as a shell says it
    problems = report.write(measured, plan, chosen, flags.output)
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
