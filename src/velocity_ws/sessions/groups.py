"""Groups: the clients of one node, their rooms and users. Knows no event loop, no other node and no message."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Generic, Literal, Protocol, TypeVar

from velocity_ws.errors import ClientNotFound
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.compact import AnyGroup, GroupOfOne, with_entry
from velocity_ws.sessions.holds import Holds

__all__ = ["Groups", "HubMember", "Kind", "M", "Watcher"]


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


class Groups(Generic[M]):
    """The members of one node and their rooms. A room exists as long as it has a member.

    On the broker's loop only, except where a method says otherwise.

    Attributes:
        came: told of each member that has come into a room; ``None`` where nobody is.
    """

    def __init__(self, watcher: Watcher | None) -> None:
        """
        Args:
            watcher: told which rooms and users have members.
        """
        self.came: Callable[[M, str], None] | None = None
        self._watcher = watcher
        self._members: dict[str, M] = {}
        self._users: dict[str, AnyGroup[M]] = {}
        self._user_of: dict[str, str] = {}
        self._rooms: dict[str, AnyGroup[M]] = {}
        self._rooms_of: dict[str, Mapping[str, float]] = {}
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

    def count(self, room: str, excluded: frozenset[str] = frozenset()) -> int:
        """How many members a room has, but for those of some ids."""
        members = self._rooms.get(room, ())
        return len(members) - (sum([name in members for name in excluded]) if excluded else 0)

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
        rooms, group = self._rooms_of.get(member_id), self._rooms.get(room)
        if rooms is not None and room in rooms:
            return False
        # Each client may come with a copy of the name of its own, which is not kept.
        name = room if group is None else group.name
        self._rooms_of[member_id] = with_entry(rooms, name, time.time())
        self._put(self._rooms, "room", room, member)
        if self.came is not None:
            self.came(member, room)
        return True

    def leave(self, member_id: str, room: str) -> bool:
        """Take a member out of a room; whether it was there."""
        rooms = self._rooms_of.get(member_id)
        if rooms is None or room not in rooms:
            return False
        if isinstance(rooms, dict) and len(rooms) > 1:
            del rooms[room]
        else:
            del self._rooms_of[member_id]
        if self._held:
            self._holds.end(member_id, room)
        if self._take_out(self._rooms, room, member_id):
            self._tell_closed("room", room)
        return True

    def _put(self, groups: dict[str, AnyGroup[M]], kind: Kind, name: str, member: M) -> None:
        group = groups.get(name)
        if group is not None:
            groups[name] = group.with_member(member)
            return
        if self._watcher is not None:
            self._watcher.opened(kind, name)
        groups[name] = GroupOfOne(name, member)

    def _take_out(self, groups: dict[str, AnyGroup[M]], name: str, member_id: str) -> bool:
        """Take a member out of a group; whether that was its last."""
        rest = groups[name].without(member_id)
        if rest is None:
            del groups[name]
        return rest is None

    def _tell_closed(self, kind: Kind, name: str) -> None:
        if self._watcher is not None:
            self._watcher.closed(kind, name)
