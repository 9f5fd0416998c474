"""Link: a node's supervised connection to the store that keeps streams, and all that is called on it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from velocity_ws.history.calls import Calls
from velocity_ws.history.items import Refused
from velocity_ws.history.questions import Questions
from velocity_ws.history.store_link import StoreLink
from velocity_ws.streams.base import StreamStore
from velocity_ws.streams.items import Append, Began, Begin, Deletion, Ending, Part, Query, Renewal, Summary, Written

__all__ = ["StreamLink"]

GRACE = 3.0
"""Seconds that other nodes have to connect again, and their writers to say that they live, when the engine was away."""

T = TypeVar("T")


class StreamLink(StoreLink):
    """A supervised connection to a store of streams. On the broker's loop only.

    What is asked has an outcome within the timeout; while there is no connection it is refused at once. Each method
    raises `BackplaneUnavailable` where the engine did not answer, or refuses it; what changes something may be done
    then, and may be asked again with the same result.
    """

    def __init__(self, store: StreamStore, *, timeout: float, engine: str = "") -> None:
        """
        Args:
            store: not connected.
            timeout: seconds after which what was asked has an outcome, whatever it is (``WS_BACKPLANE_TIMEOUT``).
            engine: what the log calls the engine; without a password.
        """
        calls = Calls(timeout)
        self._begin: Questions[Begin, Began] = Questions(store.begin, calls, timeout, is_change=True)
        self._append: Questions[Sequence[Append], list[Written | Refused]] = Questions(
            lambda batches: _alone(store.append(batches[0])), calls, timeout, most=1, at_once=1, is_change=True
        )
        self._renew: Questions[Sequence[Renewal], list[Written | Refused]] = Questions(
            lambda batches: _alone(store.renew(batches[0])), calls, timeout, most=1, is_change=True
        )
        self._end: Questions[Ending, Summary | None] = Questions(store.end, calls, timeout, is_change=True)
        self._look: Questions[str, Summary | None] = Questions(store.look, calls, timeout)
        self._read: Questions[Query, Part | None] = Questions(
            store.read, calls, timeout, weigh=lambda query: query.max_bytes
        )
        self._listed: Questions[str, list[Summary]] = Questions(store.listed, calls, timeout)
        self._forbid: Questions[tuple[str, int], None] = Questions(
            lambda asked: store.forbid([asked[0][0]], asked[0][1]), calls, timeout, most=1, is_change=True
        )
        self._delete: Questions[Deletion, None] = Questions(store.delete, calls, timeout, is_change=True)
        self._mark: Questions[None, None] = Questions(
            lambda _: _alone(store.mark()), calls, timeout, most=1, is_change=True
        )
        self._is_marked: Questions[None, bool] = Questions(lambda _: _alone(store.is_marked()), calls, timeout, most=1)
        kinds: list[Questions[Any, Any]] = [
            *(self._begin, self._append, self._renew, self._end, self._look, self._read, self._listed),
            *(self._forbid, self._delete, self._mark, self._is_marked),
        ]
        super().__init__(store, calls, kinds, engine=engine, what="streams")
        self._steady_at = 0.0
        self.on_up.append(self._came_up)

    def _came_up(self) -> None:
        if self.tries > 1:  # be it the first connection: the engine may have been away from the others, too
            self._steady_at = asyncio.get_running_loop().time() + GRACE

    @property
    def is_steady(self) -> bool:
        """Whether a writer whose lease is over is dead, and not only one that could not renew it."""
        return self.is_up and asyncio.get_running_loop().time() >= self._steady_at

    async def begin(self, begin: Begin) -> Began:
        """See `StreamStore.begin`."""
        return await self._begin.ask(begin)

    async def append(self, appends: Sequence[Append]) -> list[Written | Refused]:
        """See `StreamStore.append`; one call at a time."""
        return await self._append.ask(appends)

    async def renew(self, renewals: Sequence[Renewal]) -> list[Written | Refused]:
        """See `StreamStore.renew`."""
        return await self._renew.ask(renewals)

    async def end(self, ending: Ending) -> Summary | None:
        """See `StreamStore.end`."""
        return await self._end.ask(ending)

    async def forbid(self, id_: str, milliseconds: int) -> None:
        """See `StreamStore.forbid`."""
        await self._forbid.ask((id_, milliseconds))

    async def delete(self, deletion: Deletion) -> None:
        """See `StreamStore.delete`."""
        await self._delete.ask(deletion)

    async def look(self, id_: str) -> Summary | None:
        """See `StreamStore.look`."""
        return await self._look.ask(id_)

    async def read(self, query: Query) -> Part | None:
        """See `StreamStore.read`."""
        return await self._read.ask(query)

    async def listed(self, topic: str) -> list[Summary]:
        """See `StreamStore.listed`."""
        return await self._listed.ask(topic)

    async def mark(self) -> None:
        """See `StreamStore.mark`."""
        await self._mark.ask(None)

    async def is_marked(self) -> bool:
        """See `StreamStore.is_marked`."""
        return await self._is_marked.ask(None)


async def _alone(call: Coroutine[Any, Any, T]) -> list[T]:
    """A call for one question, as one for several."""
    return [await call]
