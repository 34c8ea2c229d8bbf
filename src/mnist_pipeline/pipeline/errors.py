"""What can go wrong, drawn as one tree: permanent or retryable, each with its HTTP status.

    PipelineError
    ├── Permanent               4xx: sending it again changes nothing
    │   ├── MalformedBody       400  not JSON, or JSON that is no object
    │   ├── BadEvent            422  neither an event nor an inference request that we know
    │   ├── BodyMissing         400  less came than was announced
    │   ├── LengthRequired      411
    │   ├── BodyTooLarge        413
    │   ├── NotAllowed          422  bucket or suffix that is not ours to touch
    │   ├── BadKey              422  a key that no store can hold
    │   ├── BadTraceId          422
    │   ├── Reject              422  what a task can never classify, for a reason of its own
    │   │   └── BadImage
    │   ├── ObjectTooLarge      422
    │   ├── BadTensor           422  the predictor refused a tensor that came inline
    │   └── ResultTooLarge      422  Kafka refused the result of an inline request for its size
    ├── Retryable               503, 504 or 429: the source stays, sending it again may succeed
    │   ├── Busy                429  no slot within a quarter of the deadline
    │   ├── NotReady            503
    │   ├── DeadlineExceeded    504
    │   ├── StoreUnavailable    503
    │   │   └── MetadataTooLarge
    │   ├── KafkaUnavailable    503
    │   │   └── MessageTooLarge
    │   └── PredictorUnavailable 503
    │       └── TensorRefused
    ├── ObjectGone              nothing to do: the object left before its event came
    └── ObjectRetained          nothing more to do: the store does not let the source go

Knative's dispatcher retries 404, 408, 409, 429 and every 5xx, and takes any other 4xx for final; so those are the
statuses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

# What may stand in a header, in metadata and in the label of a counter.
_NOT_OF_REASONS = re.compile("[^a-z0-9]")


class PipelineError(Exception):
    """What is foreseen to fail on the way of an event; its text may be shown to a caller and holds no secret.

    `reason` is one word of lower-case letters: the value of the `kne-reason` header, of a rejected object's metadata
    and of a counter's label.
    """

    status: int = 500
    reason: str = "error"


class Permanent(PipelineError):
    """Sending the same request again would fail the same way."""

    status = 422
    reason = "permanent"


class MalformedBody(Permanent):
    """The request's body is not JSON, or not a JSON object."""

    status = 400
    reason = "malformedbody"


class BadEvent(Permanent):
    """The request is neither an event nor an inference request that we know."""

    reason = "badevent"


class BodyMissing(Permanent):
    """Less of the request's body came than its Content-Length announced."""

    status = 400
    reason = "bodymissing"


class LengthRequired(Permanent):
    """The request does not say whether it has a body."""

    status = 411
    reason = "lengthrequired"


class BodyTooLarge(Permanent):
    """The request's body is larger than `MAX_BODY_BYTES`."""

    status = 413
    reason = "bodytoolarge"


class NotAllowed(Permanent):
    """The event names a bucket or a suffix that is not in `SOURCE_BUCKETS` or `SOURCE_SUFFIXES`."""

    reason = "notallowed"


class BadKey(Permanent):
    """The object key can name no object: control characters, `..`, too long, or refused by the store."""

    reason = "badkey"


class BadTraceId(Permanent):
    """The trace id is not a string or an integer of at most 256 characters without control characters."""

    reason = "badtraceid"


class Reject(Permanent):
    """The bytes of an object, or of an inline image, can never be classified; a task raises it.

    Args:
        reason: one word of lower-case letters and digits, at most 20; what else is in it is left out.
        says: a sentence for whoever has sent it.
    """

    def __init__(self, reason: str, says: str) -> None:
        super().__init__(says)
        self.reason = _NOT_OF_REASONS.sub("", reason.lower())[:20] or "rejected"


class BadImage(Reject):
    """The bytes are no PNG or JPEG that can be decoded, or it has too many pixels."""

    def __init__(self, says: str) -> None:
        super().__init__("badimage", says)


class ObjectTooLarge(Permanent):
    """The object is larger than `MAX_OBJECT_BYTES`."""

    reason = "objecttoolarge"


class BadTensor(Permanent):
    """An inline tensor that the predictor refuses, or whose shape it cannot have."""

    reason = "badtensor"


class ResultTooLarge(Permanent):
    """The result of an inline request is larger than Kafka takes."""

    reason = "resulttoolarge"


class Retryable(PipelineError):
    """The same request may succeed later; nothing that was not acknowledged has been removed."""

    status = 503
    reason = "retryable"


class Busy(Retryable):
    """More than `MAX_IN_FLIGHT` requests are in hand."""

    status = 429
    reason = "busy"


class NotReady(Retryable):
    """The store, Kafka or the predictor has not answered once yet."""

    reason = "notready"


class DeadlineExceeded(Retryable):
    """`EVENT_TIMEOUT_SECONDS` have passed. In a client it is the call's `timeout`."""

    status = 504
    reason = "deadline"


class StoreUnavailable(Retryable):
    """The object store is away, slow, confused, or refuses our credentials."""

    reason = "store"


class MetadataTooLarge(StoreUnavailable):
    """The object store takes no object with so much metadata, or so many tags; with less it does."""


class KafkaUnavailable(Retryable):
    """Kafka is away, slow, or refuses our credentials or the topic."""

    reason = "kafka"


class MessageTooLarge(KafkaUnavailable):
    """Kafka, or its client, refuses the message for its size."""


class PredictorUnavailable(Retryable):
    """The predictor is away, slow, confused, or refuses a tensor that we made."""

    reason = "predictor"


class TensorRefused(PredictorUnavailable):
    """The predictor answers 400 or 422 to a tensor. One that we made shows a wrong setting, one that came
    inline is bad.
    """


class UnknownPath(PipelineError):
    """Nothing is at this path: another model, a version, a verb. Knative tries a 404 again, so that a source with a
    wrong URL does not pour its whole topic into the dead letters.
    """

    status = 404
    reason = "unknownpath"


class MethodNotAllowed(PipelineError):
    """The path takes another HTTP method."""

    status = 405
    reason = "methodnotallowed"


class ObjectGone(PipelineError):
    """The object or the version that an event names does not exist any more."""

    status = 200
    reason = "gone"


class ObjectRetained(PipelineError):
    """The store refuses to remove the object, and would refuse it again: a retention, a legal hold, or a policy that
    forbids it.
    """

    status = 200
    reason = "retained"


_Error = TypeVar("_Error", bound=PipelineError)


def without_frames(error: _Error) -> _Error:
    """The error alone, to be kept: tracebacks, its own and its cause's, hold every frame they passed, and those hold
    images as bytes and as pixels.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def raise_where_nothing_is_known(outcomes: Sequence[object]) -> None:
    """Raise the first of these outcomes, where each of them is an error after which the same may succeed."""
    first = next(iter(outcomes), None)
    if isinstance(first, Retryable) and all(isinstance(outcome, Retryable) for outcome in outcomes):
        raise first
