"""The form of the log, lines to read or JSON: of what we say, and of what KServe, uvicorn and other libraries say."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

import orjson

_CONSOLE = "%(asctime)s %(process)d %(name)s %(levelname)s %(message)s"

# What these say of a start and an end is worth a line; other libraries are heard when something is wrong.
_TALKATIVE = ("mnist_pipeline", "kserve", "uvicorn")


class JsonFormatter(logging.Formatter):
    """A JSON object a line: time, level, logger, process, message, exception, and what the record has under `event`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        # Another library may call anything so.
        if isinstance(values := getattr(record, "event", None), dict):
            line |= values
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # half of a surrogate pair, which is no UTF-8
            return json.dumps(line, default=str)


def configure(form: Literal["console", "json"]) -> None:
    """Write the log of this process to the standard error in this form, unless somebody has configured it already."""
    formatter = JsonFormatter() if form == "json" else logging.Formatter(_CONSOLE)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if form == "json":
        logging.captureWarnings(capture=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.INFO)
