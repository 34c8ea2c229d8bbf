"""MkDocs' hook: the parts of pages that are made from the code, each in the place of `<!-- generated: NAME -->`.

It also turns links that leave `docs/` into the paths that they name: the site has the pages of `docs/` alone.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import yaml
from prometheus_client import REGISTRY

import mnist_pipeline
from mnist_pipeline import Digits, PipelineError, Reject, testing
from mnist_pipeline.cli import main, usage
from mnist_pipeline.commands import COMMANDS
from mnist_pipeline.pipeline.setting_table import SETTINGS
from mnist_pipeline.testing import Harness, digit_png, minio_event

ROOT = Path(__file__).parents[1]
MARKER = re.compile(r"<!-- generated: (\w+) -->")

# kafka-python 3.0 reads its schemas so, on Python 3.11 and 3.12.
warnings.filterwarnings("ignore", "(read|open)_text is deprecated", DeprecationWarning)

_TRACE_ID = "16ec3446-48d6-422e-9926-8224853e84a7"
_CALLER = {"host": "mnist-transformer.kserve-test.svc.cluster.local"}
_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#]+)[^)]*\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """MkDocs calls it for each page."""
    folder = Path(page.file.abs_src_path).parent
    return _LINK.sub(lambda link: _without_leaving(link, folder), MARKER.sub(lambda part: PARTS[part[1]](), markdown))


def _without_leaving(link: re.Match[str], folder: Path) -> str:
    target = (folder / link[2]).resolve()
    if target.is_relative_to(ROOT / "docs"):
        return link[0]
    path = target.relative_to(ROOT).as_posix()
    return f"`{path}`" if link[1].strip("`") in (path, link[2]) else f"{link[1]} (`{path}`)"


def readme() -> str:
    """README.md, with its links as seen from docs/."""
    text = re.sub(r"\]\((?!https?:|#)", "](../", (ROOT / "README.md").read_text())
    return text.replace("](../docs/", "](")


def settings() -> str:
    """A row for each variable."""
    rows = []
    for one in SETTINGS:
        names = f"`{one.name}`" + (", or a file named by `…_FILE`" if one.is_secret else "")
        names += "".join(f"; else `{name}`" for name in one.otherwise)
        rows.append((names, f"`{one.default}`" if one.default else "", one.meaning))
    return _table(("variable", "default", "meaning"), rows)


def answers() -> str:
    """A row for each error: the statuses and the words by which callers tell them apart."""
    rows = []
    for error in _errors(PipelineError):
        reason = "a word of the task's" if error is Reject else f"`{error('').reason}`"
        rows.append((str(error.status), reason, re.split(r"(?<=\.) ", " ".join((error.__doc__ or "").split()))[0]))
    rows.sort(key=lambda row: row[0])
    return _table(("status", "`kne-reason`", "when"), rows)


def _errors(kind: type[PipelineError]) -> Iterator[Any]:
    for error in kind.__subclasses__():
        if error.__module__.startswith("mnist_pipeline."):
            yield error
            yield from _errors(error)


def requests() -> str:
    """The forms of a request that is an event."""
    reports = ROOT / "tests" / "data" / "reports"
    structured = {"specversion": "1.0", "id": "1", "source": "scans", "type": "upload", "data": {"Records": ["…"]}}
    return "\n\n".join(
        (
            "**MinIO's notification**, as MinIO writes it to Kafka and KafkaSource delivers it:",
            _json(minio_event("mnist", "with space.png", version_id="6f9e3b0a-…")),
            "**A record alone**, as Knative's CephSource sends it:",
            _json(orjson.loads((reports / "ceph-source.json").read_bytes())),
            "**In an envelope**, here SQS's:",
            _json(orjson.loads((reports / "sqs-body.json").read_bytes())),
            "**In a structured CloudEvent**, under `data`, or in base64 under `data_base64`:",
            _json(structured),
            "**An inline request**, as plain JSON or as the data of a CloudEvent:",
            _json({"trace-id": _TRACE_ID, "instances": [{"data": "iVBORw0KGgo…"}, {"b64": "iVBORw0KGgo…"}]}),
        )
    )


def results() -> str:
    """Results as the path publishes them, and one of them in binary mode."""
    logging.getLogger("mnist_pipeline").addHandler(logging.NullHandler())  # the rejection is meant
    harness = _harness("structured")
    filed = _sent_object(harness, "7.png", digit_png(7))
    rejected = _sent_object(harness, "text.png", b"no picture")
    inline = harness.send({"instances": [{"data": b64encode(digit_png(7)).decode()}], "trace-id": _TRACE_ID}, _CALLER)
    harness = _harness("binary")
    _sent_object(harness, "7.png", digit_png(7))
    (record,) = harness.publisher.messages
    headers = "\n".join(f"{name}: {value.decode()}" for name, value in record.headers)
    return "\n\n".join(
        (
            "**Of an object that was filed:**",
            _json(filed),
            "**Of an object that was rejected:**",
            _json(rejected),
            "**Of an inline request:**",
            _json(inline.results[0]),
            "**The first one in binary mode**, the headers of its Kafka record and its value:",
            f"```text\n{headers}\n\n{record.value.decode()}\n```",
        )
    )


def _harness(mode: str) -> Harness:
    scores = [0.0] * 7 + [0.98, 0.01, 0.01]
    named: dict[str, Any] = {"inference_service_name": "mnist", "pod_namespace": "kserve-test"}
    return Harness(Digits, lambda batch: [scores] * len(batch), event_mode=mode, **named)


def _sent_object(harness: Harness, key: str, data: bytes) -> Any:
    version = harness.store.upload("mnist", key, data, metadata={"trace-id": _TRACE_ID})
    return harness.send(minio_event("mnist", key, version_id=version.version_id, etag=version.etag), _CALLER).results[0]


def metrics() -> str:
    """A row for each of our metrics."""
    import mnist_pipeline.telemetry.metrics  # noqa: F401, PLC0415 - they are there once it is imported

    # prometheus-client has no public way from its registry to the names of labels.
    collectors = vars(REGISTRY)["_collector_to_names"]
    rows = [
        (
            f"`{metric.name}{'_total' if metric.type == 'counter' else ''}`",
            metric.type,
            ", ".join(f"`{label}`" for label in vars(collector)["_labelnames"]),
            metric.documentation,
        )
        for collector, names in collectors.items()
        if names[0].startswith("mnist_pipeline")
        for metric in collector.collect()
    ]
    return _table(("metric", "type", "labels", "meaning"), rows)


def alerts() -> str:
    """A row for each alert of manifests/components/observability."""
    rules = yaml.safe_load((ROOT / "manifests/components/observability/parts/prometheus-rule.yaml").read_text())
    rows = [
        (
            f"`{rule['alert']}`",
            rule["labels"]["severity"],
            rule["annotations"]["summary"],
            rule["annotations"]["look_at"],
        )
        for group in rules["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    return _table(("alert", "severity", "when", "look at"), rows)


def commands() -> str:
    """What each command's --help prints, after that of the program itself, which has the exit codes."""
    parts = [f"```text\n{usage(Digits()).rstrip()}\n```"]
    for command in COMMANDS:
        printed = io.StringIO()
        with _columns(100), contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main(argv=[command, "--help"])
        parts += [f"## {command}", f"```text\n{printed.getvalue().rstrip()}\n```"]
    return "\n\n".join(parts)


@contextlib.contextmanager
def _columns(width: int) -> Iterator[None]:
    """Argparse wraps its lines by this variable."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def library() -> str:
    """The public names of the package."""
    return _names(mnist_pipeline)


def fakes() -> str:
    """The public names of `mnist_pipeline.testing`."""
    return _names(testing)


def _names(module: ModuleType) -> str:
    """A directive of mkdocstrings for each public name, at the place where it is defined."""
    return "\n\n".join(f"::: {getattr(module, name).__module__}.{name}" for name in sorted(module.__all__))


def _json(value: Any) -> str:
    return f"```json\n{orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()}\n```"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


PARTS: dict[str, Callable[[], str]] = {
    part.__name__: part
    for part in (readme, settings, answers, requests, results, metrics, alerts, commands, library, fakes)
}
