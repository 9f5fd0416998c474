"""Session: one accepted connection from its first hook to its last. Knows no ASGI and no server.

A transport calls `open` with an `Outbox`, feeds the `inbox` with what arrives, and calls `finish`. The states of a
session, and what leads from one to the next, are in `state`.
"""

from __future__ import annotations

import asyncio

from starlette.requests import HTTPConnection

from velocity_ws.close import HANDLING_FAILED, TOO_SLOW, Close, CloseCode, Goodbye
from velocity_ws.concurrency.portal import end_now
from velocity_ws.delivery.outbox import Outbox
from velocity_ws.logs import get_logger, printable
from velocity_ws.sessions.addressable import NO_ROOMS, Addressable
from velocity_ws.sessions.client import Client, describe
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.ending import Ending
from velocity_ws.sessions.inbox import Inbox
from velocity_ws.sessions.state import OPEN, Closing, Handle, SessionState

__all__ = ["Session"]

log = get_logger("velocity_ws.sessions")

CLOSE_TIMEOUT = 10.0
"""Seconds that what is queued and the close frame may take to get through before the connection is aborted."""
SLOW_CLOSE_TIMEOUT = 5.0
"""The same for a client that was too slow already."""


class Session(Addressable):
    """One connection's state; also the `ClientSession` behind its `Client`. On the broker's loop only.

    What an idle connection does not need is not here until it is needed: there are many more idle ones than others.

    Attributes:
        end_task: runs its last hooks; ``None`` until it ends.
        is_aborted: whether `abort` has cancelled the task of the transport.
    """

    __slots__ = (
        "_closed_by_us", "_closing", "_deadline", "_ending", "_is_hurried", "_patience", "_transport_task", "end_task",
        "is_aborted",
    )  # fmt: skip

    def __init__(self, context: NodeContext[Session], request: HTTPConnection) -> None:
        super().__init__(context, Client(request, context.portal, self, context.node_id))
        self.inbox = Inbox(context, self)
        self.end_task: asyncio.Task[None] | None = None
        self.is_aborted = False
        self._transport_task: asyncio.Task[object] | None = None
        self._closing: Closing | None = None
        self._closed_by_us: Close | None = None
        self._patience: asyncio.TimerHandle | None = None  # until the goodbye is said
        self._deadline: asyncio.TimerHandle | None = None  # until it has to have been heard
        self._ending: Ending | None = None
        self._is_hurried = False

    # --- what the transport calls

    def open(self, outbox: Outbox) -> None:
        """Begin: the client is in the hub from now on, and its ``on_connect`` hooks run.

        Called in the task that serves the transport; `abort` cancels that task.
        """
        context = self._context
        self.outbox = outbox
        self._transport_task = asyncio.current_task()
        self.state = OPEN
        context.let_in(self)
        greeting = context.dispatcher.connect(self.client) if context.dispatcher.has("connect") else None
        greeting = greeting if context.welcome is None else context.welcome(self, greeting)
        greeting = greeting if self.client._login is None else context.logins.welcome(self, greeting)
        self.inbox.open(greeting)

    def finish_now(self, close: Close) -> bool:
        """End the session if there is nothing to wait for; otherwise await `finish`.

        Returns:
            Whether it has ended.
        """
        was_told = self.state is not SessionState.NEW and self._context.dispatcher.has("disconnect")
        if was_told or not (self.moves is None or self.moves.is_over):
            return False
        if not self.inbox.is_idle or self.outbox is None or not self.outbox.has_ended:
            return False
        self._cancel_timers()
        self._leave()
        self.outbox.abort()
        self._end(close)
        return True

    async def finish(self, close: Close) -> None:
        """Run the ``on_disconnect`` hooks and end the session. Called once, when the connection is over on either side.

        Cancelling this does not cancel the end, which has a task of its own.

        Args:
            close: how the connection ended, unless this side closed it.
        """
        self._ending = Ending(self._context, self.client, is_hurried=self._is_hurried)
        self.end_task = asyncio.create_task(self._finish(self._ending, close))
        await asyncio.shield(self.end_task)

    async def _finish(self, ending: Ending, close: Close) -> None:
        try:
            self._cancel_timers()
            if self._closed_by_us is not None:
                close = self._closed_by_us
            elif close.by == "server" and close.code == CloseCode.SERVICE_RESTART:
                # A server of another kind is stopping, and the broker is told of that when its connections are over.
                self._abort_in(self._context.settings.drain_timeout)
            was_open = self.state is not SessionState.NEW
            self._leave()
            self.inbox.stop(discard=self.is_dismissed, is_gone=True)
            if self.outbox is not None:
                self.outbox.abort()
            await ending.finish_handling(self.inbox, self.moves)
            if was_open:
                await ending.tell(close)
            if self.outbox is not None:
                await self.outbox.wait_ended()
        finally:
            self._cancel_timers()
            log.debug("client disconnected", extra={"client_id": self.id, "code": close.code, "by": close.by})
            self._end(close)

    def _end(self, close: Close) -> None:
        ours = self._closed_by_us or (close if close.by == "server" else None)
        if ours is not None and ours.code == CloseCode.MESSAGE_TOO_BIG:
            self._context.hints.too_big(self.id)
        self._last_rooms = NO_ROOMS
        self.detach()
        self._context.forget(self)

    def detach(self) -> None:
        """End, and break the reference cycles, so that all of it is freed without the garbage collector.

        Called at the end, or if the client was not accepted.
        """
        self.state = SessionState.ENDED
        self.inbox.detach()
        self.outbox = self._transport_task = None
        self.client.detach(self._context.gone)

    # --- the end in order

    def close(
        self,
        goodbye: Goodbye,
        *,
        handle: Handle = "current",
        patience: float | None = None,
        discard: bool = False,
        within: float | None = None,
    ) -> None:
        """Close the connection in order: handle what is to be handled, send what is queued, and say goodbye.

        With the goodbye, the client is out of every room. It is said at once where ``handle`` is ``nothing`` or
        ``current``, or nothing is being handled; else when all is handled, or at the end of the patience.

        If several closes wait, the end of the patience says the goodbye of the close that set it, and the end of
        handling that of the close that handles least; only the first is said. A later close may let less be handled,
        never more.

        Args:
            goodbye: the code and the reason of the close frame.
            handle: what of the client's messages is still handled.
            patience: seconds that handling may take before the goodbye is said; ``None`` for as long as it takes.
                If several closes have one, the first counts.
            discard: whether what is queued for the client is dropped.
            within: seconds after the goodbye in which the connection has to end, or it is aborted; by default
                `CLOSE_TIMEOUT`, but with ``all`` the caller sees to that.
        """
        closing = Closing(goodbye, handle, discard, CLOSE_TIMEOUT if within is None else within)
        if self._closing is None or closing.handles_less_than(self._closing):
            self._closing = closing
        if handle == "all" and self.state is OPEN:  # which only a server that is stopping asks for
            self._context.stop_soon()
        if self.state is OPEN and (handle in ("nothing", "current") or self.inbox.is_idle):
            self._say_goodbye(closing)
        else:
            self._handle_less(self._closing)
            if self.state is OPEN and patience is not None and self._patience is None:
                self._patience = asyncio.get_running_loop().call_later(patience, self._say_goodbye, closing)
        if handle == "nothing":
            self.inbox.cancel()

    def _handle_less(self, closing: Closing) -> None:
        """Handle no more than a close lets be handled."""
        if closing.handle != "all" and (self.inbox.is_taking or self._closed_by_us is not None):
            self.inbox.stop(discard=closing.handle != "arrived")

    def _say_goodbye(self, closing: Closing) -> None:
        if self.state is not OPEN or self._closing is None or self.outbox is None:
            return
        (code, reason), handle, discard, within = closing
        self._closed_by_us = Close(code, reason, "server")
        self._leave()
        self._handle_less(self._closing)
        self.outbox.close(code, reason, discard=discard)
        if handle != "all":
            self._abort_in(within)

    @property
    def is_dismissed(self) -> bool:
        """Whether this side has closed it, so that nothing more of it is handled."""
        if self._closing is None or self._closed_by_us is None or self.inbox.is_taking:
            return False
        return self._closing.handle in ("nothing", "current") or self.inbox.is_idle

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        """Whether a task is one that runs this session's hooks."""
        moves = self.moves
        if task is None or (moves is not None and moves.runs(task)):
            return task is not None
        return task in (self._transport_task, self.end_task) or self.inbox.runs(task)

    # --- what the outbox tells

    def outbox_full(self) -> None:
        """The client is too slow."""
        self._context.hints.slow_client(self.id)
        self.close(TOO_SLOW, discard=True, within=SLOW_CLOSE_TIMEOUT)

    def outbox_dropped(self) -> None:
        """The client is too slow, and misses something."""
        self._context.hints.slow_client(self.id)

    def outbox_broken(self) -> None:
        """Sending failed, so the connection is gone; the transport should end soon, or is aborted."""
        self._leave()
        self.inbox.stop(discard=False, is_gone=True)
        self._abort_in(SLOW_CLOSE_TIMEOUT)

    # --- what the inbox tells

    def all_handled(self) -> None:
        """Nothing is being handled any more, or only what others do not wait for."""
        if self._closing is not None and self.inbox.is_idle:
            self._say_goodbye(self._closing)

    def handling_failed(self, error: BaseException) -> None:
        """Nothing more will be handled."""
        # It is cancelled when the session ends. Cancelled before, by code that cancelled the task it found itself in,
        # there is no telling what has been left half done. What waits behind it is not handled either.
        self.inbox.stop(discard=True)
        if self._closing is not None and self._closing.handle in ("nothing", "arrived"):
            self._say_goodbye(self._closing)
        elif self._ending is None:
            self._context.counters.errors += 1
            is_cancelled = isinstance(error, asyncio.CancelledError)
            what = "was cancelled from outside" if is_cancelled else f"failed: {printable(repr(error))}"
            log.error("the task that handles messages %s (%s)", what, describe(self.client))
            self.close(HANDLING_FAILED)

    # --- the end

    def abort(self, *, hurry: bool = False) -> None:
        """End now, without a close frame if need be: the transport is cancelled, or the end that has begun is hurried.

        Args:
            hurry: whether an end that has not begun is hurried, too.
        """
        self._is_hurried = self._is_hurried or hurry
        if self._ending is not None:
            self._ending.hurry()
        elif self.state is not SessionState.ENDED:
            self.is_aborted = True
            self._leave()
            self.inbox.stop(discard=False, is_gone=True)
            if self.outbox is not None:
                self.outbox.abort()
            if self._transport_task is not None:
                self._transport_task.cancel()

    # --- inside

    def _leave(self) -> None:
        if self.state is OPEN:
            self.state = SessionState.CLOSING
            self._last_rooms = self._context.remove(self.id)
            self.inbox.end_asks()
            if self.client._login is not None:
                self._context.logins.forget(self)
            if self.asking is not None:
                end_now(self.asking)

    def _abort_in(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.abort)

    def _cancel_timers(self) -> None:
        for timer in (self._deadline, self._patience):
            if timer is not None:
                timer.cancel()
        self._deadline = self._patience = None
