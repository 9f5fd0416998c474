"""Asking: what can be asked of a store besides appending; what many ask in one turn of the loop becomes one call.

Knows the contract of a store, and not whether the connection can be trusted: its user opens and closes it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from velocity_ws.history.base import HistoryStore
from velocity_ws.history.calls import Calls
from velocity_ws.history.items import Log, Lookup, Query, Range, Refused, Removal, Top
from velocity_ws.history.questions import Questions

__all__ = ["Asking"]

T = TypeVar("T")


class _Clearing(NamedTuple):
    log: Log
    notice: bytes


class _Keeping(NamedTuple):
    name: str
    value: bytes


class Asking:
    """The asking side of a link. On the broker's loop only.

    What is asked has a result, or has failed, within the timeout; at once while there is no connection. A caller who is
    cancelled takes no change back.

    Attributes:
        kinds: the questions of each kind, which are opened, rest and are closed with the connection.
    """

    def __init__(self, store: HistoryStore, calls: Calls, timeout: float) -> None:
        """
        Args:
            store: connected while this is open.
            calls: those of the connection.
            timeout: seconds after which a question has failed.
        """
        self._read: Questions[Query, Range] = Questions(store.read, calls, timeout, weigh=lambda query: query.max_bytes)
        self._top: Questions[Log, Top] = Questions(store.tops, calls, timeout)
        self._tops: Questions[Sequence[Log], list[Top | Refused]] = Questions(
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
        self._keep: Questions[_Keeping, None] = Questions(
            lambda keepings: _alone(store.keep(*keepings[0])), calls, timeout, most=1, is_change=True
        )
        self._kept: Questions[str, bytes | None] = Questions(
            lambda names: _alone(store.kept(names[0])), calls, timeout, most=1
        )
        self.kinds: list[Questions[Any, Any]] = [
            *(self._read, self._top, self._tops, self._removed, self._remove, self._clear),
            *(self._secret, self._keep, self._kept),
        ]

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
        return [None if isinstance(top, Refused) else top for top in await self._tops.ask(logs)]

    async def removed(self, lookup: Lookup) -> int:
        """Ask at which revision a user was last removed; 0 for never.

        Raises:
            BackplaneUnavailable: the engine did not answer, or refuses it.
        """
        return await self._removed.ask(lookup)

    async def remove(self, removal: Removal) -> Top:
        """Keep that a user was removed.

        Raises:
            BackplaneUnavailable: the engine has it not, or that is not known.
        """
        return await self._remove.ask(removal)

    async def clear(self, log: Log, notice: bytes = b"") -> Top:
        """Forget a log's entries and its idempotency keys.

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

    async def keep(self, name: str, value: bytes) -> None:
        """Keep a small value under a name, which is as a topic's.

        Raises:
            BackplaneUnavailable: it is not kept, or that is not known.
        """
        await self._keep.ask(_Keeping(name, value))

    async def kept(self, name: str) -> bytes | None:
        """The value that was kept last under a name, by any node; ``None`` where there is none.

        Raises:
            BackplaneUnavailable: the engine did not answer, or refuses it.
        """
        return await self._kept.ask(name)


async def _alone(call: Coroutine[Any, Any, T]) -> list[T]:
    """A call for one question, as one for several."""
    return [await call]
