"""NatsEngine: the streams behind one connection to a NATS server, and how those are settled that end. Knows no URL."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from velocity_ws.history.items import Refused
from velocity_ws.history.nats_clock import EngineClock
from velocity_ws.history.nats_messages import Message, Stored
from velocity_ws.streams.nats_connection import Chain, NatsConnection
from velocity_ws.streams.nats_names import ROLLUP, Names
from velocity_ws.streams.nats_state import PLACE, Last, Mark, Record, State, Tail, time_of

__all__ = ["HEADERS", "NatsEngine"]

HEADERS: Final = 1024
"""Bytes that are kept free for the headers of a message."""
CACHED: Final = 16_384
"""Streams whose last piece is known without asking, of those that were written to last."""
HINTS: Final = 256
"""Streams that are read part by part, of which it is known where the next part begins."""


class NatsEngine:
    """The streams behind one connection. On one loop only.

    Attributes:
        stream: the connection.
        names: of what is in it.
        max_payload: bytes of the largest head and payload together.
        hints: by the keys of streams, marks of pieces that readers need next.
    """

    def __init__(self, stream: NatsConnection, names: Names) -> None:
        """
        Args:
            stream: open.
            names: of what is in it.
        """
        self.stream = stream
        self.names = names
        self.max_payload = int(stream.server.get("max_payload", 1024 * 1024)) - HEADERS
        self.hints: OrderedDict[str, Mark] = OrderedDict()
        self._clock = EngineClock(stream)
        self._tails: OrderedDict[str, Tail] = OrderedDict()

    async def now(self) -> int:
        """The engine's time in milliseconds.

        Raises:
            ConnectionError: the engine did not answer.
        """
        return await self._clock.now()

    async def states(
        self, keys: Collection[str], more: Sequence[str] = ()
    ) -> tuple[dict[str, State | None], dict[str, Stored]]:
        """Streams as the engine has them now, each as of one moment, and what is at other subjects.

        Raises:
            ConnectionError: the engine did not answer.
        """
        found = await self.stream.heads([*map(self.names.all_of, keys), *more])
        records: dict[str, Stored] = {}
        pieces: dict[str, Stored] = {}
        for subject, stored in found.items():
            parts = subject.split(".")
            if parts[1:2] == ["s"]:
                (records if parts[2] == "r" else pieces)[parts[3]] = stored
        return {key: _state(records.get(key), pieces.get(key)) for key in keys}, found

    # --- where the next pieces go

    def tail(self, key: str) -> Tail | None:
        """Where the next piece of a stream goes, as far as is known here; a wrong one is refused."""
        return self._tails.get(key)

    def keep(self, key: str, tail: Tail) -> None:
        """Know where the next piece of a stream goes."""
        self._tails[key] = tail
        self._tails.move_to_end(key)
        if len(self._tails) > CACHED:
            self._tails.popitem(last=False)

    def renewed(self, key: str, gone_at: int) -> None:
        """A lease was renewed, so that the stream is gone at that time."""
        tail = self._tails.pop(key, None)
        tail = None if tail is None else tail.renewed(gone_at)
        if tail is not None:
            self.keep(key, tail)

    def drop(self, key: str) -> None:
        """Know no more where the next piece of a stream goes."""
        self._tails.pop(key, None)

    def hint(self, key: str, mark: Mark) -> None:
        """Know which piece of a stream is read next."""
        self.hints[key] = mark
        self.hints.move_to_end(key)
        if len(self.hints) > HINTS:
            self.hints.popitem(last=False)

    # --- messages

    def record(self, key: str, record: Record, now: int, until: int) -> Message:
        """That of a record which is kept until a time."""
        return Message(self.names.record(key), record.data, max(1, until - now), ROLLUP)

    def piece(self, subject: str, head: bytes, payload: bytes, mark: Mark) -> Message:
        """That of a piece."""
        place = b"%b: %d %d %d\r\n" % (PLACE, len(head), *mark)
        return Message(subject, head + payload, headers=place)

    # --- what has ended

    async def settle(self, keys: Collection[str]) -> dict[str, State | None]:
        """Close the records of those streams that have ended, or are gone; all as they are then.

        Raises:
            ConnectionError: the engine did not answer.
        """
        settled: dict[str, State | None] = {}
        waiting = list(keys)
        while waiting:
            states, _ = await self.states(waiting)
            now = await self.now()
            settled |= states
            closing = {key: closed for key, state in states.items() if state and (closed := state.closed(now))}
            chains: list[Chain] = []
            for key, (state, record) in closing.items():
                message = self.record(key, record, now, state.forgotten_at(record))
                chains.append(([message], (self.names.all_of(key), state.newest)))
            waiting = []
            for key, outcome in zip(closing, await self.stream.store_each(chains), strict=True):
                if isinstance(outcome, int):
                    state, record = closing[key]
                    settled[key] = state._replace(record=record, sequence=outcome, time=now)
                elif not isinstance(outcome, Refused):  # else it has no room; its last piece says so as well
                    waiting.append(key)
        return settled


def _state(record: Stored | None, piece: Stored | None) -> State | None:
    last = None if piece is None else Last.of(piece)
    if record is None:
        return None if last is None else State(None, last=last)
    return State(msgspec.msgpack.decode(record.payload, type=Record), record.sequence, time_of(record), last)
