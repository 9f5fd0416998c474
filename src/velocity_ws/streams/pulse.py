"""Pulse: stores what all writers of a node have said, together, at most once in an interval; and renews their leases.

Knows the engine's link, and no source.
"""

from __future__ import annotations

import asyncio

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.items import Refused
from velocity_ws.logs import CountedWarnings, get_logger, quote
from velocity_ws.streams.items import Append, Times
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.writer import StreamWriter

__all__ = ["Pulse"]

log = get_logger("velocity_ws.streams")

BATCH_BYTES = 1024 * 1024
"""Bytes that are stored in one call, where there are several pieces."""
BATCH = 512
"""Pieces in one call."""
AGAIN = 0.1
"""Seconds until the engine is asked again that did not take something."""
RENEWALS = 3
"""Times that a lease is renewed in its time."""


class Pulse:
    """The writers of one node. On the broker's loop only."""

    def __init__(self, link: StreamLink, interval: float, times: Times) -> None:
        """
        Args:
            link: the way to the engine.
            interval: seconds between two calls that store what has come meanwhile; 0 for none.
            times: how long things last.
        """
        self._link = link
        self._interval = interval
        self._times = times
        self._writers: dict[StreamWriter, None] = {}
        self._dirty: dict[StreamWriter, None] = {}
        self._has_work = asyncio.Event()
        self._is_urgent = asyncio.Event()
        self._warnings = CountedWarnings(log)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to store and to renew."""
        self._tasks = [
            asyncio.create_task(self._store(), name="velocity-ws streams"),
            asyncio.create_task(self._renew(), name="velocity-ws stream leases"),
        ]

    async def stop(self) -> None:
        """Store and renew nothing more; nobody waits for what has not been stored by now."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        for writer in self.writers:
            writer.abandon()

    @property
    def writers(self) -> list[StreamWriter]:
        """Those whose streams have not ended."""
        return list(self._writers)

    def begin(self, writer: StreamWriter) -> None:
        """There is a writer: its lease is renewed from now on."""
        self._writers[writer] = None

    def add(self, writer: StreamWriter, *, is_urgent: bool = False) -> None:
        """See `Stores.add`. What is urgent does not wait for the interval."""
        self._dirty[writer] = None
        self._has_work.set()
        if is_urgent:
            self._is_urgent.set()

    def forget(self, writer: StreamWriter) -> None:
        """See `Stores.forget`."""
        self._writers.pop(writer, None)
        self._dirty.pop(writer, None)

    async def _store(self) -> None:
        loop = asyncio.get_running_loop()
        last = -self._interval
        while True:
            await self._has_work.wait()
            wait = last + self._interval - loop.time()
            if wait > 0:
                await self._pause(wait)
            else:
                await asyncio.sleep(0)  # what is said in this turn of the loop goes along
            self._has_work.clear()
            self._is_urgent.clear()
            last = loop.time()
            try:
                await self._store_all()
            except Exception:  # which is to cost no stream what was said
                log.exception("storing streams failed in a way it should not")
                self._later(self.writers, "it failed")

    async def _pause(self, seconds: float) -> None:
        """Wait for the interval to end, or for something urgent."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self._is_urgent.set)
        try:
            await self._is_urgent.wait()
        finally:
            timer.cancel()

    async def _store_all(self) -> None:
        """Store one piece of each writer that has something."""
        dirty, self._dirty = self._dirty, {}
        batch: list[StreamWriter] = []
        appends: list[Append] = []
        size = 0
        for writer in dirty:
            append = writer.next()
            batch.append(writer)
            appends.append(append)
            size += len(append.payload)
            if len(batch) >= BATCH or size >= BATCH_BYTES:
                await self._store_batch(batch, appends)
                batch, appends, size = [], [], 0
        if batch:
            await self._store_batch(batch, appends)

    async def _store_batch(self, batch: list[StreamWriter], appends: list[Append]) -> None:
        try:
            results = await self._link.append(appends)
        except BackplaneUnavailable as error:
            self._later(batch, str(error.reason))
            return
        refused: list[StreamWriter] = []
        for writer, result in zip(batch, results, strict=True):
            if isinstance(result, Refused):
                refused.append(writer)
                why = str(result)
                continue
            try:
                writer.answered(result)
            except Exception:  # of one stream, which costs the others nothing
                log.exception("what follows a piece of stream %s failed", quote(writer.id))
        if refused:
            self._later(refused, why)

    def _later(self, writers: list[StreamWriter], why: str) -> None:
        """The engine did not take some pieces; it may have. They are stored again, which does no harm.

        Nobody waits for that: the pieces of others may be taken meanwhile.
        """
        self._warnings.warn("append", "%d streams wait for the engine: %s", len(writers), why)
        asyncio.get_running_loop().call_later(AGAIN, self._again, writers)

    def _again(self, writers: list[StreamWriter]) -> None:
        for writer in writers:
            if not writer.is_over:
                self.add(writer)

    async def _renew(self) -> None:
        pause = self._times.lease / 1000 / RENEWALS
        while True:
            await asyncio.sleep(pause)
            while self._writers:
                try:
                    await self._renew_all(self.writers)
                    break
                except BackplaneUnavailable:
                    await asyncio.sleep(AGAIN)

    async def _renew_all(self, writers: list[StreamWriter]) -> None:
        results = await self._link.renew([writer.renewal(self._times) for writer in writers])
        for writer, result in zip(writers, results, strict=True):
            if isinstance(result, Refused) or result.is_taken:
                continue
            if writer.is_closed and result.end and result.end == writer.ends:
                continue  # its own end is there, and the answer to that is on its way
            writer.dead(result.end or "lost")
