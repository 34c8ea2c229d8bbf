"""`mnist-pipeline replay`: dead letters of a topic, or objects in the rejected bucket, go down the path again."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace

from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.client.replay import GivenUp, Replay, dead_letters, rejected_objects
from mnist_pipeline.client.sink import Sink
from mnist_pipeline.commands import arguments, usage
from mnist_pipeline.commands.console import printable
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.settings import Kafka, Minio, Settings, SettingsError
from mnist_pipeline.pipeline.task import Task

_DESCRIPTION = """\
Send again what was given up, once its cause is mended. The dead letters on a topic are posted to --sink, inline
requests too. With --rejected, the objects in REJECTED_BUCKET are uploaded into the source bucket, and their events take
them down the path. It may run more than once and beside live traffic: nothing is filed twice.

Nothing is deleted: dead letters stay on their topic, and a rejected object gets the tag `replayed`, by which the next
run leaves it alone. The settings are those of the transformer, from the environment; --rejected needs the right to
write into the source bucket.
"""

_EXAMPLES = """\
  # What the manifests' KafkaSource and Trigger have given up:
  mnist-pipeline replay --topic knative-broker-mnist-dead-letters --sink http://localhost:8080/ --dry-run
  mnist-pipeline replay --topic knative-broker-mnist-dead-letters --sink http://localhost:8080/ --since 2h --rate 20
  # Images that an older version could not read:
  mnist-pipeline replay --rejected --reason badimage
"""

_CODES = """\
  0  all of it was taken; with --dry-run, there is nothing
  1  some was not: a line on the standard error says why; with --dry-run, there is something
  2  settings that cannot work
"""


def parser(task: Task) -> argparse.ArgumentParser:
    """The flags."""
    del task
    parser = usage.command_parser("replay", description=_DESCRIPTION, examples=_EXAMPLES, codes=_CODES)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--topic", type=arguments.topic, help="of dead letters, in Kafka's words; with --sink")
    what.add_argument("--rejected", action="store_true", help="the objects in REJECTED_BUCKET")
    parser.add_argument("--sink", type=arguments.url, metavar="URL", help="the transformer's, or a Broker's")
    parser.add_argument(
        "--since", type=arguments.duration, metavar="TIME", help="only dead letters of the last 2h, say"
    )
    parser.add_argument("--bucket", help="where rejected objects go (default: the one of SOURCE_BUCKETS)")
    parser.add_argument("--again", action="store_true", help="rejected objects also that were replayed before")
    parser.add_argument("--reason", metavar="WORD", help="only what was given up for this reason")
    parser.add_argument("--rate", type=arguments.rate, metavar="N", help="at most N a second (default: no limit)")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be sent")
    return parser


def main(argv: Sequence[str], *, task: Task) -> int:
    """Replay once; exit code 0, 1 or 2."""
    flags = parser(task)
    options = flags.parse_args(argv)
    if options.topic and not options.sink:
        flags.error("--topic needs --sink: the URL where the dead letters are posted")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        settings = Settings.from_environ(os.environ, task)
        return asyncio.run(_run(settings, options))
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    except PipelineError as exc:
        print(f"cut short: {exc}", file=sys.stderr)
        return 1


async def _run(settings: Settings, options: argparse.Namespace) -> int:
    async with _given_up(settings, options) as found:
        if options.dry_run:
            return await _dry_run(one async for one in found if options.reason in (None, one.reason))
        replay = Replay(rate=options.rate)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, replay.stop)
        try:
            await replay.run(found, reason=options.reason)
        finally:
            print(f"{replay.sent:,} replayed, {replay.failed:,} not", flush=True)
    return int(replay.failed > 0 or replay.stopped)


async def _dry_run(found: AsyncIterator[GivenUp]) -> int:
    number = 0
    async for one in found:
        print(f"{printable(one.name)}  {printable(one.reason)}")
        number += 1
    print(f"{number:,} to be replayed", file=sys.stderr)
    return int(number > 0)


@contextlib.asynccontextmanager
async def _given_up(settings: Settings, options: argparse.Namespace) -> AsyncIterator[AsyncGenerator[GivenUp, None]]:
    async with contextlib.AsyncExitStack() as exit_stack:
        if options.topic:
            sink = Sink(options.sink)
            exit_stack.push_async_callback(sink.close)
            found = dead_letters(_kafka(settings, options.topic), sink, since=arguments.ago(options.since))
        else:
            minio, bucket = _minio(settings), _source_bucket(settings, options.bucket)
            store = MinioObjectStore(minio)
            exit_stack.push_async_callback(store.close)
            found = rejected_objects(store, settings, bucket, again=options.again)
        yield await exit_stack.enter_async_context(contextlib.aclosing(found))


def _kafka(settings: Settings, topic: str) -> Kafka:
    if settings.kafka is None:
        raise SettingsError(["KAFKA_BOOTSTRAP_SERVERS is not set: there are no dead letters to read"])
    return replace(settings.kafka, topic=topic)


def _minio(settings: Settings) -> Minio:
    if settings.minio is None:
        raise SettingsError(["MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set: there is no store"])
    return settings.minio


def _source_bucket(settings: Settings, given: str | None) -> str:
    """What a rejected object does not tell: from which bucket it came."""
    buckets = settings.source_buckets
    if given not in (None, *buckets) or (given is None and len(buckets) > 1):
        raise SettingsError([f"--bucket: which of SOURCE_BUCKETS is meant, {', '.join(buckets)}?"])
    return given or buckets[0]
