"""Publisher: what a node publishes, queued in bytes, handed over in order and in batches, each with an outcome in time.

Knows the contract of a backplane, and not whether the connection can be trusted: its user opens and closes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Literal

from velocity_ws.backplane.base import Backplane
from velocity_ws.cluster.counts import SentNumbers
from velocity_ws.cluster.envelopes import encode_header
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.stats import Counters

__all__ = ["Entry", "Outcome", "Publisher"]

Outcome = Literal["published", "refused", "unknown"]

BATCH_BYTES = 256 * 1024
"""Bytes after which a batch is full: what is in doubt when the engine does not answer."""
BATCH_MESSAGES = 512
"""Messages handed over at once."""
PATIENCE = 2
"""Timeouts that a batch has until the connection is given up: its confirmation may be behind much that others sent."""
SLICES = 6
"""Parts into which the time of a batch is cut: a loop that was held up cannot miss more than one."""


class Entry:
    """A message in the queue.

    Attributes:
        topic: where it goes.
        body: without its header.
        done: its outcome, once there is one.
        is_handed_over: whether the engine may have it.
    """

    __slots__ = ("body", "done", "is_handed_over", "topic")

    def __init__(self, topic: str, body: bytes, done: asyncio.Future[Outcome]) -> None:
        self.topic = topic
        self.body = body
        self.done = done
        self.is_handed_over = False

    def settle(self, outcome: Outcome) -> None:
        """Set the outcome; the first one stands."""
        if not self.done.done():
            self.done.set_result(outcome)


class Publisher:
    """The outbound side of a link. On the broker's loop only.

    Attributes:
        sent: how many messages were handed over to each topic.
        why: why nothing is taken, while there is no connection.
    """

    def __init__(self, backplane: Backplane, node_id: str, timeout: float, limit: int, counters: Counters) -> None:
        """
        Args:
            backplane: connected while this is open.
            node_id: the id of the sender.
            timeout: seconds after which a message has an outcome, whatever it is.
            limit: bytes that may wait.
            counters: the node's; outcomes of messages for clients are counted there.
        """
        self.sent = SentNumbers()
        self._backplane = backplane
        self._node_id = node_id
        self._timeout = timeout
        self._limit = limit
        self._counters = counters
        self._queue: deque[Entry] = deque()
        self._bytes = 0
        self._is_open = self._is_resting = False
        self.why = "the engine has not answered yet"
        self._wakeup = asyncio.Event()
        self._batch: list[Entry] = []
        self._batches = 0
        self._is_waiting = False

    # --- the connection

    def open(self) -> None:
        """Take messages from now on, as there is a connection, and hand them over."""
        self._is_open, self._is_resting = True, False
        self._wakeup.set()

    async def rest(self) -> None:
        """Hand over nothing more until the next `open`, and wait until what was handed over has an outcome.

        Messages are taken on, and wait, each as long as it may.
        """
        self._is_resting = True
        if self._batch:
            await asyncio.wait([entry.done for entry in self._batch], timeout=self._timeout)

    def close(self, why: str) -> None:
        """Take no more messages, and refuse those that wait. What was handed over is settled by `run`.

        Args:
            why: the text of the errors that publishing raises from now on.
        """
        self._is_open = False
        self.why = why
        for entry in self._queue:
            entry.settle("refused")
        self._queue.clear()
        self._bytes = 0

    async def run(self) -> None:
        """Hand over what is queued, until cancelled.

        Raises:
            OSError: the engine did not take a batch; the connection has to be given up.
        """
        while True:
            while self._is_resting or not self._queue:
                self._wakeup.clear()
                await self._wakeup.wait()
            batch = self._batch = self._take()
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
        """Watch that the engine takes each batch in time, until cancelled.

        Raises:
            TimeoutError: it did not; the connection has to be given up.
        """
        batch = slices = 0
        while True:
            await asyncio.sleep(self._timeout / SLICES)
            if not self._is_waiting or batch != self._batches:
                batch, slices = self._batches, 0
            elif slices == PATIENCE * SLICES:
                raise TimeoutError(f"the engine did not confirm a message within {PATIENCE * self._timeout:g} s")
            slices += 1

    # --- messages

    async def publish(self, messages: Iterable[tuple[str, bytes]], until: float | None = None) -> None:
        """Publish what carries one message for clients. Returns when the engine has all of it.

        Args:
            messages: topics, and a body without its header for each.
            until: when its outcome is told at the latest, in the loop's time; by default at the end of the timeout.

        Raises:
            BackplaneUnavailable: the engine has not all of it, or that is not known.
        """
        failure: BackplaneUnavailable | None = None
        waiting: list[Entry] = []
        until = self.until() if until is None else until
        try:
            for topic, body in messages:
                try:
                    waiting.append(self.put(topic, body))
                except BackplaneUnavailable as error:
                    failure = self._count(error)
            for entry in waiting:
                try:
                    await self.outcome(entry, until)
                    self._counters.backplane_sent += 1
                except BackplaneUnavailable as error:
                    self._count(error)
                    if failure is None or error.outcome == "unknown":
                        failure = error
            if failure is not None:
                raise failure
        finally:
            failure = None  # or it would refer to itself by way of this frame, and wait for the garbage collector

    def _count(self, error: BackplaneUnavailable) -> BackplaneUnavailable:
        if error.outcome == "unknown":
            self._counters.backplane_unknown += 1
        else:
            self._counters.backplane_refused += 1
        return error

    def put(self, topic: str, body: bytes, *, is_vital: bool = False, is_bulk: bool = False) -> Entry:
        """Queue a message.

        Args:
            topic: where it goes.
            body: without its header.
            is_vital: whether it is one of the few by which nodes find each other, to which the limit does not apply.
            is_bulk: whether it is one of many, which leave half of the queue to others.

        Raises:
            BackplaneUnavailable: there is no connection, or it is too far behind, or the message is too large for it.
        """
        size = len(body) + 32
        if not self._is_open:
            raise BackplaneUnavailable(self.why)
        limit = self._limit // 2 if is_bulk else self._limit
        if self._bytes and self._bytes + size > limit and not is_vital:
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
        """When a message that is published now has an outcome at the latest, in the loop's time."""
        return asyncio.get_running_loop().time() + self._timeout

    async def outcome(self, entry: Entry, until: float | None = None) -> None:
        """Wait for the outcome of a message. Cancelling this takes nothing back.

        Args:
            entry: the message.
            until: when the outcome is told at the latest, in the loop's time; by default at the end of the timeout.

        Raises:
            BackplaneUnavailable: the message was not published, or that is not known.
        """
        left = self._timeout if until is None else until - asyncio.get_running_loop().time()
        if not entry.done.done():
            await asyncio.wait([entry.done], timeout=max(left, 0))
        if not entry.done.done():
            entry.settle("unknown" if entry.is_handed_over else "refused")
        outcome = entry.done.result()
        if outcome == "refused":
            raise BackplaneUnavailable("the engine was not reached in time" if self._is_open else self.why)
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
