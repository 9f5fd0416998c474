"""Resume: the first message of a client that says where it stopped, apart from all others. Knows no queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["First", "Resume"]


class Resume(bytes):
    """The text of a client's first message, by which it says where it stopped: no event of the application's."""


class LooksAtFirst(Protocol):
    """Has the first message of a client looked at."""

    first: First | None


class First:
    """Looks at a client's first message. On the broker's loop only."""

    __slots__ = ("_is_resume", "_limit")

    def __init__(self, is_resume: Callable[[str | bytes], bool], limit: int) -> None:
        """
        Args:
            is_resume: told of the first message; whether it says where the client stopped.
            limit: bytes that it may have.
        """
        self._is_resume = is_resume
        self._limit = limit

    def take(self, payload: str | bytes, size: int, inbox: LooksAtFirst) -> Resume | None:
        """Look at the first message; the same, where it says where the client stopped: it counts for no limit."""
        inbox.first = None
        if size > self._limit or not self._is_resume(payload):
            return None
        return Resume(str(payload).encode())
