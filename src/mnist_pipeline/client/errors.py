"""What can go wrong for whoever sends an image and waits for its result.

    ClientError
    ├── KeyTaken             an object of this name lies in the bucket already
    ├── RequestFailed        an inline request got no answer, or one that says to come again
    │   └── RequestRefused   an answer that would be the same another time
    ├── ResultTimeout        no result in time; a TimeoutError too
    └── PredictionRejected   there is a result: it can never be classified

Where the store or Kafka is away the errors are `StoreUnavailable` and `KafkaUnavailable`, as in the transformer.
"""

from __future__ import annotations

from mnist_pipeline.pipeline.published import PredictionResult


class ClientError(Exception):
    """What only a client has to tell; where the store or Kafka is away, it raises `StoreUnavailable` or
    `KafkaUnavailable`, as the transformer does.
    """


class KeyTaken(ClientError):
    """An object of this name lies in the bucket already, and is not written over."""


class RequestFailed(ClientError):
    """An inline request was not taken, and may be another time.

    Attributes:
        status: of the answer; None where there was none.
        reason: one word, the answer's `kne-reason`; empty where it has none.
    """

    def __init__(self, says: str, *, status: int | None = None, reason: str = "") -> None:
        super().__init__(says)
        self.status = status
        self.reason = reason


class RequestRefused(RequestFailed):
    """An inline request was refused for good."""


class ResultTimeout(ClientError, TimeoutError):
    """No result has come in time."""


class PredictionRejected(ClientError):
    """What was sent can never be classified; `result` says why, in its `reason` and `message`."""

    def __init__(self, result: PredictionResult) -> None:
        super().__init__(f"{result.subject or 'the request'} was rejected: {result.reason}: {result.message}")
        self.result = result
