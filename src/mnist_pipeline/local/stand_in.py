"""Stands in for the network of a task that has none here: it guesses, for the same tensor always the same.

    python -m mnist_pipeline.local.stand_in --model_name photos --labels 5 --http_port 8080 --grpc_port 8081

KServe's V1 protocol: each instance is answered with `{"classes": number, "predictions": [scores]}`.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from typing import Any

import numpy as np
import orjson
from kserve import Model, ModelServer
from kserve.errors import InvalidInput


class StandIn(Model):  # type: ignore[misc]  # kserve publishes no types
    """Scores that are drawn from a tensor's own digest."""

    def __init__(self, name: str, labels: int) -> None:
        super().__init__(name)
        self._labels = labels
        self.ready = True

    async def predict(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:  # noqa: ARG002 - KServe's signature
        """Answer a V1 body.

        Raises:
            InvalidInput: it has no instances.
        """
        instances = payload.get("instances") if isinstance(payload, dict) else None
        if not isinstance(instances, list) or not instances:
            raise InvalidInput('"instances" is not a list')
        return {"predictions": [self._guess(instance) for instance in instances]}

    def _guess(self, instance: Any) -> dict[str, Any]:
        seed = int.from_bytes(hashlib.sha256(orjson.dumps(instance)).digest()[:8], "big")
        scores = np.random.default_rng(seed).dirichlet(np.full(self._labels, 0.3))
        return {"classes": int(scores.argmax()), "predictions": scores.tolist()}


def main() -> None:
    """Serve until SIGTERM or SIGINT, quiet about what goes well."""
    parser = argparse.ArgumentParser(description="Stands in for a network.")
    parser.add_argument("--model_name", required=True)
    parser.add_argument("--labels", type=int, required=True)
    parser.add_argument("--http_port", type=int, default=8080)
    parser.add_argument("--grpc_port", type=int, default=8081)
    options = parser.parse_args()
    server = ModelServer(
        http_port=options.http_port, grpc_port=options.grpc_port, workers=1, enable_latency_logging=False
    )
    for name in ("kserve", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").handlers.clear()
    server.start([StandIn(options.model_name, options.labels)])


if __name__ == "__main__":
    main()
