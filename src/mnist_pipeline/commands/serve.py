"""`mnist-pipeline serve`: the transformer on KServe's server, until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mnist_pipeline.commands.environment import problems_of_libraries, tell_unknown_settings
from mnist_pipeline.pipeline.settings import Settings, SettingsError

if TYPE_CHECKING:
    from mnist_pipeline.pipeline.path import Pipeline, Tensorizer
    from mnist_pipeline.serving.transformer import MnistTransformer

log = logging.getLogger(__name__)


def serve(
    argv: Sequence[str] | None = None,
    *,
    transformer: Callable[..., MnistTransformer] | None = None,
    tensorize: Tensorizer | None = None,
    settings: type[Settings] = Settings,
) -> int:
    """Serve a transformer with KServe's flags and the settings of the environment; exit code 2 if they cannot work.

    `transformer` is a subclass of MnistTransformer; `tensorize` makes an encoded image a float32 array `(28, 28)`;
    `settings` is a subclass of Settings, whose `destination_of` may send a digit elsewhere. All must be importable by
    name, because KServe's `--workers` pickles them.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    tell_unknown_settings(arguments)
    try:
        read = _settings_of(settings, arguments, os.environ)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    # Not before here: wrong settings are told at once, and these imports take seconds.
    try:
        from mnist_pipeline.serving import server
        from mnist_pipeline.serving.transformer import MnistTransformer
    except (ValueError, OSError) as exc:
        # OTEL_PROPAGATORS, SSLKEYLOGFILE and more are read while libraries are imported.
        print(f"a library cannot use what the environment tells it: {exc}", file=sys.stderr)
        return 2

    args = server.argument_parser("mnist-pipeline serve").parse_args(arguments)
    pipeline = pipeline_of(read, tensorize=tensorize)
    model = (transformer or MnistTransformer)(args.model_name, pipeline, server.predictor_of(args))
    try:
        server.serve(model, args)
    except server.PortTaken as exc:
        print(exc, file=sys.stderr)
        return 2
    return 0


def pipeline_of(settings: Settings, *, tensorize: Tensorizer | None = None) -> Pipeline:
    """The pipeline on the real adapters; what is not configured is left out, and said once."""
    from mnist_pipeline.adapters.kafka_publisher import KafkaPublisher
    from mnist_pipeline.adapters.object_store import MinioObjectStore
    from mnist_pipeline.pipeline.path import Pipeline

    store = publisher = None
    if settings.minio is None:
        log.warning("MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set: only inline requests are handled")
    else:
        store = MinioObjectStore(settings.minio, connections=settings.max_in_flight)
    if settings.kafka is None:
        log.warning("KAFKA_BOOTSTRAP_SERVERS is not set: results are not published")
    else:
        publisher = KafkaPublisher(settings.kafka)
    return Pipeline(settings, store, publisher, tensorize=tensorize)


def _settings_of(kind: type[Settings], arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings that go with these flags; only the flags that they depend on are looked at here."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--model_name", default="mnist")
    flags.add_argument("--predictor_host")
    flags.add_argument("--predictor_protocol", "--protocol", default="v1")
    flags.add_argument("--predictor_use_ssl", default="false")
    flags.add_argument("--ssl_certfile", default=environ.get("KSERVE_TLS_CERT_FILE"))
    flags.add_argument("--ssl_keyfile", default=environ.get("KSERVE_TLS_KEY_FILE"))
    known, _ = flags.parse_known_args(arguments)
    help_wanted = "-h" in arguments or "--help" in arguments
    problems: list[str] = []
    if not known.predictor_host and not help_wanted:
        problems.append("--predictor_host is missing: the predictor's HOST[:PORT]")
    if not help_wanted:
        problems += problems_of_libraries(known, environ)
    try:
        settings = kind.from_environ(
            {} if help_wanted else environ, model_name=known.model_name, predictor_protocol=known.predictor_protocol
        )
    except SettingsError as exc:
        problems += exc.problems
    if problems:
        raise SettingsError(problems)
    return settings
