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
from dataclasses import replace
from http.client import HTTPException
from typing import TYPE_CHECKING

from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.commands import arguments, predictor_flags, usage
from mnist_pipeline.commands.environment import problems_of_metrics
from mnist_pipeline.commands.serve import pipeline_of
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.settings import Settings, SettingsError
from mnist_pipeline.pipeline.task import Task
from mnist_pipeline.site.reconcile import Listing, Reconciler, missed
from mnist_pipeline.telemetry import logs

if TYPE_CHECKING:
    from mnist_pipeline.serving.transformer import ObjectTransformer

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Send the objects whose notification was lost down the transformer's path: whatever has been in a source bucket for
longer than --older-than. It may run at any time, also beside live traffic and beside itself.

With --to-topic it writes their notifications to a topic, as MinIO does, so that whatever reads that topic does the
work. This is for millions that lie there already, and needs no predictor. Of an object with several versions only the
current one is listed: run it again for those beneath.

The settings are those of the transformer, from the environment (`serve --help` has them all).
"""

_EXAMPLES = """\
  mnist-pipeline reconcile --dry-run                                    # only list what was missed
  mnist-pipeline reconcile --predictor_host mnist-predictor             # send it down the path
  mnist-pipeline reconcile --predictor_host mnist-predictor --older-than 1h --rate 20
  # Millions, by way of the notifications' topic; started again, it goes on where it ended:
  mnist-pipeline reconcile --to-topic mnist --rate 2000 --progress progress.json
"""

_CODES = """\
  0  nothing that was missed is left; with --to-topic, all of it is announced
  1  something is: a line on the standard error says why; with --dry-run, something was missed
  2  settings that cannot work

It gives up where the store, Kafka or the predictor is away. SIGTERM and Ctrl-C end it after the objects in hand.
What the store does not let go (retained: object lock, no right to delete) is published once and counts as settled.
"""


def main(argv: Sequence[str], *, task: Task, model: type[ObjectTransformer] | None = None) -> int:
    """Reconcile once; exit code 0, 1 or 2. `task` and `model` are those of `serve`."""
    flags = parser(task)
    args = flags.parse_args(argv)
    if args.progress and not args.to_topic:
        flags.error("--progress is for --to-topic: what is sent down the path is gone from its bucket")
    if args.pushgateway and args.to_topic:
        flags.error("--pushgateway has nothing to push with --to-topic: whatever reads the topic has the metrics")
    try:
        settings = _settings(task, args)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    logs.configure(settings.log_format)
    # KafkaPublisher says the same in one line.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        if args.dry_run:
            return asyncio.run(_dry_run(settings, args))
        return asyncio.run(_announce(settings, args) if args.to_topic else _run(settings, args, model))
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
    parser.add_argument(
        "--to-topic",
        type=arguments.topic,
        metavar="TOPIC",
        help="write what was missed to this topic, as MinIO's notifications",
    )
    parser.add_argument(
        "--shards",
        type=arguments.positive,
        default=2,
        metavar="N",
        help="with --to-topic: so many parts of the buckets are listed side by side (default: %(default)s)",
    )
    parser.add_argument(
        "--progress",
        type=arguments.path,
        metavar="FILE",
        help="with --to-topic: keep here how far it is, and go on from there; the file is gone once all is announced",
    )
    parser.add_argument(
        "--pushgateway", metavar="HOST:PORT", help="push the metrics to this Prometheus Pushgateway at the end"
    )
    predictor_flags.add_to(parser, task, why="where the predictor is")
    return parser


def _settings(task: Task, args: argparse.Namespace) -> Settings:
    problems = [*problems_of_metrics(os.environ)]
    if not (args.predictor_host or args.dry_run or args.to_topic):
        problems.append("--predictor_host is missing: the predictor's HOST[:PORT]")
    try:
        settings = Settings.from_environ(
            os.environ, task, model_name=args.model_name, predictor_protocol=args.predictor_protocol
        )
    except SettingsError as exc:
        raise SettingsError([*problems, *exc.problems]) from exc
    if settings.minio is None:
        problems.append("MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set: there is no store to list")
    if args.to_topic and settings.kafka is None:
        problems.append("KAFKA_BOOTSTRAP_SERVERS is not set: there is no topic to write to")
    if args.to_topic and settings.kafka is not None and settings.kafka.topic == args.to_topic:
        problems.append(f"--to-topic is {args.to_topic}, which is KAFKA_TOPIC, where results go")
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


async def _announce(settings: Settings, args: argparse.Namespace) -> int:
    # Not before here: kafka-python takes a third of a second.
    from mnist_pipeline.commands import reconcile_to_topic

    if settings.kafka is None:
        raise AssertionError("the settings were looked at")
    async with _listing(settings, connections=args.shards) as listing:
        return await reconcile_to_topic.run(settings, replace(settings.kafka, topic=args.to_topic), listing, args)


async def _run(settings: Settings, args: argparse.Namespace, kind: type[ObjectTransformer] | None) -> int:
    # Not before here: its imports take seconds.
    from mnist_pipeline.serving.transformer import ObjectTransformer

    model = (kind or ObjectTransformer)(
        args.model_name, pipeline_of(settings, args.model_name), predictor_flags.config_of(args)
    )
    reconciler = Reconciler(model.pipeline, model.classify, go=model.through_hooks({}), rate=args.rate)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, reconciler.stop)
    try:
        async with _listing(settings) as listing:
            await reconciler.run(listing, older_than_seconds=args.older_than)
    finally:
        await model.close_clients()
        print(reconciler.summary(), flush=True)
        if args.pushgateway:
            _push(args.pushgateway, args.model_name)
    if reconciler.gave_up:
        print("gave up: nothing could be settled any more", file=sys.stderr)
    return 1 if reconciler.left or reconciler.gave_up or reconciler.stopped else 0


def _push(gateway: str, model_name: str) -> None:
    """Push the metrics, which nobody could scrape in time; that it fails changes nothing of what is settled."""
    from prometheus_client import push_to_gateway

    from mnist_pipeline.telemetry.metrics import registry

    try:
        push_to_gateway(gateway, "mnist-pipeline-reconcile", registry(), {"model_name": model_name})
    except (OSError, ValueError, HTTPException) as exc:
        print(f"the metrics were not pushed to {gateway}: {exc}", file=sys.stderr)


@contextlib.asynccontextmanager
async def _listing(settings: Settings, *, connections: int = 1) -> AsyncIterator[Listing]:
    if settings.minio is None:
        raise AssertionError("the settings were looked at")
    store = MinioObjectStore(settings.minio, connections=connections)
    try:
        yield store
    finally:
        await store.close()
