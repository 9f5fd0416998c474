"""Who is here and in which room. Pure and synchronous: no asyncio, no I/O, no locks; one thread uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from velocity_ws.errors import ClientNotFound
from velocity_ws.messages import Address, Frame

__all__ = ["Hub", "Member"]


class Member(Protocol):
    """What the hub needs of a connection."""

    @property
    def id(self) -> str:
        """Unique among all members."""

    def offer(self, frame: Frame) -> bool:
        """Take a message for this client, without waiting and without raising; whether it was queued."""


M = TypeVar("M", bound=Member)


class Hub(Generic[M]):
    """The members of one node and their rooms. A room exists as long as somebody is in it."""

    def __init__(self, fan_out: Callable[[Iterable[M], Frame], int] | None = None) -> None:
        """
        Args:
            fan_out: offers a frame to members and says how many queued it; by default one after the other.
        """
        self._fan_out = fan_out or _offer_to_each
        self._members: dict[str, M] = {}
        self._rooms: dict[str, dict[str, M]] = {}
        self._rooms_of: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member_id: str) -> bool:
        return member_id in self._members

    def get(self, member_id: str) -> M | None:
        """The member of that id, if it is here."""
        return self._members.get(member_id)

    def members(self) -> list[M]:
        """Everyone, in order of arrival. Safe from any thread: it is one copy."""
        return list(self._members.values())

    def rooms(self) -> list[str]:
        """Every room with a member. Safe from any thread."""
        return list(self._rooms)

    def room_members(self, room: str) -> list[M]:
        """Who is in a room, in order of joining. Safe from any thread."""
        return list(self._rooms.get(room, {}).values())

    def rooms_of(self, member_id: str) -> frozenset[str]:
        """The rooms a member is in. Safe from any thread."""
        return frozenset(self._rooms_of.get(member_id, ()))

    def add(self, member: M) -> None:
        """Let a member in."""
        self._members[member.id] = member

    def remove(self, member_id: str) -> frozenset[str]:
        """Take a member out of everything; the rooms it was in. Harmless when it is not here."""
        self._members.pop(member_id, None)
        left = frozenset(self._rooms_of.pop(member_id, ()))
        for room in left:
            self._take_out(member_id, room)
        return left

    def join(self, member_id: str, room: str) -> bool:
        """Put a member into a room; whether it was not there before.

        Raises:
            ClientNotFound: no such member.
        """
        member = self._members.get(member_id)
        if member is None:
            raise ClientNotFound(member_id)
        rooms = self._rooms_of.setdefault(member_id, set())
        if room in rooms:
            return False
        rooms.add(room)
        self._rooms.setdefault(room, {})[member_id] = member
        return True

    def leave(self, member_id: str, room: str) -> bool:
        """Take a member out of a room; whether it was there."""
        rooms = self._rooms_of.get(member_id)
        if rooms is None or room not in rooms:
            return False
        rooms.remove(room)
        if not rooms:
            del self._rooms_of[member_id]
        self._take_out(member_id, room)
        return True

    def _take_out(self, member_id: str, room: str) -> None:
        members = self._rooms[room]
        del members[member_id]
        if not members:
            del self._rooms[room]

    def select(self, address: Address) -> list[M]:
        """The members an address means: nobody twice, unknown names mean nobody."""
        if address.kind == "all":
            found: Iterable[M] = self._members.values()
        elif address.kind == "clients":
            found = [m for name in dict.fromkeys(address.names) if (m := self._members.get(name)) is not None]
        elif len(address.names) == 1:
            (room,) = address.names
            found = self._rooms.get(room, {}).values()
        else:
            union: dict[str, M] = {}
            for room in address.names:
                union.update(self._rooms.get(room, {}))
            found = union.values()
        if address.excluded:
            return [member for member in found if member.id not in address.excluded]
        return list(found)

    def deliver(self, address: Address, frame: Frame) -> int:
        """Offer a frame to everyone the address means; how many queued it.

        Offering may end a member (its queue is full) and so change the hub: it works on a copy.
        """
        return self._fan_out(self.select(address), frame)


def _offer_to_each(members: Iterable[Member], frame: Frame) -> int:
    return sum([member.offer(frame) for member in members])
