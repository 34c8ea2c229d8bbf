"""What the bare scripts answer over HTTP."""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler


class Answering(BaseHTTPRequestHandler):
    """Answers the probe of whoever waits until the script is ready."""

    protocol_version = "HTTP/1.1"
    # Header and body in one packet, and no waiting for more: else each answer takes 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """The probe."""
        self.answer(HTTPStatus.OK)

    def answer(self, status: HTTPStatus) -> None:
        """Answer with nothing but a status."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the method that is overridden
        """Say nothing: the other variants keep no access log either."""
