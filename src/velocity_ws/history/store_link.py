"""StoreLink: a node's connection to a store on an engine; gives it up where it fails, and reconnects.

Knows how a store is opened and closed, and not what it keeps.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from velocity_ws.backplane.base import Leaving, Lost
from velocity_ws.cluster.complaints import Complaints
from velocity_ws.errors import SettingsError
from velocity_ws.history.base import MovingStore
from velocity_ws.history.calls import Calls
from velocity_ws.logs import get_logger, printable

__all__ = ["Part", "StoreLink"]

log = get_logger("velocity_ws.history")

CONNECT_TIMEOUT = 2.0
"""Seconds that a new connection may take to be there."""
CLOSE_TIMEOUT = 1.5
"""Seconds that closing may take before it is left behind; the contract says one."""
FIRST_BACKOFF = 0.05
"""Seconds before a connection is tried again, the first time; doubled each time."""
LAST_BACKOFF = 0.5
"""The same at most."""
STOP_INTERVAL = 0.1
"""Seconds after which a stop is tried again; some libraries swallow a cancellation."""


class Store(Protocol):
    """A store, as it is opened and closed; see `HistoryStore`."""

    max_payload: int

    async def connect(self, lost: Lost) -> None:
        """Open a connection, as `HistoryStore.connect` does."""

    async def close(self) -> None:
        """End the connection, as `HistoryStore.close` does."""

    def release(self) -> None:
        """Give back what outlives a connection."""


class Part(Protocol):
    """What calls a store, while there is a connection."""

    def open(self) -> None:
        """Call the store from now on."""

    def rest(self) -> None:
        """Call it no more until the next `open`; what is to be called waits."""

    def close(self, why: str) -> None:
        """Call it no more; what waits has failed."""


class StoreLink:
    """A supervised connection to a store. On the broker's loop only.

    Attributes:
        is_up: whether there is a connection.
        tries: how often it began to connect.
        on_up: called each time that there is one, the first one included.
        on_down: called each time that one is lost, or ended by `stop`.
        on_moved: called each time that it goes on with another server in the place of one.
    """

    def __init__(self, store: Store, calls: Calls, parts: Sequence[Part], *, engine: str = "", what: str) -> None:
        """
        Args:
            store: not connected.
            calls: those of the connection.
            parts: what calls the store.
            engine: what the log calls the engine; without a password.
            what: what the engine is for, in words.
        """
        self.is_up = False
        self.tries = 0
        self.on_up: list[Callable[[], None]] = []
        self.on_down: list[Callable[[], None]] = []
        self.on_moved: list[Callable[[], None]] = []
        if isinstance(store, MovingStore):
            store.on_moved = lambda: _tell(self.on_moved)
        self._store = store
        self._parts = parts
        self._what = what
        self._engine = f"the engine {engine}".rstrip()
        self._calls = calls
        self._complaints = Complaints(log, getattr(store, "grace", 0.0), f"the engine keeps {what} again")
        self._first: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_ending = False

    @property
    def server_id(self) -> str:
        """What names the server of the last connection; empty where that is not known."""
        return str(getattr(self._store, "server_id", ""))

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message that the store takes; known once connected."""
        return self._store.max_payload

    # --- life

    async def start(self, patience: float) -> None:
        """Begin to connect. Returns when there is a connection, or after a while, and then goes on trying.

        Args:
            patience: seconds to wait for a connection.

        Raises:
            SettingsError: the engine never keeps logs; the text says what to do.
        """
        self._is_ending = self._complaints.is_silent = False
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._supervise(self._first), name="velocity-ws link")
        try:
            await asyncio.wait([self._first], timeout=patience)
            if self._first.done():
                self._first.result()
        except SettingsError:
            await self.stop()
            raise
        finally:
            self._first.cancel()  # what is found out from now on is for the log

    def stop_soon(self) -> None:
        """`stop` will be called soon: a connection that is lost from now on is not worth a warning."""
        self._complaints.is_silent = True

    async def stop(self) -> None:
        """Close the connection, open none any more, and give back what the store has of the engine.

        What waits is refused; of what was handed over, the outcome is unknown.
        """
        self._complaints.end()
        task, self._task = self._task, None
        while task is not None and not task.done():
            if not self._is_ending:  # an end is not disturbed
                task.cancel()
            await asyncio.wait([task], timeout=STOP_INTERVAL)
        self.release()

    def release(self) -> None:
        """Give back what the store has of the engine without stopping, as the loop was closed. From any thread."""
        self._store.release()

    # --- the connection

    async def _supervise(self, first: asyncio.Future[None]) -> None:
        backoff = FIRST_BACKOFF
        try:
            while True:
                error = await self._connection(first)
                if isinstance(error, SettingsError) and not first.done():
                    first.set_exception(error)
                    return
                if isinstance(error, Leaving):
                    log.info("leaving %s for another server of it: %s", self._engine, printable(str(error)))
                    await self._rest()
                    await self._leave()
                    continue
                if self.is_up:
                    backoff = FIRST_BACKOFF
                await self._give_up(f"there is no connection to {self._engine} ({_reason(error)})")
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                backoff = min(backoff * 2, LAST_BACKOFF)
        finally:
            self._is_ending = True
            await self._give_up("the broker is stopped")
            self._complaints.end()

    async def _connection(self, first: asyncio.Future[None]) -> Exception:
        """One connection from its beginning to its end; why it ended."""
        self.tries += 1
        lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        def on_lost(error: Exception) -> None:
            if not lost.done():
                lost.set_result(error)

        try:
            await self._connect(on_lost, lost)
        except (OSError, SettingsError) as error:
            return error
        except Exception as error:
            log.exception("the connection to the engine failed in a way it should not")
            return error
        if not lost.done():
            self._open(on_lost)
            if not first.done():
                first.set_result(None)
        return await lost

    async def _connect(self, on_lost: Callable[[Exception], None], lost: asyncio.Future[Exception]) -> None:
        """Connect; given up where it is lost meanwhile, as it may be to a server that does not answer.

        Raises:
            OSError: there is no connection.
            SettingsError: the engine never keeps logs.
        """
        connecting = asyncio.create_task(self._store.connect(on_lost), name="velocity-ws connection")
        try:
            ends: list[asyncio.Future[Any]] = [connecting, lost]
            await asyncio.wait(ends, timeout=CONNECT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                connecting.result()
            elif lost.done():
                raise lost.result()
            else:
                raise TimeoutError("it did not answer in time")
        finally:
            await _end(connecting)

    def _open(self, failed: Callable[[Exception], None]) -> None:
        self._complaints.reached()
        self._calls.begin(failed)
        for part in self._parts:
            part.open()
        self.is_up = True
        _tell(self.on_up)

    async def _rest(self) -> None:
        """Hand over nothing more, and wait until nothing that was is in doubt."""
        for part in self._parts:
            part.rest()
        await self._calls.rest()

    async def _give_up(self, why: str) -> None:
        for part in self._parts:
            part.close(why)
        if not self._is_ending:
            self._complaints.lost(f"{why} for {self._what}")
        await self._leave()

    async def _leave(self) -> None:
        """Close the connection; what waits to be asked or appended waits for the next one."""
        was_up, self.is_up = self.is_up, False
        if was_up:
            _tell(self.on_down)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._store.close()
        except OSError as error:
            log.debug("closing the connection to the engine failed: %s", error)
        except Exception:  # of a store that is not ours; the next connection is tried nevertheless
            log.exception("closing the connection to the engine failed in a way it should not")
        await self._calls.end()


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended, for a while. Cancelling this disturbs it not: else the task is left behind."""
    until = asyncio.get_running_loop().time() + CLOSE_TIMEOUT
    cancelled: asyncio.CancelledError | None = None
    while not task.done() and asyncio.get_running_loop().time() < until:
        task.cancel()
        try:
            await asyncio.wait([task], timeout=STOP_INTERVAL)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _tell(functions: Sequence[Callable[[], None]]) -> None:
    for function in functions:
        try:
            function()
        except Exception:  # of one listener, which costs the others nothing
            log.exception("telling of the connection to the engine failed")


def _reason(error: Exception) -> str:
    if isinstance(error, SettingsError):
        return "; ".join(error.problems.values())
    return str(error) or "it did not answer in time"
