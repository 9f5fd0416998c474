"""Inputs: what a dependency gets that no other one gives: of the handshake, and what its hook has. Calls nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ForwardRef

from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from velocity_ws.errors import HookError
from velocity_ws.hooks.binding import ARGUMENTS, Kind
from velocity_ws.hooks.fastapi import PARTS, handshake_errors, marked, read, schema_of, scopes_of
from velocity_ws.hooks.injected import name_of_value
from velocity_ws.hooks.validation import InvalidHandshakeError, InvalidParameterError, is_written_in_one_way

__all__ = ["HookOfInputs", "Inputs"]

WITHOUT_HANDSHAKE: tuple[Kind, ...] = ("node", "presence_info")
"""The kinds of hooks that are not called for one client."""
OF_ROOMS: tuple[Kind, ...] = ("authorize", "room_event", "room_join", "room_leave")
"""The kinds of hooks that are for rooms of one kind."""
NEVER_GUESSED = {"broker", "client", "close", "data", "error", "message", "node", "request", "room", "websocket"}
"""Names that mean something else than the query, which strangers write."""


class HookOfInputs:
    """What is known of a hook while its dependencies are read.

    Attributes:
        kind: its kind.
        name: its name in errors.
        room_parameters: names that stand in the pattern of its kind of rooms.
    """

    def __init__(self, kind: Kind, name: str, room_parameters: Sequence[str]) -> None:
        self.kind = kind
        self.name = name
        self.room_parameters = room_parameters


class Inputs:
    """The arguments of a dependency that are no values of others: from the handshake, and what the hook has.

    Attributes:
        are_any: whether there are any.
        are_of_room: whether some are what the name of a room says.
    """

    __slots__ = ("_exact", "_fields", "_given", "_marked", "_room_parameters", "_scopes", "are_any", "are_of_room")

    def __init__(self, node: Any, hook: HookOfInputs, what: str) -> None:
        """
        Args:
            node: FastAPI's ``Dependant``.
            hook: the hook that depends on it.
            what: what has these parameters, in errors.

        Raises:
            HookError: it asks for what there is not in such a hook.
        """
        self._room_parameters = hook.room_parameters
        self._marked = marked(node.call) if node.query_params else ()
        self._given: list[tuple[str, str]] = []
        self._fields: dict[str, list[Any]] = {}
        self._exact: list[tuple[str, str]] = []
        for part in PARTS:
            for field in getattr(node, f"{part}_params"):
                self._add(part, field, hook, what)
        for field in node.body_params:
            self._add("body", field, hook, what)
        for value, parameter in (
            ("request", node.http_connection_param_name),
            ("http request", node.request_param_name),
            ("websocket", node.websocket_param_name),
        ):
            if parameter is not None:
                self._give(parameter, value, hook, what)
        for parameter, instead in (
            (node.response_param_name, "authenticate can return Accept(user, headers=…)"),
            (node.background_tasks_param_name, "use asyncio.create_task, or yield and go on after that"),
        ):
            if parameter is not None:
                raise HookError(f"{what} asks for {parameter!r}, but a message has no response: {instead}")
        self._scopes: tuple[str, list[str]] | None = None
        if node.security_scopes_param_name is not None:
            self._scopes = node.security_scopes_param_name, scopes_of(node)
        self.are_any = bool(self._given or self._fields or self._scopes)
        self.are_of_room = any(value == "room" for _, value in self._given) or bool(
            hook.room_parameters and "path" in self._fields
        )

    def _add(self, part: str, field: Any, hook: HookOfInputs, what: str) -> None:
        annotation = field.field_info.annotation
        if isinstance(annotation, ForwardRef):  # which FastAPI takes for a parameter of the query, whatever it says
            raise HookError(
                f"the annotation {annotation.__forward_arg__!r} of {field.name!r} in {what} cannot be resolved: name "
                "only what its module can see, and no local function or class"
            )
        value = name_of_value(annotation)
        if value is not None:
            self._give(field.name, value, hook, what)
        elif part == "body":
            raise HookError(
                f"{what} takes {field.name!r} from the body of a request, which a handshake has not; what a client has "
                "sent is message.data, of a parameter message: Message"
            )
        elif part == "query" and field.name not in self._marked and self._is_room(field.name, annotation, hook):
            self._give(field.name, "room", hook, what)
        elif part == "query" and field.name not in self._marked and (why := _never_guessed(field.name, hook)):
            raise HookError(f"{what} has a parameter {field.name!r}, {why}")
        elif hook.kind in WITHOUT_HANDSHAKE:
            raise _refused(hook, what, field.name, f"the {part} of a handshake")
        else:
            self._fields.setdefault(part, []).append(field)
            if part == "path" and field.alias in hook.room_parameters and is_written_in_one_way(schema_of(field)):
                self._exact.append((field.name, field.alias))

    @staticmethod
    def _is_room(name: str, annotation: Any, hook: HookOfInputs) -> bool:
        return name == "room" and "room" in ARGUMENTS[hook.kind] and annotation in (str, Any, str | None)

    def _give(self, parameter: str, value: str, hook: HookOfInputs, what: str) -> None:
        has = {*ARGUMENTS[hook.kind], "broker"}
        if hook.kind not in WITHOUT_HANDSHAKE:
            has |= {"request", "http request", "websocket"}
        if value not in has:
            raise _refused(hook, what, parameter, f"the {value}")
        self._given.append((parameter, value))

    def collect(self, values: Mapping[str, Any], arguments: dict[str, Any]) -> None:
        """Add the arguments for one message.

        Args:
            values: what the hook has.
            arguments: where they are added.

        Raises:
            InvalidHandshakeError: the handshake does not have what is asked for.
            InvalidParameterError: an annotation does not allow what the room's name has for a parameter.
        """
        for parameter, value in self._given:
            arguments[parameter] = _given(value, values)
        if self._scopes is not None:
            from fastapi.security import SecurityScopes  # noqa: PLC0415 - FastAPI is there where its Security is used

            arguments[self._scopes[0]] = SecurityScopes(scopes=self._scopes[1])
        if self._fields:
            connection = _connection(values)
            path = {**connection.path_params, **{name: values[name] for name in self._room_parameters}}
            found, errors = read(self._fields, connection, path)
            for error in errors:
                if error["loc"][0] == "path" and error["loc"][1] in self._room_parameters:
                    raise InvalidParameterError(error["loc"][1])
            for name, parameter in self._exact:
                if str(found[name]) != values[parameter]:
                    raise InvalidParameterError(parameter)
            if errors:
                raise InvalidHandshakeError(handshake_errors(errors))
            arguments |= found


def _never_guessed(name: str, hook: HookOfInputs) -> str:
    """Why FastAPI's guess, that a parameter is one of the query, is not taken; empty where it is."""
    explicit = f"{name}: Annotated[…, Query()] if it is one of the query, which the client chooses"
    if name == "room" and "room" in ARGUMENTS[hook.kind]:
        return f"which is the name of the room, a str: write room: str, or {explicit}"
    if name in NEVER_GUESSED:
        return (
            "which is not taken from the query by its name alone: annotate client: Client, message: Message, broker: "
            f"Broker, request: HTTPConnection, or write {explicit}; what a client has sent is message.data"
        )
    if hook.kind in OF_ROOMS:
        there_are = ", ".join(hook.room_parameters) or "none"
        return f"which the pattern of its rooms does not have (its parameters: {there_are}); write {explicit}"
    return ""


def _refused(hook: HookOfInputs, what: str, parameter: str, asked: str) -> HookError:
    kind = hook.kind.replace("_", " ")
    return HookError(f"{what} asks for {asked} in {parameter!r}, which no {kind} hook has")


def _connection(values: Mapping[str, Any]) -> HTTPConnection:
    request = values.get("request")
    connection: HTTPConnection = values["client"].request if request is None else request
    return connection


def _given(value: str, values: Mapping[str, Any]) -> Any:
    if value == "request":
        return _connection(values)
    if value == "http request":  # what security schemes ask for, which read headers
        return Request({**_connection(values).scope, "type": "http", "method": "GET"})
    if value == "websocket":
        return WebSocket({**_connection(values).scope, "type": "websocket"}, _not_here, _not_here)
    return values[value]


async def _not_here(*_: Any) -> Any:
    raise RuntimeError(
        "this WebSocket of a dependency is only its handshake: ask for client: Client to send, raise Reject or "
        "HTTPException to refuse"
    )
