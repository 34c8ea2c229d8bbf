"""KServe's server around a model of ours: its flags, and what has to be mended in each of its processes.

What KServe 0.21 lacks, each mended here by name:

- workers are killed while they still import, because they answer no ping before: `_patient_ping`;
- spawned workers have neither the predictor's configuration nor our middleware: `set_up_process`;
- two trace lines and one access line a request cost a third of its own time: off unless asked for by its flags;
- every probe of a model that is not ready, and every wrong URL, gets a stack in the log: `_WithoutStacks`;
- an upgrade that a client offers loses the request's body: `NoUpgradeProtocol`;
- gRPC input that is not well formed is an INTERNAL with a stack: `PipelineServicer`;
- a port that is taken ends it with a stack, or not at all: `sockets.listen`;
- it listens on all addresses: `listening.ModelServer`;
- of several workers its `/metrics` tells the numbers of one: `metrics.registry`;
- one worker runs plain asyncio, whatever `--event_loop` says: `use_uvloop`.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any, Literal, Protocol

import kserve
from kserve import context as kserve_context
from kserve import model_server
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from kserve.predictor_config import PredictorConfig
from kserve.protocol.grpc import server as grpc_server
from kserve.protocol.rest import server as rest_server
from kserve.protocol.rest.multiprocess.server import RESTServerProcess
from uvicorn.config import HTTP_PROTOCOLS

from mnist_pipeline.adapters.event_loop import calm_garbage_collector, use_uvloop
from mnist_pipeline.adapters.sockets import listen
from mnist_pipeline.pipeline.task import Task
from mnist_pipeline.serving.grpc_servicer import PipelineServicer
from mnist_pipeline.serving.http_protocol import NoUpgradeProtocol
from mnist_pipeline.serving.listening import ModelServer
from mnist_pipeline.serving.middleware import InferenceModel, PipelineMiddleware
from mnist_pipeline.telemetry import logs, metrics

# A worker that has not answered by then will not: imports take a second or two, on a busy machine many times that.
_FIRST_PONG_SECONDS = 300.0

# What KServe raises where a caller asks for what is not there.
_REFUSALS = (InvalidInput, ModelNotFound, ModelNotReady, NotImplementedError)


class ServedModel(InferenceModel, Protocol):
    """What `set_up_process` asks of a model."""

    predictor: PredictorConfig
    quiet: bool

    @property
    def log_format(self) -> Literal["console", "json"]:
        """The form of the log."""


def argument_parser(
    task: Task, make: Callable[..., argparse.ArgumentParser] = argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """Every flag of KServe's server, with the defaults that suit a transformer of this task."""
    parser = make(parents=[model_server.parser], conflict_handler="resolve")
    parser.add_argument("--host", help="The address on which HTTP and gRPC listen, such as 127.0.0.1. By default all.")
    parser.set_defaults(model_name=task.name, predictor_protocol=task.predictor_protocol, enable_latency_logging=False)
    return parser


def predictor_of(args: argparse.Namespace) -> PredictorConfig:
    """KServe's description of the predictor, from its flags."""
    return PredictorConfig(
        predictor_host=args.predictor_host,
        predictor_protocol=args.predictor_protocol,
        predictor_use_ssl=args.predictor_use_ssl,
        predictor_request_timeout_seconds=args.predictor_request_timeout_seconds,
        predictor_request_retries=args.predictor_request_retries,
        predictor_health_check=args.enable_predictor_health_check,
    )


def serve(model: kserve.Model, args: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT; what is in flight is answered first.

    Raises:
        PortTaken: one of its ports cannot be listened on.
    """
    RESTServerProcess.ping = _patient_ping
    grpc_server.InferenceServicer = PipelineServicer
    model.quiet = not args.enable_latency_logging
    set_up_process(model)
    server = ModelServer(
        host=args.host,
        http_port=args.http_port,
        grpc_port=args.grpc_port,
        # KServe's controller passes `--workers 0` for containerConcurrency 0, which means no limit.
        workers=max(1, args.workers),
        max_threads=args.max_threads,
        max_asyncio_workers=args.max_asyncio_workers,
        enable_grpc=args.enable_grpc,
        enable_docs_url=args.enable_docs_url,
        enable_latency_logging=args.enable_latency_logging,
        access_log_format=args.access_log_format,
        event_loop=args.event_loop,
        timeout_keep_alive=args.timeout_keep_alive,
        predictor_config=_for_kserve(model.predictor),
        ssl_certfile=args.ssl_certfile,
        ssl_keyfile=args.ssl_keyfile,
    )
    for port in (server.http_port, server.grpc_port) if server.enable_grpc else (server.http_port,):
        # uvicorn and gRPC would say it in a stack, and two gRPC servers would share it.
        listen(args.host, port).close()
    if args.workers <= 1 and args.event_loop in ("auto", "uvloop"):
        use_uvloop()
    server.start([model])


def set_up_process(model: ServedModel) -> None:
    """Prepare this process, the only one or a spawned worker, to serve `model`; called before its server starts."""
    calm_garbage_collector()
    logs.configure(model.log_format)
    # While brokers are away kafka-python logs several lines a second; KafkaPublisher says the same in one.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger("kserve").addFilter(_WithoutStacks())
    # KServe's own use of FastAPI, and nothing that whoever reads the log could mend.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    if model.quiet:
        # `disabled` survives the configuration that KServe's workers load after this.
        for name in ("kserve.trace", "uvicorn.access"):
            logging.getLogger(name).disabled = True
    kserve_context.set_predictor_config(_for_kserve(model.predictor))
    rest_server.REGISTRY = metrics.registry()
    # In front of all that KServe and Starlette have: theirs would take a quarter of what reading a request costs.
    others = model_server.app.build_middleware_stack
    model_server.app.build_middleware_stack = lambda: PipelineMiddleware(others(), model=model)
    HTTP_PROTOCOLS["auto"] = f"{NoUpgradeProtocol.__module__}:{NoUpgradeProtocol.__name__}"


class _WithoutStacks(logging.Filter):
    """Leaves out what only says that a caller was refused, with a stack: a model that is not ready (the one line of
    `health` says why, and is not to drown), and what is not there. The caller is told.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], _REFUSALS))


def _for_kserve(predictor: PredictorConfig) -> PredictorConfig:
    """The same without the health check: where it is on, KServe asks the predictor and nobody else.

    The model asks instead: the store, Kafka and the predictor.
    """
    return PredictorConfig(
        predictor_host=predictor.predictor_host,
        predictor_protocol=predictor.protocol,
        predictor_use_ssl=predictor.use_ssl,
        predictor_request_timeout_seconds=predictor.timeout,
        predictor_request_retries=predictor.retries,
    )


# When each worker that has not answered yet was asked first, and those that have answered.
_asked: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
_answered: weakref.WeakSet[Any] = weakref.WeakSet()
_ping: Callable[[Any, float], bool] = RESTServerProcess.ping


def _patient_ping(process: Any, timeout: float = 5) -> bool:
    """KServe's ping, but its clock starts with the worker's first answer: until then it is importing, not hung.

    A worker that imports is asked once and not waited for: the parent serves gRPC meanwhile.
    """
    if process in _answered:
        return _ping(process, timeout)
    connection = process._parent_conn  # noqa: SLF001 - KServe has no other way to it
    if process not in _asked:
        _asked[process] = time.monotonic()
        connection.send(b"ping")
    if connection.poll(0):
        connection.recv()
        _answered.add(process)
        return True
    return time.monotonic() - _asked[process] < _FIRST_PONG_SECONDS
