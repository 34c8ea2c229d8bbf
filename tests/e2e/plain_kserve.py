"""KServe's own server around a model that tells its event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import kserve


class Telling(kserve.Model):  # type: ignore[misc]  # kserve publishes no types
    """Answers with the module of its event loop's class."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    async def predict(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:  # noqa: ARG002 - KServe's signature
        """Answer at once."""
        return {"loop": type(asyncio.get_running_loop()).__module__}


if __name__ == "__main__":
    kserve.ModelServer(enable_grpc=False).start([Telling("mnist")])
