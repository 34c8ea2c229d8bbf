"""The whole path on loopback: all parts, brought up together and taken down together.

with Stack() as stack:
    stack.minio().fput_object(bucket_name="mnist", object_name="0.png", file_path="0.png")
    ...
    stack.results()
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import NoReturn, TypeVar

from minio import Minio

from mnist_pipeline.adapters.group_member import Subscription
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.local.broker import API_VERSION, Broker
from mnist_pipeline.local.gateway import Gateway
from mnist_pipeline.local.notifications import Notifications
from mnist_pipeline.local.processes import Part, Sandbox
from mnist_pipeline.local.servers import (
    ModelServer,
    start_predictor,
    start_stand_in,
    start_transformer,
    transformer_settings,
)
from mnist_pipeline.local.source import Source
from mnist_pipeline.local.stand_in import form_for
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.interpretation import Label, Prediction
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.task import Task

MODEL_NAME = "mnist"
SOURCE_BUCKET = "mnist"
REJECTED_BUCKET = "mnist-rejected"
DIGIT_BUCKETS = tuple(f"digit-{digit}" for digit in range(10))
NOTIFICATIONS_TOPIC = "mnist"
RESULTS_TOPIC = "mnist-predictions"

_PARTITIONS = 6
# The broker holds an empty fetch for its whole wait, so this is how late a record can be; the default is 500 ms.
_FETCH_WAIT_SECONDS = 0.02
# A group that a member has left lets the next one in only after this time.
_SESSION_TIMEOUT_SECONDS = 3.0

_AnyPart = TypeVar("_AnyPart", bound=Part)


class Stack(Part):
    """Gateway, broker, notifications, predictor, transformer and source.

    A `with` block starts it and takes it down, also after Ctrl-C, SIGTERM or a failure. The parts are its attributes,
    there from `start()` on: `sandbox`, `broker`, `notifications`, `gateway`, `predictor`, `transformer`, `source`.

    Args:
        workers: the transformer's `--workers`.
        predictor_protocol: `v1`, `v2` or `grpc-v2`; None: as the task says.
        settings: of the transformer, added to those that point it to the other parts.
        transformer_args: more arguments for it.
        ordered: the source delivers one record of a partition at a time; else up to `max_in_flight` at once.
        max_in_flight: requests of the source at once.
        on_ready: called with the name of each part as it is ready, in the order in which they are waited for.
        task: what the transformer is about; of another than the digits the predictor only guesses.
        program: the transformer's, a module or a script.
        predictor_host: of a predictor that is there already.

    Raises:
        ValueError: the task cannot work as it is, or not with a predictor that guesses.
    """

    sandbox: Sandbox
    broker: Broker
    notifications: Notifications
    gateway: Gateway
    predictor: ModelServer
    transformer: ModelServer
    source: Source

    def __init__(
        self,
        *,
        workers: int = 1,
        predictor_protocol: str | None = None,
        settings: Mapping[str, str] | None = None,
        transformer_args: Sequence[str] = (),
        ordered: bool = False,
        max_in_flight: int = 32,
        on_ready: Callable[[str], None] | None = None,
        task: Task | None = None,
        program: str = "mnist_pipeline",
        predictor_host: str | None = None,
    ) -> None:
        self.task = task or Digits()
        # Where the transformer will look for things, and file them.
        self.places = Settings.from_environ(settings or {}, self.task)
        self.notifications_topic = self.task.name
        self.results_topic = f"{self.task.name}-predictions"
        self.guesses = predictor_host is None and not isinstance(self.task, Digits)
        protocol = predictor_protocol or self.task.predictor_protocol
        if self.guesses and protocol == "grpc-v2":
            raise ValueError(f"what guesses speaks v1 and v2, not {protocol}: give --predictor_host")
        self.has_own_predictor = predictor_host is None
        self._form = form_for(self.task, protocol) if self.guesses else ""
        self._predictor_host = predictor_host
        self._program = program
        self._workers = workers
        self._predictor_protocol = protocol
        self._settings = dict(settings or {})
        self._transformer_args = transformer_args
        self._ordered = ordered
        self._max_in_flight = max_in_flight
        self._on_ready = on_ready or (lambda _name: None)
        self._exit = contextlib.ExitStack()

    @property
    def source_bucket(self) -> str:
        """Where to upload."""
        return self.places.source_buckets[0]

    @property
    def addresses(self) -> str:
        """Where the parts are, a line each."""
        gateway = self.gateway
        predictor = self._predictor_host
        if self.has_own_predictor:
            predictor = f"{self.predictor.url}   gRPC {self.predictor.grpc_address}"
        return f"""\
  MinIO        http://{gateway.endpoint}   access key {gateway.access_key}, secret key {gateway.secret_key}
  Kafka        {self.broker.bootstrap_servers}   (clients that probe versions: say 2.3)
  transformer  {self.transformer.url}   gRPC {self.transformer.grpc_address}
  predictor    {predictor}"""

    @property
    def environ(self) -> dict[str, str]:
        """The settings with which a client finds it, and whatever else is to work on the same store and Kafka."""
        return {
            **transformer_settings(self.gateway, self.broker),
            "KAFKA_TOPIC": self.results_topic,
            "REQUEST_TRACE_KEY": self.places.trace_key,
            "SOURCE_SUFFIXES": ",".join(self.places.source_suffixes),
        }

    @property
    def settings(self) -> Settings:
        """Those of its transformer, as whatever else works on the same site reads them."""
        return Settings.from_environ(
            {**self.environ, **self._settings},
            self.task,
            model_name=self.task.name,
            predictor_protocol=self._predictor_protocol,
        )

    def predictor_address(self, protocol: str) -> str:
        """`host:port` of the predictor, by which it is asked in this protocol."""
        if self._predictor_host is not None:
            return self._predictor_host
        return self.predictor.grpc_address if protocol == "grpc-v2" else f"127.0.0.1:{self.predictor.http_port}"

    def places_of(self, label: Label | None, score: float | None) -> tuple[str, ...]:
        """The beginnings of where an object may lie: one, unless its label is unknown."""
        one = () if label is None else (self.places.place_of(Prediction(label, score)),)
        return tuple(f"{place.bucket}/{place.prefix}" for place in one or self.places.destinations)

    def wait_ready(self) -> None:
        """Start, which a `with` block does."""
        self.start()

    def start(self) -> None:
        """Bring everything up; the programs start side by side.

        Raises:
            PartFailed: a part did not come up; what is up already stays so until `close()`.
        """
        self._exit.enter_context(_sigterm_exits())
        self.sandbox = self._owned(Sandbox())
        # The slowest to start come first, then what they need only once they are asked something.
        if self.has_own_predictor:
            self.predictor = self._owned(
                start_stand_in(self.sandbox, self.task, form=self._form)
                if self.guesses
                else start_predictor(self.sandbox, model_name=self.task.name)
            )
        self.broker = self._owned(Broker(dict.fromkeys((self.notifications_topic, self.results_topic), _PARTITIONS)))
        self.notifications = self._owned(Notifications(self.broker.bootstrap_servers, self.notifications_topic))
        self.gateway = self._owned(Gateway(self.sandbox, webhook_url=self.notifications.url))
        self.transformer = self.start_transformer(
            settings=self._settings,
            workers=self._workers,
            predictor_protocol=self._predictor_protocol,
            args=self._transformer_args,
        )
        self._on_ready("broker")
        self.gateway.wait_ready()
        written = (place.bucket for place in self.places.outputs)
        self.gateway.create_buckets(dict.fromkeys((*self.places.source_buckets, *written)))
        for bucket in self.places.source_buckets:
            self.gateway.notify(bucket)
        self._on_ready("gateway")
        if self.has_own_predictor:
            self.predictor.wait_ready()
            self._on_ready("predictor")
        self.transformer.wait_ready()
        self._on_ready("transformer")
        self.source = self._owned(
            Source(
                self.broker.kafka(self.notifications_topic),
                Subscription(
                    topics=(self.notifications_topic,),
                    group=self.task.name,
                    # Nothing that was uploaded before the source had joined may be missed.
                    initial_offset="earliest",
                    session_timeout_seconds=_SESSION_TIMEOUT_SECONDS,
                    fetch_wait_seconds=_FETCH_WAIT_SECONDS,
                ),
                self.transformer.predict_url,
                ordered=self._ordered,
                max_in_flight=self._max_in_flight,
            )
        )
        self.source.start()
        self._on_ready("source")

    def start_transformer(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        name: str = "transformer",
        workers: int = 1,
        predictor_protocol: str = "v1",
        args: Sequence[str] = (),
    ) -> ModelServer:
        """Start one more transformer for the same parts, under its own `name`; it ends with the stack, if not before.

        Raises:
            PartFailed: it cannot be started.
        """
        return self._owned(
            start_transformer(
                self.sandbox,
                predictor_host=self.predictor_address(predictor_protocol),
                env={**self.environ, **(settings or {})},
                name=name,
                program=self._program,
                model_name=self.task.name,
                workers=workers,
                predictor_protocol=predictor_protocol,
                args=args,
            )
        )

    def minio(self) -> Minio:
        """A client of the store with all rights."""
        return self.gateway.client()

    def results(self) -> list[Record]:
        """All records of the topic of results so far, by time."""
        return read_topic(self.broker.bootstrap_servers, self.results_topic, api_version=API_VERSION)

    def close(self) -> None:
        """Take everything down, what delivers first, and remove the temporary directory."""
        self._exit.close()

    def _owned(self, part: _AnyPart) -> _AnyPart:
        self._exit.callback(part.close)
        return part


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Let SIGTERM leave `with` blocks in order, as Ctrl-C does; not where the program has its own way with it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        # Once: a second SIGTERM must not cut the taking down short.
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
