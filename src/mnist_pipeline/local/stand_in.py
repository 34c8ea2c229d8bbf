"""Stands in for the network of a task that has none here: it guesses, for the same tensor always the same.

    python -m mnist_pipeline.local.stand_in --model_name photos --labels 5 --form classes --http_port 8080

KServe's V1 and V2 REST. The scores are drawn from a digest of the tensor, and each answer has one of `FORMS`: the first
with which the task's `interpret` gives labels.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson

from mnist_pipeline.pipeline.predictor_formats import OpenInference, Tensorflow
from mnist_pipeline.pipeline.task import Task
from mnist_pipeline.testing.answers import v1_answer, v2_answer

FORMS: Mapping[str, Callable[[list[float]], Any]] = MappingProxyType(
    {
        "classes": lambda scores: {"classes": scores.index(max(scores)), "predictions": scores},
        "scores": lambda scores: scores,
        "score": lambda scores: scores[-1],
        "class": lambda scores: scores.index(max(scores)),
    }
)
"""What predictors answer of one tensor: class and scores, all scores, the last label's score alone, the class alone."""

# So many that scores which are taken for predictions give too many of them, whatever the number of labels.
_TRIED = 7


def guess(tensor: Any, labels: int) -> list[float]:
    """A score for each label, 1 in sum, from the digest of a tensor as JSON has it."""
    seed = int.from_bytes(hashlib.sha256(orjson.dumps(tensor)).digest()[:8], "big")
    scores: list[float] = np.random.default_rng(seed).dirichlet(np.full(labels, 0.3)).tolist()
    return scores


def form_for(task: Task, protocol: str = "v1") -> str:
    """The first of `FORMS` that the task understands in this protocol, `v1` or `v2`.

    Raises:
        ValueError: it understands none.
    """
    for name, form in FORMS.items():
        answers = [form(guess(number, len(task.labels))) for number in range(_TRIED)]
        # Whatever it raises: it is made for another network's answers.
        with contextlib.suppress(Exception):
            if protocol == "v2":
                outputs = OpenInference().outputs(v2_answer(answers))
            else:
                outputs = Tensorflow().outputs(v1_answer(answers), _TRIED)
            predictions = task.interpret(outputs, _TRIED)
            if len(predictions) == _TRIED and all(prediction.label in task.labels for prediction in predictions):
                return name
    raise ValueError(
        f"{type(task).__name__}.interpret takes none of the answers that can be guessed:"
        " give your own predictor, --predictor_host HOST[:PORT]"
    )


def _v2_tensors(body: bytes) -> list[Any]:
    """The tensors of the one input, each as nested lists."""
    given = orjson.loads(body)["inputs"][0]
    tensors: list[Any] = np.reshape(given["data"], given["shape"]).tolist()
    return tensors


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    labels: int
    form: Callable[[list[float]], Any]


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        """Any model is there, and ready; of its input it tells nothing."""
        self._answer(HTTPStatus.OK, orjson.dumps({"name": "any", "ready": True, "inputs": [], "outputs": []}))

    def do_POST(self) -> None:
        """Answer a body of V1, or of V2."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_v2 = self.path.endswith("/infer")
        try:
            tensors = _v2_tensors(body) if is_v2 else orjson.loads(body)["instances"]
            answers = [self.server.form(guess(tensor, self.server.labels)) for tensor in tensors]
        except (ValueError, KeyError, TypeError, IndexError):
            self._answer(HTTPStatus.BAD_REQUEST, orjson.dumps({"error": "there is no list of tensors"}))
        else:
            self._answer(HTTPStatus.OK, v2_answer(answers) if is_v2 else v1_answer(answers))

    def _answer(self, status: HTTPStatus, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Be quiet about what goes well."""


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Stands in for a network.")
    parser.add_argument("--model_name", help="whatever it is: any is answered")
    parser.add_argument("--labels", type=int, required=True, help="how many there are")
    parser.add_argument("--form", choices=FORMS, default="classes", help="of each answer")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--http_port", type=int, default=8080)
    parser.add_argument("--grpc_port", type=int, help="taken as other servers take it, and not used")
    options = parser.parse_args()
    with _Server((options.host, options.http_port), _Answers) as server:
        server.labels, server.form = options.labels, FORMS[options.form]
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
