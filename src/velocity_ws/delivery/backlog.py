"""Backlog: messages that wait for one client, where one with a key replaces an older one. Knows no transport.

Made when the first message with a key has to wait, so that nobody else pays for it.

A replacement keeps the place of what it replaces, unless a message without a key has come after that: then it goes to
the end. So each key has its turn, however often it changes. And what has a key stays in order with all that has none:
a client never sees the new position of a cursor before the snapshot that was sent before it, which would undo it. Only
messages of different keys may change places.
"""

from __future__ import annotations

from collections import deque

from velocity_ws.messages.outbound import PreparedMessage, Slot

__all__ = ["Backlog"]


class _Place:
    """The place of a message with a key.

    Attributes:
        message: the message; ``None`` once one further back has replaced it.
        slot: its event, its key and the room that it carries.
        before: how many messages without a key had come before it.
    """

    __slots__ = ("before", "message", "slot")

    def __init__(self, message: PreparedMessage, slot: Slot, before: int) -> None:
        self.message: PreparedMessage | None = message
        self.slot = slot
        self.before = before


class Backlog:
    """A queue in which a message replaces another with the same event and key. On the broker's loop only."""

    __slots__ = ("_empty", "_line", "_places", "_without_key")

    def __init__(self) -> None:
        self._line: deque[PreparedMessage | _Place] = deque()
        self._places: dict[Slot, _Place] = {}
        self._without_key = 0  # came so far
        self._empty = 0  # places in the line

    def __len__(self) -> int:
        return len(self._line) - self._empty

    def waiting(self, slot: Slot) -> PreparedMessage | None:
        """The message that one with this event and key would replace, if there is one."""
        place = self._places.get(slot)
        return None if place is None else place.message

    def add(self, message: PreparedMessage) -> None:
        """Add a message; it replaces what `waiting` returns."""
        slot = message.slot
        if slot is None:
            self._without_key += 1
            self._line.append(message)
            return
        place = self._places.get(slot)
        if place is not None and place.before == self._without_key:
            place.message = message
            return
        self._places[slot] = new = _Place(message, slot, self._without_key)
        self._line.append(new)
        if place is not None:
            place.message = None
            self._empty += 1
            self._tidy()

    def pop(self) -> PreparedMessage:
        """Take the first message.

        Raises:
            IndexError: there is none.
        """
        while True:
            first = self._line.popleft()
            if not isinstance(first, _Place):
                return first
            if first.message is not None:
                del self._places[first.slot]
                return first.message
            self._empty -= 1

    def _tidy(self) -> None:
        """Take the empty places out when they are the most: the line is no longer than twice what it holds."""
        if self._empty > len(self._line) // 2:
            self._line = deque(
                [item for item in self._line if not isinstance(item, _Place) or item.message is not None]
            )
            self._empty = 0
