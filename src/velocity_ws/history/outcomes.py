"""Outcomes: what is asked of a store, and what becomes of it, in time. Knows no store and no connection."""

from __future__ import annotations

import asyncio
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from velocity_ws.errors import BackplaneUnavailable, HistoryError
from velocity_ws.history.items import Refused

__all__ = ["Asked", "Failure", "Timeouts", "error_of", "failure_of", "unavailable"]

A = TypeVar("A")
R = TypeVar("R")


class Failure(NamedTuple):
    """Why something has no result.

    Attributes:
        outcome: ``refused``: it was not done; ``unknown``: it may be done; ``conflict``: it was not, as an idempotency
            key stands for another message.
        why: what the error says.
    """

    outcome: Literal["refused", "unknown", "conflict"]
    why: str


class Timeouts:
    """One timer for all that waits for an outcome, as hardly anything waits until its time is over. On one loop."""

    def __init__(self) -> None:
        self._waiting: dict[Asked[Any, Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def begin(self, asked: Asked[Any, Any], until: float) -> None:
        """Fail it where it is not settled at a time of the loop; `end` has to be called."""
        self._waiting[asked] = until
        if self._timer is None or until < self._due:
            self._arm(until)

    def end(self, asked: Asked[Any, Any]) -> None:
        """It is waited for no more. The timer stays, for the next."""
        del self._waiting[asked]

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        for asked, until in self._waiting.items():
            if until <= self._due:
                asked.fail("the engine did not answer in time")
        left = [until for asked, until in self._waiting.items() if not asked.is_over]
        if left:
            self._arm(min(left))


class Asked(Generic[A, R]):
    """Something that is asked of a store.

    What becomes of it is kept apart from the future on which its caller waits: that one is cancelled with its caller,
    who takes nothing back by it.

    Attributes:
        what: is asked.
        outcome: what became of it, once `is_over`.
        is_over: whether that is settled.
        is_handed_over: whether the engine may be changing something for it.
    """

    __slots__ = ("_done", "is_handed_over", "is_over", "outcome", "what")
    outcome: R | Failure

    def __init__(self, what: A) -> None:
        self.what = what
        self.is_over = self.is_handed_over = False
        self._done: asyncio.Future[None] | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether its caller waits no more."""
        return self._done is not None and self._done.cancelled()

    def settle(self, outcome: R | Failure) -> bool:
        """Set the outcome; the first one stands. Whether this is the first."""
        if self.is_over:
            return False
        self.outcome = outcome
        self.is_over = True
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
        return True

    def answer(self, answer: R | Refused) -> None:
        """Settle it by what a store answers."""
        self.settle(failure_of(answer) if isinstance(answer, Refused) else answer)

    def fail(self, why: str) -> None:
        """Settle it without an answer."""
        self.settle(Failure("unknown" if self.is_handed_over else "refused", why))

    async def wait(self, until: float, timeouts: Timeouts) -> R:
        """Wait for the result. Cancelling this takes nothing back.

        Args:
            until: when it is settled at the latest, in the loop's time.
            timeouts: sees to that.

        Raises:
            BackplaneUnavailable: it was not done, or that is not known.
            HistoryError: the idempotency key stands for another message.
        """
        if not self.is_over:
            self._done = asyncio.get_running_loop().create_future()
            timeouts.begin(self, until)
            try:
                await self._done
            finally:
                timeouts.end(self)
        return self.result()

    def result(self) -> R:
        """The result, once it is settled; raises as `wait` does."""
        if isinstance(self.outcome, Failure):
            raise error_of(self.outcome)
        return self.outcome


def failure_of(answer: Refused) -> Failure:
    """What it means that a store has refused something."""
    return Failure("conflict" if answer.reason == "conflict" else "refused", str(answer))


def error_of(failure: Failure) -> BackplaneUnavailable | HistoryError:
    """The error about something that was not done, or of which that is not known."""
    outcome, why = failure
    return HistoryError(why, "conflict") if outcome == "conflict" else unavailable(why, outcome)


def unavailable(why: str, outcome: Literal["refused", "unknown"] = "refused") -> BackplaneUnavailable:
    """The error about something that was not done with a room's log, or of which that is not known."""
    hint = "it was not done" if outcome == "refused" else "whether it was done is not known"
    return BackplaneUnavailable(why, outcome, hint=hint)
