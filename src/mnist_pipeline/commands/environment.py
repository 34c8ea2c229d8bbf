"""What the environment tells beside our settings: names that are nearly settings, and what libraries read."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mnist_pipeline.pipeline.settings import CA_BUNDLES
from mnist_pipeline.pipeline.task import Task
from mnist_pipeline.pipeline.unknown_settings import unknown_settings

_FALSE = ("n", "no", "f", "false", "off", "0")  # as KServe reads them
_METRICS_DIRECTORY = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


def tell_unknown_settings(arguments: Sequence[str], task: Task) -> None:
    """Print a line for each variable that looks like a setting and is none, unless help is asked for."""
    if not {"-h", "--help"} & set(arguments):
        for sentence in unknown_settings(os.environ, task):
            print(sentence, file=sys.stderr)


def problems_of_metrics(environ: Mapping[str, str]) -> Iterator[str]:
    """What prometheus-client reads by itself, and would fail for with a stack."""
    for name in _METRICS_DIRECTORY:
        if name in environ and not (Path(environ[name]).is_dir() and os.access(environ[name], os.W_OK)):
            yield f"{name} names {environ[name]!r}, which is no directory that can be written to"


def problems_of_libraries(flags: argparse.Namespace, environ: Mapping[str, str]) -> Iterator[str]:
    """What libraries read from the environment by themselves, and would fail for in every request or with a stack."""
    yield from problems_of_metrics(environ)
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
