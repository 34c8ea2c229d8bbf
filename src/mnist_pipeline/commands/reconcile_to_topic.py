"""`mnist-pipeline reconcile --to-topic`: one run of the `Announcer` on the store and Kafka of the settings."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mnist_pipeline.adapters.kafka import publisher_of
from mnist_pipeline.adapters.kafka_topics import Topics
from mnist_pipeline.adapters.refusals import Away, Refused
from mnist_pipeline.pipeline.errors import KafkaUnavailable, PipelineError
from mnist_pipeline.pipeline.settings import Kafka, Settings, SettingsError
from mnist_pipeline.site import progress
from mnist_pipeline.site.announcing import Announcer
from mnist_pipeline.site.reconcile import Listing
from mnist_pipeline.site.shards import Shard


async def run(settings: Settings, kafka: Kafka, listing: Listing, args: argparse.Namespace) -> int:
    """Announce on the topic of `kafka`; exit code 0 or 1.

    Raises:
        SettingsError: the file of --progress cannot be used.
    """
    this_run = {"topic": kafka.topic, "buckets": list(settings.source_buckets)}
    begin = _read(args.progress, this_run) if args.progress else None
    publisher = publisher_of(kafka)
    announcer = Announcer(
        listing,
        publisher,
        settings,
        older_than_seconds=args.older_than,
        shards=args.shards,
        begin=begin,
        rate=args.rate,
        keep=partial(progress.write, args.progress, this_run) if args.progress else None,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, announcer.stop)
    try:
        await _look_for_topic(kafka)
        await announcer.run()
    except (PipelineError, Refused, Away) as exc:
        print(f"cut short: {exc}", file=sys.stderr)
    except OSError as exc:
        print(f"cut short: {args.progress} cannot be written: {exc.strerror}", file=sys.stderr)
    finally:
        await publisher.close()
    print(announcer.summary(), flush=True)
    if not announcer.left:
        return 0
    if args.progress:
        print(f"the same command goes on where it ended, by {args.progress}", file=sys.stderr)
    else:
        left = progress.text_of(this_run, announcer.left)
        print(f"--progress FILE goes on where it ended, with this line in the file: {left}", file=sys.stderr)
    return 1


def _read(path: Path, this_run: Mapping[str, Any]) -> list[Shard] | None:
    try:
        return progress.read(path, this_run)
    except OSError as exc:
        raise SettingsError([f"--progress: {path} cannot be read: {exc.strerror}"]) from exc
    except ValueError as exc:
        raise SettingsError([f"--progress: {path} {exc}; remove it to begin at the front"]) from exc


async def _look_for_topic(kafka: Kafka) -> None:
    """See that the topic is there: some brokers make one that is written to, with too few partitions.

    Raises:
        KafkaUnavailable, Refused, Away: it is not, or nobody tells.
    """
    topics = await Topics.connect(kafka)
    try:
        if await topics.describe(kafka.topic) is None:
            raise KafkaUnavailable(
                f"there is no topic {kafka.topic}: mnist-pipeline setup --topic {kafka.topic} makes it"
            )
    finally:
        await topics.close()
