"""`mnist-pipeline setup` on MinIO and Apache Kafka themselves, as their root user and as the transformer's own."""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from kafka import KafkaConsumer
from minio.commonconfig import GOVERNANCE, Tags
from minio.notificationconfig import NotificationConfig, PrefixFilterRule, QueueConfig
from minio.objectlockconfig import DAYS, ObjectLockConfig
from minio.versioningconfig import SUSPENDED, VersioningConfig

from fashion import Fashion
from mnist_pipeline import Digits, Task
from mnist_pipeline.commands import setup
from mnist_pipeline.local.processes import Sandbox
from real.site import DIGIT_BUCKETS, REJECTED_BUCKET
from servers.kafka import KafkaServer
from servers.minio import REGION, MinioServer, transformer_policy, variables_of
from thumbnails import Thumbnails

pytestmark = pytest.mark.real

SOURCE = ("bucket mnist", "versioning of bucket mnist", "lifecycle of bucket mnist", "notification of bucket mnist")
BUCKETS = (*SOURCE, *(f"bucket {name}" for name in (*DIGIT_BUCKETS, REJECTED_BUCKET)))
OTHER_ARN = f"arn:minio:sqs:{REGION}:OTHER:kafka"


@pytest.fixture
def topics() -> tuple[str, str]:
    """The topics of the notifications and of the results, new ones for each test."""
    name = f"setup-{secrets.token_hex(4)}"
    return name, f"{name}-predictions"


@pytest.fixture
def minio(minio_program: Path, real_kafka: KafkaServer, topics: tuple[str, str]) -> Iterator[MinioServer]:
    """An empty MinIO with two targets: ours, and somebody else's."""
    env = {}
    for target in ("PRIMARY", "OTHER"):
        env[f"MINIO_NOTIFY_KAFKA_ENABLE_{target}"] = "on"
        env[f"MINIO_NOTIFY_KAFKA_BROKERS_{target}"] = real_kafka.bootstrap_servers
        env[f"MINIO_NOTIFY_KAFKA_TOPIC_{target}"] = topics[0] if target == "PRIMARY" else "other"
    with Sandbox() as sandbox, MinioServer(minio_program, sandbox, env=env) as server:
        yield server


@pytest.fixture
def environ(minio: MinioServer, real_kafka: KafkaServer, topics: tuple[str, str]) -> dict[str, str]:
    return {
        **variables_of(minio.root),
        "KAFKA_BOOTSTRAP_SERVERS": real_kafka.bootstrap_servers,
        "KAFKA_TOPIC": topics[1],
    }


def run(environ: Mapping[str, str], topic: str, *arguments: str, task: type[Task] = Digits) -> tuple[int, list[str]]:
    out = io.StringIO()
    code = setup.main(["--topic", topic, *arguments], environ, out, task=task)
    assert environ["MINIO_SECRET_KEY"] not in out.getvalue()
    return code, out.getvalue().splitlines()


def keys_in(topic: str, count: int, kafka: KafkaServer) -> list[str]:
    """The keys of so many records, and of any that comes soon after; sorted, as MinIO keeps no order."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest", group_id=None
    )
    keys: list[str] = []
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = consumer.poll(timeout_ms=500).values()
        keys += [record.key.decode() for records in found for record in records]
        if len(keys) >= count and not found:
            break
    consumer.close()
    return sorted(keys)


def versions_in(minio: MinioServer, bucket: str) -> list[str]:
    found = minio.client().list_objects(bucket_name=bucket, recursive=True, include_version=True)
    return [f"{one.object_name}@{one.version_id}" for one in found]


def test_a_site_is_made_once_and_then_it_is_there_and_passes_the_check(
    environ: dict[str, str], topics: tuple[str, str], minio: MinioServer, real_kafka: KafkaServer
) -> None:
    parts = [*BUCKETS, *(f"topic {topic}" for topic in topics)]
    checked = ["credentials of the store", *BUCKETS, "right to release from bucket mnist"]
    checked += ["object lock of bucket mnist (off)", "If-None-Match in bucket mnist-rejected", *parts[-2:]]
    checked.append(f"right to produce to topic {topics[1]}")

    assert run(environ, topics[0], "--partitions", "3") == (0, [f"made: {part}" for part in parts])
    assert run(environ, topics[0]) == (0, [f"there: {part}" for part in parts])
    code, lines = run(environ, topics[0], "--check")

    assert (code, lines[:-1]) == (0, [f"there: {part}" for part in checked])
    assert versions_in(minio, "mnist-rejected") == []
    with real_kafka.admin() as admin:
        assert [len(found["partitions"]) for found in admin.describe_topics(list(topics))] == [3, 3]


def test_a_topic_of_dead_letters_is_made_and_checked_where_one_is_asked_for(
    environ: dict[str, str], topics: tuple[str, str]
) -> None:
    dead_letters = f"{topics[0]}-dead-letters"
    asked_for = ("--dead-letter-topic", dead_letters)
    assert (
        f"problem: topic {dead_letters}: is not there; mnist-pipeline setup mends it"
        in run(environ, topics[0], "--check", *asked_for)[1]
    )
    code, lines = run(environ, topics[0], *asked_for)
    assert (code, lines[-1]) == (0, f"made: topic {dead_letters}")
    code, lines = run(environ, topics[0], "--check", *asked_for)
    assert code == 0
    assert {f"there: topic {dead_letters}", f"there: right to produce to topic {dead_letters}"} <= {*lines}


def test_the_check_of_an_empty_site_makes_nothing(
    environ: dict[str, str], topics: tuple[str, str], minio: MinioServer, real_kafka: KafkaServer
) -> None:
    code, lines = run(environ, topics[0], "--check")
    assert code == 1
    assert f"problem: topic {topics[1]}: is not there; mnist-pipeline setup mends it" in lines
    assert minio.client().list_buckets() == []
    with real_kafka.admin() as admin:
        assert not {*topics} & {*admin.list_topics()}


def test_just_the_handled_events_of_our_suffixes_reach_the_topic(
    environ: dict[str, str], topics: tuple[str, str], minio: MinioServer, real_kafka: KafkaServer
) -> None:
    run(environ, topics[0], "--partitions", "1")
    client = minio.client()
    client.put_object(bucket_name="mnist", object_name="a.txt", data=io.BytesIO(b"x"), length=1)
    client.put_object(bucket_name="mnist", object_name="a.png", data=io.BytesIO(b"x"), length=1)
    client.get_object(bucket_name="mnist", object_name="a.png").close()
    tags = Tags.new_object_tags()
    tags["a"] = "b"
    client.set_object_tags(bucket_name="mnist", object_name="a.png", tags=tags)
    client.remove_object(bucket_name="mnist", object_name="a.png")
    client.put_object(bucket_name="mnist", object_name="end.png", data=io.BytesIO(b"x"), length=1)

    assert keys_in(topics[0], 2, real_kafka) == ["mnist/a.png", "mnist/end.png"]


def test_the_site_of_another_task_is_made_and_notified_of_suffixes_in_capitals_too(
    environ: dict[str, str], topics: tuple[str, str], minio: MinioServer, real_kafka: KafkaServer
) -> None:
    code, lines = run(environ, topics[0], "--partitions", "1", task=Thumbnails)
    assert code == 0
    assert all(line.startswith("made: ") for line in lines)
    buckets = ["photos", *(f"photos-{what}" for what in (*Thumbnails.labels, "rejected", "review"))]
    assert sorted(bucket.name for bucket in minio.client().list_buckets()) == sorted(buckets)

    names = ["a.JPG", "b.jpeg", "c.png", "d.Jpg", "end.jpg"]
    for name in names:
        minio.client().put_object(bucket_name="photos", object_name=name, data=io.BytesIO(b"x"), length=1)

    assert keys_in(topics[0], 3, real_kafka) == ["photos/a.JPG", "photos/b.jpeg", "photos/end.jpg"]
    assert run(environ, topics[0], "--check", task=Thumbnails)[0] == 0


def test_labels_with_spaces_and_slashes_get_buckets_in_a_region_of_its_own(minio_program: Path) -> None:
    region = "eu-central-1"
    with Sandbox() as sandbox, MinioServer(minio_program, sandbox, env={"MINIO_SITE_REGION": region}) as minio:
        environ = {**variables_of(minio.root), "MINIO_REGION": region}
        _, lines = run(environ, "unused", task=Fashion)
        wrong_code, wrong = run({**environ, "MINIO_REGION": "eu-central-2"}, "unused", task=Fashion)
    made = {line for line in lines if line.startswith("made: bucket")}
    assert {f"made: bucket fashion-{label}" for label in ("t-shirt-top", "ankle-boot", "rejected")} < made
    assert len(made) == 12
    assert wrong_code == 1
    assert wrong[0].startswith("not done: store: ")
    assert "MINIO_REGION" in wrong[0]


def test_what_was_set_up_by_hand_is_put_right_and_what_others_set_up_stays(
    environ: dict[str, str], topics: tuple[str, str], minio: MinioServer
) -> None:
    run(environ, topics[0])
    client = minio.client()
    ours = setup.DEFAULT_ARN
    theirs = QueueConfig(
        queue=OTHER_ARN,
        events=["s3:ObjectRemoved:*"],
        config_id="theirs",
        prefix_filter_rule=PrefixFilterRule("ö/"),
    )
    by_hand = QueueConfig(queue=ours, events=["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectAccessed:*"])
    client.set_bucket_notification(bucket_name="mnist", config=NotificationConfig(queue_config_list=[by_hand, theirs]))
    client.set_bucket_versioning(bucket_name="mnist", config=VersioningConfig(SUSPENDED))

    code, problems = run(environ, topics[0], "--check")
    assert (code, len([line for line in problems if line.startswith("problem")])) == (1, 2)
    code, lines = run(environ, topics[0])
    assert (code, [line for line in lines if not line.startswith("there")]) == (
        0,
        [
            "changed: versioning of bucket mnist",
            (
                "changed: notification of bucket mnist (added .png, removed rules of the same ARN that differed: 1, "
                "kept rules of others: 1)"
            ),
        ],
    )
    kept = client.get_bucket_notification(bucket_name="mnist").queue_config_list[0]
    assert (kept.config_id, kept.events, kept.prefix_filter_rule) == (
        "theirs",
        theirs.events,
        theirs.prefix_filter_rule,
    )
    assert run(environ, topics[0], "--check")[0] == 0


def test_the_transformer_s_user_passes_the_check_and_writes_nothing_that_it_could_not_remove(
    environ: dict[str, str], topics: tuple[str, str], minio: MinioServer
) -> None:
    run(environ, topics[0])
    least = {**environ, **variables_of(minio.add_transformer("transformer"))}

    code, lines = run(least, topics[0], "--check")

    assert code == 0
    unseen = [line.split(": ")[1].partition(" (")[0] for line in lines if line.startswith("not allowed to look")]
    assert unseen == [*SOURCE[1:], "object lock of bucket mnist", "If-None-Match in bucket mnist-rejected"]
    assert versions_in(minio, "mnist-rejected") == []

    code, lines = run(least, topics[0])
    assert (code, [line.split(": ")[1] for line in lines if line.startswith("not allowed")]) == (1, [*SOURCE[1:]])


def test_row_44_the_check_names_a_source_that_keeps_its_uploads_and_a_user_who_may_not_delete(
    environ: dict[str, str], topics: tuple[str, str], minio: MinioServer
) -> None:
    client = minio.client()
    client.make_bucket(bucket_name="mnist", object_lock=True)
    run(environ, topics[0])
    client.set_object_lock_config(bucket_name="mnist", config=ObjectLockConfig(GOVERNANCE, 1, DAYS))
    policy = transformer_policy()
    for statement in policy["Statement"]:
        statement["Action"] = [action for action in statement["Action"] if "Delete" not in action]
    minio.add_user("keeper", "keeper-secret", policy)
    keeper = {**environ, "MINIO_ACCESS_KEY": "keeper", "MINIO_SECRET_KEY": "keeper-secret"}

    code, lines = run(environ, topics[0], "--check")
    assert code == 1
    (problem,) = [line for line in lines if line.startswith("problem")]
    assert problem.startswith("problem: object lock of bucket mnist: it keeps every upload (GOVERNANCE, 1 days): ")
    code, lines = run(keeper, topics[0], "--check")
    assert code == 1
    (problem,) = [line for line in lines if line.startswith("problem")]
    assert problem.startswith("problem: right to release from bucket mnist: the store answered AccessDenied; ")
    assert versions_in(minio, "mnist") == []


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"MINIO_SECRET_KEY": "wrong-secret"}, "MINIO_SECRET_KEY"),
        ({"MINIO_ACCESS_KEY": "nobody-we-know"}, "MINIO_ACCESS_KEY"),
    ],
)
def test_wrong_credentials_are_one_line_that_names_the_variable(
    environ: dict[str, str], topics: tuple[str, str], wrong: dict[str, str], name: str
) -> None:
    code, lines = run({**environ, **wrong}, topics[0], "--check")
    assert code == 1
    assert lines[0].startswith("problem: store: ")
    assert name in lines[0]
    assert lines[1].startswith("problem: topic ")


def test_a_target_that_minio_does_not_have_is_named_by_its_option(
    environ: dict[str, str], topics: tuple[str, str]
) -> None:
    code, lines = run(environ, topics[0], "--notification-arn", f"arn:minio:sqs:{REGION}:NOBODY:kafka")
    assert code == 1
    (failed,) = [line for line in lines if not line.startswith("made")]
    assert failed.startswith("not done: notification of bucket mnist: ")
    assert "--notification-arn" in failed


def test_more_replicas_than_brokers_are_refused_for_the_topics_alone(
    environ: dict[str, str], topics: tuple[str, str]
) -> None:
    code, lines = run(environ, topics[0], "--replication", "3")
    assert code == 1
    failed = [line for line in lines if not line.startswith("made")]
    assert [line.split(": ")[1] for line in failed] == [f"topic {topic}" for topic in topics]
    assert all("--replication" in line for line in failed)
