"""Writer: what a node appends, queued in bytes, handed over in order and in batches, each with an outcome in time.

Knows the contract of a store, and not whether the connection can be trusted: its user opens and closes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.base import HistoryStore, LocalStore
from velocity_ws.history.calls import Calls
from velocity_ws.history.items import Append, Appended, Refused
from velocity_ws.history.outcomes import Asked, Failure, Timeouts, error_of, failure_of, unavailable
from velocity_ws.logs import get_logger
from velocity_ws.stats import Counters

__all__ = ["Then", "Writer"]

log = get_logger("velocity_ws.history")

BATCH_BYTES = 256 * 1024
"""Bytes after which a batch is full: what is in doubt when the engine does not answer."""
BATCH_APPENDS = 512
"""Entries handed over at once."""
OVERHEAD = 256
"""Bytes that count for what is kept with an envelope while it waits."""
PAUSE = 0.01
"""Seconds until a log that is on its way to another server is appended to again."""
TURN = 16
"""Appends to a store in this process after which the others on the loop have a turn: members are written to then."""
UNCOUNTED = 8
"""The part of `BATCH_BYTES` up to which appends to a store in this process are not forgotten with the turn of the loop
that brought them: a callback in each turn would cost a third of an append. So much counts as nothing."""

Then = Callable[[Appended], None]
"""What is called with the result of an append."""


class _Queued(Asked[Append, Appended]):
    """An append in the queue.

    Attributes:
        then: is called when the engine has the entry.
        counters: count the outcome.
    """

    __slots__ = ("counters", "then")

    def __init__(self, append: Append, then: Then, counters: Counters) -> None:
        super().__init__(append)
        self.then = then
        self.counters = counters

    def settle(self, outcome: Appended | Failure) -> bool:
        """See `Asked.settle`. The first one is counted."""
        if not super().settle(outcome):
            return False
        _count(self.counters, outcome)
        return True

    def took(self, answer: Appended | Refused) -> bool:
        """Take what the engine has answered; not where it may be asked again."""
        if isinstance(answer, Refused) and answer.reason == "moving":
            self.is_handed_over = False
            return False
        self.answer(answer)
        return True

    def answer(self, answer: Appended | Refused) -> None:
        """See `Asked.answer`. First it is said that the engine has it, also where nobody waits for that any more."""
        if isinstance(answer, Appended) and not answer.is_duplicate:
            _follow(self.then, answer)
        super().answer(answer)


def _count(counters: Counters, outcome: Appended | Failure) -> None:
    if isinstance(outcome, Appended):
        counters.backplane_sent += not outcome.is_duplicate
    elif outcome.outcome == "unknown":
        counters.backplane_unknown += 1
    elif outcome.outcome == "refused":
        counters.backplane_refused += 1


def _follow(then: Then, appended: Appended) -> None:
    """Say that the engine has an entry."""
    try:
        then(appended)
    except Exception:  # of one message, which costs the others nothing
        log.exception("what follows an append failed")


class Writer:
    """The appending side of a link. On the broker's loop only."""

    def __init__(self, store: HistoryStore, calls: Calls, timeout: float, limit: int, counters: Counters) -> None:
        """
        Args:
            store: connected while this is open.
            calls: those of the connection.
            timeout: seconds after which an append has an outcome, whatever it is.
            limit: bytes that may wait.
            counters: the node's; outcomes are counted there.
        """
        self._store = store
        self._local = store if isinstance(store, LocalStore) else None
        self._local_appends = 0
        self._uncounted = 0 if self._local is None else min(BATCH_BYTES, limit) // UNCOUNTED
        self._calls = calls
        self._timeout = timeout
        self._limit = limit
        self._counters = counters
        self._queue: deque[_Queued] = deque()
        self._bytes = 0
        self._is_open = self._is_resting = False
        self._why = "there is no connection to the engine"
        self._wakeup = asyncio.Event()
        self._timeouts = Timeouts()

    def open(self) -> None:
        """Take appends from now on, as there is a connection, and hand them over."""
        self._is_open, self._is_resting = True, False
        self._calls.start(self._run())

    def rest(self) -> None:
        """Hand over nothing more until the next `open`; appends are taken on, and wait, each as long as it may."""
        self._is_resting = True

    def close(self, why: str) -> None:
        """Take no more appends, and refuse those that wait. What was handed over is settled with the end of the calls.

        Args:
            why: the text of the errors that appending raises from now on.
        """
        self._is_open = False
        self._why = why
        queue, self._queue, self._bytes = self._queue, deque(), 0
        for queued in queue:
            queued.fail(why)

    def append(self, append: Append, then: Then, until: float | None = None) -> Coroutine[Any, Any, Appended]:
        """Append an entry; see `HistoryLink.append`."""
        if self._local is not None:
            return self._append_now(self._local, append, then)
        return self._append_queued(append, then, until)

    async def _append_queued(self, append: Append, then: Then, until: float | None) -> Appended:
        queued = self._put(append, then)
        if until is None:
            until = asyncio.get_running_loop().time() + self._timeout
        return await queued.wait(until, self._timeouts)

    async def _append_now(self, store: LocalStore, append: Append, then: Then) -> Appended:
        """Append an entry past the queue, in which nothing ever waits for a store in this process."""
        before, size = self._bytes, self._check(append) + OVERHEAD
        if before <= self._uncounted < before + size:
            # Those that listen on this loop get it in the next turn, and it waits for them until then.
            asyncio.get_running_loop().call_soon(self._forget_turn)
        self._bytes = before + size
        answer = store.append_now(append)
        if isinstance(answer, Refused):
            failure = failure_of(answer)
            _count(self._counters, failure)
            raise error_of(failure)
        _count(self._counters, answer)
        if not answer.is_duplicate:
            _follow(then, answer)
        self._local_appends += 1
        if not self._local_appends % TURN or self._bytes >= BATCH_BYTES:
            await asyncio.sleep(0)
        return answer

    def _forget_turn(self) -> None:
        self._bytes = 0

    def _check(self, append: Append) -> int:
        """Check that an append can be taken; the bytes of its envelope.

        Raises:
            BackplaneUnavailable: there is no connection, it is too large, or too much waits.
        """
        size = len(append.envelope)
        if not self._is_open:
            raise self._refused(self._why)
        if size > self._store.max_payload:
            raise self._refused(f"the message has {size} bytes, and the engine takes {self._store.max_payload}")
        if self._bytes > self._uncounted and self._bytes + size + OVERHEAD > self._limit:
            raise self._refused(f"{self._bytes} bytes wait for the engine, which is too slow")
        return size

    def _put(self, append: Append, then: Then) -> _Queued:
        size = self._check(append)
        queued = _Queued(append, then, self._counters)
        self._queue.append(queued)
        self._bytes += size + OVERHEAD
        self._wakeup.set()
        return queued

    def _refused(self, why: str) -> BackplaneUnavailable:
        self._counters.backplane_refused += 1
        return unavailable(why)

    async def _run(self) -> None:
        """Hand over what is queued, until cancelled.

        Raises:
            OSError: the engine did not take a batch; the connection has to be given up.
        """
        while True:
            while self._is_resting or not self._queue:
                self._wakeup.clear()
                await self._wakeup.wait()
            batch = self._take()
            if not batch:
                continue
            try:
                results = await self._calls.answer(self._store.append([queued.what for queued in batch]))
                moving = [queued for queued, result in zip(batch, results, strict=True) if not queued.took(result)]
            except BaseException:
                for queued in batch:  # those that have no answer
                    queued.fail("the connection was lost before the engine confirmed it")
                raise
            if moving:
                self._put_back(moving)
                await asyncio.sleep(PAUSE)

    def _put_back(self, moving: list[_Queued]) -> None:
        """Queue again what was not done, before all that came later, until its time is over."""
        self._queue.extendleft(reversed(moving))
        self._bytes += sum(len(queued.what.envelope) + OVERHEAD for queued in moving)

    def _take(self) -> list[_Queued]:
        batch: list[_Queued] = []
        size = 0
        while self._queue and len(batch) < BATCH_APPENDS and size < BATCH_BYTES:
            queued = self._queue.popleft()
            self._bytes -= len(queued.what.envelope) + OVERHEAD
            if queued.is_over:  # refused already, as its time was over
                continue
            size += len(queued.what.envelope)
            queued.is_handed_over = True
            batch.append(queued)
        return batch
