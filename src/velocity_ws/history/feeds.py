"""Feeds: the rooms with history that a node has members of: what they want to know is asked, once for all who wait.

Knows the engine's logs, and no client: what arrives for a room goes to the hub.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.checks import Checks
from velocity_ws.history.feed import Feed, Gap
from velocity_ws.history.items import Log, Query, Range
from velocity_ws.history.link import HistoryLink
from velocity_ws.history.outcomes import unavailable
from velocity_ws.history.ring import Frame, Rings
from velocity_ws.messages.events import encode_lost
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["Feeds"]

PAGE = 500
"""Entries that are read at once where something is missing."""
PAGE_BYTES = 1024 * 1024
WAIT = 1.0
"""Seconds after which is asked for what is missing before a message of this node, or could not be asked before."""

GiveAll = Callable[[str, PreparedMessage, frozenset[str]], object]
"""Gives a message to the members of a room who are not held, but for those of some ids."""


class Ear(Protocol):
    """The way by which a node hears what is published to a room."""

    @property
    def logged(self) -> dict[str, Any]:
        """Where the feeds are put that take what is heard, by their topics."""

    async def wait_heard(self, room: str) -> bool:
        """Wait until what is published to a room is heard, or the timeout is over; whether it is."""


class Feeds:
    """All feeds of one node. On the broker's loop only.

    Attributes:
        by_topic: the feeds, by their topics.
        when_open: called with a feed of which it has become known where its log ends.
        when_anew: called when a log has begun anew, as an engine does that has lost what it had.
        when_back: called with a feed, the epoch, and offset and mark of what its members have had and is there no more.
    """

    def __init__(
        self,
        link: HistoryLink,
        ear: Ear | None,
        give_all: GiveAll,
        counters: Counters,
        *,
        ring: int,
        limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            link: the way to the logs.
            ear: the way by which rooms are heard; ``None`` where there are no other nodes.
            give_all: gives a message to the members of a room.
            counters: the node's.
            ring: bytes of messages that are kept here.
            limit: messages that a client may recover at once.
            clock: seconds, never going back.
        """
        self.by_topic: dict[str, Feed] = {} if ear is None else ear.logged
        self.when_open: Callable[[Feed], None] = lambda _: None
        self.when_anew: Callable[[], None] = lambda: None
        self.when_back: Callable[[Feed, bytes, list[tuple[int, bytes]]], None] = lambda *_: None
        self._by_room: dict[str, Feed] = {}
        self._link = link
        self._ear = ear
        self._give_all = give_all
        self._counters = counters
        self._rings = Rings(ring)
        self._limit = limit
        self._clock = clock
        self._steps: dict[Feed, asyncio.Task[str | None]] = {}
        self._checks = Checks(self._tops, clock)
        self._checking: asyncio.Task[None] | None = None

    # --- life

    def start(self) -> None:
        """Begin to look after the feeds."""
        self._checking = asyncio.create_task(self._checks.run(), name="velocity-ws history checks")
        self._link.on_up.append(self.look_soon)

    async def stop(self) -> None:
        """Ask the engine nothing more, and forget all rooms."""
        tasks: list[asyncio.Task[object]] = [*self._steps.values()]
        if self._checking is not None:
            tasks.append(self._checking)
        for feed in self.by_topic.values():
            feed.is_over = True
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.by_topic.clear()
        self._by_room.clear()

    def open(self, room: str, log: Log, *, is_latest: bool) -> Feed:
        """The feed of a room, which has a member here; a new one where there is none."""
        feed = self._by_room.get(room)
        if feed is None:
            feed = Feed(room, log, self._rings, self, is_latest=is_latest, clock=self._clock)
            self._by_room[room] = self.by_topic[log.topic] = feed
        return feed

    def of(self, room: str) -> Feed | None:
        """The feed of a room; ``None`` where the node has had no member of it of late."""
        return self._by_room.get(room)

    def close(self, topic: str) -> None:
        """A room is heard no more, as it has no members here."""
        feed = self.by_topic.pop(topic, None)
        if feed is not None:
            feed.is_over = True
            feed.ring.clear()
            self._checks.forget(feed)
            del self._by_room[feed.room]

    def deaf(self, topic: str) -> None:
        """A room was not heard for a while."""
        feed = self.by_topic.get(topic)
        if feed is not None:
            feed.wants_top = True
            self._checks.later(feed)

    def look_soon(self) -> None:
        """Look soon whether something was missed in any room."""
        for feed in self.by_topic.values():
            self._checks.later(feed)

    # --- what is asked

    async def opened(self, feed: Feed) -> None:
        """Wait until it is known where the log of a room ends.

        Raises:
            BackplaneUnavailable: the engine did not say it.
        """
        while not feed.is_open:
            await self._step_of(feed)

    async def ranged(self, feed: Feed) -> None:
        """Read the newest entries of a room, and what the node has missed up to them, once for all who wait for that.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        feed.wants_range = True
        while feed.wants_range or feed.wants_rest:
            await self._step_of(feed)

    def ask(self, feed: Feed) -> None:
        """Ask what a feed wants to know."""
        if feed not in self._steps and not feed.is_over and not feed.is_settled and self._checking is not None:
            task = self._steps[feed] = asyncio.create_task(self._step(feed), name="velocity-ws history")
            task.add_done_callback(partial(self._stepped, feed))

    def wait(self, feed: Feed) -> None:
        """Ask in a while, where what is missing before a message of this node is not heard."""
        self._checks.later(feed, WAIT)

    async def _step_of(self, feed: Feed) -> None:
        self.ask(feed)
        task = self._steps.get(feed)
        if task is None or feed.is_over:
            raise unavailable("the room is not kept here any more")
        await asyncio.wait([task])
        failure = "the broker is stopping" if task.cancelled() else task.result()
        if failure is not None:
            raise unavailable(failure)

    def _stepped(self, feed: Feed, task: asyncio.Task[str | None]) -> None:
        del self._steps[feed]
        if task.cancelled():
            return
        if task.result() is None:
            self.ask(feed)
        elif not feed.is_over:
            self._checks.later(feed, WAIT)

    async def _step(self, feed: Feed) -> str | None:
        """Ask one thing; why there is no answer, or ``None``."""
        try:
            await self._ask_one(feed)
        except BackplaneUnavailable as error:
            return error.reason
        return None

    async def _ask_one(self, feed: Feed) -> None:
        was_open = feed.is_open
        if not was_open and self._ear is not None and not await self._ear.wait_heard(feed.room):
            raise unavailable("the engine did not confirm in time that the room is heard")
        log = feed.log
        asked = feed.asked()
        # What is answered once the room is over is for nobody: those who have come since have a feed of their own.
        if feed.wants_range:
            limits = log.limits
            most = min(limits.max_bytes, self._rings.limit)
            query = Query(log, 0, min(limits.size, self._limit), most, newest=True)
            found = await self._read(query)
            if not feed.is_over:
                feed.learned_range(found, query, asked)
        elif feed.wants_rest and was_open:
            query = Query(log, feed.offset, PAGE, PAGE_BYTES)
            found = await self._read(query)
            if not feed.is_over:
                self._counters.repaired += feed.learned_rest(found, query, asked)
        else:
            top = await self._link.top(log)
            if not feed.is_over:
                feed.learned_top(top, asked)
        if feed.is_open and not was_open:
            self._checks.watch(feed)
            self.when_open(feed)

    async def _read(self, query: Query) -> Range:
        self._counters.history_reads += 1
        return await self._link.read(query)

    async def page(self, feed: Feed, after: int, size: int = PAGE_BYTES) -> Range:
        """Read entries that follow an offset, for one client alone.

        Args:
            feed: the room's.
            after: the offset.
            size: bytes of them at most, but one in any case.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        return await self._read(Query(feed.log, after, PAGE, size))

    async def _tops(self, feeds: list[Feed]) -> None:
        """Ask where the logs of some rooms end; see `Checks`."""
        for feed in feeds:
            if feed.waits:
                feed.wants_rest = feed.is_open
        asking = [feed for feed in feeds if feed not in self._steps and feed.is_open and feed.is_settled]
        for feed in feeds:
            self.ask(feed)
        asked = [feed.asked() for feed in asking]
        if not asking:
            return
        for feed, before, top in zip(asking, asked, await self._link.tops([feed.log for feed in asking]), strict=True):
            if top is not None and not feed.is_over:
                feed.learned_top(top, before)
                self.ask(feed)

    # --- what feeds tell

    def wake(self, feed: Feed) -> None:
        """Look some time after this whether a room's last message was lost."""
        self._checks.watch(feed)

    def went_back(self, feed: Feed, epoch: bytes, entries: list[tuple[int, bytes]]) -> None:
        """See `FeedUser.went_back`."""
        self.when_back(feed, epoch, entries)

    def deliver(self, feed: Feed, frame: Frame) -> None:
        """Give a message to the members of a room."""
        self._give_all(feed.room, frame.message, frame.excluded)

    def tell(self, feed: Feed, gap: Gap, *, counts: bool = True) -> None:
        """Tell the members of a room that something is missing, and count it unless that is done already."""
        self._counters.backplane_gaps += 1
        if counts:
            self._counters.backplane_missed += gap.missed or 0
        message = encode_lost(feed.room, gap.missed, gap.reason, gap.at, gap.before)
        self._give_all(feed.room, message, frozenset())
        if gap.reason == "epoch":
            self.when_anew()
