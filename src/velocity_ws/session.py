"""Session: one accepted connection from its first hook to its last. Knows no ASGI and no server.

Whatever carries the connection calls `open`, `feed` for each message, and `finish`; it hands in an `Outbox` to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from velocity_ws.client import Client
from velocity_ws.eager import EagerTask
from velocity_ws.errors import Close, CloseCode
from velocity_ws.limits import RateLimiter
from velocity_ws.messages import Frame, decode, encode
from velocity_ws.outbox import Outbox

if TYPE_CHECKING:
    from velocity_ws.node import Node

__all__ = ["Session"]

log = logging.getLogger("velocity_ws.session")

CLOSE_TIMEOUT = 10.0
"""Seconds that what is queued and the close frame may take to get through before the connection is aborted."""
SLOW_CLOSE_TIMEOUT = 5.0
"""The same for a client that was too slow already."""
HANDLER_GRACE = 5.0
"""Seconds a running handler has to finish once its client is gone."""
MESSAGES_PER_TURN = 16
"""Messages of one client handled before others get their turn of the event loop."""
SECONDS_PER_TURN = 0.01
"""The same in time, for messages that are expensive."""
HURRIED_GRACE = 0.2
"""What is left of the graces below when the broker has stopped waiting."""
CANCEL_GRACE = 1.0
"""Seconds a cancelled handler has to end before it is left behind."""


class Session:
    """One connection's state. Used on the broker's loop only; also the `Connection` behind its `Client`."""

    def __init__(self, node: Node, request: HTTPConnection) -> None:
        self._node = node
        self.client = Client(request, node.home, self)
        self.id = self.client.id
        self.outbox: Outbox | None = None
        self._limiter: RateLimiter | None = None
        self._inbox: deque[str | bytes] = deque()
        self._inbox_bytes = 0
        self._room = asyncio.Event()
        self._worker: EagerTask | None = None
        self._carrier: asyncio.Task[object] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._open = False
        self._draining = False
        self._greeted = False
        self._last_rooms: frozenset[str] = frozenset()
        self._closed_by_us: tuple[int, str] | None = None
        self.is_aborted = False
        self._ending: asyncio.Task[None] | None = None
        self._hurried: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._goodbye: asyncio.Timeout | None = None
        self.on_room: Callable[[], None] | None = None
        self.done = asyncio.Event()

    # --- what the carrier calls

    def open(self, outbox: Outbox) -> None:
        """Begin: the client is in the hub from now on, and its ``on_connect`` hooks run.

        Called in the task that will read from the connection; `abort` cancels that task.
        """
        settings = self._node.settings
        self.outbox = outbox
        if settings.rate_limit:
            self._limiter = RateLimiter(settings.rate_limit, settings.rate_burst, self._node.clock)
        self._carrier = asyncio.current_task()
        self._open = True
        self._node.sessions.add(self)
        self._node.hub.add(self)
        self._node.counters.connections += 1
        self._worker = EagerTask()
        self._worker.task.add_done_callback(self._worker_ended)
        self._worker.run(self._start())

    def feed(self, payload: str | bytes) -> None:
        """Take one message that arrived. It is handled after those before it."""
        size = _size(payload)
        counters = self._node.counters
        counters.messages_received += 1
        counters.bytes_received += size
        if not self._open or self._draining:
            return
        if size > self._node.settings.max_message_size:
            self.disconnect(CloseCode.MESSAGE_TOO_BIG, "message too big")
            return
        if self._limiter is not None and (retry_after := self._limiter.acquire()):
            counters.rate_limited += 1
            self.offer(_rate_limit_exceeded(payload, retry_after))
            return
        self._inbox.append(payload)
        self._inbox_bytes += size or 1  # so that empty messages are bounded too
        if self._worker is not None and not self._worker.is_busy:
            self._worker.run(self._work())

    @property
    def is_full(self) -> bool:
        """Whether the carrier should stop reading and await `room`."""
        return self._inbox_bytes > self._node.settings.read_buffer_size

    async def room(self) -> None:
        """Wait until there is room for more messages."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    async def finish(self, close: Close) -> None:
        """End: called once, when the connection is over, whoever ended it. Runs the ``on_disconnect`` hooks.

        Cancelling this does not: the end has a task of its own, which the session owns and `done` tells of.
        """
        self._ending = asyncio.create_task(self._finish(close))
        await asyncio.shield(self._ending)

    async def _finish(self, close: Close) -> None:
        try:
            self._cancel_deadline()
            if self._closed_by_us is not None:
                code, reason = self._closed_by_us
                close = Close(code, reason, "server")
                self._clear_inbox()
            self._leave()
            if self.outbox is not None:
                self.outbox.abort()
            await self._end_worker()
            if self._greeted:
                await self._say_goodbye(close)
            if self.outbox is not None:
                await self.outbox.join()
        finally:
            self._last_rooms = frozenset()
            log.debug("client disconnected", extra={"client_id": self.id, "code": close.code, "by": close.by})
            self._node.sessions.discard(self)
            self.done.set()

    # --- the member of the hub, and the connection of the client

    @property
    def is_connected(self) -> bool:
        """Whether messages can still be sent."""
        return self._open

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms the client is in, or was in when it left."""
        if self._open:
            return self._node.hub.rooms_of(self.id)
        return self._last_rooms

    def offer(self, frame: Frame) -> bool:
        """Queue a message; false, and counted, where the client is gone or too slow."""
        if not self._open or self.outbox is None:
            self._node.counters.dropped += 1
            return False
        return self.outbox.offer(frame)

    def disconnect(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Close after everything queued; nothing more is handled, and it is out of every room at once."""
        if not self._open or self.outbox is None:
            return
        self._closed_by_us = (code, reason)
        self._leave()
        self._clear_inbox()
        self.outbox.close(code, reason, discard=discard)
        self._abort_in(SLOW_CLOSE_TIMEOUT if discard else CLOSE_TIMEOUT)

    @property
    def is_dismissed(self) -> bool:
        """Whether this side has closed it."""
        return self._closed_by_us is not None

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        """Whether a task is one that runs this session's hooks."""
        own = (self._carrier, self._ending, None if self._worker is None else self._worker.task)
        return task is not None and task in own

    async def ping(self) -> float | None:
        """Round trip of a ping in seconds; ``None`` where the server offers no pings."""
        return None if self.outbox is None else await self.outbox.ping()

    # --- what the outbox tells

    def outbox_full(self) -> None:
        """The client is too slow."""
        log.info("slow client closed", extra={"client_id": self.id})
        self.disconnect(CloseCode.TRY_AGAIN_LATER, "too slow: the send queue is full", discard=True)

    def outbox_broken(self) -> None:
        """Sending failed, so the connection is gone; the carrier should hear of it soon, or is made to."""
        self._leave()
        self._abort_in(SLOW_CLOSE_TIMEOUT)

    # --- shutting down

    def drain(self) -> None:
        """Handle what has arrived, nothing after it, then say goodbye (1001)."""
        self._draining = True
        if self._worker is None or not self._worker.is_busy:
            self._go_away()

    def hurry(self) -> None:
        """Say goodbye now, and cancel the handler that is still running."""
        self._go_away()
        if self._worker is not None:
            self._worker.cancel()

    def abort(self) -> None:
        """End at once, without a close frame if need be: the carrier is cancelled, or its end hurried."""
        if self._ending is not None:
            if not self._hurried.done():
                self._hurried.set_result(None)
            if self._goodbye is not None:
                self._goodbye.reschedule(asyncio.get_running_loop().time())
        elif not self.done.is_set():
            self.is_aborted = True
            self._leave()
            if self.outbox is not None:
                self.outbox.abort()
            if self._carrier is not None:
                self._carrier.cancel()

    def _go_away(self) -> None:
        self.disconnect(CloseCode.GOING_AWAY, "the server is shutting down")

    # --- inside

    async def _start(self) -> None:
        self._greeted = True
        if await self._node.dispatcher.connect(self.client):
            await self._work()
        else:
            self.disconnect(CloseCode.INTERNAL_ERROR, "the server failed to set up this connection")

    async def _work(self) -> None:
        dispatcher, client = self._node.dispatcher, self.client
        loop = asyncio.get_running_loop()
        handled, turn = 0, loop.time()
        while self._inbox:
            handled += 1
            if handled % MESSAGES_PER_TURN == 0 or loop.time() - turn > SECONDS_PER_TURN:
                await asyncio.sleep(0)
                turn = loop.time()
                continue
            payload = self._inbox.popleft()
            self._inbox_bytes -= _size(payload) or 1
            self._make_room()
            if isinstance(payload, str):
                answer = await dispatcher.text(client, payload)
            else:
                answer = await dispatcher.binary(client, payload)
            if answer is not None:
                self.offer(answer)
        if self._draining:
            self._go_away()

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        # It ends with the session. Ended before, by code that cancelled the task it found itself in, nobody would
        # handle this client's messages any more.
        if self._open and not task.get_loop().is_closed():
            self._node.counters.errors += 1
            log.error("the task that handles messages was cancelled from outside", extra={"client_id": self.id})
            self.disconnect(CloseCode.INTERNAL_ERROR, "the server failed to go on with this connection")

    def _leave(self) -> None:
        if self._open:
            self._open = False
            self._last_rooms = self._node.hub.remove(self.id)

    def _clear_inbox(self) -> None:
        self._inbox.clear()
        self._inbox_bytes = 0
        self._make_room()

    def _make_room(self) -> None:
        self._room.set()
        if self.on_room is not None and not self.is_full:
            self.on_room()

    async def _end_worker(self) -> None:
        worker = self._worker
        if worker is None:
            return
        worker.end()
        await asyncio.wait([worker.task, self._hurried], timeout=HANDLER_GRACE, return_when=asyncio.FIRST_COMPLETED)
        if worker.task.done():
            return
        self._clear_inbox()
        worker.cancel()
        if not await worker.join(HURRIED_GRACE if self._hurried.done() else CANCEL_GRACE):
            # It swallowed its cancellation. Its client must not wait for it; the node keeps it until it ends.
            log.error("a handler goes on after it was cancelled", extra={"client_id": self.id})
            self._node.stragglers.add(worker.task)
            worker.task.add_done_callback(self._node.stragglers.discard)

    async def _say_goodbye(self, close: Close) -> None:
        seconds = max(self._node.settings.drain_timeout, CANCEL_GRACE)
        if self._hurried.done():
            seconds = HURRIED_GRACE
        try:
            async with asyncio.timeout(seconds) as self._goodbye:
                await self._node.dispatcher.disconnect(self.client, close)
        except TimeoutError:
            error = TimeoutError(f"the on_disconnect hooks took more than {seconds:g} s and were cancelled")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HURRIED_GRACE):
                    await self._node.dispatcher.report(self.client, error)

    def _abort_in(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()


def _size(payload: str | bytes) -> int:
    if isinstance(payload, bytes) or payload.isascii():
        return len(payload)
    return len(payload.encode())


def _rate_limit_exceeded(payload: str | bytes, retry_after: float) -> Frame:
    message = decode(payload) if isinstance(payload, str) else None
    request_id = message.id if message is not None else None
    data = {"message": "too many messages", "retry_after": math.ceil(retry_after * 1000) / 1000}
    return encode("rate_limit_exceeded", data, request_id)
