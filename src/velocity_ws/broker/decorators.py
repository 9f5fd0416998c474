"""HookDecorators: the decorators by which an application registers its hooks, on a broker or a router. Calls none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, overload

from velocity_ws.broker.bare import bare
from velocity_ws.broker.rooms import Rooms
from velocity_ws.broker.signatures import (
    AsyncLogin,
    BinaryHook,
    ClientHook,
    DisconnectHook,
    ErrorHook,
    EventHook,
    Login,
    MessageHook,
    MoveHook,
    P,
    UserT,
)
from velocity_ws.errors import HookError
from velocity_ws.hooks.options import HandlerOptions, validate_event
from velocity_ws.hooks.registry import Hooks
from velocity_ws.retention import History

__all__ = ["EventRouter", "HookDecorators"]


class HookDecorators(Generic[UserT]):
    """Registers hooks: ``async def`` or plain ``def`` functions, which get those of their arguments that they name."""

    def __init__(self, hooks: Hooks) -> None:
        """
        Args:
            hooks: where they are registered.
        """
        self._hooks = hooks

    @overload
    def authenticate(self, function: AsyncLogin[P, UserT]) -> AsyncLogin[P, UserT]: ...
    @overload
    def authenticate(self, function: Login[P, UserT]) -> Login[P, UserT]: ...
    @bare
    def authenticate(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Register a hook called with ``request`` (a Starlette ``HTTPConnection``) before a handshake is accepted.

        What it returns becomes ``client.user``; an `Accept` also says when the login ends, and adds headers to the
        answer. Of several hooks the last one counts whose result is not ``None``. It raises `Reject` or Starlette's
        ``HTTPException`` to refuse. Any other exception, or taking longer than ``WS_HANDSHAKE_TIMEOUT``, refuses the
        connection.

        It is also asked with each HTTP request of a user for a stream; ``request.scope["type"]`` is ``"http"`` then,
        and no ``on_connect`` follows.
        """
        return self._hooks.register("authenticate", function)

    @overload
    def refresh(self, function: AsyncLogin[P, UserT]) -> AsyncLogin[P, UserT]: ...
    @overload
    def refresh(self, function: Login[P, UserT]) -> Login[P, UserT]: ...
    @bare
    def refresh(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Register the hook that renews logins, called with ``client, data`` when a client sends ``event: "refresh"``.

        It returns the user, who must have the id of the one before, or an `Accept` with the new ``expires_at``. The
        answer has ``expires_in``, in seconds; ``None`` and exceptions refuse, and leave the login as it was.

        Raises:
            HookError: there is such a hook already, or a handler of the event ``refresh``.
        """
        return self._hooks.register("refresh", function)

    @bare
    def on_connect(self, function: ClientHook) -> ClientHook:
        """Register a hook called with ``client`` after accept; no message is handled before it has finished.

        If it raises, the client is closed (1011; for ``HTTPException`` 4000 and its status) and later hooks do not run.
        Broadcasts reach the client meanwhile; refuse connections in ``authenticate``.
        """
        return self._hooks.register("connect", function)

    @bare
    def on_message(self, function: MessageHook) -> MessageHook:
        """Register a hook called with ``client, message`` for every well-formed message, before its handler."""
        return self._hooks.register("message", function)

    @bare
    def on_binary(self, function: BinaryHook) -> BinaryHook:
        """Register a hook called with ``client, data`` (bytes) for every binary message."""
        return self._hooks.register("binary", function)

    def on(
        self, event: str, *, concurrent: bool = False, rate: float | None = None, burst: int | None = None
    ) -> Callable[[EventHook], EventHook]:
        """Register the handler of an event, called with ``client, data``.

        The annotation of ``data`` validates it: a pydantic model, dataclass, TypedDict, builtin, union. What the
        handler returns answers a message that carried an ``id``, and its return annotation validates and filters that,
        as in FastAPI. `ClientError` and Starlette's ``HTTPException`` answer with an error.

        Args:
            event: its name; one that begins with ``$`` is reserved.
            concurrent: whether the client's next message does not wait for this handler.
            rate: messages a second of each client that this event allows, in place of the client's own limit.
            burst: messages at once that ``rate`` allows; by default twice the rate.

        Raises:
            HookError: the event has a handler already, its name is empty, too long or reserved, or ``rate`` and
                ``burst`` are no limit.
        """
        validate_event(event)
        HandlerOptions(concurrent, rate, burst)  # refused here, where it stands, before there is a function
        return lambda function: self._hooks.register_event(
            event, function, concurrent=concurrent, rate=rate, burst=burst
        )

    def rooms(
        self, pattern: str, *, history: History | None = None, presence: bool = False, rewind: bool = False
    ) -> Rooms[UserT]:
        """Register a kind of rooms: those whose names fit a pattern.

        If several patterns fit the name of a room, it is of the kind that was registered first.

        Args:
            pattern: a text with parameters, such as ``"chat:{chat_id}"``. ``{name}`` stands for one or more characters,
                none of them ``:`` or ``/``; ``{name:path}`` for one or more of any kind.
            history: how much such a room remembers, so that a client that comes back gets what it missed; by default
                nothing.
            presence: whether the members of such a room get ``event: "presence"``, as with the broker's ``presence``.
            rewind: whether a client may ask for all that such a room remembers, or for a number of messages. Without
                it a client gets only what came after a position that it was given.

        Returns:
            The kind, whose decorators register what is done for its rooms.

        Raises:
            HookError: it is no pattern, or one that means the same rooms is registered, be it under other names of
                parameters; the history is no `History`, or there is none to rewind; or it is to have presence or a
                history, and the broker runs and has begun without any.
        """
        return Rooms(self._hooks.kinds.register(pattern, presence=presence, history=history, rewind=rewind))

    @bare
    def on_disconnect(self, function: DisconnectHook) -> DisconnectHook:
        """Register a hook called with ``client`` (or ``client, close``), once for each client that was accepted."""
        return self._hooks.register("disconnect", function)

    @bare
    def on_join(self, function: MoveHook) -> MoveHook:
        """Register a hook called with ``client, room`` when a client of this process has joined a room.

        The hooks of one client run one after the other, in the order in which it joined and left. `Broker.join_room`
        waits for them; if such a hook moves the client itself, the hooks for that run after it has ended.
        """
        return self._hooks.register("join", function)

    @bare
    def on_leave(self, function: MoveHook) -> MoveHook:
        """Register a hook called with ``client, room`` when a client has left a room or disconnected.

        On a disconnection it runs before ``on_disconnect``.
        """
        return self._hooks.register("leave", function)

    def on_node(self, event: str) -> Callable[[EventHook], EventHook]:
        """Register the handler of what nodes tell each other by a name, called with ``data, node`` on every node.

        ``await broker.to_nodes().send(event, data)`` tells it. ``data`` is what JSON makes of it, on the sender's own
        node too, validated by its annotation; ``node`` is the id of the sender. Calls begin in the order in which a
        node sends, and do not wait for each other; 64 of a handler run at once, and what comes then waits.

        Args:
            event: its name, 1 to 256 characters; those of `on` are others.

        Raises:
            HookError: the name has a handler already, or is empty, too long or reserved.
        """
        validate_event(event, "on_node")
        return lambda function: self._hooks.register_node_event(event, function)

    @bare
    def on_error(self, function: ErrorHook) -> ErrorHook:
        """Register a hook called with ``client, error`` for every exception of another hook.

        ``client`` is ``None`` where an ``on_node`` handler has failed, which runs for no client.
        """
        return self._hooks.register("error", function)

    def include(self, router: EventRouter[UserT], prefix: str = "") -> None:
        """Take over everything that was registered on a router, in its order, behind what is registered here.

        A broker may be running. A router can be included in several brokers, or in another router, and takes nothing
        more from then on.

        Args:
            router: the router.
            prefix: goes before the events of its ``on``, in rooms of a kind, too: ``"chat."`` makes ``said``
                ``chat.said``. Patterns of rooms, and the names of ``on_node``, stay as they are.

        Raises:
            HookError: an event has a handler already, or rooms are registered already; the error names both. Or an
                event would have a name that cannot be, or it is too late for rooms with presence or a history. Nothing
                has been taken over.
        """
        if not isinstance(router, EventRouter) or router is self:
            raise HookError(f"include() takes another EventRouter, and not {router!r:.80}")
        self._hooks.include(router._hooks, prefix)


class EventRouter(HookDecorators[UserT]):
    """Hooks and handlers of one module, for `Broker.include`. It has the decorators of a broker and nothing else.

    Functions are checked when they are registered here, as on a broker; whether an event is handled twice is checked
    when the router is included.
    """

    def __init__(self) -> None:
        """Takes nothing: a prefix is given to `Broker.include`."""
        super().__init__(Hooks())
