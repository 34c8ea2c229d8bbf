"""What KServe lacks, and `mnist_pipeline.serving` mends by name. Where a test here fails, a newer KServe has mended it:
take away the part that it names, and widen the pin in pyproject.toml.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from multiprocessing import Pipe

import pytest
from kserve.protocol.rest.multiprocess.server import RESTServerProcess

from e2e.following import post
from mnist_pipeline.local.processes import Sandbox, answers_ok, free_port

EVENT = {"Ce-Specversion": "1.0", "Ce-Id": "1", "Ce-Source": "s", "Ce-Type": "t"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a model on KServe alone."""
    port = free_port()
    with Sandbox() as sandbox:
        child = sandbox.start(
            "kserve",
            [sys.executable, "-m", "e2e.plain_kserve", "--model_name", "mnist", "--http_port", str(port)],
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        child.wait_ready(lambda: answers_ok(port, "/v2/health/ready"), timeout_seconds=60)
        yield f"http://127.0.0.1:{port}/v1/models/mnist:predict"


def test_a_worker_that_still_imports_is_taken_for_dead() -> None:
    """`server._patient_ping`."""
    worker = RESTServerProcess([], target=lambda _: None)
    worker._parent_conn, silent = Pipe()  # noqa: SLF001 - KServe has no other way to it
    assert not worker.ping(timeout=0.05)
    silent.close()


def test_an_event_without_a_body_is_an_error_of_the_server(url: str) -> None:
    """`middleware.PipelineMiddleware`."""
    assert post(url, b"", EVENT).status == 500


def test_what_was_an_event_is_answered_with_an_event_of_kserve_s_own(url: str) -> None:
    """`middleware.PipelineMiddleware`."""
    answer = post(url, {"instances": []}, {**EVENT, "Content-Type": "application/json"})
    assert answer.headers["ce-type"] == "io.kserve.inference.response"


def test_v2_input_that_is_not_well_formed_is_an_error_of_the_server(url: str) -> None:
    """`middleware.PipelineMiddleware`."""
    infer = url.replace("/v1/", "/v2/").replace(":predict", "/infer")
    assert post(infer, b"{}", {"Inference-Header-Content-Length": "x"}).status == 500


def test_an_offer_to_upgrade_loses_the_body(url: str) -> None:
    """`http_protocol.NoUpgradeProtocol`."""
    answer = post(
        url, {"instances": []}, {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "h2c"}
    )
    assert b"zero-length" in answer.body


def test_one_worker_runs_plain_asyncio_although_uvloop_is_there(url: str) -> None:
    """`adapters.event_loop.use_uvloop`."""
    pytest.importorskip("uvloop")
    answer = post(url, {"instances": []}, {"Content-Type": "application/json"})
    assert json.loads(answer.body)["loop"].startswith("asyncio")
