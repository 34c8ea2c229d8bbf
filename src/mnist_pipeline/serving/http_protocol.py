"""uvicorn's HTTP protocol, for which an upgrade that a client offers is as if it had not been offered.

httptools takes a request with `Connection: Upgrade` for ended with its headers, as the JDK's HttpClient and `curl
--http2` (h2c) and Apache's HttpClient (TLS) send each first one: its body is lost, or taken for the next request
(uvicorn issue 2722). A server may ignore the offer (RFC 9110, section 7.8). h11, the other parser that uvicorn has,
ignores it too, but takes 0.09 ms of CPU more for every request.
"""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_OFFER = (b"upgrade", b"http2-settings")


class NoUpgradeProtocol(HttpToolsProtocol):
    """Reads a request that offers an upgrade once more, without the offer, before anything is begun for it."""

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        self._unset_keepalive_if_required()
        try:
            while True:
                try:
                    self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as exc:
                    data = self._without_offer() + data[exc.args[0] :]
                    self.parser = httptools.HttpRequestParser(self)
                    # As uvicorn's own.
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                else:
                    return
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as every other refusal, with its reason."""
        head = b"HTTP/1.1 400 Bad Request\r\nkne-reason: badrequest\r\nconnection: close\r\n"
        self.transport.write(head + b"content-length: %d\r\n\r\n%b" % (len(msg), msg.encode("ascii")))
        self.transport.close()

    def _should_upgrade(self) -> bool:
        # uvicorn asks it in each callback of the parser, and begins nothing for a request that is to be upgraded.
        return True

    def _without_offer(self) -> bytes:
        """The head of the request that was just read, without what offers an upgrade."""
        if self.scope["method"] == "CONNECT":
            raise httptools.HttpParserError("there is no tunnel here")
        lines = [b"%b %b HTTP/%b" % (self.scope["method"].encode(), self.url, self.scope["http_version"].encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = [option for option in value.split(b",") if option.strip().lower() not in _OFFER]
                lines.append(b"connection:" + b",".join(kept))
            elif name not in _OFFER:
                lines.append(name + b":" + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"
