"""Dependencies: what a hook depends on, read by FastAPI once and put in order here. Calls nothing; knows no client."""

from __future__ import annotations

import contextlib
import enum
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from velocity_ws.errors import HookError
from velocity_ws.hooks.annotations import unwrap
from velocity_ws.hooks.binding import Kind
from velocity_ws.hooks.fastapi import Injected, dependant, graph_of, scopes_of
from velocity_ws.hooks.inputs import HookOfInputs, Inputs

__all__ = ["Dependencies", "Form", "Step"]


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
        is_of_room: whether its value is that of the room of its hook, and not of others that share the message.
        concurrency: FastAPI's limit of calls at once; ``None`` where there is none.
        is_simple: whether it is a coroutine function without such a limit.
    """

    __slots__ = ("arguments", "call", "concurrency", "form", "inputs", "is_of_room", "is_simple", "key", "use_cache")

    def __init__(
        self, node: Any, call: Callable[..., Any], arguments: list[tuple[str, int]], inputs: Inputs, *, is_of_room: bool
    ) -> None:
        self.form = _form(call)
        self.call = _MANAGERS.get(self.form, _itself)(call)  # once, as it takes longer than the call
        self.is_of_room = is_of_room
        self.key = (call, tuple(sorted(scopes_of(node))), is_of_room)
        self.use_cache: bool = node.use_cache
        self.arguments = arguments
        self.inputs = inputs if inputs.are_any else None
        self.concurrency: Any = getattr(node, "concurrency", None)
        self.is_simple = self.form is Form.ASYNC and self.concurrency is None


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
        self._hook = HookOfInputs(kind, name, room_parameters)
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
        if getattr(call, "__hash__", None) is None:
            raise HookError(f"{_name(call)}, which {self._hook.name} depends on, has no hash: freeze the dataclass")
        if call in overrides:
            call = overrides[call]
            used = dependant(call, self._hook.room_parameters, self._hook.name)
        arguments = [(each.name, self._add(each, overrides)) for each in used.dependencies]
        what = f"{_name(call)}, which {self._hook.name} depends on,"
        inputs = Inputs(used, self._hook, what)
        is_of_room = inputs.are_of_room or any(self.steps[number].is_of_room for _, number in arguments)
        step = Step(node, call, arguments, inputs, is_of_room=is_of_room)
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
