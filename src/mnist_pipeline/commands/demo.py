"""`mnist-pipeline demo`: the whole path on this machine, and a check that every digit arrived where it belongs."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from mnist_pipeline.local.processes import PartFailed
from mnist_pipeline.local.records import Record
from mnist_pipeline.local.stack import REJECTED_BUCKET, RESULTS_TOPIC, SOURCE_BUCKET, Stack

TRACE_KEY = "test-trace-id"
INLINE_TRACE_ID = "16ec3446-48d6-422e-9926-8224853e84a7"

_UPLOADS_AT_ONCE = 8
_SUFFIXES = (".png", ".jpg", ".jpeg")
_DIGITS = files("mnist_pipeline.local").joinpath("digits")
_REQUEST = _DIGITS.joinpath("image-with-trace-id.json")
# What a user of the Kafka-sink transformer sends with the request.
_CLOUDEVENT = {
    "Ce-Id": "1",
    "Ce-Specversion": "1.0",
    "Ce-Type": "prediction-request-udf-attr",
    "Ce-Source": "event-producer",
    "Content-Type": "application/json",
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image to upload, under the name and with the trace id under which it is followed."""

    name: str
    data: bytes
    trace_id: str


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What the demo knows of a picture in the end: where its result says it lies, and how long that took."""

    picture: Picture
    results: int
    digit: int | None
    bucket: str
    key: str
    milliseconds: float | None


def main(argv: Sequence[str]) -> int:
    """Run the demo; exit code 0 only if every check holds."""
    parser = argparse.ArgumentParser(
        prog="mnist-pipeline demo",
        description="Upload digits to a local stack, watch where they go, and check that all are where they belong.",
    )
    parser.add_argument("--count", type=_count, metavar="N", help="upload N pictures, the same ones again where needed")
    parser.add_argument("--images", type=Path, metavar="DIR", help=f"your own pictures ({', '.join(_SUFFIXES)})")
    parser.add_argument("--keep", action="store_true", help="leave the stack up, and show how to use it")
    options = parser.parse_args(argv)
    try:
        pictures = _pictures(options.images, options.count)
    except (OSError, ValueError) as exc:
        parser.error(str(exc))
    try:
        return _run(pictures, keep=options.keep)
    except PartFailed as exc:
        print(f"\n{exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped")
        return 130


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pictures")
    return int(text)


def _pictures(folder: Path | None, count: int | None) -> list[Picture]:
    if folder is None:
        found = {one.name: one.read_bytes() for one in _DIGITS.iterdir() if one.name.endswith(".png")}
    else:
        found = {one.name: one.read_bytes() for one in folder.iterdir() if one.suffix.lower() in _SUFFIXES}
    if not found:
        raise ValueError(f"there is no picture ({', '.join(_SUFFIXES)}) in {folder}")
    names = sorted(found)
    pictures: list[Picture] = []
    for number in range(count or len(names)):
        again, name = number // len(names), names[number % len(names)]
        upload = f"again-{again}/{name}" if again else name
        pictures.append(Picture(name=upload, data=found[name], trace_id=str(uuid.uuid4())))
    return pictures


def _run(pictures: Sequence[Picture], *, keep: bool) -> int:
    suffixes = sorted({".png", *(Path(picture.name).suffix for picture in pictures)})
    settings = {
        "REQUEST_TRACE_KEY": TRACE_KEY,
        "SOURCE_SUFFIXES": ",".join(suffixes),
        "INFERENCE_SERVICE_NAME": "test-transformer",
        "POD_NAMESPACE": "kserve-test",
    }
    started = time.monotonic()
    print("Starting MinIO's gateway, Kafka, the predictor, the transformer and the source:", end="", flush=True)
    with Stack(settings=settings, on_ready=lambda part: print(f" {part}", end="", flush=True)) as stack:
        print(f" - ready after {time.monotonic() - started:.1f} s\n")
        uploaded = _upload(stack, pictures)
        records = stack.results()
        arrivals = [_arrival(picture, uploaded[picture.trace_id], records) for picture in pictures]
        _print_table(arrivals)
        _send_inline(stack)
        records = stack.results()
        problems = [*_problems(stack, arrivals), *_print_inline(records)]
        for problem in problems:
            print(f"NOT AS IT SHOULD BE: {problem}")
        if not problems:
            print(
                f"\nAll {len(pictures)} pictures left bucket {SOURCE_BUCKET}, each lies in the bucket of its"
                f" prediction, and each trace id is on topic {RESULTS_TOPIC} once."
            )
        if keep:
            _keep(stack)
    print(f"Everything is stopped and removed ({time.monotonic() - started:.1f} s in all).")
    return 1 if problems else 0


def _upload(stack: Stack, pictures: Sequence[Picture]) -> dict[str, float]:
    """Upload, and wait until nothing is left in the source bucket; gives the moment of each upload by trace id."""
    client = stack.minio()

    def put(picture: Picture) -> tuple[str, float]:
        moment = time.time()
        client.put_object(
            bucket_name=SOURCE_BUCKET,
            object_name=picture.name,
            data=io.BytesIO(picture.data),
            length=len(picture.data),
            content_type="image/png" if picture.name.lower().endswith(".png") else "image/jpeg",
            metadata={TRACE_KEY: picture.trace_id},
        )
        return picture.trace_id, moment

    uploaded: dict[str, float] = {}
    patience = 30 + 0.2 * len(pictures)
    with _progress() as show, ThreadPoolExecutor(_UPLOADS_AT_ONCE) as threads:
        for trace_id, moment in threads.map(put, pictures):
            uploaded[trace_id] = moment
            show(f"uploaded {len(uploaded)} of {len(pictures)}")
        give_up = time.monotonic() + patience
        while time.monotonic() < give_up:
            left = sum(1 for _ in client.list_objects(bucket_name=SOURCE_BUCKET, recursive=True))
            show(f"uploaded {len(pictures)}, settled {len(pictures) - left} of {len(pictures)}")
            if not left:
                break
            time.sleep(0.1)
    return uploaded


@contextlib.contextmanager
def _progress() -> Iterator[_Progress]:
    progress = _Progress()
    yield progress
    progress.end()


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
        return Arrival(picture=picture, results=0, digit=None, bucket="", key="", milliseconds=None)
    event = mine[0]
    bucket, _, key = event["data"]["destination"].partition("/")
    took = datetime.fromisoformat(event["time"]).timestamp() - uploaded
    predictions = event["data"].get("predictions", [None])
    return Arrival(
        picture=picture, results=len(mine), digit=predictions[0], bucket=bucket, key=key, milliseconds=took * 1000
    )


def _print_table(arrivals: Sequence[Arrival]) -> None:
    width = max(5, *(len(arrival.picture.name) for arrival in arrivals))
    print(f"{'image':<{width}}  {'trace id':<36}  predicted  {'bucket':<14}  ms from upload to filed")
    for arrival in arrivals:
        digit = "-" if arrival.digit is None else str(arrival.digit)
        took = "-" if arrival.milliseconds is None else f"{arrival.milliseconds:.0f}"
        name, trace_id = arrival.picture.name, arrival.picture.trace_id
        print(f"{name:<{width}}  {trace_id:<36}  {digit:>9}  {arrival.bucket:<14}  {took:>23}")


def _problems(stack: Stack, arrivals: Sequence[Arrival]) -> Iterator[str]:
    """What does not hold: the source bucket is empty, each object lies where its prediction says, one result each."""
    client = stack.minio()
    left = [str(one.object_name) for one in client.list_objects(bucket_name=SOURCE_BUCKET, recursive=True)]
    if left:
        yield f"{len(left)} objects are still in bucket {SOURCE_BUCKET}: {', '.join(left[:5])}"
    for arrival in arrivals:
        name = arrival.picture.name
        if arrival.results != 1:
            yield f"{name}: its trace id is on the topic {arrival.results} times"
        elif arrival.bucket == REJECTED_BUCKET:
            yield f"{name}: it was rejected"
        elif arrival.bucket != f"digit-{arrival.digit}":
            yield f"{name}: predicted {arrival.digit}, but filed in {arrival.bucket}"
        else:
            there = client.get_object(bucket_name=arrival.bucket, object_name=arrival.key)
            try:
                if there.read() != arrival.picture.data:
                    yield f"{name}: other bytes lie in {arrival.bucket}"
            finally:
                there.close()
                there.release_conn()


def _send_inline(stack: Stack) -> None:
    url = urlsplit(stack.transformer.predict_url)
    connection = HTTPConnection(url.hostname or "", url.port, timeout=60)
    try:
        connection.request("POST", url.path, _REQUEST.read_bytes(), _CLOUDEVENT)
        response = connection.getresponse()
        print(
            f"\nOne inline request with {TRACE_KEY} {INLINE_TRACE_ID}: answered {response.status}. Its result event:\n"
        )
        response.read()
    finally:
        connection.close()


def _print_inline(records: Sequence[Record]) -> Iterator[str]:
    counted = Counter(record.key for record in records)
    mine = [record for record in records if record.key == INLINE_TRACE_ID.encode()]
    if counted[INLINE_TRACE_ID.encode()] != 1:
        yield f"the inline request's trace id is on the topic {len(mine)} times"
    for record in mine:
        print(orjson.dumps(orjson.loads(record.value or b"{}"), option=orjson.OPT_INDENT_2).decode())


def _keep(stack: Stack) -> None:
    print(_how_to_use(stack))
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def _how_to_use(stack: Stack) -> str:
    gateway, sandbox = stack.gateway, stack.sandbox.directory
    headers: Mapping[str, str] = _CLOUDEVENT
    flags = " \\\n".join(f'  -H "{name}: {value}"' for name, value in headers.items())
    digits, bin_folder = Path(str(_DIGITS)), Path(sys.executable).parent
    return f"""
The stack stays up until Ctrl-C. Logs: {sandbox}

  MinIO        http://{gateway.endpoint}   access key {gateway.access_key}, secret key {gateway.secret_key}
  Kafka        {stack.broker.bootstrap_servers}   (clients that probe versions: say 2.3)
  transformer  {stack.transformer.url}   gRPC {stack.transformer.grpc_address}
  predictor    {stack.predictor.url}   gRPC {stack.predictor.grpc_address}

Upload a digit, and see where it went:

mc alias set myminio http://{gateway.endpoint} {gateway.access_key} {gateway.secret_key}
mc cp {digits}/7-0000.png myminio/{SOURCE_BUCKET}/0.png
mc ls myminio/digit-7

Ask inline, as plain HTTP and as an event:

curl -v -H "Content-Type: application/json" \\
  -d @{digits}/image-with-trace-id.json \\
  {stack.transformer.predict_url}

curl -v {stack.transformer.predict_url} \\
  -X POST \\
{flags} \\
  -d @{digits}/image-with-trace-id.json

Read the results:

{bin_folder}/kafka-python consumer -b {stack.broker.bootstrap_servers} -C api_version=2.3 \\
  -C auto_offset_reset=earliest -t {RESULTS_TOPIC}
"""
