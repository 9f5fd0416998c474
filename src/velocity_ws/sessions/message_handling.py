"""Messages: calls hooks for what a client has said, in order, and answers; what they raise is contained.

Knows hooks and clients; knows no queue, no task and no socket.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.registry import Hooks
from velocity_ws.hooks.scope import SCOPE, Scope
from velocity_ws.logs import quote
from velocity_ws.messages.events import PING, REPLY, encode_error, encode_pong
from velocity_ws.messages.inbound import Malformed, Message, decode
from velocity_ws.messages.outbound import PreparedMessage, encode
from velocity_ws.sessions.calls import Calls
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.failures import Failures, is_end_of_task
from velocity_ws.sessions.followed import Followed
from velocity_ws.sessions.hints import Hints
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.room_messages import RoomMessages
from velocity_ws.stats import Counters

__all__ = ["ConcurrentCall", "MessageHandling"]


class ConcurrentCall(NamedTuple):
    """A message whose handler is still to be called, by `Dispatcher.concurrent`; others do not wait for it."""

    handler: Hook
    message: Message
    values: dict[str, Any]


class MessageHandling:
    """Handles the messages of clients by their hooks. On the broker's loop only.

    Its methods raise nothing that the application raised.
    """

    def __init__(
        self,
        hooks: Hooks,
        calls: Calls,
        failures: Failures,
        counters: Counters,
        hints: Hints,
        hub: Hub[Any],
        refresh: Callable[[Client, Callable[[], Awaitable[Any]]], Awaitable[Any]],
    ) -> None:
        """
        Args:
            hooks: all that are registered.
            calls: calls them.
            failures: says what is answered where one raises.
            counters: where messages that cannot be handled are counted.
            hints: what is logged once about how the broker is used.
            hub: knows who is in which room.
            refresh: renews a client's login, given a call of the hook that says who it is; returns the answer.
        """
        self._hooks = hooks
        self._handlers, self._guards = hooks.by_event, hooks.guards
        self._calls = calls
        self._call = calls.call
        self._failures = failures
        self._counters = counters
        self._hints = hints
        self._rooms = RoomMessages(hooks.kinds, hub, counters)
        self._refresh = refresh

    @property
    def has_limits(self) -> bool:
        """Whether some event has a limit of its own, so that each message has to be looked at."""
        return self._hooks.has_limits

    def limited(self, event: str, room: str | None) -> Hook | None:
        """The handler of an event, sent to a room or to none, if it has a limit of its own; else ``None``."""
        return self._hooks.limited(event, room)

    async def text(self, client: Client, text: str) -> PreparedMessage | ConcurrentCall | None:
        """Handle a text message: the ``on_message`` hooks, then the handler of its event.

        Returns:
            What is to be answered; or the call of its handler, where that is a concurrent one.
        """
        message = decode(text)
        if isinstance(message, Malformed):
            self._counters.invalid += 1
            return encode_error(message.code, message.message, None, message.id)
        handler = self._handlers.get(message.event)
        if handler is None or not handler.is_direct or message.room is not None or self._guards:
            values = {"client": client, "message": message, "data": message.data}
            return await self._handle(client, message, values)
        try:  # in few steps, as this is what most messages are
            result = await handler.begin(client, message)
            return None if message.id is None else encode(REPLY, result, message.id)
        except BaseException as error:
            if is_end_of_task(error):
                raise
            return await self._failures.answer(client, error, handler, message.id, message.event)

    async def _handle(
        self, client: Client, message: Message, values: dict[str, Any]
    ) -> PreparedMessage | ConcurrentCall | None:
        """Handle a message that has more to it: a room, ``on_message`` hooks, dependencies, or no handler."""
        hooks = self._hooks.of("message")
        room = message.room
        hook: Hook | None = None
        scope: Scope | None = None
        result: Any = None
        try:
            handler = None if room is None else await self._rooms.handler(client.id, room, message.event, values)
            handler = handler or self._hooks.handler(message.event) or self._hooks.built_in(message.event)
            if handler is None and (refusal := self._unhandled(message, is_seen=bool(hooks))):
                return refusal
            if self._hooks.guards_depend or (handler is not None and handler.needs_scope):
                scope = values[SCOPE] = self._calls.new_scope()  # which all hooks of a message share
            for hook in hooks:
                await self._call(hook, values)
                if client.is_dismissed:  # a guard that closes
                    await self._leave_scope(scope, values)
                    return None
                if room is not None:  # which it may have left meanwhile
                    await self._rooms.validate(client.id, room)
            hook = handler
            result = None if handler is None else await self._call_handler(client, handler, message, values, scope)
            if isinstance(result, ConcurrentCall):
                return result
            if scope is not None:  # before the answer, which a failure of the end is, too
                await scope.end()
            return _answer(result, message.id)
        except BaseException as error:
            failure = error if scope is None else await scope.failed(error)
            try:
                _let_follow(result)
                if is_end_of_task(failure):
                    raise
                return await self._failures.answer(client, failure, hook, message.id, message.event)
            finally:
                del failure  # whose traceback refers to this frame

    async def _call_handler(
        self, client: Client, handler: Hook, message: Message, values: dict[str, Any], scope: Scope | None
    ) -> Any:
        """What a handler returns, or the call of a concurrent one."""
        if handler.options.concurrent:
            await self._leave_scope(scope, values)
            return ConcurrentCall(handler, message, values)
        if handler.kind == "refresh":
            return await self._refresh(client, functools.partial(self._call, handler, values))
        return await self._call(handler, values)

    async def concurrent(self, client: Client, call: ConcurrentCall) -> PreparedMessage | None:
        """Call the handler of a message whose ``on_message`` hooks have run; what is to be answered."""
        handler, message, values = call
        try:
            if message.room is not None:  # which it may have left while this waited
                await self._rooms.validate(client.id, message.room)
            result = await self._call(handler, values)
            return None if message.id is None else encode(REPLY, result, message.id)
        except BaseException as error:
            if is_end_of_task(error):
                raise
            return await self._failures.answer(client, error, handler, message.id, message.event)

    async def _leave_scope(self, scope: Scope | None, values: dict[str, Any]) -> None:
        """End what the ``on_message`` hooks depend on: a concurrent handler has another task, and its own."""
        if scope is not None:
            del values[SCOPE]
            await scope.end()

    def _unhandled(self, message: Message, *, is_seen: bool) -> PreparedMessage | None:
        """What is answered to a message without a handler; ``None`` where an ``on_message`` hook sees it."""
        if message.event == PING:  # one of many, or a long one: few are answered as they come
            return encode_pong(message.id, message.data)
        is_seen = is_seen and not message.event.startswith("$")  # which is reserved
        in_rooms = self._hooks.kinds.patterns_with(message.event) if message.room is None else []
        self._hints.no_handler(message.event, self._hooks.events, in_rooms, is_seen=is_seen)
        if is_seen:
            return None
        self._counters.invalid += 1
        text = f"there is no handler for event {quote(message.event)}"
        if in_rooms:  # which are not named: who may not be in one need not know how they are called
            text += ' without a room: the message has to name its room, beside "event"'
        return encode_error("UNKNOWN_EVENT", text, None, message.id)

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
                if is_end_of_task(error):
                    raise
                return await self._failures.answer(client, error, hook, None)
        return None


def _answer(result: Any, request_id: int | str | None) -> PreparedMessage | None:
    """What is to be answered where a handler has returned something."""
    if isinstance(result, Followed):
        result.send(request_id)
        return None
    return None if request_id is None else encode(REPLY, result, request_id)


def _let_follow(result: Any) -> None:
    """The answer was not sent, and what comes behind it is not to wait for ever."""
    if isinstance(result, Followed):
        result.follow()
