"""Asks: the questions that one client was asked, until it answers, takes too long, or has gone. Knows no queue.

An answer is found as it comes, before what waits to be handled: a handler may wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from velocity_ws.concurrency.schedule import Schedule
from velocity_ws.errors import BrokerError
from velocity_ws.messages.answers import id_answered

__all__ = ["AskTimes", "Asks"]

MAX_OPEN = 1000
"""Questions of one client that may wait for their answers."""

Answer = asyncio.Future[str | None]
"""The text of an answer; ``None`` where the client has gone."""


class AskTimes:
    """When the questions of all clients are due, on one timer. On the broker's loop only, be it another one later."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._schedule: Schedule[Answer] | None = None

    def start(self, answer: Answer, seconds: float) -> None:
        """Let an answer be too late after some seconds."""
        loop = asyncio.get_running_loop()
        if self._schedule is None or self._loop is not loop:
            self._loop = loop
            self._schedule = Schedule(loop, loop.time, _is_late)
        self._schedule.start(answer, loop.time() + seconds)

    def stop(self, answer: Answer) -> None:
        """An answer is not waited for any more."""
        if self._schedule is not None:
            self._schedule.cancel(answer)


class Asks:
    """The open questions of one client. On the broker's loop only."""

    __slots__ = ("_max_size", "_on_none", "_open", "_times")

    def __init__(self, times: AskTimes, max_size: int, on_none: Callable[[], None]) -> None:
        """
        Args:
            times: of the node.
            max_size: bytes of the longest message; what is longer is no answer.
            on_none: called when no question is open any more.
        """
        self._times = times
        self._max_size = max_size
        self._on_none = on_none
        self._open: dict[str, Answer] = {}

    def take(self, payload: str | bytes, size: int) -> bool:
        """Take a message that answers a question; whether it does. A second answer is a message like others."""
        if not isinstance(payload, str) or size > self._max_size:
            return False
        question_id = id_answered(payload, self._open)
        if question_id is None or (answer := self._open[question_id]).done():
            return False
        answer.set_result(payload)
        return True

    def end(self) -> None:
        """The client has gone."""
        for answer in self._open.values():
            if not answer.done():
                answer.set_result(None)

    async def ask(self, question_id: str, send: Callable[[], bool], seconds: float) -> str | None:
        """Ask a question, and wait for its answer.

        Args:
            question_id: of the question.
            send: sends it; returns whether it was queued.
            seconds: to wait at most.

        Returns:
            The text of the answer; ``None`` if the question was not queued, or the client has gone.

        Raises:
            TimeoutError: there was none in time.
            BrokerError: too many questions are open.
        """
        if len(self._open) >= MAX_OPEN:
            raise BrokerError(
                f"{MAX_OPEN} questions that this client was asked are open; await the answers before asking more, "
                "or give ask() a shorter timeout"
            )
        answer: Answer = asyncio.get_running_loop().create_future()
        self._open[question_id] = answer
        try:
            if not send():
                return None
            self._times.start(answer, seconds)
            return await answer
        finally:
            self._times.stop(answer)
            del self._open[question_id]
            del answer  # which keeps its exception, whose traceback refers to this frame
            if not self._open:
                self._on_none()


def _is_late(answer: Answer) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
