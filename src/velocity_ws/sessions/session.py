"""Session: one accepted connection from its first hook to its last. Knows no ASGI and no server.

Whatever carries the connection calls `open`, feeds its `inbox` with what arrives, and calls `finish`; it hands in an
`Outbox` to send.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from starlette.requests import HTTPConnection

from velocity_ws.close import HANDLING_FAILED, SHUTTING_DOWN, TOO_SLOW, Close, CloseCode
from velocity_ws.concurrency.portal import end_now
from velocity_ws.delivery.outbox import Outbox
from velocity_ws.logs import get_logger, printable
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.client import Client, describe
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.inbox import CANCEL_GRACE, HANDLER_GRACE, HURRIED_GRACE, Inbox
from velocity_ws.sessions.moves import Moves

__all__ = ["Session"]

log = get_logger("velocity_ws.session")

CLOSE_TIMEOUT = 10.0
"""Seconds that what is queued and the close frame may take to get through before the connection is aborted."""
SLOW_CLOSE_TIMEOUT = 5.0
"""The same for a client that was too slow already."""
LAST_GRACE = 0.05
"""Seconds that ``on_error`` hooks have for what hooks of an end did not finish in time, when there is none left."""


class Session:
    """One connection's state. Used on the broker's loop only; also the `ClientSession` behind its `Client`.

    What an idle connection does not need is not here until it is needed: there are many more idle ones than others.

    Attributes:
        client: what the application sees of it.
        id: the client's.
        inbox: what the client has sent.
        outbox: where messages to the client go; ``None`` before `open`.
        moves: what the hooks are told of the rooms it joins and leaves; ``None`` until there is something to tell.
        is_aborted: whether `abort` has cancelled the carrier.
    """

    def __init__(self, context: NodeContext[Session], request: HTTPConnection) -> None:
        self._context = context
        self.client = Client(request, context.portal, self, context.node_id)
        self.id = self.client.id
        self.inbox = Inbox(context, self)
        self.outbox: Outbox | None = None
        self.is_aborted = False
        self._carrier: asyncio.Task[object] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._open = False
        self._draining = False
        self._greeted = False
        self._is_done = False
        self._last_rooms: frozenset[str] = frozenset()
        self.moves: Moves | None = None
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
        context = self._context
        self.outbox = outbox
        self._carrier = asyncio.current_task()
        self._open = self._greeted = True
        context.let_in(self)
        self.inbox.open(context.dispatcher.connect(self.client) if context.dispatcher.has("connect") else None)

    def finish_now(self, close: Close) -> bool:
        """End, where there is nothing to wait for; whether that was so. Else await `finish`."""
        dispatcher = self._context.dispatcher
        told = (self._greeted and dispatcher.has("disconnect")) or not (self.moves is None or self.moves.is_over)
        if not self.inbox.is_idle or told or self.outbox is None or not self.outbox.has_ended:
            return False
        self._cancel_deadline()
        self._leave()
        self.outbox.abort()
        self._end(close)
        return True

    async def finish(self, close: Close) -> None:
        """End: called once, when the connection is over, from either side. Runs the ``on_disconnect`` hooks.

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
            elif close.by == "server" and close.code == CloseCode.SERVICE_RESTART:
                # A server of another kind is stopping, and the broker is told of that when its connections are over.
                self._abort_in(self._context.settings.drain_timeout)
            self._leave()
            self.inbox.stop(discard=self.is_dismissed)
            if self.outbox is not None:
                self.outbox.abort()
            self._hurried = asyncio.Event()
            if self._is_hurried:
                self._hurried.set()
            began = asyncio.get_running_loop().time()
            await self.inbox.end(self._hurried)
            if self.moves is not None:
                left = began + HANDLER_GRACE - asyncio.get_running_loop().time()
                await self.moves.end(left, HURRIED_GRACE if self._hurried.is_set() else CANCEL_GRACE, self._hurried)
                if not self.moves.is_over:
                    await self._tell(
                        self.moves.leave_all(LAST_GRACE if self._is_hurried else HURRIED_GRACE), "on_leave"
                    )
            if self._greeted:
                await self._tell(self._context.dispatcher.disconnect(self.client, close), "on_disconnect")
            if self.outbox is not None:
                await self.outbox.wait_ended()
        finally:
            self._cancel_deadline()
            log.debug("client disconnected", extra={"client_id": self.id, "code": close.code, "by": close.by})
            self._end(close)

    def _end(self, close: Close) -> None:
        ours = self._closed_by_us or (close.by == "server" and (close.code, close.reason))
        if ours and ours[0] == CloseCode.MESSAGE_TOO_BIG:
            self._context.hints.too_big(self.id)
        self._last_rooms = frozenset()
        self._is_done = True
        self.release()
        self._context.forget(self)

    @property
    def ending(self) -> asyncio.Task[None] | None:
        """What runs its last hooks, once it ends."""
        return self._ending

    def release(self) -> None:
        """Let go of what refers back here, at the end or where it never began: all of it is freed at once, and not when
        the garbage collector comes."""
        self.inbox.release()
        self.outbox = self._carrier = None
        self.client.detach(self._context.gone)

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
            return self._context.hub.rooms_of(self.id)
        return self._last_rooms

    def joined(self, room: str) -> asyncio.Future[None] | None:
        """It came into a room, which the hooks are told where there are some; what is done then."""
        dispatcher = self._context.dispatcher
        if not (dispatcher.has("join") or dispatcher.has("leave")):
            return None
        if self.moves is None:
            self.moves = Moves(self._context, self.client)
        return self.moves.joined(room)

    def left(self, room: str) -> asyncio.Future[None] | None:
        """It left a room, which the hooks are told where they are told that it came; what is done then."""
        return None if self.moves is None else self.moves.left(room)

    async def report(self, error: Exception) -> None:
        """Log and count a failure that no hook of the client's is to blame for, and show it to ``on_error``."""
        await self._context.dispatcher.report(self.client, error)

    def offer(self, frame: PreparedMessage) -> bool:
        """Queue a message; false, and counted, where the client is gone or too slow."""
        outbox = self.outbox
        if outbox is None or not self._open:
            self._context.counters.dropped += 1
            return False
        if frame.size > self._context.warn_size:
            self._context.hints.large(frame)
        return outbox.offer(frame)

    async def put(self, frame: PreparedMessage | None, seconds: float) -> bool:
        """Queue a message once nothing else waits for the client, or only wait; false, and counted, where it has gone.

        Raises:
            TimeoutError: it took too long.
        """
        if not self._open or self.outbox is None:
            self._context.counters.dropped += frame is not None
            return False
        if frame is not None and frame.size > self._context.warn_size:
            self._context.hints.large(frame)
        return await self.outbox.put(frame, seconds)

    def disconnect(self, code: int, reason: str, *, discard: bool = False, within: float | None = None) -> None:
        """Close after everything queued; nothing more is handled, and it is out of every room at once."""
        if not self._open or self.outbox is None:
            if self.inbox.is_taking:  # `restart` has closed it already, and this says to handle nothing more
                self.inbox.stop(discard=True)
            return
        self._closed_by_us = (code, reason)
        self._leave()
        self.inbox.stop(discard=True)
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
            self._context.leave_soon()
            if self.inbox.is_idle:
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
        return self._closed_by_us is not None and not self.inbox.is_taking

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        """Whether a task is one that runs this session's hooks."""
        moves = self.moves
        if task is None or (moves is not None and moves.runs(task)):
            return task is not None
        return task in (self._carrier, self._ending) or self.inbox.runs(task)

    async def ping(self) -> float | None:
        """Round trip of a ping in seconds; ``None`` where the server offers no pings."""
        return None if self.outbox is None else await self.outbox.ping()

    async def set_user(self, user: Any) -> None:
        """Make the client another user's, or nobody's."""
        await self._context.set_user(self, user)

    # --- what the outbox tells

    def outbox_full(self) -> None:
        """The client is too slow."""
        self._context.hints.slow_client(self.id)
        self.disconnect(*TOO_SLOW, discard=True, within=SLOW_CLOSE_TIMEOUT)

    def outbox_dropped(self) -> None:
        """The client is too slow, and misses something."""
        self._context.hints.slow_client(self.id)

    def outbox_broken(self) -> None:
        """Sending failed, so the connection is gone; the carrier should hear of it soon, or is made to."""
        self._leave()
        self.inbox.stop(discard=False)
        self._abort_in(SLOW_CLOSE_TIMEOUT)

    # --- what the inbox tells

    def all_handled(self) -> None:
        """Nothing is being handled any more."""
        if self._draining:
            self._go_away()
        elif self._restarting is not None:
            self._restart()

    def handling_failed(self, error: BaseException) -> None:
        """Nothing more will be handled."""
        # It is cancelled when the session ends. Cancelled before, by code that cancelled the task it found itself in,
        # there is no telling what has been left half done. What waits behind it is not handled either.
        self.inbox.stop(discard=True)
        if self._draining:
            self._go_away()
        elif self._ending is None:
            self._context.counters.errors += 1
            what = (
                "was cancelled from outside"
                if isinstance(error, asyncio.CancelledError)
                else f"failed: {printable(repr(error))}"
            )
            log.error("the task that handles messages %s (%s)", what, describe(self.client))
            self.disconnect(*HANDLING_FAILED)

    # --- shutting down

    def drain(self) -> None:
        """Handle what has arrived, nothing after it, then say goodbye (1001)."""
        self._draining = True
        if self.inbox.is_idle:
            self._go_away()
        else:
            self.inbox.stop(discard=False)

    def hurry(self) -> None:
        """Say goodbye now, and cancel the handler that is still running."""
        self._draining = True  # also where it came too late for `drain`
        self._go_away()
        self.inbox.cancel()

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
                end_now(self._goodbye)
        elif not self._is_done:
            self.is_aborted = True
            self._leave()
            self.inbox.stop(discard=False)
            if self.outbox is not None:
                self.outbox.abort()
            if self._carrier is not None:
                self._carrier.cancel()

    def _go_away(self) -> None:
        self.disconnect(*SHUTTING_DOWN)

    # --- inside

    def _leave(self) -> None:
        if self._open:
            self._open = False
            self._last_rooms = self._context.remove(self.id)

    async def _tell(self, hooks: Coroutine[Any, Any, None], kind: str) -> None:
        """Run hooks that a client's end has, for so long at most."""
        seconds = HURRIED_GRACE if self._is_hurried else max(self._context.settings.drain_timeout, CANCEL_GRACE)
        try:
            async with asyncio.timeout(seconds) as self._goodbye:
                await hooks
        except TimeoutError:
            error = TimeoutError(f"the {kind} hooks took more than {seconds:g} s and were cancelled")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_GRACE if self._is_hurried else HURRIED_GRACE):
                    await self._context.dispatcher.report(self.client, error)

    def _abort_in(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.abort)

    def _cancel_deadline(self) -> None:
        for timer in (self._deadline, self._patience):
            if timer is not None:
                timer.cancel()
        self._deadline = self._patience = None
