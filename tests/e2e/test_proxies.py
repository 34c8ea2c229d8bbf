"""Row 46: what libraries would read from the environment by themselves changes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.following import post
from e2e.places import Place
from e2e.sinks import Sink, always
from mnist_pipeline.testing import digit_png

DOCKERFILES = sorted((Path(__file__).parents[2] / "docker").glob("*r.Dockerfile"))


@pytest.fixture(scope="module")
def proxy() -> Iterator[Sink]:
    with Sink(always(502)) as proxy:
        yield proxy


def variables(proxy: Sink, no_proxy: str | None) -> dict[str, str]:
    url = f"http://127.0.0.1:{proxy.port}"
    named = [f"{kind}_proxy" for kind in ("http", "https", "all", "grpc", "socks")]
    more = {} if no_proxy is None else {"no_proxy": no_proxy, "NO_PROXY": no_proxy}
    more |= {
        "GRPC_ADDRESS_HTTP_PROXY": f"127.0.0.1:{proxy.port}",
        "GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES": "127.0.0.0/8",
    }
    # KServe makes its own reply to a CloudEvent by the first three; uvicorn reads the others.
    others = {"CE_TYPE": "theirs", "CE_SOURCE": "theirs", "CE_MERGE": "true"}
    others |= {"WEB_CONCURRENCY": "many", "FORWARDED_ALLOW_IPS": "*"}
    return {name: url for lower in named for name in (lower, lower.upper())} | more | others


@pytest.mark.parametrize("protocol", ["v1", "v2", "grpc-v2"])
@pytest.mark.parametrize("no_proxy", [None, "", "example.org"])
def test_row_46_predictor_store_and_kafka_are_reached_directly_whatever_proxy_is_set(
    place: Place, proxy: Sink, protocol: str, no_proxy: str | None
) -> None:
    port = place.predictor.grpc_port if protocol == "grpc-v2" else place.predictor.http_port
    server = place.start(
        predictor_host=f"127.0.0.1:{port}",
        args=("--predictor_protocol", protocol, "--enable_predictor_health_check"),
        settings=variables(proxy, no_proxy),
    )
    server.wait_ready()
    upload = place.upload(f"{uuid.uuid4()}.png", digit_png(7))
    event = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"}
    answer = post(server.predict_url, upload.event, event)
    assert (answer.status, answer.body) == (200, b"")
    assert not [name for name in answer.headers if name.startswith("ce-")]
    assert list(place.copies(upload)) == [f"digit-7/{upload.key}"]
    assert len(place.results(upload)) == 1
    server.close()
    assert proxy.connections == 0


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_row_46_an_image_s_health_check_asks_itself_whatever_proxy_is_set(
    embedded_place: Place, proxy: Sink, file: Path
) -> None:
    (command,) = re.findall(r"HEALTHCHECK .*\\\n\s+CMD (\[.*\])", file.read_text())
    asked = str(embedded_place.predictor.http_port)
    argv = [sys.executable, *(word.replace("8080", asked) for word in json.loads(command)[1:])]
    env = {**os.environ, **variables(proxy, None)}
    assert subprocess.run(argv, env=env, check=False, timeout=30).returncode == 0
    assert subprocess.run([*argv[:-1], argv[-1].replace("live", "dead")], env=env, check=False).returncode != 0
    assert proxy.connections == 0
