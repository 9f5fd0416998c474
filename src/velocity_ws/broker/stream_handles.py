"""Handles: what an application holds of one stream: one it has started, one that it writes, one that it reads live."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import msgspec

from velocity_ws.broker.history_api import Run
from velocity_ws.stream_errors import StreamEnded
from velocity_ws.streams.items import End, Summary
from velocity_ws.streams.pieces import split_items
from velocity_ws.streams.tail import Chunk
from velocity_ws.streams.values import StreamState, item_of
from velocity_ws.streams.writer import StreamWriter as Writing

__all__ = ["Acts", "Stream", "StreamReader", "StreamWriter"]

PARTS_PER_TURN: Final = 64
"""Parts that are had in one turn of the loop, where as many are there."""
SECONDS_PER_TURN: Final = 0.01
"""The same by time, where each part takes long."""


class Acts(Protocol):
    """What is done with streams by their ids; see `StreamsAPI`."""

    async def read(self, stream_id: str) -> StreamState:
        """What a stream has said so far."""

    async def cancel(self, stream_id: str) -> bool:
        """Cancel a stream, wherever it is written."""

    async def wait(self, stream_id: str) -> str:
        """Wait until a stream has ended."""


class Stream:
    """A stream that was started, here or elsewhere. From any loop, in coroutines.

    Attributes:
        id: the stream's.
        room: its room.
        is_new: whether this call has started it; if not, it was there, and its source is the one that runs, or ran.
    """

    def __init__(self, api: Acts, stream: Summary, *, is_new: bool) -> None:
        self.id = stream.id
        self.room = stream.room
        self.is_new = is_new
        self._api = api

    def __repr__(self) -> str:
        return f"<Stream {self.id!r} of room {self.room!r}>"

    async def read(self) -> StreamState:
        """What it has said so far; see `StreamsAPI.read`."""
        return await self._api.read(self.id)

    async def cancel(self) -> bool:
        """Cancel it; see `StreamsAPI.cancel`."""
        return await self._api.cancel(self.id)

    async def wait(self) -> str:
        """Wait until it has ended, however long that takes; the end: ``done``, ``cancelled``, ``error`` or ``lost``.

        One that is written over HTTP, and is deleted meanwhile, is ``cancelled``.

        Raises:
            StreamGone: it ended so long ago that nothing is known of it any more.
            StreamNotFound: the engine has lost it.
        """
        return await self._api.wait(self.id)


class StreamWriter:
    """A stream that is written piece by piece: ``async with broker.streams.open(…) as stream``. From any loop."""

    def __init__(self, run: Run, writing: Writing) -> None:
        self._run = run
        self._writing = writing
        self._has_raised = False

    @property
    def id(self) -> str:
        """The id of the stream."""
        return self._writing.id

    @property
    def room(self) -> str:
        """The room whose members read it."""
        return self._writing.room

    async def write(self, said: Any) -> None:
        """Say something; waits while much of what was said has not been stored yet, so that a slow engine slows it.

        Args:
            said: text, or its UTF-8 bytes, cut anywhere; or an item, which is anything that has a JSON form. A stream
                has either text or items, as what is said first; behind an item, text is one, too. ``None`` is nothing
                in text, as models say it.

        Raises:
            StreamEnded: the stream was cancelled, or its writer was taken for dead.
            StreamTooLarge: it would have more than ``WS_STREAM_MAX_SIZE`` with it, or this is an item of more bytes
                than the engine takes in one message (1 MiB on NATS, 8 MiB elsewhere). It goes on without.
            TypeError: the stream has text, and this is an item; or it has items, and these are bytes.
            EncodeError: the item has no JSON form.
        """
        try:
            await self._run(self._writing.write, said)
        except StreamEnded:
            self._has_raised = True
            raise

    def _check_end(self, end: End) -> None:
        """Raise that the stream was ended otherwise before all was stored, where no `write` has raised it."""
        if end != "done" and not self._has_raised:
            raise StreamEnded(self.id, end)


class StreamReader:
    """A stream that is read as it is said: ``async for part in broker.streams.follow("answer-42")``. From any loop.

    It may be iterated once. What is said while nothing iterates is not held for it: it is read from the engine.

    Attributes:
        id: the stream's.
        position: characters, items, or bytes, that it has had: another reader goes on from there (``start``).
        end: how the stream has ended, once the iteration is over: ``done``, ``cancelled``, ``error`` or ``lost``.
    """

    def __init__(
        self, run: Run, read: Callable[[str, int, bytes], Coroutine[Any, Any, Chunk]], id_: str, position: int
    ) -> None:
        self.id = id_
        self.position = position
        self.end: str | None = None
        self._run = run
        self._read = read
        self._writer = b""  # of the stream, so that none of another one is read that is begun anew with its id
        self._has: str = ""  # how the stream has ended behind the parts
        self._parts: deque[tuple[int, Any]] = deque()  # each with where a reader is that has had it
        self._count = 0
        self._turn = 0.0

    def __aiter__(self) -> StreamReader:
        return self

    async def __anext__(self) -> Any:
        """The next part of a text, which is never empty, or the next item.

        Raises:
            StreamNotFound: there is no such stream, or it was deleted, or the engine has lost it.
            StreamGone: it ended so long ago that nothing is kept of it.
            BackplaneUnavailable: the engine did not answer; iterating on tries again.
        """
        await self._pass()
        while not self._parts:
            if self._has:
                self.end = self._has
                raise StopAsyncIteration
            chunk: Chunk = await self._run(self._read, self.id, self.position, self._writer)
            self._writer, self._has = chunk.writer, chunk.end
            self._parts = _parts(chunk)
            if not self._parts:
                self.position = chunk.stop
        stop, part = self._parts[0]
        if isinstance(part, msgspec.Raw):
            part = item_of(part)
        self._parts.popleft()
        self.position = stop
        return part

    async def _pass(self) -> None:
        """Give others a turn of the loop now and then, as nothing is waited for between the parts that are there."""
        if not self._parts:
            self._count = 0
            return
        now = time.monotonic()
        if not self._count:
            self._turn = now
        self._count += 1
        if self._count >= PARTS_PER_TURN or now - self._turn > SECONDS_PER_TURN:
            self._count = 0
            await asyncio.sleep(0)


def _parts(chunk: Chunk) -> deque[tuple[int, Any]]:
    """What a reader gets one by one; items as they are stored."""
    if not chunk.data:
        return deque()
    if chunk.kind == "items":
        return deque(enumerate(split_items(chunk.data), chunk.start + 1))
    return deque([(chunk.stop, chunk.data.decode() if chunk.kind == "text" else chunk.data)])
