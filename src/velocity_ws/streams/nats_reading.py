"""Reading: the pieces of a stream on NATS that a query gets. Knows no URL, and changes nothing."""

from __future__ import annotations

import asyncio
from typing import Final

from velocity_ws.history.items import Refused
from velocity_ws.streams.items import Part, Query, Summary
from velocity_ws.streams.nats_engine import NatsEngine
from velocity_ws.streams.nats_state import STRIDE, Last, Mark, State
from velocity_ws.streams.pieces import HEADER_SIZE, peek

__all__ = ["read_part"]

HOPS: Final = 1000
"""Marks that are followed back from the end, before it is read from the beginning."""
MOST: Final = 5000
"""Pieces that are read at once."""
TRIES: Final = 12
"""Readings that may have a hole: as a server is behind, or as they are purged."""
PAUSE: Final = 0.001


async def read_part(engine: NatsEngine, query: Query, state: State | None) -> Part | Refused | None:
    """What a query asks for, of a stream as it was in one moment.

    Raises:
        ConnectionError: the engine did not answer.
    """
    key = engine.names.key(query.id)
    for again in range(TRIES):
        if again:
            await asyncio.sleep(PAUSE * 2**again)
            engine.hints.pop(key, None)
            state = (await engine.states([key]))[0][key]
        stream = None if state is None else state.summary(await engine.now())
        if state is None or stream is None:
            return None
        payloads = [] if stream.is_gone else await _payloads(engine, key, query, state, stream)
        if payloads is not None:
            return Part(stream, payloads)
    return Refused("engine", "pieces of the stream are lost")


async def _payloads(engine: NatsEngine, key: str, query: Query, state: State, stream: Summary) -> list[bytes] | None:
    """What a query asks for; ``None`` where it is not there as it should be."""
    last = state.last
    if last is None or query.after >= stream.length:
        return []
    number, start, *_ = peek(last.payload)
    if start <= query.after:
        return [last.payload]
    subject = engine.names.pieces(key, stream.topic)
    reading = _Reading(query, number)
    average = HEADER_SIZE + stream.length // stream.pieces
    sequence, is_all = await _place(engine, key, subject, last, query.after), False
    while not reading.is_over and not is_all:
        most = min(MOST, 2 * (query.max_bytes - reading.size) // average + 2 * STRIDE)
        stored, is_all = await engine.stream.following(subject, sequence, most)
        for each in stored:
            reading.take(Last.of(each))
            sequence = each.sequence + 1
    if reading.next is not None:
        engine.hint(key, reading.next)
    return reading.payloads if reading.is_whole else None


async def _place(engine: NatsEngine, key: str, subject: str, last: Last, after: int) -> int:
    """The sequence of a piece that begins before what is asked for, or at it, as near as is known at once."""
    hint = engine.hints.get(key)
    if hint is not None and hint.start <= after:
        return hint.sequence
    mark = last.mark
    for _ in range(HOPS if after > mark.start // 4 else 1):
        if mark.start <= after:
            return mark.sequence
        stored = await engine.stream.at(mark.sequence)
        if stored is None or stored.header(b"Nats-Subject") != subject.encode():
            break
        mark = Last.of(stored).mark
    return 1


class _Reading:
    """A query on its way through the pieces of a stream.

    Attributes:
        payloads: what it gets.
        size: bytes of them.
        next: where the first piece is that did not fit.
        is_over: whether nothing more is needed.
        is_whole: whether it has what it should have, without a hole.
    """

    def __init__(self, query: Query, last: int) -> None:
        """
        Args:
            query: what is asked for.
            last: the number of the last piece.
        """
        self.payloads: list[bytes] = []
        self.size = 0
        self.next: Mark | None = None
        self.is_over = self.is_whole = False
        self._query = query
        self._last = last
        self._number = -1

    def take(self, piece: Last) -> None:
        """Take the next piece that is there."""
        if self.is_over:
            return
        number, start, *_ = peek(piece.payload)
        is_next, self._number = number == self._number + 1, number
        if start <= self._query.after:  # it is this one, or one behind it
            self.payloads, self.size = [piece.payload], len(piece.payload)
        elif not is_next or not self.payloads:
            self.is_over = True  # and not whole
        elif self.size + len(piece.payload) > self._query.max_bytes:
            self.next = Mark(piece.sequence, start)
            self.is_over = self.is_whole = True
        else:
            self.payloads.append(piece.payload)
            self.size += len(piece.payload)
        if number == self._last and not self.is_over:
            self.is_over = self.is_whole = True
