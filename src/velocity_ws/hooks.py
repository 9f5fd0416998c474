"""The application's functions: registered, checked, and called with what they ask for. Knows no connection."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from pydantic import ValidationError

from velocity_ws.annotations import validator
from velocity_ws.errors import HookError
from velocity_ws.messages import MAX_NAME_LENGTH

__all__ = ["Hook", "Hooks", "InvalidDataError", "Kind"]

Kind = Literal["authenticate", "connect", "message", "binary", "event", "disconnect", "error"]
F = TypeVar("F", bound=Callable[..., Any])

MAX_THREADS = 256
"""Plain functions running at once. A client occupies one at most, so it takes as many that never return to stall."""

# What a hook of each kind can ask for by name; the first so many are what it gets by position.
_ARGUMENTS: dict[Kind, tuple[str, ...]] = {
    "authenticate": ("request",),
    "connect": ("client",),
    "message": ("client", "message"),
    "binary": ("client", "data"),
    "event": ("client", "data", "message"),
    "disconnect": ("client", "close"),
    "error": ("client", "error"),
}
_BY_POSITION: dict[Kind, tuple[int, ...]] = {
    "authenticate": (1,),
    "connect": (1,),
    "message": (2,),
    "binary": (2,),
    "event": (2,),
    "disconnect": (1, 2),
    "error": (2,),
}


class InvalidDataError(Exception):
    """The annotation of ``data`` refused it. Internal: it becomes an ``INVALID_DATA`` answer.

    Attributes:
        details: where and why, as JSON.
    """

    def __init__(self, error: ValidationError) -> None:
        self.details = [
            {"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]}
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        super().__init__(f"{error.error_count()} problems")


class Hook:
    """One registered function, and how to call it."""

    def __init__(self, kind: Kind, function: Callable[..., Any]) -> None:
        """
        Raises:
            HookError: it asks for arguments that a hook of this kind does not get, or its annotation is no type.
        """
        if not callable(function):
            raise HookError(f"a hook is a function, not {function!r:.80}; on() is used as @broker.on('event name')")
        self.name = _name(function)
        self._function = function
        self._is_async = inspect.iscoroutinefunction(_innermost(function))
        self._by_position, self._by_keyword = _bind(kind, function, self.name)
        parameter = _data_parameter(function, self._by_position, self._by_keyword) if kind == "event" else None
        self._adapter = None if parameter is None else validator(_innermost(function), parameter, self.name)

    async def __call__(self, limiter: CapacityLimiter, values: Mapping[str, Any]) -> Any:
        """Call it with those of the values it asked for: on the loop if it is async, else in a thread.

        A cancelled thread is left behind, as a thread cannot be stopped.

        Raises:
            InvalidDataError: the annotation of ``data`` refused it.
            Exception: whatever the function raises.
        """
        if self._adapter is not None:
            try:
                values = {**values, "data": self._adapter.validate_python(values["data"])}
            except ValidationError as error:
                raise InvalidDataError(error) from None
        args = [values[name] for name in self._by_position]
        kwargs = {keyword: values[name] for keyword, name in self._by_keyword.items()}
        if self._is_async:
            return await self._function(*args, **kwargs)
        call = functools.partial(self._function, *args, **kwargs)
        result = await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        return await result if inspect.isawaitable(result) else result


class Hooks:
    """All registered hooks, in order of registration."""

    def __init__(self) -> None:
        self._by_kind: dict[Kind, list[Hook]] = {kind: [] for kind in _ARGUMENTS}
        self._by_event: dict[str, Hook] = {}

    def register(self, kind: Kind, function: F) -> F:
        """Add a function, and return it unchanged, as a decorator does.

        Raises:
            HookError: the function cannot be a hook of that kind.
        """
        self._by_kind[kind].append(Hook(kind, function))
        return function

    def register_event(self, event: str, function: F) -> F:
        """Make a function the handler of an event.

        Raises:
            HookError: the event has a handler already, or the function cannot be one.
        """
        if event in self._by_event:
            raise HookError(
                f"event {event!r} is handled by {self._by_event[event].name} already; "
                "an event has one handler, on_message sees every message"
            )
        self._by_event[event] = Hook("event", function)
        return function

    def of(self, kind: Kind) -> list[Hook]:
        """The hooks of a kind."""
        return self._by_kind[kind]

    def handler(self, event: str) -> Hook | None:
        """The handler of an event."""
        return self._by_event.get(event)


def validate_event(event: str) -> str:
    """Check the name that a handler is registered for.

    Raises:
        HookError: it is not a string of 1 to 256 characters.
    """
    if not isinstance(event, str) or not 0 < len(event) <= MAX_NAME_LENGTH:
        raise HookError(
            f"on() takes the event's name, 1 to {MAX_NAME_LENGTH} characters, as in @broker.on('chat_message'); "
            f"it got {event!r:.80}"
        )
    return event


def _innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function):
        return function
    return type(function).__call__


def _name(function: Callable[..., Any]) -> str:
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    name: str = getattr(inner, "__qualname__", type(inner).__qualname__)
    return name


def _bind(kind: Kind, function: Callable[..., Any], name: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Which value goes to which parameter: by position, and by keyword."""
    known = _ARGUMENTS[kind]
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise HookError(f"{name} has no signature that can be read; wrap it in a function") from None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) and not positional:
        return known[: _BY_POSITION[kind][-1]], {}
    required = [p for p in positional if p.default is p.empty]
    unknown = [p.name for p in required if p.name not in known]
    unknown_keywords = [p.name for p in keyword if p.default is p.empty and p.name not in known]
    if (unknown and len(required) not in _BY_POSITION[kind]) or unknown_keywords:
        wrong = (unknown + unknown_keywords)[0]
        raise HookError(
            f"{name} asks for {wrong!r}, which no {kind} hook gets. Name what it needs of: {', '.join(known)}"
        )
    if unknown:
        return known[: len(required)], {p.name: p.name for p in keyword if p.name in known}
    # A parameter with a default gets its value too, if its name is known and nothing before it is skipped.
    by_position: list[str] = []
    for parameter in positional:
        if parameter.name not in known:
            break
        by_position.append(parameter.name)
    skipped = positional[len(by_position) :]
    later = [p for p in [*skipped, *keyword] if p.name in known and p.kind is not p.POSITIONAL_ONLY]
    return tuple(by_position), {p.name: p.name for p in later}


def _data_parameter(
    function: Callable[..., Any], by_position: tuple[str, ...], by_keyword: dict[str, str]
) -> str | None:
    """The name of the parameter that gets ``data``."""
    if "data" in by_keyword:
        return "data"
    if "data" not in by_position:
        return None
    parameters = list(inspect.signature(function).parameters.values())
    index = by_position.index("data")
    return parameters[index].name if index < len(parameters) else parameters[-1].name
