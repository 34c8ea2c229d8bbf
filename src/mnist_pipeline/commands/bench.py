"""`mnist-pipeline bench`: a load on a user's own site, and how it bears it."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from functools import partial

import orjson

from mnist_pipeline.client.client import AsyncPredictionClient
from mnist_pipeline.client.load import Load
from mnist_pipeline.commands import arguments, console, usage
from mnist_pipeline.commands.bench_report import Report
from mnist_pipeline.commands.demo_objects import DIGITS
from mnist_pipeline.commands.submit import Image, images_of
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import Permanent, PipelineError
from mnist_pipeline.pipeline.notifications import check_source
from mnist_pipeline.pipeline.settings import Kafka, Settings, SettingsError
from mnist_pipeline.pipeline.task import Task

_DESCRIPTION = """\
Upload objects into a source bucket, read their results from KAFKA_TOPIC, and tell how many the site files a second, how
long one takes from its upload until its result is read here, where that time goes, and which were lost.

So many as --in-flight says are under way at any time: the next one is uploaded when one's result has come. What is
measured is the site under that load; more in flight is a higher rate up to what the site can do, and from there on only
longer waits.

The objects are real ones. They are called bench-ID/NUMBER-NAME; the site files them under these names in its buckets,
and there they stay. It takes the rights of `submit --wait`, and the same settings from the environment: MINIO_ENDPOINT,
MINIO_ACCESS_KEY, MINIO_SECRET_KEY, KAFKA_BOOTSTRAP_SERVERS and KAFKA_TOPIC.
"""

_OF_DIGITS = """\
  mnist-pipeline bench                                         # 1,000 digits, 32 in flight
  mnist-pipeline bench --count 20000 --in-flight 256
"""

_OF_ANY_TASK = """\
  mnist-pipeline bench --file scans/ --json > bench.json       # one's own files, again and again
"""

_CODES = """\
  0    each object has a result; it may be that it was rejected
  1    some were lost or could not be uploaded, or the store or Kafka is away or refuses us
  2    settings or files that cannot work: nothing was uploaded
  130  stopped by Ctrl-C; what was measured until then is printed
"""


def parser(task: Task) -> argparse.ArgumentParser:
    """The flags."""
    has_own = isinstance(task, Digits)
    examples = (_OF_DIGITS if has_own else "") + _OF_ANY_TASK
    parser = usage.command_parser("bench", description=_DESCRIPTION, examples=examples, codes=_CODES)
    parser.add_argument(
        "--count", type=arguments.positive, default=1000, metavar="N", help="objects to upload (default: %(default)s)"
    )
    parser.add_argument(
        "--in-flight",
        type=arguments.positive,
        default=32,
        metavar="N",
        help="at most so many are uploaded and have no result yet (default: %(default)s)",
    )
    own = " (default: digits that come with it)" if has_own else ""
    parser.add_argument(
        "--file",
        type=arguments.path,
        required=not has_own,
        metavar="IMAGE",
        help=f"what to upload: a file, or a folder of files ({', '.join(task.suffixes)}), in turn{own}",
    )
    parser.add_argument("--bucket", help="a bucket of SOURCE_BUCKETS (default: the first)")
    parser.add_argument(
        "--timeout",
        type=arguments.duration,
        default="2m",
        metavar="TIME",
        help="give up, and call lost what has no result, when nothing has come for so long (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    return parser


def main(argv: Sequence[str], *, task: Task) -> int:
    """Upload, wait, tell; exit code 0, 1 or 2."""
    flags = parser(task)
    options = flags.parse_args(argv)
    try:
        settings = Settings.from_environ(os.environ, task)
        kafka = _kafka(settings)
        images, left_out = images_of([options.file or DIGITS], "", settings, inline=False)
        bucket = options.bucket or settings.source_buckets[0]
        for image in images:
            check_source(bucket, image.key, settings)
    except (SettingsError, Permanent) as exc:
        print(exc, file=sys.stderr)
        return 2
    except OSError as exc:
        flags.error(f"{exc.filename}: {exc.strerror}")
    if options.file or not images:  # beside the digits lies what is no digit
        for says in left_out:
            print(says, file=sys.stderr)
    if not images:
        flags.error("there is nothing to upload")
    return asyncio.run(_bench(settings, kafka, options, bucket, images))


def _kafka(settings: Settings) -> Kafka:
    problems = []
    if settings.minio is None:
        problems.append("MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set: there is no store to upload to")
    if settings.kafka is None:
        problems.append("KAFKA_BOOTSTRAP_SERVERS is not set: there are no results to wait for")
    if problems or settings.kafka is None:
        raise SettingsError(problems)
    return settings.kafka


async def _bench(
    settings: Settings, kafka: Kafka, options: argparse.Namespace, bucket: str, images: Sequence[Image]
) -> int:
    prefix = f"bench-{uuid.uuid4().hex[:8]}/"
    bar = console.progress()
    task = bar.add_task("filed", total=options.count)
    async with AsyncPredictionClient(settings) as client:
        load = Load(
            client,
            kafka,
            bucket=bucket,
            in_flight=options.in_flight,
            timeout=options.timeout,
            on_result=partial(bar.advance, task),
        )
        trouble = None
        try:
            with bar:
                await load.run(_objects(prefix, images, options.count))
        except PipelineError as exc:
            trouble = exc
        except asyncio.CancelledError:
            _tell(load, f"{bucket}/{prefix}", options, is_over=False)
            raise
    if load.sent or load.failed:
        _tell(load, f"{bucket}/{prefix}", options, is_over=trouble is None)
    if trouble is not None:
        print(trouble, file=sys.stderr)
    have_result = sum(one.result is not None for one in load.sent.values())
    return 0 if have_result == options.count else 1


def _tell(load: Load, prefix: str, options: argparse.Namespace, *, is_over: bool) -> None:
    """Print what it has come to, what was lost on the standard error."""
    report = Report(count=options.count, sent=load.sent.values(), failed=load.failed, is_over=is_over)
    if options.json:
        given = {"prefix": prefix, "inFlight": options.in_flight}
        print(orjson.dumps({**given, **report.as_json()}).decode())
    else:
        print(f"{options.count:,} objects as {prefix}..., {options.in_flight} in flight\n")
        report.print()
    for says in load.failed:
        print(f"not uploaded: {console.printable(says)}", file=sys.stderr)
    if is_over:
        for one in report.missing:
            print(f"lost: {one.trace_id}  {console.printable(one.place)}", file=sys.stderr)


def _objects(prefix: str, images: Sequence[Image], count: int) -> Iterator[tuple[str, bytes]]:
    for number, image in enumerate(itertools.islice(itertools.cycle(images), count)):
        yield f"{prefix}{number:06}-{image.key}", image.path.read_bytes()
