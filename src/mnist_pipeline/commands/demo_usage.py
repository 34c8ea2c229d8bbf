"""How to use the demo's stack while it stays up."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from mnist_pipeline.local.stack import RESULTS_TOPIC, Stack

DIGITS = files("mnist_pipeline.local").joinpath("digits")
"""The packaged pictures and the example's request."""


def how_to_use_digits(stack: Stack, cloudevent: Mapping[str, str]) -> str:
    """Where the parts of the digits' stack are, and lines to be pasted."""
    gateway, sandbox = stack.gateway, stack.sandbox.directory
    flags = " \\\n".join(f'  -H "{name}: {value}"' for name, value in cloudevent.items())
    digits, bin_folder = Path(str(DIGITS)), Path(sys.executable).parent
    return f"""
The stack stays up until Ctrl-C. Logs: {sandbox}

{stack.addresses}

Upload a digit, and see where it went:

mc alias set myminio http://{gateway.endpoint} {gateway.access_key} {gateway.secret_key}
mc cp {digits}/7-0000.png myminio/{stack.source_bucket}/0.png
mc ls myminio/digit-7

Ask inline, as plain HTTP and as an event:

curl -v -H "Content-Type: application/json" \\
  -d @{digits}/image-with-trace-id.json \\
  {stack.transformer.predict_url}

curl -v {stack.transformer.predict_url} \\
  -X POST \\
{flags} \\
  -d @{digits}/image-with-trace-id.json

Read the results:

{bin_folder}/kafka-python consumer -b {stack.broker.bootstrap_servers} -C api_version=2.3 \\
  -C auto_offset_reset=earliest -t {RESULTS_TOPIC}
"""


def how_to_use(stack: Stack, name: str) -> str:
    """The same where the task or the predictor is another: `name` is the file of one of the objects."""
    gateway, file = stack.gateway, shlex.quote(name)
    return f"""
The stack stays up until Ctrl-C. Logs: {stack.sandbox.directory}

{stack.addresses}

In the folder of your objects, upload one, and see where it went:

mc alias set myminio http://{gateway.endpoint} {gateway.access_key} {gateway.secret_key}
mc cp {file} myminio/{stack.source_bucket}/
mc ls --recursive myminio

Ask inline:

printf '{{"instances": [{{"data": "%s"}}]}}' "$(base64 < {file} | tr -d '\\n')" |
  curl -H "Content-Type: application/json" -d @- {stack.transformer.predict_url}

Read the results:

{Path(sys.executable).parent}/kafka-python consumer -b {stack.broker.bootstrap_servers} -C api_version=2.3 \\
  -C auto_offset_reset=earliest -t {stack.results_topic}
"""
