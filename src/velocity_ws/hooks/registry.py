"""Registry: the application's hooks, in order of registration. Calls none of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from velocity_ws.errors import HookError
from velocity_ws.hooks.binding import ARGUMENTS, Kind
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.options import HandlerOptions
from velocity_ws.messages.names import MAX_NAME_LENGTH

__all__ = ["Hooks", "validate_event"]

F = TypeVar("F", bound=Callable[..., Any])


class Hooks:
    """All hooks of one broker, in order of registration."""

    def __init__(self) -> None:
        self._by_kind: dict[Kind, list[Hook]] = {kind: [] for kind in ARGUMENTS}
        self._by_event: dict[str, Hook] = {}
        self._is_included = False

    def register(self, kind: Kind, function: F) -> F:
        """Add a function as a hook, and return it unchanged, as decorators do.

        Raises:
            HookError: the function cannot be a hook of that kind.
        """
        self._refuse_if_included()
        self._by_kind[kind].append(Hook(kind, function))
        return function

    def register_event(
        self,
        event: str,
        function: F,
        *,
        concurrent: bool = False,
        rate: float | None = None,
        burst: int | None = None,
    ) -> F:
        """Make a function the handler of an event, and return it unchanged, as decorators do.

        Args:
            event: the name of the event.
            function: the handler.
            concurrent: an option of the handler, as are the following; see `HandlerOptions`.
            rate: messages a second of each client.
            burst: messages at once of each client.

        Raises:
            HookError: the event has a handler already, the function cannot be one, or an option cannot be.
        """
        self._refuse_if_included()
        if event in self._by_event:
            raise _handled_already(event, self._by_event[event])
        self._by_event[event] = Hook("event", function, options=HandlerOptions(concurrent, rate, burst))
        return function

    def include(self, others: Hooks, prefix: str) -> None:
        """Take over the hooks of a router, behind those that are here; from then on it takes no more.

        Args:
            others: the hooks.
            prefix: goes before the names of their events.

        Raises:
            HookError: an event has a handler already, or would have a name that is too long or reserved. Nothing has
                been taken over.
        """
        self._refuse_if_included()
        events = {validate_event(prefix + event): hook for event, hook in others._by_event.items()}
        for event, hook in events.items():
            if event in self._by_event:
                raise _handled_already(event, self._by_event[event], hook)
        others._is_included = True
        self._by_event |= events
        for kind, hooks in others._by_kind.items():
            self._by_kind[kind] += hooks

    def of(self, kind: Kind) -> list[Hook]:
        """Return the hooks of one kind, in order of registration."""
        return self._by_kind[kind]

    def handler(self, event: str) -> Hook | None:
        """Return the handler of an event; ``None`` if it has none."""
        return self._by_event.get(event)

    def events(self) -> list[str]:
        """Return the sorted names of the events that have a handler."""
        return sorted(self._by_event)

    def _refuse_if_included(self) -> None:
        if self._is_included:
            raise HookError(
                "this router is included already, and what is registered now would be called by nobody: "
                "register everything on it before include()"
            )


def _handled_already(event: str, handler: Hook, second: Hook | None = None) -> HookError:
    what = "" if second is None else f", and {second.name} cannot handle it too"
    return HookError(
        f"event {event!r} is handled by {handler.name} already{what}; "
        "an event has one handler, on_message sees every message"
    )


def validate_event(event: str) -> str:
    """Check the name of an event that a handler is registered for, and return it.

    Raises:
        HookError: it is not a string of 1 to 256 characters, or begins with a $.
    """
    if not isinstance(event, str) or not 0 < len(event) <= MAX_NAME_LENGTH:
        raise HookError(
            f"on() takes the event's name, 1 to {MAX_NAME_LENGTH} characters, as in @broker.on('chat_message'); "
            f"it got {event!r:.80}"
        )
    if event.startswith("$"):
        raise HookError(f"events that begin with $ are reserved: give the event {event!r:.80} another name")
    return event
