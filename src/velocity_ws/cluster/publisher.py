"""What a node publishes: queued in bytes, handed over in batches and in order, and each with an outcome in time.

Knows the contract of a backplane; whether the connection can be trusted is its user's to say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

from velocity_ws.backplane.base import Backplane
from velocity_ws.cluster.envelopes import encode_header
from velocity_ws.cluster.sequences import Sent
from velocity_ws.errors import BackplaneUnavailable

__all__ = ["Entry", "Outcome", "Publisher"]

Outcome = Literal["published", "refused", "unknown"]

BATCH_BYTES = 256 * 1024
"""Bytes after which a batch is full: what is in doubt when the engine does not answer."""
BATCH_MESSAGES = 512
"""Messages handed over at once."""
PATIENCE = 2
"""Timeouts that a batch has, until the connection is given up: its confirmation may be behind much that others sent."""
SLICES = 6
"""Parts the time of a batch is cut into: a loop that was held up by others cannot miss more than one."""


class Entry:
    """A message that was queued.

    Attributes:
        done: what becomes of it.
        is_handed_over: whether the engine may have it.
    """

    __slots__ = ("body", "done", "is_handed_over", "topic")

    def __init__(self, topic: str, body: bytes, done: asyncio.Future[Outcome]) -> None:
        self.topic = topic
        self.body = body
        self.done = done
        self.is_handed_over = False

    def settle(self, outcome: Outcome) -> None:
        """Tell what has become of it, the first time."""
        if not self.done.done():
            self.done.set_result(outcome)


class Publisher:
    """The outbound side of a link.

    Attributes:
        sent: how many messages were handed over for each topic.
    """

    def __init__(self, backplane: Backplane, node_id: str, timeout: float, limit: int) -> None:
        """
        Args:
            backplane: connected while this is open.
            node_id: of the sender.
            timeout: seconds after which a message's outcome is told, whatever it is.
            limit: bytes that may wait.
        """
        self.sent = Sent()
        self._backplane = backplane
        self._node_id = node_id
        self._timeout = timeout
        self._limit = limit
        self._queue: deque[Entry] = deque()
        self._bytes = 0
        self._is_open = False
        self._why = "the engine has not answered yet"
        self._wakeup = asyncio.Event()
        self._batches = 0
        self._is_waiting = False

    def open(self) -> None:
        """Take messages."""
        self._is_open = True

    def close(self, why: str) -> None:
        """Take no more; what waits is refused. What `run` has handed over it settles by itself."""
        self._is_open = False
        self._why = why
        for entry in self._queue:
            entry.settle("refused")
        self._queue.clear()
        self._bytes = 0

    async def run(self) -> None:
        """Hand over what is queued, until cancelled.

        Raises:
            OSError: the engine did not take a batch; the connection is of no use any more.
        """
        while True:
            if not self._queue:
                self._wakeup.clear()
                await self._wakeup.wait()
            batch = self._take()
            if not batch:
                continue
            self._batches += 1
            self._is_waiting = True
            try:
                await self._backplane.publish(
                    [(e.topic, encode_header(self._node_id, self.sent.next(e.topic)) + e.body) for e in batch]
                )
            except BaseException:
                for entry in batch:
                    entry.settle("unknown")
                raise
            finally:
                self._is_waiting = False
            for entry in batch:
                entry.settle("published")

    async def watch(self) -> None:
        """See that the engine takes each batch in time, until cancelled.

        Raises:
            TimeoutError: it did not; the connection is of no use any more.
        """
        batch = slices = 0
        while True:
            await asyncio.sleep(self._timeout / SLICES)
            if not self._is_waiting or batch != self._batches:
                batch, slices = self._batches, 0
            elif slices == PATIENCE * SLICES:
                raise TimeoutError(f"the engine did not confirm a message within {PATIENCE * self._timeout:g} s")
            slices += 1

    def put(self, topic: str, body: bytes, *, is_vital: bool = False) -> Entry:
        """Queue a message.

        Args:
            topic: where to.
            body: without its header.
            is_vital: whether it is one of the few by which nodes find each other, which the limit is not for.

        Raises:
            BackplaneUnavailable: there is no connection, or it is too far behind, or the message is too large for it.
        """
        size = len(body) + 32
        if not self._is_open:
            raise BackplaneUnavailable(self._why)
        if self._bytes and self._bytes + size > self._limit and not is_vital:
            raise BackplaneUnavailable(f"{self._bytes} bytes wait for the engine, which is too slow")
        most = self._backplane.max_payload
        if size > most:
            raise BackplaneUnavailable(f"the message has {size} bytes, and the engine takes {most}")
        entry = Entry(topic, body, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._bytes += size
        self._wakeup.set()
        return entry

    def until(self) -> float:
        """When what is published now has an outcome, in the loop's time."""
        return asyncio.get_running_loop().time() + self._timeout

    async def outcome(self, entry: Entry, until: float | None = None) -> None:
        """Wait for what becomes of a message. Cancelling this takes nothing back.

        Args:
            entry: the message.
            until: when it is told, whatever it is; by default at the end of the timeout.

        Raises:
            BackplaneUnavailable: it was not published, or that is not known.
        """
        left = self._timeout if until is None else until - asyncio.get_running_loop().time()
        if not entry.done.done():
            await asyncio.wait([entry.done], timeout=max(left, 0))
        if not entry.done.done():
            entry.settle("unknown" if entry.is_handed_over else "refused")
        outcome = entry.done.result()
        if outcome == "refused":
            raise BackplaneUnavailable("the engine was not reached in time" if self._is_open else self._why)
        if outcome == "unknown":
            raise BackplaneUnavailable("the engine did not confirm it in time", "unknown")

    def _take(self) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        while self._queue and len(batch) < BATCH_MESSAGES and size < BATCH_BYTES:
            entry = self._queue.popleft()
            self._bytes -= len(entry.body) + 32
            if entry.done.done():  # refused already, as its time was over
                continue
            size += len(entry.body)
            entry.is_handed_over = True
            batch.append(entry)
        return batch
