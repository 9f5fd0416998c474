"""Writer: one stream that this node writes: what is said is gathered, stored piece by piece, and ended once.

Knows no engine and no reader: `Pulse` has it stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from velocity_ws.stream_errors import StreamEnded, StreamTooLarge
from velocity_ws.streams.gathering import Gathering, LargeItem
from velocity_ws.streams.items import Append, Begin, End, Renewal, Times, Written
from velocity_ws.streams.pieces import HEADER_SIZE
from velocity_ws.streams.wire import Heads

__all__ = ["MOST_WAITING", "StreamWriter"]

MOST_WAITING = 256 * 1024
"""Bytes that may wait to be stored, until a writer is made to wait."""
PIECE = 40 * 1024
"""Bytes of what is stored as one piece: as JSON, which has up to six for one, it is no long message."""


class Stores(Protocol):
    """Has what writers say stored. On the broker's loop only."""

    def add(self, writer: StreamWriter, *, is_urgent: bool = False) -> None:
        """A writer has something to store."""

    def forget(self, writer: StreamWriter) -> None:
        """A writer has nothing to store any more."""


class StreamWriter:
    """The writing side of a stream. On the broker's loop only.

    Attributes:
        id: the stream's.
        room: the stream's.
        end: how the stream has ended, as the engine has it; empty while it has not.
        is_closed: whether nothing more is taken.
        when_dead: called once when the engine takes nothing more, as the stream has ended otherwise, with that end.
    """

    def __init__(
        self,
        begin: Begin,
        node_id: str,
        limit: int,
        max_payload: int,
        stores: Stores,
        took: Callable[[str, str, bytes], None],
    ) -> None:
        """
        Args:
            begin: of the stream.
            node_id: this node's.
            limit: bytes that the stream may have.
            max_payload: bytes of the largest message that the engine takes.
            stores: has it stored.
            took: told of the room, the id and the payload of each piece that the engine has taken, in order.
        """
        self.id, self._topic, self.room, self._token, _ = begin
        self.end: End = ""
        self.is_closed = False
        self.when_dead: Callable[[End], None] = lambda _: None
        self._heads = Heads(node_id, begin.room, begin.id)
        self._limit = limit
        self._stores = stores
        self._took = took
        self._most = max_payload - len(self._heads.of(max_payload)) - HEADER_SIZE
        self._gathering = Gathering(limit, self._most)
        self._ends: End = ""
        self._pending: Append | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._over: asyncio.Event = asyncio.Event()

    async def write(self, said: Any) -> None:
        """Say something; waits while much has not been stored yet.

        Raises:
            StreamEnded: the stream has ended.
            StreamTooLarge: it would be too large with it, or the item is; it goes on without.
            TypeError: it is an item, and the stream has text, or it is bytes, and the stream has items.
            EncodeError: the item has no JSON form.
        """
        self._check()
        try:
            waiting = self._gathering.add(said)
        except OverflowError:
            raise StreamTooLarge(self.id, self._limit) from None
        except LargeItem:
            raise StreamTooLarge(self.id, self._most, is_item=True) from None
        if not self._gathering.is_empty and self._pending is None:
            self._stores.add(self, is_urgent=waiting >= PIECE)
        while waiting > MOST_WAITING:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
            self._check()
            waiting = self._gathering.waiting

    def announce(self) -> None:
        """Let those who follow the room know of the stream, though it has said nothing yet."""
        self._stores.add(self, is_urgent=True)

    def close(self, end: End) -> None:
        """Take nothing more, and end the stream behind what was said. Harmless when it is closed."""
        if not self.is_closed:
            self.is_closed = True
            self._ends = end
            self._gathering.finish(is_all=end == "done")
            self._wake()
            if self._pending is None:
                self._stores.add(self, is_urgent=True)

    async def wait_over(self) -> End:
        """Wait until the engine has the end, or takes nothing more; the end."""
        await self._over.wait()
        return self.end

    @property
    def ends(self) -> End:
        """How the stream has ended, or will once that is stored; empty while that is open."""
        return self.end or self._ends

    @property
    def is_over(self) -> bool:
        """Whether the engine has the end, or takes nothing more."""
        return self._over.is_set()

    def renewal(self, times: Times) -> Renewal:
        """What says that it lives."""
        return Renewal(self.id, self._topic, self._token, times)

    def next(self) -> Append:
        """What is to be stored now; the same again until it is answered."""
        if self._pending is None:
            payload = self._gathering.take(PIECE, self._ends)
            self._pending = Append(self.id, self._topic, self._token, payload, self._heads.of(len(payload)))
        return self._pending

    def answered(self, written: Written) -> None:
        """The engine has taken what was to be stored, or takes nothing more."""
        pending, self._pending = self._pending, None
        if pending is None or self.is_over:
            return
        if not written.is_taken:
            self.dead(written.end or "lost")
            return
        if self._gathering.waiting <= MOST_WAITING // 2:
            self._wake()
        if self.is_closed and self._gathering.has_ended:
            self._finish(self._ends)
        elif self.is_closed or not self._gathering.is_empty:
            self._stores.add(self, is_urgent=self.is_closed or self._gathering.waiting >= PIECE)
        self._took(self.room, self.id, pending.payload)

    def dead(self, end: End) -> None:
        """The stream has ended otherwise."""
        if not self.is_over:
            self.is_closed = True
            self._finish(end)
            self.when_dead(end)

    def abandon(self) -> None:
        """Nothing more is stored by this node: who waits for the end goes on, and the lease ends the stream."""
        if not self.is_over:
            self.is_closed = True
            self._finish("lost")

    def _finish(self, end: End) -> None:
        self.end = end
        self._over.set()
        self._stores.forget(self)
        self._wake()

    def _check(self) -> None:
        if self.is_closed:
            raise StreamEnded(self.id, self.ends)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
