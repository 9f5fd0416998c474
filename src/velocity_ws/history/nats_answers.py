"""Answers: what comes back of what was sent to a NATS server, one question or several messages. Knows no connection."""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["Answers", "Expected", "Part", "Parts", "Question"]

Part = tuple[bytes, bytes]
Parts = list[Part]
"""Headers and payloads of what answers a request."""


class Expected(Protocol):
    """What answers something that was sent."""

    def take(self, index: int, part: Part) -> bool:
        """Take what has come; whether nothing more does."""

    def fail(self, why: str) -> None:
        """Nothing more comes, as the connection has ended."""


class Question:
    """What answers one question, of one part or of many; see `Requests.ask`."""

    __slots__ = ("_is_many", "future", "parts")

    def __init__(self, future: asyncio.Future[Parts], *, is_many: bool) -> None:
        """
        Args:
            future: gets the parts.
            is_many: whether there may be many, of which the last one has a status and no message.
        """
        self.future = future
        self.parts: Parts = []
        self._is_many = is_many

    def take(self, index: int, part: Part) -> bool:  # noqa: ARG002 - it is one
        """See `Expected.take`."""
        self.parts.append(part)
        if self._is_many and not part[0].startswith(b"NATS/1.0 "):
            return False
        if not self.future.done():
            self.future.set_result(self.parts)
        return True

    def fail(self, why: str) -> None:
        """See `Expected.fail`."""
        if not self.future.done():
            self.future.set_exception(ConnectionError(why))
            self.future.exception()  # retrieved: its caller may be gone


class Answers:
    """What answers messages that were sent together, one each. It comes whether anybody waits for it or not."""

    __slots__ = ("_left", "_parts", "_waiters", "_why")

    def __init__(self, count: int) -> None:
        """
        Args:
            count: how many messages those are.
        """
        self._parts: list[Part | None] = [None] * count
        self._left = count
        self._why = ""
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def are_there(self) -> bool:
        """Whether all have come, or none comes any more."""
        return not self._left

    def take(self, index: int, part: Part) -> bool:
        """See `Expected.take`. Of a message that was sent twice, the first answer is taken."""
        if self._left and self._parts[index] is None:
            self._parts[index] = part
            self._left -= 1
            if not self._left:
                self._wake()
        return True

    def fail(self, why: str) -> None:
        """See `Expected.fail`."""
        if self._left:
            self._why, self._left = why, 0
            self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            _finish(waiter)

    async def wait(self, within: float | None = None) -> None:
        """Wait until they are there. Cancelling this leaves them to come.

        Args:
            within: seconds to wait; ``None`` for no bound.
        """
        if not self._left:
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        timer = None if within is None else loop.call_later(within, _finish, waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)
            if timer is not None:
                timer.cancel()

    @property
    def parts(self) -> Parts:
        """Headers and payload of each, in the order of the messages, once they are there.

        Raises:
            ConnectionError: some do not come any more.
        """
        parts = [part for part in self._parts if part is not None]
        if self._why:
            raise ConnectionError(self._why)
        return parts


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
