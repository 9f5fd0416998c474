"""Binding: the kinds of hooks, the values each may ask for, and which parameter gets which. Knows no hook that runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

from velocity_ws.errors import HookError
from velocity_ws.hooks.annotations import annotations_of, signature_of, unwrap
from velocity_ws.messages.inbound import Message

__all__ = ["ARGUMENTS", "Kind", "bind", "data_parameter", "refuse_wrong_message"]

Kind = Literal[
    "authenticate",
    "connect",
    "refresh",
    "message",
    "binary",
    "event",
    "disconnect",
    "join",
    "leave",
    "error",
    "node",
    "authorize",
    "room_event",
    "room_join",
    "room_leave",
    "presence_info",
    "room_cancel",
]

ARGUMENTS: dict[Kind, tuple[str, ...]] = {
    "authenticate": ("request",),
    "connect": ("client",),
    "refresh": ("client", "data"),
    "message": ("client", "message"),
    "binary": ("client", "data"),
    "event": ("client", "data", "message"),
    "disconnect": ("client", "close"),
    "join": ("client", "room"),
    "leave": ("client", "room"),
    "error": ("client", "error"),
    "node": ("data", "node"),
    "authorize": ("client", "room"),
    "room_event": ("client", "data", "message", "room"),
    "room_join": ("client", "room"),
    "room_leave": ("client", "room"),
    "presence_info": ("user",),
    "room_cancel": ("client", "stream_id", "room"),
}
"""The values that a hook of each kind can ask for by name, in the order in which it gets them by position."""
_NEVER_ANOTHER = {"request", "client", "message", "data", "close", "error", "room"}
"""Names that no hook uses for another value: where it does not get that one, nobody can mean the one it would get."""
_BY_POSITION: dict[Kind, tuple[int, ...]] = {  # how many of them a hook may take under names of its own
    "authenticate": (1,),
    "connect": (1,),
    "refresh": (2,),
    "message": (2,),
    "binary": (2,),
    "event": (2,),
    "disconnect": (1, 2),
    "join": (2,),
    "leave": (2,),
    "error": (2,),
    "node": (1, 2),
    "authorize": (1,),
    "room_event": (2,),
    "room_join": (1,),
    "room_leave": (1,),
    "presence_info": (1,),
    "room_cancel": (2,),
}


def bind(
    kind: Kind, function: Callable[..., Any], name: str, more: Sequence[str] = ()
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Decide which values a hook gets by position and which by keyword.

    Args:
        kind: the kind of the hook, which decides what it can ask for.
        function: the hook.
        name: the name of the hook in errors.
        more: names of values that it can ask for too, by these names alone.

    Returns:
        The names of the values that it gets by position; and a dict from its keywords to the names of their values.

    Raises:
        HookError: the hook asks for a value that its kind does not get, or has no signature that can be read.
    """
    in_order = ARGUMENTS[kind]
    known = {*in_order, *more}
    try:
        parameters = list(signature_of(function).parameters.values())
    except (TypeError, ValueError):
        raise HookError(f"{name} has no signature that can be read; wrap it in a function") from None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    for parameter in keyword:
        if parameter.name not in known and parameter.default is parameter.empty:
            raise _refused(kind, name, parameter.name, more)
    by_keyword = {p.name: p.name for p in keyword if p.name in known}
    if not positional:
        takes_all = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        return (in_order[: _BY_POSITION[kind][-1]] if takes_all else ()), by_keyword
    required = [p.name for p in positional if p.default is p.empty]
    unknown = [parameter for parameter in required if parameter not in known]
    if unknown:
        in_their_order = _in_their_order(kind, name, required, more)
        rest = [p.name for p in positional[len(in_their_order) :] if p.kind is not p.POSITIONAL_ONLY]
        return in_their_order, by_keyword | {each: each for each in rest if each in more}
    # A parameter with a default gets its value too, if its name is known; after one that is skipped, by keyword.
    by_position = list(itertools.takewhile(known.__contains__, [p.name for p in positional]))
    for parameter in positional[len(by_position) :]:
        if parameter.name in known and parameter.kind is not parameter.POSITIONAL_ONLY:
            by_keyword[parameter.name] = parameter.name
    return tuple(by_position), by_keyword


def _in_their_order(kind: Kind, name: str, required: list[str], more: Sequence[str]) -> tuple[str, ...]:
    """The values of a hook that has names of its own: the first ones of its kind, in their order; others by name."""
    most = _BY_POSITION[kind][-1]
    theirs, more = ARGUMENTS[kind][:most], [*more, *ARGUMENTS[kind][most:]]
    mine = [parameter for parameter in required if parameter not in more]
    fits = len(mine) in _BY_POSITION[kind] and all(
        each == other or each not in _NEVER_ANOTHER for each, other in zip(mine, theirs, strict=False)
    )
    if not fits:
        unknown = next(parameter for parameter in mine if parameter not in theirs)
        raise _refused(kind, name, unknown, more, _own_names(kind))
    values = iter(theirs)
    return tuple([parameter if parameter in more else next(values) for parameter in required])


def _own_names(kind: Kind) -> str:
    """What a hook may call by names of its own."""
    ways = [" and ".join(ARGUMENTS[kind][:count]) for count in _BY_POSITION[kind]]
    order = ", in this order," if _BY_POSITION[kind][-1] > 1 else ""
    names = "names" if order else "a name"
    return f"; or only {', or '.join(ways)}{order} by {names} of its own, and others by theirs"


def _refused(kind: Kind, name: str, parameter: str, more: Sequence[str], or_else: str = "") -> HookError:
    known = ", ".join(dict.fromkeys([*ARGUMENTS[kind], *more, "broker"]))
    what = kind.replace("_", " ")
    return HookError(
        f"{name} asks for {parameter!r}, which no {what} hook gets. Name what it needs of: {known}{or_else}"
    )


def refuse_wrong_message(function: Callable[..., Any], names: set[str], name: str) -> None:
    """Refuse a parameter ``message`` with the type of the data: its author wants the data validated.

    Args:
        function: the hook.
        names: the names of the values that it gets.
        name: the name of the hook in errors.

    Raises:
        HookError: the annotation of ``message`` is neither `Message` nor ``Any``.
    """
    annotation = annotations_of(unwrap(function)).get("message", Message)
    written = str(getattr(annotation, "__forward_arg__", annotation))
    is_envelope = annotation in (Message, Any, object) or written.rpartition(".")[2] in ("Message", "Any")
    if "message" in names and not is_envelope:
        raise HookError(f"{name} annotates 'message', which is the Message itself; name it 'data' to have it validated")


def data_parameter(
    function: Callable[..., Any], by_position: tuple[str, ...], by_keyword: dict[str, str]
) -> str | None:
    """Find the parameter that gets ``data``; ``None`` if none does.

    Args:
        function: the hook.
        by_position: the names of the values that it gets by position, as `bind` returns them.
        by_keyword: the names of the values that it gets by keyword, as `bind` returns them.
    """
    if "data" in by_keyword:
        return "data"
    if "data" not in by_position:
        return None
    parameters = list(signature_of(function).parameters.values())
    index = by_position.index("data")
    return parameters[index].name if index < len(parameters) else parameters[-1].name
