"""Inbox: what one client has sent, limited, queued, and handled in order. Knows no socket, and no end of a connection.

While a message is handled at once, without waiting for anything, there is neither a queue nor a task.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Coroutine
from threading import get_ident
from typing import Any

from velocity_ws.close import SETUP_FAILED
from velocity_ws.concurrency.portal import KERNEL_IS_ASKED
from velocity_ws.limits import RateLimiter
from velocity_ws.logs import get_logger
from velocity_ws.messages.events import PING
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.asks import Asks
from velocity_ws.sessions.buffer import size_of
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.concurrent import ConcurrentHandlers
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.inbound_limits import BILLED, InboundLimits
from velocity_ws.sessions.inbox_owner import InboxOwner
from velocity_ws.sessions.message_handling import ConcurrentCall
from velocity_ws.sessions.pacing import PACED
from velocity_ws.sessions.resume import First, Resume
from velocity_ws.sessions.working import Working

__all__ = ["Inbox"]

log = get_logger("velocity_ws.sessions")

PING_SIZE = 64
"""Bytes up to which a ``$ping`` is known as one before it is decoded; a longer one is answered when its turn comes."""
MESSAGES_PER_TURN = 16
"""Messages of one client handled before others get their turn of the event loop."""
SECONDS_PER_TURN = 0.01
"""The same in time, for messages that are expensive."""


NO_VARIABLES = contextvars.Context()
"""Those of an inbox that has not been opened, in which nothing runs."""


class Inbox(Working):
    """What a client has sent. On the broker's loop only.

    Attributes:
        asks: the questions that wait for an answer of the client; ``None`` where there are none.
        first: looks at the client's first message; ``None`` for most clients, and after it.
        is_taking: whether what arrives is handled.
    """

    __slots__ = (
        "_context", "_left", "_limiter", "_limits", "_owner", "_variables", "asks", "first", "is_taking",
    )  # fmt: skip

    def __init__(self, context: NodeContext[Any], owner: InboxOwner) -> None:
        super().__init__(context.settings.read_buffer_size)
        self.is_taking = False
        self._context = context
        self._owner = owner
        self._variables = NO_VARIABLES
        self._limiter: RateLimiter | None = None
        self._left = 0  # bytes that may come before the limits of bytes are looked at
        self._limits: InboundLimits | None = None  # as most clients never come near them
        self.asks: Asks | None = None
        self.first: First | None = None

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
            self._context.workers.run(self, self._greet(self._owner, greeting), self._variables)

    def feed(self, payload: str | bytes) -> bool:
        """Take one message that arrived. It is handled after those before it; whether there is no room for more."""
        size = size_of(payload)
        if (
            size <= PING_SIZE
            and isinstance(payload, str)
            and (PING in payload or "\\u00" in payload)  # as a letter of it may be spelled
            and self.is_taking
            and self._of_client().answers_ping(payload)
        ):
            return self.is_full
        counters = self._context.counters
        counters.messages_received += 1
        counters.bytes_received += size
        if self.asks is not None and self.asks.take(payload, size):
            return self.is_full
        if not self.is_taking:
            return False
        if self.first is not None and (resume := self.first.take(payload, size, self)) is not None:
            payload = resume
        elif size > self._left:
            # Within, it is neither longer than allowed nor paced. What is refused is not billed; what came before is.
            allowance = self._allowance
            if self._of_client().refuses(payload, size, allowance - self._left + size, self._limiter):
                return self.is_full
            self._left = allowance
        elif self._limiter is not None and (retry_after := self._limiter.acquire()):
            self._of_client().refuse(payload, size, retry_after)
            return self.is_full
        else:
            self._left -= size
        if self.worker is not None:
            self._put(payload, size)
        else:
            # What it raises was dealt with in there, and is not to reach the loop through the transport.
            if KERNEL_IS_ASKED:
                self._context.portal.thread = get_ident()
            try:
                self._context.workers.run(self, self._work(self._owner, payload, size), self._variables)
            finally:
                self._context.portal.thread = None
        return self.is_full

    def begin_asking(self) -> Asks:
        """Take answers from now on, as long as there are open questions.

        Until then one more message of any size may wait, and behind it the answer is read: else a handler that asks
        would wait for an answer that is not read before the handler has ended.
        """
        if self.asks is None:
            settings = self._context.settings
            self.asks = Asks(self._context.ask_times, settings.max_message_size, self._end_asking)
            self._set_bound(settings.read_buffer_size + settings.max_message_size)
        return self.asks

    def end_asks(self) -> None:
        """No question is answered any more: the client has gone, or will soon."""
        if self.asks is not None:
            self.asks.end()

    def _end_asking(self) -> None:
        self.asks = None
        self._set_bound(self._context.settings.read_buffer_size)

    # --- the end

    def stop(self, *, discard: bool, is_gone: bool = False) -> None:
        """Take no more; what waits is handled, or discarded.

        Args:
            discard: whether it is discarded.
            is_gone: whether the client has gone: then concurrent handlers are cancelled, and none begins any more.
        """
        self.is_taking = False
        if is_gone:
            self._cancel_concurrent()
        if discard and self._bytes:
            if self.concurrent is not None:
                self.concurrent.drop_waiting()
            self._discard()

    def cancel(self) -> None:
        """Cancel the handlers that are running."""
        if self.worker is not None:
            self.worker.cancel()
        self._cancel_concurrent()

    def detach(self) -> None:
        """Break the reference cycles with the session."""
        self.is_taking = False
        self.source = None
        self._limits = self.concurrent = self.asks = self.first = None
        del self._owner

    # --- inside

    async def _greet(self, owner: InboxOwner, greeting: Coroutine[Any, Any, bool]) -> None:
        try:
            went_well = await greeting
            if went_well and not self._queue:  # as nearly always
                self.worker = None
                owner.all_handled()
                return
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
        messages, client = self._context.messages, owner.client
        handled, turn = 0, 0.0
        try:
            while True:
                if payload is not None:
                    if size >= PACED and not (self._context.pace.take(size) or await self._turn(client, size)):
                        break
                    if isinstance(payload, str):
                        answer = await messages.text(client, payload)
                    else:
                        answer = await self._other(owner, client, payload)
                    if answer is not None:
                        if isinstance(answer, ConcurrentCall):
                            self._put_concurrent(answer, size)
                        else:
                            owner.offer(answer)
                    handled += 1
                if not self._queue:
                    break
                payload, size, turn = await self._next(handled, turn)
            self.worker = None
            owner.all_handled()
        except BaseException as error:
            self.worker = None
            owner.handling_failed(error)
            if not isinstance(error, Exception):
                raise

    async def _other(self, owner: InboxOwner, client: Client, payload: bytes) -> PreparedMessage | None:
        """Handle what is no text message of the application's; what is to be answered."""
        if isinstance(payload, Resume):
            return await self._context.resume(owner, payload)
        return await self._context.messages.binary(client, payload)

    async def _next(self, handled: int, turn: float) -> tuple[str | bytes | None, int, float]:
        """The next message, its size in bytes, and when the turn began in which it is handled.

        Args:
            handled: how many have been.
            turn: when this turn began; 0 before the first.
        """
        now = time.monotonic()
        turn = turn or now
        if handled % MESSAGES_PER_TURN == 0 or now - turn > SECONDS_PER_TURN:
            await asyncio.sleep(0)  # others have their turns, in which this may be discarded
            turn = time.monotonic()
        return *self._take(), turn

    def _put_concurrent(self, call: ConcurrentCall, size: int) -> None:
        if self._handlers().put(call, size):
            self._waits(size)

    def _cancel_concurrent(self) -> None:
        if self.concurrent is not None or self.worker is not None:
            self._handlers().cancel()

    def _handlers(self) -> ConcurrentHandlers:
        if self.concurrent is None:
            over = self._no_concurrent
            self.concurrent = ConcurrentHandlers(self._context, self._owner, self._waits_no_more, over)
        return self.concurrent

    def _no_concurrent(self, handlers: ConcurrentHandlers) -> None:
        """No concurrent handler is running any more."""
        if self.concurrent is handlers:  # else there are others by now, or the session has ended without it
            self.concurrent = None
            self._owner.all_handled()

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
        """Bytes of small messages that pass with a look at one limit; none where events have limits of their own."""
        return 0 if self._context.messages.has_limits else min(BILLED, self._context.settings.max_message_size)

    def _of_client(self) -> InboundLimits:
        if self._limits is None:
            self._limits = InboundLimits(self._context, self._owner)
        return self._limits
