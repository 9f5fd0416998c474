"""Presence: which users are in a room, on all nodes, told to its members as it changes.

Each node counts its own clients and tells the others what changed; a count is of that node alone and absolute, so that
telling it twice does no harm. Where a change was missed, the whole is asked for. Knows no transport and no hook.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.envelopes import Count, Name
from velocity_ws.messages.address import Address
from velocity_ws.messages.events import encode_presence
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session

__all__ = ["Presence"]

DELAY = 0.03
"""Seconds that changes are collected before they are told, as a page loaded anew leaves and joins."""

PAGE = 2000
"""Rooms and users that travel at once; more go in several notes, as engines carry 1 MiB at once or little more."""

Counts = dict[Name, Count]
"""Clients by user; those without one under an empty name."""


class _Change(msgspec.Struct, array_like=True, frozen=True):
    """What changed in a room on one node: ``before`` is the version it changes, 0 for a room that begins."""

    room: Name
    before: Count
    version: Count
    users: Counts


class _State(msgspec.Struct, array_like=True, frozen=True):
    """All that one node has of the rooms it was asked about; those that are not there are empty."""

    asked: tuple[Name, ...]
    rooms: dict[Name, tuple[Count, Counts]]


class _Room:
    def __init__(self) -> None:
        self.version = 0
        self.here: Counts = {}
        self.there: dict[str, tuple[int, Counts]] = {}
        self.told: Counts = {}
        self.newcomers: list[Session] = []

    def total(self) -> Counts:
        total: Counter[str] = Counter(self.here)
        for _, users in self.there.values():
            total.update(users)
        return dict(total)


class Presence:
    """The users in the rooms that have presence. On the broker's loop only."""

    def __init__(
        self,
        is_wanted: Callable[[str], bool],
        hub: Hub[Session],
        deliver: Callable[[Address, PreparedMessage], object],
        cluster: Cluster | None,
        report: Callable[[Client, Exception], Awaitable[None]],
    ) -> None:
        """
        Args:
            is_wanted: whether a room has it.
            hub: the clients of this node.
            deliver: gives a message to clients of this node.
            cluster: the way to the other nodes.
            report: tells ``on_error`` of what `joined` returns.
        """
        self.report = report
        self._is_wanted = is_wanted
        self._hub = hub
        self._deliver = deliver
        self._cluster = cluster
        self._rooms: dict[str, _Room] = {}
        self._versions = itertools.count(1)
        self._touched: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        if cluster is not None:
            cluster.on_notification("presence", _State, self._told_state)
            cluster.on_notification("presence_change", _Change, self._told_change)
            cluster.on_notification("presence_asked", tuple[Name, ...], self._asked)
            cluster.on_node_up.append(lambda node_id: self._ask(cluster.topics.node(node_id), self._rooms))
            cluster.on_node_down.append(self._went)
            cluster.on_notification("presence_anew", type(None), self._forget)
            cluster.on_connected.append(lambda: self._begin_anew(cluster))

    def joined(self, session: Session, room: str) -> Exception | None:
        """A client of this node has come into a room; what the application's function raised, if it did."""
        try:
            is_wanted = self._is_wanted(room)
        except Exception as error:
            return error
        if is_wanted:
            self._room(room).newcomers.append(session)
            self._touch(room)
        return None

    def changed(self, rooms: Iterable[str]) -> None:
        """A client of this node has left some rooms, or is another user's in them."""
        for room in rooms:
            if room in self._rooms:
                self._touch(room)

    def stop(self) -> None:
        """Stop telling members of changes, and forget all rooms."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rooms.clear()
        self._touched.clear()

    def _room(self, room: str) -> _Room:
        found = self._rooms.get(room)
        if found is None:
            found = self._rooms[room] = _Room()
            if self._cluster is not None:
                self._ask(self._cluster.topics.room(room), [room])
        return found

    def _touch(self, room: str) -> None:
        self._touched.add(room)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self._tell)

    def _tell(self) -> None:
        self._timer = None
        touched, self._touched = self._touched, set()
        for room in touched:
            state = self._rooms.get(room)
            if state is None:
                continue
            self._count(room, state)
            if state.here:
                self._tell_members(room, state)
            else:  # nobody here is interested any more
                del self._rooms[room]

    def _count(self, room: str, state: _Room) -> None:
        """Count this node's clients, and tell the others what has changed."""
        now = dict(Counter(session.user_id or "" for session in self._hub.room_members(room)))
        changes = _changes(state.here, now)
        state.here = now
        if changes:
            before, state.version = state.version, next(self._versions)
            if self._cluster is not None:
                change = _Change(room, before, state.version, changes)
                self._cluster.notify(self._cluster.topics.room(room), "presence_change", change)

    def _tell_members(self, room: str, state: _Room) -> None:
        total = state.total()
        changes = _changes(state.told, total)
        newcomers = [session.id for session in state.newcomers if session.is_connected]
        state.told, state.newcomers = total, []
        if changes:
            self._deliver(Address("rooms", (room,), frozenset(newcomers)), _event(room, changes, total, is_full=False))
        if newcomers:
            self._hub.deliver_to(room, newcomers, _event(room, total, total, is_full=True))

    # --- other nodes

    def _ask(self, topic: str, rooms: Iterable[str]) -> None:
        names = iter(rooms)
        while self._cluster is not None and (page := tuple(itertools.islice(names, PAGE))):
            self._cluster.notify(topic, "presence_asked", page)

    def _asked(self, origin: str, rooms: tuple[str, ...]) -> None:
        if self._cluster is not None:
            self._say(self._cluster.topics.node(origin), rooms)

    def _say(self, topic: str, rooms: Iterable[str]) -> None:
        """Tell what this node has of some rooms, in as many notes as it takes."""
        asked: list[str] = []
        known: dict[str, tuple[int, Counts]] = {}
        size = 0
        for room in rooms:
            state = self._rooms.get(room)
            asked.append(room)
            size += 1
            if state is not None:
                known[room] = (state.version, state.here)
                size += len(state.here)
            if size >= PAGE:
                self._send_state(topic, asked, known)
                asked, known, size = [], {}, 0
        if asked:
            self._send_state(topic, asked, known)

    def _send_state(self, topic: str, asked: list[str], known: dict[str, tuple[int, Counts]]) -> None:
        if self._cluster is not None:
            self._cluster.notify(topic, "presence", _State(tuple(asked), known))

    def _begin_anew(self, cluster: Cluster) -> None:
        """This node was deaf, and what it said was not heard: say all of it again, and ask the others for theirs."""
        cluster.notify(cluster.topics.nodes, "presence_anew", None)
        self._say(cluster.topics.nodes, list(self._rooms))
        self._ask(cluster.topics.nodes, self._rooms)

    def _forget(self, origin: str, _: None) -> None:
        self._went(origin)

    def _told_state(self, origin: str, told: _State) -> None:
        for room in told.asked:
            state = self._rooms.get(room)
            if state is None:
                continue
            if room in told.rooms and told.rooms[room][1]:
                state.there[origin] = told.rooms[room]
            else:
                state.there.pop(origin, None)
            self._touch(room)

    def _told_change(self, origin: str, change: _Change) -> None:
        state = self._rooms.get(change.room)
        if state is None:
            return
        version, users = state.there.get(origin, (0, {}))
        if change.before and change.before != version:
            if change.version > version and self._cluster is not None:  # one before it was missed
                self._ask(self._cluster.topics.node(origin), [change.room])
            return
        kept = users if change.before else {}
        users = {user: count for user, count in {**kept, **change.users}.items() if count > 0}
        if users:
            state.there[origin] = (change.version, users)
        else:
            state.there.pop(origin, None)
        self._touch(change.room)

    def _went(self, node_id: str) -> None:
        for room, state in self._rooms.items():
            if state.there.pop(node_id, None) is not None:
                self._touch(room)


def _changes(before: Counts, now: Counts) -> Counts:
    """The counts that differ; 0 for users who are not there any more."""
    changes = {user: count for user, count in now.items() if before.get(user) != count}
    changes.update({user: 0 for user in before if user not in now})
    return changes


def _event(room: str, users: Counts, total: Counts, *, is_full: bool) -> PreparedMessage:
    named = {user: count for user, count in users.items() if user}
    return encode_presence(room, named, total.get("", 0), is_full=is_full)
