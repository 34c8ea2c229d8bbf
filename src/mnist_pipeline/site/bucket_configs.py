"""How the configurations of a source bucket have to be: XML in, XML out; pure.

They are changed as XML, not by minio-py's classes: other people's rules stay as the store gave them, with the elements
that minio-py does not know. Source: the S3 API reference, of the action that each function names.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from mnist_pipeline.site.parts import Outcome, State

EVENTS = tuple("s3:ObjectCreated:" + how for how in ("Put", "Post", "Copy", "CompleteMultipartUpload"))
"""What a notification subscribes: all that the pipeline handles; `s3:ObjectCreated:*` brings changes of tags too."""

OLD_VERSIONS_DAYS = 7
"""How long a source bucket keeps a version that is not the current one."""

_RULE_ID = "mnist-pipeline-old-versions"
_S3_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A bucket's configuration as it should be, XML, and in what the one it has differs."""

    config: bytes
    state: State


def versioning_change(config: bytes) -> Change | None:
    """Versioning switched on (S3: PutBucketVersioning); None where it is."""
    root = _parsed(config)
    status = root.findtext("Status") or ""
    if status == "Enabled":
        return None
    for old in root.findall("Status"):
        root.remove(old)
    ET.SubElement(root, "Status").text = "Enabled"
    mended = Outcome.CHANGED if status else Outcome.MADE
    return Change(config=_written(root), state=State(lacks=f"is {status.lower() or 'off'}", mended=mended))


def lifecycle_change(config: bytes) -> Change | None:
    """A rule that expires all versions that have not been current for 7 days (S3: PutBucketLifecycleConfiguration).

    None where there is one, whoever made it; else the rule of our own id is added or replaced, and all others stay.
    """
    root = _parsed(config)
    rules = root.findall("Rule")
    if any(_expires_old_versions(rule) for rule in rules):
        return None
    ours = [rule for rule in rules if rule.findtext("ID") == _RULE_ID]
    for rule in ours:
        root.remove(rule)
    rule = ET.SubElement(root, "Rule")
    ET.SubElement(rule, "ID").text = _RULE_ID
    ET.SubElement(rule, "Status").text = "Enabled"
    ET.SubElement(ET.SubElement(rule, "Filter"), "Prefix").text = ""
    expiration = ET.SubElement(rule, "NoncurrentVersionExpiration")
    ET.SubElement(expiration, "NoncurrentDays").text = str(OLD_VERSIONS_DAYS)
    lacks = f"no rule removes old versions after {OLD_VERSIONS_DAYS} days"
    if not ours:
        return Change(config=_written(root), state=State(lacks=lacks))
    return Change(
        config=_written(root),
        state=State(lacks=lacks, mended=Outcome.CHANGED, note=f"rule {_RULE_ID} was different"),
    )


def notification_change(config: bytes, arn: str, suffixes: Sequence[str]) -> Change | None:
    """One rule for each of `suffixes`, with exactly EVENTS (S3: PutBucketNotificationConfiguration).

    None where the rules of `arn` are just these; else they replace all rules of `arn`, and those of others stay.
    """
    root = _parsed(config)
    ours = [rule for rule in root.findall("QueueConfiguration") if _same_target(rule.findtext("Queue") or "", arn)]
    others = len(root.findall("*")) - len(ours)
    suffixes = tuple(dict.fromkeys(suffixes))
    wanted = [_notification_rule(arn, suffix) for suffix in suffixes]
    there = [_subscription(rule) for rule in ours]
    missing = [suffix for suffix, rule in zip(suffixes, wanted, strict=True) if _subscription(rule) not in there]
    differing = len(ours) - (len(wanted) - len(missing))
    if not missing and not differing:
        return None
    for rule in ours:
        root.remove(rule)
    root.extend(wanted)
    lacks, notes = [], []
    if missing:
        lacks.append(f"{arn} has no rule with just our events for {', '.join(missing)}")
    if missing and ours:
        notes.append(f"added {', '.join(missing)}")
    if differing:
        lacks.append(f"{arn} has rules that are not ours: {differing}")
        notes.append(f"removed rules of the same ARN that differed: {differing}")
    if others:
        notes.append(f"kept rules of others: {others}")
    mended = Outcome.CHANGED if ours else Outcome.MADE
    return Change(config=_written(root), state=State(lacks="; ".join(lacks), mended=mended, note=", ".join(notes)))


def object_lock_state(config: bytes | None) -> State:
    """Whether object lock keeps every upload for a while (S3: GetObjectLockConfiguration); setup does not change that.

    What is under a lock cannot be released, and stays in its source bucket.
    """
    if config is None:
        return State(note="off")
    retention = _parsed(config).find("Rule/DefaultRetention")
    if retention is None:
        return State(note="on, without a default: what somebody locks is filed, and stays as retained")
    terms = [f"{one.text} {one.tag.lower()}" if one.tag in ("Days", "Years") else one.text or "" for one in retention]
    return State(
        lacks=f"it keeps every upload ({', '.join(terms)}): what is filed stays as retained, until mnist-pipeline "
        "reconcile finds it free; remove the default retention, or run reconcile regularly"
    )


def _parsed(config: bytes) -> ET.Element:
    """The root, all names without their namespace: some servers give one, some none."""
    root = ET.fromstring(config)  # noqa: S314 - from our own store, as minio-py reads it
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _written(root: ET.Element) -> bytes:
    root.set("xmlns", _S3_NAMESPACE)
    written: bytes = ET.tostring(root, encoding="utf-8")
    return written


def _expires_old_versions(rule: ET.Element) -> bool:
    expiration = rule.find("NoncurrentVersionExpiration")
    prefixes = [prefix.text or "" for prefix in (*rule.findall("Prefix"), *rule.findall("Filter/Prefix"))]
    conditions = [element for element in rule.findall("Filter/*") if element.tag != "Prefix"]
    return (
        rule.findtext("Status") == "Enabled"
        and not any(prefixes)
        and not conditions
        and expiration is not None
        and [(element.tag, element.text) for element in expiration] == [("NoncurrentDays", str(OLD_VERSIONS_DAYS))]
    )


def _same_target(one: str, other: str) -> bool:
    """Whether two ARNs name one target; a MinIO without a region leaves that part empty, whatever it was given."""
    parts, others = one.split(":"), other.split(":")
    if parts[:2] == others[:2] == ["arn", "minio"]:
        return parts[:3] + parts[4:] == others[:3] + others[4:]
    return one == other


def _notification_rule(arn: str, suffix: str) -> ET.Element:
    rule = ET.Element("QueueConfiguration")
    filter_rule = ET.SubElement(ET.SubElement(ET.SubElement(rule, "Filter"), "S3Key"), "FilterRule")
    ET.SubElement(filter_rule, "Name").text = "suffix"
    ET.SubElement(filter_rule, "Value").text = suffix
    ET.SubElement(rule, "Queue").text = arn
    for event in EVENTS:
        ET.SubElement(rule, "Event").text = event
    return rule


def _subscription(rule: ET.Element) -> tuple[list[str], list[tuple[str, str]]]:
    """What a rule subscribes: its events, and the filters of its keys."""
    filters = [
        ((one.findtext("Name") or "").lower(), one.findtext("Value") or "")
        for one in rule.iterfind("Filter/*/FilterRule")
    ]
    return sorted(event.text or "" for event in rule.findall("Event")), sorted(filters)
