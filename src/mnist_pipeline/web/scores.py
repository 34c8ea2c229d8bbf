"""How sure the predictor is of each label, asked again for the page: the path keeps the best label's score alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnist_pipeline.adapters.predictor_client import PredictorClient
from mnist_pipeline.pipeline.interpretation import Output, Prediction, scores_of_all
from mnist_pipeline.pipeline.predictor_formats import format_named
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.task import Task

if TYPE_CHECKING:
    from kserve.predictor_config import PredictorConfig

_SECONDS = 10.0
_CONNECTIONS = 4


class Scorer:
    """Asks the site's predictor; for one event loop."""

    def __init__(self, settings: Settings, model_name: str, predictor: PredictorConfig) -> None:
        task = settings.task
        self._labels = task.labels
        self._client = PredictorClient(
            model_name,
            predictor,
            format_named(settings.predictor_format),
            _WithScores(task),
            connections=_CONNECTIONS,
        )

    async def scores(self, tensor: NDArray[Any]) -> list[dict[str, Any]]:
        """A score of each label; of the predicted one alone, where the predictor gives no others.

        Raises:
            PredictorUnavailable: it is away, slow, refuses the tensor, or answers what is no prediction.
        """
        (prediction,) = await self._client.predictions(tensor[np.newaxis], {}, timeout=_SECONDS)
        if isinstance(prediction, _Scored) and prediction.scores is not None:
            scores = zip(self._labels, prediction.scores, strict=True)
            return [{"label": label, "score": score} for label, score in scores]
        return [{"label": prediction.label, "score": prediction.score}]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


@dataclass(frozen=True)
class _Scored(Prediction):
    """A prediction, and the scores of all labels."""

    scores: Sequence[float] | None = None


class _WithScores(Task):
    """A task that reads an answer as another does, and keeps all of its scores."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.input = task.input

    def interpret(self, outputs: Mapping[str, Output], n: int) -> Sequence[Prediction]:
        """The task's own predictions."""
        predictions = self._task.interpret(outputs, n)
        every = scores_of_all(outputs, n, self._task.labels)
        return [
            _Scored(one.label, one.score, scores) if isinstance(one, Prediction) else one
            for one, scores in zip(predictions, every, strict=True)
        ]
