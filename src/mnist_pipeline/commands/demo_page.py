"""The live page of the demo's stack."""

from __future__ import annotations

import logging

from mnist_pipeline.adapters.sockets import PortTaken, listen
from mnist_pipeline.local.stack import Stack
from mnist_pipeline.web import server


class LivePage:
    """A page on this machine alone, which may upload.

    Args:
        port: None: the usual one, or a free one where that is taken.

    Attributes:
        listener: where browsers connect.

    Raises:
        ValueError: the port that was asked for cannot be listened on.
    """

    def __init__(self, port: int | None) -> None:
        try:
            self.listener = listen("127.0.0.1", server.PORT if port is None else port)
        except PortTaken as exc:
            if port is not None:
                raise ValueError(str(exc)) from exc
            self.listener = listen("127.0.0.1", 0)

    @property
    def url(self) -> str:
        """Where it is."""
        return server.url_of(self.listener)

    def serve(self, stack: Stack, protocol: str) -> None:
        """Serve it until Ctrl-C."""
        # Not before here: KServe takes seconds to import, while the parts of the stack start too.
        from kserve.predictor_config import PredictorConfig

        # While the stack goes down, kafka-python logs that it does.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
        site = server.Site(
            settings=stack.settings,
            topic=stack.notifications_topic,
            model_name=stack.task.name,
            predictor=PredictorConfig(predictor_host=stack.predictor_address(protocol), predictor_protocol=protocol),
            may_upload=True,
        )
        server.serve(site, self.listener, on_ready=self._tell)

    def _tell(self) -> None:
        print(f"\nOpen {self.url} in a browser. Ctrl-C ends it, and all of the stack.\n", flush=True)
