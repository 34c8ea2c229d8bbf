"""Names in the environment that are nearly settings, and settings that nobody reads: most are mistakes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import NoReturn

from mnist_pipeline.pipeline.environment import Reader
from mnist_pipeline.pipeline.settings import read_settings
from mnist_pipeline.pipeline.task import Task, Tensor

# Of these families whatever nobody reads is a mistake; of other names what is nearly one of ours.
_FAMILIES = ("KAFKA_", "MINIO_")
# What ours are called elsewhere, which no likeness of letters would find.
_ELSEWHERE = {
    "KAFKA_CA_CERT": "KAFKA_SSL_CAFILE",
    "KAFKA_URL": "KAFKA_BOOTSTRAP_SERVERS",
    "MINIO_BUCKET": "SOURCE_BUCKETS",
    "MINIO_PASSWORD": "MINIO_SECRET_KEY",
    "MINIO_SECURE": "S3_USE_HTTPS",
    "MINIO_SERVER": "MINIO_ENDPOINT",
    "MINIO_URL": "MINIO_ENDPOINT",
    "MINIO_USER": "MINIO_ACCESS_KEY",
    "MINIO_USE_SSL": "S3_USE_HTTPS",
}
# So alike are names that differ by a letter or a word's ending. POD_NAME and POD_NAMESPACE are not.
_ALIKE = 0.84
# No mistakes, though they look like it: what is set for others in the same environment.
_OF_OTHERS = re.compile(
    # Kubernetes tells every pod of each Service in its namespace: a Service `kafka` gives KAFKA_PORT=tcp://10.0.0.1:9092.
    r".*_SERVICE_(HOST|PORT(_.+)?)|.*_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?"
    # Credentials and regions of AWS are read by many, and by minio-py itself.
    r"|AWS_.*"
    # What the server reads (minio/minio, internal/config).
    r"|MINIO_(ROOT|NOTIFY|BROWSER|SITE|SERVER_URL|OPTS|VOLUMES|ADDRESS|CONSOLE|DOMAIN|PROMETHEUS|KMS|IDENTITY|POLICY"
    r"|STORAGE_CLASS|COMPRESSION|API|AUDIT|LOGGER|CACHE|HEAL|SCANNER|ETCD|ILM|BATCH|DRIVE|LAMBDA|SUBNET|CALLHOME|UPDATE"
    r"|CONFIG_ENV_FILE|LICENSE)(_.*)?"
    # What the server's scripts read, and its settings as images take them (apache/kafka, Bitnami's, Confluent's).
    r"|KAFKA_(.*_OPTS|OPTS|DEBUG|HOME|LOG4J.*|((CFG|JMX|NODE|BROKER_ID|BROKER_RACK|PROCESS_ROLES|LISTENERS?"
    r"|ADVERTISED|CONTROLLER|INTER_BROKER|OFFSETS|TRANSACTION|AUTO_CREATE|DELETE_TOPIC|LOG|NUM|DEFAULT_REPLICATION|MIN_INSYNC"
    r"|GROUP_INITIAL|CLUSTER|KRAFT|ZOOKEEPER|CONFLUENT)(_.*)?))"
)


def unknown_settings(environ: Mapping[str, str], task: Task) -> list[str]:
    """What looks like a setting and is none, and what the task has taken over: a sentence for each, never a value."""
    known = _known_names()
    sentences = []
    if environ.get("DESTINATION") and not _files_by_pattern(task):
        sentences.append(f"DESTINATION is not used: {type(task).__name__}.destination says where objects are filed")
    if environ.get("REVIEW_BUCKET") and not environ.get("REVIEW_BELOW") and task.review_below is None:
        sentences.append("REVIEW_BUCKET is not used: REVIEW_BELOW is not set")
    for name in sorted(environ.keys() - known):
        # As it would be spelled: the keys of a ConfigMap may have dots and hyphens.
        spelled = re.sub("[.-]", "_", name.upper())
        if not re.fullmatch("[A-Z][A-Z0-9_]*", spelled) or _OF_OTHERS.fullmatch(spelled):
            continue
        nearest = _nearest(spelled, known)
        if nearest:
            sentences.append(f"{name} is no setting: is {nearest} meant?")
    return sentences


def _files_by_pattern(task: Task) -> bool:
    with contextlib.suppress(Exception):  # what is wrong with it, the settings tell
        return bool(task.labels_by_pattern())
    return True


class _Any(Task):
    """Which settings there are is the same whatever the task, and one's own is not configured for the question."""

    name, suffixes, input, labels = "any", (".any",), Tensor((1,)), (0,)

    def decode(self, data: bytes) -> NoReturn:
        """Nobody sends it anything."""
        raise NotImplementedError


def _known_names() -> set[str]:
    # KAFKA_TOPIC is asked for only where there is a Kafka.
    read = Reader({"KAFKA_BOOTSTRAP_SERVERS": "kafka"})
    read_settings(read, _Any(), None, None)
    return read.asked


def _nearest(name: str, known: set[str]) -> str | None:
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    for family in _FAMILIES:
        if name.startswith(family):
            # Without what they have in common, by which KAFKA_HOST would be most like the shortest of them.
            rests = [one.removeprefix(family) for one in known if one.startswith(family)]
            return family + get_close_matches(name.removeprefix(family), rests, n=1, cutoff=0)[0]
    ours = [one for one in known if not _OF_OTHERS.fullmatch(one)]
    nearest = next(iter(get_close_matches(name, ours, n=1, cutoff=_ALIKE)), None)
    # With a word more it is somebody else's: MY_POD_NAMESPACE, EVENT_SOURCE_URL.
    if nearest and (name.startswith(nearest + "_") or name.endswith("_" + nearest)):
        return None
    return nearest
