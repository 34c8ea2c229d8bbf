"""`mnist-pipeline serve`: the transformer on KServe's server, until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mnist_pipeline.adapters.sockets import PortTaken
from mnist_pipeline.commands import usage
from mnist_pipeline.commands.environment import problems_of_libraries
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.setting_table import told
from mnist_pipeline.pipeline.settings import Settings, SettingsError
from mnist_pipeline.pipeline.task import Task
from mnist_pipeline.telemetry.multiprocess import counted_together

if TYPE_CHECKING:
    from mnist_pipeline.pipeline.path import Pipeline
    from mnist_pipeline.serving.transformer import ObjectTransformer

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Serve the transformer until SIGTERM, with any flag of KServe's server. Its settings come from the environment.
"""

_EXAMPLES = """\
  mnist-pipeline serve --model_name mnist --predictor_host mnist-predictor.kserve-test
  python -m mnist_pipeline --model_name mnist --predictor_host localhost:8081     # the same, as manifests start it
  mnist-pipeline serve --model_name mnist --predictor_host mnist-predictor --predictor_protocol grpc-v2 --workers 4
"""

_CODES = """\
  0  ended by SIGTERM or Ctrl-C, with what was in hand answered
  2  settings that cannot work, or a port that is taken
"""


def main(argv: Sequence[str], *, task: Task, model: type[ObjectTransformer] | None = None) -> int:
    """Serve a task with KServe's flags and the settings of the environment; exit code 2 if they cannot work.

    `task` and `model` must be importable by name, because KServe's `--workers` pickles them.
    """
    try:
        settings = _settings_of(task, argv, os.environ)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    with counted_together(_workers(argv)):
        return _serve(settings, argv, task, model)


def _serve(settings: Settings, argv: Sequence[str], task: Task, model: type[ObjectTransformer] | None) -> int:
    # Not before here: wrong settings are told at once, and these imports take seconds.
    try:
        from mnist_pipeline.serving import server
        from mnist_pipeline.serving.transformer import MnistTransformer, ObjectTransformer
    except (ValueError, OSError) as exc:
        # OTEL_PROPAGATORS, SSLKEYLOGFILE and more are read while libraries are imported.
        print(f"a library cannot use what the environment tells it: {exc}", file=sys.stderr)
        return 2

    args = parser(task).parse_args(argv)
    kind = model or (MnistTransformer if isinstance(task, Digits) else ObjectTransformer)
    try:
        pipeline = pipeline_of(settings, args.model_name)
        server.serve(kind(args.model_name, pipeline, server.predictor_of(args)), args)
    except (SettingsError, PortTaken) as exc:
        print(exc, file=sys.stderr)
        return 2
    if args.workers > 1 and pipeline.tracer is not None:
        # A worker does it when it closes its clients; this process has answered gRPC.
        pipeline.tracer.flush()
    return 0


def parser(task: Task) -> argparse.ArgumentParser:
    """The flags: KServe's own, with the defaults that suit a transformer. It takes seconds to import them."""
    from mnist_pipeline.serving import server

    codes = f"{_CODES}\nsettings, from the environment:\n\n{told()}"
    make = partial(usage.command_parser, "serve", description=_DESCRIPTION, examples=_EXAMPLES, codes=codes)
    return server.argument_parser(task, make)


def pipeline_of(settings: Settings, model_name: str) -> Pipeline:
    """The pipeline on the real adapters; what is not configured is left out, and said once."""
    from mnist_pipeline.adapters.kafka import publisher_of
    from mnist_pipeline.adapters.object_store import MinioObjectStore
    from mnist_pipeline.pipeline.path import Pipeline
    from mnist_pipeline.telemetry.metrics import Metrics
    from mnist_pipeline.telemetry.traces import tracer_of

    store = publisher = None
    if settings.minio is None:
        log.warning("MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set: only inline requests are handled")
    else:
        store = MinioObjectStore(settings.minio, connections=settings.max_in_flight)
    if settings.kafka is None:
        log.warning("KAFKA_BOOTSTRAP_SERVERS is not set: results are not published")
    else:
        publisher = publisher_of(settings.kafka)
    tracer = tracer_of(
        service=settings.inference_service_name or model_name,
        topic=None if settings.kafka is None else settings.kafka.topic,
    )
    return Pipeline(settings, store, publisher, observer=Metrics(model_name), tracer=tracer)


def _workers(arguments: Sequence[str]) -> int:
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    flags.add_argument("--workers", type=int, default=1)
    try:
        return int(flags.parse_known_args(arguments)[0].workers)
    except argparse.ArgumentError:  # which is told with all of the flags
        return 1


def _settings_of(task: Task, arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings that go with these flags; only the flags that they depend on are looked at here."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--model_name", default=task.name)
    flags.add_argument("--predictor_host")
    flags.add_argument("--predictor_protocol", "--protocol", default=task.predictor_protocol)
    flags.add_argument("--predictor_use_ssl", default="false")
    flags.add_argument("--ssl_certfile", default=environ.get("KSERVE_TLS_CERT_FILE"))
    flags.add_argument("--ssl_keyfile", default=environ.get("KSERVE_TLS_KEY_FILE"))
    known, _ = flags.parse_known_args(arguments)
    help_wanted = "-h" in arguments or "--help" in arguments
    problems: list[str] = []
    if not known.predictor_host and not help_wanted:
        problems.append("--predictor_host is missing: the predictor's HOST[:PORT]")
    if not known.model_name:
        problems.append("--model_name is empty")
    if not help_wanted:
        problems += problems_of_libraries(known, environ)
    try:
        settings = Settings.from_environ(
            {} if help_wanted else environ,
            task,
            model_name=known.model_name,
            predictor_protocol=known.predictor_protocol,
        )
    except SettingsError as exc:
        problems += exc.problems
    if problems:
        raise SettingsError(problems)
    return settings
