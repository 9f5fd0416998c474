"""Questions: what many ask of a store in one turn of the loop becomes one call. Knows no store, nor what is asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from velocity_ws.history.calls import Calls
from velocity_ws.history.items import Refused
from velocity_ws.history.outcomes import Asked, Timeouts, unavailable

__all__ = ["MAX_WAITING", "Questions"]

MAX_WAITING = 50_000
"""Questions of one kind that may wait: as many connections as a node takes may come back at once, and ask some each."""
MOST_AT_ONCE = 2
"""Calls of one kind that run at once: while one is answered, the engine has the next."""
BATCH_QUESTIONS = 512
"""Questions in one call."""
BATCH_BYTES = 8 * 1024 * 1024
"""Bytes that the answers to the questions in one call may have, where there are several."""

Q = TypeVar("Q")
R = TypeVar("R")


class Questions(Generic[Q, R]):
    """The questions of one kind. On the broker's loop only."""

    def __init__(
        self,
        ask: Callable[[list[Q]], Awaitable[Sequence[R | Refused]]],
        calls: Calls,
        timeout: float,
        *,
        most: int = BATCH_QUESTIONS,
        at_once: int = MOST_AT_ONCE,
        weigh: Callable[[Q], int] = lambda _: 0,
        is_change: bool = False,
    ) -> None:
        """
        Args:
            ask: asks a store several questions, and returns an answer for each.
            calls: those of the connection.
            timeout: seconds after which a question is answered, or has failed.
            most: questions that are asked in one call.
            at_once: calls that run at once.
            weigh: bytes that the answer to a question may have.
            is_change: whether the store changes something: then a caller who is cancelled takes nothing back, and what
                was not answered may be done.
        """
        self._ask = ask
        self._calls = calls
        self._timeout = timeout
        self._most = most
        self._at_once = at_once
        self._weigh = weigh
        self._is_change = is_change
        self._waiting: deque[Asked[Q, R]] = deque()
        self._running: dict[asyncio.Task[None], list[Asked[Q, R]]] = {}
        self._is_open = self._is_resting = self._is_due = False
        self._why = "there is no connection to the engine"
        self._timeouts = Timeouts()

    def open(self) -> None:
        """Take questions from now on, as there is a connection, and ask them."""
        self._is_open, self._is_resting = True, False
        self._begin()

    def rest(self) -> None:
        """Ask nothing more until the next `open`; questions are taken on, and wait, each as long as it may."""
        self._is_resting = True

    def close(self, why: str) -> None:
        """Take no more questions; those that have no answer have failed.

        Args:
            why: the text of the errors that asking raises from now on.
        """
        self._is_open = False
        self._why = why
        waiting, self._waiting = self._waiting, deque()
        for batch in (waiting, *self._running.values()):
            for asked in batch:
                asked.fail(why)

    async def ask(self, question: Q) -> R:
        """Ask a question, together with others.

        Raises:
            BackplaneUnavailable: it was not answered, or refused, or too many wait.
        """
        if not self._is_open:
            raise unavailable(self._why)
        if len(self._waiting) >= MAX_WAITING:
            raise unavailable(f"{MAX_WAITING} questions wait for the engine, which is too slow")
        asked: Asked[Q, R] = Asked(question)
        self._waiting.append(asked)
        loop = asyncio.get_running_loop()
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._begin)
        return await asked.wait(loop.time() + self._timeout, self._timeouts)

    def _begin(self) -> None:
        """Ask what waits, as far as calls may run."""
        self._is_due = False
        is_asking = self._is_open and not self._is_resting
        while self._waiting and is_asking and len(self._running) < self._at_once:
            batch = self._take()
            if batch:
                task = self._calls.start(self._call(batch))
                self._running[task] = batch
                task.add_done_callback(self._ended)

    def _take(self) -> list[Asked[Q, R]]:
        batch: list[Asked[Q, R]] = []
        size = 0
        while self._waiting and len(batch) < self._most:
            asked = self._waiting[0]
            if not asked.is_over and (self._is_change or not asked.is_cancelled):
                size += self._weigh(asked.what)
                if batch and size > BATCH_BYTES:
                    break
                batch.append(asked)
            self._waiting.popleft()
        return batch

    async def _call(self, batch: list[Asked[Q, R]]) -> None:
        batch = [asked for asked in batch if not asked.is_over]  # since the task was made
        if not batch:
            return
        for asked in batch:
            asked.is_handed_over = self._is_change
        try:
            answers = await self._calls.answer(self._ask([asked.what for asked in batch]))
        except Refused as refusal:  # of all of it, and the connection is as good as before
            answers = [refusal] * len(batch)
        for asked, answer in zip(batch, answers, strict=True):
            asked.answer(answer)

    def _ended(self, task: asyncio.Task[None]) -> None:
        for asked in self._running.pop(task):  # those that have no answer
            asked.fail("the connection was lost before the engine answered")
        self._begin()
