"""Print what a transformer holds on to while it handles many events: `python tests/soak.py --events 50000`.

The local stack delivers digits, images that are none, duplicates and inline requests to a transformer of its own
process, in batches; in some of them the store or the predictor is cut off for a moment, so that deliveries come again.
After each batch everything is settled, and it is looked at: whether each object was filed, byte for byte, and has one
result id; and the transformer's memory, threads, open files and temporary files. The exit code is 1 where something is
lost, or grows.

Memory is compared with what it was after the first 5,000 events, after a third where there are fewer than 10,000: by
then all pools are full. What rises slowly after that are glibc's caches, of which each thread fills its own; without
them (`--no-thread-caches`, slower) memory that still rises has leaked.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import itertools
import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from minio import Minio
from minio.deleteobjects import DeleteObject

import accuracy
import kinds
import mnist
from e2e.following import post, upload
from mnist_pipeline.adapters.group_member import Subscription
from mnist_pipeline.local.broker import API_VERSION
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.local.servers import ModelServer, start_transformer, transformer_settings
from mnist_pipeline.local.source import Source
from mnist_pipeline.local.stack import DIGIT_BUCKETS, NOTIFICATIONS_TOPIC, REJECTED_BUCKET, SOURCE_BUCKET, Stack
from mnist_pipeline.testing import minio_event
from servers.proxy import Proxy

BATCH = 500
"""Events between two looks."""
REFERENCE = 5_000
GROWTH = 0.05
"""How much more memory is allowed than there was at the reference."""
GROWTH_OF_FEW = 0.08
"""The same, where the reference comes so early that the allocator's own pools are still filling."""
MORE_FILES = 2
"""How many more open files than ever before the reference there may be: some may be about to close."""
DELIVERIES, DUPLICATES_AT_ONCE = 32, 8
AT_ONCE = DELIVERIES + DUPLICATES_AT_ONCE
"""Events under way at most. Pools keep what they needed: a thread each, and a connection each from the caller, to the
store and to the predictor. How much of that stands at a look depends on when the last cut was, so that only the whole
is a bound; what leaks, leaks with each of hundreds of events and is beyond it soon."""
MOST_THREADS = AT_ONCE + 24
MOST_SOCKETS = 3 * AT_ONCE + 24
"""Of one worker; the 24 are for decoding, Kafka, the event loop, listeners and whatever else does not grow."""

# Of a batch; the rest are digits.
_REJECTED = 0.05
_DUPLICATES = 0.10
_INLINE = 0.08
# Every third batch is cut off from the store, every third from the predictor.
_CUT_SECONDS = 1.0
_BATCH_SECONDS = 120.0
_POOL_OF_DIGITS = 300

# glibc's manual, "Memory Allocation Tunables".
_NO_THREAD_CACHES = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1"}

_HEADING = (
    f"{'events':>8} {'seconds':>8} {'memory MiB':>11} {'threads':>8} {'sockets':>8} {'files':>6} {'temporary':>10}"
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the transformer's processes hold after so many events, all of them settled."""

    events: int
    seconds: float
    memory_kib: int
    threads: int
    sockets: int
    other_files: int
    temporary: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One of the questions that a soak answers."""

    passed: bool
    says: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.says}"


@dataclass(kw_only=True)
class Tally:
    """What was sent and what became of it, over all batches; the lists name what went wrong."""

    uploads: int = 0
    rejected: int = 0
    duplicates: int = 0
    inline: int = 0
    failed_attempts: int = 0
    misfiled: list[str] = field(default_factory=list)
    unpublished: list[str] = field(default_factory=list)
    with_several_ids: list[str] = field(default_factory=list)
    wrongly_answered: list[str] = field(default_factory=list)

    @property
    def events(self) -> int:
        """Requests to the transformer, those that were sent again not counted."""
        return self.uploads + self.duplicates + self.inline


def why_not_here() -> str | None:
    """Why this machine cannot tell what a process holds; None: it can."""
    return None if Path("/proc/self/status").exists() else "only Linux tells what a process holds (/proc)"


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def sample(server: ModelServer, directory: Path, *, events: int, seconds: float) -> Sample:
    """Look at the transformer, its workers, and the directory that is theirs alone."""
    memory = threads = 0
    open_files: list[str] = []
    for pid in family(server.child.pid):
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        memory += int(status["VmRSS"].split()[0])
        threads += int(status["Threads"])
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                open_files.append(str(descriptor.readlink()))
    sockets = sum(name.startswith("socket:") for name in open_files)
    return Sample(
        events=events,
        seconds=seconds,
        memory_kib=memory,
        threads=threads,
        sockets=sockets,
        other_files=len(open_files) - sockets,
        # Its log lies there too.
        temporary=sum(path != server.child.log for path in directory.rglob("*")),
    )


class Results:
    """Reads the topic of results as it grows, because the broker keeps only its newest records."""

    def __init__(self, stack: Stack) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=stack.broker.bootstrap_servers,
            api_version=API_VERSION,
            enable_auto_commit=False,
            fetch_max_wait_ms=20,
        )
        topic = "mnist-predictions"
        partitions = [TopicPartition(topic, number) for number in self._consumer.partitions_for_topic(topic)]
        self._consumer.assign(partitions)
        self._consumer.seek_to_beginning(*partitions)

    def new(self) -> Iterator[tuple[str, str]]:
        """What each record that has come since is about, an object's key or a trace id, and the result's id."""
        while batches := self._consumer.poll(timeout_ms=200):
            for record in itertools.chain.from_iterable(batches.values()):
                event = json.loads(record.value)
                about = event["data"].get("object", {}).get("key") or event["trace-id"]
                yield about, event["id"]

    def close(self) -> None:
        """Leave."""
        self._consumer.close()


class Soak:
    """A stack with a transformer of its own behind proxies, and what has been sent through it."""

    def __init__(
        self, stack: Stack, sandbox: Sandbox, store: Proxy, predictor: Proxy, *, workers: int, thread_caches: bool
    ) -> None:
        self.tally = Tally()
        self._stack = stack
        self._store, self._predictor = store, predictor
        self._minio: Minio = stack.minio()
        self._started = time.monotonic()
        self._directory = sandbox.directory
        self._digits = _digits_that_are_read_right(_POOL_OF_DIGITS)
        self._next = 0
        # Of the whole run: a duplicate's result may be read in the batch after its object's.
        self._ids: dict[str, set[str]] = defaultdict(set)
        # The stack's own transformer connects directly, and shares its directory with the other parts.
        stack.source.close()
        stack.transformer.close()
        settings = transformer_settings(stack.gateway, stack.broker)
        self.server = start_transformer(
            sandbox,
            predictor_host=f"127.0.0.1:{predictor.port}",
            env={
                **settings,
                "MINIO_ENDPOINT": f"http://127.0.0.1:{store.port}",
                **({} if thread_caches else _NO_THREAD_CACHES),
            },
            workers=workers,
        )
        self.server.wait_ready()
        self._source = Source(
            stack.broker.kafka(NOTIFICATIONS_TOPIC),
            Subscription(
                topics=(NOTIFICATIONS_TOPIC,),
                group="soak",
                initial_offset="earliest",
                session_timeout_seconds=3.0,
                fetch_wait_seconds=0.02,
            ),
            self.server.predict_url,
            ordered=False,
            max_in_flight=DELIVERIES,
        )
        self._source.start()
        self._results = Results(stack)

    def look(self) -> Sample:
        """A sample of the transformer now."""
        seconds = time.monotonic() - self._started
        return sample(self.server, self._directory, events=self.tally.events, seconds=seconds)

    def batch(self, size: int, cut: Proxy | None) -> None:
        """Send so many events, wait until all of them are settled, and check what became of them."""
        duplicates = int(size * _DUPLICATES)
        bad = [self._name() for _ in range(int(size * _REJECTED))]
        inline = [self._name() for _ in range(int(size * _INLINE))]
        good = [self._name() for _ in range(size - len(bad) - len(inline) - duplicates)]
        again = (bad + good)[::5][:duplicates]
        pictures = dict(zip(good, itertools.cycle(self._digits), strict=False))
        objects = {name: png for name, (png, _) in pictures.items()} | {name: name.encode() for name in bad}
        with ThreadPoolExecutor(DUPLICATES_AT_ONCE) as threads, _cut_off(cut):
            asked = [threads.submit(self._ask_inline, name, *self._digits[i]) for i, name in enumerate(inline)]
            upload(self._stack, objects)
            asked += [threads.submit(self._duplicate, name) for name in again]
        for one in asked:
            one.result()
        self.tally.uploads += len(objects)
        self.tally.rejected += len(bad)
        self.tally.duplicates += len(again)
        self.tally.inline += len(inline)
        self._wait_until_settled()
        expected = {(f"digit-{digit}", name): _md5(png) for name, (png, digit) in pictures.items()}
        expected |= {(REJECTED_BUCKET, name): _md5(objects[name]) for name in bad}
        self._check_objects(expected)
        self._check_results({*objects, *inline})

    def close(self) -> None:
        """Stop the source and the transformer."""
        self._results.close()
        self._source.close()
        self.server.close()

    def _name(self) -> str:
        self._next += 1
        return f"soak/{self._next:06}.png"

    def _ask_inline(self, name: str, png: bytes, digit: int) -> None:
        """Ask until it is answered, as a client with patience does."""
        body = {"instances": [{"data": base64.b64encode(png).decode()}], "trace-id": name}
        give_up = time.monotonic() + _BATCH_SECONDS
        status, answer = self._post(body)
        while status is None or status >= 429:
            if time.monotonic() > give_up:
                break
            time.sleep(0.3)
            status, answer = self._post(body)
        if status != 200 or json.loads(answer) != {"predictions": [digit]}:
            self.tally.wrongly_answered.append(f"{name}: {status} {answer[:80]!r}")

    def _duplicate(self, name: str) -> None:
        """Deliver an object's event beside the source, which need not succeed: the source sees to it."""
        status, answer = self._post(minio_event(SOURCE_BUCKET, name))
        if status not in (None, 200, 422, 429, 503, 504):
            self.tally.wrongly_answered.append(f"{name} again: {status} {answer[:80]!r}")

    def _post(self, body: object) -> tuple[int | None, bytes]:
        try:
            answer = post(self.server.predict_url, body)
        except (OSError, HTTPException):
            return None, b""
        return answer.status, answer.body

    def _wait_until_settled(self) -> None:
        give_up = time.monotonic() + _BATCH_SECONDS
        while self._source.delivered + self._source.dead_lettered < self.tally.uploads:
            if time.monotonic() > give_up:
                break
            time.sleep(0.05)
        self.tally.failed_attempts = self._source.failed_attempts

    def _check_objects(self, expected: Mapping[tuple[str, str], str]) -> None:
        """Compare where everything lies, and which bytes, with what is expected; then make room."""
        filed: dict[tuple[str, str], str] = {}
        for bucket in (SOURCE_BUCKET, REJECTED_BUCKET, *DIGIT_BUCKETS):
            listed = list(self._minio.list_objects(bucket_name=bucket, recursive=True))
            filed |= {(bucket, str(one.object_name)): (one.etag or "").strip('"') for one in listed}
            doomed = [DeleteObject(str(one.object_name)) for one in listed if bucket != SOURCE_BUCKET]
            for error in self._minio.remove_objects(bucket_name=bucket, delete_object_list=doomed):
                raise AssertionError(error)
        wrong = dict(filed.items() ^ expected.items())
        self.tally.misfiled += [f"{bucket}/{name}" for bucket, name in wrong]

    def _check_results(self, expected: set[str]) -> None:
        give_up = time.monotonic() + _BATCH_SECONDS
        while True:
            for about, result in self._results.new():
                if result not in self._ids[about]:
                    self._ids[about].add(result)
                    if len(self._ids[about]) == 2:  # once, however many more come
                        self.tally.with_several_ids.append(about)
            if expected <= self._ids.keys() or time.monotonic() > give_up:
                break
        self.tally.unpublished += sorted(expected - self._ids.keys())


@contextlib.contextmanager
def _cut_off(proxy: Proxy | None) -> Iterator[None]:
    """Cut it for a moment, in the middle of what the block begins, and heal it before the block is left."""
    if proxy is None:
        yield
        return
    with ThreadPoolExecutor(1) as thread:

        def cut() -> None:
            time.sleep(_CUT_SECONDS)
            proxy.cut()
            time.sleep(_CUT_SECONDS)
            proxy.heal()

        done = thread.submit(cut)
        yield
    done.result()


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _digits_that_are_read_right(count: int) -> list[tuple[bytes, int]]:
    """MNIST test images as PNG with their labels, of which the demo's network misreads none."""
    pixels, labels = mnist.images()[: 2 * count], mnist.labels()[: 2 * count]
    network = accuracy.Network()
    files = ((kinds.png(image), int(label)) for image, label in zip(pixels, labels, strict=True))
    return [(data, label) for data, label in files if accuracy.read(network, data, label).digit == label][:count]


def soak(
    events: int, *, workers: int = 1, thread_caches: bool = True, say: Callable[[str], object] = print
) -> list[Verdict]:
    """Send so many events through a stack of its own, tell each sample as it is taken, and judge."""
    samples: list[Sample] = []
    with (
        Stack() as stack,
        Sandbox() as sandbox,
        Proxy(stack.gateway.port) as store,
        Proxy(stack.predictor.http_port) as predictor,
        contextlib.closing(
            Soak(stack, sandbox, store, predictor, workers=workers, thread_caches=thread_caches)
        ) as running,
    ):
        say(_HEADING)
        for cut in itertools.cycle((None, store, predictor)):
            running.batch(min(BATCH, events - running.tally.events), cut)
            samples.append(running.look())
            say(_row(samples[-1]))
            if running.tally.events >= events:
                break
        return judge(samples, running.tally, events, workers=workers)


def _row(one: Sample) -> str:
    return (
        f"{one.events:>8,} {one.seconds:>8.0f} {one.memory_kib / 1024:>11.1f} {one.threads:>8} {one.sockets:>8}"
        f" {one.other_files:>6} {one.temporary:>10}"
    )


def judge(samples: list[Sample], tally: Tally, events: int, *, workers: int = 1) -> list[Verdict]:
    """The verdicts on a run, from its samples and from what became of what was sent."""
    few = events < 2 * REFERENCE
    reference_events, growth = (events // 3, GROWTH_OF_FEW) if few else (REFERENCE, GROWTH)
    before = [one for one in samples if one.events <= reference_events] or samples[:1]
    reference, last = before[-1], samples[-1]
    share = last.memory_kib / reference.memory_kib
    verdicts = [
        Verdict(
            passed=share <= 1 + growth,
            says=f"memory after {last.events:,} events is {share:.3f} x that after {reference.events:,}"
            f" (at most {1 + growth:.2f})",
        )
    ]
    for name, most in (
        ("threads", MOST_THREADS * workers),
        ("sockets", MOST_SOCKETS * workers),
        ("other_files", max(one.other_files for one in before) + MORE_FILES),
    ):
        now = getattr(last, name)
        verdicts.append(Verdict(passed=now <= most, says=f"{now} {name.replace('_', ' ')} at the end (at most {most})"))
    temporary = max(one.temporary for one in samples)
    verdicts.append(Verdict(passed=temporary == 0, says=f"{temporary} temporary files were left at most"))
    for wrong, says in (
        (tally.misfiled, f"{tally.uploads:,} objects ({tally.rejected:,} to be rejected), lost or misfiled"),
        (tally.unpublished, "objects and requests without a result"),
        (tally.with_several_ids, "objects and requests whose results have several ids"),
        (
            tally.wrongly_answered,
            f"{tally.inline:,} inline requests and {tally.duplicates:,} duplicates, wrongly answered",
        ),
    ):
        verdicts.append(Verdict(passed=not wrong, says=f"{says}: {len(wrong)} {wrong[:3] or ''}".rstrip()))
    again = tally.failed_attempts
    verdicts.append(Verdict(passed=again > 0, says=f"{again:,} deliveries had to be made again"))
    return verdicts


def main() -> int:
    """Soak, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=50_000, metavar="N", help="to send (default %(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="of the transformer (default %(default)s)")
    parser.add_argument(
        "--no-thread-caches", action="store_true", help="run the transformer without the caches of glibc's malloc"
    )
    options = parser.parse_args()
    if reason := why_not_here():
        print(f"Left out: {reason}")  # noqa: T201 - a command that prints for people
        return 0
    logging.getLogger("mnist_pipeline.local").setLevel(logging.ERROR)  # each rejected object is a dead letter
    started = time.monotonic()
    verdicts = soak(
        options.events,
        workers=options.workers,
        thread_caches=not options.no_thread_caches,
        say=lambda line: print(line, flush=True),  # noqa: T201 - the same
    )
    print(*verdicts, sep="\n")  # noqa: T201 - the same
    print(f"{options.events / (time.monotonic() - started):.0f} events/s")  # noqa: T201 - the same
    return int(not all(verdict.passed for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
