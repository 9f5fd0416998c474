"""Histories: what one node does for its rooms with history. Wires the other modules of the room.

Knows clients, rooms and logs; it is told which rooms have a history, and asks nobody who may be in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Protocol

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.appending import Appending
from velocity_ws.history.catching_up import CatchingUp
from velocity_ws.history.entrances import Entrances
from velocity_ws.history.entries import Stamp
from velocity_ws.history.feed import Gap
from velocity_ws.history.feeds import Ear, Feeds
from velocity_ws.history.items import Log, Top
from velocity_ws.history.link import HistoryLink
from velocity_ws.history.positions import Position
from velocity_ws.history.reading import Reading
from velocity_ws.history.recoveries import Recoveries, marks_of
from velocity_ws.history.resuming import Resumptions
from velocity_ws.history.unkept import Unkept
from velocity_ws.logs import get_logger
from velocity_ws.sessions.holds import Hold
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session
from velocity_ws.settings import Settings
from velocity_ws.stats import Counters

__all__ = ["Histories", "LogOf"]

log = get_logger("velocity_ws.history")

MAX_OWED = 10_000
"""Removals that the engine could not be told, and is told later; beyond, the log says which are forgotten."""
OFTEN = 30.0
"""Seconds after which it is looked whether the engine still has what it was told."""
AGAIN = 1.0
"""Seconds until the engine is told again what it has refused to know."""


class LogOf(Protocol):
    """Says which rooms have a log."""

    def __call__(self, room: str, /) -> tuple[Log, bool] | None:
        """The log of a room, and whether its newest message stands for all before it; ``None`` where it has none."""


class Histories:
    """The rooms with history of one node. On the broker's loop only.

    Attributes:
        feeds: where the node stands in each of them.
        appending: what is said in them.
        reading: what is asked of their logs.
        entrances: how clients come into them.
        resumptions: connections that say where they stopped.
        unkept: what the engine has lost; ``None`` where the node is alone.
    """

    def __init__(
        self,
        node_id: str,
        log_of: LogOf,
        link: HistoryLink,
        ear: Ear | None,
        hub: Hub[Session],
        counters: Counters,
        settings: Settings,
        secret: str,
        left: Callable[[Session], float | None],
        clock: Callable[[], float],
        describe: Callable[[bool], Awaitable[None]],
    ) -> None:
        """
        Args:
            node_id: this node's.
            log_of: says which rooms have a log.
            link: the way to the logs.
            ear: the way by which rooms are heard; ``None`` where there are no other nodes.
            hub: the clients of this node.
            counters: the node's.
            settings: the broker's.
            secret: the name of the key by which clients prove their earlier ids.
            left: in how many seconds a client's login ends; ``None`` for never.
            clock: seconds, never going back.
            describe: has the engine keep what others are told of the rooms; told whether it was reached anew.
        """
        self._describe = describe
        self._node_id = node_id
        self._log_of = log_of
        self._link = link
        self._is_alone = ear is None
        self._hub = hub
        self._secret = secret
        ring, most = settings.history_ring, settings.recovery_limit
        self.feeds = Feeds(link, ear, hub.deliver_logged, counters, ring=ring, limit=most, clock=clock)
        self._recoveries = Recoveries(self.feeds, link, counters, limit=most)
        self._catching_up = CatchingUp(hub, self.feeds, counters, queue=settings.send_queue_size)
        self.entrances = Entrances(hub, self.feeds, link, self._recoveries, self._catching_up, settings.send_queue_size)
        self.resumptions = Resumptions(
            self.feeds,
            self._recoveries,
            self._catching_up,
            left,
            clock,
            settings.max_message_size,
            self.entrances.enter,
        )
        self.appending = Appending(link, node_id, self._appended)
        self.reading = Reading(link, node_id, self._noticed)
        self.unkept: Unkept | None = None
        self._owed: dict[tuple[str, str], None] = {}
        self._upkeep: asyncio.Task[None] | None = None
        self._is_due = asyncio.Event()
        self._is_new = self._is_heard_again = False
        self.feeds.when_open = self.entrances.opened

    # --- life

    async def start(self, patience: float) -> None:
        """Connect to the engine, and look after the rooms. Where it is not there in time, goes on without it.

        Raises:
            SettingsError: the engine never keeps logs; the text says what to do.
        """
        self._hub.logs = self
        self.feeds.start()
        self._link.on_up.append(self._reached)
        self._link.on_down.append(self.resumptions.is_up.clear)
        if self.unkept is not None:
            self._link.on_down.append(self.unkept.down)
            self._link.on_moved += [self.unkept.down, self.heard_again]
        self.feeds.when_anew = self._is_due.set
        self._upkeep = asyncio.create_task(self._keep_up(), name="velocity-ws history upkeep")
        await self._link.start(patience)

    def stop_soon(self) -> None:
        """`stop` will be called soon."""
        self._link.stop_soon()

    def release(self) -> None:
        """Give back the engine without stopping, as the loop was closed. From any thread."""
        self._hub.logs = None
        self._link.release()

    async def stop(self) -> None:
        """Stop all of it, when the last client has gone."""
        self._hub.logs = None
        await self.resumptions.stop()
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep])
        if self._owed:
            log.error("the engine was not told of %s removals: who comes in again may look back", len(self._owed))
        await self._catching_up.stop()
        await self.feeds.stop()
        await self._link.stop()

    async def _keep_up(self) -> None:
        """Each time the engine is reached, learn the key, and tell it what it is to know; again, where it refuses.

        And now and then, as an engine may lose what it had without a connection that ends.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OFTEN):
                    await self._is_due.wait()
            self._is_due.clear()
            if not self._link.is_up:
                continue
            is_new, self._is_new = self._is_new, False
            steps: list[Callable[[], Awaitable[None]]] = [self._learn_key, functools.partial(self._describe, is_new)]
            if self.unkept is not None:
                steps.append(self.unkept.look)
            steps += [functools.partial(self._remove, room, mark) for room, mark in self._owed]
            if self.unkept is not None and self._is_heard_again:
                self._is_heard_again = False
                steps.append(self.unkept.ask)
            done = [await _does(step) for step in steps]
            if not all(done):
                self._is_new |= is_new
                await asyncio.sleep(AGAIN)
                if self._link.is_up:  # else it is when it is up
                    self._is_due.set()

    def heard_again(self) -> None:
        """The other nodes are heard, at first or again."""
        self.feeds.look_soon()
        self._is_heard_again = True
        self._is_due.set()

    def _reached(self) -> None:
        self._is_new = True
        self._is_due.set()
        self.resumptions.is_up.set()

    async def _learn_key(self) -> None:
        self.resumptions.learned(await self._link.secret(self._secret), self._hub.members())

    @property
    def is_up(self) -> bool:
        """Whether the engine can be asked."""
        return self._link.is_up

    # --- rooms

    def opened(self, room: str) -> None:
        found = self._log_of(room)
        if found is not None:
            self.feeds.open(room, found[0], is_latest=found[1])

    def closed(self, room: str) -> None:
        """A room has no member here any more. Where other nodes are heard, it is kept as long as it is heard."""
        found = self._log_of(room) if self._is_alone else None
        if found is not None:
            self.feeds.close(found[0].topic)

    def unheard(self, topic: str, is_needed: bool) -> None:
        """A topic is heard no more, or is needed again and was not heard for a while."""
        if is_needed:
            self.feeds.deaf(topic)
        else:
            self.feeds.close(topic)

    def has_log(self, room: str) -> bool:
        return self._log_of(room) is not None

    def place(self, room: str) -> Position | None:
        """The place of a room's members in its log, where it is known."""
        feed = self.feeds.of(room)
        return None if feed is None or not feed.is_open else feed.position

    def catch_up(self, hold: Hold[Session]) -> None:
        """Give a member what was kept from it."""
        self._catching_up.go(hold)

    def look(self, room: str, missed: int) -> bool:
        """See `Gaps`. What no log keeps is bytes, and what nodes say of presence."""
        feed = self.feeds.of(room)
        if feed is not None:
            self.feeds.deaf(feed.log.topic)
            if missed and feed.is_open:
                self.feeds.tell(feed, Gap(missed, "evicted", feed.at, feed.at), counts=False)
        return self._log_of(room) is not None

    # --- being out

    async def put_out(self, session: Session, room: str) -> None:
        """Keep that a client may not have what is said in a room from now on, though it comes back with a position.

        Where the engine cannot be told now, it is told as soon as it can.
        """
        for mark in marks_of(session, [session.id]):
            try:
                await self._remove(room, mark)
            except BackplaneUnavailable as error:
                self._owe(room, mark, error)

    async def _remove(self, room: str, mark: str) -> None:
        found = self._log_of(room)
        if found is not None:
            await self.reading.remove(found[0], mark)
        self._owed.pop((room, mark), None)

    def _owe(self, room: str, mark: str, error: BackplaneUnavailable) -> None:
        if len(self._owed) >= MAX_OWED:
            log.error("the engine is away, and %s removals wait for it: those of room %r are forgotten", MAX_OWED, room)
            return
        self._owed[room, mark] = None
        self._is_due.set()
        log.warning("the engine is told later that somebody was put out of room %r: %s", room, error)

    # --- what arrives

    def _appended(self, log: Log, stamp: bytes, payload: bytes, excluded: frozenset[str], key: str) -> None:
        if self.unkept is not None:
            self.unkept.appended(log, stamp)
        feed = self.feeds.by_topic.get(log.topic)
        if feed is not None:
            feed.heard(stamp, payload, excluded, key, is_own=True)

    def _noticed(self, topic: str, top: Top, cleared: bool) -> None:
        feed = self.feeds.by_topic.get(topic)
        if feed is not None:
            feed.noticed(Stamp(top.position, top.position.mark, top.time).pack(), cleared=cleared)


async def _does(step: Callable[[], Awaitable[None]]) -> bool:
    """Take a step that asks the engine; whether it could be taken."""
    try:
        await step()
    except BackplaneUnavailable:
        return False
    return True
