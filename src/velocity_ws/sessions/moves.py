"""Moves: what the ``on_join`` and ``on_leave`` hooks are told of one client, one move after the other, in order.

All of them run in tasks of this, also where a route or another node made the move. A client of which nothing is being
told has no task, and hooks that never wait need none. Knows no other client, and no room.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Iterable
from typing import Any, Literal

from velocity_ws.concurrency.eager import EagerTask
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.context import NodeContext

__all__ = ["Moves", "told"]

MAX_WAITING = 1000
"""Moves of a client that may wait for hooks which do not return; it is let into no further room then."""

_in_hook = contextvars.ContextVar("velocity_ws_in_move_hook", default=False)


async def told(move: asyncio.Future[None] | None) -> None:
    """Wait until a move has been told; not where such a hook made it, as it is told when that hook has ended.

    Cancelling this takes nothing back.
    """
    if move is not None and not _in_hook.get():
        await asyncio.wait([move])


class _Move:
    __slots__ = ("context", "kind", "room", "told")

    def __init__(self, kind: Literal["join", "leave"], room: str) -> None:
        self.kind = kind
        self.room = room
        self.context = contextvars.copy_context()  # a hook sees what its caller has set
        self.told: asyncio.Future[None] | None = None

    def later(self) -> asyncio.Future[None]:
        """It is not told at once: what is done when it is."""
        self.told = asyncio.get_running_loop().create_future()
        return self.told


class Moves:
    """What the hooks are told of one client's moves. On the broker's loop only."""

    __slots__ = ("_client", "_context", "_current", "_entered", "_waiting", "_worker")

    def __init__(self, context: NodeContext[Any], client: Client) -> None:
        self._context = context
        self._client = client
        self._entered: set[str] = set()
        self._waiting: deque[_Move] | None = None  # as hooks rarely take longer than it takes to move again
        self._current: asyncio.Task[None] | None = None
        self._worker: EagerTask | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing is being told, nor will be when the client goes."""
        return self._current is None and not self._entered

    @property
    def is_full(self) -> bool:
        """Whether so much waits that the client should not be let into another room."""
        return self._waiting is not None and len(self._waiting) >= MAX_WAITING

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        """Whether that task runs one of these hooks now."""
        return task is not None and task is self._current

    def joined(self, room: str) -> asyncio.Future[None] | None:
        """The client came into a room. What is done when the hooks are told, never cancelled; ``None`` if they were."""
        self._entered.add(room)
        return self._put("join", room)

    def left(self, room: str) -> asyncio.Future[None] | None:
        """The client left a room, which the hooks hear where they heard that it came. Returns what `joined` does."""
        if room not in self._entered:
            return None
        self._entered.remove(room)
        return self._put("leave", room)

    # --- the end of the client

    async def end(self, seconds: float, grace: float, hurried: asyncio.Event) -> None:
        """Wait until everything so far is told. The hook that takes too long is cancelled, and what nobody has begun to
        hear of, that the client came into a room, nobody hears any more.

        Args:
            seconds: for all of it.
            grace: seconds that a cancelled hook has to end.
            hurried: whether, and from when on, there is no time.
        """
        if self._current is None:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        no_time = asyncio.create_task(hurried.wait())
        while self._current is not None and not hurried.is_set() and (left := until - loop.time()) > 0:
            await asyncio.wait([self._current, no_time], timeout=left, return_when=asyncio.FIRST_COMPLETED)
        no_time.cancel()
        if self._current is not None:
            self._forget_joins()
            await self._cancel(grace)

    async def leave_all(self, grace: float) -> None:
        """Tell what is left to tell, and that the client has left the rooms it was in. Cancelled, tell no more of it.

        Args:
            grace: seconds that a cancelled hook has to end.
        """
        for room in sorted(self._entered):
            self.left(room)
        try:
            while self._current is not None:
                await asyncio.wait([self._current])
        except asyncio.CancelledError:
            self._give_up(self._waiting or ())
            self._waiting = None
            await self._cancel(grace)
            raise

    # --- inside

    def _put(self, kind: Literal["join", "leave"], room: str) -> asyncio.Future[None] | None:
        if not self._context.dispatcher.tells(kind, room):
            return None
        move = _Move(kind, room)
        if self._current is None:
            self._begin_now(move)
            return move.told
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(move)
        return move.later()

    def _begin_now(self, move: _Move) -> None:
        """Run the hooks up to their first wait at once: most have none, and a task would cost more than they do."""
        workers = self._context.workers
        worker = workers.take()
        self._worker, self._current = worker, worker.task
        try:
            rest = worker.step(self._tell(move), move.context)
        except BaseException as error:
            worker.end()
            self._next()
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            return
        if rest is None:
            workers.give_back(worker)
            self._next()
        else:
            move.later()
            worker.drive(rest)
            worker.end()
            worker.task.add_done_callback(lambda task: self._done(task, move))

    def _begin(self, move: _Move) -> None:
        self._current = asyncio.create_task(self._tell(move), name="velocity-ws move", context=move.context)
        self._current.add_done_callback(lambda task: self._done(task, move))

    async def _tell(self, move: _Move) -> None:
        _in_hook.set(True)
        await self._context.dispatcher.moved(move.kind, self._client, move.room)

    def _done(self, task: asyncio.Task[None], move: _Move) -> None:
        self._give_up([move])
        if task is self._current:
            self._next()

    def _next(self) -> None:
        self._current = self._worker = None
        if self._waiting:
            self._begin(self._waiting.popleft())
        else:
            self._waiting = None

    def _give_up(self, moves: Iterable[_Move]) -> None:
        for move in moves:
            if move.told is not None and not move.told.done():
                move.told.set_result(None)

    def _forget_joins(self) -> None:
        kept: deque[_Move] = deque()
        forgotten: set[str] = set()
        for move in self._waiting or ():
            if move.kind == "join":
                forgotten.add(move.room)
            elif move.room in forgotten:
                forgotten.remove(move.room)
            else:
                kept.append(move)
                continue
            self._give_up([move])
        self._entered -= forgotten
        self._waiting = kept

    async def _cancel(self, grace: float) -> None:
        """Cancel the hook that runs, and go on without it where it swallows that; the node keeps it until it ends."""
        task = self._current
        if task is None:
            return
        if self._worker is None:
            task.cancel()
        else:
            self._worker.cancel()
        await asyncio.wait([task], timeout=grace)
        if task is self._current:
            self._context.leave_behind(task, self._client)
            self._next()
