"""Unkept: messages that an engine has confirmed and lost, told to members who have not had them. Knows no client.

An engine that copies to its replicas afterwards forgets the last messages when one of these takes over. Who has had
them finds that the log went back. Who has not, because its node had left the old server already, finds nothing: it is
told by the nodes that have appended or heard them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from velocity_ws.cluster.envelopes import Count, Topic
from velocity_ws.cluster.rpc import Procedure, Replies
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.asking import Asking
from velocity_ws.history.entries import Stamp
from velocity_ws.history.feed import Feed, Gap
from velocity_ws.history.feeds import Feeds
from velocity_ws.history.items import Log, Query
from velocity_ws.logs import get_logger

__all__ = ["Others", "Unkept"]

log = get_logger("velocity_ws.history")

MOST = 8192
"""Messages that were appended last, of which it is looked whether the engine still has them."""
AT_ONCE = 50
"""Rooms that are looked at at once."""
LONGEST = 1000
"""Messages of one room that are looked at; the last of them."""
REMEMBERED = 1000
"""Rooms of which it is remembered what was lost, for those who hear it later."""
REMEMBERED_FOR = 60.0
"""Seconds for which it is; who comes after that has not had a member then."""
DEALT_WITH = 20_000
"""Lost messages of which it is known that the members here have had them, or were told."""


class Lost(msgspec.Struct, array_like=True, frozen=True):
    """What was lost of one room.

    Attributes:
        topic: of its log.
        epoch: the life of the log.
        entries: offset and mark of each message.
    """

    topic: Topic
    epoch: bytes
    entries: list[tuple[Count, bytes]]


_TOLD = "unkept"
_ASKED: Procedure[None, list[Lost]] = Procedure("unkept", type(None), list[Lost])


class Others(Protocol):
    """The other nodes. On the broker's loop only."""

    def register(
        self, procedure: Procedure[None, list[Lost]], handler: Callable[[None], Awaitable[list[Lost]]]
    ) -> None:
        """Have a function answer their calls of a procedure."""

    def on_notification(self, what: str, args: type[list[Lost]], handler: Callable[[str, list[Lost]], None]) -> None:
        """Have a function called for each notification of a name."""

    async def call_all(self, procedure: Procedure[None, list[Lost]], args: None) -> Replies[list[Lost]]:
        """Call a procedure of all of them."""


class Unkept:
    """What one node does about it. On the broker's loop only."""

    def __init__(
        self,
        others: Others,
        notify: Callable[[str, object], object],
        link: Asking,
        feeds: Feeds,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            others: the other nodes.
            notify: tells all of them something.
            link: the way to the logs.
            feeds: the rooms that have members here.
            clock: seconds, never going back.
        """
        self._others = others
        self._notify = notify
        self._link = link
        self._feeds = feeds
        self._appended: deque[tuple[Log, Stamp]] = deque(maxlen=MOST)
        self._doubtful: list[tuple[Log, Stamp]] = []
        self._clock = clock
        self._lost: deque[tuple[float, Lost]] = deque(maxlen=REMEMBERED)
        self._dealt_with: OrderedDict[bytes, None] = OrderedDict()
        feeds.when_back = self._went_back
        others.register(_ASKED, self._answer)
        others.on_notification(_TOLD, list[Lost], lambda _, lost: self._told(lost))

    def appended(self, where: Log, stamp: Stamp) -> None:
        """This node has appended something."""
        self._appended.append((where, stamp))

    def down(self) -> None:
        """The connection to the engine is lost: the next one may be to a server that has less."""
        self._doubtful = [*self._doubtful, *self._appended][-MOST:]
        self._appended.clear()

    async def look(self) -> None:
        """Look whether the engine has what was appended before the connection was lost, and tell the others.

        Raises:
            BackplaneUnavailable: it did not answer; call it again.
        """
        by_log: dict[Log, list[Stamp]] = {}
        for where, stamp in self._doubtful:
            by_log.setdefault(where, []).append(stamp)
        logs = list(by_log)
        lost: list[Lost] = []
        for first in range(0, len(logs), AT_ONCE):
            some = logs[first : first + AT_ONCE]
            found = await asyncio.gather(*[self._lost_of(where, by_log[where][-LONGEST:]) for where in some])
            lost += [each for each in found if each is not None]
        self._doubtful = []
        if lost:
            count = sum([len(each.entries) for each in lost])
            log.warning("the engine has lost %d messages that it had confirmed, of %d rooms", count, len(lost))
            self._tell(lost)
            self._told(lost)

    async def ask(self) -> None:
        """Tell the others what was lost lately, which they may not have heard, and ask them; they are heard again."""
        self._notify_of(await self._answer(None))
        with contextlib.suppress(BackplaneUnavailable):
            replies = await self._others.call_all(_ASKED, None)
            for lost in replies.by_node.values():
                self._told(lost)

    async def _lost_of(self, where: Log, stamps: Sequence[Stamp]) -> Lost | None:
        first, last = stamps[0].position.offset, stamps[-1].position.offset
        found = await self._link.read(Query(where, first - 1, max(1, last - first + 1)))
        top, marks = (
            found.top.position,
            {each.stamp.position.offset: each.stamp.position.mark for each in found.entries},
        )
        if top.epoch != stamps[-1].position.epoch:
            return None  # the log has begun anew, which all find
        gone = [
            (offset, mark)
            for epoch, offset, _, mark in (stamp.position for stamp in stamps)
            if epoch == top.epoch and (offset > top.offset or marks.get(offset, mark) != mark)
        ]
        return Lost(where.topic, top.epoch, gone) if gone else None

    def _went_back(self, feed: Feed, epoch: bytes, entries: list[tuple[int, bytes]]) -> None:
        """The members of a room here have had messages that the engine has no more."""
        self._deal_with(entries)
        self._tell([Lost(feed.log.topic, epoch, entries)])

    def _tell(self, lost: list[Lost]) -> None:
        self._lost += [(self._clock(), each) for each in lost]
        self._notify_of(lost)

    def _notify_of(self, lost: list[Lost]) -> None:
        for first in range(0, len(lost), AT_ONCE):
            self._notify(_TOLD, lost[first : first + AT_ONCE])

    async def _answer(self, _: None) -> list[Lost]:
        oldest = self._clock() - REMEMBERED_FOR
        return [lost for when, lost in self._lost if when > oldest]

    def _told(self, lost: list[Lost]) -> None:
        """Tell the members here of what they have not had."""
        for each in lost:
            feed = self._feeds.by_topic.get(each.topic)
            if feed is None or not feed.is_open or feed.epoch != each.epoch:
                continue
            missing = [
                (offset, mark)
                for offset, mark in each.entries
                if mark not in self._dealt_with and not feed.has_had(offset, mark)
            ]
            if missing:
                self._deal_with(missing)
                self._feeds.tell(feed, Gap(None, "epoch", feed.at, feed.at))

    def _deal_with(self, entries: Sequence[tuple[int, bytes]]) -> None:
        self._dealt_with.update(dict.fromkeys([mark for _, mark in entries]))
        while len(self._dealt_with) > DEALT_WITH:
            self._dealt_with.popitem(last=False)
