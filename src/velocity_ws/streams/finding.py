"""Finding: what readers are to get of streams, and is not kept here: read from the engine, once for all who wait.

Knows no client.
"""

from __future__ import annotations

import asyncio

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.stream_errors import StreamGone
from velocity_ws.streams.copies import MESSAGE, StreamCopy
from velocity_ws.streams.following import PAGE, Following, readable
from velocity_ws.streams.items import Query
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.pieces import Piece, join

__all__ = ["Finding"]


class Finding:
    """What one node reads for its readers. On the broker's loop only."""

    def __init__(self, following: Following, link: StreamLink) -> None:
        """
        Args:
            following: the streams.
            link: the way to the engine.
        """
        self._following = following
        self._link = link
        self._fills: dict[StreamCopy, asyncio.Task[bool]] = {}

    async def filled(self, copy: StreamCopy) -> bool:
        """Have all of a stream here, once for all who wait for that, where there is room for it; whether it is.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        if copy.kept_from == 0 or copy.is_large or copy.length > self._most:
            return copy.kept_from == 0
        task = self._fills.get(copy)
        if task is None:
            task = self._fills[copy] = self._following.run(self._fill(copy))
            task.add_done_callback(lambda _: self._fills.pop(copy, None))
        await asyncio.wait([task])
        return not task.cancelled() and task.exception() is None and task.result()

    @property
    def _most(self) -> int:
        """Bytes of the largest stream of which all is kept."""
        return self._following.copies.limit // 2

    async def _fill(self, copy: StreamCopy) -> bool:
        pieces: list[Piece] = []
        size = copy.size
        at, to = 0, copy.kept_from
        while at < to:
            try:
                part = await self._link.read(Query(copy.id, copy.topic, at, PAGE))
            except BackplaneUnavailable:
                return False
            found = [] if part is None else [piece.after(at) for piece in readable(copy, part.payloads)]
            found = [piece for piece in found if at <= piece.start < to and piece.length]
            if not found or found[0].start != at:
                return False
            pieces += found
            at = found[-1].stop
            size += sum([len(piece.data) for piece in found])
            if size > self._most:  # an item, or a character, has more bytes than one
                copy.is_large = True
                return False
        if copy.kept_from != to:  # it was let go meanwhile, or filled
            return False
        copy.fill([piece.until(to) for piece in pieces])
        return True

    async def page(self, copy: StreamCopy, cursor: int) -> Piece | None:
        """Read what follows for one reader alone; ``None`` where there is nothing.

        Raises:
            StreamGone: it is kept no more.
            BackplaneUnavailable: the engine did not answer.
        """
        part = await self._link.read(Query(copy.id, copy.topic, cursor, MESSAGE - 1024))
        if part is None or part.stream.is_gone:
            raise StreamGone(copy.id)
        found = [piece for each in readable(copy, part.payloads) if (piece := each.after(cursor)).length]
        return join(found) if found and found[0].start == cursor else None
