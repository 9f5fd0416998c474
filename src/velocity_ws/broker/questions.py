"""Questions: whether members of rooms may stay in them, asked a few at a time; meanwhile what is said there is held.

Knows holds and sessions, and neither what is asked nor why.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from velocity_ws.sessions.holds import Hold
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.permission import Permission, failed
from velocity_ws.sessions.session import Session
from velocity_ws.stats import Counters

__all__ = ["MOST_ASKS", "MOST_SECONDS", "Questions", "Round"]

AT_ONCE = 50
"""Members that are asked about at once: a revocation that concerns 10,000 is not to take 10,000 connections to a
database. As many beside them whose user has changed: they do not wait for a revocation, nor for hooks that hang in one.
"""
MOST_ASKS = 10
"""How often it is asked again, because something has changed since it was asked, before it is given up."""
MOST_SECONDS = 10.0
"""Seconds for which it is asked again in any case."""


class Round:
    """Questions whose answers somebody waits for. On the broker's loop only."""

    def __init__(self) -> None:
        self._left = 0
        self._is_over = asyncio.Event()
        self._on_over: list[Callable[[], object]] = []

    def add(self) -> None:
        """There is one more."""
        self._left += 1

    def answered(self) -> None:
        """Count one as answered; at the last, let those go on who wait."""
        self._left -= 1
        if not self._left:
            self._is_over.set()
            for function in self._on_over:
                function()

    @property
    def is_over(self) -> bool:
        """Whether all are answered."""
        return not self._left

    def on_over(self, function: Callable[[], object]) -> None:
        """Have a function called when all are answered, which they are not yet."""
        self._on_over.append(function)

    async def wait(self) -> None:
        """Wait until all are answered."""
        if self._left:
            await self._is_over.wait()


class _Question:
    """Whether one member may stay in one room."""

    __slots__ = ("hold", "is_asked", "is_stale", "rounds")

    def __init__(self, hold: Hold[Session]) -> None:
        self.hold = hold
        self.rounds: list[Round] = []
        self.is_asked = False
        self.is_stale = False


class _Lane:
    """Questions that wait in a line of their own, and what asks them."""

    def __init__(self) -> None:
        self.waiting: deque[_Question] = deque()
        self.workers: set[asyncio.Task[None]] = set()


class Questions:
    """All questions of one node. On the broker's loop only."""

    def __init__(
        self,
        hub: Hub[Session],
        counters: Counters,
        limit: int,
        ask: Callable[[Session, str], Awaitable[Permission]],
        take_out: Callable[[Session, str], object],
        report: Callable[[Session, Permission], Awaitable[None]],
        put_out: Callable[[Session, str], Awaitable[None]],
    ) -> None:
        """
        Args:
            hub: the clients of this node.
            counters: where what is lost is counted.
            limit: bytes that are held for one member in one room.
            ask: says whether a client may be in a room. It raises nothing.
            take_out: takes a client out of a room.
            report: tells the application of a failure.
            put_out: keeps that a client was put out of a room.
        """
        self._hub = hub
        self._counters = counters
        self._limit = limit
        self._ask = ask
        self._take_out = take_out
        self._report = report
        self._put_out = put_out
        self._open: dict[tuple[str, str], _Question] = {}
        self._urgent = _Lane()
        self._others = _Lane()

    def put(self, members: Iterable[tuple[Session, str]], *, is_urgent: bool) -> Round:
        """Hold what is said to some members in a room of each, and ask about all of them; which begins after that.

        Who is being asked about already is asked about again, as the answer may be one of before.

        Args:
            members: the members, and a room of each.
            is_urgent: whether they come before others that wait.
        """
        round_ = Round()
        lane = self._urgent if is_urgent else self._others
        for session, room in members:
            question = self._open.get((session.id, room))
            if question is None or question.hold.is_over:
                hold = self._hub.hold(session.id, room, self._limit)
                if hold is None:
                    continue
                question = self._open[session.id, room] = _Question(hold)
                lane.waiting.append(question)
            elif question.is_asked:
                question.is_stale = True
            elif is_urgent:
                lane.waiting.append(question)
            question.rounds.append(round_)
            round_.add()
        self._start(lane)
        return round_

    async def stop(self) -> None:
        """Ask no more. What is held is dropped with its clients, which have gone."""
        workers = [*self._urgent.workers, *self._others.workers]
        for lane in (self._urgent, self._others):
            lane.waiting.clear()
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)
        self._urgent, self._others = _Lane(), _Lane()  # without those that were cancelled before their first turn
        for question in list(self._open.values()):
            self._close(question)

    def abandon(self) -> None:
        """Forget all of it: its loop was closed, and nobody waits any more."""
        self._open.clear()
        self._urgent, self._others = _Lane(), _Lane()

    def _start(self, lane: _Lane) -> None:
        for _ in range(min(AT_ONCE - len(lane.workers), len(lane.waiting))):
            # In a context of its own: it asks for others too than those who happen to have it started.
            work = self._work(lane)
            task = asyncio.create_task(work, name="velocity-ws authorize", context=contextvars.Context())
            lane.workers.add(task)

    async def _work(self, lane: _Lane) -> None:
        task = asyncio.current_task()
        try:
            while (question := self._next(lane.waiting)) is not None:
                await self._decide(question)
        except BaseException:  # cancelled by `stop`, or by a hook that cancels the task it finds itself in; or a fault
            lane.workers.discard(task)
            self._start(lane)
            raise
        lane.workers.discard(task)

    async def _decide(self, question: _Question) -> None:
        question.is_asked = True
        try:
            answer = await self._answer(question)
        except asyncio.CancelledError:
            self._settle(question, Permission(failed()))
            self._close(question)
            raise
        try:
            if self._settle(question, answer):
                await self._put_out(question.hold.member, question.hold.room)
        finally:
            self._close(question)
        if answer.failure is not None:
            await self._report(question.hold.member, answer)

    def _next(self, waiting: deque[_Question]) -> _Question | None:
        while waiting:
            question = waiting.popleft()
            if question.is_asked:  # as it has become urgent
                continue
            if not question.hold.is_over:
                return question
            self._close(question)
        return None

    async def _answer(self, question: _Question) -> Permission:
        """Ask until the answer is one of after the last call of `put`."""
        clock = asyncio.get_running_loop().time
        until, asked = clock() + MOST_SECONDS, 0
        while True:
            question.is_stale = False
            answer = await self._ask(question.hold.member, question.hold.room)
            asked += 1
            if question.hold.is_over or not question.is_stale:
                return answer
            if asked >= MOST_ASKS and clock() >= until:
                return Permission(failed())

    def _settle(self, question: _Question, answer: Permission) -> bool:
        """Do as an answer says; whether the client was put out."""
        hold = question.hold
        if not hold.is_over and answer.refusal is None:
            self._hub.release(hold)
            self._counters.dropped += hold.lost
            self._counters.left_out += hold.left_out
        elif not hold.is_over and answer.refusal is not None:
            self._take_out(hold.member, hold.room)
            hold.member.put_out(hold.room, str(answer.refusal.code))
            return True
        return False

    def _close(self, question: _Question) -> None:
        key = (question.hold.member.id, question.hold.room)
        if self._open.get(key) is question:
            del self._open[key]
        for round_ in question.rounds:
            round_.answered()
        question.rounds = []
