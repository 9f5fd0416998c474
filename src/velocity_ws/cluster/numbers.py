"""Numbers: how many messages a node has published to each topic, told to those who may have missed some.

Who hears again asks the others. That is not enough where nodes leave an engine one after the other, as when another
server becomes the primary: who has left does not hear what is published on the old one after that, where the engine
confirms it all the same. So who leaves later says how far it has come, as soon as it is heard. Knows no client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated

import msgspec

from velocity_ws.backplane.base import Backplane, Moving
from velocity_ws.cluster.counts import SentNumbers
from velocity_ws.cluster.envelopes import Count, Topic
from velocity_ws.cluster.gaps import Gaps
from velocity_ws.cluster.notes import Notes
from velocity_ws.cluster.rpc import Procedure, Replies, Rpc
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.logs import get_logger

__all__ = ["Numbers"]

log = get_logger("velocity_ws.cluster")

CHUNK = 2000
"""Topics that are told of at once."""
MOST = 20_000
"""Topics that are told of; those where something was published last."""
AGAIN = 1.0
"""Seconds until they are told again, where the engine did not take it."""
LATE = 0.2
"""Seconds in which what others had published when they said how much it was still comes, where there is no order across
topics."""
MARKS = 200
"""Moments of which it is known how much was published until then."""

_ServerId = Annotated[str, msgspec.Meta(max_length=512)]
_Counts = Annotated[dict[Topic, Count], msgspec.Meta(max_length=CHUNK)]


class _Told(msgspec.Struct, array_like=True, frozen=True):
    """What others are told: the server that was left, empty where it is not known, and the numbers of topics."""

    server_id: _ServerId
    counts: _Counts


Asked = Procedure[tuple[str, ...], dict[str, int]]

_ASKED: Asked = Procedure("numbers", tuple[Topic, ...], dict[Topic, Count])
_TOLD = "published"


class Numbers:
    """Those of one node. On the broker's loop only."""

    def __init__(
        self,
        backplane: Backplane,
        sent: SentNumbers,
        gaps: Gaps,
        rpc: Rpc,
        notes: Notes,
        call_all: Callable[[Asked, tuple[str, ...]], Awaitable[Replies[dict[str, int]]]],
        heard_of_all: Callable[[], float | None],
    ) -> None:
        """
        Args:
            backplane: tells which server it is connected to.
            sent: what the node has published.
            gaps: is told what others say of theirs.
            rpc: where others ask.
            notes: tells others.
            call_all: calls a procedure of all others.
            heard_of_all: since when not all other nodes were heard, in seconds of the clock; ``None`` where there are
                none.
        """
        self._backplane = backplane
        self._sent = sent
        self._gaps = gaps
        self._notes = notes
        self._call_all = call_all
        self._heard_of_all = heard_of_all
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS)
        self._doubtful: dict[str, int] = {}
        self._left_id: str | None = None
        self._is_left = asyncio.Event()
        self._is_ordered = bool(getattr(backplane, "is_ordered", True))
        if not self._is_ordered:
            gaps.expect_late()
        if isinstance(backplane, Moving):
            backplane.on_missed = self._missed
        rpc.register(_ASKED, self._counts)
        rpc.on_notification(_TOLD, _Told, self._told)

    def mark(self, now: float) -> None:
        """Remember how much was published until now; called again and again."""
        self._marks.append((now, self._sent.total))

    def left(self) -> None:
        """The engine is left: what was published since all others were heard may have come to nobody."""
        since = self._heard_of_all()
        if since is None:
            return
        before = max([total for moment, total in self._marks if moment <= since], default=0)
        self._doubtful |= self._sent.newest(min(self._sent.total - before, MOST))
        self._left_id = self._server_id if self._left_id in (None, self._server_id) else ""

    def _missed(self, topics: Collection[str]) -> None:
        """A part of the engine was left: of some topics something may have been missed, and of what was published."""
        self.left()
        self._is_left.set()
        self._gaps.missed(topics)

    async def run(self) -> None:
        """Tell the others each time that the engine, or a part of it, was left; until cancelled."""
        while True:
            self._is_left.clear()
            await self.tell()
            await self._is_left.wait()

    async def tell(self) -> None:
        """Tell the others what may have come to nobody, now that they are heard again; until they were told."""
        while self._doubtful:
            some = {topic: self._doubtful[topic] for topic in list(self._doubtful)[:CHUNK]}
            try:
                await self._notes.tell(_TOLD, _Told(self._left_id or "", some))
            except BackplaneUnavailable as error:
                log.debug("the others were not told what was published: %s", error)
                await asyncio.sleep(AGAIN)
            else:
                for topic in some:
                    self._doubtful.pop(topic, None)
        self._left_id = None

    async def ask(self, topics: tuple[str, ...]) -> Replies[dict[str, int]]:
        """Ask the other nodes for theirs, of some topics. When it returns, what they had published has come."""
        replies = await self._call_all(_ASKED, topics)
        if not self._is_ordered:
            await asyncio.sleep(LATE)
        return replies

    def _told(self, origin: str, told: _Told) -> None:
        # Who was on the same server has heard it, or has lost its own connection, and asked.
        if told.server_id and told.server_id == self._server_id:
            return
        if self._is_ordered:
            self._gaps.told(origin, told.counts)
        else:
            asyncio.get_running_loop().call_later(LATE, self._gaps.told, origin, told.counts)

    @property
    def _server_id(self) -> str:
        return str(getattr(self._backplane, "server_id", ""))

    async def _counts(self, topics: tuple[str, ...]) -> dict[str, int]:
        return {topic: count for topic in topics if (count := self._sent.count(topic))}
