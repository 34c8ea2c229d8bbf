"""`mnist-pipeline setup`: site/ and its parts, on stores and topics in memory; real servers: tests/real."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from digits import digits_settings
from mnist_pipeline import cli
from mnist_pipeline.adapters.kafka_topics import Description, Topics, description_of
from mnist_pipeline.adapters.refusals import Refused
from mnist_pipeline.commands import setup
from mnist_pipeline.pipeline import events
from mnist_pipeline.site.bucket_configs import (
    EVENTS,
    Change,
    lifecycle_change,
    notification_change,
    versioning_change,
)
from mnist_pipeline.site.parts import Outcome, State
from mnist_pipeline.site.setup import Report, check, each_of, set_up
from mnist_pipeline.site.topics import Topic
from mnist_pipeline.testing import minio_event
from unit.memory_s3 import MemoryS3, memory_s3
from unit.memory_s3 import set_up_on as run

ARN = "arn:minio:sqs:us-east-1:PRIMARY:kafka"
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def changed(change: Change | None) -> tuple[ET.Element, State]:
    assert change is not None
    root = ET.fromstring(change.config)  # noqa: S314 - our own
    assert root.tag.startswith(f"{{{NAMESPACE}}}")
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root, change.state


# --- versioning ---


def test_versioning_that_is_on_is_left_alone() -> None:
    assert versioning_change(b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>") is None


@pytest.mark.parametrize(
    ("config", "lacks", "mended"),
    [
        (b"<VersioningConfiguration/>", "is off", Outcome.MADE),
        (
            b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>",
            "is suspended",
            Outcome.CHANGED,
        ),
    ],
)
def test_versioning_is_switched_on(config: bytes, lacks: str, mended: Outcome) -> None:
    root, state = changed(versioning_change(config))
    assert [status.text for status in root.findall("Status")] == ["Enabled"]
    assert (state.lacks, state.mended) == (lacks, mended)


# --- lifecycle ---


def lifecycle(*rules: str) -> bytes:
    return f'<LifecycleConfiguration xmlns="{NAMESPACE}">{"".join(rules)}</LifecycleConfiguration>'.encode()


def old_versions(
    *, days: int = 7, status: str = "Enabled", condition: str = "<Prefix></Prefix>", more: str = "", rule: str = "x"
) -> str:
    return (
        f"<Rule><ID>{rule}</ID><Status>{status}</Status><Filter>{condition}</Filter><NoncurrentVersionExpiration>"
        f"<NoncurrentDays>{days}</NoncurrentDays>{more}</NoncurrentVersionExpiration></Rule>"
    )


@pytest.mark.parametrize("condition", ["<Prefix></Prefix>", ""])
def test_a_rule_for_old_versions_will_do_whoever_made_it(condition: str) -> None:
    assert lifecycle_change(lifecycle(old_versions(condition=condition))) is None


@pytest.mark.parametrize(
    "rule",
    [
        old_versions(days=8),
        old_versions(status="Disabled"),
        old_versions(condition="<Prefix>tmp/</Prefix>"),
        old_versions(condition="<Tag><Key>a</Key><Value>b</Value></Tag>"),
        old_versions(condition="<And><Prefix></Prefix></And>"),
        old_versions(more="<NewerNoncurrentVersions>3</NewerNoncurrentVersions>"),
        "<Rule><ID>x</ID><Status>Enabled</Status><Filter/><Expiration><Days>7</Days></Expiration></Rule>",
    ],
)
def test_a_rule_that_does_something_else_is_kept_beside_ours(rule: str) -> None:
    root, state = changed(lifecycle_change(lifecycle(rule)))
    assert [one.findtext("ID") for one in root.findall("Rule")] == ["x", "mnist-pipeline-old-versions"]
    assert state.mended is Outcome.MADE
    assert lifecycle_change(ET.tostring(root)) is None


def test_other_peoples_rules_stay_as_they_are_with_elements_that_minio_py_does_not_know() -> None:
    theirs = (
        "<Rule><ID>marks</ID><Status>Enabled</Status><DelMarkerExpiration><Days>3</Days></DelMarkerExpiration></Rule>"
    )
    root, _ = changed(lifecycle_change(lifecycle(theirs)))
    assert ET.tostring(root.findall("Rule")[0], encoding="unicode") == theirs


def test_our_rule_is_put_right_where_somebody_changed_it() -> None:
    root, state = changed(lifecycle_change(lifecycle(old_versions(days=30, rule="mnist-pipeline-old-versions"))))
    assert [one.findtext("*/NoncurrentDays") for one in root.findall("Rule")] == ["7"]
    assert state.mended is Outcome.CHANGED


# --- notifications ---


def notifications(*rules: str) -> bytes:
    return f"<NotificationConfiguration>{''.join(rules)}</NotificationConfiguration>".encode()


def queue(
    *, arn: str = ARN, events: Sequence[str] = EVENTS, filters: Sequence[tuple[str, str]] = (("suffix", ".png"),)
) -> str:
    conditions = "".join(f"<FilterRule><Name>{n}</Name><Value>{v}</Value></FilterRule>" for n, v in filters)
    return (
        f"<QueueConfiguration><Id></Id><Filter><S3Key>{conditions}</S3Key></Filter>"
        f"{''.join(f'<Event>{event}</Event>' for event in events)}<Queue>{arn}</Queue></QueueConfiguration>"
    )


def rules_of(root: ET.Element) -> list[tuple[str | None, str | None, list[str | None]]]:
    return [
        (rule.findtext("Queue"), rule.findtext(".//Value"), [event.text for event in rule.findall("Event")])
        for rule in root.findall("QueueConfiguration")
    ]


def test_exactly_the_events_that_the_pipeline_handles_are_subscribed() -> None:
    def is_handled(event_name: str) -> bool:
        body = json.dumps(minio_event("mnist", "a.png", event_name=event_name)).encode()
        request = events.parse(body, {}, digits_settings())
        return isinstance(request, events.Notification) and bool(request.objects)

    created = (
        "Put",
        "Post",
        "Copy",
        "CompleteMultipartUpload",
        "PutTagging",
        "DeleteTagging",
        "PutRetention",
        "PutLegalHold",
    )
    every = [f"s3:ObjectCreated:{how}" for how in created] + ["s3:ObjectRemoved:Delete", "s3:ObjectAccessed:Get"]
    assert [name for name in every if is_handled(name)] == list(EVENTS)


def test_each_suffix_gets_a_rule_of_its_own_and_then_nothing_is_missing() -> None:
    root, state = changed(notification_change(notifications(), ARN, (".png", ".jpg", ".png")))
    assert rules_of(root) == [(ARN, ".png", list(EVENTS)), (ARN, ".jpg", list(EVENTS))]
    assert (state.mended, state.note) == (Outcome.MADE, "")
    assert notification_change(ET.tostring(root), ARN, (".png", ".jpg")) is None


@pytest.mark.parametrize(
    "rule",
    [
        queue(arn="arn:minio:sqs::PRIMARY:kafka"),
        queue(events=EVENTS[::-1]),
        queue(filters=[("Suffix", ".png")]),
    ],
    ids=["MinIO without a region", "another order", "a capital, as AWS has it"],
)
def test_the_same_rule_as_a_store_gives_it_back_is_left_alone(rule: str) -> None:
    assert notification_change(notifications(rule), ARN, (".png",)) is None


@pytest.mark.parametrize(
    "rules",
    [
        [queue(events=["s3:ObjectCreated:*"])],
        [queue(events=[*EVENTS, "s3:ObjectRemoved:Delete"])],
        [queue(events=EVENTS[:3])],
        [queue(filters=[])],
        [queue(filters=[("suffix", ".png"), ("prefix", "a/")])],
        [queue(filters=[("prefix", ".png")])],
        [queue(), queue(filters=[("suffix", ".gif")])],
        [queue(), queue()],
    ],
)
def test_rules_of_our_target_that_differ_are_replaced_and_that_is_said(rules: list[str]) -> None:
    root, state = changed(notification_change(notifications(*rules), ARN, (".png",)))
    assert rules_of(root) == [(ARN, ".png", list(EVENTS))]
    assert state.mended is Outcome.CHANGED
    assert "removed rules of the same ARN that differed: 1" in state.note
    assert ARN in state.lacks


def test_rules_of_other_targets_stay() -> None:
    other = queue(arn="arn:minio:sqs::SECONDARY:kafka", events=["s3:ObjectRemoved:*"], filters=[("prefix", "ö&amp;/")])
    bridge = "<EventBridgeConfiguration />"
    root, state = changed(notification_change(notifications(other, bridge), ARN, (".png",)))
    kept = [ET.tostring(element, encoding="unicode") for element in root][:2]
    assert kept == [other.replace("<Id></Id>", "<Id />"), bridge]
    assert (state.mended, state.note) == (Outcome.MADE, "kept rules of others: 2")


def test_an_arn_of_another_kind_must_match_in_its_region_too() -> None:
    ours, other = ("arn:aws:sqs:eu-west-1:1:q", "arn:aws:sqs:eu-west-2:1:q")
    root, _ = changed(notification_change(notifications(queue(arn=other)), ours, (".png",)))
    assert [arn for arn, _, _ in rules_of(root)] == [other, ours]


# --- what is said of parts ---


@dataclass
class FakePart:
    """A part that is found as told, and remembers that it was mended."""

    what: str
    found: State | Refused = field(default_factory=State)
    refuses: Refused | None = None
    mended: bool = False

    async def look(self) -> State:
        if isinstance(self.found, Refused):
            raise self.found
        return State() if self.mended else self.found

    async def mend(self) -> None:
        if self.refuses:
            raise self.refuses
        self.mended = True


DENIED = Refused("no", denied=True)
MISSING = State(lacks="is not there", note="with love")


@pytest.mark.parametrize(
    ("part", "line", "failed"),
    [
        (FakePart("it"), "there: it", False),
        (FakePart("it", MISSING), "made: it (with love)", False),
        (FakePart("it", State(lacks="differs", mended=Outcome.CHANGED)), "changed: it", False),
        (FakePart("it", MISSING, refuses=DENIED), "not allowed: it: no", True),
        (FakePart("it", MISSING, refuses=Refused("cannot")), "not done: it: cannot", True),
        (FakePart("it", DENIED), "not allowed: it: no", True),
    ],
)
async def test_setup_mends_a_part_and_says_what_became_of_it(part: FakePart, line: str, *, failed: bool) -> None:
    report = Report(out := io.StringIO())
    await set_up(part, report)
    assert (out.getvalue(), report.failed) == (line + "\n", failed)


@pytest.mark.parametrize(
    ("part", "line", "failed"),
    [
        (FakePart("it"), "there: it", False),
        (FakePart("it", MISSING), "problem: it: is not there; mnist-pipeline setup mends it", True),
        (FakePart("it", DENIED), "not allowed to look: it", False),
        (FakePart("it", Refused("no", denied=True, needed=True)), "problem: it: no", True),
        (FakePart("it", Refused("cannot")), "problem: it: cannot", True),
    ],
)
async def test_a_check_mends_nothing_and_knows_what_our_user_has_to_see(
    part: FakePart, line: str, *, failed: bool
) -> None:
    report = Report(out := io.StringIO())
    await check(part, report)
    assert (out.getvalue(), report.failed, part.mended) == (line + "\n", failed, False)


async def test_what_depends_on_a_part_that_is_missing_is_left_out_and_the_rest_goes_on() -> None:
    report = Report(out := io.StringIO())
    dependent = FakePart("its colour", MISSING)
    await each_of([[FakePart("it", MISSING, refuses=DENIED), dependent], [FakePart("other")]], report, set_up)
    assert out.getvalue().splitlines() == [
        "not allowed: it: no",
        "left out: its colour (for want of it)",
        "there: other",
    ]
    assert not dependent.mended


# --- topics ---


class FakeTopics(Topics):
    """Tells of a topic what it was told, and remembers what was made."""

    def __init__(self, error_code: int = 0, leaders: Sequence[int] = ()) -> None:
        self.described = {"error_code": error_code, "partitions": [{"leader_id": leader} for leader in leaders]}
        self.made: list[tuple[str, int, int]] = []

    async def describe(self, topic: str) -> Description | None:
        assert topic == "t"
        return description_of(self.described)

    async def create(self, topic: str, *, partitions: int, replication: int) -> None:
        self.made.append((topic, partitions, replication))


def topic(
    topics: Topics, *, partitions: int | None = None, replication: int | None = None, needed: bool = True
) -> Topic:
    return Topic(topics, "t", partitions, replication, needed)


@pytest.mark.parametrize(("partitions", "replication", "made"), [(None, None, ("t", 6, -1)), (3, 2, ("t", 3, 2))])
async def test_a_topic_that_is_missing_is_made(
    partitions: int | None, replication: int | None, made: tuple[str, int, int]
) -> None:
    topics = FakeTopics(error_code=3)
    part = topic(topics, partitions=partitions, replication=replication)
    assert (await part.look()).lacks == "is not there"
    await part.mend()
    assert topics.made == [made]


async def test_a_topic_keeps_its_partitions_and_it_is_said_where_they_are_not_as_many_as_asked_for() -> None:
    assert await topic(FakeTopics(leaders=[1, 1])).look() == State()
    assert await topic(FakeTopics(leaders=[1, 1]), partitions=2).look() == State()
    state = await topic(FakeTopics(leaders=[1, 1]), partitions=9).look()
    assert state.note == "with 2 partitions, which setup does not change"


async def test_a_topic_without_a_leader_is_no_use() -> None:
    with pytest.raises(Refused, match="1 of its 2 partitions have no leader"):
        await topic(FakeTopics(leaders=[1, -1])).look()
    with pytest.raises(Refused, match="0 partitions"):
        await topic(FakeTopics()).look()


async def test_a_topic_that_our_user_may_not_see_matters_where_we_produce_to_it() -> None:
    for needed in (True, False):
        with pytest.raises(Refused, match="KAFKA_SASL_USERNAME") as refused:
            await topic(FakeTopics(error_code=29), needed=needed).look()
        assert (refused.value.denied, refused.value.needed) == (True, needed)


# --- the command, on a store in memory ---


@pytest.fixture
def store() -> Iterator[MemoryS3]:
    with memory_s3() as server:
        yield server


PARTS_OF_THE_STORE = [
    "bucket mnist",
    "versioning of bucket mnist",
    "lifecycle of bucket mnist",
    "notification of bucket mnist",
    *(f"bucket digit-{digit}" for digit in range(10)),
    "bucket mnist-rejected",
]
NO_TOPICS = "left out: topics (KAFKA_BOOTSTRAP_SERVERS is not set)"
NO_PREDICTOR = "left out: predictor (not asked: --predictor_host is not given)"


def test_a_site_is_made_once_and_then_it_is_there(store: MemoryS3) -> None:
    assert run(store) == (0, [*(f"made: {part}" for part in PARTS_OF_THE_STORE), NO_TOPICS])
    before = [action for action in store.done if action.startswith("Put")]
    assert run(store) == (0, [*(f"there: {part}" for part in PARTS_OF_THE_STORE), NO_TOPICS])
    assert [action for action in store.done if action.startswith("Put")] == before


def test_a_site_that_was_set_up_passes_the_check_which_leaves_nothing_behind(store: MemoryS3) -> None:
    run(store)
    before = {name: dict(configs) for name, configs in store.configs.items()}
    parts = ["credentials of the store", *PARTS_OF_THE_STORE, "right to release from bucket mnist"]
    parts += ["object lock of bucket mnist (off)", "If-None-Match in bucket mnist-rejected"]
    assert run(store, "--check") == (0, [*(f"there: {part}" for part in parts), NO_TOPICS, NO_PREDICTOR])
    assert (store.configs, store.leftovers) == (before, [])


def test_the_check_of_an_empty_store_has_a_line_for_each_bucket_and_makes_none(store: MemoryS3) -> None:
    code, lines = run(store, "--check")
    assert code == 1
    problems = [line for line in lines if line.startswith("problem: ")]
    buckets = [part for part in PARTS_OF_THE_STORE if part.startswith("bucket")]
    assert problems == [f"problem: {bucket}: is not there; mnist-pipeline setup mends it" for bucket in buckets]
    assert store.configs == {}


def test_the_settings_decide_which_buckets_there_are(store: MemoryS3) -> None:
    run(store, SOURCE_BUCKETS="in-a,in-b", DESTINATION="in-b/digit-{digit}", REJECTED_BUCKET="bad")
    assert sorted(store.configs) == ["bad", "in-a", "in-b"]
    assert {name for name, configs in store.configs.items() if configs} == {"in-a", "in-b"}


def test_what_may_not_or_cannot_be_done_is_said_and_the_rest_is_done(store: MemoryS3) -> None:
    store.denied = {"PutLifecycle"}
    store.broken = {"PutVersioning"}
    code, lines = run(store)
    assert code == 1
    failed = [line.partition(": ")[2].split(":")[0] for line in lines if line.startswith("not ")]
    assert failed == ["versioning of bucket mnist", "lifecycle of bucket mnist"]
    assert "not allowed: lifecycle of bucket mnist: the store answered AccessDenied" in "\n".join(lines)
    assert "NotImplemented" in lines[1]
    assert "MINIO_ENDPOINT" in lines[1]
    assert "notification" in store.configs["mnist"]
    assert "mnist-rejected" in store.configs


def test_a_target_that_minio_does_not_know_yet_is_waited_for(store: MemoryS3) -> None:
    store.unknown_arns = 2
    assert run(store)[0] == 0
    assert b"PRIMARY" in store.configs["mnist"]["notification"]


def test_a_target_that_minio_does_not_know_at_all_is_named_by_its_option(
    store: MemoryS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_pipeline.adapters.buckets._ARN_SECONDS", 0.3)
    store.unknown_arns = 1000
    code, lines = run(store)
    assert code == 1
    assert "--notification-arn" in next(line for line in lines if "notification of" in line)


def test_a_user_with_the_least_privileges_passes_the_check_of_what_it_needs(store: MemoryS3) -> None:
    run(store)
    store.objects.clear()
    # On the source it may list; elsewhere only GET and PUT objects. HEAD and GET of an object are one right.
    store.denied = {"HeadBucket", "GetVersioning", "GetLifecycle", "GetNotification", "GetObject-lock"}
    store.denied |= {"DeleteObject mnist-rejected"}
    store.done.clear()
    code, lines = run(store, "--check")
    assert code == 0
    unseen = [line.partition(": ")[2].partition(" (")[0] for line in lines if line.startswith("not allowed to look: ")]
    assert unseen == [
        *PARTS_OF_THE_STORE[1:4],
        "object lock of bucket mnist",
        "If-None-Match in bucket mnist-rejected",
    ]
    assert "PutObject" not in store.done  # what it could not remove again was never written


def test_a_user_who_may_not_list_a_source_bucket_has_a_problem(store: MemoryS3) -> None:
    run(store)
    store.denied = {"GetListing"}
    code, lines = run(store, "--check")
    assert code == 1
    assert lines[0].startswith("problem: credentials of the store: may not list bucket mnist")
    assert "MINIO_ACCESS_KEY" in lines[0]
    assert run(store)[0] == 0  # setting up does not take it


def test_row_44_a_user_who_may_not_delete_from_a_source_bucket_has_a_problem(store: MemoryS3) -> None:
    run(store)
    store.denied = {"DeleteObject mnist"}
    code, lines = run(store, "--check")
    assert code == 1
    (problem,) = [line for line in lines if line.startswith("problem")]
    assert problem.startswith("problem: right to release from bucket mnist: the store answered AccessDenied; ")
    assert "MINIO_ACCESS_KEY" in problem
    assert "s3:DeleteObjectVersion" in problem
    assert store.leftovers == []


LOCK = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{}</ObjectLockConfiguration>"
RETENTION = "<Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>30</Days></DefaultRetention></Rule>"


def test_row_44_object_lock_is_named_and_a_default_retention_is_a_problem(store: MemoryS3) -> None:
    run(store)
    store.configs["mnist"]["object-lock"] = LOCK.format("").encode()
    code, lines = run(store, "--check")
    assert code == 0
    assert "there: object lock of bucket mnist (on, without a default" in "\n".join(lines)
    store.configs["mnist"]["object-lock"] = LOCK.format(RETENTION).encode()
    code, lines = run(store, "--check")
    assert code == 1
    (problem,) = [line for line in lines if line.startswith("problem")]
    assert problem.startswith("problem: object lock of bucket mnist: it keeps every upload (GOVERNANCE, 30 days): ")
    assert "reconcile" in problem


def test_a_store_that_knows_no_object_lock_keeps_nobody_from_anything(store: MemoryS3) -> None:
    run(store)
    store.broken = {"GetObject-lock"}
    code, lines = run(store, "--check")
    assert (code, next(line for line in lines if "object lock" in line)[:9]) == (0, "left out:")


def test_a_user_who_may_not_write_into_the_rejected_bucket_has_a_problem(store: MemoryS3) -> None:
    run(store)
    store.denied = {"PutObject"}
    code, lines = run(store, "--check")
    (problem,) = [line for line in lines if line.startswith("problem")]
    assert code == 1
    assert "If-None-Match" in problem
    assert "AccessDenied" in problem


@pytest.mark.parametrize("versioned", [False, True])
def test_a_store_that_ignores_if_none_match_is_found_out_and_every_version_of_the_probe_removed(
    store: MemoryS3, *, versioned: bool
) -> None:
    run(store)
    store.honours_preconditions = False
    store.versioned = {"mnist-rejected"} if versioned else set()
    code, lines = run(store, "--check")
    (problem,) = [line for line in lines if line.startswith("problem")]
    assert code == 1
    assert problem.startswith("problem: If-None-Match in bucket mnist-rejected: the store ignores it")
    assert store.leftovers == []


def test_a_store_that_is_away_is_one_line_and_no_part_is_tried(store: MemoryS3) -> None:
    code, lines = run(store, MINIO_ENDPOINT="127.0.0.1:1")
    assert (code, len(lines)) == (1, 2)
    assert lines[0].startswith("not done: store: ")
    assert "MINIO_ENDPOINT" in lines[0]
    assert store.done == []


def test_nonsense_from_the_store_is_one_line(store: MemoryS3) -> None:
    run(store)
    store.configs["mnist"]["versioning"] = b"<html>"
    code, lines = run(store, "--check")
    assert code == 1
    assert lines[-3].startswith("problem: store: versioning of bucket mnist: no answer that makes sense (ParseError)")


def test_brokers_that_are_away_are_one_line_that_names_the_variables(
    store: MemoryS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_pipeline.adapters.kafka_topics._SECONDS", 0.3)
    for arguments, outcome in (([], "not done"), (["--check"], "problem")):
        code, lines = run(store, *arguments, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
        assert code == 1
        assert [line for line in lines if "Kafka" in line] == [
            f"{outcome}: Kafka: not connected: no connection to a broker; check KAFKA_BOOTSTRAP_SERVERS"
        ]


def test_a_predictor_that_is_away_is_a_problem(store: MemoryS3) -> None:
    run(store)
    code, lines = run(store, "--check", "--predictor_host", "127.0.0.1:1")
    assert code == 1
    assert lines[-1].startswith("problem: predictor 127.0.0.1:1: ")
    assert "PREDICTOR_FORMAT" in lines[-1]


# --- arguments ---


@pytest.mark.parametrize(
    ("environ", "arguments", "names"),
    [
        ({}, [], ["MINIO_ACCESS_KEY"]),
        ({"EVENT_MODE": "x", "MAX_IN_FLIGHT": "0"}, [], ["EVENT_MODE", "MAX_IN_FLIGHT"]),
        ({"KAFKA_BOOTSTRAP_SERVERS": "k", "KAFKA_TOPIC": "t"}, ["--topic", "t"], ["MINIO_ACCESS_KEY", "KAFKA_TOPIC"]),
        ({}, ["--topic", "t", "--dead-letter-topic", "t"], ["MINIO_ACCESS_KEY", "--dead-letter-topic"]),
        (
            {"KAFKA_BOOTSTRAP_SERVERS": "k", "KAFKA_TOPIC": "t"},
            ["--dead-letter-topic", "t"],
            ["MINIO_ACCESS_KEY", "--dead-letter-topic"],
        ),
        ({"PREDICTOR_FORMAT": "torchserve"}, ["--predictor_protocol", "v2"], ["PREDICTOR_FORMAT"]),
    ],
)
def test_settings_that_cannot_work_are_named_one_a_line(
    environ: dict[str, str], arguments: list[str], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup.main(arguments, environ) == 2
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == names


@pytest.mark.parametrize("arguments", [["--partitions", "0"], ["--replication", "x"], ["--predictor_protocol", "v3"]])
def test_arguments_that_cannot_be_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        setup.main(arguments, {})
    assert exited.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_it_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(argv=["setup", "--help"])
    assert exited.value.code == 0
    assert "--notification-arn" in capsys.readouterr().out
