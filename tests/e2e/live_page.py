"""A live page that runs as a program, and a browser that watches it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from e2e.following import wait_until

WEB = (sys.executable, "-m", "mnist_pipeline", "web")


class Watcher:
    """Whoever has a page open: the events that have come, by name, in their order."""

    def __init__(self, url: str) -> None:
        self.events: list[tuple[str, Any]] = []
        self.has_ended = False
        self._url = url
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        wait_until(lambda: bool(self.of("status")), "the page told nothing")

    def of(self, name: str) -> list[Any]:
        return [data for kind, data in list(self.events) if kind == name]

    def journeys(self, trace_id: str) -> list[Any]:
        """What was told of a trace id, in its order."""
        return [journey for journey in self.of("journey") if journey["trace_id"] == trace_id]

    def _watch(self) -> None:
        with (
            contextlib.suppress(httpx.HTTPError),
            httpx.Client(timeout=60, trust_env=False) as client,
            client.stream("GET", f"{self._url}api/live") as answer,
        ):
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.events.append((name, orjson.loads(line.removeprefix("data: "))))
        self.has_ended = True


@dataclass(frozen=True)
class LivePage:
    """A page that runs."""

    url: str
    process: subprocess.Popen[str]

    def get(self, path: str, **params: Any) -> httpx.Response:
        with httpx.Client(timeout=30, trust_env=False) as client:
            return client.get(f"{self.url}{path}", params=params)

    def upload(self, data: bytes, name: str | None = None, **headers: str) -> httpx.Response:
        with httpx.Client(timeout=30, trust_env=False) as client:
            return client.post(
                f"{self.url}api/uploads",
                params={} if name is None else {"name": name},
                content=data,
                headers={"origin": self.url.rstrip("/"), **headers},
            )

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Its exit code, and what it said to the standard error."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@contextlib.contextmanager
def running(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[LivePage]:
    """The program, from the line in which it tells its address; it has ended well, or is ended by Ctrl-C."""
    with subprocess.Popen(
        command,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                if found := [word for word in line.split() if word.startswith("http://127.0.0.1:") and word[-1] == "/"]:
                    yield LivePage(found[0], process)
                    break
            else:
                raise AssertionError(process.stderr.read())
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=60)
