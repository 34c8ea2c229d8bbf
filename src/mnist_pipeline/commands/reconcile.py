"""`mnist-pipeline reconcile`: one run of the `Reconciler` on the store, Kafka and the predictor of the settings."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.commands import arguments, predictor_flags, usage
from mnist_pipeline.commands.serve import pipeline_of
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.settings import Settings, SettingsError
from mnist_pipeline.pipeline.task import Task
from mnist_pipeline.site.reconcile import Listing, Reconciler, missed

if TYPE_CHECKING:
    from mnist_pipeline.serving.transformer import ObjectTransformer

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Send the objects whose notification was lost down the transformer's path: whatever has been in a source bucket for
longer than --older-than. It may run at any time, also beside live traffic and beside itself.

The settings are those of the transformer, from the environment (`serve --help` has them all).
"""

_EXAMPLES = """\
  mnist-pipeline reconcile --dry-run                                    # only list what was missed
  mnist-pipeline reconcile --predictor_host mnist-predictor             # send it down the path
  mnist-pipeline reconcile --predictor_host mnist-predictor --older-than 1h --rate 20
"""

_CODES = """\
  0  nothing that was missed is left
  1  something is: a line on the standard error says why; with --dry-run, something was missed
  2  settings that cannot work

It gives up where the store, Kafka or the predictor is away. SIGTERM and Ctrl-C end it after the objects in hand.
What the store does not let go (retained: object lock, no right to delete) is published once and counts as settled.
"""


def main(argv: Sequence[str], *, task: Task, model: type[ObjectTransformer] | None = None) -> int:
    """Reconcile once; exit code 0, 1 or 2. `task` and `model` are those of `serve`."""
    args = parser(task).parse_args(argv)
    try:
        settings = _settings(task, args)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("mnist_pipeline").setLevel(logging.INFO)
    # KafkaPublisher says the same in one line.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(_dry_run(settings, args) if args.dry_run else _run(settings, args, model))
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    except PipelineError as exc:
        print(f"the listing was cut short: {exc}", file=sys.stderr)
        return 1


def parser(task: Task) -> argparse.ArgumentParser:
    """The flags."""
    parser = usage.command_parser("reconcile", description=_DESCRIPTION, examples=_EXAMPLES, codes=_CODES)
    parser.add_argument(
        "--older-than",
        type=arguments.duration,
        default="5m",
        metavar="TIME",
        help="leave younger objects to their events: a number of s, m, h or d (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be sent")
    parser.add_argument(
        "--rate", type=arguments.rate, metavar="N", help="at most N objects a second (default: no limit)"
    )
    predictor_flags.add_to(parser, task, why="where the predictor is")
    return parser


def _settings(task: Task, args: argparse.Namespace) -> Settings:
    problems = []
    if not args.predictor_host and not args.dry_run:
        problems.append("--predictor_host is missing: the predictor's HOST[:PORT]")
    try:
        settings = Settings.from_environ(
            os.environ, task, model_name=args.model_name, predictor_protocol=args.predictor_protocol
        )
    except SettingsError as exc:
        raise SettingsError([*problems, *exc.problems]) from exc
    if settings.minio is None:
        problems.append("MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set: there is no store to list")
    if problems:
        raise SettingsError(problems)
    return settings


async def _dry_run(settings: Settings, args: argparse.Namespace) -> int:
    number = 0
    async with _listing(settings) as listing:
        async for ref in missed(listing, settings, older_than_seconds=args.older_than):
            # Keys may have anything in them that a terminal obeys.
            print(f"{ref.bucket}/{ascii(ref.key)[1:-1]}")
            number += 1
    print(f"{number:,} missed", file=sys.stderr)
    return 1 if number else 0


async def _run(settings: Settings, args: argparse.Namespace, kind: type[ObjectTransformer] | None) -> int:
    # Not before here: its imports take seconds.
    from mnist_pipeline.serving.transformer import ObjectTransformer

    model = (kind or ObjectTransformer)(args.model_name, pipeline_of(settings), predictor_flags.config_of(args))
    reconciler = Reconciler(model.pipeline, model.classify, go=model.through_hooks({}), rate=args.rate)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, reconciler.stop)
    try:
        async with _listing(settings) as listing:
            await reconciler.run(listing, older_than_seconds=args.older_than)
    finally:
        await model.close_clients()
        print(reconciler.summary(), flush=True)
    if reconciler.gave_up:
        print("gave up: nothing could be settled any more", file=sys.stderr)
    return 1 if reconciler.left or reconciler.gave_up or reconciler.stopped else 0


@contextlib.asynccontextmanager
async def _listing(settings: Settings) -> AsyncIterator[Listing]:
    if settings.minio is None:
        raise AssertionError("the settings were looked at")
    store = MinioObjectStore(settings.minio, connections=1)
    try:
        yield store
    finally:
        await store.close()
