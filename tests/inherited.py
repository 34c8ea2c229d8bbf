"""What tests inherit from whoever started them, and leave behind, so that they are the same wherever they run.

A shell, a CI system or a developer's profile hands down more than a command: signals that are ignored or blocked,
settings of ours and of the libraries below us, a proxy.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

from mnist_pipeline import Digits, Settings
from recording import Recording

PROXIES: dict[str, str] = {}
"""The proxy of whoever started us: for what is fetched, and for nothing else."""

_FAMILIES = ("AWS_", "KAFKA_", "MINIO_", "S3_")
_OTHERS = ("PROMETHEUS_MULTIPROC_DIR", "PYTHONDEVMODE", "PYTHONWARNINGS")
_PROXIES = ("all_proxy", "ftp_proxy", "grpc_proxy", "http_proxy", "https_proxy", "no_proxy")


def leave_behind() -> None:
    """Let neither our programs nor our clients have any of it."""
    asked = Recording(KAFKA_BOOTSTRAP_SERVERS="k")
    Settings.from_environ(asked, Digits())
    for name in list(os.environ):
        if name.lower() in _PROXIES:
            PROXIES[name] = os.environ.pop(name)
        elif name in asked.asked or name in _OTHERS or name.startswith(_FAMILIES):
            del os.environ[name]
    # Not SIGHUP: what was started with nohup goes on without its terminal, and so do its programs.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _go_on)
    # Where it is ignored, nobody learns how a program ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _go_on(_number: int, _frame: FrameType | None) -> None:
    """Ignore it as before: but of a handler, unlike SIG_IGN, the programs that we start inherit nothing."""
