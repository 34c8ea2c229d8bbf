"""A transformer that does something at one step of an event's path: `python -m e2e.stepping`, for the tests of crashes.

`STEP` names the step: get, predict, put, copy, publish or delete. `THEN` says what happens when it is done for the
first time: `kill` ends the process as the kernel would, `wait` takes two seconds more. A file `reached` in `STEP_DIR`
tells the test that the step was reached.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from kserve.predictor_config import PredictorConfig

from mnist_pipeline import KafkaPublisher, MinioObjectStore, MnistTransformer, Pipeline, main
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.ports import StoredObject

WAIT_SECONDS = 2.0


async def done(step: str) -> None:
    """Do what is wanted after this step."""
    if step != os.environ["STEP"]:
        return
    Path(os.environ["STEP_DIR"], "reached").touch()  # noqa: ASYNC240 - one empty file
    if os.environ["THEN"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(WAIT_SECONDS)


class SteppingStore(MinioObjectStore):
    """The real store, watched."""

    async def get(self, *args: Any, **kwargs: Any) -> StoredObject:
        stored = await super().get(*args, **kwargs)
        await done("get")
        return stored

    async def put(self, *args: Any, **kwargs: Any) -> bool:
        created = await super().put(*args, **kwargs)
        await done("put")
        return created

    async def copy(self, *args: Any, **kwargs: Any) -> None:
        await super().copy(*args, **kwargs)
        await done("copy")

    async def delete(self, *args: Any, **kwargs: Any) -> bool:
        released = await super().delete(*args, **kwargs)
        await done("delete")
        return released

    async def delete_all(self, *args: Any, **kwargs: Any) -> list[bool | PipelineError]:
        # Of one it is `delete`.
        released = await super().delete_all(*args, **kwargs)
        if len(args[0]) > 1:
            await done("delete")
        return released


class SteppingPublisher(KafkaPublisher):
    """The real publisher, watched."""

    async def publish(self, *args: Any, **kwargs: Any) -> None:
        await super().publish(*args, **kwargs)
        await done("publish")


class SteppingTransformer(MnistTransformer):
    """The transformer on both."""

    def __init__(self, name: str, pipeline: Pipeline, predictor: PredictorConfig) -> None:
        settings = pipeline.settings
        assert settings.minio is not None
        assert settings.kafka is not None
        watched = Pipeline(settings, SteppingStore(settings.minio), SteppingPublisher(settings.kafka))
        super().__init__(name, watched, predictor)

    async def predict(self, *args: Any, **kwargs: Any) -> Any:
        predictions = await super().predict(*args, **kwargs)
        await done("predict")
        return predictions


if __name__ == "__main__":
    raise SystemExit(main(model=SteppingTransformer))
