"""`mnist-pipeline web`: the live page of a site, for browsers."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from mnist_pipeline.adapters.sockets import PortTaken, listen
from mnist_pipeline.commands import arguments, predictor_flags, usage
from mnist_pipeline.pipeline.settings import Settings, SettingsError
from mnist_pipeline.pipeline.task import Task

_PORT = 8090

_DESCRIPTION = """\
Show a site live in a browser: each object's way from the upload to its result, the shelves where objects lie, and what
the network saw of them. It reads both topics without a consumer group, and the objects; it changes nothing, unless
--allow-upload lets browsers upload.

The settings are those of the transformer, from the environment (`serve --help` has them all). There is no login: who
reaches the port sees the site's objects. By default it listens on this machine alone.
"""

_EXAMPLES = """\
  mnist-pipeline web                                           # http://127.0.0.1:8090/, read-only
  mnist-pipeline web --predictor_host mnist-predictor          # and the scores of all labels
  mnist-pipeline web --allow-upload                            # and a place to draw, and to drop pictures
  mnist-pipeline web --host 0.0.0.0 --allowed-host live.example.org    # behind a proxy of that name
"""

_CODES = """\
  0  ended by SIGTERM or Ctrl-C
  2  settings that cannot work, or a port that is taken
"""


def parser(task: Task) -> argparse.ArgumentParser:
    """The flags."""
    parser = usage.command_parser("web", description=_DESCRIPTION, examples=_EXAMPLES, codes=_CODES)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", default=_PORT, type=arguments.natural, metavar="PORT", help="0: any (default: %(default)s)"
    )
    parser.add_argument(
        "--topic", default=task.name, type=arguments.topic, help="the notifications' topic (default: %(default)s)"
    )
    parser.add_argument("--allow-upload", action="store_true", help="let browsers upload into the source bucket")
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which browsers reach it, beside addresses, localhost and --host; may be repeated",
    )
    predictor_flags.add_to(parser, task, why="where the predictor is, to be asked for the scores of all labels")
    return parser


def main(argv: Sequence[str], *, task: Task) -> int:
    """Serve the page; exit code 0 or 2."""
    options = parser(task).parse_args(argv)
    try:
        settings = Settings.from_environ(
            os.environ, task, model_name=options.model_name, predictor_protocol=options.predictor_protocol
        )
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    # Not before here: wrong settings are told at once, and these imports take a second.
    from mnist_pipeline.telemetry import logs
    from mnist_pipeline.web import server

    if problems := server.problems_of(settings):
        print(*problems, sep="\n", file=sys.stderr)
        return 2
    logs.configure(settings.log_format)
    # Of a failed connection kafka-python logs much; the page says it in one line.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    site = server.Site(
        settings=settings,
        topic=options.topic,
        model_name=options.model_name,
        predictor=predictor_flags.config_of(options) if options.predictor_host else None,
        may_upload=options.allow_upload,
        hosts=(options.host, *options.allowed_host),
    )
    try:
        listener = listen(options.host, options.port)
    except PortTaken as exc:
        print(exc, file=sys.stderr)
        return 2
    server.serve(site, listener, on_ready=lambda: print(server.url_of(listener), flush=True))
    return 0
