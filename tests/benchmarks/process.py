"""A variant that runs, and what its processes have used so far."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.variants import Variant
from mnist_pipeline.local.processes import Part, PartFailed, Sandbox, answers_ok, free_port

MODEL_NAME = "mnist"
_READY_SECONDS = 120.0
_STOP_GRACE_SECONDS = 35.0
_PROBE_INTERVAL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Feed:
    """What a variant reads from Kafka: a topic, in a group of the topic's name, so many records a batch."""

    topic: str
    batch: int


class Running(Part):
    """One variant on loopback, started by its constructor; it answers after `wait_ready()`.

    Args:
        variant: what to start.
        sandbox: where it runs.
        name: of the part, for its log; each in a sandbox has its own.
        settings: its environment, to which the variant adds its own.
        predictor_host: `host:port`.
        feed: what it reads; None: its events are posted.

    Attributes:
        ready_seconds: from its start until it said that it is ready.
    """

    def __init__(
        self,
        variant: Variant,
        sandbox: Sandbox,
        name: str,
        settings: dict[str, str],
        predictor_host: str,
        *,
        feed: Feed | None = None,
    ) -> None:
        self.variant = variant
        self.feed = feed
        self.ready_seconds = 0.0
        self._sandbox = sandbox
        self._port = free_port()
        self.predict_url = f"http://127.0.0.1:{self._port}/v1/models/{MODEL_NAME}:predict"
        flags = ["--model_name", MODEL_NAME, "--predictor_host", predictor_host, "--http_port", str(self._port)]
        if feed is None:
            flags += ["--grpc_port", str(free_port())]
        else:
            flags += ["--topic", feed.topic, "--group", feed.topic, "--batch", str(feed.batch)]
            flags += ["--initial-offset", "earliest"]
        self._began = time.perf_counter()
        self.child = sandbox.start(
            name, [sys.executable, "-m", variant.module, *variant.command, *flags], env={**settings, **variant.env}
        )

    def wait_ready(self) -> None:
        """Wait until it says that it is ready.

        Raises:
            PartFailed: it ended, or is not ready after two minutes.
        """
        path = f"/v1/models/{MODEL_NAME}" if self.feed is None else "/v2/health/ready"
        while not answers_ok(self._port, path):
            if not self.child.running:
                raise self.child.failed("ended before it was ready")
            if time.perf_counter() - self._began > _READY_SECONDS:
                raise self.child.failed(f"was not ready after {_READY_SECONDS:g} s")
            time.sleep(_PROBE_INTERVAL_SECONDS)
        self.ready_seconds = time.perf_counter() - self._began

    def why_left_out(self) -> str | None:
        """The sentence that says which setting of its variant it does not know, None where it knows them."""
        return self.variant.unknown_setting(self.child.log.read_text(errors="replace"))

    def cpu_seconds(self) -> float:
        """User and system time of all its processes, those that have ended among them."""
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """It does nothing while the block lasts."""
        processes = self._processes()
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def peak_bytes(self) -> int:
        """The most memory that its processes have had resident, each at its own time."""
        return sum(_peak_bytes(process.pid) for process in self._processes())

    def close(self) -> None:
        """Stop it as Kubernetes does: SIGTERM, so that requests in flight finish."""
        if self.child in self._sandbox.children:
            self._sandbox.stop(self.child, grace_seconds=_STOP_GRACE_SECONDS)

    def _processes(self) -> list[psutil.Process]:
        try:
            leader = psutil.Process(self.child.pid)
            return [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess as exc:
            raise PartFailed(self.variant.name, "has ended", self.child.log_tail()) from exc


def start_predictor(sandbox: Sandbox) -> str:
    """Start the cheap predictor, which ends with the sandbox; give its `host:port` once it answers.

    Raises:
        PartFailed: it does not answer.
    """
    port = free_port()
    flags = ("--model_name", MODEL_NAME, "--predictor_host", "none", "--http_port", str(port))
    child = sandbox.start("predictor", [sys.executable, "-m", "benchmarks.predictor", *flags], env={})
    child.wait_ready(lambda: answers_ok(port, "/"), timeout_seconds=_READY_SECONDS)
    return f"127.0.0.1:{port}"


def _peak_bytes(pid: int) -> int:
    """`VmHWM` of Linux; elsewhere what is resident now."""
    try:
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        peak = None
    if peak is not None:
        return int(peak[1]) * 1024
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
