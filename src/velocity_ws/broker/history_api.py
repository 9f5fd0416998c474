"""HistoryAPI: what an application asks of rooms that remember, the same for a `Broker` and an `Emitter`.

Knows the directory, and how its calls get to the loop where that lives.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from velocity_ws.broker.directory import Directory
from velocity_ws.broker.sending import SendingAPI
from velocity_ws.broker.target import Publish, Tell
from velocity_ws.history.values import Entry
from velocity_ws.messages.names import validate_room

__all__ = ["HistoryAPI", "Run"]

T = TypeVar("T")


class Run(Protocol):
    """Awaits a coroutine function on the loop of the directory, from any loop."""

    def __call__(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> Coroutine[Any, Any, T]:
        """What ``function(*args)`` returns."""


class HistoryAPI(SendingAPI):
    """What rooms remember, on whatever node it was said. From any loop, in a coroutine."""

    def __init__(self, directory: Directory, run: Run, publish: Publish, tell: Tell) -> None:
        """
        Args:
            directory: what is asked.
            run: the way to ask it.
            publish: sends a message; returns for how many clients of this process it was queued.
            tell: tells all nodes something.
        """
        self._directory = directory
        self._run = run
        super().__init__(publish, tell)

    async def history(
        self, room: str, since: str | None = None, limit: int = 100, reverse: bool = False
    ) -> list[Entry]:
        """The messages that a room remembers. From any loop, in a coroutine.

        Args:
            room: the name of a room with history.
            since: only those after this position, the ``at`` of a message.
            limit: how many at most, 1 or more.
            reverse: whether the newest come first; else the oldest do.

        Raises:
            InvalidNameError: the room is not a string of at most 256 characters.
            HistoryError: the room has no history; ``since`` is no position, or what came after it is not all there any
                more, for its ``reason``; or the limit is no number.
            BackplaneUnavailable: the engine did not answer.
        """
        validate_room(room)
        return await self._run(self._directory.history, room, since, limit, reverse)

    async def clear_history(self, room: str) -> None:
        """Have a room forget its messages, and the names of ``dedupe``. From any loop, in a coroutine.

        Members are told nothing, and get what is said from now on. Who comes back with a position of before gets
        nothing of what was said until now (``evicted``).

        Args:
            room: the name of a room with history.

        Raises:
            InvalidNameError: the room is not a string of at most 256 characters.
            HistoryError: the room has no history.
            BackplaneUnavailable: the engine did not do it, or it is not known whether it did.
        """
        validate_room(room)
        await self._run(self._directory.clear_history, room)
