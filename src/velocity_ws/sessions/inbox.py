"""Inbox: what one client has sent, limited, queued, and handled in order. Knows no socket, and no end of a connection.

While a message is handled at once, without waiting for anything, there is neither a queue nor a task.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from velocity_ws.close import SETUP_FAILED, TOO_BIG
from velocity_ws.concurrency.eager import EagerTask
from velocity_ws.limits import RateLimiter
from velocity_ws.logs import get_logger
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.inbox_owner import InboxOwner
from velocity_ws.sessions.pacing import PACED
from velocity_ws.sessions.refused import RefusedMessages

__all__ = ["Inbox"]

log = get_logger("velocity_ws.sessions")

MESSAGES_PER_TURN = 16
"""Messages of one client handled before others get their turn of the event loop."""
SECONDS_PER_TURN = 0.01
"""The same in time, for messages that are expensive."""
BILLED = 4096
"""Bytes of messages that are counted together against the limit in bytes; less than what is paced."""
SECONDS_AT_ONCE = 4
"""Seconds' worth of the limit in bytes that may come at once."""


class Inbox:
    """What a client has sent. On the broker's loop only.

    Attributes:
        is_taking: whether what arrives is handled.
        is_full: whether so much waits that the transport should stop reading until `on_room`, or `room`.
        on_room: called when there is room again.
        worker: handles what was sent; ``None`` while nothing is being handled.
    """

    __slots__ = (
        "_byte_limiter", "_bytes", "_context", "_left", "_limiter", "_owner", "_queue", "_refusals", "_room",
        "_variables", "is_full", "is_taking", "on_room", "worker",
    )  # fmt: skip

    def __init__(self, context: NodeContext[Any], owner: InboxOwner) -> None:
        self.is_taking = False
        self.is_full = False
        self.on_room: Callable[[], None] | None = None
        self._context = context
        self._owner = owner
        self._variables: contextvars.Context | None = None
        self._limiter: RateLimiter | None = None
        self._byte_limiter: RateLimiter | None = None
        self._left = 0  # bytes that may come before the limits of bytes are looked at
        self._refusals: RefusedMessages | None = None
        self._queue: deque[str | bytes] | None = None  # as most clients never need one
        self._bytes = 0
        self._room: asyncio.Event | None = None
        self.worker: EagerTask | None = None

    def open(self, greeting: Coroutine[Any, Any, bool] | None) -> None:
        """Take messages from now on, in the context of the caller.

        Args:
            greeting: the hooks to run before anything is handled, which tell whether it went well.
        """
        settings = self._context.settings
        if settings.rate_limit:
            self._limiter = RateLimiter(settings.rate_limit, settings.rate_burst, self._context.clock)
        self._variables = contextvars.copy_context()
        self._left = self._allowance
        self.is_taking = True
        if greeting is not None:
            self._run(self._greet(self._owner, greeting))

    def feed(self, payload: str | bytes) -> bool:
        """Take one message that arrived. It is handled after those before it; whether there is no room for more."""
        size = _size(payload)
        counters = self._context.counters
        counters.messages_received += 1
        counters.bytes_received += size
        if not self.is_taking:
            return False
        owner = self._owner
        if size > self._left:
            if self._is_too_much(owner, payload, size):
                return self.is_full
        elif self._limiter is not None and (retry_after := self._limiter.acquire()):
            self._refuse(payload, size, retry_after, "too many messages")
            return self.is_full
        else:
            self._left -= size
        if self.worker is not None:
            self._put(payload, size)
        else:
            self._run(self._work(owner, payload, size))
        return self.is_full

    def _is_too_much(self, owner: InboxOwner, payload: str | bytes, size: int) -> bool:
        """Look at every limit, which `feed` does not for what is small; whether the message was over one, and refused.

        Nothing that is over one is small: a message within `_left` is within the longest allowed and is not paced.
        """
        if size > self._context.settings.max_message_size:
            owner.close(TOO_BIG)
        elif self._limiter is not None and (retry_after := self._limiter.acquire()):
            self._refuse(payload, size, retry_after, "too many messages")
        elif retry_after := self._bill(size):
            self._refuse(payload, size, retry_after, "too many bytes")
        elif size >= PACED and not self._context.pace.has_room(size):
            self._refuse(payload, size, 1.0, "too many large messages at once, of all clients")
        else:
            return False
        return True

    async def room(self) -> None:
        """Wait until there is room for more messages."""
        self._room = self._room or asyncio.Event()
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    # --- the end

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being handled."""
        return self.worker is None

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        """Whether that task handles these messages now."""
        return self.worker is not None and self.worker.task is task

    def stop(self, *, discard: bool) -> None:
        """Take no more; what waits is handled, or discarded."""
        self.is_taking = False
        if discard and self._queue:
            self._queue.clear()
            self._bytes = 0
            self._make_room()

    def cancel(self) -> None:
        """Cancel the handler that is running."""
        if self.worker is not None:
            self.worker.cancel()

    def detach(self) -> None:
        """Break the reference cycles with the session."""
        self.is_taking = False
        self.on_room = None
        self._refusals = None
        del self._owner

    # --- inside

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in a worker that this has meanwhile: up to its first wait at once."""
        workers = self._context.workers
        worker = self.worker = workers.take()
        try:
            rest = worker.step(work, self._variables)
        except BaseException as error:
            worker.end()
            # Anything else was dealt with in there, and is not to reach the loop through the transport.
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            return
        if rest is None:
            workers.give_back(worker)
        else:
            # From now on the task is its own, and ends with it: what it left with others, they may cancel or await.
            worker.drive(rest)
            worker.end()

    async def _greet(self, owner: InboxOwner, greeting: Coroutine[Any, Any, bool]) -> None:
        try:
            went_well = await greeting
        except BaseException as error:
            self.worker = None
            owner.handling_failed(error)
            raise
        if went_well:
            await self._work(owner)
        else:
            self.worker = None
            owner.close(SETUP_FAILED)

    async def _work(self, owner: InboxOwner, payload: str | bytes | None = None, size: int = 0) -> None:
        """Handle a message, and then what has come meanwhile."""
        dispatcher, client = self._context.dispatcher, owner.client
        handled, turn = 0, 0.0
        try:
            while True:
                if payload is not None:
                    if size >= PACED and not (self._context.pace.take(size) or await self._turn(client, size)):
                        break
                    if isinstance(payload, str):
                        answer = await dispatcher.text(client, payload)
                    else:
                        answer = await dispatcher.binary(client, payload)
                    if answer is not None:
                        owner.offer(answer)
                    handled += 1
                if not self._queue:
                    break
                now = time.monotonic()
                turn = turn or now
                if handled % MESSAGES_PER_TURN == 0 or now - turn > SECONDS_PER_TURN:
                    await asyncio.sleep(0)
                    turn = time.monotonic()
                payload, size = self._next()
            self.worker = None
            owner.all_handled()
        except BaseException as error:
            self.worker = None
            owner.handling_failed(error)
            if not isinstance(error, Exception):
                raise

    def _put(self, payload: str | bytes, size: int) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(payload)
        self._bytes += size or 1  # so that empty messages are bounded too
        self.is_full = self.is_full or self._bytes > self._context.settings.read_buffer_size

    async def _turn(self, client: Client, size: int) -> bool:
        """Wait for the turn of a large message, and take no more meanwhile; whether it is still to be handled."""
        self.is_full = True
        try:
            await self._context.pace.turn(size)
        finally:
            self._make_room()
        return not client.is_dismissed

    @property
    def _allowance(self) -> int:
        return min(BILLED, self._context.settings.max_message_size)

    def _bill(self, size: int) -> float:
        """Count what has come against the limit in bytes; 0 where it is within, else the seconds until it would be."""
        settings, allowance = self._context.settings, self._allowance
        if self._byte_limiter is None and settings.rate_bytes:
            burst = max(SECONDS_AT_ONCE * settings.rate_bytes, settings.max_message_size + BILLED)
            self._byte_limiter = RateLimiter(settings.rate_bytes, burst, self._context.clock)
        # What is refused is not counted; what came before it still is.
        retry_after = 0.0 if self._byte_limiter is None else self._byte_limiter.acquire(allowance - self._left + size)
        if not retry_after:
            self._left = allowance
        return retry_after

    def _next(self) -> tuple[str | bytes | None, int]:
        """What waits longest, and its size in bytes; ``None`` where nothing does."""
        if not self._queue:  # cleared while others had their turn
            return None, 0
        payload = self._queue.popleft()
        size = _size(payload)
        self._bytes -= size or 1
        self._make_room()
        return payload, size

    def _make_room(self) -> None:
        if self.is_full and self._bytes <= self._context.settings.read_buffer_size:
            self.is_full = False
            if self._room is not None:
                self._room.set()
            if self.on_room is not None:
                self.on_room()

    def _refuse(self, payload: str | bytes, size: int, retry_after: float, why: str) -> None:
        if self._refusals is None:
            self._refusals = RefusedMessages(self._context, self._owner)
        self._refusals.refuse(payload, size, retry_after, why)


def _size(payload: str | bytes) -> int:
    if isinstance(payload, bytes) or payload.isascii():
        return len(payload)
    return len(payload.encode())
