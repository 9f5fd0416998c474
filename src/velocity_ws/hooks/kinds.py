"""Kinds: rooms that an application treats alike, found by their names, and the hooks of each kind. Knows no client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from velocity_ws.errors import HookError
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.options import HandlerOptions, validate_event
from velocity_ws.hooks.patterns import Pattern
from velocity_ws.messages.names import MAX_NAME_LENGTH
from velocity_ws.retention import History

__all__ = ["Kinds", "RoomKind", "included_already"]

F = TypeVar("F", bound=Callable[..., Any])

MAX_REMEMBERED = 4096
"""Names of rooms whose kind is remembered; strangers choose them."""


class RoomKind:
    """The rooms that one pattern means, and their hooks.

    Attributes:
        pattern: what it was registered by.
        parameters: the names of the parameters in the pattern.
        authorize: decides whether a client may be in such a room; ``None`` where no client can join it by itself.
        handlers: the handlers of events that are sent to such a room, by event.
        has_limits: whether one of these handlers has a limit of its own.
        on_join: told that a client came into such a room.
        on_leave: told that a client left one.
        on_cancel: decides whether a member may stop a stream there; ``None`` where none may.
        presence: whether the members of such a room are told who is in it.
        presence_info: says what they are told of a user.
        history: how much such a room remembers; ``None`` for nothing.
        rewind: whether a client may ask for all of it, or for a number of messages, and not only go on where it was.
        is_included: whether it is that of a router that has been included, and takes no more.
    """

    __slots__ = (
        "authorize", "handlers", "has_limits", "history", "is_included", "on_cancel", "on_join", "on_leave",
        "parameters", "pattern", "presence", "presence_info", "rewind",
    )  # fmt: skip

    def __init__(
        self, pattern: Pattern, *, presence: bool, history: History | None = None, rewind: bool = False
    ) -> None:
        self.pattern = pattern
        self.parameters = pattern.parameters
        self.authorize: Hook | None = None
        self.handlers: dict[str, Hook] = {}
        self.has_limits = False
        self.on_join: list[Hook] = []
        self.on_leave: list[Hook] = []
        self.on_cancel: Hook | None = None
        self.presence = presence
        self.presence_info: Hook | None = None
        self.history = history
        self.rewind = rewind
        self.is_included = False

    def copy(self, prefix: str) -> RoomKind:
        """The same kind for another registry.

        Args:
            prefix: goes before the names of its events.

        Raises:
            HookError: an event would have a name that is too long or reserved.
        """
        other = RoomKind(self.pattern, presence=self.presence, history=self.history, rewind=self.rewind)
        other.authorize, other.presence_info = self.authorize, self.presence_info
        other.on_cancel = self.on_cancel
        other.handlers = {validate_event(prefix + event): hook for event, hook in self.handlers.items()}
        other.has_limits = self.has_limits
        other.on_join, other.on_leave = [*self.on_join], [*self.on_leave]
        return other

    def register_authorize(self, function: F) -> F:
        """Make a function the one that decides who may be in a room, and return it unchanged, as decorators do.

        Raises:
            HookError: the kind has one already, or the function cannot be one.
        """
        self._refuse_if_included()
        if self.authorize is not None:
            raise HookError(
                f"rooms {self.pattern.text!r} are authorized by {self.authorize.name} already; one function decides, "
                "and may call others"
            )
        self.authorize = Hook("authorize", function, self.parameters)
        return function

    def register_event(self, event: str, function: F, options: HandlerOptions) -> F:
        """Make a function the handler of an event in these rooms, and return it unchanged, as decorators do.

        Raises:
            HookError: the event has a handler in these rooms already, or the function cannot be one.
        """
        self._refuse_if_included()
        if event in self.handlers:
            raise HookError(
                f"event {event!r} in rooms {self.pattern.text!r} is handled by {self.handlers[event].name} already; "
                "an event has one handler in a kind of rooms"
            )
        self.handlers[event] = Hook("room_event", function, self.parameters, options)
        self.has_limits = self.has_limits or options.rate is not None
        return function

    def register_move(self, kind: Literal["room_join", "room_leave"], function: F) -> F:
        """Add a function that is told of those who come or go, and return it unchanged, as decorators do.

        Raises:
            HookError: the function cannot be a hook of that kind.
        """
        self._refuse_if_included()
        hooks = self.on_join if kind == "room_join" else self.on_leave
        hooks.append(Hook(kind, function, self.parameters))
        return function

    def register_cancel(self, function: F) -> F:
        """Make a function the one that decides who may stop streams of these rooms, and return it unchanged.

        Raises:
            HookError: the kind has one already, or the function cannot be one.
        """
        self._refuse_if_included()
        if self.on_cancel is not None:
            raise HookError(f"rooms {self.pattern.text!r} have an on_cancel already: {self.on_cancel.name}")
        self.on_cancel = Hook("room_cancel", function, self.parameters)
        return function

    def register_presence_info(self, function: F) -> F:
        """Make a function the one that says what members are told of a user, and return it unchanged.

        Raises:
            HookError: these rooms have no presence, the kind has such a function already, or this one cannot be it.
        """
        self._refuse_if_included()
        if not self.presence:
            raise HookError(f"rooms {self.pattern.text!r} have no presence: rooms(…, presence=True)")
        if self.presence_info is not None:
            raise HookError(f"rooms {self.pattern.text!r} have a presence_info already: {self.presence_info.name}")
        self.presence_info = Hook("presence_info", function)
        return function

    def _refuse_if_included(self) -> None:
        if self.is_included:
            raise included_already()


class Kinds:
    """All kinds of rooms of one broker, in order of registration.

    Attributes:
        all: the kinds; an empty list where the application has none.
        is_included: whether they are those of a router that has been included, and takes no more.
        is_without_presence: whether they are those of a broker that runs, and has begun without presence.
        is_without_history: whether they are those of a broker that runs, and has begun without history.
    """

    def __init__(self) -> None:
        self.is_included = False
        self.is_without_presence = False
        self.is_without_history = False
        self.all: list[RoomKind] = []
        self._found: dict[str, tuple[RoomKind, Mapping[str, str]] | None] = {}

    def register(
        self, pattern: str, *, presence: bool = False, history: History | None = None, rewind: bool = False
    ) -> RoomKind:
        """Add a kind of rooms.

        Raises:
            HookError: it is no pattern, or one that means the same rooms is registered, be it under other names of
                parameters; the history is none, or there is none to rewind; or it is too late for presence or history.
        """
        if self.is_included:
            raise included_already()
        if history is not None and not isinstance(history, History):
            raise HookError(f'a history is History(size=100, ttl="10m"), not {history!r:.80}')
        if rewind and history is None:
            raise HookError(f"rooms {pattern!r:.80} have nothing to rewind: rooms(…, history=History(), rewind=True)")
        kind = RoomKind(Pattern(pattern), presence=presence, history=history, rewind=bool(rewind))
        self._refuse(kind)
        self.all.append(kind)
        self._found.clear()
        return kind

    def _refuse(self, kind: RoomKind) -> None:
        if kind.presence and self.is_without_presence:
            raise HookError(
                f"rooms {kind.pattern.text!r} cannot have presence, as the broker runs, and has begun without any: "
                "register them before it starts"
            )
        if kind.history is not None and self.is_without_history:
            raise HookError(
                f"rooms {kind.pattern.text!r} cannot have a history, as the broker runs, and has begun without any: "
                "register them before it starts"
            )
        for other in self.all:
            if other.pattern.shape == kind.pattern.shape:
                raise HookError(
                    f"rooms {kind.pattern.text!r} are registered already, as {other.pattern.text!r}; "
                    "register a kind once, and use what rooms() has returned"
                )

    def include(self, others: Kinds, prefix: str) -> None:
        """Take over the kinds of a router, behind those that are here; from then on it takes no more.

        Args:
            others: the kinds.
            prefix: goes before the names of their events.

        Raises:
            HookError: one of them means the same rooms as one that is here, an event would have a name that is too
                long or reserved, or it is too late for presence or history. Nothing has been taken over.
        """
        taken = [kind.copy(prefix) for kind in others.all]
        for kind in taken:
            self._refuse(kind)
        self.all += taken
        self._found.clear()
        others.is_included = True
        for kind in others.all:
            kind.is_included = True

    def of(self, room: str) -> tuple[RoomKind, Mapping[str, str]] | None:
        """The kind of a room, which is the first registered that means it, and what its parameters stand for.

        The mapping is remembered: do not change it.
        """
        try:
            return self._found[room]
        except KeyError:
            if not self.all:
                return None
            found = self._match(room)
        if len(self._found) >= MAX_REMEMBERED:
            del self._found[next(iter(self._found))]
        self._found[room] = found
        return found

    def _match(self, room: str) -> tuple[RoomKind, Mapping[str, str]] | None:
        for kind in self.all:
            parameters = kind.pattern.match(room)
            if parameters is not None:
                return kind, parameters
        return None

    def moves(self, kind: Literal["join", "leave"], room: str) -> tuple[list[Hook], Mapping[str, str]]:
        """The hooks that are told of those who come into a room, or leave it, and what its parameters stand for."""
        found = self.of(room)
        if found is None:
            return [], {}
        return (found[0].on_join if kind == "join" else found[0].on_leave), found[1]

    def handler(self, event: str, room: str | None) -> Hook | None:
        """The handler of an event that is sent to a room; ``None`` if the room's kind has none.

        Args:
            event: the event.
            room: any text, as strangers write it; ``None`` for an event that is sent to none.
        """
        found = None if room is None or not self.all or len(room) > MAX_NAME_LENGTH else self.of(room)
        return None if found is None else found[0].handlers.get(event)

    def patterns_with(self, event: str) -> list[str]:
        """The patterns of the kinds that have a handler for an event."""
        return [kind.pattern.text for kind in self.all if event in kind.handlers]

    @property
    def has_limits(self) -> bool:
        """Whether a handler in rooms of some kind has a limit of its own."""
        return bool(self.all) and any(kind.has_limits for kind in self.all)  # asked for each connection

    @property
    def has_presence(self) -> bool:
        """Whether rooms of some kind have presence."""
        return any(kind.presence for kind in self.all)

    @property
    def has_history(self) -> bool:
        """Whether rooms of some kind remember."""
        return any(kind.history is not None for kind in self.all)

    @property
    def has_authorize(self) -> bool:
        """Whether clients can join rooms of some kind by themselves."""
        return any(kind.authorize is not None for kind in self.all)

    @property
    def tells_of_rooms(self) -> bool:
        """Whether clients are told of their rooms, by events that are for no application to send."""
        return any(kind.authorize is not None or kind.history is not None for kind in self.all)


def included_already() -> HookError:
    """The error about what is registered on a router that has been included."""
    return HookError(
        "this router is included already, and what is registered now would be called by nobody: "
        "register everything on it before include()"
    )
