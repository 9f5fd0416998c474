"""Numbers: how many messages a node has published to each topic, told to those who may have missed some.

Who hears again asks the others. That is not enough where nodes leave an engine one after the other, as when another
server becomes the primary: who has left does not hear what is published on the old one after that, where the engine
confirms it all the same. So who leaves later says how far it has come, as soon as it is heard. Knows no client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from velocity_ws.cluster.envelopes import Count, Topic
from velocity_ws.cluster.gaps import Gaps, SentNumbers
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
MARKS = 200
"""Moments of which it is known how much was published until then."""

Asked = Procedure[tuple[str, ...], dict[str, int]]

_ASKED: Asked = Procedure("numbers", tuple[Topic, ...], dict[Topic, Count])
_TOLD = "published"


class Numbers:
    """Those of one node. On the broker's loop only."""

    def __init__(
        self,
        sent: SentNumbers,
        gaps: Gaps,
        rpc: Rpc,
        notes: Notes,
        call_all: Callable[[Asked, tuple[str, ...]], Awaitable[Replies[dict[str, int]]]],
        heard_of_all: Callable[[], float | None],
    ) -> None:
        """
        Args:
            sent: what the node has published.
            gaps: is told what others say of theirs.
            rpc: where others ask.
            notes: tells others.
            call_all: calls a procedure of all others.
            heard_of_all: since when not all other nodes were heard, in seconds of the clock; ``None`` where there are
                none.
        """
        self._sent = sent
        self._notes = notes
        self._call_all = call_all
        self._heard_of_all = heard_of_all
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS)
        self._doubtful: dict[str, int] = {}
        rpc.register(_ASKED, self._counts)
        rpc.on_notification(_TOLD, dict[Topic, Count], gaps.told)

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

    async def tell(self) -> None:
        """Tell the others what may have come to nobody, now that they are heard again."""
        topics = list(self._doubtful)
        for first in range(0, len(topics), CHUNK):
            chunk = {topic: self._doubtful[topic] for topic in topics[first : first + CHUNK]}
            try:
                await self._notes.tell(_TOLD, chunk)
            except BackplaneUnavailable as error:  # told with the next connection
                log.debug("the others were not told what was published: %s", error)
                return
            for topic in chunk:
                self._doubtful.pop(topic, None)

    async def ask(self, topics: tuple[str, ...]) -> Replies[dict[str, int]]:
        """Ask the other nodes for theirs, of some topics."""
        return await self._call_all(_ASKED, topics)

    async def _counts(self, topics: tuple[str, ...]) -> dict[str, int]:
        return {topic: count for topic in topics if (count := self._sent.count(topic))}
