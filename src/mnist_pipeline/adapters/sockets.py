"""Sockets that listen."""

from __future__ import annotations

import socket

_BACKLOG = 512
# Of a larger number the resolver takes what remains of it: 99999 would listen on 34463.
_PORTS = range(65536)


class PortTaken(Exception):
    """An address cannot be listened on; the text says which, and why."""


def listen(host: str | None, port: int) -> socket.socket:
    """A socket that listens there; on all addresses, IPv6 and IPv4, where the host is None. Port 0: any that is free.

    Raises:
        PortTaken: it cannot.
    """
    if port not in _PORTS:
        raise PortTaken(f"port {port} cannot be listened on: ports are 0 to 65535")
    everywhere = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - as KServe does
    try:
        family, kind, _, _, address = socket.getaddrinfo(host or everywhere, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        try:
            # What only waits for the last packets of closed connections does not take it.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and not host:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError, OverflowError) as exc:
        where = f"port {port}" if host is None else f"{host}, port {port},"
        raise PortTaken(f"{where} cannot be listened on: {getattr(exc, 'strerror', None) or exc}") from exc
    return listener
