"""`mnist-pipeline setup`: makes the buckets, the notification and the topics of a site; with `--check`, only looks.

What its lines and exit codes mean: `site/setup.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

import numpy as np

from mnist_pipeline.commands import arguments, predictor_flags, usage
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import DeadlineExceeded, PredictorUnavailable
from mnist_pipeline.pipeline.interpretation import Label, Prediction
from mnist_pipeline.pipeline.path import PREDICT_SHARE, Pipeline
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Minio, Settings, SettingsError
from mnist_pipeline.pipeline.task import Task
from mnist_pipeline.site.parts import Outcome
from mnist_pipeline.site.policy import policy_of
from mnist_pipeline.site.setup import Report, Wishes, handle_store, handle_topics
from mnist_pipeline.site.topics import DEFAULT_PARTITIONS

if TYPE_CHECKING:
    from mnist_pipeline.serving.transformer import ObjectTransformer

DEFAULT_ARN = "arn:minio:sqs:us-east-1:PRIMARY:kafka"

_PREDICTOR_SECONDS = 10.0

_DESCRIPTION = """\
Make the buckets, the notification and the topics that the settings of the environment name. What is there already
stays. Prints one line for each.
"""

_EXAMPLES = """\
  mnist-pipeline setup                                        # make what is missing
  mnist-pipeline setup --check                                # look whether all is as it should be, change nothing
  mnist-pipeline setup --check --predictor_host mnist-predictor
  mnist-pipeline setup --print-policy > policy.json           # what the transformer's own user has to be allowed
"""

_CODES = """\
  0  all is as it should be
  1  see the lines that begin with 'not allowed:', 'not done' or 'problem'
  2  settings that cannot work

What --check is 'not allowed to look' at is what the transformer's own user need not see; with the credentials that set
the site up, everything is looked at.
"""


def main(
    argv: Sequence[str],
    environ: Mapping[str, str] | None = None,
    out: TextIO | None = None,
    *,
    task: Task | type[Task] = Digits,
    model: type[ObjectTransformer] | None = None,
) -> int:
    """Run `mnist-pipeline setup`: one line a part to `out`, else to the standard output; exit code 0, 1 or 2.

    `task` and `model` are those of `serve`.
    """
    task = task() if isinstance(task, type) else task
    args = parser(task).parse_args(argv)
    environ = os.environ if environ is None else environ
    try:
        if args.print_policy:
            policy = policy_of(Settings.from_environ(environ, task))
            print(json.dumps(policy, indent=2), file=out or sys.stdout)
            return 0
        settings, minio = _settings(task, args, environ)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    # Of a failed connection kafka-python logs much; it is said here in one line.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    report = Report(out or sys.stdout)
    asyncio.run(_handle(settings, minio, args, report, model))
    return 1 if report.failed else 0


def parser(task: Task) -> argparse.ArgumentParser:
    """The flags."""
    parser = usage.command_parser(
        "setup",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
        codes=_CODES,
    )
    parser.add_argument("--topic", default=task.name, help="the topic of MinIO's notifications (default: %(default)s)")
    parser.add_argument(
        "--dead-letter-topic",
        type=arguments.topic,
        metavar="TOPIC",
        help="the topic of what `consume` gives up (default: none is made)",
    )
    parser.add_argument(
        "--partitions",
        type=arguments.positive,
        metavar="N",
        help=f"of a topic that is made (default: {DEFAULT_PARTITIONS})",
    )
    parser.add_argument(
        "--replication",
        type=arguments.positive,
        metavar="N",
        help="of a topic that is made (default: the brokers' own)",
    )
    parser.add_argument(
        "--notification-arn",
        default=DEFAULT_ARN,
        metavar="ARN",
        help="the Kafka target in MinIO's configuration (default: %(default)s)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing, but look whether all of it is so, and whether the credentials, the predictor and the "
        "store's If-None-Match work; writes a probe into the rejected bucket and into that of reviews, and removes it",
    )
    parser.add_argument(
        "--print-policy",
        action="store_true",
        help="only print what the transformer's own user has to be allowed to do in the store, as a policy in JSON",
    )
    predictor_flags.add_to(parser, task, why="the predictor that --check asks (default: asks none)")
    return parser


def _settings(task: Task, args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Settings, Minio]:
    settings = Settings.from_environ(
        environ, task, model_name=args.model_name, predictor_protocol=args.predictor_protocol
    )
    problems = []
    if settings.minio is None:
        problems.append("MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set: setup needs the store")
    if settings.kafka is not None and settings.kafka.topic == args.topic:
        problems.append(f"KAFKA_TOPIC is {args.topic}, which is --topic: results would come back as notifications")
    results = settings.kafka.topic if settings.kafka else None
    if args.dead_letter_topic and args.dead_letter_topic in (args.topic, results):
        problems.append(f"--dead-letter-topic is {args.dead_letter_topic}, which is the notifications' or the results'")
    if settings.minio is None or problems:
        raise SettingsError(problems)
    return settings, settings.minio


async def _handle(
    settings: Settings,
    minio: Minio,
    args: argparse.Namespace,
    report: Report,
    kind: type[ObjectTransformer] | None,
) -> None:
    wishes = Wishes(
        topic=args.topic,
        notification_arn=args.notification_arn,
        dead_letter_topic=args.dead_letter_topic,
        partitions=args.partitions,
        replication=args.replication,
    )
    await handle_store(settings, minio, wishes, report, checking=args.check)
    if settings.kafka is None:
        report.say(Outcome.LEFT_OUT, "topics", "KAFKA_BOOTSTRAP_SERVERS is not set")
    else:
        await handle_topics(settings.kafka, wishes, report, checking=args.check)
    if args.check:
        await _check_predictor(settings, args, report, kind)


async def _check_predictor(
    settings: Settings, args: argparse.Namespace, report: Report, kind: type[ObjectTransformer] | None
) -> None:
    """Whether the predictor answers one label to one tensor of the task's, all zeros."""
    if not args.predictor_host:
        report.say(Outcome.LEFT_OUT, "predictor", "not asked: --predictor_host is not given")
        return
    # Not before here: KServe takes seconds to import, and only this needs it.
    from mnist_pipeline.serving.transformer import ObjectTransformer

    what = f"predictor {args.predictor_host}"
    model = (kind or ObjectTransformer)(
        args.model_name, Pipeline(settings, None, None), predictor_flags.config_of(args)
    )
    try:
        label = await _label_of_zeros(model, settings.task)
    except (PredictorUnavailable, DeadlineExceeded) as exc:
        says = f"{exc}; check --predictor_host, --predictor_protocol, --model_name and PREDICTOR_FORMAT"
        report.say(Outcome.PROBLEM, what, says)
    else:
        zeros = "a blank image is" if isinstance(settings.task, Digits) else "zeros are"
        report.say(Outcome.THERE, what, f"{zeros} a {label}")


async def _label_of_zeros(model: ObjectTransformer, task: Task) -> Label:
    zeros = np.zeros((1, *task.input.shape), task.input.datatype)
    try:
        found = (await model.classify(zeros, Deadline(_PREDICTOR_SECONDS / PREDICT_SHARE)))[0]
    finally:
        await model.close_clients()
    return found.label if isinstance(found, Prediction) else found
