"""MLServer, a predictor that others wrote (PyPI `mlserver`): one process on loopback, V2 over REST and gRPC.

It serves the project's network by `mlserver_digits.py`, as any number of models.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from mnist_pipeline.local.processes import Sandbox, answers_ok, free_port
from servers import venvs
from servers.program import Server

_REQUIREMENTS = Path(__file__).with_name("mlserver.txt")
_PYTHONS = ("3.12", "3.11", "3.10")  # it takes no newer one
_RUNTIME = Path(__file__).with_name("mlserver_digits.py")
_NETWORK = files("mnist_pipeline.local.network").joinpath("mnist.onnx")


def install() -> Path:
    """The Python of MLServer's virtual environment; see `servers.venvs`.

    Raises:
        ToolMissing: it cannot be made.
    """
    return venvs.install(_REQUIREMENTS, _PYTHONS)


def version(python: Path) -> str:
    """What is installed there."""
    return f"MLServer {venvs.version(python, 'mlserver')}"


class MlserverServer(Server):
    """One MLServer with its models, started by its constructor.

    Args:
        python: what `install()` returned.
        sandbox: where it runs.
        models: by name, what each one's `model-settings.json` declares: `inputs` and `outputs`, or nothing.

    Raises:
        PartFailed: it cannot be started.
    """

    def __init__(self, python: Path, sandbox: Sandbox, models: Mapping[str, Mapping[str, Any]]) -> None:
        self._http_port = free_port()
        self._models = tuple(models)
        self.http_address = f"127.0.0.1:{self._http_port}"
        grpc_port = free_port()
        self.grpc_address = f"127.0.0.1:{grpc_port}"
        home = sandbox.directory / "mlserver"
        home.mkdir()
        shutil.copy(_RUNTIME, home)
        settings = {
            "host": "127.0.0.1",
            "http_port": self._http_port,
            "grpc_port": grpc_port,
            "metrics_endpoint": None,
            "parallel_workers": 0,
            "debug": False,
        }
        (home / "settings.json").write_text(json.dumps(settings))
        for name, declared in models.items():
            model = {
                "name": name,
                "implementation": f"{_RUNTIME.stem}.Digits",
                "parameters": {"uri": str(_NETWORK)},
                **declared,
            }
            (home / name).mkdir()
            (home / name / "model-settings.json").write_text(json.dumps(model))
        # Our own packages are none of its.
        super().__init__(sandbox, "mlserver", [python, "-m", "mlserver.cli.main", "start", home], {"PYTHONPATH": ""})
        self.start()

    def is_ready(self) -> bool:
        """Whether it says so of every model: of itself it says so before it has loaded any."""
        return all(answers_ok(self._http_port, f"/v2/models/{name}/ready") for name in self._models)
