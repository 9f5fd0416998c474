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
from typing import Annotated, Protocol

import msgspec

from velocity_ws.cluster.envelopes import Count, Topic
from velocity_ws.cluster.rpc import Procedure, Replies
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.entries import Stamp
from velocity_ws.history.feed import Feed, Gap
from velocity_ws.history.feeds import Feeds
from velocity_ws.history.items import Log, Query, Top
from velocity_ws.history.link import HistoryLink
from velocity_ws.history.positions import EPOCH_SIZE, MARK_SIZE
from velocity_ws.logs import get_logger

__all__ = ["Others", "Unkept"]

log = get_logger("velocity_ws.history")

MOST = 8192
"""Messages that were appended last, of which it is looked whether the engine still has them."""
IN_DOUBT = 60_000
"""Milliseconds before the last message for which it is looked: a server that took one still had all that is older."""
LONGEST = 500
"""Messages of one room that are looked at, and told of; the last of them."""
AT_ONCE = 50
"""Rooms that are asked about, or told of, at once."""
REMEMBERED = 1000
"""Rooms of which it is remembered what was lost, for those who hear it later."""
REMEMBERED_FOR = 60.0
"""Seconds for which it is; who comes after that has not had a member then."""
DEALT_WITH = 20_000
"""Lost messages of which it is known that the members here have had them, or were told."""

_Epoch = Annotated[bytes, msgspec.Meta(min_length=EPOCH_SIZE, max_length=EPOCH_SIZE)]
_Mark = Annotated[bytes, msgspec.Meta(min_length=MARK_SIZE, max_length=MARK_SIZE)]
_Entries = Annotated[list[tuple[Count, _Mark]], msgspec.Meta(max_length=LONGEST)]


class Lost(msgspec.Struct, array_like=True, frozen=True):
    """What was lost of one room.

    Attributes:
        topic: of its log.
        epoch: the life of the log.
        entries: offset and mark of each message.
    """

    topic: Topic
    epoch: _Epoch
    entries: _Entries


_Rooms = Annotated[list[Lost], msgspec.Meta(max_length=REMEMBERED)]
Asked = Procedure[None, list[Lost]]

_TOLD = "unkept"
_ASKED: Asked = Procedure("unkept", type(None), _Rooms)


class Others(Protocol):
    """The other nodes. On the broker's loop only."""

    def register(self, procedure: Asked, handler: Callable[[None], Awaitable[list[Lost]]]) -> None:
        """Have a function answer their calls of a procedure."""

    def on_notification(self, what: str, args: type[list[Lost]], handler: Callable[[str, list[Lost]], None]) -> None:
        """Have a function called for each notification of a name."""

    async def call_all(self, procedure: Asked, args: None) -> Replies[list[Lost]]:
        """Call a procedure of all of them."""


class Unkept:
    """What one node does about it. On the broker's loop only."""

    def __init__(
        self,
        others: Others,
        notify: Callable[[str, object], object],
        link: HistoryLink,
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
        self._clock = clock
        self._appended: deque[tuple[Log, bytes]] = deque(maxlen=MOST)
        self._doubtful: list[tuple[Log, Stamp]] = []
        self._left_id: str | None = None
        self._lost: deque[tuple[float, Lost]] = deque(maxlen=REMEMBERED)
        self._untold: list[Lost] = []
        self._dealt_with: OrderedDict[bytes, None] = OrderedDict()
        feeds.when_back = self._went_back
        others.register(_ASKED, self._answer)
        others.on_notification(_TOLD, _Rooms, lambda _, lost: self._told(lost))

    def appended(self, where: Log, stamp: bytes) -> None:
        """This node has appended something, which the engine gave a stamp, packed."""
        self._appended.append((where, stamp))

    def down(self) -> None:
        """The connection to the engine is lost: the next one may be to a server that has less."""
        appended = [(where, Stamp.unpack(packed)) for where, packed in self._appended]
        newest = max([stamp.time for _, stamp in appended], default=0)
        late = [each for each in appended if each[1].time > newest - IN_DOUBT]
        self._doubtful = [*self._doubtful, *late][-MOST:]
        self._appended.clear()
        self._left_id = self._link.server_id if self._left_id in (None, self._link.server_id) else ""

    async def look(self) -> None:
        """Look whether the engine has what was appended before the connection was lost, and tell the others.

        Raises:
            BackplaneUnavailable: it did not answer; call it again.
        """
        doubtful, self._doubtful = self._doubtful, []
        left_id, self._left_id = self._left_id, None
        if not doubtful or (left_id and left_id == self._link.server_id):
            return  # a server that has not been away has what it had
        try:
            lost = await self._lost_of(doubtful)
        except BackplaneUnavailable:
            self._doubtful = [*doubtful, *self._doubtful][-MOST:]
            self._left_id = left_id if self._left_id in (None, left_id) else ""
            raise
        if lost:
            count = sum([len(each.entries) for each in lost])
            log.warning(
                "the engine has lost %d messages of this node that it had confirmed (rooms: %d)", count, len(lost)
            )
            if len(doubtful) == MOST:
                log.warning("it may have lost more: only the last %d were looked for", MOST)
            self._tell(lost)
            self._told(lost)

    async def ask(self) -> None:
        """Tell the others what was lost lately, which they may not have heard, and ask them; they are heard again."""
        self._notify_of(await self._answer(None))
        with contextlib.suppress(BackplaneUnavailable):
            replies = await self._others.call_all(_ASKED, None)
            for lost in replies.by_node.values():
                self._told(lost)

    async def _lost_of(self, doubtful: Sequence[tuple[Log, Stamp]]) -> list[Lost]:
        by_log: dict[Log, list[Stamp]] = {}
        for where, stamp in doubtful:
            by_log.setdefault(where, []).append(stamp)
        logs, lost = list(by_log), list[Lost]()
        for first in range(0, len(logs), AT_ONCE):
            some = logs[first : first + AT_ONCE]
            tops = await self._link.tops(some)
            found = await asyncio.gather(
                *[self._lost_of_one(log, by_log[log], top) for log, top in zip(some, tops, strict=True)]
            )
            lost += [each for each in found if each is not None]
        return lost

    async def _lost_of_one(self, where: Log, stamps: Sequence[Stamp], top: Top | None) -> Lost | None:
        """What is not there of what was appended to one log. A server that takes over has all up to somewhere."""
        if top is None:
            return None  # the engine cannot say
        gone: list[tuple[int, bytes]] = []
        is_in_doubt = False
        for stamp in reversed(stamps[-LONGEST:]):
            position = stamp.position
            if position.epoch != top.position.epoch:
                break  # that it has begun anew, all find
            if not is_in_doubt:
                has = await self._has(where, stamp, top)
                if has:
                    break
                is_in_doubt = has is None  # and so are all before it
            gone.append((position.offset, position.mark))
        return Lost(where.topic, top.position.epoch, gone[::-1]) if gone else None

    async def _has(self, where: Log, stamp: Stamp, top: Top) -> bool | None:
        """Whether an entry is there; ``None`` where that cannot be seen, as the log has given it up for later ones."""
        offset, mark = stamp.position.offset, stamp.position.mark
        if offset >= top.position.offset:
            return (offset, mark) == (top.position.offset, top.position.mark)
        found = (await self._link.read(Query(where, offset - 1, 1))).entries
        if not found or found[0].stamp.position.offset != offset:
            return None
        return found[0].stamp.position.mark == mark

    # --- what others are told, and tell

    def _went_back(self, feed: Feed, epoch: bytes, entries: list[tuple[int, bytes]]) -> None:
        """The members of a room here have had messages that the engine has no more."""
        self._deal_with(entries)
        self._tell([Lost(feed.log.topic, epoch, entries[-LONGEST:])])

    def _tell(self, lost: list[Lost]) -> None:
        self._lost += [(self._clock(), each) for each in lost]
        if not self._untold:  # many rooms go back at once
            asyncio.get_running_loop().call_soon(self._tell_now)
        self._untold += lost

    def _tell_now(self) -> None:
        lost, self._untold = self._untold, []
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
