"""Makes what a site needs, again and again to the same end; or only looks.

What a site needs: the source buckets, with versions, a lifecycle rule for the old ones and a notification to Kafka; the
buckets in which objects are filed, rejected or put aside for review; the topics of notifications, of results and, where
`consume` reads them, of dead letters. Each is one part, printed as one line, by its outcome:

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
to `KAFKA_TOPIC` and to the topic of dead letters) is a `problem`. With the credentials that set the site up, everything
is looked at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TextIO, TypeAlias

from mnist_pipeline.adapters.buckets import USER_HINT as STORE_USER_HINT
from mnist_pipeline.adapters.buckets import BucketStore, absent_key, is_denial
from mnist_pipeline.adapters.kafka_topics import USER_HINT as KAFKA_USER_HINT
from mnist_pipeline.adapters.kafka_topics import Topics
from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.adapters.refusals import Away, Refused
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Kafka, Minio, Settings
from mnist_pipeline.site.buckets import bucket_parts, object_lock
from mnist_pipeline.site.parts import Outcome, Part
from mnist_pipeline.site.topics import Topic

_STORE_SECONDS = 10.0
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


Handle: TypeAlias = Callable[[Part, Report], Awaitable[bool]]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What of a site the settings do not say.

    Attributes:
        topic: of the store's notifications.
        notification_arn: the store's own name of its Kafka target.
        dead_letter_topic: of what `consume` gives up; None: there is none.
        partitions: of a topic that is made; None: six.
        replication: of a topic that is made; None: the brokers' own.
    """

    topic: str
    notification_arn: str
    dead_letter_topic: str | None = None
    partitions: int | None = None
    replication: int | None = None


async def handle_store(settings: Settings, minio: Minio, wishes: Wishes, report: Report, *, checking: bool) -> None:
    """Make all that the store has to have, or check it and what our user may do with it."""
    objects, store = MinioObjectStore(minio, connections=1), BucketStore(minio)
    try:
        await _sign_in(objects, settings, report, checking=checking)
        groups = bucket_parts(store, settings, wishes.notification_arn)
        await each_of(groups, report, check if checking else set_up)
        if checking:
            for bucket in dict.fromkeys(settings.source_buckets):
                await _check_release(store, bucket, report)
            for bucket in settings.aside_buckets:
                await _check_preconditions(store, objects, bucket, report)
    except Away as exc:
        report.say(Outcome.PROBLEM if checking else Outcome.NOT_DONE, "store", str(exc))
    finally:
        await store.close()
        await objects.close()


async def handle_topics(kafka: Kafka, wishes: Wishes, report: Report, *, checking: bool) -> None:
    """Make the topics, or check them and whether our user may produce."""
    produced_to = [topic for topic in (kafka.topic, wishes.dead_letter_topic) if topic]
    try:
        topics = await Topics.connect(kafka)
        try:
            groups = [
                [Topic(topics, name, wishes.partitions, wishes.replication, needed=name in produced_to)]
                for name in (wishes.topic, *produced_to)
            ]
            await each_of(groups, report, check if checking else set_up)
            if checking:
                for name in produced_to:
                    await _check_producing(topics, name, report)
        finally:
            await topics.close()
    except (Refused, Away) as exc:
        report.say(Outcome.PROBLEM if checking else Outcome.NOT_DONE, "Kafka", str(exc))


async def each_of(groups: Sequence[Sequence[Part]], report: Report, handle: Handle) -> None:
    """Handle all parts; those of a group are left out where its first, on which they depend, is not there."""
    for first, *rest in groups:
        if await handle(first, report):
            for part in rest:
                await handle(part, report)
        else:
            for part in rest:
                report.say(Outcome.LEFT_OUT, part.what, f"for want of {first.what}")


async def set_up(part: Part, report: Report) -> bool:
    """Mend the part where it has to be; whether it is there now."""
    try:
        state = await part.look()
        if state.lacks:
            await part.mend()
    except Refused as refused:
        report.say(Outcome.NOT_ALLOWED if refused.denied else Outcome.NOT_DONE, part.what, str(refused))
        return False
    report.say(state.mended if state.lacks else Outcome.THERE, part.what, state.note)
    return True


async def check(part: Part, report: Report) -> bool:
    """Look at the part; whether it may be there."""
    try:
        state = await part.look()
    except Refused as refused:
        unseen = refused.denied and not refused.needed
        report.say(Outcome.UNSEEN if unseen else Outcome.PROBLEM, part.what, "" if unseen else str(refused))
        return unseen
    if state.lacks:
        report.say(Outcome.PROBLEM, part.what, f"{state.lacks}; {_MENDED_BY_SETUP}")
        return False
    report.say(Outcome.THERE, part.what, state.note)
    return True


async def _sign_in(objects: MinioObjectStore, settings: Settings, report: Report, *, checking: bool) -> None:
    """Ask the store what the transformer asks it before it is ready; raises `Away` where it knows us not at all."""
    denied = False
    for bucket in settings.source_buckets:
        try:
            await objects.check(bucket, deadline=Deadline(_STORE_SECONDS))
        except PipelineError as exc:
            if not is_denial(exc):
                raise Away(str(exc)) from exc
            denied = True
            if checking:
                says = f"may not list bucket {bucket}, without which no transformer is ready; {STORE_USER_HINT}"
                report.say(Outcome.PROBLEM, "credentials of the store", says)
    if checking and not denied:
        report.say(Outcome.THERE, "credentials of the store")


async def _check_release(store: BucketStore, bucket: str, report: Report) -> None:
    """Whether what is filed can be deleted from a source bucket, asked with a version that is not there."""
    what, lock = f"right to release from bucket {bucket}", f"object lock of bucket {bucket}"
    try:
        await store.remove(bucket, absent_key(), "null")
    except Refused as refused:
        if refused.code == "NoSuchBucket":
            report.say(Outcome.LEFT_OUT, what, f"for want of bucket {bucket}")
            return
        says = f"{refused} (s3:DeleteObject, s3:DeleteObjectVersion); what is filed stays here, as retained"
        report.say(Outcome.PROBLEM, what, says)
    else:
        report.say(Outcome.THERE, what)
    try:
        state = await object_lock(store, bucket)
    except Refused as refused:
        report.say(Outcome.UNSEEN if refused.denied else Outcome.LEFT_OUT, lock, "" if refused.denied else str(refused))
    else:
        report.say(Outcome.PROBLEM if state.lacks else Outcome.THERE, lock, state.lacks or state.note)


async def _check_preconditions(store: BucketStore, objects: MinioObjectStore, bucket: str, report: Report) -> None:
    """Whether a second PUT of one key with `If-None-Match: *` is refused: else a filed image could be overwritten."""
    what, key = f"If-None-Match in bucket {bucket}", absent_key()
    try:
        # Before anything is written: may we see it and remove it again? Neither finds anything, so nothing is changed.
        await store.newest_version(bucket, key)
        await store.remove(bucket, key, "null")
    except Refused as refused:
        if refused.denied:
            report.say(Outcome.UNSEEN, what, "our user could not remove the probe; ask with one that may")
        else:
            report.say(Outcome.LEFT_OUT, what, str(refused))
        return
    try:
        written = [await _put_probe(objects, bucket, key) for _ in range(_PROBES)]
    except PipelineError as exc:
        report.say(Outcome.PROBLEM, what, str(exc))
    else:
        if written == [True, False]:
            report.say(Outcome.THERE, what)
        else:
            says = "the store ignores it and overwrites: a filed image can be lost; MINIO_ENDPOINT needs another one"
            report.say(Outcome.PROBLEM, what, says)
    finally:
        await _remove_probe(store, bucket, key, report)


async def _put_probe(objects: MinioObjectStore, bucket: str, key: str) -> bool:
    return await objects.put(
        bucket,
        key,
        b"probe",
        content_type="text/plain",
        content_headers={},
        metadata={},
        tags={},
        deadline=Deadline(_STORE_SECONDS),
    )


async def _remove_probe(store: BucketStore, bucket: str, key: str, report: Report) -> None:
    """Remove every version of the probe: a store with versions that ignores preconditions has made two."""
    try:
        for _ in range(_PROBES):
            if (version_id := await store.newest_version(bucket, key)) is not None:
                await store.remove(bucket, key, version_id)
        left = await store.newest_version(bucket, key) is not None
    except (Refused, Away) as exc:
        report.say(Outcome.PROBLEM, f"probe object {bucket}/{key}", f"may be left over, remove it: {exc}")
    else:
        if left:
            report.say(Outcome.PROBLEM, f"probe object {bucket}/{key}", "is left over, remove it")


async def _check_producing(topics: Topics, topic: str, report: Report) -> None:
    """Whether our user may produce to the topic, as far as the brokers tell."""
    what = f"right to produce to topic {topic}"
    try:
        found = await topics.describe(topic)
    except Refused:
        found = None
    if found is None:
        report.say(Outcome.LEFT_OUT, what, f"for want of topic {topic}")
    elif not found.operations:
        report.say(Outcome.LEFT_OUT, what, "these brokers do not tell")
    elif "WRITE" in found.operations:
        report.say(Outcome.THERE, what)
    else:
        report.say(Outcome.PROBLEM, what, f"it is missing; {KAFKA_USER_HINT} (operation Write on {topic})")
