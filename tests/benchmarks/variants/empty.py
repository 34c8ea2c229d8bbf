"""An empty KServe: what the framework costs a request when the model does nothing."""

from __future__ import annotations

from typing import Any

import kserve

from benchmarks.variants import quiet


class Empty(kserve.Model):  # type: ignore[misc]  # kserve publishes no types
    """Answers every request with an empty object."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    async def predict(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:  # noqa: ARG002 - KServe's signature
        """Answer at once."""
        return {}


if __name__ == "__main__":
    _flags = quiet.flags()
    quiet.serve(Empty(_flags.model_name), _flags)
