"""What predictors answer, in the bytes of V1 and of V2 REST."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def v1_answer(answers: Sequence[Any]) -> bytes:
    """A V1 body: an answer for each tensor, such as a class number, a label's text, scores, or an object of these."""
    return orjson.dumps({"predictions": [_plain(one) for one in answers]}, option=_OPTIONS)


def v2_answer(answers: Sequence[Any]) -> bytes:
    """A V2 body: an output `(N, …)` of the same; where they are objects, one for each of their members."""
    rows = [_plain(one) for one in answers]
    if rows and isinstance(rows[0], dict):
        columns = {name: [row[name] for row in rows] for name in rows[0]}
    else:
        columns = {"predictions": rows}
    outputs = [_output(name, column) for name, column in columns.items()]
    return orjson.dumps({"outputs": outputs}, option=_OPTIONS)


def _output(name: str, column: Sequence[Any]) -> dict[str, Any]:
    if all(isinstance(one, str) for one in column):
        return {"name": name, "datatype": "BYTES", "shape": [len(column)], "data": column}
    table = np.array(column)
    # Of several numbers each, integers are scores all the same.
    is_class = table.ndim == 1 and table.dtype.kind in "iu"
    datatype, kind = ("INT64", np.int64) if is_class else ("FP32", np.float32)
    return {"name": name, "datatype": datatype, "shape": table.shape, "data": table.astype(kind).ravel()}


def _plain(value: Any) -> Any:
    """The same without numpy's numbers, wherever they are in it."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
