"""Stream feeds: those who read one stream at its end wait together, and one task tells them all. Knows no request.

A reader that has all there is costs no task and no timer beside the task that its server has for the request. What is
said next is sent to it at once; where that has to wait, as the reader does not read, it goes on in a task of its own,
until the reader has all there is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple

from starlette.types import Send

from velocity_ws.asgi.stopping import OpenResponse
from velocity_ws.asgi.stream_events import EventForm, Events
from velocity_ws.asgi.stream_forms import interval_at
from velocity_ws.concurrency.eager import EagerTask, TaskPool
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.logs import get_logger, quote
from velocity_ws.stream_errors import StreamError
from velocity_ws.streams.tail import Chunk, Tail
from velocity_ws.streams.tails import Tails

__all__ = ["EventReader", "Feed", "Feeds"]

log = get_logger("velocity_ws.asgi")

COMMENT = 15.0
"""Seconds of silence after which a comment is sent, so that no proxy takes the connection for dead."""
COMMENT_LINE: Final = Events(b":\n\n")
"""What says nothing, and keeps a connection open."""
TURN: Final = 64
"""Readers that are told in one turn of the loop."""


class EventReader:
    """One that reads a stream as events. On the broker's loop only.

    Attributes:
        send: of its request.
        response: of its request; ended where all has been said.
        position: up to which it has the stream.
        cursor: that it was told last, or is to be told at least; it never goes back.
        worker: sends to it now; ``None`` where it has all there is.
    """

    __slots__ = ("cursor", "position", "response", "send", "worker")

    def __init__(self, send: Send, response: OpenResponse, position: int, cursor: int) -> None:
        self.send = send
        self.response = response
        self.position = position
        self.cursor = cursor
        self.worker: EagerTask | None = None


class _Made(NamedTuple):
    """What is sent to all readers that are at the same place.

    Attributes:
        events: what is said; ``None`` where there is nothing to say.
        position: where a reader is after them.
        stop: where the stream was at its end then, or the part of it that was taken.
        is_over: whether that is the end for ever.
    """

    events: Events | None
    position: int
    stop: int
    is_over: bool


class Feed:
    """The readers of one stream. On the broker's loop only."""

    def __init__(
        self,
        tails: Tails,
        id_: str,
        writer: bytes,
        form: EventForm,
        workers: Callable[[], TaskPool],
        emptied: Callable[[Feed], object],
    ) -> None:
        """
        Args:
            tails: have what is said.
            id_: the stream's.
            writer: of the stream, so that none of another one is read that is begun anew with its id.
            form: of its events.
            workers: lends tasks.
            emptied: called with the feed when nobody reads it any more; more than once, maybe.
        """
        self._tails = tails
        self._id = id_
        self._writer = writer
        self._form = form
        self._workers = workers
        self._emptied = emptied
        self._readers: dict[EventReader, None] = {}
        self._polls: set[OpenResponse] = set()
        self._busy: set[EventReader] = set()
        self._seen = 0
        self._pump: asyncio.Task[None] | None = None

    # --- who reads

    def add(self, reader: EventReader, length: int) -> None:
        """Send a reader all that there is, and all that comes.

        Args:
            reader: has got the beginning of its answer.
            length: of the stream, as far as is known.
        """
        workers = self._workers()
        worker = workers.take()
        if self._run(reader, worker, self._begin(reader, length)):
            workers.give_back(worker)

    def remove(self, reader: EventReader) -> None:
        """Send it nothing more."""
        self._readers.pop(reader, None)
        self._busy.discard(reader)
        if reader.worker is not None:
            reader.worker.cancel()
            reader.worker = None
        self._end_if_empty()

    async def poll(self, response: OpenResponse, position: int) -> bool:
        """End a response as soon as something is said after a position; whether it is to wait for that.

        Raises:
            StreamNotFound, StreamGone, BackplaneUnavailable: as of `Tails.open`.
        """
        self._polls.add(response)  # so that the feed is not given up meanwhile
        tail = await self._tails.open(self._id, self._writer)
        if response not in self._polls or position < tail.length or tail.end or tail.error is not None:
            return False
        self._start(tail)
        return True

    def poll_no_more(self, response: OpenResponse) -> None:
        """Forget a response that is over."""
        self._polls.discard(response)
        self._end_if_empty()

    def _end_if_empty(self) -> None:
        if not (self._readers or self._polls or self._busy):
            if self._pump is not None:
                self._pump.cancel()
                self._pump = None
            self._emptied(self)

    # --- one reader

    def _run(self, reader: EventReader, worker: EagerTask, work: Coroutine[Any, Any, None]) -> bool:
        """Send to a reader: up to the first wait now, the rest in the worker; whether that is over, and free again."""
        reader.worker = worker
        try:
            rest = worker.step(work)
        except BaseException as error:  # no `Exception` leaves `_Ending`
            worker.end()
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            return False
        if rest is None:
            reader.worker = None
            return True
        # From now on the task is its own, and ends with it.
        self._readers.pop(reader, None)
        self._busy.add(reader)
        worker.drive(rest)
        worker.end()
        return False

    async def _begin(self, reader: EventReader, length: int) -> None:
        with _Ending(reader):
            tail = await self._tails.open(self._id, self._writer)
            if tail.length < length:  # what was found is newer than what was heard
                self._tails.look_soon(self._id)
                tail = await self._tails.wait(self._id, tail.length, COMMENT, self._writer)
            await self._send_rest(reader, tail, is_first=True)

    async def _tell(self, reader: EventReader, tail: Tail, made: _Made) -> None:
        with _Ending(reader):
            if made.events is not None:
                await _send(reader, made.events)
            reader.position = made.position
            if made.is_over:
                reader.response.end("over")
            elif reader in self._busy or made.stop < tail.length or tail.end:
                await self._send_rest(reader, tail)

    async def _send_rest(self, reader: EventReader, tail: Tail, *, is_first: bool = False) -> None:
        """Send a reader what it has not, until it has all, or has had the end."""
        while True:
            made = await self._made(tail, reader.position, is_first=is_first)
            if made.events is not None:
                reader.cursor = max(reader.cursor, interval_at(time.time()))
                await _send(reader, made.events)
            is_first = False
            reader.position = made.position
            if made.is_over:
                reader.response.end("over")
                return
            if made.stop >= tail.length and not tail.end:
                reader.worker = None
                self._busy.discard(reader)
                self._readers[reader] = None
                self._start(tail)
                return

    async def _made(self, tail: Tail, position: int, *, is_first: bool = False) -> _Made:
        """What follows a position, made once for all who are there."""
        key = "events", position, is_first
        made: _Made | None = tail.made.get(key)
        if made is None:
            chunk = await self._tails.part(tail, position)
            events, stop = self._form.events(chunk, position, is_first=is_first)
            while stop == position and not chunk.is_all:  # half a character: the rest of it is in what follows
                chunk = _joined(chunk, await self._tails.part(tail, chunk.stop))
                events, stop = self._form.events(chunk, position, is_first=is_first)
            made = _Made(events, stop, chunk.stop, bool(chunk.end) and chunk.is_all)
            if chunk.stop >= tail.length and (made.is_over or not tail.end):  # it is as new as what is there by now
                tail.remember(key, made, 0 if events is None else events.size)
        return made

    # --- all of them

    def _start(self, tail: Tail) -> None:
        if self._pump is None:
            self._seen = tail.length
            self._pump = asyncio.create_task(self._serve(), name="velocity-ws stream feed")

    async def _serve(self) -> None:
        """Tell all readers what comes, and that they are not forgotten."""
        try:
            while True:
                tail = await self._tails.wait(self._id, self._seen, COMMENT, self._writer)
                is_over = bool(tail.end)  # else the end may come while only some are told
                has_more = tail.length > self._seen or is_over
                self._seen = max(self._seen, tail.length)
                if has_more:
                    self._end_polls()
                await self._tell_all(tail, is_comment=not has_more)
                if is_over:
                    break
        except (StreamError, BackplaneUnavailable) as error:  # it was deleted, or cannot be had now
            self._give_up(error)
        except Exception as error:
            log.error("the readers of stream %s could not be told", quote(self._id), exc_info=error)
            self._give_up(error)
        finally:
            if self._pump is asyncio.current_task():  # else it was cancelled, and there may be another one
                self._pump = None

    def _give_up(self, error: Exception) -> None:
        """End all answers, as nothing can be told any more."""
        self._end_polls(error)
        for reader in list(self._readers):
            reader.response.end("over")

    def _end_polls(self, error: Exception | None = None) -> None:
        polls, self._polls = self._polls, set()
        for response in polls:
            response.end("over", error)

    async def _tell_all(self, tail: Tail, *, is_comment: bool) -> None:
        workers, interval = self._workers(), interval_at(time.time())
        worker = workers.take()
        try:
            for number, reader in enumerate(list(self._readers), 1):
                if is_comment:
                    made = _Made(COMMENT_LINE, reader.position, tail.length, False)
                else:
                    made = await self._made(tail, reader.position)
                    reader.cursor = max(reader.cursor, interval)
                is_said = made.events is not None and reader in self._readers  # still
                if is_said and not self._run(reader, worker, self._tell(reader, tail, made)):
                    worker = workers.take()
                if not number % TURN:
                    await asyncio.sleep(0)
        finally:
            workers.give_back(worker)


def _joined(one: Chunk, two: Chunk) -> Chunk:
    """Two parts of a stream as one.

    Raises:
        BackplaneUnavailable: the engine did not say what follows.
    """
    if two.start != one.stop or two.stop == one.stop:
        raise BackplaneUnavailable("the engine does not have what it said it has")
    return two._replace(start=one.start, data=one.data + two.data)


def _send(reader: EventReader, events: Events) -> Awaitable[None]:
    return reader.send({"type": "http.response.body", "body": events.at(reader.cursor), "more_body": True})


class _Ending:
    """Ends the response of a reader to whom nothing can be sent any more. A context manager, which is entered often."""

    __slots__ = ("_reader",)

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if error is None:
            return False
        if not isinstance(error, asyncio.CancelledError):  # else it was removed
            self._reader.response.end("over")
        if isinstance(error, Exception) and not isinstance(error, StreamError | BackplaneUnavailable | OSError):
            log.error("a reader of a stream could not be told", exc_info=error)
        return isinstance(error, Exception)


class Feeds:
    """The feeds of one broker. On its loop only."""

    def __init__(self, workers: Callable[[], TaskPool]) -> None:
        """
        Args:
            workers: lends tasks.
        """
        self._workers = workers
        self._feeds: dict[tuple[Tails, str, bytes], Feed] = {}

    def of(self, tails: Tails, id_: str, writer: bytes, form: EventForm) -> Feed:
        """That of a stream, which is to be given a reader at once."""
        key = tails, id_, writer
        feed = self._feeds.get(key)
        if feed is None:

            def emptied(old: Feed) -> None:
                if self._feeds.get(key) is old:  # else there is a new one
                    del self._feeds[key]

            feed = self._feeds[key] = Feed(tails, id_, writer, form, self._workers, emptied)
        return feed
