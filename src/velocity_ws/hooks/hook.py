"""Hook: one function of the application, checked, and called with the values that it names. Knows no client."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, get_args

from pydantic import ValidationError

from velocity_ws.errors import HookError
from velocity_ws.hooks.annotations import resolved, signature_of, unwrap, validator
from velocity_ws.hooks.answers import answering
from velocity_ws.hooks.binding import ARGUMENTS, Kind, bind, data_parameter, refuse_wrong_message
from velocity_ws.hooks.dependencies import Dependencies
from velocity_ws.hooks.fastapi import Injected, injected
from velocity_ws.hooks.injected import name_of_value
from velocity_ws.hooks.options import NO_OPTIONS, HandlerOptions
from velocity_ws.hooks.scope import SCOPE, Scope, in_thread
from velocity_ws.hooks.validation import (
    InvalidDataError,
    InvalidParameterError,
    describe_problems,
    is_written_in_one_way,
)
from velocity_ws.messages.inbound import Message

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
        dependencies: what it depends on, for a `Scope` to call; ``None`` if nothing.
        needs_scope: whether it is called with a `Scope` among its values: for its dependencies, or for the broker.
        is_direct: whether a message is handled by `begin`, and nothing else: no scope, no thread, no other task, no
            login.
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
        self._is_async = inspect.iscoroutinefunction(_called(function))
        is_answer = kind in _ANSWERS_MESSAGES
        self._function = answering(function, self.name, is_async=self._is_async) if is_answer else function
        self.options = options
        found, problems = _injected(kind, function, self.name, parameters)
        self.dependencies = Dependencies(kind, self.name, found, parameters) if found else None
        self._brokers = _of_broker(kind, function, [*parameters, *[each for each, _, _ in found]])
        self.needs_scope = bool(found or self._brokers)
        self.is_direct = kind == "event" and self._is_async and not (self.needs_scope or options.concurrent)
        theirs = [*[each for each, _, _ in found], *self._brokers]
        try:
            self._by_position, self._by_keyword = bind(kind, function, self.name, [*parameters, *theirs])
        except HookError as error:
            raise HookError("; ".join([str(error), *problems])) from None
        asked = {*self._by_position, *self._by_keyword.values()}.difference(theirs)
        if kind in _ANSWERS_MESSAGES:
            refuse_wrong_message(function, asked, self.name)
        parameter = None
        if kind in _WITH_DATA and "data" in asked:
            parameter = data_parameter(function, self._by_position, self._by_keyword)
        self._parameters = [
            (name, by[0], is_written_in_one_way(by[1]))
            for name in parameters
            if name in asked and (by := validator(function, name, self.name))
        ]
        self._validate: Callable[[Any], Any] | None = None
        self._schema: Any = None
        if parameter is not None and (by := validator(function, parameter, self.name)):
            self._validate, self._schema = by
        self._is_usual = self._by_position == ("client", "data") and not self._by_keyword
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

    def begin(self, client: object, message: Message) -> Awaitable[Any]:
        """Call a handler that `is_direct`, as a call of this does in more steps. On the broker's loop only.

        Args:
            client: who sent the message.
            message: the message.

        Returns:
            What has to be awaited at once: it returns, and raises, what a call of this does.

        Raises:
            InvalidDataError: the annotation of ``data`` does not allow its value.
            Exception: what the function raises before there is something to await.
        """
        data = message.data
        if self._validate is not None:
            try:
                data = self._validate(data)
            except ValidationError as error:
                raise InvalidDataError(error) from None
        result: Awaitable[Any]
        if self._is_usual:  # by far the most common
            result = self._function(client, data)
        else:
            values = {"client": client, "data": data, "message": message}
            kwargs = {keyword: values[name] for keyword, name in self._by_keyword.items()}
            result = self._function(*self._args(values), **kwargs)
        return result

    async def __call__(self, threads: Executor, values: Mapping[str, Any]) -> Any:
        """Call the function with the values that it asks for. On the broker's loop only.

        A coroutine function runs on the loop, any other in a thread. A thread cannot be stopped: when the call is
        cancelled, the thread goes on, and still counts among those of ``threads``.

        Args:
            threads: the executor for functions that are not coroutine functions.
            values: all values that a hook of this kind can ask for, by name; and if it has dependencies, the scope.

        Returns:
            What the function returns; of a handler, what its return annotation makes of that.

        Raises:
            InvalidDataError: the annotation of ``data`` does not allow its value.
            InvalidParameterError: an annotation does not allow what the room's name has for its parameter.
            InvalidHandshakeError: the handshake does not have what a dependency asks for.
            InvalidAnswerError: a handler's return annotation does not allow what it has returned.
            Exception: any exception that the function, or a dependency, raises.
        """
        given = values
        if self._parameters:
            values = self._with_parameters(values)
        if self._validate is not None:
            try:
                values = {**values, "data": self._validate(values["data"])}
            except ValidationError as error:
                raise InvalidDataError(error) from None
        if self.needs_scope:
            scope: Scope = given[SCOPE]
            values = {**values, **dict.fromkeys(self._brokers, scope.broker)}
            if self.dependencies is not None:  # last, so that what does not fit opens no session
                values |= await scope.solve(self.dependencies, threads, given)
        args = self._args(values)
        if self._is_async and not self._by_keyword:
            return await self._function(*args)
        kwargs = {keyword: values[name] for keyword, name in self._by_keyword.items()}
        if self._is_async:
            return await self._function(*args, **kwargs)
        result = await in_thread(threads, self._function, args, kwargs)
        return await result if inspect.isawaitable(result) else result

    def validate_parameters(self, values: Mapping[str, Any]) -> None:
        """Check what a room's name has for the parameters, as a call would.

        Raises:
            InvalidParameterError: an annotation does not allow it.
        """
        self._with_parameters(values)

    def _with_parameters(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        validated = dict(values)
        for name, validate, is_exact in self._parameters:
            try:
                value = validated[name] = validate(values[name])
            except ValidationError:
                raise InvalidParameterError(name) from None
            if is_exact and str(value) != values[name]:
                raise InvalidParameterError(name)
        return validated


def _injected(
    kind: Kind, function: Callable[..., Any], name: str, parameters: Sequence[str]
) -> tuple[list[Injected], list[str]]:
    """The parameters of a hook that dependencies fill, or the handshake; and why some could not be looked at."""
    try:
        signature = signature_of(function)
    except (TypeError, ValueError):
        return [], []  # which binding refuses
    ours = {*ARGUMENTS[kind], *parameters}
    annotations, problems = resolved(function)
    found = []
    for parameter in signature.parameters.values():
        annotation = annotations.get(parameter.name, parameter.empty)
        if each := injected(parameter, annotation, name, is_ours=parameter.name in ours):
            found.append(each)
    said = [f"the annotation of {each!r} cannot be resolved: {why}" for each, why in problems.items()]
    return found, said


def _of_broker(kind: Kind, function: Callable[..., Any], others: Sequence[str]) -> list[str]:
    """The parameters of a hook that get the broker: by the annotation, or by the name where nothing else is said."""
    try:
        signature = signature_of(function)
    except (TypeError, ValueError):
        return []
    annotations, _ = resolved(function)
    found = []
    for parameter in signature.parameters.values():
        if parameter.name in {*ARGUMENTS[kind], *others} or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        annotation = annotations.get(parameter.name, parameter.empty)
        is_said = "broker" in map(name_of_value, (annotation, *get_args(annotation)))
        if is_said or (parameter.name == "broker" and annotation in (parameter.empty, Any, object)):
            found.append(parameter.name)
    return found


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
