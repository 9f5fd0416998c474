"""Holds: members that get nothing of a room for a while: it is asked whether they may stay, or they catch up.

What is said in a room with history is in its log, and only the member's place in it is kept; of other rooms, all of it.
Knows no hub, no hook and no log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Generic, Protocol, TypeVar

from velocity_ws.messages.address import Address
from velocity_ws.messages.events import encode_missed
from velocity_ws.messages.outbound import PreparedMessage

__all__ = ["Hold", "Holds"]

MAX_HELD = 1000
"""Messages that are held for a member in one room."""


class Receiver(Protocol):
    """Somebody for whom messages are held."""

    @property
    def id(self) -> str:
        """Its id, unique on this node."""

    def offer(self, message: PreparedMessage) -> bool:
        """Take a message, without waiting and without raising; whether it was queued."""


M = TypeVar("M", bound=Receiver)


class Hold(Generic[M]):
    """The messages of one room for one member, in order, bounded in bytes and number. On the broker's loop only.

    Attributes:
        member: whose they are.
        room: the room.
        asked: whether it is asked if the member may stay.
        is_catching: whether the member has yet to get what was said before, and what is said now comes after that.
        cursor: the member's place in the room's log; ``None`` where the room has none, or where it is not known.
        lost: how many messages there was no room for.
        left_out: how many were volatile, and are not held.
        is_over: whether nothing is held any more: it was released, or the member is out of the room.
    """

    __slots__ = (
        "_answered", "_limit", "_messages", "_size", "_waiters", "asked", "cursor", "is_catching", "is_over",
        "left_out", "lost", "member", "room",
    )  # fmt: skip

    def __init__(self, member: M, room: str, limit: int) -> None:
        """
        Args:
            member: whose it is.
            room: the room.
            limit: bytes that are held; one larger message is taken if there is no other.
        """
        self.member = member
        self.room = room
        self.is_over = self.is_catching = self.asked = False
        self.cursor: Any = None
        self._limit = limit
        self._messages: list[tuple[PreparedMessage, set[str] | None]] = []
        self._size = 0
        self.lost = self.left_out = 0
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._answered: dict[asyncio.Future[None], None] = {}

    def take(self, message: PreparedMessage, had: set[str] | None) -> bool:
        """Keep a message; whether there was room for it. After one that was lost, all are, and so the gap has an end.

        Args:
            message: the message.
            had: the ids of those who have had it by another of its rooms; ``None`` where it has no other.
        """
        if message.volatile:  # which does not wait
            self.left_out += 1
            return False
        messages = self._messages
        if self.lost or (messages and (len(messages) >= MAX_HELD or self._size + message.cost > self._limit)):
            self.lost += 1
            return False
        messages.append((message, had))
        self._size += message.cost
        return True

    async def wait_over(self) -> None:
        """Wait until nothing is held any more."""
        if not self.is_over:
            await _wait(self._waiters)

    async def wait_answered(self) -> None:
        """Wait until it is not asked if the member may stay, or nothing is held any more."""
        if self.asked and not self.is_over:
            await _wait(self._answered)

    def answered(self) -> None:
        """The member may stay."""
        self.asked = False
        _wake(self._answered)

    def end(self) -> None:
        """Hold nothing more; what was held can still be delivered."""
        self.is_over = True
        _wake(self._waiters)
        _wake(self._answered)

    def deliver(self) -> None:
        """Give the member all that was held, and a ``gap`` for what was lost."""
        messages, self._messages = self._messages, []
        for message, had in messages:
            if had is None:
                self.member.offer(message)
            elif self.member.id not in had:
                had.add(self.member.id)
                self.member.offer(message)
        if self.lost:
            self.member.offer(encode_missed(self.room, self.lost))


class Holds(Generic[M]):
    """All holds of one node. On the broker's loop only.

    Attributes:
        by_room: the holds, by room and the member's id. It stays the same object, and is empty where nothing is held.
    """

    def __init__(self) -> None:
        self.by_room: dict[str, dict[str, Hold[M]]] = {}

    def begin(self, member: M, room: str, limit: int) -> Hold[M]:
        """The hold of a member in a room; a new one where there is none."""
        held = self.by_room.setdefault(room, {})
        hold = held.get(member.id)
        if hold is None:
            hold = held[member.id] = Hold(member, room, limit)
        return hold

    def end(self, member_id: str, room: str) -> None:
        """Hold nothing more for a member in a room. Harmless where nothing is held."""
        held = self.by_room.get(room)
        if held is None:
            return
        hold = held.pop(member_id, None)
        if hold is not None:
            hold.end()
        if not held:
            del self.by_room[room]

    def of(self, address: Address, rooms_of: Mapping[str, Collection[str]]) -> dict[str, list[Hold[M]]]:
        """Those from whom a message has to be kept: they are in none of its rooms without a hold.

        Args:
            address: whom it is for.
            rooms_of: the rooms of each member, by its id.

        Returns:
            Their holds in its rooms, by their ids.
        """
        kept: dict[str, list[Hold[M]]] = {}
        if address.kind != "rooms":
            return kept
        names = dict.fromkeys(address.names)
        for room in names:
            for member_id, hold in self.by_room.get(room, {}).items():
                if member_id not in address.excluded:
                    kept.setdefault(member_id, []).append(hold)
        if len(names) == 1:
            return kept
        return {
            member_id: holds
            for member_id, holds in kept.items()
            if len(holds) == sum([room in names for room in rooms_of[member_id]])
        }


async def _wait(waiters: dict[asyncio.Future[None], None]) -> None:
    waiter = asyncio.get_running_loop().create_future()
    waiters[waiter] = None
    try:
        await waiter
    finally:  # also where the caller does not wait any more
        waiters.pop(waiter, None)


def _wake(waiters: dict[asyncio.Future[None], None]) -> None:
    for waiter in waiters:
        if not waiter.done() and not waiter.get_loop().is_closed():
            waiter.set_result(None)
    waiters.clear()
