"""What stands before the page: only its own pages in a browser may use it, and nothing that it gives may run elsewhere.

- A `Host` that is neither an address nor a name of ours is refused: a foreign name that points to our address would
  make a foreign page one of ours (DNS rebinding).
- What is behind the page, `/api`, is refused to pages of other origins: `Sec-Fetch-Site` (W3C Fetch Metadata) tells,
  and whatever changes something needs an `Origin` of ours (Fetch standard). No page can forge either.
- Every answer has the headers that keep a browser from guessing, framing and telling on.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",  # asked for anew after an upgrade, unless an answer says otherwise
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

_FORBIDDEN, _MISDIRECTED = 403, 421
_OURS = ("same-origin", "none")  # none: the user has typed the address
_READING = ("GET", "HEAD")


class Guard:
    """An ASGI application, guarded.

    Args:
        app: what is guarded.
        hosts: the names, beside `localhost` and addresses, by which browsers may reach it.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if refusal := self._refusal(scope["method"], scope["path"], Headers(scope=scope)):
            await _refuse(*refusal, guarded)
        else:
            await self._app(scope, receive, guarded)

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return _MISDIRECTED, "This page is not served under that name (--allowed-host lets it be)."
        if not path.startswith("/api"):
            return None
        if headers.get("sec-fetch-site", "none") not in _OURS:
            return _FORBIDDEN, "Only the page itself may ask this."
        if method not in _READING and not _is_same_origin(headers.get("origin"), hosts[0]):
            return _FORBIDDEN, "Only the page itself may do this: the request has no Origin, or a foreign one."
        return None

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        return name is not None and (name in self._hosts or _is_address(name))


def _name_of(host: str) -> str | None:
    """The name in a `Host` header, without its port and lower-case; None where it is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != host or "@" in host or not parts.hostname:
        return None
    return parts.hostname.removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same_origin(origin: str | None, host: str) -> bool:
    """Whether a page of this origin was served under this `Host`; its scheme is a proxy's business."""
    scheme, _, authority = (origin or "").partition("://")
    return scheme in ("http", "https") and authority.lower() == host.lower()


async def _refuse(status: int, says: str, send: Send) -> None:
    body = orjson.dumps({"detail": says})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
