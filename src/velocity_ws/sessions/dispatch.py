"""Dispatcher: calls hooks for what a client does, in order, and answers; what they raise is contained.

Knows hooks and clients; knows no queue, no task and no socket.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from velocity_ws.close import Close
from velocity_ws.errors import Reject
from velocity_ws.hooks.binding import Kind
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
from velocity_ws.sessions.hints import Hints
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.permission import Permission, ask
from velocity_ws.sessions.room_messages import RoomMessages
from velocity_ws.sessions.web_errors import goodbye_of
from velocity_ws.stats import Counters

__all__ = ["ConcurrentCall", "Dispatcher"]


class ConcurrentCall(NamedTuple):
    """A message whose handler is still to be called, by `Dispatcher.concurrent`; others do not wait for it."""

    handler: Hook
    message: Message
    values: dict[str, Any]


class Dispatcher:
    """Calls the hooks. On the broker's loop only.

    Its methods raise nothing that the application raised, except where they say so.

    Attributes:
        call: calls a hook with its values, and raises what it raises; see `Calls.call`.
        report: logs an exception, counts it, and shows it to the ``on_error`` hooks; see `Failures.report`.
    """

    def __init__(
        self,
        hooks: Hooks,
        counters: Counters,
        hints: Hints,
        hub: Hub[Any],
        refresh: Callable[[Client, Callable[[], Awaitable[Any]]], Awaitable[Any]],
    ) -> None:
        """
        Args:
            hooks: all that are registered.
            counters: where messages that cannot be handled are counted.
            hints: what is logged once about how the broker is used.
            hub: knows who is in which room.
            refresh: renews a client's login, given a call of the hook that says who it is; returns the answer.
        """
        self._hooks = hooks
        self._refresh = refresh
        self._rooms = RoomMessages(hooks.kinds, hub, counters)
        self._counters = counters
        self._hints = hints
        self._calls = Calls(hooks.surroundings)
        self.call = self._call = self._calls.call
        self._failures = Failures(hooks, counters, hints, self._calls)
        self.report = self._failures.report

    def stop(self) -> None:
        """Let the threads go; they come back when they are needed."""
        self._calls.stop()

    @property
    def has_limits(self) -> bool:
        """Whether some event has a limit of its own, so that each message has to be looked at."""
        return self._hooks.has_limits

    def limited(self, event: str, room: str | None) -> Hook | None:
        """The handler of an event, sent to a room or to none, if it has a limit of its own; else ``None``."""
        return self._hooks.limited(event, room)

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
            except BaseException as error:
                if isinstance(error, Reject) or is_end_of_task(error):
                    raise
                raise await self._failures.refusal(client, error, hook) from None
            user = user if result is None else result
        return user

    async def connect(self, client: Client) -> bool:
        """Run the ``on_connect`` hooks up to the first that raises, or disconnects; whether none raised."""
        for hook in self._hooks.of("connect"):
            if not client.is_connected:
                break
            try:
                await self._call(hook, {"client": client})
            except BaseException as error:
                if is_end_of_task(error):
                    raise
                if goodbye := goodbye_of(error):
                    await client.disconnect(*goodbye)
                    break
                await self.report(client, error, hook)
                return False
        return True

    async def disconnect(self, client: Client, close: Close) -> None:
        """Run every ``on_disconnect`` hook, whether or not those before it raised."""
        for hook in self._hooks.of("disconnect"):
            await self._contained(hook, client, {"client": client, "close": close})

    def tells(self, kind: Literal["join", "leave"], room: str) -> bool:
        """Whether there is a hook that is told of those who come into a room, or of those who leave it."""
        return bool(self._hooks.of(kind)) or bool(self._hooks.kinds.all and self._hooks.kinds.moves(kind, room)[0])

    def tells_moves(self, room: str) -> bool:
        """Whether there is a hook that is told of either. Asked for each join, and so in few steps."""
        hooks = self._hooks
        if hooks.of("join") or hooks.of("leave"):
            return True
        return bool(hooks.kinds.all) and (self.tells("join", room) or self.tells("leave", room))

    async def authorize(self, hook: Hook, client: Client, room: str, parameters: Mapping[str, str]) -> Permission:
        """Ask whether a client may be in a room. A failure is for the caller to report; see `ask`."""
        return await ask(self._calls, hook, client, room, parameters)

    async def moved(self, kind: Literal["join", "leave"], client: Client, room: str) -> None:
        """Run every ``on_join`` or ``on_leave`` hook for a room, those of its kind within those of the broker."""
        values = {"client": client, "room": room}
        kinds = self._hooks.kinds
        own, parameters = kinds.moves(kind, room) if kinds.all else ([], {})
        if own and kind == "leave":
            await self._run(own, client, {**values, **parameters})
        for hook in self._hooks.of(kind):
            await self._contained(hook, client, values)
        if own and kind == "join":
            await self._run(own, client, {**values, **parameters})

    async def node(self, hook: Hook, event: str, data: Any, node_id: str) -> None:
        """Call the handler of what a node, the sender, has told all nodes by the name of an event."""
        await self._contained(hook, None, {"data": data, "node": node_id}, event)

    async def text(  # noqa: C901 - each call would be one more for each message
        self, client: Client, text: str
    ) -> PreparedMessage | ConcurrentCall | None:
        """Handle a text message: the ``on_message`` hooks, then the handler of its event.

        Returns:
            What is to be answered; or the call of its handler, where that is a concurrent one.
        """
        message = decode(text)
        if isinstance(message, Malformed):
            self._counters.invalid += 1
            return encode_error(message.code, message.message, None, message.id)
        values = {"client": client, "message": message, "data": message.data}
        hooks = self._hooks.of("message")
        room = message.room
        hook: Hook | None = None
        scope: Scope | None = None
        try:
            handler = None if room is None else await self._rooms.handler(client.id, room, message.event, values)
            handler = handler or self._hooks.handler(message.event) or self._hooks.built_in(message.event)
            if handler is None and (refusal := self._unhandled(message, is_seen=bool(hooks))):
                return refusal
            if self._hooks.guards_depend or (handler is not None and handler.dependencies is not None):
                scope = values[SCOPE] = self._calls.new_scope()  # which all hooks of a message share
            for hook in hooks:
                await self._call(hook, values)
                if client.is_dismissed:  # a guard that closes
                    await self._leave_scope(scope, values)
                    return None
                if room is not None:  # which it may have left meanwhile
                    await self._rooms.validate(client.id, room)
            hook = handler
            if handler is None:
                result = None
            elif handler.options.concurrent:
                await self._leave_scope(scope, values)
                return ConcurrentCall(handler, message, values)
            elif handler.kind == "refresh":
                result = await self._refresh(client, functools.partial(self._call, handler, values))
            else:
                result = await self._call(handler, values)
            if scope is not None:  # before the answer, which a failure of the end is, too
                await scope.end()
            return None if message.id is None else encode(REPLY, result, message.id)
        except BaseException as error:
            failure = error if scope is None else await scope.failed(error)
            try:
                if is_end_of_task(failure):
                    raise
                return await self._failures.answer(client, failure, hook, message.id, message.event)
            finally:
                del failure  # whose traceback refers to this frame

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
            return encode_pong(message.id)
        is_seen = is_seen and not message.event.startswith("$")  # which is reserved
        self._hints.no_handler(message.event, self._hooks.events, is_seen=is_seen)
        if is_seen:
            return None
        self._counters.invalid += 1
        return encode_error("UNKNOWN_EVENT", f"there is no handler for event {quote(message.event)}", None, message.id)

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

    async def _run(self, hooks: Iterable[Hook], client: Client, values: dict[str, Any]) -> None:
        for hook in hooks:
            await self._contained(hook, client, values)

    async def _contained(
        self, hook: Hook, client: Client | None, values: dict[str, Any], event: str | None = None
    ) -> None:
        """Call a hook that answers nobody."""
        try:
            await self._call(hook, values)
        except BaseException as error:
            if is_end_of_task(error):
                raise
            await self.report(client, error, hook, event)
