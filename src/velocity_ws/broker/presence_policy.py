"""PresencePolicy: which rooms have presence, and which function says what of their users. Knows no client."""

from __future__ import annotations

from collections.abc import Callable

from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.kinds import Kinds

__all__ = ["PresencePolicy"]


class PresencePolicy:
    """What a broker was made with, and the kinds of rooms that have presence."""

    def __init__(self, has_presence: Callable[[str], bool] | None, kinds: Kinds) -> None:
        """
        Args:
            has_presence: the application's function; ``None`` where it has none.
            kinds: the kinds of rooms.
        """
        self._has_presence = has_presence
        self._kinds = kinds

    @property
    def is_needed(self) -> bool:
        """Whether any room may have presence."""
        return self._has_presence is not None or self._kinds.has_presence

    def is_wanted(self, room: str) -> bool:
        """Whether a room has presence.

        Raises:
            Exception: whatever the application's function raises.
        """
        found = self._kinds.of(room) if self._kinds.all else None
        if found is not None and found[0].presence:
            return True
        return self._has_presence is not None and self._has_presence(room)

    def info_of(self, room: str) -> Hook | None:
        """The function that says what members of a room are told of a user, if there is one."""
        found = self._kinds.of(room) if self._kinds.all else None
        return None if found is None else found[0].presence_info
