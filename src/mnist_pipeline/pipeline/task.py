"""What is one's own in a transformer: a `Task` says what an object is, what the predictor is asked, and what its answer
means. Everything else is the path's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_pipeline.pipeline import pictures, setting_values
from mnist_pipeline.pipeline.interpretation import Label, Output, Prediction, interpreted

if TYPE_CHECKING:
    from mnist_pipeline.pipeline.settings import Settings

Batch: TypeAlias = NDArray[Any]
"""Tensors of one shape, the number of them first: `(N, …)`."""

PROTOCOLS = ("v1", "v2", "grpc-v2")
"""How a predictor may be asked, as KServe's `--predictor_protocol` calls it."""

_NAME = re.compile("[a-z0-9]+(-[a-z0-9]+)*")
_DATATYPES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
}


@dataclass(frozen=True)
class Tensor:
    """What the predictor is asked with, for one object.

    Attributes:
        shape: of one tensor, without the batch.
        datatype: numpy's name, such as `float32`.
        name: of the input in V2, where the predictor's metadata do not name it.
        flat: a predictor that does not tell its shape gets the elements of each tensor in one row.
        pixels: the values lie in 0..1, and may travel as bytes in 0..255 and as a picture too.
    """

    shape: tuple[int, ...]
    datatype: str = "float32"
    name: str = "input-0"
    flat: bool = False
    pixels: bool = False

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"the shape {self.shape} has no elements")
        if self.datatype not in _DATATYPES:
            raise ValueError(f"the datatype {self.datatype!r} is none of {', '.join(_DATATYPES)}")
        if self.pixels and not self.datatype.startswith("float"):
            raise ValueError(f"pixels lie in 0..1, and {self.datatype} has nothing between")

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def sent_shape(self) -> tuple[int, ...]:
        """The shape in which a predictor gets it that does not tell its own."""
        return (self.size,) if self.flat else self.shape

    @property
    def v2_datatype(self) -> str:
        """The datatype's name in the Open Inference Protocol."""
        return _DATATYPES[self.datatype]

    def of(self, values: Any) -> NDArray[Any]:
        """These values as one such tensor.

        Raises:
            ValueError: they are no numbers, not finite, none that the datatype holds, or not of this shape.
        """
        given = np.asarray(values)
        if given.dtype.kind not in "iuf":
            raise ValueError("no numbers")
        if given.shape != self.shape and not self._has_elements_of(given.shape):
            raise ValueError(f"the shape {list(given.shape)}")
        with np.errstate(over="ignore", invalid="ignore"):
            array = given.astype(self.datatype, copy=False)
        if not np.isfinite(array).all() or (array is not given and not np.isfinite(given).all()):
            raise ValueError("numbers that are not finite")
        if array.dtype.kind != "f" and array.dtype != given.dtype and (array != given).any():
            raise ValueError(f"numbers that are no {self.datatype}")
        return array.reshape(self.shape)

    def _has_elements_of(self, shape: tuple[int, ...]) -> bool:
        """Whether such an array is this one but for its brackets: other axes would mix up what is what."""
        axes = [size for size in shape if size != 1]
        return math.prod(shape) == self.size and (len(axes) <= 1 or axes == [size for size in self.shape if size != 1])


@dataclass(frozen=True)
class Destination:
    """Where objects are filed: a bucket, and what their keys get in front, empty or ending in a slash."""

    bucket: str
    prefix: str = ""

    def __post_init__(self) -> None:
        if self.prefix and not self.prefix.endswith("/"):
            object.__setattr__(self, "prefix", self.prefix + "/")
        if self.prefix and {"", ".", ".."} & {*self.prefix[:-1].split("/")}:
            raise ValueError(f"no store has objects under {self.prefix!r}")

    @classmethod
    def named(cls, text: str) -> Destination:
        """`bucket` or `bucket/prefix`."""
        bucket, _, prefix = text.partition("/")
        return cls(bucket, prefix)


class Task:
    """One's own part of a transformer: subclass it, name what it needs, write `decode`.

        class Clothes(Task):
            name, buckets, suffixes = "fashion", ("fashion",), (".png",)
            input = Tensor((28, 28), "float32")
            labels = ("t-shirt", "trouser", "dress")

            def decode(self, data): ...

    Attributes:
        name: of the model, and in the defaults of event types, topics and buckets; lower-case, with hyphens.
        buckets: from which objects are taken, unless `SOURCE_BUCKETS` is set; else the one called `name`.
        suffixes: of the keys that are taken, unless `SOURCE_SUFFIXES` is set.
        any_case: the suffixes mean those in capitals too.
        input: what the predictor is asked with. Inline tensors, V2 metadata and setup's probe are held against it.
        labels: what a prediction may be, in the order of the predictor's class numbers; texts, or integers, which are
            class numbers themselves.
        called: what one label is called: in messages, and between the braces of `DESTINATION`.
        filed_in: bucket, or bucket/prefix, of a label, unless `DESTINATION` is set.
        review_below: a score under which an object is filed for people to look at, unless `REVIEW_BELOW` is set.
        predictor_protocol: `v1`, `v2` or `grpc-v2`, unless `--predictor_protocol` is given.
        max_image_pixels: of a picture that `open_picture` takes, unless `MAX_IMAGE_PIXELS` is set.
    """

    name: str
    buckets: tuple[str, ...] = ()
    suffixes: tuple[str, ...]
    any_case: bool = True
    input: Tensor
    labels: Sequence[Label]
    called: str = "label"
    filed_in: str = "{name}-{label}"
    review_below: float | None = None
    predictor_protocol: str = "v1"
    max_image_pixels: int = 16_000_000

    @property
    def v2_labels(self) -> str:
        """The labels' datatype in the Open Inference Protocol."""
        return "INT64" if all(isinstance(label, int) for label in self.labels) else "BYTES"

    def configure(self, settings: Settings) -> None:
        """Take from the settings what the task needs of them; called for each `Settings` that is made with the task.

        What cannot be pickled, such as a lock or a connection, is not kept here: `--workers` pickles the task.
        """
        self.max_image_pixels = settings.max_image_pixels

    def decode(self, data: bytes) -> NDArray[Any]:
        """The bytes of an object, or of an inline image, as one tensor with the elements of `input`.

        It may be called in several threads at once, of small PNGs on the event loop. Of other shape or not finite it
        is taken for a bug, and the object is tried again.

        Raises:
            Reject: the bytes can never be one; the object is filed into the rejected bucket, with the reason.
        """
        raise NotImplementedError

    def open_picture(self, data: bytes, mode: Literal["L", "RGB"] = "RGB") -> Image.Image:
        """A PNG or JPEG for `decode`, in colour or in greys (`L`): upright as its EXIF says, transparent pixels white.

        Raises:
            BadImage: it is empty, truncated, damaged, neither PNG nor JPEG, or larger than `max_image_pixels`.
        """
        return pictures.read_picture(data, mode, max_pixels=self.max_image_pixels)

    def interpret(self, outputs: Mapping[str, Output], n: int) -> Sequence[Prediction]:
        """What the predictor's answer to `n` tensors means, one prediction each.

        By default its class numbers, the labels' own texts, or scores, whatever their names (`interpretation`).

        Args:
            outputs: by name. A V1 answer has one, `predictions`.
            n: how many tensors were asked about.

        Raises:
            PredictorUnavailable: it does not say it of each: nothing is filed by a guess.
        """
        return interpreted(outputs, n, self.labels, called=self.called)

    def destination(self, prediction: Prediction) -> Destination | None:
        """Where an object with this prediction is filed; None, the default: where `DESTINATION` or `filed_in` says.

        Whoever overrides it with places that do not depend on the label alone overrides `destinations` too.
        """
        del prediction
        return None

    def destinations(self) -> Iterable[Destination]:
        """All that `destination` may give, for setup and so that what is filed there is not taken again."""
        given = (self.destination(Prediction(label, 1.0)) for label in self.labels)
        return [destination for destination in given if destination is not None]

    def labels_by_pattern(self) -> list[Label]:
        """Those labels whose objects are filed where `DESTINATION` or `filed_in` says."""
        return [label for label in self.labels if self.destination(Prediction(label, 1.0)) is None]

    def data(self, predictions: Sequence[Prediction], *, inline: bool = False) -> dict[str, Any]:
        """What the result event says of an object's prediction, or of those of an inline request.

        An object's has its `destination`, and what identifies it, too.
        """
        data: dict[str, Any] = {"predictions": [prediction.label for prediction in predictions]}
        scores = [prediction.score for prediction in predictions]
        # What a user of the Kafka-sink transformer knows has predictions alone.
        if not inline and None not in scores:
            data["scores"] = scores
        return data

    def problems(self) -> list[str]:
        """What is missing or cannot work, a sentence each."""
        kind = type(self).__name__
        missing = [what for what in ("name", "suffixes", "input", "labels") if _is_empty(self, what)]
        found = [f"{kind} lacks {what}, as in: {_EXAMPLES[what]}" for what in missing]
        if "name" not in missing and not _NAME.fullmatch(self.name):
            found.append(f"{kind}.name is {self.name!r}: lower-case letters, digits and single hyphens only")
        if "input" not in missing and not isinstance(getattr(self, "input", None), Tensor):
            found.append(f"{kind}.input is no Tensor, as in: {_EXAMPLES['input']}")
        for what in ("buckets", "suffixes", "labels"):
            given = getattr(self, what, ())
            if isinstance(given, str):
                found.append(f"{kind}.{what} is a text, not a tuple: a comma is missing")
            elif not isinstance(given, tuple | list | range):
                found.append(f"{kind}.{what} is a {type(given).__name__}, not a tuple")
            elif what != "labels":
                found += self._problems_of_texts(what, given)
            elif "labels" not in missing:
                found += self._problems_of_labels(given)
        if type(self).decode is Task.decode:
            found.append(f"{kind} lacks its method decode(self, data: bytes) -> numpy.ndarray")
        found += self._problems_of_defaults()
        return found

    def _problems_of_defaults(self) -> Iterator[str]:
        kind = type(self).__name__
        below, protocol = self.review_below, self.predictor_protocol
        if below is not None and (type(below) not in (int, float) or not 0 <= below <= 1):
            yield f"{kind}.review_below is {below!r:.60}, which is no number from 0 to 1"
        if protocol not in PROTOCOLS:
            yield f"{kind}.predictor_protocol is {protocol!r:.60}, none of {', '.join(PROTOCOLS)}"
        try:
            setting_values.destination(self.filed_in.replace("{name}", "name"), called=self.called)
        except ValueError as exc:
            yield f"{kind}.filed_in {exc}"

    def _problems_of_texts(self, what: str, given: Sequence[Any]) -> Iterator[str]:
        kind = type(self).__name__
        for one in given:
            if not isinstance(one, str) or not one:
                yield f"{kind}.{what} has {one!r:.60}, which is no text"
            elif what == "buckets" and not setting_values.is_bucket(one):
                yield f"{kind}.buckets has {one!r:.60}, which is no bucket name"

    def _problems_of_labels(self, given: Sequence[Any]) -> Iterator[str]:
        kind = type(self).__name__
        if len({str(label) for label in given}) != len(given):
            yield f"{kind}.labels has one label twice"
        if any(type(label) not in (str, int) for label in given):
            yield f"{kind}.labels has one that is neither a text nor a whole number"


def _is_empty(task: Task, what: str) -> bool:
    given = getattr(task, what, None)
    # Of numpy's arrays it is not known whether they are false.
    return given is None or (isinstance(given, Sized) and len(given) == 0)


_EXAMPLES = {
    "name": 'name = "photos"',
    "suffixes": 'suffixes = (".jpg", ".jpeg")',
    "input": 'input = Tensor((3, 64, 64), "float32")',
    "labels": 'labels = ("cat", "dog")',
}
