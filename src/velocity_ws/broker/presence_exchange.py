"""PresenceExchange: how nodes agree on who is in a room: what changed is told, and what was missed is asked for.

Whatever is lost shows: each change names the version before it, and after a room has changed its version is told again
and again, ever more rarely, with those that were heard of others. Knows no client.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping

from velocity_ws.broker.presence_outgoing import WaitingNotes
from velocity_ws.broker.presence_parts import ComingParts, version_of_whole
from velocity_ws.broker.presence_reminders import Reminders
from velocity_ws.broker.presence_room import PresenceRoom
from velocity_ws.broker.presence_wire import (
    Change,
    Counts,
    Info,
    Piece,
    State,
    Versions,
    check_infos,
    in_notes,
    in_pages,
)
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.envelopes import Name
from velocity_ws.stats import Counters

__all__ = ["PresenceExchange"]

DELAY = 0.03
"""Seconds that questions are collected before they are answered."""
PIECE = 128 * 1024
"""Bytes that travel in one note, where the engine carries them."""
PARTS = 2**20
"""Versions between two changes: the parts of a state have numbers of their own, in between."""
SETTLED = 1.0
"""Seconds after which a change here has been heard by the other nodes, or was missed."""
MAX_ASKED = 10_000
"""Rooms that may be asked about before they are answered."""
MANY = 3
"""Nodes that ask for a room from which on all of its nodes are told, once."""
FIRST_PATIENCE = 1.0
"""Seconds until a node is asked for a room again; doubled each time."""
LAST_PATIENCE = 32.0
"""The same at most."""


class PresenceExchange:
    """What this node tells the others, and hears of them. On the broker's loop only."""

    def __init__(
        self, cluster: Cluster, rooms: Mapping[str, PresenceRoom], touch: Callable[[str], None], counters: Counters
    ) -> None:
        """
        Args:
            cluster: the way to the other nodes.
            rooms: the rooms that have members here; changed by the owner of this.
            touch: called with a room that is different from before.
            counters: the node's; what the publisher refuses is counted there.
        """
        self._cluster = cluster
        self._rooms = rooms
        self._touch = touch
        self._counters = counters
        self._versions = itertools.count(PARTS, PARTS)
        self._closed: dict[str, int] = {}
        """The last versions of rooms that have no members here any more, while others may not know."""
        self._reminders = Reminders(self._tell_version, self._is_over)
        self._changed_at: dict[str, float] = {}
        self._asked: dict[str, dict[str, tuple[float, float]]] = {}
        """By room and node: when the node may be asked again, and the patience after that."""
        self._coming = ComingParts()
        self._questions: dict[str, set[str]] = {}
        self._notes = WaitingNotes(self._offer, counters)
        self._answering: asyncio.TimerHandle | None = None
        cluster.on_notification("presence", State, self._told_state)
        cluster.on_notification("presence_change", Change, self._told_change)
        cluster.on_notification("presence_asked", tuple[Name, ...], self._was_asked)
        cluster.on_notification("presence_anew", type(None), lambda origin, _: self._went(origin))
        cluster.on_notification("presence_versions", Versions, self._told_versions)
        cluster.on_node_up.append(lambda node_id: self._ask_all(cluster.topics.node(node_id)))
        cluster.on_node_down.append(self._went)
        cluster.on_connected.append(self.begin_anew)

    # --- what its owner calls

    def opened(self, room: str) -> None:
        """A room has a first member here: ask the others who is there."""
        self._closed.pop(room, None)
        self._notify(self._cluster.topics.room(room), "presence_asked", (room,))
        self._reminders.begin(room)

    def say(self, room: str, state: PresenceRoom) -> None:
        """Tell the others what has changed here since it was last said."""
        for users, infos in state.unsaid(self._piece):
            before, state.version = state.version, next(self._versions)
            self._changed_at[room] = asyncio.get_running_loop().time()
            change = Change(room, before, state.version, users, infos)
            self._put(self._cluster.topics.room(room), change)
            self._reminders.begin(room)

    def closed(self, room: str, version: int) -> None:
        """A room has no member here any more, which was said."""
        self._closed[room] = version
        self._reminders.begin(room)
        self._coming.forget(room)
        self._asked.pop(room, None)

    def begin_anew(self) -> None:
        """This node was deaf, and what it said was not heard: say all of it again, and ask the others for theirs."""
        nodes = self._cluster.topics.nodes
        self._coming.clear()
        self._asked.clear()
        self._notes.clear()
        self._notify(nodes, "presence_anew", None)
        self._say(nodes, list(self._rooms))
        self._ask_all(nodes)
        for room in self._rooms:
            self._reminders.begin(room)

    def stop(self) -> None:
        """Say and ask nothing more."""
        self._notes.stop()
        self._reminders.stop()
        if self._answering is not None:
            self._answering.cancel()
            self._answering = None

    # --- versions

    def _tell_version(self, room: str) -> bool:
        if not self._cluster.is_healthy:
            return False
        state = self._rooms.get(room)
        known = {} if state is None else state.versions()
        told = Versions(room, self._version(room), known)
        return self._notify(self._cluster.topics.room(room), "presence_versions", told)

    def _is_over(self, room: str) -> None:
        """Other nodes are not reminded of a room any more."""
        self._closed.pop(room, None)
        self._changed_at.pop(room, None)

    def _version(self, room: str) -> int:
        state = self._rooms.get(room)
        return self._closed.get(room, 0) if state is None else state.version

    def _told_versions(self, origin: str, told: Versions) -> None:
        state = self._rooms.get(told.room)
        if state is not None:
            if state.version_of(origin) != told.version:
                self._ask(told.room, origin)
            else:
                self._asked.get(told.room, {}).pop(origin, None)
        known = told.known.get(self._cluster.node_id, 0)
        is_settled = self._changed_at.get(told.room, 0.0) + SETTLED < asyncio.get_running_loop().time()
        if known != self._version(told.room) and is_settled:  # else what it has not heard may be on its way
            self._was_asked(origin, (told.room,))

    # --- questions

    def _ask(self, room: str, node_id: str) -> None:
        """Ask a node for a room, unless it was asked a moment ago. One that nobody has heard of is asked later."""
        now = asyncio.get_running_loop().time()
        asked = self._asked.setdefault(room, {})
        again_at, patience = asked.get(node_id, (0.0, FIRST_PATIENCE))
        if now < again_at or node_id not in self._cluster.membership:
            return
        asked[node_id] = (now + patience, min(2 * patience, LAST_PATIENCE))
        self._notify(self._cluster.topics.node(node_id), "presence_asked", (room,))
        self._reminders.begin(room)  # which asks again, where the question is lost

    def _ask_all(self, topic: str) -> None:
        """Ask for every room that has members here."""
        for names in in_pages(self._rooms, self._piece):
            self._notify(topic, "presence_asked", names)

    def _was_asked(self, origin: str, rooms: tuple[str, ...]) -> None:
        for room in rooms:
            self._questions.setdefault(room, set()).add(origin)
            if len(self._questions) >= MAX_ASKED:
                self._answer()
        if self._answering is None and self._questions:
            self._answering = asyncio.get_running_loop().call_later(DELAY, self._answer)

    def _answer(self) -> None:
        if self._answering is not None:
            self._answering.cancel()
            self._answering = None
        questions, self._questions = self._questions, {}
        topics: dict[str, list[str]] = {}
        for room, nodes in questions.items():
            if len(nodes) >= MANY:
                topics.setdefault(self._cluster.topics.room(room), []).append(room)
            else:
                for node_id in nodes:
                    topics.setdefault(self._cluster.topics.node(node_id), []).append(room)
        for topic, rooms in topics.items():
            self._say(topic, rooms)

    def _say(self, topic: str, rooms: Iterable[str]) -> None:
        """Tell what this node has of some rooms: of small ones together, of large ones in parts."""
        refused = ""
        for note in in_notes(map(self._whole, rooms), self._piece):
            if isinstance(note, Change) and note.part > 1 and note.room == refused:
                continue
            if not self._put(topic, note):
                refused = note.room if isinstance(note, Change) else ""
                for room in note.asked if isinstance(note, State) else [note.room]:
                    self._reminders.begin(room)

    def _whole(self, room: str) -> tuple[str, int, list[Piece]]:
        state = self._rooms.get(room)
        if state is None:
            return room, self._version(room), []
        self.say(room, state)  # what is in it has to be of that version
        return room, state.version, list(state.all_here(self._piece))

    # --- what other nodes say

    def _told_state(self, origin: str, told: State) -> None:
        for infos in told.infos.values():
            check_infos(infos)
        for room in told.asked:
            state = self._rooms.get(room)
            if state is None:
                continue
            version, users = told.rooms.get(room, (0, {}))
            self._replace(origin, room, state, version, users, told.infos.get(room, {}))

    def _told_change(self, origin: str, change: Change) -> None:
        check_infos(change.infos)
        state = self._rooms.get(change.room)
        if state is None:
            return
        if change.parts:
            self._told_part(origin, state, change)
            return
        known = state.version_of(origin)
        if not change.before:
            self._replace(origin, change.room, state, change.version, change.users, change.infos)
        elif change.before == known:
            if state.update(origin, change.version, change.users, change.infos):
                self._touch(change.room)
        elif change.version > known:  # one before it was missed
            self._ask(change.room, origin)

    def _told_part(self, origin: str, state: PresenceRoom, change: Change) -> None:
        if version_of_whole(change) == state.version_of(origin) or origin not in self._cluster.membership:
            return  # it is another node that has asked; or one to be asked when it is heard of
        whole = self._coming.take(origin, change)
        if whole is False:
            self._ask(change.room, origin)
        elif whole is not True:
            self._replace(origin, change.room, state, whole.version, whole.users, whole.infos)

    def _replace(
        self, origin: str, room: str, state: PresenceRoom, version: int, users: Counts, infos: Mapping[str, Info]
    ) -> None:
        self._forget(room, origin)
        if state.replace(origin, version, {user: count for user, count in users.items() if count}, infos):
            self._touch(room)

    def _went(self, node_id: str) -> None:
        for room, state in self._rooms.items():
            self._forget(room, node_id)
            if state.remove(node_id):
                self._touch(room)

    def _forget(self, room: str, node_id: str) -> None:
        """What was asked of a node, or is coming from it, is of no use any more."""
        self._coming.forget(room, node_id)
        if room in self._asked:
            self._asked[room].pop(node_id, None)

    # --- sending

    @property
    def _piece(self) -> int:
        return min(PIECE, self._cluster.max_payload // 2)

    def _put(self, topic: str, note: State | Change) -> bool:
        if isinstance(note, State):
            return self._notes.put(topic, "presence", note.wire)
        return self._notes.put(topic, "presence_change", note.wire, goes_on=note.part > 1)

    def _notify(self, topic: str, what: str, args: object) -> bool:
        was_taken = self._offer(topic, what, args)
        self._counters.presence_refused += not was_taken
        return was_taken

    def _offer(self, topic: str, what: str, args: object) -> bool:
        return self._cluster.notes.notify(topic, what, args, is_bulk=True)
