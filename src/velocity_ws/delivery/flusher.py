"""Flusher: when outboxes write what they were given: at the end of a loop turn, or in the turns after it.

Knows no message.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from velocity_ws.logs import get_logger

__all__ = ["Flushable", "Flusher"]

SECONDS_PER_TURN = 0.002
"""Seconds for which outboxes are flushed before others on the event loop have their turn."""
AT_ONCE = 32
"""Outboxes that are flushed without a look at the clock."""

log = get_logger("velocity_ws.delivery")


class Flushable(Protocol):
    """An outbox that writes to a transport. On the broker's loop only."""

    def flush(self) -> None:
        """Write what is queued, as far as the transport takes it."""

    def abort(self) -> None:
        """Drop what is queued, and abort the connection."""


class Flusher:
    """Flushes outboxes at the end of the loop turn in which they were given messages. On the broker's loop only.

    Where that takes long, as for a message to very many, the rest has its turns after it: an outbox that is given a
    message meanwhile does not wait for all of them.

    Attributes:
        waiting: the outboxes that have messages to write.
    """

    def __init__(self) -> None:
        self.waiting: list[Flushable] = []
        self._late: deque[Flushable] = deque()
        self._since = 0.0  # when those had their last turn

    def add(self, outbox: Flushable) -> None:
        """Flush an outbox at the end of this turn of the loop."""
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self.waiting.append(outbox)

    def flush(self) -> None:
        """Write what the waiting outboxes have queued, or begin to. One that raises is aborted, and costs no other its
        turn."""
        waiting, self.waiting = self.waiting, []
        if len(waiting) <= AT_ONCE:
            _flush(waiting)
            return
        left = deque(waiting)
        try:
            _flush_for(SECONDS_PER_TURN, left)
        finally:
            if left and not self._late:
                self._go_on_next_turn()
            self._late.extend(left)

    def _go_on_next_turn(self) -> None:
        self._since = time.perf_counter()
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        # As long as others took meanwhile: on a loop that is busy it would else take ever longer.
        seconds = max(SECONDS_PER_TURN, time.perf_counter() - self._since)
        try:
            _flush_for(seconds, self._late)
        finally:
            if self._late:
                self._go_on_next_turn()


def _flush(outboxes: Iterable[Flushable]) -> None:
    for outbox in outboxes:
        try:
            outbox.flush()
        except Exception:  # one connection never costs another
            log.exception("a connection could not be written to, and is cut")
            outbox.abort()


def _flush_for(seconds: float, outboxes: deque[Flushable]) -> None:
    """Flush some outboxes until none is left or time is up."""
    until = time.perf_counter() + seconds
    while outboxes:
        _flush([outboxes.popleft() for _ in range(min(AT_ONCE, len(outboxes)))])
        if time.perf_counter() > until:
            return
