"""`mnist-pipeline setup`: makes what a site needs, again and again to the same end; with `--check`, only looks.

What a site needs: the source buckets, with versions, a lifecycle rule for the old ones and a notification to Kafka; the
buckets of the digits and of what is rejected; the two topics. Each is one part, printed as one line, by its outcome:

| line begins with | meaning | exit code |
|---|---|---|
| `there` | it is as it should be | 0 |
| `made`, `changed` | it was not there; it was there, but different | 0 |
| `left out` | nothing was asked for, or what it belongs to is missing | 0 |
| `not allowed to look` | `--check`: our user may not see it, and does not need to for the pipeline's work | 0 |
| `not allowed`, `not done` | our user may not, or the server will not or cannot | 1 |
| `problem` | `--check`: it is not as it should be, or not as the transformer needs it | 1 |

`--check` is meant to be run with the transformer's own credentials. What its policy need not grant (to read a bucket's
configuration, to describe the notifications' topic, to remove a probe) is then `not allowed to look`; what the
transformer cannot do without (to list a source bucket and delete from it, to write into the rejected bucket, to produce
to `KAFKA_TOPIC`) is a `problem`. With the credentials that set the site up, everything is looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

import numpy as np
from minio.error import S3Error

from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.commands import predictor_flags
from mnist_pipeline.pipeline.errors import PipelineError, PredictorUnavailable
from mnist_pipeline.pipeline.path import PREDICT_SHARE, Pipeline
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Kafka, Settings, SettingsError
from mnist_pipeline.pipeline.settings import Minio as MinioSettings
from mnist_pipeline.site.buckets import DENIED, BucketStore, absent_key, bucket_parts
from mnist_pipeline.site.buckets import USER_HINT as STORE_USER_HINT
from mnist_pipeline.site.parts import Away, Outcome, Part, Refused
from mnist_pipeline.site.topics import DEFAULT_PARTITIONS, Topic, Topics
from mnist_pipeline.site.topics import USER_HINT as KAFKA_USER_HINT

if TYPE_CHECKING:
    from mnist_pipeline.pipeline.path import Tensorizer
    from mnist_pipeline.serving.transformer import MnistTransformer

DEFAULT_ARN = "arn:minio:sqs:us-east-1:PRIMARY:kafka"

_STORE_SECONDS = 10.0
_PREDICTOR_SECONDS = 10.0
# The second PUT of the probe has to be refused.
_PROBES = 2
_MENDED_BY_SETUP = "mnist-pipeline setup mends it"

_FAILURES = frozenset({Outcome.NOT_ALLOWED, Outcome.NOT_DONE, Outcome.PROBLEM})


class Report:
    """One line for each part, written as it becomes known; `failed` tells whether any of them calls for somebody."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.failed = False

    def say(self, outcome: Outcome, what: str, detail: str = "") -> None:
        """Write `outcome: what (detail)`, or `outcome: what: detail` where it failed."""
        self.failed = self.failed or outcome in _FAILURES
        if detail:
            detail = f": {detail}" if outcome in _FAILURES else f" ({detail})"
        self._out.write(f"{outcome.value}: {what}{detail}\n")
        self._out.flush()


def main(
    arguments: Sequence[str],
    environ: Mapping[str, str] | None = None,
    out: TextIO | None = None,
    *,
    transformer: Callable[..., MnistTransformer] | None = None,
    tensorize: Tensorizer | None = None,
    settings: type[Settings] = Settings,
) -> int:
    """Run `mnist-pipeline setup`: one line a part to `out`, else to the standard output; exit code 0, 1 or 2.

    The parts of another transformer are those that it gives to `serve`.
    """
    del tensorize  # no image is read here
    args = _parser().parse_args(arguments)
    try:
        read, minio = _settings(settings, args, os.environ if environ is None else environ)
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    # Of a failed connection kafka-python logs much; it is said here in one line.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    report = Report(out or sys.stdout)
    try:
        _store_section(read, minio, args, report)
    except Away as exc:
        report.say(Outcome.PROBLEM if args.check else Outcome.NOT_DONE, "store", str(exc))
    if read.kafka is None:
        report.say(Outcome.LEFT_OUT, "topics", "KAFKA_BOOTSTRAP_SERVERS is not set")
    else:
        try:
            _topics_section(read.kafka, args, report)
        except (Refused, Away) as exc:
            report.say(Outcome.PROBLEM if args.check else Outcome.NOT_DONE, "Kafka", str(exc))
    if args.check:
        _check_predictor(transformer, read, args, report)
    return 1 if report.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mnist-pipeline setup",
        description="Make the buckets, the notification and the topics that the settings of the environment name "
        "(README.md has the table); what is there already stays. Prints one line for each.",
        epilog="Exit code 0: all is as it should be; 1: see the lines that begin with 'not allowed:', 'not done' or "
        "'problem'; 2: settings that cannot work. What --check is 'not allowed to look' at is what the transformer's "
        "own user need not see; with the credentials that set the site up, everything is looked at.",
        allow_abbrev=False,
    )
    parser.add_argument("--topic", default="mnist", help="the topic of MinIO's notifications (default: %(default)s)")
    parser.add_argument(
        "--partitions", type=_positive, metavar="N", help=f"of a topic that is made (default: {DEFAULT_PARTITIONS})"
    )
    parser.add_argument(
        "--replication", type=_positive, metavar="N", help="of a topic that is made (default: the brokers' own)"
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
        "store's If-None-Match work; writes one probe object into the rejected bucket, and removes it",
    )
    predictor_flags.add_to(parser, why="the predictor that --check asks (default: asks none)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _settings(
    kind: type[Settings], args: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[Settings, MinioSettings]:
    settings = kind.from_environ(environ, model_name=args.model_name, predictor_protocol=args.predictor_protocol)
    problems = []
    if settings.minio is None:
        problems.append("MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set: setup needs the store")
    if settings.kafka is not None and settings.kafka.topic == args.topic:
        problems.append(f"KAFKA_TOPIC is {args.topic}, which is --topic: results would come back as notifications")
    if settings.minio is None or problems:
        raise SettingsError(problems)
    return settings, settings.minio


def _store_section(settings: Settings, minio: MinioSettings, args: argparse.Namespace, report: Report) -> None:
    objects = MinioObjectStore(minio)
    with contextlib.closing(objects):
        _sign_in(objects, settings, report, checking=args.check)
        with contextlib.closing(BucketStore(minio)) as store:
            groups = bucket_parts(store, settings, args.notification_arn)
            each_of(groups, report, check if args.check else set_up)
            if args.check:
                for bucket in dict.fromkeys(settings.source_buckets):
                    _check_release(store, bucket, report)
                _check_preconditions(store, objects, settings.rejected_bucket, report)


def _sign_in(objects: MinioObjectStore, settings: Settings, report: Report, *, checking: bool) -> None:
    """Ask the store what the transformer asks it before it is ready; raises `Away` where it knows us not at all."""
    denied = False
    for bucket in settings.source_buckets:
        try:
            objects.check(bucket, deadline=Deadline(_STORE_SECONDS))
        except PipelineError as exc:
            if not (isinstance(exc.__cause__, S3Error) and exc.__cause__.code in DENIED):
                raise Away(str(exc)) from exc
            denied = True
            if checking:
                says = f"may not list bucket {bucket}, without which no transformer is ready; {STORE_USER_HINT}"
                report.say(Outcome.PROBLEM, "credentials of the store", says)
    if checking and not denied:
        report.say(Outcome.THERE, "credentials of the store")


def _topics_section(kafka: Kafka, args: argparse.Namespace, report: Report) -> None:
    topics = Topics(kafka)
    with contextlib.closing(topics):
        results = Topic(topics, kafka.topic, args.partitions, args.replication, needed=True)
        notifications = Topic(topics, args.topic, args.partitions, args.replication, needed=False)
        each_of([[notifications], [results]], report, check if args.check else set_up)
        if args.check:
            _check_producing(topics, kafka.topic, report)


def each_of(groups: Sequence[Sequence[Part]], report: Report, handle: Callable[[Part, Report], bool]) -> None:
    """Handle all parts; those of a group are left out where its first, on which they depend, is not there."""
    for first, *rest in groups:
        if handle(first, report):
            for part in rest:
                handle(part, report)
        else:
            for part in rest:
                report.say(Outcome.LEFT_OUT, part.what, f"for want of {first.what}")


def set_up(part: Part, report: Report) -> bool:
    """Mend the part where it has to be; whether it is there now."""
    try:
        state = part.look()
        if state.lacks:
            part.mend()
    except Refused as refused:
        report.say(Outcome.NOT_ALLOWED if refused.denied else Outcome.NOT_DONE, part.what, str(refused))
        return False
    report.say(state.mended if state.lacks else Outcome.THERE, part.what, state.note)
    return True


def check(part: Part, report: Report) -> bool:
    """Look at the part; whether it may be there."""
    try:
        state = part.look()
    except Refused as refused:
        unseen = refused.denied and not refused.needed
        report.say(Outcome.UNSEEN if unseen else Outcome.PROBLEM, part.what, "" if unseen else str(refused))
        return unseen
    if state.lacks:
        report.say(Outcome.PROBLEM, part.what, f"{state.lacks}; {_MENDED_BY_SETUP}")
        return False
    report.say(Outcome.THERE, part.what, state.note)
    return True


def _check_release(store: BucketStore, bucket: str, report: Report) -> None:
    """Whether what is filed can be deleted from a source bucket, asked with a version that is not there."""
    what, lock = f"right to release from bucket {bucket}", f"object lock of bucket {bucket}"
    try:
        store.remove(bucket, absent_key(), "null")
    except Refused as refused:
        if refused.code == "NoSuchBucket":
            report.say(Outcome.LEFT_OUT, what, f"for want of bucket {bucket}")
            return
        says = f"{refused} (s3:DeleteObject, s3:DeleteObjectVersion); what is filed stays here, as retained"
        report.say(Outcome.PROBLEM, what, says)
    else:
        report.say(Outcome.THERE, what)
    try:
        state = store.object_lock(bucket)
    except Refused as refused:
        report.say(Outcome.UNSEEN if refused.denied else Outcome.LEFT_OUT, lock, "" if refused.denied else str(refused))
    else:
        report.say(Outcome.PROBLEM if state.lacks else Outcome.THERE, lock, state.lacks or state.note)


def _check_preconditions(store: BucketStore, objects: MinioObjectStore, bucket: str, report: Report) -> None:
    """Whether a second PUT of one key with `If-None-Match: *` is refused: else a filed image could be overwritten."""
    what, key = f"If-None-Match in bucket {bucket}", absent_key()
    try:
        # Before anything is written: may we see it and remove it again? Neither finds anything, so nothing is changed.
        store.newest_version(bucket, key)
        store.remove(bucket, key, "null")
    except Refused as refused:
        if refused.denied:
            report.say(Outcome.UNSEEN, what, "our user could not remove the probe; ask with one that may")
        else:
            report.say(Outcome.LEFT_OUT, what, str(refused))
        return
    try:
        written = [_put_probe(objects, bucket, key) for _ in range(_PROBES)]
    except PipelineError as exc:
        report.say(Outcome.PROBLEM, what, str(exc))
    else:
        if written == [True, False]:
            report.say(Outcome.THERE, what)
        else:
            says = "the store ignores it and overwrites: a filed image can be lost; MINIO_ENDPOINT needs another one"
            report.say(Outcome.PROBLEM, what, says)
    finally:
        _remove_probe(store, bucket, key, report)


def _put_probe(objects: MinioObjectStore, bucket: str, key: str) -> bool:
    return objects.put(
        bucket,
        key,
        b"probe",
        content_type="text/plain",
        content_headers={},
        metadata={},
        tags={},
        deadline=Deadline(_STORE_SECONDS),
    )


def _remove_probe(store: BucketStore, bucket: str, key: str, report: Report) -> None:
    """Remove every version of the probe: a store with versions that ignores preconditions has made two."""
    try:
        for _ in range(_PROBES):
            if (version_id := store.newest_version(bucket, key)) is not None:
                store.remove(bucket, key, version_id)
        left = store.newest_version(bucket, key) is not None
    except (Refused, Away) as exc:
        report.say(Outcome.PROBLEM, f"probe object {bucket}/{key}", f"may be left over, remove it: {exc}")
    else:
        if left:
            report.say(Outcome.PROBLEM, f"probe object {bucket}/{key}", "is left over, remove it")


def _check_producing(topics: Topics, topic: str, report: Report) -> None:
    """Whether our user may produce to the topic, as far as the brokers tell."""
    what = f"right to produce to topic {topic}"
    described = topics.describe(topic)
    if described["error_code"]:
        report.say(Outcome.LEFT_OUT, what, f"for want of topic {topic}")
        return
    operations = described.get("authorized_operations")
    if not operations:
        report.say(Outcome.LEFT_OUT, what, "these brokers do not tell")
    elif "WRITE" in operations:
        report.say(Outcome.THERE, what)
    else:
        report.say(Outcome.PROBLEM, what, f"it is missing; {KAFKA_USER_HINT} (operation Write on KAFKA_TOPIC)")


def _check_predictor(
    transformer: Callable[..., MnistTransformer] | None, settings: Settings, args: argparse.Namespace, report: Report
) -> None:
    """Whether the predictor answers one digit to one blank image."""
    if not args.predictor_host:
        report.say(Outcome.LEFT_OUT, "predictor", "not asked: --predictor_host is not given")
        return
    # Not before here: KServe takes seconds to import, and only this needs it.
    from mnist_pipeline.serving.transformer import MnistTransformer  # noqa: PLC0415 - see above

    what = f"predictor {args.predictor_host}"
    pipeline, predictor = Pipeline(settings, None, None), predictor_flags.config_of(args)
    try:
        digit = asyncio.run(_ask((transformer or MnistTransformer)(args.model_name, pipeline, predictor)))
    except PredictorUnavailable as exc:
        says = f"{exc}; check --predictor_host, --predictor_protocol, --model_name and PREDICTOR_FORMAT"
        report.say(Outcome.PROBLEM, what, says)
    else:
        report.say(Outcome.THERE, what, f"a blank image is a {digit}")


async def _ask(model: MnistTransformer) -> int:
    blank = np.zeros((1, 28, 28), np.float32)
    try:
        return (await model.classify(blank, Deadline(_PREDICTOR_SECONDS / PREDICT_SHARE)))[0]
    finally:
        await model.close_clients()
