"""Reading a topic on the event loop, where Kafka's client does not come back."""

from __future__ import annotations

import subprocess
import sys

_LEFT_ALONE = """
import asyncio, threading
from mnist_pipeline.client import topics
from mnist_pipeline.pipeline.settings import Kafka

class Silent(topics.TopicReader):
    def open(self, **_):
        threading.Event().wait()

async def read():
    async with topics.opened(Kafka(bootstrap_servers="127.0.0.1:1", topic="t")):
        pass

topics.TopicReader = Silent
try:
    asyncio.run(asyncio.wait_for(read(), 0.1))
except (asyncio.TimeoutError, TimeoutError):
    print("given up")
"""


def test_a_call_that_never_comes_back_does_not_keep_the_process_from_ending() -> None:
    ran = subprocess.run([sys.executable, "-c", _LEFT_ALONE], capture_output=True, text=True, timeout=20, check=True)
    assert (ran.stdout, ran.stderr) == ("given up\n", "")
