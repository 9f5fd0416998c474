"""Rooms: the decorators by which an application says what is done for rooms of a kind. Knows no client and no room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, overload

from velocity_ws.broker.bare import bare
from velocity_ws.broker.signatures import (
    AuthorizeHook,
    CancelHook,
    EventHook,
    Info,
    MoveHook,
    P,
    PresenceInfo,
    SomeUserT,
    UserT,
)
from velocity_ws.hooks.kinds import RoomKind
from velocity_ws.hooks.options import HandlerOptions, validate_event

__all__ = ["Rooms"]


class Rooms(Generic[UserT]):
    """Rooms of a kind, as ``broker.rooms("chat:{chat_id}")`` registers them.

    Registers hooks as the broker does. A hook may ask for the parameters of the pattern, too: their annotations
    validate what stands in a room's name, as in a path of FastAPI. A name that they do not allow is that of no room.
    """

    def __init__(self, kind: RoomKind) -> None:
        """
        Args:
            kind: where the hooks are registered.
        """
        self._kind = kind

    @property
    def pattern(self) -> str:
        """The pattern that was registered. From any thread."""
        return self._kind.pattern.text

    @bare
    def authorize(self, function: AuthorizeHook) -> AuthorizeHook:
        """Register the function that decides whether a client may be in a room, called with ``client``.

        It is asked when a client asks to join; and again about members, when their user changes or `Broker.reauthorize`
        is called. It returns a bool, or raises what answers a client: `ClientError`, or ``HTTPException`` as in a
        handler; who is refused while in such a room is put out of it. A failure, or more than 5 seconds, refuses too.
        Rooms of a kind that has none cannot be joined by a client alone. `Broker.join_room` does not ask.

        It is also asked with each HTTP request of a user for a stream of the room; the client is not connected then,
        and has nothing but the request and what ``authenticate`` returned for it.

        Raises:
            HookError: the kind has such a function already, or this one cannot be it.
        """
        return self._kind.register_authorize(function)

    def on(
        self, event: str, *, concurrent: bool = False, rate: float | None = None, burst: int | None = None
    ) -> Callable[[EventHook], EventHook]:
        """Register the handler of an event that a member sends to such a room, called with ``client, data``.

        It is for messages that name their room: ``{"event", "room", "data"}``. It comes before the broker's handler of
        the same event. A message of somebody who is not in the room is answered ``FORBIDDEN``.

        Args:
            event: as for `Broker.on`.
            concurrent: as for `Broker.on`.
            rate: as for `Broker.on`; the limit is one for all rooms of the kind.
            burst: as for `Broker.on`.

        Raises:
            HookError: the event has a handler in these rooms already, or cannot have one with these options.
        """
        validate_event(event)
        options = HandlerOptions(concurrent, rate, burst)
        return lambda function: self._kind.register_event(event, function, options)

    @bare
    def on_join(self, function: MoveHook) -> MoveHook:
        """Register a hook called with ``client, room`` when a client of this process has joined such a room.

        It runs after those of the broker.
        """
        return self._kind.register_move("room_join", function)

    @bare
    def on_leave(self, function: MoveHook) -> MoveHook:
        """Register a hook called with ``client, room`` when a client has left such a room or disconnected.

        It runs before those of the broker.
        """
        return self._kind.register_move("room_leave", function)

    @bare
    def on_cancel(self, function: CancelHook) -> CancelHook:
        """Register the function that decides whether a member may stop a stream, called with ``client, stream_id``.

        It is asked when a member sends ``stream_cancel``, as ``velocity.js`` does with ``stream.cancel()``. It returns
        a bool, or raises what answers a client, as `authorize` does. Without one, no member may.

        Raises:
            HookError: the kind has such a function already, or this one cannot be it.
        """
        return self._kind.register_cancel(function)

    @overload
    def presence_info(self, function: PresenceInfo[UserT, P, Info]) -> PresenceInfo[UserT, P, Info]: ...
    @overload
    def presence_info(
        self: Rooms[SomeUserT | None], function: PresenceInfo[SomeUserT, P, Info]
    ) -> PresenceInfo[SomeUserT, P, Info]: ...
    @overload
    def presence_info(self, function: Callable[[], Info]) -> Callable[[], Info]: ...
    @bare
    def presence_info(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Register the function that says, of a ``user``, what members are told beside the user's id.

        Raises:
            HookError: these rooms have no presence, the kind has such a function already, or this one cannot be it.
        """
        return self._kind.register_presence_info(function)
