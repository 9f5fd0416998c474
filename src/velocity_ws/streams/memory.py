"""``memory://name``: streams within one process, for brokers that share its bus. Knows no network.

It is the reference: other engines do the same with what they have. A stream is there while a store of the name was
connected and is not released.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
import time
from collections.abc import Callable, Sequence

from velocity_ws.backplane.base import Lost
from velocity_ws.backplane.memory import MAX_PAYLOAD, Bus, bus_of
from velocity_ws.backplane.urls import PREFIX
from velocity_ws.history.items import Refused, too_large
from velocity_ws.streams.items import (
    MAX_LISTED,
    Append,
    Began,
    Begin,
    Deletion,
    Ending,
    Part,
    Query,
    Renewal,
    Summary,
    Written,
)
from velocity_ws.streams.memory_stream import MemoryStream
from velocity_ws.streams.pieces import pack_end, unpack

__all__ = ["MemoryStreams"]


class _Engine:
    """The streams of a name. All but `bus` is used with the lock of the bus held."""

    def __init__(self, bus: Bus, clock: Callable[[], float]) -> None:
        self.bus = bus
        self.users = 0
        self.is_marked = False
        self.streams: dict[str, MemoryStream] = {}
        self.topics: dict[str, dict[str, MemoryStream]] = {}
        self.forbidden: dict[str, int] = {}
        self._clock = clock
        self._last = 0
        self._dues: list[tuple[int, str]] = []

    def now(self) -> int:
        """The time in milliseconds, which never goes back, once what is too old is gone."""
        now = self._last = max(round(self._clock() * 1000), self._last)
        while self._dues and self._dues[0][0] <= now:
            at, id_ = heapq.heappop(self._dues)
            self._look_at(id_, at, now)
        return now

    def _look_at(self, id_: str, at: int, now: int) -> None:
        if self.forbidden.get(id_, now + 1) <= now:
            del self.forbidden[id_]
        stream = self.streams.get(id_)
        if stream is None or stream.due != at:
            return
        stream.due = sys.maxsize
        if now >= stream.gone_at:
            stream.payloads.clear()
            self._take_from_topic(stream)
        if now >= stream.forgotten_at:
            del self.streams[id_]
        else:
            self._keep(stream, now)

    def _take_from_topic(self, stream: MemoryStream) -> None:
        of_topic = self.topics.get(stream.begin.topic, {})
        of_topic.pop(stream.begin.id, None)
        if not of_topic:
            self.topics.pop(stream.begin.topic, None)

    def _keep(self, stream: MemoryStream, now: int) -> None:
        """Look at a stream again when there is something to do, which may be earlier than was thought."""
        due = stream.forgotten_at if now >= stream.gone_at else stream.gone_at
        if due < stream.due:
            stream.due = due
            self._later(stream.begin.id, due)

    def _later(self, id_: str, at: int) -> None:
        heapq.heappush(self._dues, (at, id_))

    def forbid(self, id_: str, until: int) -> None:
        self.forbidden[id_] = until
        self._later(id_, until)

    def begin(self, begin: Begin, now: int) -> Began:
        stream = self.streams.get(begin.id)
        if stream is None:
            stream = self.streams[begin.id] = MemoryStream(begin, now)
            self.topics.setdefault(begin.topic, {})[begin.id] = stream
            self._keep(stream, now)
        return Began(stream.summary(now), begin.id in self.forbidden)

    def append(self, append: Append, now: int) -> Written:
        stream = self.streams.get(append.id)
        if stream is None or stream.begin.writer != append.writer:
            return Written(False)
        number = unpack(append.payload).number
        if number == len(stream.starts) - 1 and stream.payloads[-1:] == [append.payload]:
            return Written(True, stream.end)
        if stream.end or number != len(stream.starts) or now >= stream.gone_at:
            return Written(False, stream.end)
        stream.add(append.payload, now)
        self._keep(stream, now)
        self.bus.publish(append.topic, append.head + append.payload)
        return Written(True, stream.end)

    def renew(self, renewal: Renewal, now: int) -> Written:
        stream = self.streams.get(renewal.id)
        if stream is None or stream.begin.writer != renewal.writer:
            return Written(False)
        if stream.end or now >= stream.gone_at:
            return Written(False, stream.end)
        stream.times = renewal.times
        stream.until = now + renewal.times.lease
        self._keep(stream, now)
        return Written(True)

    def end(self, ending: Ending, now: int) -> Summary | None:
        stream = self.streams.get(ending.id)
        if stream is None:
            return None
        if not stream.end and now < stream.gone_at and not (ending.is_of_dead and now < stream.until):
            payload = pack_end(len(stream.starts), stream.length, ending.end)
            stream.add(payload, now)
            self._keep(stream, now)
            self.bus.publish(ending.topic, ending.head + payload)
        return stream.summary(now)

    def delete(self, id_: str, writer: bytes) -> None:
        stream = self.streams.get(id_)
        if stream is not None and stream.begin.writer == writer:
            del self.streams[id_]
            self._take_from_topic(stream)

    def look(self, id_: str, now: int) -> Summary | None:
        stream = self.streams.get(id_)
        return None if stream is None else stream.summary(now)

    def read(self, query: Query, now: int) -> Part | None:
        stream = self.streams.get(query.id)
        return None if stream is None else Part(stream.summary(now), stream.read(query))

    def listed(self, topic: str, now: int) -> list[Summary]:
        found = list(self.topics.get(topic, {}).values())[: -MAX_LISTED - 1 : -1]
        return [summary for stream in found if not (summary := stream.summary(now)).is_gone]


_engines: dict[tuple[str, str], _Engine] = {}


class MemoryStreams:
    """One connection to the streams of a name. On the broker's loop only."""

    def __init__(self, url: str, *, prefix: str = PREFIX, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            url: ``memory://`` and the name of the bus.
            prefix: of the cluster; those of others have ids of their own.
            clock: seconds since 1970; that of the store which is connected first is the engine's.
        """
        self.max_payload = MAX_PAYLOAD
        self._name = url.partition("://")[2], prefix
        self._bus = bus_of(url)
        self._clock = clock
        self._engine: _Engine | None = None
        self._is_connected = False

    async def connect(self, lost: Lost) -> None:  # noqa: ARG002 - which it never is
        """See `StreamStore.connect`."""
        with self._bus.lock:
            if self._engine is None:
                self._engine = _engines.setdefault(self._name, _Engine(self._bus, self._clock))
                self._engine.users += 1
            self._is_connected = True

    async def begin(self, begins: Sequence[Begin]) -> list[Began | Refused]:
        """See `StreamStore.begin`."""
        engine = self._connected()
        with engine.bus.lock:
            now = engine.now()
            return [engine.begin(begin, now) for begin in begins]

    async def append(self, appends: Sequence[Append]) -> list[Written | Refused]:
        """See `StreamStore.append`."""
        engine = self._connected()
        with engine.bus.lock:
            now = engine.now()
            results = [
                too_large(append.head + append.payload, self.max_payload) or engine.append(append, now)
                for append in appends
            ]
        await asyncio.sleep(0)  # as for the backplane: who appends on and on leaves others a turn
        return results

    async def renew(self, renewals: Sequence[Renewal]) -> list[Written | Refused]:
        """See `StreamStore.renew`."""
        engine = self._connected()
        with engine.bus.lock:
            now = engine.now()
            return [engine.renew(renewal, now) for renewal in renewals]

    async def end(self, endings: Sequence[Ending]) -> list[Summary | Refused | None]:
        """See `StreamStore.end`."""
        engine = self._connected()
        with engine.bus.lock:
            now = engine.now()
            return [engine.end(ending, now) for ending in endings]

    async def forbid(self, ids: Sequence[str], milliseconds: int) -> list[Refused | None]:
        """See `StreamStore.forbid`."""
        engine = self._connected()
        with engine.bus.lock:
            until = engine.now() + milliseconds
            for id_ in ids:
                engine.forbid(id_, until)
            return [None] * len(ids)

    async def delete(self, deletions: Sequence[Deletion]) -> list[Refused | None]:
        """See `StreamStore.delete`."""
        engine = self._connected()
        with engine.bus.lock:
            engine.now()
            for id_, _, writer in deletions:
                engine.delete(id_, writer)
            return [None] * len(deletions)

    async def look(self, ids: Sequence[str]) -> list[Summary | Refused | None]:
        """See `StreamStore.look`."""
        engine = self._connected()
        with engine.bus.lock:
            now = engine.now()
            return [engine.look(id_, now) for id_ in ids]

    async def read(self, queries: Sequence[Query]) -> list[Part | Refused | None]:
        """See `StreamStore.read`."""
        engine = self._connected()
        with engine.bus.lock:
            now = engine.now()
            return [engine.read(query, now) for query in queries]

    async def listed(self, topics: Sequence[str]) -> list[list[Summary] | Refused]:
        """See `StreamStore.listed`."""
        engine = self._connected()
        with engine.bus.lock:
            now = engine.now()
            return [engine.listed(topic, now) for topic in topics]

    async def mark(self) -> None:
        """See `StreamStore.mark`."""
        self._connected().is_marked = True

    async def is_marked(self) -> bool:
        """See `StreamStore.is_marked`."""
        return self._connected().is_marked

    async def close(self) -> None:
        """See `StreamStore.close`."""
        self._is_connected = False

    def release(self) -> None:
        """See `StreamStore.release`. What the last store of a name leaves is gone."""
        with self._bus.lock:
            engine, self._engine = self._engine, None
            if engine is None:
                return
            engine.users -= 1
            if not engine.users and _engines.get(self._name) is engine:
                del _engines[self._name]

    def _connected(self) -> _Engine:
        if self._engine is None or not self._is_connected:
            raise ConnectionError("there is no connection")
        return self._engine
