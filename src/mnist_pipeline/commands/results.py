"""`mnist-pipeline results`: predictions as they lie on Kafka, or that of one trace id."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Sequence
from datetime import datetime

import orjson

from mnist_pipeline.client.client import AsyncPredictionClient
from mnist_pipeline.client.errors import PredictionRejected, ResultTimeout
from mnist_pipeline.commands import arguments, usage
from mnist_pipeline.commands.console import printable
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.published import PredictionResult
from mnist_pipeline.pipeline.settings import SettingsError
from mnist_pipeline.pipeline.task import Task

_DESCRIPTION = """\
Print the results on KAFKA_TOPIC: those of the last ten minutes; with --trace-id that of one image or request, for which
only its partition is read, and which is waited for. Both event modes are understood.

Where Kafka is, and who we are there, the KAFKA_* variables say, as for the transformer.
"""

_EXAMPLES = """\
  mnist-pipeline results --since 1h                            # what was published in the last hour
  mnist-pipeline results --follow                              # and what comes, until Ctrl-C
  mnist-pipeline results --trace-id 16ec3446-48d6-422e-9926-8224853e84a7
  mnist-pipeline results --follow --json | jq -r '.data.predictions[0]'
"""

_CODES = """\
  0    printed; with --trace-id, there is a prediction
  1    Kafka is away or refuses us; with --trace-id, rejected, or not there in time
  2    settings that cannot work
  130  stopped by Ctrl-C
"""


def parser(task: Task) -> argparse.ArgumentParser:
    """The flags."""
    del task
    parser = usage.command_parser("results", description=_DESCRIPTION, examples=_EXAMPLES, codes=_CODES)
    parser.add_argument("--trace-id", type=arguments.trace_id, metavar="ID", help="the result of this one alone")
    parser.add_argument("--follow", action="store_true", help="go on with those that come, until Ctrl-C")
    parser.add_argument(
        "--since",
        type=arguments.duration,
        metavar="TIME",
        help="how far to go back: a number of s, m, h or d (default: 10m; with --trace-id, all that is there)",
    )
    parser.add_argument(
        "--timeout",
        type=arguments.duration,
        default="30s",
        metavar="TIME",
        help="how long to wait for that of --trace-id (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print each event as JSON, in a line")
    return parser


def main(argv: Sequence[str], *, task: Task) -> int:
    """Print results; exit code 0, 1 or 2."""
    options = parser(task).parse_args(argv)
    try:
        return asyncio.run(_run(AsyncPredictionClient.from_environ(task), options))
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    except PipelineError as exc:
        print(exc, file=sys.stderr)
        return 1


async def _run(client: AsyncPredictionClient, options: argparse.Namespace) -> int:
    since = "10m" if options.since is None and options.trace_id is None else options.since
    if isinstance(since, str):
        since = arguments.duration(since)
    begin = arguments.ago(since)
    if options.trace_id is not None and not options.follow:
        return await _one(client, options, begin)
    results = client.results(trace_id=options.trace_id, since=begin, follow=options.follow)
    async with contextlib.aclosing(results) as found:
        async for result in found:
            _print(result, as_json=options.json)
    return 0


async def _one(client: AsyncPredictionClient, options: argparse.Namespace, since: datetime | None) -> int:
    try:
        result = await client.result(options.trace_id, since=since, timeout=options.timeout)
    except PredictionRejected as exc:
        _print(exc.result, as_json=options.json)
        print(exc, file=sys.stderr)
        return 1
    except ResultTimeout as exc:
        print(exc, file=sys.stderr)
        return 1
    _print(result, as_json=options.json)
    return 0


def _print(result: PredictionResult, *, as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(result.event).decode(), flush=True)
    else:
        print(f"{result.time:%Y-%m-%d %H:%M:%S}  {printable(result.trace_id)}  {described(result)}", flush=True)


def described(result: PredictionResult) -> str:
    """What a result says, for people: what was asked about, the prediction with its score, where it was filed."""
    name, place = printable(result.subject or "inline"), printable(result.destination or "")
    if result.is_rejected:
        return f"{name}  rejected: {printable(result.reason)}" + (f"  {place}" if place else "")
    scores = [f" ({score:.2f})" for score in result.scores] or [""] * len(result.predictions)
    labels = ", ".join(
        f"{printable(str(label))}{score}" for label, score in zip(result.predictions, scores, strict=False)
    )
    return f"{name}  {labels}" + (f"  {place}" if place else "") + ("  to be reviewed" if result.is_doubtful else "")
