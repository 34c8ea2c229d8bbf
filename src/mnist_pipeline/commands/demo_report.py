"""What the demo knows of its objects in the end, whether that is as it should be, and how it is shown."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.commands import console
from mnist_pipeline.commands.demo_objects import Upload
from mnist_pipeline.local.stack import Stack
from mnist_pipeline.pipeline.published import PredictionResult, read_result

LOW_SCORE = 0.9
"""A score under which a row is marked. Of MNIST's 10,000 test images 269 score lower, and among them are 51 of the 57
that the packaged network misreads.
"""

MOST_ROWS = 40
"""With more objects than this a summary is shown instead, unless the rows are asked for."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What became of an object: its results, and when it was uploaded, in seconds since 1970."""

    upload: Upload
    results: Sequence[PredictionResult]
    uploaded_at: float

    @property
    def result(self) -> PredictionResult | None:
        """The one that is looked at."""
        return self.results[0] if self.results else None

    @property
    def label(self) -> Any:
        """What it was taken for; None where it was rejected, or the task's own `data` has no predictions."""
        return self.result.predictions[0] if self.result and self.result.predictions else None

    @property
    def score(self) -> float | None:
        """How sure the network was."""
        return self.result.scores[0] if self.result and self.result.scores else None

    @property
    def place(self) -> str:
        """The bucket where it lies, and what its key got in front."""
        return "" if self.result is None else (self.result.destination or "").removesuffix(f"/{self.upload.key}")

    @property
    def milliseconds(self) -> float | None:
        """From the upload to the result."""
        return None if self.result is None else (self.result.time.timestamp() - self.uploaded_at) * 1000

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        result = self.result
        return {
            "object": self.upload.key,
            "file": console.printable(str(self.upload.file)),
            "traceId": self.upload.trace_id,
            "prediction": self.label,
            "score": self.score,
            "review": bool(result and result.is_doubtful),
            "rejected": result.reason if result and result.is_rejected else None,
            "message": result.message if result and result.is_rejected else None,
            "destination": result.destination if result else None,
            "milliseconds": self.milliseconds,
        }


def arrivals_of(
    uploads: Sequence[Upload], uploaded_at: Mapping[str, float], records: Sequence[Record], *, trace_key: str
) -> list[Arrival]:
    """The results of each object, found by its trace id."""
    results: dict[str, list[PredictionResult]] = {}
    for record in records:
        if result := read_result(record.key, record.value, record.headers, trace_key=trace_key):
            results.setdefault(result.trace_id, []).append(result)
    return [
        Arrival(upload=one, results=results.get(one.trace_id, []), uploaded_at=uploaded_at[one.trace_id])
        for one in uploads
    ]


def problems(stack: Stack, arrivals: Sequence[Arrival]) -> Iterator[str]:
    """What does not hold: nothing is left in the source bucket, each object has one result, and lies where that says,
    which is where its prediction belongs. A rejected one is no problem: it lies in the rejected bucket.
    """
    client = stack.minio()
    left = [str(one.object_name) for one in client.list_objects(bucket_name=stack.source_bucket, recursive=True)]
    if left:
        yield f"{len(left)} objects are still in bucket {stack.source_bucket}: {console.printable(', '.join(left[:5]))}"
    for arrival in arrivals:
        key, result = console.printable(arrival.upload.key), arrival.result
        if result is None or len(arrival.results) > 1:
            yield f"{key}: its trace id is on the topic {len(arrival.results)} times"
            continue
        rejected = (f"{stack.places.rejected_bucket}/",)
        belongs = rejected if result.is_rejected else stack.places_of(arrival.label, arrival.score)
        destination = result.destination or ""
        if not destination.startswith(belongs):
            yield f"{key}: predicted {arrival.label}, but filed in {arrival.place}, not in {' or '.join(belongs)}"
            continue
        bucket, _, name = destination.partition("/")
        with client.get_object(bucket_name=bucket, object_name=name) as there:
            if there.read() != arrival.upload.data:
                yield f"{key}: other bytes lie in {arrival.place}"


def print_rows(arrivals: Sequence[Arrival], *, guesses: bool) -> None:
    """A row for each object, without its trace id on a narrow terminal; of guesses a low score says nothing."""
    columns = ["object", "trace id", "predicted", "score", "filed in", "ms to filed", ""]
    rows = [_row(arrival, guesses=guesses) for arrival in arrivals]
    if console.is_narrow():
        columns = [columns[0], *columns[2:]]
        rows = [[row[0], *row[2:]] for row in rows]
    console.print_table(columns, rows, right=("predicted", "score", "ms to filed"))


def _row(arrival: Arrival, *, guesses: bool) -> list[str | Text]:
    result, score = arrival.result, arrival.score
    remark = ""
    if result is None:
        remark = "no result"
    elif result.is_rejected:
        remark = f"rejected: {result.reason}: {result.message}"
    elif result.is_doubtful:
        remark = "to be reviewed"
    elif score is not None and score < LOW_SCORE and not guesses:
        remark = "low score"
    name = Text(console.printable(arrival.upload.key), style=f"link {arrival.upload.file.absolute().as_uri()}")
    return [
        name,
        arrival.upload.trace_id,
        "-" if arrival.label is None else str(arrival.label),
        "-" if score is None else f"{score:.2f}",
        arrival.place or "-",
        "-" if arrival.milliseconds is None else f"{arrival.milliseconds:.0f}",
        Text(remark, style="yellow"),
    ]


def print_summary(arrivals: Sequence[Arrival]) -> None:
    """How many of each label, and how long they took."""
    for name, value in summary_of(arrivals).items():
        counted = ", ".join(f"{one}: {number}" for one, number in value.items()) if isinstance(value, dict) else value
        print(f"{name:<14}  {counted}")


def summary_of(arrivals: Sequence[Arrival]) -> dict[str, Any]:
    """The same as values."""
    results = [arrival.result for arrival in arrivals if arrival.result is not None]
    took = sorted(arrival.milliseconds for arrival in arrivals if arrival.milliseconds is not None)
    hundredths = statistics.quantiles(took, n=100, method="inclusive") if len(took) > 1 else took * 99
    low = sum(arrival.score is not None and arrival.score < LOW_SCORE for arrival in arrivals)
    return {
        "objects": len(arrivals),
        "predicted": _counted(arrival.label for arrival in arrivals if arrival.label is not None),
        "rejected": _counted(result.reason for result in results if result.is_rejected),
        "to be reviewed": sum(result.is_doubtful for result in results),
        f"score < {LOW_SCORE}": low,
        "ms to filed": {"p50": round(hundredths[49]), "p99": round(hundredths[98])} if took else {},
    }


def _counted(words: Iterator[Any]) -> dict[str, int]:
    return {str(word): number for word, number in sorted(Counter(words).items(), key=lambda item: str(item[0]))}
