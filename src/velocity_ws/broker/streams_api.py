"""StreamsAPI: what an application does with streams: ``broker.streams``. Knows how to get to the broker's loop."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from velocity_ws.broker.history_api import Run
from velocity_ws.broker.stream_handles import Stream, StreamReader, StreamWriter
from velocity_ws.errors import BrokerError
from velocity_ws.messages.names import validate_room, validate_stream_id, validate_text
from velocity_ws.stream_errors import StreamEnded, StreamError
from velocity_ws.streams.items import End, Summary
from velocity_ws.streams.tail import Chunk
from velocity_ws.streams.values import StreamInfo, StreamState
from velocity_ws.streams.writer import StreamWriter as Writing

__all__ = ["Source", "StreamsAPI"]

Source = AsyncIterable[Any] | Callable[[], AsyncIterable[Any]]


class Runs(Protocol):
    """The streams of the process. On the broker's loop only."""

    async def begin(self, id_: str, room: str) -> tuple[Writing | None, Summary]:
        """Begin a stream, or find the one that is there."""

    def run(self, writer: Writing, source: AsyncIterator[Any]) -> None:
        """Let a source say a stream."""

    async def cancel(self, id_: str) -> bool:
        """Cancel a stream, wherever it is written."""

    async def read(self, id_: str) -> StreamState:
        """A stream with all that it has said so far."""

    async def listed(self, room: str) -> Sequence[StreamInfo]:
        """The streams of a room."""

    async def wait_over(self, id_: str) -> End:
        """Wait until a stream has ended; the end."""

    async def follow(self, id_: str, position: int, writer: bytes) -> Chunk:
        """What follows a position of a stream, as soon as there is something, or its end."""


class StreamsAPI:
    """Answers, logs and progress that one writer says piece by piece, and that outlive every connection.

    The members of the stream's room read it: what was said so far, then what is said, each at its own speed. From any
    loop, in coroutines.
    """

    def __init__(self, run: Run, run_here: Run, streams: Callable[[], Runs]) -> None:
        """
        Args:
            run: the way to the loop of the streams.
            run_here: the same, where it is known that they run.
            streams: the streams, asked for there; raises `BrokerError` where there are none.
        """
        self._run = run
        self._run_here = run_here
        self._streams = streams

    async def start(self, stream_id: str, *, room: str, source: Source) -> Stream:
        """Start a stream whose source runs in this process, detached from the client that asked for it.

        An id has one stream for ever: starting it again, anywhere, finds the one that is there, and the source of this
        call is left alone. A source that ends makes the end ``done``; one that raises, ``error``, and ``on_error``
        gets the exception. When the broker stops, sources have ``WS_DRAIN_TIMEOUT`` to finish; then they are cancelled,
        and the end is ``lost``, as where the process dies.

        Args:
            stream_id: 1 to 256 characters, none of which is a zero byte.
            room: the room whose members read it, a string of at most 256 characters.
            source: an async iterator, or a function that makes one, of text (``str``, or UTF-8 ``bytes`` cut anywhere)
                or of items (anything else that has a JSON form).

        Returns:
            The stream. Nothing of it is waited for.

        Raises:
            TypeError: the source is no async iterator, and makes none; in the latter case the end is ``error``.
            InvalidNameError: the id, or the room, is not such a string, or cannot be sent to other processes.
            StreamGone: it ended so long ago that nothing is kept of it.
            StreamError: the id is that of a stream in another room, or of one that is written over HTTP.
            SettingsError: the engine never keeps streams; the text says what to do.
            BrokerError: the broker is not started.
            BackplaneUnavailable: the engine did not answer. To start it again is safe.
        """
        _validate(stream_id, room)
        if not hasattr(source, "__aiter__") and not callable(source):
            raise TypeError(
                f"the source of a stream is an async iterator, or a function that makes one: {source!r:.80}"
            )
        return await self._run(self._start, stream_id, room, source)

    async def _start(self, stream_id: str, room: str, source: Source) -> Stream:
        streams = self._streams()
        writing, stream = await streams.begin(stream_id, room)
        if writing is not None and not writing.is_closed:
            try:
                iterator = _iterator(source)
            except BaseException:
                writing.close("error")
                raise
            streams.run(writing, iterator)
        return Stream(self, stream, is_new=writing is not None)

    @contextlib.asynccontextmanager
    async def open(self, stream_id: str, *, room: str) -> AsyncIterator[StreamWriter]:
        """Write a stream: ``async with broker.streams.open("log-9", room="job:9") as stream``.

        At the end of the block the end is ``done``; after an exception ``error``, after a cancellation ``cancelled``.
        It returns when the engine has all of it, and raises where that will not be.

        Args:
            stream_id: as for `start`.
            room: as for `start`.

        Raises:
            StreamEnded: the id is that of a stream which has ended. Or, at the end of the block: the stream was ended
                otherwise, as by `cancel`, before the engine had all of it, and no `write` has raised that.
            StreamError: the id is that of a stream which another one writes, or in another room.

            And what `start` raises.
        """
        _validate(stream_id, room)
        opening = _Opening()
        try:
            writing = await self._run(self._open, stream_id, room, opening)
        except BaseException:  # from another loop it may be open, though this was cancelled before it heard of that
            opening.is_left = True
            if opening.writing is not None:
                with contextlib.suppress(BrokerError):  # its loop was stopped, and nothing is written there
                    await self._run_here(_leave, opening.writing)
            raise
        writer = StreamWriter(self._run_here, writing)
        end: End = "cancelled"
        try:
            yield writer
            end = "done"
        except Exception:  # a cancellation is none: it leaves the end as it is
            end = "error"
            raise
        finally:
            has = await self._run_here(_finish, writing, end)
        writer._check_end(has)

    async def _open(self, stream_id: str, room: str, opening: _Opening) -> Writing:
        opening.writing, stream = await self._streams().begin(stream_id, room)
        if opening.writing is None:
            raise _taken(stream)
        if opening.is_left:
            opening.writing.close("cancelled")
        return opening.writing

    async def cancel(self, stream_id: str) -> bool:
        """Cancel a stream, on whatever node it is written: its source gets an ``asyncio.CancelledError``.

        What it has said is kept. One that was never started is cancelled as soon as it is.

        Args:
            stream_id: 1 to 256 characters.

        Returns:
            Whether it is cancelled, or will be; false where it had ended otherwise before.

        Raises:
            InvalidNameError: the id is not such a string.
            SettingsError, BrokerError: as for `start`.
            BackplaneUnavailable: it is not known whether it was done.
        """
        _validate(stream_id)
        return await self._run(self._cancel, stream_id)

    async def _cancel(self, stream_id: str) -> bool:
        return await self._streams().cancel(stream_id)

    async def read(self, stream_id: str) -> StreamState:
        """What a stream has said so far, and how it has ended, if it has.

        Args:
            stream_id: 1 to 256 characters.

        Raises:
            InvalidNameError: the id is not such a string.
            StreamNotFound: there is no such stream.
            StreamGone: it ended so long ago that nothing is kept of it.
            SettingsError, BrokerError: as for `start`.
            BackplaneUnavailable: the engine did not answer.
        """
        _validate(stream_id)
        return await self._run(self._read, stream_id)

    async def _read(self, stream_id: str) -> StreamState:
        return await self._streams().read(stream_id)

    def follow(self, stream_id: str, start: int = 0) -> StreamReader:
        """Read a stream as it is said, on any node: ``async for part in broker.streams.follow("answer-42")``.

        First comes what was said so far. It ends with the stream; see `StreamReader`.

        Args:
            stream_id: 1 to 256 characters.
            start: characters, or items, that are not needed.

        Raises:
            InvalidNameError: the id is not such a string.
            TypeError: the start is no whole number.
            ValueError: there is nothing before the beginning.
        """
        _validate(stream_id)
        if not isinstance(start, int) or isinstance(start, bool):  # an engine would close its connection for it
            raise TypeError(f"a stream is followed from a number on, and not from {start!r:.80}")
        if start < 0:
            raise ValueError(f"a stream is followed from 0 on, and not from {start}")
        return StreamReader(self._run, self._follow, stream_id, start)

    async def _follow(self, stream_id: str, position: int, writer: bytes) -> Chunk:
        return await self._streams().follow(stream_id, position, writer)

    async def wait(self, stream_id: str) -> str:
        """Wait until a stream has ended, however long that takes; see `Stream.wait`."""
        _validate(stream_id)
        return await self._run(self._wait, stream_id)

    async def _wait(self, stream_id: str) -> str:
        return await self._streams().wait_over(stream_id)

    async def list(self, room: str) -> Sequence[StreamInfo]:
        """The streams of a room that are kept, running or ended, the newest first; at most 1,000.

        Args:
            room: a string of at most 256 characters.

        Raises:
            InvalidNameError: the room is not such a string.
            SettingsError, BrokerError: as for `start`.
            BackplaneUnavailable: the engine did not answer.
        """
        validate_room(room)
        return await self._run(self._list, room)

    async def _list(self, room: str) -> Sequence[StreamInfo]:
        return await self._streams().listed(room)


class _Opening:
    """A stream that is being opened, perhaps on another loop than that of the caller, who may not wait for it.

    Attributes:
        writing: its writer, once there is one.
        is_left: whether the caller has gone.
    """

    __slots__ = ("is_left", "writing")

    def __init__(self) -> None:
        self.writing: Writing | None = None
        self.is_left = False


async def _leave(writing: Writing) -> None:
    """End a stream that nobody writes."""
    writing.close("cancelled")


async def _finish(writing: Writing, end: End) -> End:
    """End a stream; how it has ended then."""
    writing.close(end)
    return await writing.wait_over()


def _taken(stream: Summary) -> StreamError:
    """The error about a stream that another one writes, or has written."""
    if stream.end:
        return StreamEnded(stream.id, stream.end)
    return StreamError(stream.id, "is written by another writer: read it, or take another id")


def _iterator(source: Source) -> AsyncIterator[Any]:
    """Begin to iterate.

    Raises:
        TypeError: it makes no async iterator.
    """
    made: Any = source if hasattr(source, "__aiter__") else source()
    if not hasattr(made, "__aiter__"):
        if inspect.iscoroutine(made):
            made.close()
        raise TypeError(
            f"the source of a stream is an async iterator, or a function that makes one, and this makes {made!r:.80}"
        )
    found: AsyncIterator[Any] = made.__aiter__()
    return found


def _validate(stream_id: str, *rooms: str) -> None:
    validate_stream_id(stream_id)
    for room in rooms:
        validate_room(room)
        validate_text(room)
