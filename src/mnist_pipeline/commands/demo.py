"""`mnist-pipeline demo`: the whole path on this machine, and a check that every object arrived where it belongs."""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import logging
import mimetypes
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import urllib3
from minio import S3Error
from urllib3.exceptions import HTTPError

from mnist_pipeline.commands import arguments, console, usage
from mnist_pipeline.commands.demo_objects import DIGITS, Upload, suffixes_of, uploads
from mnist_pipeline.commands.demo_page import LivePage
from mnist_pipeline.commands.demo_report import (
    MOST_ROWS,
    Arrival,
    arrivals_of,
    print_rows,
    print_summary,
    problems,
    summary_of,
)
from mnist_pipeline.commands.demo_usage import CLOUDEVENT, how_to_use
from mnist_pipeline.local.processes import PartFailed
from mnist_pipeline.local.servers import started_program
from mnist_pipeline.local.stack import Stack
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.task import PROTOCOLS, Task

TRACE_KEY = "test-trace-id"
INLINE_TRACE_ID = "16ec3446-48d6-422e-9926-8224853e84a7"

_UPLOADS_AT_ONCE = 8
_MOST_LEFT_OUT = 10

_DESCRIPTION = """\
Bring up a store, a Kafka, a predictor and the transformer on this machine, upload objects, show where each one went,
and check that all are where they belong. Everything listens on this machine alone, and is removed at the end.

The transformer gets the demo's settings; yours, in the environment, are left out of it.
"""

_EXAMPLES = """\
  mnist-pipeline demo                          # twenty digits
  mnist-pipeline demo --images scans           # your own
  mnist-pipeline demo --count 300 --rows       # many, and a row for each
  mnist-pipeline demo --keep                   # leave it up, and show how to use it
  mnist-pipeline demo --web                    # leave it up, and draw digits in a browser
  make demo ARGS='--images scans'              # the same from a checkout
"""

_EXAMPLES_OF_A_TASK = """\
  mnist-pipeline demo --images DIR                     # your own
  mnist-pipeline demo --images DIR --count 300 --rows  # many, and a row for each
  mnist-pipeline demo --images DIR --keep              # leave it up, and show how to use it
  mnist-pipeline demo --images DIR --web               # leave it up, and watch it in a browser
"""

_CODES = """\
  0    every object arrived where it belongs; what can never be classified in the bucket of rejected ones
  1    something is not as it should be, or a part did not start: the lines say what
  2    nothing to upload, flags that cannot work, or a --web-port that is taken
  130  stopped by Ctrl-C
"""


def parser(task: Task) -> argparse.ArgumentParser:
    """The flags."""
    examples = _EXAMPLES if isinstance(task, Digits) else _EXAMPLES_OF_A_TASK
    parser = usage.command_parser("demo", description=_DESCRIPTION, examples=examples, codes=_CODES)
    wanted = ", ".join(suffixes_of(task))
    parser.add_argument(
        "--images", type=arguments.path, metavar="DIR", help=f"a folder of your own ({wanted}, in any case)"
    )
    parser.add_argument("--count", type=arguments.positive, metavar="N", help="upload N, the same again where needed")
    parser.add_argument("--rows", action="store_true", help=f"a row for each, of more than {MOST_ROWS} too")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document; all else goes to the standard error"
    )
    parser.add_argument("--keep", action="store_true", help="leave the stack up, and show how to use it")
    parser.add_argument("--web", action="store_true", help="leave the stack up, with its live page for a browser")
    parser.add_argument(
        "--web-port",
        type=arguments.natural,
        metavar="PORT",
        help="of the page, with --web (default: 8090, or a free one where that is taken)",
    )
    parser.add_argument("--predictor_host", metavar="HOST[:PORT]", help="your own predictor (default: the demo's)")
    parser.add_argument(
        "--predictor_protocol", default=task.predictor_protocol, choices=PROTOCOLS, help="(default: %(default)s)"
    )
    return parser


def main(argv: Sequence[str], *, task: Task) -> int:
    """Run the demo; exit code 0 only if every check holds."""
    flags = parser(task)
    options = flags.parse_args(argv)
    if options.web_port is not None and not options.web:
        flags.error("--web-port is of the page, and goes with --web")
    try:
        given, left_out = uploads(task, options.images, options.count)
        stack = _stack(task, given, options)
        page = LivePage(options.web_port) if options.web else None
    except (OSError, ValueError) as exc:
        flags.error(str(exc))
    # What is given up is seen in the table.
    logging.getLogger("mnist_pipeline").addHandler(logging.NullHandler())
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        for says in left_out[:_MOST_LEFT_OUT]:
            print(f"left out: {console.printable(says)}")
        if more := left_out[_MOST_LEFT_OUT:]:
            print(f"left out: {len(more)} more")
        try:
            document = _run(stack, given, options, page)
        except (PartFailed, S3Error) as exc:
            print(f"\n{exc}", file=sys.stderr)
            return 1
    if options.json:
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    return 1 if document["problems"] else 0


def _stack(task: Task, given: Sequence[Upload], options: argparse.Namespace) -> Stack:
    suffixes = {*task.suffixes, *(Path(one.key).suffix for one in given)} - {""}
    program, path = ("mnist_pipeline", {}) if type(task) is Digits else started_program()
    settings = {
        "REQUEST_TRACE_KEY": TRACE_KEY,
        "SOURCE_SUFFIXES": ",".join(sorted(suffixes)),
        "INFERENCE_SERVICE_NAME": "test-transformer",
        "POD_NAMESPACE": "kserve-test",
        **path,
    }
    return Stack(
        settings=settings,
        on_ready=lambda part: print(f" {part}", end="", flush=True),
        task=task,
        program=program,
        predictor_host=options.predictor_host,
        predictor_protocol=options.predictor_protocol,
    )


def _run(stack: Stack, given: Sequence[Upload], options: argparse.Namespace, page: LivePage | None) -> dict[str, Any]:
    """Show it, and give all of it as values."""
    started = time.monotonic()
    print("Starting MinIO's gateway, Kafka, the predictor, the transformer and the source:", end="", flush=True)
    with stack:
        print(f" - ready after {time.monotonic() - started:.1f} s\n")
        if stack.guesses:
            print(f"No network for {stack.task.name} is here: a stand-in guesses. --predictor_host takes your own.\n")
        uploaded_at = _upload(stack, given)
        arrivals = arrivals_of(given, uploaded_at, stack.results(), trace_key=TRACE_KEY)
        if options.rows or len(arrivals) <= MOST_ROWS:
            print_rows(arrivals, guesses=stack.guesses)
        else:
            print_summary(arrivals)
        found = [*problems(stack, arrivals), *_send_inline(stack, _request(stack.task, given[0]))]
        _tell(stack, arrivals, found)
        if options.keep:
            print(how_to_use(stack, given[0], arrivals[0].result), flush=True)
        if page is not None:
            page.serve(stack, options.predictor_protocol)
        elif options.keep:
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    print(f"Everything is stopped and removed ({time.monotonic() - started:.1f} s in all).")
    return {
        "objects": [arrival.as_json() for arrival in arrivals],
        "summary": summary_of(arrivals),
        "problems": found,
    }


def _tell(stack: Stack, arrivals: Sequence[Arrival], found: Sequence[str]) -> None:
    for problem in found:
        print(f"NOT AS IT SHOULD BE: {problem}")
    if found:
        log = stack.transformer.child.log_tail().splitlines()[-5:]
        print("\nThe end of the transformer's log:\n", *log, "", sep="\n")
        return
    rejected = sum(bool(arrival.result and arrival.result.is_rejected) for arrival in arrivals)
    print(
        f"\nAll {len(arrivals)} objects left bucket {stack.source_bucket}, each lies in the place of its prediction"
        + (f" ({rejected} in {stack.places.rejected_bucket}, each with its reason)" if rejected else "")
        + f", and each trace id is on topic {stack.results_topic} once."
    )


def _upload(stack: Stack, given: Sequence[Upload]) -> dict[str, float]:
    """Upload, and wait until nothing is left in the source bucket; gives the moment of each upload by trace id."""
    client = stack.minio()

    def put(one: Upload) -> tuple[str, float]:
        data = one.data
        moment = time.time()
        client.put_object(
            bucket_name=stack.source_bucket,
            object_name=one.key,
            data=io.BytesIO(data),
            length=len(data),
            content_type=mimetypes.guess_type(one.key)[0] or "application/octet-stream",
            metadata={TRACE_KEY: one.trace_id},
        )
        return one.trace_id, moment

    uploaded_at: dict[str, float] = {}
    with console.progress() as progress, ThreadPoolExecutor(_UPLOADS_AT_ONCE) as threads:
        bar = progress.add_task("uploaded", total=len(given))
        for trace_id, moment in threads.map(put, given):
            uploaded_at[trace_id] = moment
            progress.advance(bar)
        bar = progress.add_task("settled", total=len(given))
        _wait_until_settled(stack, len(given), lambda settled: progress.update(bar, completed=settled))
    return uploaded_at


def _wait_until_settled(stack: Stack, number: int, show: Callable[[int], None]) -> None:
    client = stack.minio()
    give_up = time.monotonic() + 30 + 0.2 * number
    while time.monotonic() < give_up:
        left = sum(1 for _ in client.list_objects(bucket_name=stack.source_bucket, recursive=True))
        show(number - left)
        if not left:
            break
        time.sleep(0.1)


def _send_inline(stack: Stack, request: bytes) -> Iterator[str]:
    """Send it, print its result, and tell what does not hold."""
    url = stack.transformer.predict_url
    try:
        answer = urllib3.request("POST", url, body=request, headers=CLOUDEVENT, retries=False, timeout=60)
    except HTTPError as exc:
        yield f"the inline request got no answer: {exc}"
        return
    print(f"\nOne inline request with {TRACE_KEY} {INLINE_TRACE_ID}: answered {answer.status}. Its result event:\n")
    mine = [record for record in stack.results() if record.key == INLINE_TRACE_ID.encode()]
    if len(mine) != 1:
        yield f"the inline request's trace id is on the topic {len(mine)} times"
    for record in mine:
        print(orjson.dumps(orjson.loads(record.value or b"{}"), option=orjson.OPT_INDENT_2).decode())


def _request(task: Task, first: Upload) -> bytes:
    """What a user of the Kafka-sink transformer sends; of another task with one of the user's own objects."""
    if isinstance(task, Digits):
        return DIGITS.joinpath("image-with-trace-id.json").read_bytes()
    instance = {"data": base64.b64encode(first.data).decode()}
    return orjson.dumps({TRACE_KEY: INLINE_TRACE_ID, "instances": [instance]})
