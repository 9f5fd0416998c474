"""Outcomes: what is asked of a store, and what becomes of it, in time. Knows no store and no connection."""

from __future__ import annotations

import asyncio
from typing import Generic, Literal, NamedTuple, TypeVar

from velocity_ws.errors import BackplaneUnavailable, HistoryError
from velocity_ws.history.items import Refused

__all__ = ["Asked", "Failure", "unavailable"]

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
        if isinstance(answer, Refused):
            self.settle(Failure("conflict" if answer.reason == "conflict" else "refused", str(answer)))
        else:
            self.settle(answer)

    def fail(self, why: str) -> None:
        """Settle it without an answer."""
        self.settle(Failure("unknown" if self.is_handed_over else "refused", why))

    async def wait(self, until: float) -> R:
        """Wait for the result. Cancelling this takes nothing back.

        Args:
            until: when it is settled at the latest, in the loop's time.

        Raises:
            BackplaneUnavailable: it was not done, or that is not known.
            HistoryError: the idempotency key stands for another message.
        """
        if not self.is_over:
            loop = asyncio.get_running_loop()
            self._done = loop.create_future()
            timer = loop.call_at(until, self.fail, "the engine did not answer in time")
            try:
                await self._done
            finally:
                timer.cancel()
        return self.result()

    def result(self) -> R:
        """The result, once it is settled; raises as `wait` does."""
        if isinstance(self.outcome, Failure):
            outcome, why = self.outcome
            if outcome == "conflict":
                raise HistoryError(why, "conflict")
            raise unavailable(why, outcome)
        return self.outcome


def unavailable(why: str, outcome: Literal["refused", "unknown"] = "refused") -> BackplaneUnavailable:
    """The error about something that was not done with a room's log, or of which that is not known."""
    hint = "it was not done" if outcome == "refused" else "whether it was done is not known"
    return BackplaneUnavailable(why, outcome, hint=hint)
