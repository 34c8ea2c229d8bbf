"""What became of messages, handed over from a Kafka client's thread to the event loop, many a wake-up."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

Receipt = asyncio.Future[Exception | None]
"""Of one message: its result is None once it is acknowledged, else the error. It never raises by itself, so that it can
be left alone.
"""


class Acknowledgements:
    """The receipts of one producer, on the event loop that is running when it is made."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._settled: deque[tuple[Receipt, Exception | None]] = deque()
        self._is_waking = False

    def receipt(self) -> Receipt:
        """For a message that is to be sent."""
        return self.loop.create_future()

    def settle(self, receipt: Receipt, error: Exception | None) -> None:
        """Say what became of a message; from any thread, and soon enough if it is nobody's concern any more."""
        self._settled.append((receipt, error))
        # A second wake-up would cost both threads and hand over nothing that the first one does not. It is true only
        # until the first one looks, which is after this.
        if not self._is_waking:
            self._is_waking = True
            # The loop may have been closed meanwhile, and then nobody waits.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._hand_over)

    async def within(self, seconds: float, receipt: Receipt, too_late: Exception) -> None:
        """Wait until the message is acknowledged.

        Raises:
            Exception: its error; `too_late` where nothing is known of it after so many seconds.
        """
        timer = self.loop.call_later(seconds, _expire, receipt, too_late)
        try:
            error = await receipt
        finally:
            timer.cancel()
        if error is not None:
            raise error

    def _hand_over(self) -> None:
        self._is_waking = False
        while self._settled:
            receipt, error = self._settled.popleft()
            # Its waiter may have been cancelled, or too late.
            if not receipt.done():
                receipt.set_result(error)


def _expire(receipt: Receipt, too_late: Exception) -> None:
    if not receipt.done():
        receipt.set_result(too_late)
