"""Dispatcher: calls hooks for what becomes of a client, from its handshake to its end; what they raise is contained.

Knows hooks and clients; knows no queue, no task and no socket. What clients say is for `MessageHandling`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal

from velocity_ws.close import Close
from velocity_ws.hooks.binding import Kind
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.registry import Hooks
from velocity_ws.sessions.calls import Calls
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.failures import Failures, is_end_of_task
from velocity_ws.sessions.hints import Hints
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.message_handling import MessageHandling
from velocity_ws.sessions.permission import Permission, ask
from velocity_ws.sessions.web_errors import goodbye_of
from velocity_ws.stats import Counters

__all__ = ["Dispatcher"]


class Dispatcher:
    """Calls the hooks. On the broker's loop only.

    Its methods raise nothing that the application raised, except where they say so.

    Attributes:
        call: calls a hook with its values, and raises what it raises; see `Calls.call`.
        report: logs an exception, counts it, and shows it to the ``on_error`` hooks; see `Failures.report`.
        messages: handles what clients say.
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
        self._calls = Calls(hooks.surroundings)
        self.call = self._call = self._calls.call
        self._failures = Failures(hooks, counters, hints, self._calls)
        self.report = self._failures.report
        self.messages = MessageHandling(hooks, self._calls, self._failures, counters, hints, hub, refresh)

    def stop(self) -> None:
        """Let the threads go; they come back when they are needed."""
        self._calls.stop()

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
                if is_end_of_task(error):
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
