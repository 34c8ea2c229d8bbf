"""A transformer in the style of KServe's Kafka sample, written anew: the work in `preprocess` and `postprocess`.

As there, the clients block the event loop, so that events wait for each other, and KServe's own client asks the
predictor. Unlike the sample, it keeps no event on the model, where the next one would overwrite it; and it publishes
and deletes, as the others do.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import kserve
from kserve.predictor_config import PredictorConfig

from benchmarks.variants import quiet, steps

_under_way: ContextVar[tuple[steps.Upload, bytes]] = ContextVar("under_way")


class Sample(kserve.Model):  # type: ignore[misc]  # kserve publishes no types
    """One event at a time, but for its question to the predictor."""

    def __init__(self, name: str, predictor: PredictorConfig) -> None:
        super().__init__(name, predictor)
        self._store = steps.Store()
        self._results = steps.Results()
        self.ready = True

    async def preprocess(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:  # noqa: ARG002 - KServe's signature
        """Fetch and decode the object that the notification names."""
        upload = steps.uploaded(payload)
        png = self._store.get(upload)
        # Every request is a task, and has a context, of its own.
        _under_way.set((upload, png))
        return {"instances": [steps.pixels(png)]}

    async def postprocess(
        self,
        response: Any,
        headers: dict[str, str] | None = None,  # noqa: ARG002 - the same
        response_headers: dict[str, str] | None = None,  # noqa: ARG002 - the same
    ) -> dict[str, Any]:
        """File the object by its digit, publish, delete."""
        upload, png = _under_way.get()
        (digit,) = response["predictions"]
        self._store.put(f"digit-{digit}", upload.key, png)
        self._results.send_all([steps.result(upload, digit)])
        self._store.delete(upload)
        return {}


if __name__ == "__main__":
    _flags = quiet.flags()
    quiet.serve(Sample(_flags.model_name, PredictorConfig(predictor_host=_flags.predictor_host)), _flags)
