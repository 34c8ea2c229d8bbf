"""The commands, and the one place where settings, adapters, pipeline and model are put together."""

from __future__ import annotations

import argparse
import logging
import os
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_pipeline.predictor_flags import CA_BUNDLES
from mnist_pipeline.settings import Settings, SettingsError, unknown_settings

if TYPE_CHECKING:
    from mnist_pipeline.pipeline import Pipeline, Tensorizer
    from mnist_pipeline.transformer import MnistTransformer

log = logging.getLogger(__name__)

_USAGE = """usage: mnist-pipeline [serve] --model_name NAME --predictor_host HOST[:PORT] [KServe's flags]
       mnist-pipeline setup [--check] [--topic TOPIC] [--notification-arn ARN] ...
       mnist-pipeline source --sink URL [--topic TOPIC] [--unordered] ...
       mnist-pipeline reconcile --predictor_host HOST[:PORT] [--older-than 5m] [--dry-run] [--rate N]
       mnist-pipeline demo [--count N] [--images DIR] [--keep]

serve      the transformer, until SIGTERM (what is meant where no command is given)
setup      makes buckets, topics and the notification of a site, or checks them
source     delivers a topic's records over HTTP where there is no Knative
reconcile  finds the objects whose notification was lost, and sends them down the same path
demo       the whole path on this machine: uploads digits and shows where they go

mnist-pipeline COMMAND --help tells more; mnist-pipeline --version which one this is.
"""

# Each has a function `main(argv) -> exit code`; imported only when it is wanted.
_COMMANDS = {
    "demo": "mnist_pipeline.local.demo",
    "reconcile": "mnist_pipeline.reconcile_command",
    "setup": "mnist_pipeline.site.setup",
    "source": "mnist_pipeline.local.source_command",
}
_FALSE = ("n", "no", "f", "false", "off", "0")  # as KServe reads them
_METRICS_DIRECTORY = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
# What is told of the program itself.
_ABOUT: Mapping[str, Callable[[], str]] = {
    "-h": lambda: _USAGE,
    "--help": lambda: _USAGE,
    "--version": lambda: f"mnist-pipeline {version('mnist-pipeline')}\n",
}
# These take the parts of another transformer.
_WITH_PARTS = {"reconcile", "setup"}
# These, and `serve`, are told by the environment what to do; the demo makes its own.
_WITH_SETTINGS = {"reconcile", "setup", "source"}


def main(
    argv: Sequence[str] | None = None,
    *,
    transformer: Callable[..., MnistTransformer] | None = None,
    tensorize: Tensorizer | None = None,
    settings: type[Settings] = Settings,
) -> int:
    """Run the command that `argv` (else the process's arguments) names, and give its exit code.

    The parts of another transformer (see `serve`) are used by all commands that need them: `serve`, `setup` and
    `reconcile`.
    """
    parts = {"transformer": transformer, "tensorize": tensorize, "settings": settings}
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    if command in _COMMANDS:
        if command in _WITH_SETTINGS:
            _tell_unknown_settings(arguments)
        return _run(_COMMANDS[command], arguments, parts if command in _WITH_PARTS else {})
    if command == "serve" or (command is None and arguments and arguments[0] not in _ABOUT):
        return serve(arguments, transformer=transformer, tensorize=tensorize, settings=settings)
    if command is None and arguments:
        print(_ABOUT[arguments[0]](), end="")
        return 0
    if command is not None:
        meant = get_close_matches(command, ("serve", *_COMMANDS), 1)
        print(f"{command!a:.80} is no command" + (f": is {meant[0]} meant?" if meant else ""), file=sys.stderr)
    print(_USAGE, end="", file=sys.stderr)
    return 2


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
    _tell_unknown_settings(arguments)
    try:
        read = _settings_of(settings, arguments, os.environ)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    # Not before here: wrong settings are told at once, and these imports take seconds.
    try:
        from mnist_pipeline import server
        from mnist_pipeline.transformer import MnistTransformer
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
    from mnist_pipeline.kafka_publisher import KafkaPublisher
    from mnist_pipeline.minio_store import MinioObjectStore
    from mnist_pipeline.pipeline import Pipeline

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


def _tell_unknown_settings(arguments: Sequence[str]) -> None:
    if not {"-h", "--help"} & set(arguments):
        for sentence in unknown_settings(os.environ):
            print(sentence, file=sys.stderr)


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
        problems += _problems_of_libraries(known, environ)
    try:
        settings = kind.from_environ(
            {} if help_wanted else environ, model_name=known.model_name, predictor_protocol=known.predictor_protocol
        )
    except SettingsError as exc:
        problems += exc.problems
    if problems:
        raise SettingsError(problems)
    return settings


def _problems_of_libraries(flags: argparse.Namespace, environ: Mapping[str, str]) -> Iterator[str]:
    """What libraries read from the environment by themselves, and would fail for in every request or with a stack."""
    for name in _METRICS_DIRECTORY:
        if name in environ and not (Path(environ[name]).is_dir() and os.access(environ[name], os.W_OK)):
            yield f"{name} names {environ[name]!r}, which is no directory that can be written to"
    bundle = next((name for name in CA_BUNDLES if environ.get(name)), None)
    if bundle and flags.predictor_use_ssl.lower() not in _FALSE:
        try:
            ssl.create_default_context(cafile=environ[bundle])
        except OSError as exc:
            yield f"{bundle} names {environ[bundle]!r}, which is no readable PEM certificate: {exc.strerror}"
    if flags.ssl_certfile or flags.ssl_keyfile:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(flags.ssl_certfile or "", flags.ssl_keyfile)
        except OSError as exc:
            given = f"{flags.ssl_certfile!r} and {flags.ssl_keyfile!r}"
            yield f"--ssl_certfile and --ssl_keyfile name {given}, no readable certificate and its key: {exc.strerror}"


def _run(module: str, arguments: Sequence[str], parts: Mapping[str, Any]) -> int:
    try:
        command = import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is not None and exc.name.startswith("mnist_pipeline"):
            raise
        print(f"{exc.name} is not installed: pip install 'mnist-pipeline[local]'", file=sys.stderr)
        return 2
    code: int = command.main(arguments, **parts)
    return code
