"""`mnist-pipeline demo`: the whole path on this machine, and a check that every object arrived where it belongs."""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import mimetypes
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import urllib3
from urllib3.exceptions import HTTPError

from mnist_pipeline.adapters.kafka_records import Record
from mnist_pipeline.commands.demo_usage import DIGITS, how_to_use, how_to_use_digits
from mnist_pipeline.local.processes import PartFailed
from mnist_pipeline.local.servers import started_program
from mnist_pipeline.local.stack import Stack
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.interpretation import Label
from mnist_pipeline.pipeline.task import Task

TRACE_KEY = "test-trace-id"
INLINE_TRACE_ID = "16ec3446-48d6-422e-9926-8224853e84a7"

_UPLOADS_AT_ONCE = 8
_SUFFIXES = (".png", ".jpg", ".jpeg")
# What a user of the Kafka-sink transformer sends with the request.
CLOUDEVENT = {
    "Ce-Id": "1",
    "Ce-Specversion": "1.0",
    "Ce-Type": "prediction-request-udf-attr",
    "Ce-Source": "event-producer",
    "Content-Type": "application/json",
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An object to upload, under the name and with the trace id under which it is followed."""

    name: str
    data: bytes
    trace_id: str


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What the demo knows of an object in the end: where its result says it lies, and how long that took."""

    picture: Picture
    results: int
    label: Label | None = None
    score: float | None = None
    rejected: str = ""
    destination: str = ""
    milliseconds: float | None = None

    @property
    def place(self) -> str:
        """The bucket, and what the key got in front."""
        return self.destination.removesuffix(f"/{self.picture.name}")


def main(argv: Sequence[str], *, task: Task) -> int:
    """Run the demo; exit code 0 only if every check holds."""
    parser = argparse.ArgumentParser(
        prog="mnist-pipeline demo",
        description="Upload objects to a local stack, watch where they go, and check that all are where they belong.",
    )
    suffixes = _SUFFIXES if isinstance(task, Digits) else task.suffixes
    parser.add_argument("--count", type=_count, metavar="N", help="upload N objects, the same ones again where needed")
    parser.add_argument("--images", type=Path, metavar="DIR", help=f"your own ({', '.join(suffixes)})")
    parser.add_argument("--keep", action="store_true", help="leave the stack up, and show how to use it")
    parser.add_argument("--predictor_host", metavar="HOST[:PORT]", help="your own predictor (default: the demo's)")
    parser.add_argument("--predictor_protocol", default="v1", choices=("v1", "v2", "grpc-v2"), help="(default: v1)")
    options = parser.parse_args(argv)
    try:
        pictures = _pictures(task, options.images, suffixes, options.count)
        stack = _stack(task, pictures, options)
    except (OSError, ValueError) as exc:
        parser.error(str(exc))
    try:
        code = _run(stack, pictures, keep=options.keep)
        print(end="", flush=True)
    except PartFailed as exc:
        print(f"\n{exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped")
        return 130
    except BrokenPipeError:
        # Whoever read what is printed has seen enough, as `head` has; what is left of it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of objects")
    return int(text)


def _pictures(task: Task, folder: Path | None, suffixes: Sequence[str], count: int | None) -> list[Picture]:
    if folder is None and not isinstance(task, Digits):
        raise ValueError(f"{task.name} has no objects of its own to show: give --images DIR")
    # The suffixes of a task may be more than what Path calls one, such as `-thumb.png`.
    wanted = tuple(suffix.lower() for suffix in suffixes)
    found = {one.name: one.read_bytes() for one in (folder or DIGITS).iterdir() if one.name.lower().endswith(wanted)}
    if not found:
        kind = "picture" if isinstance(task, Digits) else "object"
        raise ValueError(f"there is no {kind} ({', '.join(suffixes)}) in {folder}")
    names = sorted(found)
    pictures: list[Picture] = []
    for number in range(count or len(names)):
        again, name = number // len(names), names[number % len(names)]
        upload = f"again-{again}/{name}" if again else name
        pictures.append(Picture(name=upload, data=found[name], trace_id=str(uuid.uuid4())))
    return pictures


def _stack(task: Task, pictures: Sequence[Picture], options: argparse.Namespace) -> Stack:
    suffixes = {*task.suffixes, *(Path(picture.name).suffix for picture in pictures)} - {""}
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


def _run(stack: Stack, pictures: Sequence[Picture], *, keep: bool) -> int:
    started = time.monotonic()
    print("Starting MinIO's gateway, Kafka, the predictor, the transformer and the source:", end="", flush=True)
    with stack:
        print(f" - ready after {time.monotonic() - started:.1f} s\n")
        if stack.guesses:
            print(f"No network for {stack.task.name} is here: a stand-in guesses. --predictor_host takes your own.\n")
        uploaded = _upload(stack, pictures)
        records = stack.results()
        arrivals = [_arrival(picture, uploaded[picture.trace_id], records) for picture in pictures]
        _print_table(arrivals)
        problems = [*_problems(stack, arrivals), *_send_inline(stack, _request(stack.task, pictures[0]))]
        for problem in problems:
            print(f"NOT AS IT SHOULD BE: {problem}")
        if problems:
            log = stack.transformer.child.log_tail().splitlines()[-5:]
            print("\nThe end of the transformer's log:\n", *log, "", sep="\n")
        else:
            print(
                f"\nAll {len(pictures)} objects left bucket {stack.source_bucket}, each lies in the place of its"
                f" prediction, and each trace id is on topic {stack.results_topic} once."
            )
        if keep:
            ours = type(stack.task) is Digits and stack.has_own_predictor
            print(how_to_use_digits(stack, CLOUDEVENT) if ours else how_to_use(stack, pictures[0].name))
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    print(f"Everything is stopped and removed ({time.monotonic() - started:.1f} s in all).")
    return 1 if problems else 0


def _upload(stack: Stack, pictures: Sequence[Picture]) -> dict[str, float]:
    """Upload, and wait until nothing is left in the source bucket; gives the moment of each upload by trace id."""
    client = stack.minio()

    def put(picture: Picture) -> tuple[str, float]:
        moment = time.time()
        client.put_object(
            bucket_name=stack.source_bucket,
            object_name=picture.name,
            data=io.BytesIO(picture.data),
            length=len(picture.data),
            content_type=mimetypes.guess_type(picture.name)[0] or "application/octet-stream",
            metadata={TRACE_KEY: picture.trace_id},
        )
        return picture.trace_id, moment

    uploaded: dict[str, float] = {}
    patience = 30 + 0.2 * len(pictures)
    show = _Progress()
    with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as threads:
        for trace_id, moment in threads.map(put, pictures):
            uploaded[trace_id] = moment
            show(f"uploaded {len(uploaded)} of {len(pictures)}")
        give_up = time.monotonic() + patience
        while time.monotonic() < give_up:
            left = sum(1 for _ in client.list_objects(bucket_name=stack.source_bucket, recursive=True))
            show(f"uploaded {len(pictures)}, settled {len(pictures) - left} of {len(pictures)}")
            if not left:
                break
            time.sleep(0.1)
    show.end()
    return uploaded


class _Progress:
    """One line that is written over on a terminal; elsewhere a line now and then."""

    def __init__(self) -> None:
        self._last = ""
        self._shown_at = 0.0
        self._lock = threading.Lock()
        # None where the program was started with its output closed.
        self._terminal = sys.stdout is not None and sys.stdout.isatty()

    def __call__(self, text: str) -> None:
        with self._lock:
            if text == self._last:
                return
            self._last = text
            if self._terminal:
                print(f"\r\x1b[K{text}", end="", flush=True)
            elif time.monotonic() - self._shown_at > 1:
                self._shown_at = time.monotonic()
                print(text, flush=True)

    def end(self) -> None:
        print(f"\r\x1b[K{self._last}\n" if self._terminal else f"{self._last}\n")


def _arrival(picture: Picture, uploaded: float, records: Sequence[Record]) -> Arrival:
    mine = [orjson.loads(record.value or b"{}") for record in records if record.key == picture.trace_id.encode()]
    if not mine:
        return Arrival(picture=picture, results=0)
    event, data = mine[0], mine[0]["data"]
    took = datetime.fromisoformat(event["time"]).timestamp() - uploaded
    return Arrival(
        picture=picture,
        results=len(mine),
        label=_first(data.get("predictions")),
        score=_first(data.get("scores")),
        rejected=data.get("reason", "?") if event["type"].endswith(".rejected") else "",
        destination=data["destination"],
        milliseconds=took * 1000,
    )


def _first(values: Any) -> Any:
    """The first of a list; None where a task's own `data` has no such list."""
    return values[0] if isinstance(values, list) and values else None


def _print_table(arrivals: Sequence[Arrival]) -> None:
    width = max(6, *(len(arrival.picture.name) for arrival in arrivals))
    labels = max(9, *(len(str(arrival.label)) for arrival in arrivals))
    places = max(14, *(len(arrival.place) for arrival in arrivals))
    print(f"{'object':<{width}}  {'trace id':<36}  {'predicted':>{labels}}  score  {'filed in':<{places}}  ms to filed")
    for arrival in arrivals:
        label = "-" if arrival.label is None else str(arrival.label)
        score = "-" if arrival.score is None else f"{arrival.score:.2f}"
        took = "-" if arrival.milliseconds is None else f"{arrival.milliseconds:.0f}"
        name, trace_id = arrival.picture.name, arrival.picture.trace_id
        print(f"{name:<{width}}  {trace_id:<36}  {label:>{labels}}  {score:>5}  {arrival.place:<{places}}  {took:>11}")


def _problems(stack: Stack, arrivals: Sequence[Arrival]) -> Iterator[str]:
    """What does not hold: the source bucket is empty, each object lies where its prediction says, one result each."""
    client = stack.minio()
    left = [str(one.object_name) for one in client.list_objects(bucket_name=stack.source_bucket, recursive=True)]
    if left:
        yield f"{len(left)} objects are still in bucket {stack.source_bucket}: {', '.join(left[:5])}"
    for arrival in arrivals:
        name = arrival.picture.name
        if arrival.results != 1:
            yield f"{name}: its trace id is on the topic {arrival.results} times"
        elif arrival.rejected:
            yield f"{name}: it was rejected ({arrival.rejected})"
        elif not arrival.destination.startswith(belongs := stack.places_of(arrival.label, arrival.score)):
            yield f"{name}: predicted {arrival.label}, but filed in {arrival.place}, not in {' or '.join(belongs)}"
        else:
            bucket, _, key = arrival.destination.partition("/")
            with client.get_object(bucket_name=bucket, object_name=key) as there:
                if there.read() != arrival.picture.data:
                    yield f"{name}: other bytes lie in {arrival.place}"


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


def _request(task: Task, picture: Picture) -> bytes:
    """What a user of the Kafka-sink transformer sends; of another task with one of the user's own objects."""
    if isinstance(task, Digits):
        return DIGITS.joinpath("image-with-trace-id.json").read_bytes()
    instance = {"data": base64.b64encode(picture.data).decode()}
    return orjson.dumps({TRACE_KEY: INLINE_TRACE_ID, "instances": [instance]})
