"""Failures: what a hook has raised becomes a line of the log, a call of ``on_error``, and an answer. Knows no queue."""

from __future__ import annotations

import asyncio
import functools
import time

from velocity_ws.errors import ClientGone, ClientNotFound, ClientTimeout, InvalidHeaderError, Reject
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.registry import Hooks
from velocity_ws.hooks.validation import InvalidDataError, InvalidParameterError
from velocity_ws.limits import RateLimiter
from velocity_ws.logs import SECONDS_PER_WARNING, WARNINGS_AT_ONCE, get_logger, hint, printable, quote
from velocity_ws.messages.events import encode_error
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.calls import Calls
from velocity_ws.sessions.client import Client, describe
from velocity_ws.sessions.hints import Hints
from velocity_ws.sessions.room_messages import MAY_NOT_BE_IN
from velocity_ws.sessions.web_errors import client_error_of, is_unavailable, reject_of, unavailable
from velocity_ws.stats import Counters

__all__ = ["Failures", "is_end_of_task"]

log = get_logger("velocity_ws.sessions")


class Failures:
    """What becomes of the exceptions of hooks. On the broker's loop only."""

    def __init__(self, hooks: Hooks, counters: Counters, hints: Hints, calls: Calls) -> None:
        """
        Args:
            hooks: has those that are told.
            counters: where failures are counted.
            hints: what is logged once about how the broker is used.
            calls: runs the hooks that are told.
        """
        self._hooks = hooks
        self._counters = counters
        self._hints = hints
        self._calls = calls
        self._refusals = RateLimiter(1 / SECONDS_PER_WARNING, WARNINGS_AT_ONCE, time.monotonic)

    async def report(
        self,
        client: Client | None,
        error: BaseException,
        hook: Hook | None = None,
        event: str | None = None,
        *,
        of_stranger: bool = False,
        where: str | None = None,
    ) -> None:
        """Log an exception once, count it, and show it to the ``on_error`` hooks.

        That its own client has gone is no failure of a hook: nobody could know it before. Of an engine that is away,
        where in the code it was needed says nothing.

        Args:
            client: whose connection it was; ``None`` where the hook runs for no client.
            error: the exception.
            hook: the function that raised; where there is none, the connection itself failed.
            event: of the message that was handled.
            of_stranger: whether the client has not been let in.
            where: what has raised, in words, where it is no hook.
        """
        if hook is not None and _misses_own_client(error, client):
            log.debug("%s was told that its client has gone", hook.name, extra=_fields(client, hook.name))
            return
        self._counters.errors += 1
        where = where or ("the connection" if hook is None else hook.name)
        handling = "" if event is None else f" while handling {quote(event)}"
        whose = "for no client" if client is None else describe(client)
        if is_unavailable(error):
            log.error("%s failed%s (%s): %s", where, handling, whose, _why(error), extra=_fields(client, where))
        else:
            log.error("exception in %s%s (%s)", where, handling, whose, exc_info=error, extra=_fields(client, where))
        for on_error in self._hooks.of("error"):
            try:
                await self._calls.call(on_error, {"client": client, "error": error}, of_stranger=of_stranger)
            except BaseException as failure:
                if is_end_of_task(failure):
                    raise
                if _misses_own_client(failure, client):
                    continue
                self._counters.errors += 1
                what, fields = "exception in the on_error hook %s (%s)", _fields(client, on_error.name)
                log.error(what, on_error.name, whose, exc_info=failure, extra=fields)

    async def refusal(self, client: Client, error: BaseException, hook: Hook) -> Reject:
        """How a handshake is refused for which a hook has raised; all but what it means to say is reported."""
        try:
            if said := reject_of(error):
                self._tell_refusal(client, said, hook)
                return said
        except InvalidHeaderError as problem:  # of an HTTPException, which does not look at its headers
            error = problem
        await self.report(client, error, hook, of_stranger=True)
        return Reject("authentication failed", status=500)

    def _tell_refusal(self, client: Client, reject: Reject, hook: Hook) -> None:
        """Log that a hook has refused a handshake: at INFO, as strangers come all the time, and not all of them."""
        who = printable(client.remote_addr) or "a client without an address"
        said = who, hook.name, reject.code or reject.status, quote(reject.reason)
        tell = log.debug if self._refusals.acquire() else functools.partial(hint, log)
        tell("handshake of %s refused by %s: %s %s", *said)

    async def answer(
        self,
        client: Client,
        error: BaseException,
        hook: Hook | None,
        request_id: int | str | None,
        event: str | None = None,
    ) -> PreparedMessage | None:
        """What a client is told of an exception that its message caused; all but its own mistakes are reported.

        Args:
            client: who has sent the message.
            error: the exception.
            hook: the function that raised.
            request_id: the ``id`` of the message, if it had one.
            event: the event of the message; ``None`` for a binary one.
        """
        if isinstance(error, InvalidDataError):
            self._counters.invalid += 1
            if hook is not None and event is not None:
                self._hints.invalid_data(event, hook.name, functools.partial(hook.describe, error))
            details = {"details": error.details}
            return encode_error("INVALID_DATA", "the data does not have the expected form", details, request_id)
        if isinstance(error, InvalidParameterError):
            self._counters.invalid += 1
            return encode_error("FORBIDDEN", MAY_NOT_BE_IN, None, request_id)
        if said := client_error_of(error):
            try:
                return encode_error(said.code, said.message, said.details, request_id)
            except Exception as failure:
                error = failure
        await self.report(client, error, hook, event)
        if _misses_own_client(error, client):
            return None
        if is_unavailable(error):
            said = unavailable("what this message needs of other servers cannot be had")
            return encode_error(said.code, said.message, said.details, request_id)
        return encode_error("INTERNAL_ERROR", "the server failed to handle this message", None, request_id)


def _fields(client: Client | None, hook: str) -> dict[str, object]:
    """What a record of the log carries beside its text."""
    return {"client_id": None if client is None else client.id, "hook": hook}


def _why(error: BaseException) -> str:
    """What an engine that is away says, in one line."""
    if isinstance(error, BaseExceptionGroup):
        return _why(error.exceptions[0])
    return printable(str(error))


def _misses_own_client(error: BaseException, client: Client | None) -> bool:
    """Whether an exception says only that the client a hook runs for has gone meanwhile."""
    if client is None:
        return False
    if isinstance(error, BaseExceptionGroup):  # of tasks that the hook has started
        return all(_misses_own_client(each, client) for each in error.exceptions)
    if isinstance(error, ClientNotFound | ClientGone | ClientTimeout):
        return error.client_id == client.id and not client.is_connected
    return False


def is_end_of_task(error: BaseException) -> bool:
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
