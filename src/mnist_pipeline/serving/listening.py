"""KServe's server on the addresses of one host: KServe 0.21 listens on all that the machine has."""

from __future__ import annotations

from typing import Any

from grpc import aio
from kserve import model_server
from kserve.protocol.grpc import server as grpc_server


class ModelServer(model_server.ModelServer):  # type: ignore[misc]  # kserve has no types
    """KServe's model server; `host` is a name or an address, None: all addresses. The rest are KServe's arguments."""

    def __init__(self, *, host: str | None, **options: Any) -> None:
        super().__init__(**options)
        self._host = host

    async def _serve(self) -> None:
        if self._host is not None:
            # Both servers are made by now, and listen only once they are awaited.
            rest = self._rest_server or self._rest_multiprocess_server._rest_server  # noqa: SLF001 - KServe has no other way to it
            rest.config.host = self._host
            grpc_server.aio = _Aio(self._host)
        await super()._serve()


class _Aio:
    """`grpc.aio`, as far as KServe's gRPC server uses it: what it is told to listen on has another host."""

    def __init__(self, host: str) -> None:
        self._host = f"[{host}]" if ":" in host else host

    def server(self, *args: Any, **options: Any) -> Any:
        """A server of `grpc.aio`."""
        server = aio.server(*args, **options)
        listen = server.add_insecure_port
        server.add_insecure_port = lambda address: listen(f"{self._host}:{address.rpartition(':')[2]}")
        return server
