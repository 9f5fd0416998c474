"""Registry: the application's hooks, checked at registration, called with the values they name. Knows no client."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticKnownError

from velocity_ws.errors import HookError
from velocity_ws.hooks.annotations import names_in, unwrap, validator
from velocity_ws.hooks.binding import ARGUMENTS, Kind, bind, data_parameter, refuse_wrong_message
from velocity_ws.logs import printable
from velocity_ws.messages.names import MAX_NAME_LENGTH

__all__ = ["Hook", "Hooks", "InvalidDataError", "validate_event"]

F = TypeVar("F", bound=Callable[..., Any])

MAX_DETAILS = 50
"""Problems that an ``INVALID_DATA`` lists; if there are more, it tells only their number."""
MAX_DESCRIBED = 5
"""Problems that one line of the log names."""


class InvalidDataError(Exception):
    """The annotation of ``data`` does not allow what a client sent; becomes the answer ``INVALID_DATA``.

    Attributes:
        details: for each problem ``loc`` (a list of keys and indices), ``msg`` and ``type``, as pydantic has them.
    """

    def __init__(self, error: ValidationError) -> None:
        super().__init__(f"{error.error_count()} problems")
        self.details: list[dict[str, Any]]
        if error.error_count() > MAX_DETAILS:
            # To list them costs far more than to find them, and a client chooses how many there are.
            self.details = [{"loc": [], "msg": f"{error.error_count()} problems", "type": "too_many_problems"}]
            return
        self.details = [
            {"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]}
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]


class Hook:
    """One registered function of the application: how it is called, and how its data is validated."""

    def __init__(self, kind: Kind, function: Callable[..., Any]) -> None:
        """
        Args:
            kind: the kind of the hook, which decides what it can ask for.
            function: an ordinary function, a coroutine function, or a callable object.

        Raises:
            HookError: the function asks for values that its kind does not get, the annotation of its data is not a
                type, or it cannot be called as a hook.
        """
        if not callable(function):
            raise HookError(f"a hook is a function, not {function!r:.80}; on() is used as @broker.on('event name')")
        self.name = _name(function)
        if inspect.isgeneratorfunction(unwrap(function)) or inspect.isasyncgenfunction(unwrap(function)):
            raise HookError(f"{self.name} is a generator, which nobody would run; a hook returns, and sends as it goes")
        self._function = function
        self._is_async = inspect.iscoroutinefunction(_called(function))
        self._by_position, self._by_keyword = bind(kind, function, self.name)
        if kind == "event":
            refuse_wrong_message(function, {*self._by_position, *self._by_keyword.values()}, self.name)
        parameter = data_parameter(function, self._by_position, self._by_keyword) if kind == "event" else None
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
        ours = names_in(self._schema)
        problems = []
        for item in error.details[:MAX_DESCRIBED]:
            where = ".".join([str(part) if isinstance(part, int) or part in ours else "…" for part in item["loc"]])
            problems.append(": ".join(filter(None, [where, _why(item)])))
        return printable("; ".join(problems) + ("; …" if len(error.details) > MAX_DESCRIBED else ""))

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
            Exception: any exception that the function raises.
        """
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


def _in_thread(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:  # which a future cannot carry
        raise RuntimeError(f"StopIteration left {_name(function)}") from error


class Hooks:
    """All hooks of one broker, in order of registration."""

    def __init__(self) -> None:
        self._by_kind: dict[Kind, list[Hook]] = {kind: [] for kind in ARGUMENTS}
        self._by_event: dict[str, Hook] = {}

    def register(self, kind: Kind, function: F) -> F:
        """Add a function as a hook, and return it unchanged, as decorators do.

        Raises:
            HookError: the function cannot be a hook of that kind.
        """
        self._by_kind[kind].append(Hook(kind, function))
        return function

    def register_event(self, event: str, function: F) -> F:
        """Make a function the handler of an event, and return it unchanged, as decorators do.

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
        """Return the hooks of one kind, in order of registration."""
        return self._by_kind[kind]

    def handler(self, event: str) -> Hook | None:
        """Return the handler of an event; ``None`` if it has none."""
        return self._by_event.get(event)

    def events(self) -> list[str]:
        """Return the sorted names of the events that have a handler."""
        return sorted(self._by_event)


def validate_event(event: str) -> str:
    """Check the name of an event that a handler is registered for, and return it.

    Raises:
        HookError: it is not a string of 1 to 256 characters.
    """
    if not isinstance(event, str) or not 0 < len(event) <= MAX_NAME_LENGTH:
        raise HookError(
            f"on() takes the event's name, 1 to {MAX_NAME_LENGTH} characters, as in @broker.on('chat_message'); "
            f"it got {event!r:.80}"
        )
    return event


def _why(problem: dict[str, Any]) -> str:
    """Return pydantic's message if it is the same for every value, else its type: the message may quote the client."""
    kind: str = problem["type"]
    try:
        template = PydanticKnownError(kind).message_template  # type: ignore[arg-type]
    except (KeyError, TypeError):  # of the application, or one with values in it
        template = ""
    return template if template == problem["msg"] else kind.replace("_", " ")


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
