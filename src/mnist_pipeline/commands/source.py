"""`mnist-pipeline source`: the stand-in for KafkaSource as a command, for laptops, compose files and tests."""

from __future__ import annotations

import argparse
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from kafka import KafkaProducer
from kafka.errors import KafkaError

from mnist_pipeline.adapters.group_member import Subscription
from mnist_pipeline.adapters.kafka_connection import Connections
from mnist_pipeline.commands import arguments, usage
from mnist_pipeline.local.delivery import DeadLetter, SinkConnection
from mnist_pipeline.local.knative import Backoff, Request
from mnist_pipeline.local.source import Source
from mnist_pipeline.pipeline.settings import Kafka, Settings, SettingsError
from mnist_pipeline.pipeline.task import Task

log = logging.getLogger(__name__)

_DEAD_LETTER_SECONDS = 30.0

_DESCRIPTION = """\
Deliver a topic's records to a URL over HTTP, as Knative's KafkaSource does: its headers, its table of what is
tried again, its back-off, at least once. Kafka is where the KAFKA_* variables say.

It is a stand-in for places without Knative: a laptop, a compose file, a test. It is not for a cluster. There
Knative does this, with several dispatchers, scaling, tracing and metrics that this has not.
"""

_EXAMPLES = """\
  mnist-pipeline source --sink http://localhost:8080/v1/models/mnist:predict
  # Ten attempts more, then to a topic of dead letters, from which `mnist-pipeline replay` takes them:
  mnist-pipeline source --sink http://localhost:8080/ --dead-letter-topic mnist-dead-letters
  # Up to a hundred at once, in any order:
  mnist-pipeline source --sink http://localhost:8080/ --unordered
"""

_CODES = """\
  0  ended by SIGTERM or Ctrl-C, with what was in flight finished
  1  delivery ended by itself: the log says why
  2  settings that cannot work
"""


def main(argv: Sequence[str], *, task: Task) -> int:
    """Deliver until SIGTERM or SIGINT, then finish what is in flight.

    Where Kafka or the topic is not there, or not for us, a line in the log says why, and it is tried again and again.
    Exit code 1: delivery ended by itself, the log has the stack; 2: wrong settings.
    """
    options = parser(task).parse_args(argv)
    try:
        kafka = Settings.from_environ(os.environ, task).kafka
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    if kafka is None:
        print("KAFKA_BOOTSTRAP_SERVERS is not set", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("mnist_pipeline").setLevel(logging.INFO)
    # Of a failed connection kafka-python logs much; the source says it in one line.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    # Not an Event: its `set` may not be called while the same thread is in its `wait`. This queue's `put` may, always.
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: ended.put(number))
    try:
        source = _source(kafka, options, on_failure=lambda: ended.put(0))
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    source.begin()
    ended.get()
    log.info("finishing what is in flight")
    source.close()
    log.info(
        "delivered %d, attempts that failed %d, dead letters %d",
        *(source.delivered, source.failed_attempts, source.dead_lettered),
    )
    return 1 if source.failed else 0


def parser(task: Task) -> argparse.ArgumentParser:
    """The flags."""
    name = task.name
    parser = usage.command_parser("source", description=_DESCRIPTION, examples=_EXAMPLES, codes=_CODES)
    parser.add_argument("--sink", required=True, type=arguments.url, metavar="URL", help="…/v1/models/<model>:predict")
    parser.add_argument(
        "--topic", default=name, type=arguments.topic, help="the notifications' topic (default: %(default)s)"
    )
    parser.add_argument("--group", default="mnist-pipeline-source", help="the consumer group that keeps the offsets")
    parser.add_argument("--name", default=name, help="of the KafkaSource, in ce-source")
    parser.add_argument("--namespace", default="default", help="of the KafkaSource, in ce-source and Kn-Namespace")
    parser.add_argument("--unordered", action="store_true", help="up to --max-in-flight at once; else one a partition")
    parser.add_argument("--max-in-flight", type=arguments.positive, default=100, metavar="N")
    parser.add_argument(
        "--retry", type=arguments.natural, default=10, metavar="N", help="attempts after the first (default: 10)"
    )
    parser.add_argument("--backoff", type=arguments.seconds, default=0.3, metavar="SECONDS", help="0 turns retries off")
    parser.add_argument("--backoff-policy", choices=("exponential", "linear"), default="exponential")
    parser.add_argument("--timeout", type=arguments.timeout, default=600.0, metavar="SECONDS", help="of one attempt")
    parser.add_argument("--initial-offset", choices=("latest", "earliest"), default="latest")
    dead = parser.add_mutually_exclusive_group()
    dead.add_argument(
        "--dead-letter-url", type=arguments.url, metavar="URL", help="gets what was given up, with knativeerror*"
    )
    dead.add_argument(
        "--dead-letter-topic", type=arguments.topic, metavar="TOPIC", help="the same, as records with ce_ headers"
    )
    return parser


def _source(kafka: Kafka, options: argparse.Namespace, *, on_failure: Callable[[], None]) -> Source:
    on_dead_letter: Callable[[DeadLetter], None] | None = None
    if options.dead_letter_url:
        on_dead_letter = _to_url(options.dead_letter_url)
    elif options.dead_letter_topic:
        on_dead_letter = _to_topic(options.dead_letter_topic, kafka)
    backoff_policy: Backoff = options.backoff_policy
    return Source(
        kafka,
        Subscription(topics=(options.topic,), group=options.group, initial_offset=options.initial_offset),
        options.sink,
        namespace=options.namespace,
        name=options.name,
        ordered=not options.unordered,
        retry=options.retry,
        backoff_seconds=options.backoff,
        backoff_policy=backoff_policy,
        timeout_seconds=options.timeout,
        max_in_flight=options.max_in_flight,
        on_dead_letter=on_dead_letter,
        on_failure=on_failure,
    )


def _to_url(url: str) -> Callable[[DeadLetter], None]:
    def post(letter: DeadLetter) -> None:
        connection = SinkConnection(url, _DEAD_LETTER_SECONDS)
        try:
            answer = connection.post(letter.request)
        finally:
            connection.close()
        if answer.status // 100 != 2:  # noqa: PLR2004 - HTTP's success
            raise OSError(f"the dead-letter sink answered {answer.status}")

    return post


def _to_topic(topic: str, kafka: Kafka) -> Callable[[DeadLetter], None]:
    producer: list[KafkaProducer] = []
    lock = threading.Lock()

    def produce(letter: DeadLetter) -> None:
        with lock:
            if not producer:
                connections = Connections(kafka)
                producer.append(
                    connections.open(
                        KafkaProducer,
                        timeout_seconds=_DEAD_LETTER_SECONDS,
                        enable_idempotence=False,
                        acks="all",
                    )
                )
        future = producer[0].send(
            topic, key=letter.record.key, value=letter.request.body, headers=list(_record_headers(letter.request))
        )
        try:
            future.get(timeout=_DEAD_LETTER_SECONDS)
        except KafkaError as exc:
            raise OSError(f"the dead-letter topic {topic} did not take it: {exc}") from exc

    return produce


def _record_headers(request: Request) -> list[tuple[str, bytes]]:
    """A CloudEvent's HTTP headers as those of a Kafka record (CloudEvents Kafka binding 1.0, section 3.2)."""
    kept = ((name.lower(), value) for name, value in request.headers)
    return [(name.replace("ce-", "ce_", 1), value) for name, value in kept if name.startswith(("ce-", "content-type"))]
