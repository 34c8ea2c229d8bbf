"""web/scores.py: the scores of all labels, asked of a predictor on a real HTTP server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from kserve.predictor_config import PredictorConfig

from mnist_pipeline import Settings, Task
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import PredictorUnavailable
from mnist_pipeline.web.scores import Scorer
from readings import Readings
from unit.test_predictor_client import Predictor, v2_outputs


async def scores_of(task: Task, answer: tuple[int, bytes], protocol: str = "v1") -> list[dict[str, Any]]:
    settings = Settings.from_environ({}, task, predictor_protocol=protocol)
    predictor = Predictor(answer)
    async with predictor.client():
        scorer = Scorer(settings, "mnist", PredictorConfig(predictor.host, protocol))
        try:
            return await scorer.scores(np.zeros(task.input.shape, task.input.datatype))
        finally:
            await scorer.close()


def v1(row: object) -> tuple[int, bytes]:
    return 200, json.dumps({"predictions": [row]}).encode()


async def test_each_label_has_its_score_in_the_labels_order() -> None:
    row = [0.91 if digit == 7 else 0.01 for digit in range(10)]
    for answer in (row, {"classes": 7, "predictions": row}):
        told = await scores_of(Digits(), v1(answer))
        assert [one["label"] for one in told] == list(range(10))
        assert [one["score"] for one in told] == row


async def test_of_a_class_alone_the_predicted_label_is_all_that_is_known() -> None:
    assert await scores_of(Digits(), v1(7)) == [{"label": 7, "score": None}]
    assert await scores_of(Digits(), v2_outputs(7), "v2") == [{"label": 7, "score": None}]


async def test_a_task_that_reads_its_predictor_s_answers_itself_gives_the_score_of_its_prediction() -> None:
    assert await scores_of(Readings(), v1(0.75)) == [{"label": "anomaly", "score": 0.75}]


@pytest.mark.parametrize("answer", [(500, b""), (400, b"no"), (200, b"{}"), v1("nine"), v1([0.5, 0.5])])
async def test_a_predictor_that_cannot_tell_is_away_for_the_page(answer: tuple[int, bytes]) -> None:
    with pytest.raises(PredictorUnavailable):
        await scores_of(Digits(), answer)
