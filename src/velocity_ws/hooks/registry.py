"""Registry: the application's hooks, in order of registration. Calls none of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from velocity_ws.errors import HookError
from velocity_ws.hooks.binding import ARGUMENTS, Kind
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.kinds import Kinds, included_already
from velocity_ws.hooks.options import HandlerOptions, validate_event
from velocity_ws.hooks.scope import Surroundings

__all__ = ["REFRESH", "Hooks"]

F = TypeVar("F", bound=Callable[..., Any])

REFRESH = "refresh"
"""The event by which clients renew their logins, where there is a hook of that kind."""


class Hooks:
    """All hooks of one broker, in order of registration.

    Attributes:
        by_event: the handler of each event.
        guards: the ``on_message`` hooks.
        kinds: the kinds of rooms, with the hooks of each.
        surroundings: what dependencies have of the broker.
        guards_depend: whether an ``on_message`` hook has dependencies, or the broker, whose scope the handler shares.
    """

    def __init__(self, broker: object = None) -> None:
        """
        Args:
            broker: whose hooks these are; ``None`` for those of a router.
        """
        self.surroundings = Surroundings(broker)
        self.guards_depend = False
        self.kinds = Kinds()
        self._by_kind: dict[Kind, list[Hook]] = {kind: [] for kind in ARGUMENTS}
        self.by_event: dict[str, Hook] = {}
        self.guards = self._by_kind["message"]
        self._by_node_event: dict[str, Hook] = {}
        self._built_in: dict[str, tuple[Hook, Callable[[], bool]]] = {}
        self._has_limits = False
        self._is_included = False

    def register(self, kind: Kind, function: F) -> F:
        """Add a function as a hook, and return it unchanged, as decorators do.

        Raises:
            HookError: the function cannot be a hook of that kind; or ``refresh`` has one or is handled already.
        """
        self._refuse_if_included()
        hook = Hook(kind, function)
        if kind == "refresh":  # what clients send for it is an event like any other, and so has one handler
            self._handle(REFRESH, hook)
        self._by_kind[kind].append(hook)
        self.guards_depend = self.guards_depend or (kind == "message" and hook.needs_scope)
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
        self._handle(event, Hook("event", function, options=HandlerOptions(concurrent, rate, burst)))
        return function

    def register_node_event(self, event: str, function: F) -> F:
        """Make a function the handler of what nodes tell each other by a name, and return it unchanged.

        Raises:
            HookError: the name has a handler already, or the function cannot be one.
        """
        self._refuse_if_included()
        if event in self._by_node_event:
            raise _heard_already(event, self._by_node_event[event])
        self._by_node_event[event] = Hook("node", function)
        return function

    def include(self, others: Hooks, prefix: str) -> None:
        """Take over the hooks of a router, behind those that are here; from then on it takes no more.

        Args:
            others: the hooks.
            prefix: goes before the names of their events, but not of those that nodes tell each other.

        Raises:
            HookError: an event has a handler already, or would have a name that is too long or reserved, or rooms are
                registered already. Nothing has been taken over.
        """
        self._refuse_if_included()
        events = {
            event if hook.kind == "refresh" else validate_event(prefix + event): hook
            for event, hook in others.by_event.items()
        }
        for event, hook in events.items():
            if event in self.by_event:
                raise _handled_already(event, self.by_event[event], hook)
        for event, hook in others._by_node_event.items():
            if event in self._by_node_event:
                raise _heard_already(event, self._by_node_event[event], hook)
        self.kinds.include(others.kinds, prefix)
        others._is_included = True
        self.guards_depend = self.guards_depend or others.guards_depend
        self.by_event |= events
        self._has_limits = self._has_limits or others._has_limits
        self._by_node_event |= others._by_node_event
        for kind, hooks in others._by_kind.items():
            self._by_kind[kind] += hooks

    def of(self, kind: Kind) -> list[Hook]:
        """Return the hooks of one kind, in order of registration."""
        return self._by_kind[kind]

    def handler(self, event: str) -> Hook | None:
        """Return the handler of an event; ``None`` if it has none."""
        return self.by_event.get(event)

    def node_handler(self, event: str) -> Hook | None:
        """Return the handler of what nodes tell each other by a name; ``None`` if it has none."""
        return self._by_node_event.get(event)

    def register_built_in(self, event: str, function: Callable[..., Any], is_there: Callable[[], bool]) -> None:
        """Handle an event by a function of this package, where the application has no handler of it.

        Args:
            event: the name of the event.
            function: a handler as those of `register_event`.
            is_there: whether there is such an event now.
        """
        self._built_in[event] = Hook("event", function), is_there

    def built_in(self, event: str) -> Hook | None:
        """Return the handler of this package's own for an event; ``None`` if there is no such event now."""
        handler, is_there = self._built_in.get(event, (None, bool))
        return handler if is_there() else None

    @property
    def has_limits(self) -> bool:
        """Whether some handler, here or of a kind of rooms, has a limit of its own."""
        return self._has_limits or (bool(self.kinds.all) and self.kinds.has_limits)

    def limited(self, event: str, room: str | None) -> Hook | None:
        """Return the handler of an event, sent to a room or to none, if it has a limit of its own; else ``None``."""
        handler = self.kinds.handler(event, room) or self.by_event.get(event)
        return None if handler is None or handler.options.rate is None else handler

    def events(self) -> list[str]:
        """Return the sorted names of the events that have a handler."""
        return sorted(self.by_event)

    def _handle(self, event: str, hook: Hook) -> None:
        if event in self.by_event:
            raise _handled_already(event, self.by_event[event])
        self.by_event[event] = hook
        self._has_limits = self._has_limits or hook.options.rate is not None

    def _refuse_if_included(self) -> None:
        if self._is_included:
            raise included_already()


def _handled_already(event: str, handler: Hook, second: Hook | None = None) -> HookError:
    what = "" if second is None else f", and {second.name} cannot handle it too"
    return HookError(
        f"event {event!r} is handled by {handler.name} already{what}; "
        "an event has one handler, on_message sees every message"
    )


def _heard_already(event: str, handler: Hook, second: Hook | None = None) -> HookError:
    what = "" if second is None else f", and {second.name} cannot handle it too"
    return HookError(f"event {event!r} of nodes is handled by {handler.name} already{what}")
