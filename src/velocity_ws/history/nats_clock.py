"""EngineClock: what time it is on a NATS server. Knows no log, and no clock of this machine that may be set."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final

from velocity_ws.history.jetstream import JetStream

__all__ = ["EngineClock"]

CLOCK_INTERVAL: Final = 10.0
"""Seconds after which the engine is asked again what time it is."""


class EngineClock:
    """The clock of the server that leads a stream. On one loop only."""

    def __init__(self, stream: JetStream) -> None:
        """
        Args:
            stream: open.
        """
        self._stream = stream
        self._ahead = 0.0
        self._asked_at = -CLOCK_INTERVAL

    async def now(self) -> int:
        """The engine's time in milliseconds: asked for now and then, and counted on by a clock that is not set.

        Raises:
            ConnectionError: the engine did not answer.
        """
        begin = time.monotonic()
        if begin - self._asked_at >= CLOCK_INTERVAL:
            answer = await self._stream.info()
            end = time.monotonic()
            # Between the two, and so at most half of what the answer took from the truth.
            self._ahead = datetime.fromisoformat(answer["ts"]).timestamp() - (begin + end) / 2
            self._asked_at = end
        return int((time.monotonic() + self._ahead) * 1000)
