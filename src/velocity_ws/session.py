"""Session: one accepted connection from its first hook to its last. Knows no ASGI and no server.

Whatever carries the connection calls `open`, `feed` for each message, and `finish`; it hands in an `Outbox` to send.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
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
        self._inbox_bytes += size
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
        """End: called once, when the connection is over, whoever ended it. Runs the ``on_disconnect`` hooks."""
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

    async def ping(self) -> float | None:
        """``None``: plain ASGI has no ping frames."""
        return None

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
        """End at once, without a close frame if need be: the carrier's task is cancelled, in `finish` too."""
        if not self.done.is_set():
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
        handled = 0
        while self._inbox:
            handled += 1
            if handled % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)
                continue
            payload = self._inbox.popleft()
            self._inbox_bytes -= _size(payload)
            self._room.set()
            if isinstance(payload, str):
                answer = await dispatcher.text(client, payload)
            else:
                answer = await dispatcher.binary(client, payload)
            if answer is not None:
                self.offer(answer)
        if self._draining:
            self._go_away()

    def _leave(self) -> None:
        if self._open:
            self._open = False
            self._last_rooms = self._node.hub.remove(self.id)

    def _clear_inbox(self) -> None:
        self._inbox.clear()
        self._inbox_bytes = 0
        self._room.set()

    async def _end_worker(self) -> None:
        worker = self._worker
        if worker is None:
            return
        worker.end()
        if await worker.join(HANDLER_GRACE):
            return
        self._clear_inbox()
        worker.cancel()
        if not await worker.join(CANCEL_GRACE):
            # It swallowed its cancellation. Its client must not wait for it; the node keeps it until it ends.
            log.error("a handler goes on after it was cancelled", extra={"client_id": self.id})
            self._node.stragglers.add(worker.task)
            worker.task.add_done_callback(self._node.stragglers.discard)

    async def _say_goodbye(self, close: Close) -> None:
        seconds = max(self._node.settings.drain_timeout, CANCEL_GRACE)
        try:
            async with asyncio.timeout(seconds):
                await self._node.dispatcher.disconnect(self.client, close)
        except TimeoutError:
            error = TimeoutError(f"the on_disconnect hooks took more than {seconds:g} s and were cancelled")
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
