"""Link: a node's connection to the store that keeps the logs of rooms; gives it up where it fails, and reconnects.

Knows the contract of a store, and not what is kept. What many ask at once becomes one call.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from velocity_ws.errors import SettingsError
from velocity_ws.history.base import HistoryStore
from velocity_ws.history.calls import Calls
from velocity_ws.history.items import Append, Appended, Log, Lookup, Query, Range, Refused, Removal, Top
from velocity_ws.history.questions import Questions
from velocity_ws.history.writer import Then, Writer
from velocity_ws.logs import get_logger, printable
from velocity_ws.stats import Counters

__all__ = ["HistoryLink"]

log = get_logger("velocity_ws.history")

CONNECT_TIMEOUT = 2.0
"""Seconds that a new connection may take to be there."""
CLOSE_TIMEOUT = 1.5
"""Seconds that closing may take before it is left behind; the contract says one."""
FIRST_BACKOFF = 0.05
"""Seconds before a connection is tried again, the first time; doubled each time."""
LAST_BACKOFF = 0.5
"""The same at most."""
MOST_COMPLAINTS = 5
"""Reasons that are told until there is a connection again."""
STOP_INTERVAL = 0.1
"""Seconds after which a stop is tried again; some libraries swallow a cancellation."""

T = TypeVar("T")


class _Clearing(NamedTuple):
    log: Log
    notice: bytes


class HistoryLink:
    """A supervised connection to a store. On the broker's loop only.

    All that is asked while there is no connection is refused at once. It has a result, or an outcome, within the
    timeout.

    Attributes:
        is_up: whether there is a connection.
        on_up: called each time that there is one, the first one included.
        on_down: called each time that one is lost, or ended by `stop`.
        is_stopping_soon: whether `stop` will be called soon, so that a lost connection is not worth a warning.
    """

    def __init__(
        self, store: HistoryStore, *, timeout: float, queue_size: int, counters: Counters, engine: str = ""
    ) -> None:
        """
        Args:
            store: not connected.
            timeout: seconds after which what was asked has an outcome, whatever it is (``WS_BACKPLANE_TIMEOUT``).
            queue_size: bytes of appends that may wait (``WS_BACKPLANE_QUEUE_SIZE``).
            counters: the node's; outcomes of appends are counted there, as those of what a `Publisher` publishes.
            engine: what the log calls the engine; without a password.
        """
        self.is_up = self.is_stopping_soon = False
        self.on_up: list[Callable[[], None]] = []
        self.on_down: list[Callable[[], None]] = []
        self._store = store
        self._engine = f"the engine {engine}".rstrip()
        self._calls = calls = Calls(timeout)
        self._writer = Writer(store, calls, timeout, queue_size, counters)
        self._read: Questions[Query, Range] = Questions(store.read, calls, timeout, weigh=lambda query: query.max_bytes)
        self._top: Questions[Log, Top] = Questions(store.tops, calls, timeout)
        self._check: Questions[Sequence[Log], list[Top | Refused]] = Questions(
            lambda checks: _alone(store.tops(checks[0])), calls, timeout, most=1
        )
        self._removed: Questions[Lookup, int] = Questions(store.removed, calls, timeout)
        self._remove: Questions[Removal, Top] = Questions(store.remove, calls, timeout, is_change=True)
        self._clear: Questions[_Clearing, Top] = Questions(
            lambda clearings: _alone(store.clear(*clearings[0])), calls, timeout, most=1, is_change=True
        )
        self._secret: Questions[str, bytes] = Questions(
            lambda names: _alone(store.secret(names[0])), calls, timeout, most=1
        )
        self._kinds: list[Questions[Any, Any]] = [
            *(self._read, self._top, self._check, self._removed, self._remove, self._clear, self._secret)
        ]
        self._complaints: set[str] = set()
        self._first: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_ending = False

    @property
    def max_payload(self) -> int:
        """Bytes of the largest envelope, or notice; known once connected."""
        return self._store.max_payload

    # --- life

    async def start(self, patience: float) -> None:
        """Begin to connect. Returns when there is a connection, or after a while, and then goes on trying.

        Args:
            patience: seconds to wait for a connection.

        Raises:
            SettingsError: the engine never keeps logs; the text says what to do.
        """
        self._is_ending = False
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._supervise(self._first), name="velocity-ws history link")
        try:
            await asyncio.wait([self._first], timeout=patience)
            if self._first.done():
                self._first.result()
        finally:
            self._first.cancel()  # what is found out from now on is for the log

    async def stop(self) -> None:
        """Close the connection, open none any more, and give back what the store has of the engine.

        What waits is refused; of what was handed over, the outcome is unknown.
        """
        task, self._task = self._task, None
        while task is not None and not task.done():
            if not self._is_ending:  # an end is not disturbed
                task.cancel()
            await asyncio.wait([task], timeout=STOP_INTERVAL)
        self.release()

    def release(self) -> None:
        """Give back what the store has of the engine without stopping, as the loop was closed. From any thread."""
        self._store.release()

    # --- what is asked

    def append(self, append: Append, then: Then, until: float | None = None) -> Coroutine[Any, Any, Appended]:
        """Append an entry, behind those for which this was awaited before. Cancelling it takes nothing back.

        Args:
            append: what to append, and where to.
            then: called with the result, once, as soon as the engine has the entry, in the order of appends; also when
                the caller was cancelled or its time is over. Not for a duplicate.
            until: when there is an outcome at the latest, in the loop's time; by default at the end of the timeout.

        Raises:
            BackplaneUnavailable: the engine has it not, or that is not known.
            HistoryError: the idempotency key stands for another message.
        """
        return self._writer.append(append, then, until)

    async def read(self, query: Query) -> Range:
        """Read a part of a log.

        Raises:
            BackplaneUnavailable: the engine did not answer, or refuses it.
        """
        return await self._read.ask(query)

    async def top(self, log: Log) -> Top:
        """Ask for the end of a log.

        Raises:
            BackplaneUnavailable: the engine did not answer, or refuses it.
        """
        return await self._top.ask(log)

    async def tops(self, logs: Sequence[Log]) -> list[Top | None]:
        """Ask for the ends of many logs, in a call of their own; ``None`` where the engine cannot say.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        return [None if isinstance(top, Refused) else top for top in await self._check.ask(logs)]

    async def removed(self, lookup: Lookup) -> int:
        """Ask at which revision a user was last removed; 0 for never.

        Raises:
            BackplaneUnavailable: the engine did not answer, or refuses it.
        """
        return await self._removed.ask(lookup)

    async def remove(self, removal: Removal) -> Top:
        """Keep that a user was removed. Cancelling it takes nothing back.

        Raises:
            BackplaneUnavailable: the engine has it not, or that is not known.
        """
        return await self._remove.ask(removal)

    async def clear(self, log: Log, notice: bytes = b"") -> Top:
        """Forget a log's entries and its idempotency keys. Cancelling it takes nothing back.

        Raises:
            BackplaneUnavailable: the engine has not done it, or that is not known.
        """
        return await self._clear.ask(_Clearing(log, notice))

    async def secret(self, name: str) -> bytes:
        """32 random bytes that all nodes share under a name, which is as a topic's.

        Raises:
            BackplaneUnavailable: the engine did not answer, or refuses it.
        """
        return await self._secret.ask(name)

    # --- the connection

    async def _supervise(self, first: asyncio.Future[None]) -> None:
        backoff = FIRST_BACKOFF
        try:
            while True:
                error = await self._connection(first)
                if isinstance(error, SettingsError) and not first.done():
                    first.set_exception(error)
                    return
                if self.is_up:
                    backoff = FIRST_BACKOFF
                await self._give_up(f"there is no connection to {self._engine} ({_reason(error)})")
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                backoff = min(backoff * 2, LAST_BACKOFF)
        finally:
            self._is_ending = True
            await self._give_up("the broker is stopped")
            self._complaints.clear()

    async def _connection(self, first: asyncio.Future[None]) -> Exception:
        """One connection from its beginning to its end; why it ended."""
        lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        def on_lost(error: Exception) -> None:
            if not lost.done():
                lost.set_result(error)

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._store.connect(on_lost)
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

    def _open(self, failed: Callable[[Exception], None]) -> None:
        if self._complaints:
            log.info("the engine keeps the history of rooms again")
            self._complaints.clear()
        self._calls.begin(failed)
        self._writer.open()
        for questions in self._kinds:
            questions.open()
        self.is_up = True
        _tell(self.on_up)

    async def _give_up(self, why: str) -> None:
        was_up, self.is_up = self.is_up, False
        self._writer.close(why)
        for questions in self._kinds:
            questions.close(why)
        if was_up:
            _tell(self.on_down)
        if not self._is_ending:
            self._complain(why)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._store.close()
        except OSError as error:
            log.debug("closing the connection to the engine failed: %s", error)
        except Exception:  # of a store that is not ours; the next connection is tried nevertheless
            log.exception("closing the connection to the engine failed in a way it should not")
        await self._calls.end()

    def _complain(self, why: str) -> None:
        if self.is_stopping_soon or why in self._complaints or len(self._complaints) >= MOST_COMPLAINTS:
            return
        self._complaints.add(why)
        log.warning("%s for the history of rooms; trying again until it is there", printable(why))


async def _alone(call: Coroutine[Any, Any, T]) -> list[T]:
    """A call for one question, as one for several."""
    return [await call]


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
