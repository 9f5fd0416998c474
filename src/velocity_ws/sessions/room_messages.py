"""RoomMessages: who may send what names a room, and which handler it has. Knows no queue; calls no hook."""

from __future__ import annotations

from typing import Any

from velocity_ws.errors import ClientError
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.kinds import Kinds
from velocity_ws.sessions.hub import Hub
from velocity_ws.stats import Counters

__all__ = ["MAY_NOT_BE_IN", "RoomMessages"]

MAY_NOT_BE_IN = "you may not be in this room"
"""What is said with ``FORBIDDEN`` of a room, be it that it does not exist: who asks must not learn which rooms do."""


class RoomMessages:
    """What clients send to a room. On the broker's loop only."""

    def __init__(self, kinds: Kinds, hub: Hub[Any], counters: Counters) -> None:
        """
        Args:
            kinds: the kinds of rooms, with their handlers.
            hub: knows who is in which room.
            counters: where those are counted that are refused.
        """
        self._kinds = kinds
        self._hub = hub
        self._counters = counters

    async def validate(self, client_id: str, room: str) -> None:
        """Check that a client is in a room which it names; while it is asked whether it may stay, wait for the answer.

        Raises:
            ClientError: it is not.
        """
        while (hold := self._hub.hold_of(client_id, room)) is not None and hold.asked:  # perhaps again meanwhile
            await hold.wait_answered()
        if self._hub.joined_at(client_id, room) is None:
            self._counters.invalid += 1
            raise ClientError("FORBIDDEN", "you are not in this room")

    async def handler(self, client_id: str, room: str, event: str, values: dict[str, Any]) -> Hook | None:
        """Find the handler that the kind of a room has for an event; ``None`` if it has none.

        Args:
            client_id: of the sender.
            room: the room that it names.
            event: the event of the message.
            values: gets what the handler can ask for beside what every handler can.

        Raises:
            ClientError: the sender is not in the room.
        """
        await self.validate(client_id, room)
        found = self._kinds.of(room)
        if found is None:
            return None
        kind, parameters = found
        values.update(parameters, room=room)
        return kind.handlers.get(event)
