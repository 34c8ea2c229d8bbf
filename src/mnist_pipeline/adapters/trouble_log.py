"""What is the matter with topics, told once for as long as it stays the same."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

_log = logging.getLogger(__name__)

# A broker that ends breaks its connections off first, and only then takes no more of them; another may take over.
_TROUBLE_SECONDS = 1.0


class TroubleLog:
    """Lines about topics; none while `closing` is set, because we brought that about."""

    def __init__(self, topics: Iterable[str], closing: threading.Event) -> None:
        self.said = ""
        """What is the matter; empty where nothing is known to be."""
        self._topics = ", ".join(topics)
        self._closing = closing
        self._well_at = time.monotonic()

    def warn(self, text: str) -> None:
        """Tell what is the matter."""
        if text != self.said and not self._closing.is_set():
            _log.warning("topic %s: %s; trying again", self._topics, text)
            self.said = text

    def look(self, trouble: str) -> None:
        """Tell what is the matter, where it stays; empty: nothing is known to be."""
        if not trouble:
            self._well_at = time.monotonic()
            if self.said:
                _log.info("topic %s: is read again", self._topics)
                self.said = ""
        elif time.monotonic() - self._well_at >= _TROUBLE_SECONDS:
            self.warn(trouble)
