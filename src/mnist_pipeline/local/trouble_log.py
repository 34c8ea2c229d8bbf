"""What is the matter with a topic, told once for as long as it stays the same."""

from __future__ import annotations

import logging
import threading
import time

from mnist_pipeline.adapters.kafka_connection import Connections

_log = logging.getLogger(__name__)

# A broker that ends breaks its connections off first, and only then takes no more of them; another may take over.
_TROUBLE_SECONDS = 1.0


class TroubleLog:
    """Lines about one topic; none while it is being closed, because we brought that about."""

    def __init__(self, topic: str, closing: threading.Event) -> None:
        self.said = ""
        """What is the matter; empty where nothing is known to be."""
        self._topic = topic
        self._closing = closing
        self._well_at = time.monotonic()

    def warn(self, text: str) -> None:
        """Tell what is the matter."""
        if text != self.said and not self._closing.is_set():
            _log.warning("topic %s: %s; trying again", self._topic, text)
            self.said = text

    def look(self, connections: Connections) -> None:
        """A poll without records does not tell whether a broker is there; its connections do."""
        if connections.trouble is None:
            self._well_at = time.monotonic()
            if self.said:
                _log.info("topic %s: is read again", self._topic)
                self.said = ""
        elif time.monotonic() - self._well_at >= _TROUBLE_SECONDS:
            self.warn(connections.explain())
