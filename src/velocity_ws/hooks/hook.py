"""Hook: one function of the application, checked, and called with the values that it names. Knows no client."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from pydantic import ValidationError

from velocity_ws.errors import HookError
from velocity_ws.hooks.annotations import unwrap, validator
from velocity_ws.hooks.binding import Kind, bind, data_parameter, refuse_wrong_message
from velocity_ws.hooks.options import NO_OPTIONS, HandlerOptions
from velocity_ws.hooks.validation import InvalidDataError, InvalidParameterError, describe_problems

__all__ = ["Hook"]

_ANSWERS_MESSAGES: tuple[Kind, ...] = ("event", "room_event")
_WITH_DATA: tuple[Kind, ...] = ("event", "room_event", "refresh", "node")
"""The kinds whose ``data`` is validated by its annotation."""


class Hook:
    """One registered function of the application: how it is called, and how its data is validated.

    Attributes:
        kind: what it is called for.
        name: what errors and the log call it.
        options: what was said of it beside the function.
    """

    def __init__(
        self,
        kind: Kind,
        function: Callable[..., Any],
        parameters: Sequence[str] = (),
        options: HandlerOptions = NO_OPTIONS,
    ) -> None:
        """
        Args:
            kind: the kind of the hook, which decides what it can ask for.
            function: an ordinary function, a coroutine function, or a callable object.
            parameters: names from the pattern of a kind of rooms, that it can ask for too. Their values are strings,
                validated by the annotation of its parameter of that name.
            options: what is said of it beside the function.

        Raises:
            HookError: the function asks for values that its kind does not get, an annotation that validates is not a
                type, or it cannot be called as a hook.
        """
        if not callable(function):
            raise HookError(f"a hook is a function, not {function!r:.80}; on() is used as @broker.on('event name')")
        self.name = _name(function)
        if inspect.isgeneratorfunction(unwrap(function)) or inspect.isasyncgenfunction(unwrap(function)):
            raise HookError(f"{self.name} is a generator, which nobody would run; a hook returns, and sends as it goes")
        self.kind = kind
        self._function = function
        self._is_async = inspect.iscoroutinefunction(_called(function))
        self.options = options
        self._by_position, self._by_keyword = bind(kind, function, self.name, parameters)
        asked = {*self._by_position, *self._by_keyword.values()}
        if kind in _ANSWERS_MESSAGES:
            refuse_wrong_message(function, asked, self.name)
        parameter = data_parameter(function, self._by_position, self._by_keyword) if kind in _WITH_DATA else None
        self._parameters = [
            (name, found[0]) for name in parameters if name in asked and (found := validator(function, name, self.name))
        ]
        self._validate: Callable[[Any], Any] | None = None
        self._schema: Any = None
        if parameter is not None and (found := validator(function, parameter, self.name)):
            self._validate, self._schema = found
        names = self._by_position
        self._args: Callable[[Mapping[str, Any]], tuple[Any, ...]] = (
            operator.itemgetter(*names) if len(names) > 1 else lambda values: tuple([values[name] for name in names])
        )

    def describe(self, error: InvalidDataError) -> str:
        """Describe invalid data in one line for the log, without anything that the client chose.

        Args:
            error: raised by this hook.
        """
        return describe_problems(error, self._schema)

    async def __call__(self, threads: Executor, values: Mapping[str, Any]) -> Any:
        """Call the function with the values that it asks for. On the broker's loop only.

        A coroutine function runs on the loop, any other in a thread. A thread cannot be stopped: when the call is
        cancelled, the thread goes on, and still counts among those of ``threads``.

        Args:
            threads: the executor for functions that are not coroutine functions.
            values: all values that a hook of this kind can ask for, by name.

        Returns:
            What the function returns.

        Raises:
            InvalidDataError: the annotation of ``data`` does not allow its value.
            InvalidParameterError: an annotation does not allow what the room's name has for its parameter.
            Exception: any exception that the function raises.
        """
        if self._parameters:
            values = self._with_parameters(values)
        if self._validate is not None:
            try:
                values = {**values, "data": self._validate(values["data"])}
            except ValidationError as error:
                raise InvalidDataError(error) from None
        args = self._args(values)
        if self._is_async and not self._by_keyword:
            return await self._function(*args)
        kwargs = {keyword: values[name] for keyword, name in self._by_keyword.items()}
        if self._is_async:
            return await self._function(*args, **kwargs)
        call = functools.partial(contextvars.copy_context().run, _in_thread, self._function, args, kwargs)
        result = await asyncio.get_running_loop().run_in_executor(threads, call)
        return await result if inspect.isawaitable(result) else result

    def validate_parameters(self, values: Mapping[str, Any]) -> None:
        """Check what a room's name has for the parameters, as a call would.

        Raises:
            InvalidParameterError: an annotation does not allow it.
        """
        self._with_parameters(values)

    def _with_parameters(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        validated = dict(values)
        for name, validate in self._parameters:
            try:
                validated[name] = validate(values[name])
            except ValidationError:
                raise InvalidParameterError(name) from None
        return validated


def _in_thread(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:  # which a future cannot carry
        raise RuntimeError(f"StopIteration left {_name(function)}") from error


def _called(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that a call runs: unlike `unwrap`, the decorator and not what it wraps."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function):
        return function
    return type(function).__call__


def _name(function: Callable[..., Any]) -> str:
    name: str = getattr(unwrap(function), "__qualname__", repr(function))
    return name
