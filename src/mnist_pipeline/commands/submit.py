"""`mnist-pipeline submit`: images go to a site, by upload or inline, and their trace ids are printed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import orjson
from rich.progress import TaskID

from mnist_pipeline.client.client import CLOCKS_DIFFER, AsyncPredictionClient, Submission
from mnist_pipeline.client.errors import ClientError
from mnist_pipeline.commands import arguments, console, usage
from mnist_pipeline.commands.console import printable
from mnist_pipeline.commands.results import described
from mnist_pipeline.pipeline.errors import Permanent, PipelineError
from mnist_pipeline.pipeline.notifications import check_source
from mnist_pipeline.pipeline.published import PredictionResult
from mnist_pipeline.pipeline.settings import Settings, SettingsError
from mnist_pipeline.pipeline.task import Task

_AT_ONCE = 8

_DESCRIPTION = """\
Upload images into the source bucket, or with --url post each inline, to the transformer or through a Broker; print the
trace id of each, by which `results` finds what became of it.

The settings are those of the transformer, from the environment: MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY
to upload, KAFKA_BOOTSTRAP_SERVERS to --wait.
"""

_EXAMPLES = """\
  mnist-pipeline submit 7.png                                  # upload it
  mnist-pipeline submit scans/ --prefix monday/ --wait         # a folder, as monday/NAME; and wait for the predictions
  # Inline, straight to the transformer, or as an event through a Broker:
  mnist-pipeline submit 7.png --url http://localhost:8080/v1/models/mnist:predict
  mnist-pipeline submit 7.png --url http://broker-ingress.knative-eventing/kserve-test/isvc-broker --trace-id order-66
"""

_CODES = """\
  0  all is sent; with --wait, classified too
  1  something was refused, rejected or left out, or its result did not come in time
  2  no such file, or settings that cannot work: nothing was sent
"""


@dataclass(frozen=True, kw_only=True)
class Image:
    """A file to be sent, and the name under which it is stored."""

    path: Path
    key: str


def parser(task: Task) -> argparse.ArgumentParser:
    """The flags."""
    parser = usage.command_parser("submit", description=_DESCRIPTION, examples=_EXAMPLES, codes=_CODES)
    suffixes = ", ".join(task.suffixes)
    parser.add_argument(
        "images", nargs="+", type=arguments.path, metavar="IMAGE", help=f"a file, or a folder of files ({suffixes})"
    )
    parser.add_argument(
        "--url", type=arguments.url, help="post them inline: …/v1/models/<model>:predict, or a Broker's"
    )
    parser.add_argument(
        "--trace-id", type=arguments.trace_id, metavar="ID", help="of one image (default: a random one each)"
    )
    parser.add_argument("--prefix", default="", help="put this before the names in the bucket")
    parser.add_argument("--wait", action="store_true", help="wait for the predictions, and print them")
    parser.add_argument(
        "--timeout",
        type=arguments.duration,
        default="60s",
        metavar="TIME",
        help="how long to wait for all of them (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")
    return parser


def main(argv: Sequence[str], *, task: Task) -> int:
    """Send the images; exit code 0, 1 or 2."""
    flags = parser(task)
    options = flags.parse_args(argv)
    try:
        settings = Settings.from_environ(os.environ, task)
        images, left_out = images_of(options.images, options.prefix, settings, inline=options.url is not None)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    except OSError as exc:
        flags.error(f"{exc.filename}: {exc.strerror}")
    problems = list(_problems(options, settings, images))
    for says in (*left_out, *problems):
        print(says, file=sys.stderr)
    if problems:
        return 2
    code = asyncio.run(_Sending(settings, options).run(images))
    return code or bool(left_out)


def images_of(given: Sequence[Path], prefix: str, settings: Settings, *, inline: bool) -> tuple[list[Image], list[str]]:
    """The files, those of folders in the order of their names; and a sentence for each that is left out."""
    images, left_out = [], []
    for path in given:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            key = prefix + file.name
            if file.is_dir():
                left_out.append(f"{file} is left out: a folder in a folder")
            # A file that is named is meant, and inline its name does not matter.
            elif not settings.is_wanted(key) and not (inline and file is path):
                suffixes = ", ".join(settings.source_suffixes)
                left_out.append(f"{file} is left out: its name does not end in {suffixes} (SOURCE_SUFFIXES)")
            elif file.exists() and not file.is_file():
                left_out.append(f"{file} is left out: no regular file")
            else:
                try:
                    file.open("rb").close()
                except OSError as exc:
                    if file is path:
                        raise
                    left_out.append(f"{file} is left out: {exc.strerror}")
                else:
                    images.append(Image(path=file, key=key))
    return images, left_out


def _problems(options: argparse.Namespace, settings: Settings, images: Sequence[Image]) -> Iterator[str]:
    if not images:
        yield "there is nothing to send"
    if options.trace_id is not None and len(images) > 1:
        yield f"--trace-id is of one image, and there are {len(images)}"
    if options.url is None:
        if settings.minio is None:
            yield "MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set: there is no store to upload to"
        by_key: dict[str, Path] = {}
        for image in images:
            try:
                check_source(settings.source_buckets[0], image.key, settings)
            except Permanent as exc:
                yield f"{image.path}: {exc}"
            if image.key in by_key:
                yield f"{image.path} and {by_key[image.key]} would both be {image.key}: give them in two goes"
            by_key[image.key] = image.path
    if options.wait and settings.kafka is None:
        yield "KAFKA_BOOTSTRAP_SERVERS is not set: there are no results to wait for"


class _Sending:
    """Sends images, a few at once, and prints what became of each."""

    def __init__(self, settings: Settings, options: argparse.Namespace) -> None:
        self._options = options
        self._client = AsyncPredictionClient(settings, url=options.url)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._progress = console.progress()
        self._sent: dict[str, tuple[Image, Submission]] = {}
        self._failed = False

    async def run(self, images: Sequence[Image]) -> int:
        """Send them, wait for them where that is asked for; give the exit code."""
        begun = datetime.now(timezone.utc)
        async with self._client:
            with self._progress:
                bar = self._progress.add_task("sent", total=len(images))
                await asyncio.gather(*(self._send(image, bar) for image in images))
            if self._options.wait and self._sent:
                try:
                    await self._wait(begun)
                except asyncio.CancelledError:
                    for image, sent in self._sent.values():  # Ctrl-C: what is sent can still be found
                        self._tell(image, sent, None)
                    raise
        return int(self._failed)

    async def _send(self, image: Image, bar: TaskID) -> None:
        options = self._options
        async with self._slots:
            try:
                data = image.path.read_bytes()
                if options.url is None:
                    sent = await self._client.upload(data, key=image.key, trace_id=options.trace_id)
                else:
                    sent = await self._client.ask(data, trace_id=options.trace_id)
            except (ClientError, PipelineError, OSError) as exc:
                self._fail(f"{image.path}: {exc}")
            else:
                self._sent[sent.trace_id] = (image, sent)
                if not options.wait:
                    self._tell(image, sent, None)
        self._progress.advance(bar)

    async def _wait(self, begun: datetime) -> None:
        found = self._client.results(since=begun - CLOCKS_DIFFER, follow=True)
        try:
            async with contextlib.aclosing(found):
                await asyncio.wait_for(self._collect(found), self._options.timeout)
        except (asyncio.TimeoutError, TimeoutError):
            for trace_id, (image, _) in self._sent.items():
                self._fail(f"{image.path}: no result with the trace id {trace_id} after {self._options.timeout:g} s")
        except PipelineError as exc:
            self._fail(str(exc))

    async def _collect(self, found: AsyncGenerator[PredictionResult, None]) -> None:
        with self._progress:
            bar = self._progress.add_task("classified", total=len(self._sent))
            while self._sent:
                result = await anext(found)
                if result.trace_id in self._sent:
                    self._failed |= result.is_rejected
                    self._tell(*self._sent.pop(result.trace_id), result)
                    self._progress.advance(bar)

    def _fail(self, says: str) -> None:
        self._failed = True
        print(says, file=sys.stderr)

    def _tell(self, image: Image, sent: Submission, result: PredictionResult | None) -> None:
        if self._options.json:
            told = {"file": printable(str(image.path)), "traceId": sent.trace_id, "place": sent.place}
            print(orjson.dumps(told if result is None else {**told, "result": result.event}).decode(), flush=True)
        else:
            print(f"{sent.trace_id}  {described(result) if result else sent.place}", flush=True)
