"""Telling: what the members of a room on this node are told of its users, in messages of a bounded size.

A newcomer is told all users, in as many messages as it takes: the first is full and the others add to it. Each holds
the counts of the moment at which it is sent, so that it does not matter what is told in between. Knows no other node.
"""

from __future__ import annotations

import asyncio

from velocity_ws.broker.presence_room import PresenceRoom
from velocity_ws.messages.address import Address
from velocity_ws.messages.events import encode_info, encode_presence, encode_presence_count
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session

__all__ = ["DELAY", "Telling"]

DELAY = 0.03
"""Seconds that changes are collected before they are told, as a page loaded anew leaves and joins."""
PIECE = 64 * 1024
"""Bytes of users in one message; with the last of them it may be a little more."""
DELIVERIES = 4000
"""Messages about one room in a second that its members on this node are sent: changes of larger rooms are collected
for longer."""
PATIENCE = 0.25
"""Seconds until members are looked at again whose connections have room for no more."""
BYTES = 512 * 1024
"""Bytes of changes in a second that one member is told of a room."""


class _Feed:
    """Members who are told all users.

    Attributes:
        ids: the members.
        names: the users, as of the first message, before which there are none: it begins anew, and what was told
            earlier counts no more.
        at: how many of them were told.
    """

    __slots__ = ("at", "ids", "names")

    def __init__(self, ids: list[str], names: list[str] | None = None, at: int = 0) -> None:
        self.ids = ids
        self.names = names
        self.at = at


class _Room:
    """What the members of a room were told."""

    __slots__ = ("feeds", "figures", "is_counted", "newcomers", "quiet_until")

    def __init__(self) -> None:
        self.newcomers: dict[str, None] = {}
        self.feeds: list[_Feed] = []
        self.is_counted = False
        self.figures = (0, 0, 0)
        self.quiet_until = 0.0


class Telling:
    """What the members of rooms are told. On the broker's loop only."""

    def __init__(self, hub: Hub[Session], max_users: int) -> None:
        """
        Args:
            hub: the clients of this node.
            max_users: users beyond which only numbers are told; 0 = no limit. They are named again when there are a
                fifth less.
        """
        self._hub = hub
        self._max_users = max_users
        self._rooms: dict[str, _Room] = {}

    def came(self, room: str, client_id: str) -> None:
        """A client of this node was counted in a room, and is to be told all of it."""
        told = self._rooms.get(room)
        if told is None:
            told = self._rooms[room] = _Room()
        told.newcomers[client_id] = None

    def forget(self, room: str) -> None:
        """Nobody of this node is in a room any more."""
        self._rooms.pop(room, None)

    def quiet_until(self, room: str) -> float:
        """Until when members of a room are told no changes, as they were told much."""
        told = self._rooms.get(room)
        return 0.0 if told is None else told.quiet_until

    def tell(self, room: str, state: PresenceRoom) -> float | None:
        """Tell what has changed; when there is more to tell, in the loop's time, or ``None``."""
        told = self._rooms[room]
        now = asyncio.get_running_loop().time()
        if now + DELAY >= told.quiet_until:
            self._choose(told, state)
            deliveries, size = (self._count if told.is_counted else self._name)(room, state, told)
            told.quiet_until = now + max(deliveries / DELIVERIES, size / BYTES)
        if told.feeds:
            return now + (DELAY if self._feed(room, state, told) else PATIENCE)
        return max(now + DELAY, told.quiet_until) if state.waiting or told.newcomers else None

    def _choose(self, told: _Room, state: PresenceRoom) -> None:
        """Whether users are named or counted. Who was told numbers is told all, when they are named again."""
        most = self._max_users
        if told.is_counted and state.users <= most - most // 5:
            told.is_counted = False
            told.newcomers = dict.fromkeys(state.members)
        elif most and not told.is_counted and state.users > most:
            told.is_counted = True
            told.feeds.clear()
            told.figures = (0, 0, 0)

    def _count(self, room: str, state: PresenceRoom, told: _Room) -> tuple[int, int]:
        state.forget_changes()
        figures = (state.clients, state.users, state.anonymous)
        newcomers, told.newcomers = [client_id for client_id in told.newcomers if client_id in state.members], {}
        message = encode_presence_count(room, *figures)
        if figures != told.figures:
            told.figures = figures
            self._hub.deliver(Address("rooms", (room,)), message)
            return len(state.members), 0
        self._hub.deliver_to(room, newcomers, message)
        return len(newcomers), 0

    def _name(self, room: str, state: PresenceRoom, told: _Room) -> tuple[int, int]:
        changed = state.changed(PIECE, _size)
        if 2 * state.waiting > len(state.total):  # another node has come with many: all of it is less than what changed
            state.forget_changes()
            changed, told.newcomers = None, dict.fromkeys(state.members)
            told.feeds.clear()
        newcomers, told.newcomers = [client_id for client_id in told.newcomers if client_id in state.members], {}
        deliveries, size = len(newcomers), 0
        if changed is not None and len(newcomers) < len(state.members):
            message = self._event(room, state, *changed, is_full=False)
            self._hub.deliver(Address("rooms", (room,), frozenset(newcomers)), message)
            deliveries, size = len(state.members), message.size
        if newcomers:
            told.feeds.append(_Feed(newcomers))
        return deliveries, size

    def _feed(self, room: str, state: PresenceRoom, told: _Room) -> bool:
        """Tell each feed its next piece, but not those whose connection is behind; whether anybody was told."""
        feeds, told.feeds = told.feeds, []
        was_told = False
        for feed in feeds:
            here = [client_id for client_id in feed.ids if client_id in state.members]
            behind = [client_id for client_id in here if self._is_behind(client_id)]
            if behind:
                told.feeds.append(_Feed(behind, feed.names, feed.at))
                late = frozenset(behind)
                here = [client_id for client_id in here if client_id not in late]
            if not here:
                continue
            was_told = True
            names = list(state.total) if feed.names is None else feed.names
            users, infos, used = state.some(names[feed.at :] if feed.at else names, PIECE, _size)
            message = self._event(room, state, users, infos, is_full=not feed.at)
            self._hub.deliver_to(room, here, message)
            if feed.at + used < len(names):
                told.feeds.append(_Feed(here, names, feed.at + used))
        return was_told

    def _is_behind(self, client_id: str) -> bool:
        session = self._hub.get(client_id)
        return session is not None and session.outbox is not None and not session.outbox.is_free

    def _event(
        self, room: str, state: PresenceRoom, users: dict[str, int], infos: dict[str, bytes], *, is_full: bool
    ) -> PreparedMessage:
        named = {user: count for user, count in users.items() if user}
        return encode_presence(room, named, state.anonymous, is_full=is_full, infos=infos)


def _size(name: str) -> int:
    return len(encode_info(name)) + 12
