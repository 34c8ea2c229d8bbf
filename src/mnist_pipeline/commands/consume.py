"""`mnist-pipeline consume`: a consumer group takes the notifications straight from Kafka down the path, in batches."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mnist_pipeline.commands import arguments, predictor_flags, usage
from mnist_pipeline.commands.environment import problems_of_metrics
from mnist_pipeline.commands.serve import pipeline_of
from mnist_pipeline.pipeline.settings import Settings, SettingsError
from mnist_pipeline.pipeline.task import Task

if TYPE_CHECKING:
    import socket

    from mnist_pipeline.serving.transformer import ObjectTransformer

log = logging.getLogger(__name__)

_COMMIT_SECONDS = 1.0
_MOST_DEAD_LETTER_BYTES = 128 * 1024 * 1024

_DESCRIPTION = """\
Take notifications, and inline requests, straight from Kafka down the transformer's path, as a member of a consumer
group: several objects at a time, with one request to the predictor. It does what `serve` does behind a KafkaSource,
for a part of the CPU, and without Knative; start it as often as there are partitions, at most.

A record's offset is committed once all that it names is filed, published and released, or refused for good. What fails
is tried again; after --retry attempts it goes to the topic of dead letters, from which `replay` takes it, unless the
store, Kafka or the predictor is away. Without such a topic it is tried again for as long as it takes.

The settings are those of the transformer, from the environment (`serve --help` has them all).
"""

_EXAMPLES = """\
  mnist-pipeline consume --predictor_host mnist-predictor
  mnist-pipeline consume --predictor_host mnist-predictor --dead-letter-topic mnist-dead-letters --batch 64
  mnist-pipeline consume --predictor_host mnist-predictor --topic uploads --topic scans --group readers
"""

_CODES = """\
  0  ended by SIGTERM or Ctrl-C, with what was in hand finished
  1  ended by itself: the log says why
  2  settings that cannot work, or a port that is taken
"""


def main(argv: Sequence[str], *, task: Task, model: type[ObjectTransformer] | None = None) -> int:
    """Consume until SIGTERM; exit code 0, 1 or 2. `task` and `model` are those of `serve`."""
    options = parser(task).parse_args(argv)
    try:
        settings = _settings(task, options)
        # Not before here: wrong settings are told at once, and these imports take seconds.
        from mnist_pipeline.adapters.sockets import PortTaken, listen
        from mnist_pipeline.telemetry import logs

        try:
            listener = listen(options.host, options.http_port)
        except PortTaken as exc:
            print(exc, file=sys.stderr)
            return 2
        logs.configure(settings.log_format)
        # Of failed connections Kafka's client logs much; we say the same in one line.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
        return _consume(settings, options, model, listener)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2


def parser(task: Task) -> argparse.ArgumentParser:
    """The flags."""
    parser = usage.command_parser("consume", description=_DESCRIPTION, examples=_EXAMPLES, codes=_CODES)
    parser.add_argument(
        "--topic",
        action="append",
        type=arguments.topic,
        help=f"of notifications and requests; may be repeated (default: {task.name})",
    )
    parser.add_argument("--group", default=f"{task.name}-consumer", help="the consumer group (default: %(default)s)")
    parser.add_argument(
        "--initial-offset",
        choices=("latest", "earliest"),
        default="earliest",
        help="where a new group begins (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=arguments.positive,
        default=32,
        metavar="N",
        help="so many objects go together at most; two batches are in hand with MAX_IN_FLIGHT of 64 (default: 32)",
    )
    parser.add_argument(
        "--linger",
        type=arguments.seconds,
        default=0.02,
        metavar="SECONDS",
        help="how long a batch waits to be full while another is in hand (default: %(default)s)",
    )
    parser.add_argument("--dead-letter-topic", type=arguments.topic, metavar="TOPIC", help="for what is given up")
    parser.add_argument(
        "--retry", type=arguments.natural, default=10, metavar="N", help="attempts after the first (default: 10)"
    )
    parser.add_argument(
        "--backoff",
        type=arguments.seconds,
        default=0.3,
        metavar="SECONDS",
        help="times 2 to the power of n it waits before attempt n, a minute at most (default: %(default)s)",
    )
    parser.add_argument("--host", help="where health and metrics are to be had (default: all addresses)")
    parser.add_argument("--http_port", type=int, default=8080, metavar="PORT", help="the same (default: %(default)s)")
    predictor_flags.add_to(parser, task, why="where the predictor is")
    return parser


def _settings(task: Task, options: argparse.Namespace) -> Settings:
    options.topic = options.topic or [task.name]
    problems = [*problems_of_metrics(os.environ)]
    if not options.predictor_host:
        problems.append("--predictor_host is missing: the predictor's HOST[:PORT]")
    if not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        problems.append("KAFKA_BOOTSTRAP_SERVERS is not set: there is nothing to consume")
    if options.dead_letter_topic in options.topic:
        problems.append(f"--dead-letter-topic is {options.dead_letter_topic}, which is read: it would loop")
    try:
        settings = Settings.from_environ(
            os.environ, task, model_name=options.model_name, predictor_protocol=options.predictor_protocol
        )
    except SettingsError as exc:
        raise SettingsError([*problems, *exc.problems]) from exc
    results = settings.kafka.topic if settings.kafka is not None else None
    if results in options.topic:
        problems.append(f"--topic is {results}, which is KAFKA_TOPIC too: results would be consumed")
    if results is not None and results == options.dead_letter_topic:
        problems.append(f"--dead-letter-topic is {results}, which is KAFKA_TOPIC too: nobody could tell them apart")
    if problems:
        raise SettingsError(problems)
    return settings


def _consume(
    settings: Settings, options: argparse.Namespace, kind: type[ObjectTransformer] | None, listener: socket.socket
) -> int:
    from mnist_pipeline.adapters.event_loop import calm_garbage_collector, use_uvloop
    from mnist_pipeline.serving.transformer import ObjectTransformer

    pipeline = pipeline_of(settings, options.model_name)
    model = (kind or ObjectTransformer)(options.model_name, pipeline, predictor_flags.config_of(options))
    use_uvloop()
    calm_garbage_collector()
    return asyncio.run(_run(model, options, listener))


async def _run(model: ObjectTransformer, options: argparse.Namespace, listener: socket.socket) -> int:
    from mnist_pipeline.adapters.group_member import Subscription
    from mnist_pipeline.adapters.kafka import member_of, publisher_of
    from mnist_pipeline.consuming import health
    from mnist_pipeline.consuming.consumer import Consumer, Manner
    from mnist_pipeline.pipeline.errors import NotReady
    from mnist_pipeline.pipeline.ports import Deadline
    from mnist_pipeline.pipeline.readiness import CHECK_SECONDS, Readiness
    from mnist_pipeline.telemetry.metrics import DEAD_LETTERS

    kafka = model.pipeline.settings.kafka
    if kafka is None:
        raise AssertionError("the settings were checked")
    loop = asyncio.get_running_loop()
    dead_letters = None
    if options.dead_letter_topic:
        # As large as whatever can be read; what the topic takes is its own business.
        dead_letters = publisher_of(replace(kafka, topic=options.dead_letter_topic), most_bytes=_MOST_DEAD_LETTER_BYTES)
    else:
        log.warning("there is no --dead-letter-topic: what is refused is only told here, what fails is tried for ever")
    consumer = Consumer(
        model.pipeline,
        model.through_hooks({}),
        model.classify,
        dead_letters=dead_letters,
        manner=Manner(
            batch=options.batch,
            linger_seconds=options.linger,
            retry=options.retry,
            backoff_seconds=options.backoff,
            destination=f"consumer-group:{options.group}",
        ),
        on_dead_letter=lambda reason: DEAD_LETTERS.labels(options.model_name, reason).inc(),
    )
    failed = asyncio.Event()

    def fail() -> None:
        failed.set()
        consumer.stop()

    def fail_from_thread() -> None:
        loop.call_soon_threadsafe(fail)

    member = member_of(
        kafka,
        Subscription(topics=options.topic, group=options.group, initial_offset=options.initial_offset),
        consumer.lanes,
        commit_seconds=_COMMIT_SECONDS,
        on_failure=fail_from_thread,
    )

    async def check() -> None:
        await model.pipeline.check(Deadline(CHECK_SECONDS))
        if dead_letters is not None:
            await dead_letters.check(deadline=Deadline(CHECK_SECONDS))
        if member.trouble is not None:
            raise NotReady(member.trouble)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, consumer.stop)
    try:
        async with health.answering(listener, options.model_name, Readiness(check).look):
            await consumer.run(member)
    finally:
        await model.close_clients()
        if dead_letters is not None:
            await dead_letters.close()
    return int(failed.is_set())
