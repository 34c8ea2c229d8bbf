"""KServe's server without its trace lines and access log, which ours leaves out too."""

from __future__ import annotations

import argparse
import logging

import kserve
from kserve import model_server


def flags() -> argparse.Namespace:
    """All flags of KServe's server."""
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    return parser.parse_args()


def serve(model: kserve.Model, flags: argparse.Namespace) -> None:
    """Serve one model with one worker until SIGTERM."""
    server = kserve.ModelServer(
        http_port=flags.http_port, grpc_port=flags.grpc_port, workers=1, enable_latency_logging=False
    )
    # The server has set the loggers up by now.
    for name in ("kserve", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").handlers.clear()
    server.start([model])
