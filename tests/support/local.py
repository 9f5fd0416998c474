"""A transport that is no WebSocket and needs no server: a client of this process, with a queue in each direction."""

from __future__ import annotations

import asyncio
from collections import deque

from velocity_ws.close import Close
from velocity_ws.delivery.bounded_outbox import BoundedOutbox
from velocity_ws.delivery.outbox import State
from velocity_ws.errors import Reject
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.session import Session
from velocity_ws.sessions.transport import RawHeaders
from velocity_ws.settings import Settings


class LocalTransport(BoundedOutbox):
    """The transport, and its own outbox: what waits in it is what the client has not taken yet."""

    accepted_at: float | None = None
    accepts_at_once = True
    trusts_everyone = False
    has_ended = True

    queue: deque[PreparedMessage]

    def __init__(self) -> None:
        self.answer: asyncio.Future[Reject | None] = asyncio.get_running_loop().create_future()
        self.up: asyncio.Queue[str | Close] = asyncio.Queue(8)
        self.changed = asyncio.Event()

    # --- as a session has it

    def configure(self, settings: Settings) -> None: ...

    async def begin(self) -> None: ...

    async def accept(self, subprotocol: str | None, headers: RawHeaders) -> None:
        self.answer.set_result(None)

    async def refuse(self, reject: Reject, subprotocol: str | None) -> None:
        self.answer.set_result(reject)

    def open(self, session: Session, context: NodeContext[Session]) -> LocalTransport:
        limit, drop = context.settings.send_queue_size, context.settings.slow_client == "drop"
        super().__init__(deque(), session, context.counters, limit=limit, drop=drop)
        self.session = session
        return self

    async def wait_closed(self) -> Close:
        while not isinstance(message := await self.up.get(), Close):
            if self.session.inbox.feed(message):
                await self.session.inbox.room()
        return message

    # --- as its outbox

    def offer(self, message: PreparedMessage) -> bool:
        if self._state is not State.OPEN:
            self._counters.dropped += 1
        elif self.queue and self.queued_bytes + message.cost > self._limit:
            self._refuse(message)
        else:
            if self._missed:
                self._append_gaps()
            self._append(message)
            self.changed.set()
            return True
        return False

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        if self._state is State.OPEN:
            self._state, self._goodbye = State.CLOSING, (code, reason)
            self._turn_away()
            if discard:
                self._discard()
            self.changed.set()

    def abort(self) -> None:
        self._state = State.OVER
        self._discard()
        self.changed.set()

    async def wait_ended(self) -> None: ...

    async def ping(self) -> float | None:
        return None

    @property
    def _is_free(self) -> bool:
        return not self.queue and self._state is State.OPEN

    # --- as its client has it

    async def take(self) -> str | bytes | Close:
        """The next message, or how it ended."""
        while not self.queue and not self._missed and self._state is State.OPEN:
            self.changed.clear()
            await self.changed.wait()
        if not self.queue and self._missed:
            self._append_gaps()
        if self.queue:
            message = self.queue.popleft()
            self.queued_bytes -= message.cost
            self._counters.messages_sent += 1
            self._counters.bytes_sent += message.size
            if not self.queue and (turn := self._next_waiter()) is not None:
                turn[0].set_result(turn[1] is None or self.offer(turn[1]))
            return message.text if message.is_text else message.payload
        close = Close(*self._goodbye, "server") if self._state is State.CLOSING else Close(1006, "", "network")
        self.hang_up(close)
        return close

    def hang_up(self, close: Close) -> None:
        """End the connection; what the client has sent and nobody has taken is lost."""
        while self.up.full():
            self.up.get_nowait()
        self.up.put_nowait(close)
