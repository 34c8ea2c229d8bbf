"""The floor: a bare script that does the work of an event with the prescribed clients and no framework, in threads."""

from __future__ import annotations

import json
import sys
import traceback
from http import HTTPStatus
from http.server import ThreadingHTTPServer

from benchmarks.variants import answering, steps


class Floor:
    """GET, decode, POST to the predictor, PUT, produce with ack, DELETE."""

    def __init__(self, predict_url: str) -> None:
        self._store = steps.Store()
        self._results = steps.Results()
        self._predictor = steps.Predictor(predict_url)

    def handle(self, body: bytes) -> None:
        """Do all that one notification asks for."""
        upload = steps.uploaded(json.loads(body))
        png = self._store.get(upload)
        (digit,) = self._predictor.digits([steps.pixels(png)])
        self._store.put(f"digit-{digit}", upload.key, png)
        self._results.send(*steps.result(upload, digit))
        self._store.delete(upload)


class _Handler(answering.Answering):
    server: _Server

    def do_POST(self) -> None:  # noqa: N802 - http.server's name
        """One event."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self.server.floor.handle(body)
        except Exception:  # noqa: BLE001 - whatever it was, the event failed, and the log says why
            traceback.print_exc(file=sys.stderr)
            self.answer(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self.answer(HTTPStatus.OK)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    floor: Floor


def main() -> None:
    """Serve until SIGTERM."""
    flags = steps.flags()
    floor = Floor(steps.predict_url(flags))
    server = _Server(("127.0.0.1", flags.http_port), _Handler)
    server.floor = floor
    server.serve_forever()


if __name__ == "__main__":
    main()
