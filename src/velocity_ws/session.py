"""Session: one accepted connection from its first hook to its last. Knows no ASGI and no server.

Whatever carries the connection calls `open`, `feed` for each message, and `finish`; it hands in an `Outbox` to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from velocity_ws.client import Client
from velocity_ws.eager import EagerTask
from velocity_ws.errors import Close, CloseCode
from velocity_ws.limits import RateLimiter
from velocity_ws.messages import Frame, decode_id, encode
from velocity_ws.outbox import Outbox

if TYPE_CHECKING:
    from velocity_ws.node import Node

__all__ = ["Session"]

log = logging.getLogger("velocity_ws.session")

CLOSE_TIMEOUT = 10.0
"""Seconds that what is queued and the close frame may take to get through before the connection is aborted."""
SLOW_CLOSE_TIMEOUT = 5.0
"""The same for a client that was too slow already."""
FLOOD_CLOSE_TIMEOUT = 0.25
"""The same for a client that floods: what it goes on sending costs the others until it is gone."""
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
REFUSALS = 1000
"""Messages a second over the rate limit that a client may go on sending; beyond, it is closed (1008)."""
REFUSALS_AT_ONCE = 5000
"""The same at once."""


class Session:
    """One connection's state. Used on the broker's loop only; also the `Connection` behind its `Client`.

    What an idle connection does not need is not here until it is needed: there are many more idle ones than others.

    Attributes:
        client: what the application sees of it.
        id: the client's.
        outbox: where messages to the client go; ``None`` before `open`.
        is_full: whether so much waits to be handled that the carrier should stop reading until `on_room`, or `room`.
        is_aborted: whether `abort` has cancelled the carrier.
        on_room: called when there is room again.
    """

    def __init__(self, node: Node, request: HTTPConnection) -> None:
        self._node = node
        self.client = Client(request, node.home, self, node.id)
        self.id = self.client.id
        self.outbox: Outbox | None = None
        self.is_full = False
        self.is_aborted = False
        self.on_room: Callable[[], None] | None = None
        self._context: contextvars.Context | None = None
        self._limiter: RateLimiter | None = None
        self._refusals: RateLimiter | None = None
        self._inbox: deque[str | bytes] | None = None
        self._inbox_bytes = 0
        self._room: asyncio.Event | None = None
        self._worker: EagerTask | None = None
        self._carrier: asyncio.Task[object] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._open = False
        self._takes_messages = False
        self._draining = False
        self._greeted = False
        self._is_done = False
        self._last_rooms: frozenset[str] = frozenset()
        self._entered: set[str] | None = None
        self._closed_by_us: tuple[int, str] | None = None
        self._restarting: tuple[int, str] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._is_hurried = False
        self._hurried: asyncio.Event | None = None
        self._goodbye: asyncio.Timeout | None = None

    # --- what the carrier calls

    def open(self, outbox: Outbox) -> None:
        """Begin: the client is in the hub from now on, and its ``on_connect`` hooks run.

        Called in the task that carries the connection; `abort` cancels that task.
        """
        node, settings = self._node, self._node.settings
        self.outbox = outbox
        if settings.rate_limit:
            self._limiter = RateLimiter(settings.rate_limit, settings.rate_burst, node.clock)
        self._carrier = asyncio.current_task()
        self._context = contextvars.copy_context()
        self._open = self._takes_messages = True
        node.sessions.add(self)
        node.hub.add(self)
        node.counters.connections += 1
        if node.dispatcher.has("connect"):
            self._run(self._start())
        else:
            self._greeted = True

    def feed(self, payload: str | bytes) -> bool:
        """Take one message that arrived. It is handled after those before it; whether there is no room for more."""
        size = _size(payload)
        counters = self._node.counters
        counters.messages_received += 1
        counters.bytes_received += size
        if not self._takes_messages:
            return False
        if size > self._node.settings.max_message_size:
            self.disconnect(CloseCode.MESSAGE_TOO_BIG, "message too big")
        elif self._limiter is not None and (retry_after := self._limiter.acquire()):
            self._refuse(payload, retry_after)
        elif self._worker is None:
            self._run(self._work(payload))
        else:
            self._queue(payload, size)
        return self.is_full

    async def room(self) -> None:
        """Wait until there is room for more messages."""
        self._room = self._room or asyncio.Event()
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    def finish_now(self, close: Close) -> bool:  # noqa: ARG002 - nobody is told, as nobody asked to be
        """End, where there is nothing to wait for; whether that was so. Else await `finish`."""
        dispatcher = self._node.dispatcher
        told = (self._greeted and dispatcher.has("disconnect")) or bool(self._entered)
        if self._worker is not None or told or self.outbox is None or not self.outbox.is_joined:
            return False
        self._cancel_deadline()
        self._leave()
        self.outbox.abort()
        self._end()
        return True

    async def finish(self, close: Close) -> None:
        """End: called once, when the connection is over, whoever ended it. Runs the ``on_disconnect`` hooks.

        Cancelling this does not: the end has a task of its own, which the session owns.
        """
        self._ending = asyncio.create_task(self._finish(close))
        await asyncio.shield(self._ending)

    async def _finish(self, close: Close) -> None:
        try:
            self._cancel_deadline()
            if self._closed_by_us is not None:
                code, reason = self._closed_by_us
                close = Close(code, reason, "server")
                if not self._takes_messages:
                    self._clear_inbox()
            self._leave()
            self._takes_messages = False
            if self.outbox is not None:
                self.outbox.abort()
            await self._end_worker()
            if self._entered:
                rooms, self._entered = sorted(self._entered), None
                await self._tell(self._node.dispatcher.moved("leave", self.client, rooms), "on_leave")
            if self._greeted:
                await self._tell(self._node.dispatcher.disconnect(self.client, close), "on_disconnect")
            if self.outbox is not None:
                await self.outbox.join()
        finally:
            log.debug("client disconnected", extra={"client_id": self.id, "code": close.code, "by": close.by})
            self._end()

    def _end(self) -> None:
        self._takes_messages = False
        self._last_rooms = frozenset()
        self._is_done = True
        # What refers back here goes, so that all of it is freed at once, and not when the garbage collector comes.
        self.on_room = self.outbox = self._carrier = None
        self.client.detach(self._node.gone)
        self._node.forget(self)

    # --- the member of the hub, and the connection of the client

    @property
    def is_connected(self) -> bool:
        """Whether messages can still be sent."""
        return self._open

    @property
    def user_id(self) -> str | None:
        """Whose client it is."""
        return self.client.user_id

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms the client is in, or was in when it left."""
        if self._open:
            return self._node.hub.rooms_of(self.id)
        return self._last_rooms

    def entered(self, room: str) -> None:
        """The hooks are told that it came into a room, and so are to be told when it leaves."""
        if self._entered is None:
            self._entered = set()
        self._entered.add(room)

    def exited(self, room: str) -> bool:
        """It left a room; whether the hooks were told that it came."""
        if self._entered is None or room not in self._entered:
            return False
        self._entered.remove(room)
        return True

    def offer(self, frame: Frame) -> bool:
        """Queue a message; false, and counted, where the client is gone or too slow."""
        if not self._open or self.outbox is None:
            self._node.counters.dropped += 1
            return False
        return self.outbox.offer(frame)

    def disconnect(self, code: int, reason: str, *, discard: bool = False, within: float | None = None) -> None:
        """Close after everything queued; nothing more is handled, and it is out of every room at once."""
        if not self._open or self.outbox is None:
            if self._takes_messages:  # `restart` has closed it already, and this says to handle nothing more
                self._takes_messages = False
                self._clear_inbox()
            return
        self._closed_by_us = (code, reason)
        self._leave()
        self._takes_messages = False
        self._clear_inbox()
        self.outbox.close(code, reason, discard=discard)
        self._abort_in(CLOSE_TIMEOUT if within is None else within)

    def restart(self, code: int, reason: str, patience: float) -> None:
        """Close after everything queued, as the server goes; what the client sends until it answers is handled.

        The caller minds how long that may take, and calls `cut` then.

        Args:
            code: of the close frame.
            reason: of the close frame.
            patience: seconds in which what is being handled may still be answered before.
        """
        if self._open and self._restarting is None:
            self._restarting = (code, reason)
            if self._worker is None:
                self._restart()
            else:
                self._patience = asyncio.get_running_loop().call_later(patience, self._restart)

    def _restart(self) -> None:
        if self._open and self._restarting is not None and self.outbox is not None:
            self._closed_by_us = self._restarting
            self._leave()
            self.outbox.close(*self._restarting)

    @property
    def is_dismissed(self) -> bool:
        """Whether this side has closed it, so that nothing more of it is handled."""
        return self._closed_by_us is not None and not self._takes_messages

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
        self.disconnect(
            CloseCode.TRY_AGAIN_LATER, "too slow: the send queue is full", discard=True, within=SLOW_CLOSE_TIMEOUT
        )

    def outbox_broken(self) -> None:
        """Sending failed, so the connection is gone; the carrier should hear of it soon, or is made to."""
        self._leave()
        self._takes_messages = False
        self._abort_in(SLOW_CLOSE_TIMEOUT)

    # --- shutting down

    def drain(self) -> None:
        """Handle what has arrived, nothing after it, then say goodbye (1001)."""
        self._draining = True
        if self._worker is None:
            self._go_away()
        else:
            self._takes_messages = False

    def hurry(self) -> None:
        """Say goodbye now, and cancel the handler that is still running."""
        self._go_away()
        if self._worker is not None:
            self._worker.cancel()

    def cut(self) -> None:
        """End at once, and let nothing that still runs take longer than it must."""
        self._is_hurried = True
        self.abort()

    def abort(self) -> None:
        """End at once, without a close frame if need be: the carrier is cancelled, or its end hurried."""
        if self._ending is not None:
            self._is_hurried = True
            if self._hurried is not None:
                self._hurried.set()
            if self._goodbye is not None:
                self._goodbye.reschedule(asyncio.get_running_loop().time())
        elif not self._is_done:
            self.is_aborted = True
            self._leave()
            self._takes_messages = False
            if self.outbox is not None:
                self.outbox.abort()
            if self._carrier is not None:
                self._carrier.cancel()

    def _go_away(self) -> None:
        self.disconnect(CloseCode.GOING_AWAY, "the server is shutting down")

    # --- inside

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in a worker that this session has meanwhile: up to its first wait at once."""
        workers = self._node.workers
        worker = self._worker = workers.take()
        try:
            rest = worker.step(work, self._context)
        except BaseException as error:
            worker.end()
            # Anything else was dealt with in there, and is not to reach the loop by way of who brought the message.
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            return
        if rest is None:
            workers.release(worker)
        else:
            # From now on the task is its own, and ends with it: what it left with others, they may cancel or await.
            worker.drive(rest)
            worker.end()

    async def _start(self) -> None:
        self._greeted = True
        try:
            went_well = await self._node.dispatcher.connect(self.client)
        except BaseException as error:
            self._worker_failed(error)
            raise
        if went_well:
            await self._work()
        else:
            self._worker = None
            self.disconnect(CloseCode.INTERNAL_ERROR, "the server failed to set up this connection")

    async def _work(self, payload: str | bytes | None = None) -> None:
        """Handle a message, and then what has come meanwhile."""
        dispatcher, client = self._node.dispatcher, self.client
        handled, turn = 0, 0.0
        try:
            while True:
                if payload is not None:
                    if isinstance(payload, str):
                        answer = await dispatcher.text(client, payload)
                    else:
                        answer = await dispatcher.binary(client, payload)
                    if answer is not None:
                        self.offer(answer)
                    handled += 1
                if not self._inbox:
                    break
                now = time.monotonic()
                turn = turn or now
                if handled % MESSAGES_PER_TURN == 0 or now - turn > SECONDS_PER_TURN:
                    await asyncio.sleep(0)
                    turn = time.monotonic()
                payload = self._next()
            self._worker = None
            self._all_handled()
        except BaseException as error:
            self._worker_failed(error)
            if not isinstance(error, Exception):
                raise

    def _all_handled(self) -> None:
        if self._draining:
            self._go_away()
        elif self._restarting is not None:
            self._restart()

    def _queue(self, payload: str | bytes, size: int) -> None:
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append(payload)
        self._inbox_bytes += size or 1  # so that empty messages are bounded too
        self.is_full = self._inbox_bytes > self._node.settings.read_buffer_size

    def _next(self) -> str | bytes | None:
        if not self._inbox:  # cleared while others had their turn
            return None
        payload = self._inbox.popleft()
        self._inbox_bytes -= _size(payload) or 1
        self._make_room()
        return payload

    def _refuse(self, payload: str | bytes, retry_after: float) -> None:
        """Answer a message that is over the rate limit, and close a client that goes on and on."""
        self._node.counters.rate_limited += 1
        self.offer(_rate_limit_exceeded(payload, retry_after))
        if self._refusals is None:
            self._refusals = RateLimiter(REFUSALS, REFUSALS_AT_ONCE, self._node.clock)
        if self._refusals.acquire():
            log.info("client closed for flooding", extra={"client_id": self.id})
            self.disconnect(CloseCode.POLICY_VIOLATION, "too many messages", discard=True, within=FLOOD_CLOSE_TIMEOUT)

    def _worker_failed(self, error: BaseException) -> None:
        # It is cancelled when the session ends. Cancelled before, by code that cancelled the task it found itself in,
        # there is no telling what has been left half done.
        self._worker = None
        if self._open and self._draining:
            self._go_away()
        elif self._open and self._ending is None:
            self._node.counters.errors += 1
            what = "was cancelled from outside" if isinstance(error, asyncio.CancelledError) else f"failed: {error!r}"
            log.error("the task that handles messages %s", what, extra={"client_id": self.id})
            self.disconnect(CloseCode.INTERNAL_ERROR, "the server failed to go on with this connection")

    def _leave(self) -> None:
        if self._open:
            self._open = False
            self._last_rooms = self._node.remove(self.id)

    def _clear_inbox(self) -> None:
        if self._inbox:
            self._inbox.clear()
            self._inbox_bytes = 0
            self._make_room()

    def _make_room(self) -> None:
        if self.is_full and self._inbox_bytes <= self._node.settings.read_buffer_size:
            self.is_full = False
            if self._room is not None:
                self._room.set()
            if self.on_room is not None:
                self.on_room()

    async def _end_worker(self) -> None:
        worker = self._worker
        if worker is None:
            return
        if not self._is_hurried:
            self._hurried = asyncio.Event()
            hurried = asyncio.create_task(self._hurried.wait())
            worker.end()
            await asyncio.wait([worker.task, hurried], timeout=HANDLER_GRACE, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
        if worker.task.done():
            return
        self._clear_inbox()
        worker.cancel()
        if not await worker.join(HURRIED_GRACE if self._is_hurried else CANCEL_GRACE):
            # It swallowed its cancellation. Its client must not wait for it; the node keeps it until it ends.
            log.error("a handler goes on after it was cancelled", extra={"client_id": self.id})
            self._node.stragglers.add(worker.task)
            worker.task.add_done_callback(self._node.stragglers.discard)

    async def _tell(self, hooks: Coroutine[Any, Any, None], kind: str) -> None:
        """Run hooks that a client's end has, for so long at most."""
        seconds = HURRIED_GRACE if self._is_hurried else max(self._node.settings.drain_timeout, CANCEL_GRACE)
        try:
            async with asyncio.timeout(seconds) as self._goodbye:
                await hooks
        except TimeoutError:
            error = TimeoutError(f"the {kind} hooks took more than {seconds:g} s and were cancelled")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HURRIED_GRACE):
                    await self._node.dispatcher.report(self.client, error)

    def _abort_in(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.abort)

    def _cancel_deadline(self) -> None:
        for timer in (self._deadline, self._patience):
            if timer is not None:
                timer.cancel()


def _size(payload: str | bytes) -> int:
    if isinstance(payload, bytes) or payload.isascii():
        return len(payload)
    return len(payload.encode())


def _rate_limit_exceeded(payload: str | bytes, retry_after: float) -> Frame:
    request_id = decode_id(payload) if isinstance(payload, str) else None
    data = {"message": "too many messages", "retry_after": math.ceil(retry_after * 1000) / 1000}
    return encode("rate_limit_exceeded", data, request_id)
