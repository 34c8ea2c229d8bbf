"""The sender, a program of its own: posts events as Knative's KafkaSource does, always so many of them in flight.

    python -m benchmarks.load --url URL --in-flight 8 --events FILE --answers FILE

`--events` has one notification a line; into `--answers` goes an `Answers` as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop

from benchmarks import http1

_ANSWER_SECONDS = 120.0


@dataclass
class Answers:
    """What came back.

    Attributes:
        seconds: from the first event sent to the last one answered.
        milliseconds: of each event, until its answer.
        refused: how many were answered with another status than 2xx, by the status; 0 is no answer.
    """

    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    def add(self, began: float, status: int) -> None:
        """Note one answer."""
        self.milliseconds.append((time.perf_counter() - began) * 1000)
        if not 200 <= status < 300:
            self.refused[str(status)] = self.refused.get(str(status), 0) + 1


def request(url: str, number: int, notification: bytes) -> bytes:
    """The bytes of KafkaSource's request for the record `number`: a binary CloudEvent without a content type."""
    parts = urllib.parse.urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nPrefer: reply\r\nKn-Namespace: benchmark\r\n"
        f"ce-specversion: 1.0\r\nce-id: partition:0/offset:{number}\r\n"
        "ce-source: /apis/v1/namespaces/benchmark/kafkasources/mnist#mnist\r\nce-type: dev.knative.kafka.event\r\n"
        f"ce-subject: partition:0#{number}\r\nce-time: 2026-01-01T00:00:00Z\r\nce-partitionkey: mnist\r\n"
        f"ce-key: mnist\r\nce-knativekafkapartition: 0\r\nce-knativekafkaoffset: {number}\r\n"
        f"Content-Length: {len(notification)}\r\n\r\n"
    )
    return head.encode() + notification


async def send(url: str, notifications: list[bytes], in_flight: int) -> Answers:
    """Post all of them over as many kept connections as may be in flight."""
    answers = Answers()
    requests = iter([request(url, number, one) for number, one in enumerate(notifications)])
    began = time.perf_counter()
    await asyncio.gather(*(_send_one_by_one(url, requests, answers) for _ in range(in_flight)))
    answers.seconds = time.perf_counter() - began
    return answers


async def _send_one_by_one(url: str, requests: Iterator[bytes], answers: Answers) -> None:
    parts = urllib.parse.urlsplit(url)
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    for one in requests:
        began = time.perf_counter()
        reader, writer = connection or await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(one)
        try:
            answer = await asyncio.wait_for(http1.read(reader), _ANSWER_SECONDS)
        except asyncio.TimeoutError:
            answer = None
        answers.add(began, 0 if answer is None else answer.status)
        connection = (reader, writer)
        if answer is None or b"connection: close" in answer.head.lower():
            writer.close()
            connection = None
    if connection is not None:
        connection[1].close()


def main() -> None:
    """Send, and write what came back."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--answers", type=Path, required=True)
    flags = parser.parse_args()
    answers = uvloop.run(send(flags.url, flags.events.read_bytes().splitlines(), flags.in_flight))
    flags.answers.write_text(json.dumps(asdict(answers)))


if __name__ == "__main__":
    main()
