"""Dependencies: what a hook depends on, read by FastAPI once and put in order here. Calls nothing; knows no client."""

from __future__ import annotations

import contextlib
import enum
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ForwardRef

from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from velocity_ws.errors import HookError
from velocity_ws.hooks.annotations import unwrap
from velocity_ws.hooks.binding import ARGUMENTS, Kind
from velocity_ws.hooks.fastapi import PARTS, Injected, dependant, graph_of, handshake_errors, read, scopes_of
from velocity_ws.hooks.injected import name_of_value
from velocity_ws.hooks.validation import InvalidHandshakeError

__all__ = ["Dependencies", "Form", "Step"]

WITHOUT_HANDSHAKE: tuple[Kind, ...] = ("node", "presence_info")
"""The kinds of hooks that are not called for one client."""


class Form(enum.Enum):
    """How a dependency is called, and whether it has an end."""

    ASYNC = enum.auto()
    PLAIN = enum.auto()
    ASYNC_GENERATOR = enum.auto()
    GENERATOR = enum.auto()


def _itself(call: Callable[..., Any]) -> Callable[..., Any]:
    return call


_MANAGERS: dict[Form, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    Form.ASYNC_GENERATOR: contextlib.asynccontextmanager,
    Form.GENERATOR: contextlib.contextmanager,
}


class Step:
    """One call of a dependency.

    Attributes:
        call: what is called; of a generator, what makes a context manager of it.
        form: how.
        key: under which its value is kept for others that depend on the same.
        use_cache: whether such a value is used.
        arguments: for each argument that is the value of another step: its name, and the number of the step.
        inputs: its other arguments; ``None`` where it has none.
        concurrency: FastAPI's limit of calls at once; ``None`` where there is none.
        is_simple: whether it is a coroutine function without such a limit.
    """

    __slots__ = ("arguments", "call", "concurrency", "form", "inputs", "is_simple", "key", "use_cache")

    def __init__(self, node: Any, call: Callable[..., Any], arguments: list[tuple[str, int]], inputs: Inputs) -> None:
        self.form = _form(call)
        self.call = _MANAGERS.get(self.form, _itself)(call)  # once, as it takes longer than the call
        self.key = (call, tuple(sorted(scopes_of(node))))
        self.use_cache: bool = node.use_cache
        self.arguments = arguments
        self.inputs = inputs if inputs.are_any else None
        self.concurrency: Any = getattr(node, "concurrency", None)
        self.is_simple = self.form is Form.ASYNC and self.concurrency is None


class Inputs:
    """The arguments of a dependency that are no values of others: from the handshake, and what the hook has.

    Attributes:
        are_any: whether there are any.
    """

    __slots__ = ("_fields", "_given", "_room_parameters", "_scopes", "are_any")

    def __init__(self, node: Any, hook: _Hook, what: str) -> None:
        """
        Args:
            node: FastAPI's ``Dependant``.
            hook: the hook that depends on it.
            what: what has these parameters, in errors.

        Raises:
            HookError: it asks for what there is not in such a hook.
        """
        self._room_parameters = hook.room_parameters
        self._given: list[tuple[str, str]] = []
        self._fields: dict[str, list[Any]] = {}
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

    def _add(self, part: str, field: Any, hook: _Hook, what: str) -> None:
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
        elif annotation is Any and field.name in {"client", "message", "broker", "request", "websocket", "data"}:
            raise HookError(
                f"{what} has a parameter {field.name!r} without an annotation, which FastAPI takes for one of the "
                "query; annotate it: client: Client, message: Message, broker: Broker, request: HTTPConnection"
            )
        elif hook.kind in WITHOUT_HANDSHAKE:
            raise _refused(hook, what, field.name, f"the {part} of a handshake")
        else:
            self._fields.setdefault(part, []).append(field)

    def _give(self, parameter: str, value: str, hook: _Hook, what: str) -> None:
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
            if errors:
                raise InvalidHandshakeError(handshake_errors(errors))
            arguments |= found


class _Hook:
    """What is known of a hook while its dependencies are read."""

    def __init__(self, kind: Kind, name: str, room_parameters: Sequence[str]) -> None:
        self.kind = kind
        self.name = name
        self.room_parameters = room_parameters


class Dependencies:
    """What one hook depends on, in the order of the calls.

    Attributes:
        steps: the calls; each needs only those before it.
        arguments: the hook's own: for each the name, and the number of the step whose value it is.
        inputs: what else the hook gets from the handshake; ``None`` if there is nothing.
    """

    def __init__(self, kind: Kind, name: str, injected: Sequence[Injected], room_parameters: Sequence[str]) -> None:
        """
        Args:
            kind: of the hook.
            name: of the hook, in errors.
            injected: its parameters that are not ours.
            room_parameters: names that stand in the pattern of its kind of rooms.

        Raises:
            HookError: a dependency cannot be used, or asks for what there is not in such a hook.
        """
        self._hook = _Hook(kind, name, room_parameters)
        self._root = graph_of(injected, room_parameters, name)
        self._order({})

    def overridden(self, overrides: Mapping[Callable[..., Any], Callable[..., Any]]) -> Dependencies:
        """The same with other callables, as ``dependency_overrides`` of an application has them.

        Raises:
            HookError: one of them cannot be used.
        """
        if not any(node.call in overrides for node in _below(self._root)):
            return self
        other = object.__new__(Dependencies)
        other._hook, other._root = self._hook, self._root
        other._order(overrides)
        return other

    def _order(self, overrides: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        self.steps: list[Step] = []
        self._known: dict[Any, int] = {}
        self.arguments = [(node.name, self._add(node, overrides)) for node in self._root.dependencies]
        inputs = Inputs(self._root, self._hook, self._hook.name)
        self.inputs = inputs if inputs.are_any else None

    def _add(self, node: Any, overrides: Mapping[Callable[..., Any], Callable[..., Any]]) -> int:
        """Add the steps that a node of FastAPI's graph needs, and its own; the number of its own."""
        used, call = node, node.call
        if call in overrides:
            call = overrides[call]
            used = dependant(call, self._hook.room_parameters, self._hook.name)
        arguments = [(each.name, self._add(each, overrides)) for each in used.dependencies]
        what = f"{_name(call)}, which {self._hook.name} depends on,"
        step = Step(node, call, arguments, Inputs(used, self._hook, what))
        if step.use_cache and step.key in self._known:
            return self._known[step.key]
        self.steps.append(step)
        self._known.setdefault(step.key, len(self.steps) - 1)
        return len(self.steps) - 1


def _below(node: Any) -> Iterator[Any]:
    for each in node.dependencies:
        yield each
        yield from _below(each)


def _form(call: Callable[..., Any]) -> Form:
    """How a dependency is called; a decorator's own function does not matter, as long as it returns what it got."""
    called = _called(call)
    for function in (called, unwrap(call)) if not inspect.isclass(call) else (called,):
        if inspect.isasyncgenfunction(function):
            return Form.ASYNC_GENERATOR
        if inspect.isgeneratorfunction(function):
            return Form.GENERATOR
    return Form.ASYNC if inspect.iscoroutinefunction(called) else Form.PLAIN


def _called(call: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(call, functools.partial):
        call = call.func
    if getattr(getattr(call, "__code__", None), "co_filename", None) == contextlib.__file__:
        raise HookError(f"{_name(call)} is a context manager, which nobody would enter: use it without the decorator")
    return call if inspect.isroutine(call) or inspect.isclass(call) else type(call).__call__


def _name(call: Callable[..., Any]) -> str:
    return getattr(call, "__qualname__", "") or type(call).__qualname__


def _refused(hook: _Hook, what: str, parameter: str, asked: str) -> HookError:
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
