"""Hub: what the clients of one node are sent, and what is held for them. Knows no event loop and no hook."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.groups import Groups, HubMember, Kind, M, Watcher
from velocity_ws.sessions.holds import Hold

__all__ = ["Hub", "HubMember", "Kind"]


class Logs(Protocol):
    """What a hub asks about rooms whose messages are kept."""

    def place(self, room: str) -> object | None:
        """The place of a room's members in its log; ``None`` where it has no log, or that is not known."""

    def has_log(self, room: str) -> bool:
        """Whether a room has a log."""

    def catch_up(self, hold: Hold[Any]) -> None:
        """Give a member what follows its place, and `Hub.finish` the hold then."""


class Hub(Groups[M]):
    """The members of one node, as those who send to them see them. On the broker's loop only.

    Attributes:
        logs: knows rooms whose messages are kept; ``None`` where there are none.
    """

    def __init__(
        self, fan_out: Callable[[Iterable[M], PreparedMessage], int] | None = None, watcher: Watcher | None = None
    ) -> None:
        """
        Args:
            fan_out: offers a message to members and says how many queued it; by default one after the other.
            watcher: told which rooms and users have members.
        """
        super().__init__(watcher)
        self._fan_out = fan_out or _offer_to_each
        self.logs: Logs | None = None

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
        hold = self._holds.begin(self._members[member_id], room, limit)
        if not hold.asked and not hold.is_catching and self.logs is not None:
            hold.cursor = self.logs.place(room)
        hold.asked = True
        return hold

    def hold_back(self, member_id: str, room: str, limit: int) -> Hold[M]:
        """Let a member that has just come into a room get nothing of it until it has caught up, and `finish` is called.

        Args:
            member_id: the member's.
            room: the room, which has a log.
            limit: bytes that are kept of what is not in the log.
        """
        hold = self._holds.begin(self._members[member_id], room, limit)
        hold.is_catching = True
        return hold

    def hold_of(self, member_id: str, room: str) -> Hold[M] | None:
        """What is said in a room and kept from one of its members; ``None`` where nothing is kept from it."""
        return self._held[room].get(member_id) if room in self._held else None

    def release(self, hold: Hold[M]) -> None:
        """A member may stay: give it what was kept from it, and keep nothing more. Harmless when it is over."""
        if hold.is_over:
            return
        hold.answered()
        if hold.is_catching:
            return
        if self.logs is not None and self.logs.has_log(hold.room):
            hold.is_catching = True
            self.logs.catch_up(hold)
        else:
            self.finish(hold)

    def finish(self, hold: Hold[M]) -> None:
        """Give a member what was kept from it, in order, and keep nothing more. Harmless when it is over.

        Where it is still asked whether it may stay, what is said from now on is kept until that is answered.
        """
        if hold.is_over:
            return
        hold.is_catching = False
        if hold.asked:
            return
        self._holds.end(hold.member.id, hold.room)
        hold.deliver()

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
            members: Mapping[str, M] = self._rooms.get(room, {})
            member = members.get(member_id)
            hold = self.hold_of(member_id, room)
            if hold is not None:
                hold.take(message, None)
            elif member is not None:
                member.offer(message)

    def deliver_logged(self, room: str, message: PreparedMessage, excluded: frozenset[str]) -> int:
        """Offer a message of a room's log to its members; how many queued it. It is kept for none that are held.

        Args:
            room: the room.
            message: the message.
            excluded: the ids of members that do not get it.
        """
        members = self._rooms.get(room)
        if members is None:
            return 0
        held = self._held.get(room)
        if held is None and not excluded:
            return self._fan_out(list(members.values()), message)
        kept = held or {}
        return self._fan_out(
            [member for name, member in members.items() if name not in kept and name not in excluded], message
        )

    def ready_for(self, room: str, behind: Collection[str], waiting: Collection[str]) -> tuple[list[M], list[M]]:
        """The members of a room who get at once what is said there, and those from whom it is held.

        Args:
            room: the room.
            behind: the ids of members that are not among either.
            waiting: the same.
        """
        members: Mapping[str, M] = self._rooms.get(room, {})
        held = self._held.get(room)
        if not held and not behind and not waiting:
            return list(members.values()), []
        found = [(name, member) for name, member in members.items() if name not in behind and name not in waiting]
        kept = held or {}
        return [member for name, member in found if name not in kept], [each for name, each in found if name in kept]

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
