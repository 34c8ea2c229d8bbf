"""How to use the demo's stack while it stays up."""

from __future__ import annotations

import shlex
from datetime import timedelta

from mnist_pipeline.commands.demo_objects import DIGITS, Upload
from mnist_pipeline.commands.usage import PROGRAM
from mnist_pipeline.local.stack import Stack
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.published import PredictionResult

CLOUDEVENT = {
    "Ce-Id": "1",
    "Ce-Specversion": "1.0",
    "Ce-Type": "prediction-request-udf-attr",
    "Ce-Source": "event-producer",
    "Content-Type": "application/json",
}
"""What a user of the Kafka-sink transformer sends with the request."""


def how_to_use(stack: Stack, first: Upload, result: PredictionResult | None) -> str:
    """Where the parts of the stack are, and lines to be pasted; `first` is an object that was uploaded."""
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in stack.environ.items())
    file, url, call = shlex.quote(str(first.file)), stack.transformer.predict_url, PROGRAM.get()
    flags = " \\\n".join(f'  -H "{name}: {value}"' for name, value in CLOUDEVENT.items())
    is_digits = type(stack.task) is Digits
    body = f"-d @{shlex.quote(str(DIGITS / 'image-with-trace-id.json'))}"
    before = ""
    if not is_digits:
        before = f'printf \'{{"instances": [{{"data": "%s"}}]}}\' "$(base64 < {file} | tr -d \'\\n\')" |\n'
        body = "-d @-"
    return f"""
The stack stays up until Ctrl-C. Logs: {stack.sandbox.directory}

{stack.addresses}

In another terminal, first:

{exports}

Upload an object, and see what became of it; follow what others get:

{call} submit {file} --wait
{call} results --follow

Ask inline, as plain HTTP and as an event:

{before}curl -v -H "Content-Type: application/json" {body} {url}

{before}curl -v {url} \\
  -X POST \\
{flags} \\
  {body}

See {first.key} where it was filed, for the next hour:

{_link(stack, result)}
"""


def _link(stack: Stack, result: PredictionResult | None) -> str:
    """A URL of the copy that a browser opens."""
    if result is None or result.destination is None:
        return "(it has no result)"
    bucket, _, key = result.destination.partition("/")
    return stack.minio().presigned_get_object(bucket_name=bucket, object_name=key, expires=timedelta(hours=1))
