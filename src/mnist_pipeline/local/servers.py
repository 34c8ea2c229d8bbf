"""The two KServe model servers of the local stack, each a program of its own: the predictor and the transformer."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_pipeline.local.broker import API_VERSION, Broker
from mnist_pipeline.local.gateway import REGION, Gateway
from mnist_pipeline.local.processes import Part, Sandbox, answers_ok, free_port
from mnist_pipeline.pipeline.task import Task

# A cold start on a busy machine: KServe's imports alone take some seconds of CPU, for every worker.
_READY_SECONDS = 120.0
# Longer than the 30 s in which KServe lets requests finish.
_STOP_GRACE_SECONDS = 35.0


class ModelServer(Part):
    """One KServe server on loopback, started by its constructor; it answers after `wait_ready()`.

    Args:
        sandbox: where it runs.
        name: of the part, for its log and for errors.
        program: the Python module that is the program, or the absolute path of a script.
        model_name: the one model that it serves.
        args: more command line arguments.
        env: its settings.

    Raises:
        PartFailed: it cannot be started.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        name: str,
        program: str,
        *,
        model_name: str,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.model_name = model_name
        self.http_port = free_port()
        self.grpc_port = free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.predict_url = f"{self.url}/v1/models/{model_name}:predict"
        self.grpc_address = f"127.0.0.1:{self.grpc_port}"
        self._sandbox = sandbox
        ports = ("--http_port", str(self.http_port), "--grpc_port", str(self.grpc_port))
        start = [program] if Path(program).is_absolute() else ["-m", program]
        flags = ["--model_name", model_name, "--host", "127.0.0.1", *ports, *args]
        self.child = sandbox.start(name, [sys.executable, *start, *flags], env=env or {})

    def wait_ready(self) -> None:
        """Wait until it says that its model is ready.

        Raises:
            PartFailed: it ended, or is not ready after two minutes.
        """
        path = f"/v1/models/{self.model_name}"
        self.child.wait_ready(lambda: answers_ok(self.http_port, path), timeout_seconds=_READY_SECONDS)

    def close(self) -> None:
        """Stop it as Kubernetes does: SIGTERM, so that requests in flight finish."""
        if self.child in self._sandbox.children:
            self._sandbox.stop(self.child, grace_seconds=_STOP_GRACE_SECONDS)


def start_predictor(sandbox: Sandbox, *, model_name: str = "mnist", args: Sequence[str] = ()) -> ModelServer:
    """Start the project's own predictor (`mnist_pipeline.local.predictor`)."""
    return ModelServer(sandbox, "predictor", "mnist_pipeline.local.predictor", model_name=model_name, args=args)


def start_stand_in(sandbox: Sandbox, task: Task, *, form: str) -> ModelServer:
    """Start what guesses in the place of a task's network, with answers of this `form` (`local.stand_in`)."""
    args = ("--labels", str(len(task.labels)), "--form", form)
    return ModelServer(sandbox, "predictor", "mnist_pipeline.local.stand_in", model_name=task.name, args=args)


def started_program() -> tuple[str, dict[str, str]]:
    """The module or the script by which this process was started, and the environment in which it is found again.

    Raises:
        ValueError: it was started by neither.
    """
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if file is None:
        raise ValueError("the transformer is started as this program was, and this one is no module and no script")
    if spec is None:
        program = str(Path(file).resolve())
    elif spec.name == "__main__":  # of a folder or an archive
        program = str(Path(file).resolve().parent)
    else:
        program = spec.name.removesuffix(".__main__")
    # A child works in another directory, where neither this one nor a relative entry would be found.
    path = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return program, {"PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in path)}


def start_transformer(
    sandbox: Sandbox,
    *,
    predictor_host: str,
    env: Mapping[str, str],
    name: str = "transformer",
    program: str = "mnist_pipeline",
    model_name: str = "mnist",
    workers: int = 1,
    predictor_protocol: str = "v1",
    args: Sequence[str] = (),
) -> ModelServer:
    """Start a transformer (`python -m mnist_pipeline`, if it is no other program).

    Args:
        sandbox: where it runs.
        predictor_host: `host:port` of the predictor, of its gRPC port where the protocol is `grpc-v2`.
        env: all of its settings; see `transformer_settings`.
        name: of the part; give each of several transformers its own.
        program: a module or a script.
        model_name: the one model that it serves.
        workers: KServe's `--workers`.
        predictor_protocol: `v1`, `v2` or `grpc-v2`.
        args: more command line arguments.
    """
    options = (
        "--predictor_host",
        predictor_host,
        "--predictor_protocol",
        predictor_protocol,
        "--workers",
        str(workers),
    )
    return ModelServer(sandbox, name, program, model_name=model_name, args=(*options, *args), env=env)


def transformer_settings(gateway: Gateway | None = None, broker: Broker | None = None) -> dict[str, str]:
    """The settings that point a transformer to this gateway and this broker."""
    settings: dict[str, str] = {}
    if gateway is not None:
        settings |= {
            "MINIO_ENDPOINT": f"http://{gateway.endpoint}",
            "MINIO_ACCESS_KEY": gateway.access_key,
            "MINIO_SECRET_KEY": gateway.secret_key,
            "MINIO_REGION": REGION,
        }
    if broker is not None:
        settings |= {
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "KAFKA_API_VERSION": ".".join(str(number) for number in API_VERSION),
        }
    return settings
