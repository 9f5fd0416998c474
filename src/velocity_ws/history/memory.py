"""``memory://name``: logs within one process, for brokers that share its bus. Knows no network.

The logs live while a store of their name was connected and is not released: who starts after that begins new epochs.
"""

from __future__ import annotations

import asyncio
import heapq
import secrets
import time
from collections.abc import Callable, Sequence

from velocity_ws.backplane.base import Lost
from velocity_ws.backplane.memory import MAX_PAYLOAD, Bus, bus_of
from velocity_ws.history.entries import STAMP_SIZE, Entry, Stamp
from velocity_ws.history.items import (
    KEPT_SIZE,
    SECRET_SIZE,
    Append,
    Appended,
    Log,
    Lookup,
    Query,
    Range,
    Refused,
    Removal,
    Top,
    granted,
    too_large,
)
from velocity_ws.history.memory_log import MemoryLog

__all__ = ["MemoryHistory"]


class _Engine:
    """The logs of a name. All but `bus` is used with the lock of the bus held."""

    def __init__(self, bus: Bus, clock: Callable[[], float]) -> None:
        self.bus = bus
        self.users = 0
        self.secrets: dict[str, bytes] = {}
        self.kept: dict[str, bytes] = {}
        self._clock = clock
        self._logs: dict[str, MemoryLog] = {}
        self._dues: list[tuple[int, str]] = []

    def now(self) -> int:
        """The time in milliseconds, once what is too old is gone."""
        now = round(self._clock() * 1000)
        while self._dues and self._dues[0][0] <= now:
            _, topic = heapq.heappop(self._dues)
            log = self._logs[topic]  # each has one entry there, which is taken out with it
            log.tidy(now)
            if log.forgotten_at <= now:
                del self._logs[topic]
            else:
                heapq.heappush(self._dues, (log.due(now), topic))
        return now

    def log(self, log: Log, now: int) -> MemoryLog:
        """The log of a topic; a new one where there is none."""
        found = self._logs.get(log.topic)
        if found is None:
            found = self._logs[log.topic] = MemoryLog(log.limits, now)
            heapq.heappush(self._dues, (found.due(now), log.topic))
        found.touch(log.limits, now)
        return found

    def removed(self, lookup: Lookup) -> int:
        """At which revision a user was last removed from the room of a log, which may not be there."""
        found = self._logs.get(lookup.log.topic)
        return 0 if found is None else found.removed(lookup.user)

    def notify(self, log: Log, notice: bytes, stamp: Stamp) -> None:
        if notice:
            self.bus.publish(log.topic, Entry(stamp, notice).pack())


_engines: dict[str, _Engine] = {}


class MemoryHistory:
    """One connection to the logs of a name. On the broker's loop only."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            url: ``memory://`` and the name of the bus.
            clock: seconds since 1970; that of the store which is connected first is the engine's.
        """
        self.max_payload = MAX_PAYLOAD - STAMP_SIZE
        self._name = url.partition("://")[2]
        self._bus = bus_of(url)
        self._clock = clock
        self._engine: _Engine | None = None
        self._is_connected = False

    async def connect(self, lost: Lost) -> None:  # noqa: ARG002 - which it never is
        """See `HistoryStore.connect`."""
        with self._bus.lock:
            if self._engine is None:
                self._engine = _engines.setdefault(self._name, _Engine(self._bus, self._clock))
                self._engine.users += 1
            self._is_connected = True

    async def append(self, appends: Sequence[Append]) -> list[Appended | Refused]:
        """See `HistoryStore.append`."""
        engine = self._connected()
        with engine.bus.lock:
            now = engine.now()
            results = [self._append(engine, each, now) for each in appends]
        await asyncio.sleep(0)  # as for the backplane: who appends on and on leaves others a turn
        return results

    def append_now(self, append: Append) -> Appended | Refused:
        """See `LocalStore.append_now`."""
        engine = self._connected()
        with engine.bus.lock:
            return self._append(engine, append, engine.now())

    async def tops(self, logs: Sequence[Log]) -> list[Top | Refused]:
        """See `HistoryStore.tops`."""
        engine = self._connected()
        with engine.bus.lock:
            now = engine.now()
            return [engine.log(each, now).top(now) for each in logs]

    async def read(self, queries: Sequence[Query]) -> list[Range | Refused]:
        """See `HistoryStore.read`."""
        engine = self._connected()
        with engine.bus.lock:
            now = engine.now()
            return [engine.log(each.log, now).read(each, now) for each in queries]

    async def remove(self, removals: Sequence[Removal]) -> list[Top | Refused]:
        """See `HistoryStore.remove`."""
        engine = self._connected()
        with engine.bus.lock:
            now = engine.now()
            return [self._remove(engine, each, now) for each in removals]

    async def removed(self, lookups: Sequence[Lookup]) -> list[int]:
        """See `HistoryStore.removed`."""
        engine = self._connected()
        with engine.bus.lock:
            engine.now()
            return [engine.removed(each) for each in lookups]

    async def clear(self, log: Log, notice: bytes = b"") -> Top:
        """See `HistoryStore.clear`."""
        engine = self._connected()
        granted(too_large(notice, self.max_payload))
        with engine.bus.lock:
            now = engine.now()
            found = engine.log(log, now)
            found.clear()
            engine.notify(log, notice, found.notice(now))
            return found.top(now)

    async def secret(self, name: str) -> bytes:
        """See `HistoryStore.secret`."""
        engine = self._connected()
        with engine.bus.lock:
            return engine.secrets.setdefault(name, secrets.token_bytes(SECRET_SIZE))

    async def keep(self, name: str, value: bytes) -> None:
        """See `HistoryStore.keep`."""
        engine = self._connected()
        granted(too_large(value, KEPT_SIZE))
        with engine.bus.lock:
            engine.kept[name] = value

    async def kept(self, name: str) -> bytes | None:
        """See `HistoryStore.kept`."""
        engine = self._connected()
        with engine.bus.lock:
            return engine.kept.get(name)

    async def close(self) -> None:
        """See `HistoryStore.close`."""
        self._is_connected = False

    def release(self) -> None:
        """See `HistoryStore.release`. The logs are gone with the last that used them."""
        with self._bus.lock:
            engine, self._engine = self._engine, None
            if engine is not None:
                engine.users -= 1
                if not engine.users:
                    del _engines[self._name]

    def _append(self, engine: _Engine, append: Append, now: int) -> Appended | Refused:
        refusal = too_large(append.envelope, self.max_payload)
        if refusal is not None:
            return refusal
        log = engine.log(append.log, now)
        result = log.append(append, now)
        if isinstance(result, Appended) and not result.is_duplicate:
            engine.bus.publish(append.log.topic, log.published)
        return result

    def _remove(self, engine: _Engine, removal: Removal, now: int) -> Top | Refused:
        refusal = too_large(removal.notice, self.max_payload)
        if refusal is not None:
            return refusal
        log = engine.log(removal.log, now)
        log.remove(removal.user)
        engine.notify(removal.log, removal.notice, log.notice(now))
        return log.top(now)

    def _connected(self) -> _Engine:
        if self._engine is None or not self._is_connected:
            raise ConnectionError("there is no connection")
        return self._engine
