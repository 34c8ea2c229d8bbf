"""The floor: a bare script that does the work of an event with the prescribed clients and no framework, in threads."""

from __future__ import annotations

import json
import sys
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import urllib3

from benchmarks.variants import steps


class Floor:
    """GET, decode, POST to the predictor, PUT, produce with ack, DELETE."""

    def __init__(self, predict_url: str) -> None:
        self._store = steps.Store()
        self._results = steps.Results()
        self._predictor = urllib3.PoolManager(maxsize=steps.CONNECTIONS, timeout=30.0, retries=False)
        self._predict_url = predict_url

    def handle(self, body: bytes) -> None:
        """Do all that one notification asks for."""
        upload = steps.uploaded(json.loads(body))
        png = self._store.get(upload)
        question = json.dumps({"instances": [steps.pixels(png)]})
        answer = self._predictor.request(
            "POST", self._predict_url, body=question, headers={"Content-Type": "application/json"}
        )
        (digit,) = json.loads(answer.data)["predictions"]
        self._store.put(f"digit-{digit}", upload.key, png)
        self._results.send(*steps.result(upload, digit))
        self._store.delete(upload)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Header and body in one packet, and no waiting for more: else each answer takes 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        """The probe of whoever waits until it is ready."""
        self._answer(HTTPStatus.OK)

    def do_POST(self) -> None:
        """One event."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self.server.floor.handle(body)
        except Exception:  # noqa: BLE001 - whatever it was, the event failed, and the log says why
            traceback.print_exc(file=sys.stderr)
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._answer(HTTPStatus.OK)

    def _answer(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the method that is overridden
        """Say nothing: the other variants keep no access log either."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    floor: Floor


def main() -> None:
    """Serve until SIGTERM."""
    flags = steps.flags()
    floor = Floor(f"http://{flags.predictor_host}/v1/models/{flags.model_name}:predict")
    server = _Server(("127.0.0.1", flags.http_port), _Handler)
    server.floor = floor
    server.serve_forever()


if __name__ == "__main__":
    main()
