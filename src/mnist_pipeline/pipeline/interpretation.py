"""What a predictor's answer means, whoever has trained it: class numbers, labels as text, or scores become predictions.

A class is a number that counts the labels from 0, a whole float too (XGBoost), or a label's own text (scikit-learn on
text labels). Scores are as many numbers as there are labels; the best one is the class where none is given. What is
not exactly one label an instance raises PredictorUnavailable: nothing is filed by a guess. What the predictor sent is
quoted short and printable: it may be HTML, or somebody's idea of a log line.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

from numpy.typing import NDArray

from mnist_pipeline.pipeline.errors import PredictorUnavailable

Label: TypeAlias = str | int
"""What a prediction may be."""

JSON = "JSON"
"""The datatype of what a V1 predictor answers: each row is any JSON value."""

_INTEGERS = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
_FLOATS = {"FP16", "FP32", "FP64"}

# What models call their answer, the likeliest first. The last is what KServe's own servers call it, whatever it is.
_CLASS_NAMES = ("predictions", "classes", "digits", "labels", "predict", "label", "output_label")
_SCORE_NAMES = ("probabilities", "predict_proba", "scores", "logits")
_NAMES = (*_CLASS_NAMES, *_SCORE_NAMES, "output-0")

# One such number an instance says how sure the model is, and not of what: 1.0 is not the class 1.
_SCORE = re.compile("confidence|probab|proba$|score|logit", re.IGNORECASE)

# What rounding and quantisation leave of a sum of 1.
_SUM_TOLERANCE = 0.02


@dataclass(frozen=True)
class Prediction:
    """One label, and how sure the predictor is of it in 0..1; None where it gives no scores."""

    label: Label
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output of a predictor: `data` holds its elements, in any shape, row by row.

    `datatype` is V2's name for it, `JSON` for what a V1 predictor answers; `shape` has the number of instances first.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: NDArray[Any]

    @property
    def rows(self) -> list[Any]:
        """What belongs to each instance: a number, a text, or nested lists of them.

        Raises:
            PredictorUnavailable: it has not as many elements as its shape says.
        """
        if self.data.size != math.prod(self.shape) or min(self.shape, default=0) < 0:
            raise PredictorUnavailable(f"the predictor's output {_short(self.name)} does not hold what its shape says")
        rows: list[Any] = self.data.reshape(self.shape).tolist()
        return rows


def interpreted(
    outputs: Mapping[str, Output], n: int, labels: Sequence[Label], *, called: str = "label"
) -> list[Prediction]:
    """The predictions of `n` instances.

    Of a V1 answer each row is a class, alone or in a list, a list of scores, or an object with `classes`, and with
    scores beside them, or with scores alone.

    Of V2's outputs integers of shape (N) or (N, 1) are classes, else floats (N, labels) are scores. Texts and floats of
    the integers' shapes are classes too: those that are named as classes are, and the others where there are no scores,
    because beside scores they are something else (a version, an entropy). The outputs' order says nothing; of several
    that fit alike, the one with the likeliest name counts.

    Raises:
        PredictorUnavailable: no output fits, or several of unknown names, or one holds something else.
    """
    known = _Labels(labels, called)
    everything = list(outputs.values())
    if len(everything) == 1 and everything[0].datatype == JSON:
        rows = everything[0].data.tolist()
        if len(rows) != n:
            raise PredictorUnavailable(f"the predictor gave {len(rows)} predictions for {n} instances")
        return [_of_json(row, known) for row in rows]
    one_each = [o for o in everything if o.shape in {(n,), (n, 1)}]
    integers = [o for o in one_each if o.datatype in _INTEGERS]
    others = [o for o in one_each if o.datatype in {"BYTES", *_FLOATS} and not _SCORE.search(o.name)]
    named = [o for o in others if o.name in _CLASS_NAMES]
    scores = [o for o in everything if o.datatype in _FLOATS and o.shape == (n, len(labels))]
    if classes := integers or named or ([] if scores else others):
        indexes = [known.index(value) for value in _elements(_likeliest(classes), n)]
        return [known.prediction(index, beside) for index, beside in zip(indexes, _beside(scores, n), strict=True)]
    if scores:
        return [known.best(row) for row in _rows(_likeliest(scores))]
    raise PredictorUnavailable(f"no output of the predictor tells the {called} of {n}: {_listed(everything)}")


def scores_of_all(outputs: Mapping[str, Output], n: int, labels: Sequence[Label]) -> list[list[float] | None]:
    """How sure the predictor is of each label, in 0..1 and in the labels' order, for each of `n` instances.

    None for an instance of which the answer does not say it: classes alone, or what only a task's `interpret` reads.
    """
    known = _Labels(labels, "label")
    everything = list(outputs.values())
    if len(everything) == 1 and everything[0].datatype == JSON:
        rows = [_scores_in(row, known) for row in everything[0].data.tolist()]
    else:
        tables = [o for o in everything if o.datatype in _FLOATS and o.shape == (n, len(labels))]
        rows = list(_beside(tables, n))
    shares = [_shares(row) if known.are_scores(row) else None for row in rows]
    return shares if len(shares) == n else [None] * n


class _Labels:
    """The labels, and how predictors name them."""

    def __init__(self, labels: Sequence[Label], called: str) -> None:
        self._labels = labels
        self._called = called
        # Numbers that are labels themselves are no positions: a network trained on classes 1 to 3 answers with these.
        self._numbers: Sequence[Label] = labels if all(type(one) is int for one in labels) else range(len(labels))

    def index(self, value: object) -> int:
        """Which label a class means."""
        if _is_number(value) and value in self._numbers:
            return self._numbers.index(value)
        # KServe gives the BYTES of gRPC as bytes. The Arabic seven is a digit to Python, and not the text of 7.
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(text, str):
            for index, label in enumerate(self._labels):
                if text == str(label):
                    return index
        raise PredictorUnavailable(f"the predictor's class is no {self._called}: {_short(value)}")

    def best(self, scores: object) -> Prediction:
        """The label with the best of these scores, the first of equal ones."""
        if not self.are_scores(scores):
            raise PredictorUnavailable(
                f"the predictor's scores are not {len(self._labels)} finite numbers: {_short(scores)}"
            )
        return self.prediction(scores.index(max(scores)), scores)

    def prediction(self, index: int, scores: object) -> Prediction:
        """The label of this number, with its own score where there are scores."""
        own = _shares(scores)[index] if self.are_scores(scores) else None
        return Prediction(self._labels[index], own)

    def are_scores(self, value: object) -> TypeGuard[list[float]]:
        """Whether this is a finite number for each label."""
        return (
            isinstance(value, list)
            and len(value) == len(self._labels)
            and all(_is_number(score) and math.isfinite(score) for score in value)
        )


def _of_json(row: object, known: _Labels) -> Prediction:
    if isinstance(row, dict):
        scores = _scores_in(row, known)
        if "classes" in row:
            return known.prediction(known.index(_alone(row["classes"])), scores)
        if scores is not None and "predictions" not in row:
            return known.best(scores)
    row = _alone(row)
    return known.best(row) if isinstance(row, list) else known.prediction(known.index(row), None)


def _scores_in(row: object, known: _Labels) -> object:
    """The scores of each label in a row of JSON; None where an object has none."""
    if isinstance(row, dict):
        named = (row.get(name) for name in (*_SCORE_NAMES, "predictions"))
        return next((value for value in named if known.are_scores(value)), None)
    return _alone(row)


def _alone(value: object) -> object:
    """The one element of a list that has one: a class that is a tensor of one number, or a batch of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], list) else value


def _shares(scores: list[float]) -> list[float]:
    """How sure the scores are of each label; they are softmaxed where they are no distribution."""
    if min(scores) < 0 or abs(sum(scores) - 1) > _SUM_TOLERANCE:
        highest = max(scores)
        powers = [math.exp(score - highest) for score in scores]
        total = sum(powers)
        return [power / total for power in powers]
    return [float(min(score, 1.0)) for score in scores]


def _beside(scores: Sequence[Output], n: int) -> Sequence[object]:
    """The scores that stand beside `n` classes; None where there are none, or it is not clear which."""
    try:
        return _rows(_likeliest(scores)) if scores else [None] * n
    except PredictorUnavailable:
        return [None] * n


def _likeliest(outputs: Sequence[Output]) -> Output:
    if len(outputs) == 1:
        return outputs[0]
    named = [output for output in outputs if output.name in _NAMES]
    if not named:
        raise PredictorUnavailable(
            f"the predictor has several outputs that may be meant, none of a known name: {_listed(outputs)}"
        )
    return min(named, key=lambda output: _NAMES.index(output.name))


def _rows(output: Output) -> list[Any]:
    """The rows of a table of scores, which may lie flat or nested."""
    elements = _elements(output, math.prod(output.shape))
    width = output.shape[1]
    return [elements[start : start + width] for start in range(0, len(elements), width)]


def _elements(output: Output, count: int) -> list[object]:
    elements: list[object] = output.data.ravel().tolist()
    if len(elements) != count:
        raise PredictorUnavailable(f"the predictor's output {_short(output.name)} does not hold {count} elements")
    return elements


def _listed(outputs: Sequence[Output]) -> str:
    return ", ".join(f"{_short(o.name)} {_short(o.datatype)} {_short(o.shape)}" for o in outputs[:8]) or "none"


def _short(value: object) -> str:
    return reprlib.repr(value)


def _is_number(value: object) -> TypeGuard[float]:
    # type() and not isinstance: a bool is an int to Python, and no class.
    return type(value) in (int, float)
