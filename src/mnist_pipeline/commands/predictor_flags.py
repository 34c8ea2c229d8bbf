"""The flags that name the predictor, for the commands that ask it without KServe's server: KServe's own names."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mnist_pipeline.pipeline.task import PROTOCOLS, Task

if TYPE_CHECKING:
    from kserve.predictor_config import PredictorConfig


def add_to(parser: argparse.ArgumentParser, task: Task, *, why: str) -> None:
    """Add them, with the task's defaults; `why` says what the predictor is wanted for."""
    parser.add_argument("--model_name", default=task.name, help="of the predictor (default: %(default)s)")
    parser.add_argument("--predictor_host", metavar="HOST[:PORT]", help=why)
    parser.add_argument(
        "--predictor_protocol", default=task.predictor_protocol, choices=PROTOCOLS, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--predictor_use_ssl",
        nargs="?",
        const=True,
        default=False,
        type=lambda text: text.lower() in ("1", "true", "t", "yes", "y", "on"),
        metavar="BOOL",
        help="(default: false)",
    )


def config_of(args: argparse.Namespace) -> PredictorConfig:
    """KServe's description of that predictor."""
    # Not before here: KServe takes seconds to import.
    from kserve.predictor_config import PredictorConfig

    return PredictorConfig(
        predictor_host=args.predictor_host,
        predictor_protocol=args.predictor_protocol,
        predictor_use_ssl=args.predictor_use_ssl,
    )
