"""Presence: which users are in a room, on all nodes, told to its members as it changes.

Each node counts its own clients and tells the others what changed; a count is of that node alone and absolute, so that
telling it twice does no harm. What a room costs does not grow with the square of its members: changes are collected,
for longer where more are to be told, and beyond a number of users only numbers are told. Knows no transport.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Iterable

from velocity_ws.broker.presence_exchange import PresenceExchange
from velocity_ws.broker.presence_info import PresenceInfos
from velocity_ws.broker.presence_policy import PresencePolicy
from velocity_ws.broker.presence_room import PresenceRoom
from velocity_ws.broker.presence_telling import DELAY, Telling
from velocity_ws.broker.presence_wire import Info
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.hooks.hook import Hook
from velocity_ws.sessions.dispatch import Dispatcher
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session
from velocity_ws.stats import Counters

__all__ = ["Presence"]

INFO_PATIENCE = 1.0
"""Seconds that a client waits to be counted for what the application says of its user."""


class _Question:
    """What the application says of a user who comes into a room, and the clients that wait for it."""

    def __init__(self, sessions: list[Session]) -> None:
        self.sessions = sessions
        self.patience: asyncio.TimerHandle | None = None


class Presence:
    """The users in the rooms that have presence. On the broker's loop only.

    Attributes:
        exchange: what other nodes are told, and tell; ``None`` where there are none.
        report: tells ``on_error`` of what `joined` has returned.
    """

    def __init__(
        self,
        node_id: str,
        policy: PresencePolicy,
        max_users: int,
        hub: Hub[Session],
        cluster: Cluster | None,
        counters: Counters,
        dispatcher: Dispatcher,
    ) -> None:
        """
        Args:
            node_id: this node's.
            policy: says which rooms have it.
            max_users: users beyond which a room's members are told only how many there are; 0 = no limit.
            hub: the clients of this node.
            cluster: the way to the other nodes.
            counters: the node's.
            dispatcher: calls what says of users what is told of them, and tells ``on_error`` of what fails.
        """
        self.report = dispatcher.report
        self._node_id = node_id
        self._policy = policy
        self._hub = hub
        self._infos = PresenceInfos(dispatcher.call, dispatcher.report)
        self._rooms: dict[str, PresenceRoom] = {}
        self._telling = Telling(hub, max_users)
        self._questions: dict[tuple[str, str], _Question] = {}
        self._due: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.exchange = None if cluster is None else PresenceExchange(cluster, self._rooms, self._touch, counters)

    # --- the clients of this node

    def joined(self, session: Session, room: str) -> Exception | None:
        """A client of this node has come into a room; what the application's function raised, if it did."""
        try:
            if not self._policy.is_wanted(room):
                return None
            hook = self._policy.info_of(room)
        except Exception as error:
            return error
        user = session.user_id
        if hook is None or user is None or self._is_known(room, user):
            self._enter(session, room)
        elif (question := self._questions.get((room, user))) is not None and question.patience is not None:
            question.sessions.append(session)
        else:
            self._ask(hook, session, room, user, [session])
        return None

    def left(self, client_id: str, rooms: Iterable[str]) -> None:
        """A client of this node has left some rooms."""
        for room in rooms:
            state = self._rooms.get(room)
            if state is not None and state.leave(client_id):
                self._touch(room)

    def user_changed(self, session: Session) -> None:
        """A client of this node is another user's, or its user is another object."""
        user = session.user_id
        for room in self._hub.rooms_of(session.id):
            state = self._rooms.get(room)
            is_counted = state is not None and session.id in state.members
            if state is not None and is_counted and state.enter(session.id, user or ""):
                self._touch(room)
            if user is None or not (is_counted or (room, user) in self._questions):
                continue  # it is asked about when it is counted
            hook = self._policy.info_of(room)
            if hook is not None:
                self._ask(hook, session, room, user, [])

    async def stop(self) -> None:
        """Stop telling members of changes, and forget all rooms."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.exchange is not None:
            self.exchange.stop()
        for question in self._questions.values():
            if question.patience is not None:
                question.patience.cancel()
        self._questions.clear()
        self._rooms.clear()
        self._due.clear()
        await self._infos.stop()

    def _enter(self, session: Session, room: str) -> None:
        state = self._rooms.get(room)
        if state is None:
            state = self._rooms[room] = PresenceRoom(self._node_id)
            if self.exchange is not None:
                self.exchange.opened(room)
        if state.enter(session.id, session.user_id or ""):
            self._telling.came(room, session.id)
            self._touch(room)

    # --- what is said of users

    def _is_known(self, room: str, user: str) -> bool:
        state = self._rooms.get(room)
        return state is not None and user in state.here

    def _ask(self, hook: Hook, session: Session, room: str, user: str, waiting: list[Session]) -> None:
        """Ask what is said of a user; who asks later gets the newer answer, which is the one that counts."""
        before = self._questions.pop((room, user), None)
        if before is not None:
            waiting = before.sessions + waiting
            if before.patience is not None:
                before.patience.cancel()
        question = self._questions[room, user] = _Question(waiting)
        if waiting:
            question.patience = asyncio.get_running_loop().call_later(INFO_PATIENCE, self._let_enter, room, user)
        self._infos.ask(hook, session.client, functools.partial(self._answered, room, user, question))

    def _let_enter(self, room: str, user: str) -> None:
        """Count those who wait for what is said of their user, be it said or not."""
        question = self._questions.get((room, user))
        if question is None:
            return
        if question.patience is not None:
            question.patience.cancel()
            question.patience = None
        waiting, question.sessions = question.sessions, []
        for session in waiting:
            if self._hub.joined_at(session.id, room) is None:
                continue
            self._enter(session, room)
            if session.user_id != user and session.user_id is not None:
                self.user_changed(session)

    def _answered(self, room: str, user: str, question: _Question, info: bytes) -> None:
        if self._questions.get((room, user)) is not question:
            return  # another one was asked after it, or this is stopped
        self._let_enter(room, user)
        del self._questions[room, user]
        state = self._rooms.get(room)
        if state is not None and user in state.here:
            state.inform(user, Info(time.time_ns() // 1_000_000, info))
            self._touch(room)

    # --- telling

    def _touch(self, room: str) -> None:
        now = asyncio.get_running_loop().time()
        self._tell_at(room, max(now + DELAY, self._telling.quiet_until(room)))

    def _tell_at(self, room: str, at: float) -> None:
        self._due[room] = min(at, self._due.get(room, at))
        if self._timer is None or self._timer.when() > at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(at, self._tell)

    def _tell(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for room in [room for room, at in self._due.items() if at <= now + DELAY]:  # one timer for many rooms
            del self._due[room]
            state = self._rooms.get(room)
            if state is not None:
                self._tell_room(room, state)
        if self._due:
            at = min(self._due.values())
            self._timer = asyncio.get_running_loop().call_at(at, self._tell)

    def _tell_room(self, room: str, state: PresenceRoom) -> None:
        if self.exchange is not None:
            self.exchange.say(room, state)
        if not state.members:  # nobody here is interested any more
            del self._rooms[room]
            self._telling.forget(room)
            if self.exchange is not None:
                self.exchange.closed(room, state.version)
            return
        again_at = self._telling.tell(room, state)
        if again_at is not None:
            self._tell_at(room, again_at)
