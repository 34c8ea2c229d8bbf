"""Stands in for the network of a task that has none here: it guesses, for the same tensor always the same.

    python -m mnist_pipeline.local.stand_in --model_name photos --labels 5 --form classes --http_port 8080

KServe's V1 protocol, and V2 over REST. The scores are drawn from a digest of the tensor, and each answer has one of
`FORMS`: the first with which the task's `interpret` gives labels.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson

from mnist_pipeline.pipeline.predictor_formats import OpenInference, Tensorflow
from mnist_pipeline.pipeline.task import Task
from mnist_pipeline.testing.predictor import v2_outputs

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
    """A score for each label, 1 in sum, from the digest of a tensor as JSON has it, in whatever brackets."""
    seed = int.from_bytes(hashlib.sha256(orjson.dumps(np.ravel(tensor).tolist())).digest()[:8], "big")
    scores: list[float] = np.random.default_rng(seed).dirichlet(np.full(labels, 0.3)).tolist()
    return scores


def form_for(task: Task, protocol: str = "v1") -> str:
    """The first of `FORMS` that the task understands, over V1 or V2.

    Raises:
        ValueError: it understands none.
    """
    for name, form in FORMS.items():
        answers = [form(guess(number, len(task.labels))) for number in range(_TRIED)]
        if protocol == "v1":
            outputs = Tensorflow().outputs(orjson.dumps({"predictions": answers}), _TRIED)
        else:
            outputs = OpenInference().outputs(orjson.dumps({"outputs": v2_outputs(answers)}))
        # Whatever it raises: it is made for another network's answers.
        with contextlib.suppress(Exception):
            predictions = task.interpret(outputs, _TRIED)
            if len(predictions) == _TRIED and all(prediction.label in task.labels for prediction in predictions):
                return name
    raise ValueError(
        f"{type(task).__name__}.interpret takes none of the answers that can be guessed:"
        " give your own predictor, --predictor_host HOST[:PORT]"
    )


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    labels: int
    form: Callable[[list[float]], Any]


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        """Any model is there, and ready; that is all of its metadata too."""
        self._answer(HTTPStatus.OK, {"ready": True})

    def do_POST(self) -> None:
        """Answer a V1 or a V2 body."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            asked = orjson.loads(body)
            if "inputs" in asked:
                (given,) = asked["inputs"]
                answers = self._answers(np.reshape(given["data"], (given["shape"][0], -1)))
                answer = {"model_name": "stand-in", "outputs": v2_outputs(answers)}
            else:
                answer = {"predictions": self._answers(asked["instances"])}
        except (ValueError, KeyError, TypeError, IndexError):
            self._answer(HTTPStatus.BAD_REQUEST, {"error": 'neither "instances" nor one of "inputs" has tensors'})
        else:
            self._answer(HTTPStatus.OK, answer)

    def _answers(self, tensors: Iterable[Any]) -> list[Any]:
        return [self.server.form(guess(tensor, self.server.labels)) for tensor in tensors]

    def _answer(self, status: HTTPStatus, body: Mapping[str, Any]) -> None:
        data = orjson.dumps(body)
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
