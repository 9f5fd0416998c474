"""Dispatcher: calls hooks for what a client does, in order, plain ones in threads; answers, and contains exceptions.

Knows hooks and clients; knows no queue, no task and no socket.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable
from typing import Any, Literal

from velocity_ws.close import Close
from velocity_ws.concurrency.threads import Threads
from velocity_ws.errors import ClientError, ClientGone, ClientNotFound, ClientTimeout, Reject
from velocity_ws.hooks.binding import Kind
from velocity_ws.hooks.registry import Hook, Hooks, InvalidDataError
from velocity_ws.logs import get_logger, quote
from velocity_ws.messages.events import REPLY, encode_error
from velocity_ws.messages.inbound import Malformed, decode
from velocity_ws.messages.outbound import PreparedMessage, encode
from velocity_ws.sessions.client import Client, describe
from velocity_ws.sessions.hints import Hints
from velocity_ws.stats import Counters

__all__ = ["Dispatcher"]

log = get_logger("velocity_ws.sessions")

MAX_THREADS = 256
"""Plain hooks of clients running at once, those aside that take longer than `PATIENCE`."""
MAX_STRANGER_THREADS = 64
"""The same for handshakes, whose hooks have threads of their own, so that strangers take none from clients."""
SPARE = 3
"""Threads, as a multiple of these, that are started in place of slow ones: hooks that hang are not to stall others."""
PATIENCE = 1.0
"""Seconds."""

RequestId = int | str | None


class Dispatcher:
    """Calls the hooks. On the broker's loop only.

    Its methods raise nothing that the application raised, except where they say so.
    """

    def __init__(self, hooks: Hooks, counters: Counters, hints: Hints) -> None:
        self._hooks = hooks
        self._counters = counters
        self._hints = hints
        self._threads: Threads | None = None
        self._stranger_threads: Threads | None = None

    def stop(self) -> None:
        """Let the threads go; they come back when they are needed."""
        for threads in (self._threads, self._stranger_threads):
            if threads is not None:
                threads.shutdown(wait=False, cancel_futures=True)
        self._threads = self._stranger_threads = None

    def has(self, kind: Kind) -> bool:
        """Whether there is a hook of that kind."""
        return bool(self._hooks.of(kind))

    async def authenticate(self, client: Client) -> Any:
        """What the hooks say the user is: the last result that is not ``None``.

        Raises:
            Reject: a hook refused the connection, or failed.
        """
        user = None
        for hook in self._hooks.of("authenticate"):
            try:
                result = await self._call(hook, {"request": client.request}, of_stranger=True)
            except Reject:
                raise
            except BaseException as error:
                if _is_end_of_task(error):
                    raise
                await self.report(client, error, hook, of_stranger=True)
                raise Reject("authentication failed", status=500) from None
            user = user if result is None else result
        return user

    async def connect(self, client: Client) -> bool:
        """Run the ``on_connect`` hooks up to the first that raises, or disconnects; whether none raised."""
        for hook in self._hooks.of("connect"):
            if not client.is_connected:
                break
            if not await self._contained(hook, client, {"client": client}):
                return False
        return True

    async def disconnect(self, client: Client, close: Close) -> None:
        """Run every ``on_disconnect`` hook, whether or not those before it raised."""
        for hook in self._hooks.of("disconnect"):
            await self._contained(hook, client, {"client": client, "close": close})

    async def moved(self, kind: Literal["join", "leave"], client: Client, room: str) -> None:
        """Run every ``on_join`` or ``on_leave`` hook for a room."""
        for hook in self._hooks.of(kind):
            await self._contained(hook, client, {"client": client, "room": room})

    async def text(self, client: Client, text: str) -> PreparedMessage | None:
        """Handle a text message: the ``on_message`` hooks, then the handler of its event; what is to be answered."""
        message = decode(text)
        if isinstance(message, Malformed):
            self._counters.invalid += 1
            return encode_error(message.code, message.message, None, message.id)
        values = {"client": client, "message": message, "data": message.data}
        hooks = self._hooks.of("message")
        handler = self._hooks.handler(message.event)
        if handler is None:
            self._hints.no_handler(message.event, self._hooks.events, is_seen=bool(hooks))
            if not hooks:
                self._counters.invalid += 1
                what = f"there is no handler for event {quote(message.event)}"
                return encode_error("UNKNOWN_EVENT", what, None, message.id)
        hook: Hook | None = None
        try:
            for hook in hooks:
                await self._call(hook, values)
                if client.is_dismissed:  # a guard that closes
                    return None
            hook = handler
            result = None if handler is None else await self._call(handler, values)
            return None if message.id is None else encode(REPLY, result, message.id)
        except BaseException as error:
            if _is_end_of_task(error):
                raise
            return await self._error_frame(client, error, hook, message.id, message.event)

    async def binary(self, client: Client, data: bytes) -> PreparedMessage | None:
        """Handle a binary message; what is to be answered."""
        hooks = self._hooks.of("binary")
        if not hooks:
            self._hints.no_binary_hook()
            self._counters.invalid += 1
            return encode_error("UNKNOWN_EVENT", "binary messages are not handled here")
        for hook in hooks:
            try:
                await self._call(hook, {"client": client, "data": data})
                if client.is_dismissed:
                    return None
            except BaseException as error:
                if _is_end_of_task(error):
                    raise
                return await self._error_frame(client, error, hook, None)
        return None

    async def report(
        self,
        client: Client,
        error: BaseException,
        hook: Hook | None = None,
        event: str | None = None,
        *,
        of_stranger: bool = False,
    ) -> None:
        """Log an exception once, count it, and show it to the ``on_error`` hooks.

        That its own client has gone is no failure of a hook: nobody could know it before.

        Args:
            client: whose connection it was.
            error: the exception.
            hook: the function that raised; where there is none, the connection itself failed.
            event: of the message that was handled.
            of_stranger: whether the client has not been let in.
        """
        if hook is not None and _misses_own_client(error, client):
            log.debug("%s was told that its client has gone", hook.name, extra={"client_id": client.id})
            return
        self._counters.errors += 1
        where = "the connection" if hook is None else hook.name
        handling = "" if event is None else f" while handling {quote(event)}"
        fields = {"client_id": client.id, "hook": where}
        log.error("exception in %s%s (%s)", where, handling, describe(client), exc_info=error, extra=fields)
        for on_error in self._hooks.of("error"):
            try:
                await self._call(on_error, {"client": client, "error": error}, of_stranger=of_stranger)
            except BaseException as failure:
                if _is_end_of_task(failure):
                    raise
                if _misses_own_client(failure, client):
                    continue
                self._counters.errors += 1
                fields = {"client_id": client.id, "hook": on_error.name}
                what = "exception in the on_error hook %s (%s)"
                log.error(what, on_error.name, describe(client), exc_info=failure, extra=fields)

    async def _contained(self, hook: Hook, client: Client, values: dict[str, Any]) -> bool:
        """Call a hook that answers nobody; whether it went through."""
        try:
            await self._call(hook, values)
            return True
        except BaseException as error:
            if _is_end_of_task(error):
                raise
            await self.report(client, error, hook)
            return False

    async def _error_frame(
        self,
        client: Client,
        error: BaseException,
        hook: Hook | None,
        request_id: RequestId,
        event: str | None = None,
    ) -> PreparedMessage | None:
        """What a client is told of an exception that its message caused; all but its own mistakes are reported."""
        if isinstance(error, InvalidDataError):
            self._counters.invalid += 1
            if hook is not None and event is not None:
                self._hints.invalid_data(event, hook.name, functools.partial(hook.describe, error))
            details = {"details": error.details}
            return encode_error("INVALID_DATA", "the data does not have the expected form", details, request_id)
        if isinstance(error, ClientError):
            try:
                return encode_error(error.code, error.message, error.details, request_id)
            except Exception as failure:
                error = failure
        await self.report(client, error, hook, event)
        if _misses_own_client(error, client):
            return None
        return encode_error("INTERNAL_ERROR", "the server failed to handle this message", None, request_id)

    def _call(self, hook: Hook, values: dict[str, Any], *, of_stranger: bool = False) -> Awaitable[Any]:
        if of_stranger:
            if self._stranger_threads is None:
                self._stranger_threads = _new_threads(MAX_STRANGER_THREADS, "velocity-ws handshake")
            return hook(self._stranger_threads, values)
        if self._threads is None:
            self._threads = _new_threads(MAX_THREADS, "velocity-ws hook")
        return hook(self._threads, values)


def _new_threads(limit: int, name: str) -> Threads:
    def exhausted() -> None:
        log.error(
            "all %d threads of plain hooks (%s) are taken by calls that do not return, and others wait for them: "
            "give what the hooks call a timeout, or make them async def",
            limit * (1 + SPARE),
            name,
        )

    return Threads(limit, name, spare=limit * SPARE, patience=PATIENCE, on_exhausted=exhausted)


def _misses_own_client(error: BaseException, client: Client) -> bool:
    """Whether an exception says only that the client a hook runs for has gone meanwhile."""
    if isinstance(error, BaseExceptionGroup):  # of tasks that the hook has started
        return all(_misses_own_client(each, client) for each in error.exceptions)
    if isinstance(error, ClientNotFound | ClientGone | ClientTimeout):
        return error.client_id == client.id and not client.is_connected
    return False


def _is_end_of_task(error: BaseException) -> bool:
    """Whether an exception is no failure of a hook: our own cancellation, or the end of the process.

    The caller raises it again. A function that did so for its caller would leave it in its own frame, which it then
    refers to: all that is on the way would wait for the garbage collector.

    A ``CancelledError`` while nobody cancels this task comes out of something the hook awaited, and is its failure;
    so is ``SystemExit``, or else one message could stop the server.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit)
