"""Hub: the clients of one node, their rooms and users. Knows no event loop, no other node and no hook."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Generic, Literal, Protocol, TypeVar

from velocity_ws.errors import ClientNotFound
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.holds import Hold, Holds

__all__ = ["Hub", "HubMember"]


class HubMember(Protocol):
    """What the hub needs of a connection."""

    @property
    def id(self) -> str:
        """Unique among all members."""

    @property
    def user_id(self) -> str | None:
        """The id of its user when it is added; a user may have many members."""

    def offer(self, message: PreparedMessage) -> bool:
        """Take a message for this client, without waiting and without raising; whether it was queued."""


M = TypeVar("M", bound=HubMember)

Kind = Literal["room", "user"]


class Watcher(Protocol):
    """What is told which rooms and users have members here."""

    def opened(self, kind: Kind, name: str) -> None:
        """It has a first member."""

    def closed(self, kind: Kind, name: str) -> None:
        """It has none any more."""


class Hub(Generic[M]):
    """The members of one node and their rooms. A room exists as long as it has a member.

    On the broker's loop only, except where a method says otherwise.
    """

    def __init__(
        self, fan_out: Callable[[Iterable[M], PreparedMessage], int] | None = None, watcher: Watcher | None = None
    ) -> None:
        """
        Args:
            fan_out: offers a message to members and says how many queued it; by default one after the other.
            watcher: told which rooms and users have members.
        """
        self._fan_out = fan_out or _offer_to_each
        self._watcher = watcher
        self._members: dict[str, M] = {}
        self._users: dict[str, dict[str, M]] = {}
        self._user_of: dict[str, str] = {}
        self._rooms: dict[str, dict[str, M]] = {}
        self._rooms_of: dict[str, dict[str, float]] = {}
        self._holds: Holds[M] = Holds()
        self._held = self._holds.by_room

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member_id: str) -> bool:
        return member_id in self._members

    def get(self, member_id: str) -> M | None:
        """The member of that id, if it is here."""
        return self._members.get(member_id)

    def members(self) -> list[M]:
        """Everyone, in order of arrival. From any thread: it is one copy."""
        return list(self._members.values())

    def rooms(self) -> list[str]:
        """Every room with a member. From any thread."""
        return list(self._rooms)

    def room_members(self, room: str) -> list[M]:
        """The members of a room, in order of joining. From any thread."""
        return list(self._rooms.get(room, {}).values())

    def user_members(self, user_id: str) -> list[M]:
        """All of a user, in order of arrival. From any thread."""
        return list(self._users.get(user_id, {}).values())

    def joined_at(self, member_id: str, room: str) -> float | None:
        """When a member came into a room, in seconds since the epoch; ``None`` where it is not in it."""
        return self._rooms_of.get(member_id, {}).get(room)

    def rooms_of(self, member_id: str) -> frozenset[str]:
        """The rooms a member is in. From any thread."""
        return frozenset(self._rooms_of.get(member_id, ()))

    def add(self, member: M) -> None:
        """Let a member in."""
        self._members[member.id] = member
        user_id = member.user_id
        if user_id is not None:
            self.set_user(member.id, user_id)

    def set_user(self, member_id: str, user_id: str | None) -> bool:
        """Make a member another user's, or nobody's; whether it was not before. Harmless when it is not here."""
        member = self._members.get(member_id)
        before = self._user_of.get(member_id)
        if member is None or before == user_id:
            return False
        if user_id is None:
            del self._user_of[member_id]
        else:
            self._user_of[member_id] = user_id
            self._put(self._users, "user", user_id, member)
        if before is not None and self._take_out(self._users, before, member_id):
            self._tell_closed("user", before)
        return True

    def remove(self, member_id: str) -> frozenset[str]:
        """Take a member out of everything; the rooms it was in. Harmless when it is not here."""
        self._members.pop(member_id, None)
        left = frozenset(self._rooms_of.pop(member_id, ()))
        user_id = self._user_of.pop(member_id, None)
        is_last = user_id is not None and self._take_out(self._users, user_id, member_id)
        if self._held:
            for room in left:
                self._holds.end(member_id, room)
        closed = left and [room for room in left if self._take_out(self._rooms, room, member_id)]
        # Nothing of it is left here, whatever the watcher does.
        if user_id is not None and is_last:
            self._tell_closed("user", user_id)
        for room in closed:
            self._tell_closed("room", room)
        return left

    def join(self, member_id: str, room: str) -> bool:
        """Put a member into a room; whether it was not there before.

        Raises:
            ClientNotFound: no such member.
        """
        member = self._members.get(member_id)
        if member is None:
            raise ClientNotFound(member_id)
        rooms = self._rooms_of.setdefault(member_id, {})
        if room in rooms:
            return False
        rooms[room] = time.time()
        self._put(self._rooms, "room", room, member)
        return True

    def leave(self, member_id: str, room: str) -> bool:
        """Take a member out of a room; whether it was there."""
        rooms = self._rooms_of.get(member_id)
        if rooms is None or room not in rooms:
            return False
        del rooms[room]
        if not rooms:
            del self._rooms_of[member_id]
        if self._held:
            self._holds.end(member_id, room)
        if self._take_out(self._rooms, room, member_id):
            self._tell_closed("room", room)
        return True

    def hold(self, member_id: str, room: str, limit: int) -> Hold[M] | None:
        """Keep what is said in a room from one of its members, from now on, until `release`, or it leaves.

        It stays a member for everything else. What it is sent as itself, as its user or as one of all is not kept.

        Args:
            member_id: the member's.
            room: the room.
            limit: bytes that are kept.

        Returns:
            What is kept; ``None`` where it is not in the room. Where something is kept already, that.
        """
        if room not in self._rooms_of.get(member_id, ()):
            return None
        return self._holds.begin(self._members[member_id], room, limit)

    def hold_of(self, member_id: str, room: str) -> Hold[M] | None:
        """What is said in a room and kept from one of its members; ``None`` where nothing is kept from it."""
        return self._held[room].get(member_id) if room in self._held else None

    def release(self, hold: Hold[M]) -> None:
        """Give a member what was kept from it, in order, and keep nothing more. Harmless when it is over."""
        if not hold.is_over:
            self._holds.end(hold.member.id, hold.room)
            hold.deliver()

    def _put(self, groups: dict[str, dict[str, M]], kind: Kind, name: str, member: M) -> None:
        group = groups.get(name)
        if group is None:
            group = groups[name] = {}
            if self._watcher is not None:
                self._watcher.opened(kind, name)
        group[member.id] = member

    def _take_out(self, groups: dict[str, dict[str, M]], name: str, member_id: str) -> bool:
        """Take a member out of a group; whether that was its last."""
        group = groups[name]
        del group[member_id]
        if not group:
            del groups[name]
        return not group

    def _tell_closed(self, kind: Kind, name: str) -> None:
        if self._watcher is not None:
            self._watcher.closed(kind, name)

    def select(self, address: Address) -> list[M]:
        """The members an address means: nobody twice, unknown names mean nobody."""
        if address.kind == "all":
            found: Iterable[M] = self._members.values()
        elif address.kind == "clients":
            found = [m for name in dict.fromkeys(address.names) if (m := self._members.get(name)) is not None]
        else:
            groups = self._users if address.kind == "users" else self._rooms
            if len(address.names) == 1:
                (name,) = address.names
                found = groups.get(name, {}).values()
            else:
                union: dict[str, M] = {}
                for name in address.names:
                    union.update(groups.get(name, {}))
                found = union.values()
        if address.excluded:
            return [member for member in found if member.id not in address.excluded]
        return list(found)

    def recipients(self, address: Address) -> list[str]:
        """The ids of the members that get a message at once; not of those from which it is kept."""
        kept = self._holds.of(address, self._rooms_of) if self._held else {}
        return [member.id for member in self.select(address) if member.id not in kept]

    def deliver_to(self, room: str, member_ids: Iterable[str], message: PreparedMessage) -> None:
        """Offer a message of a room to some of its members, as `deliver` does to all of them."""
        for member_id in member_ids:
            member = self._rooms.get(room, {}).get(member_id)
            hold = self.hold_of(member_id, room)
            if hold is not None:
                hold.take(message, None)
            elif member is not None:
                member.offer(message)

    def deliver(self, address: Address, message: PreparedMessage, had: set[str] | None = None) -> int:
        """Offer a message to everyone the address means; how many queued it.

        Offering may end a member (its queue is full) and so change the hub: it works on a copy.

        Args:
            address: who.
            message: the message.
            had: the ids of those who have had it by another room, where it comes by several, one after the other.
        """
        if not self._held:
            return self._fan_out(self.select(address), message)
        kept = self._holds.of(address, self._rooms_of)
        queued = self._fan_out([member for member in self.select(address) if member.id not in kept], message)
        if had is None and len(address.names) > 1:
            had = set()
        for holds in kept.values():
            queued += sum([hold.take(message, had) for hold in holds]) > 0
        return queued


def _offer_to_each(members: Iterable[HubMember], message: PreparedMessage) -> int:
    return sum([member.offer(message) for member in members])
