"""Scope: the values that dependencies have for one message, and their ends when it has been handled. Knows no graph.

Written by hand beside FastAPI's solver, whose graph is used: see docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import weakref
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any, Self

from velocity_ws.hooks.dependencies import Dependencies, Form, Step
from velocity_ws.logs import get_logger

__all__ = ["SCOPE", "Scope", "Surroundings", "in_thread", "waiting_task"]

log = get_logger("velocity_ws.hooks")

PATIENCE = 0.5
"""Seconds for which the end of a plain dependency is waited for by who was cancelled, so that what it depends on ends
after it. A thread that takes longer goes on alone."""
SCOPE = "$scope"
"""The key of the scope among the values of a hook; no parameter has such a name."""
_waiting: contextvars.ContextVar[weakref.ref[asyncio.Task[Any]] | None] = contextvars.ContextVar(
    "velocity_ws_waiting", default=None
)

End = Callable[[BaseException | None], Awaitable[Any]]


class Surroundings:
    """What dependencies have of the broker that they run in.

    Attributes:
        broker: the broker itself.
        apps: the applications that it was attached to.
    """

    def __init__(self, broker: object = None) -> None:
        self.broker = broker
        self.apps: list[Any] = []

    def overrides(self, values: Mapping[str, Any]) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        """``dependency_overrides`` of the application that serves a client, as they are now: tests set them late."""
        request = values.get("request") or getattr(values.get("client"), "request", None)
        serving = () if request is None else (request.scope.get("app"),)
        for app in (*serving, *self.apps):
            overrides: Mapping[Callable[..., Any], Callable[..., Any]] | None = getattr(
                app, "dependency_overrides", None
            )
            if overrides:
                return overrides
        return {}


class Scope:
    """What lives as long as one message, handshake or other occasion of hooks. On the broker's loop only.

    After the hooks `end` or `failed` is to be called, which ``async with`` does.
    """

    __slots__ = ("_ends", "_exit_threads", "_surroundings", "_values")

    def __init__(self, surroundings: Surroundings, exit_threads: Callable[[], Executor]) -> None:
        """
        Args:
            surroundings: what dependencies have of the broker.
            exit_threads: gives threads that nothing else takes: what waits for a connection of a pool must not keep
                those out that give one back.
        """
        self._surroundings = surroundings
        self._exit_threads = exit_threads
        self._values: dict[Any, Any] = {}
        self._ends: list[End] | None = None

    @property
    def broker(self) -> object:
        """The broker whose hooks are called."""
        return self._surroundings.broker

    async def solve(self, dependencies: Dependencies, threads: Executor, values: Mapping[str, Any]) -> dict[str, Any]:
        """Call what a hook depends on, each once, and return the arguments that it gets of that.

        Args:
            dependencies: those of the hook.
            threads: for dependencies that are plain functions.
            values: what the hook has, by name.

        Raises:
            InvalidHandshakeError: the handshake does not have what a dependency asks for.
            Exception: what a dependency raises.
        """
        if overrides := self._surroundings.overrides(values):
            dependencies = dependencies.overridden(overrides)
        known = self._values
        solved: list[Any] = []
        for step in dependencies.steps:
            if step.use_cache and step.key in known:
                solved.append(known[step.key])
                continue
            arguments = {name: solved[number] for name, number in step.arguments}
            if step.inputs is not None:
                step.inputs.collect({**values, "broker": self._surroundings.broker}, arguments)
            if step.is_simple:  # by far the most common
                value = await step.call(**arguments)
            elif step.concurrency is None:
                value = await self._call(step, arguments, threads)
            else:
                value = await self._call_in_turn(step, arguments, threads)
            solved.append(value)
            known.setdefault(step.key, value)
        arguments = {name: solved[number] for name, number in dependencies.arguments}
        if dependencies.inputs is not None:
            dependencies.inputs.collect({**values, "broker": self._surroundings.broker}, arguments)
        return arguments

    async def _call(self, step: Step, arguments: dict[str, Any], threads: Executor) -> Any:
        if step.form is Form.ASYNC_GENERATOR:
            return await self._enter(step.call(**arguments))
        if step.form is Form.GENERATOR:
            return await self._enter_in_thread(step.call(**arguments), threads)
        if step.form is Form.ASYNC:
            return await step.call(**arguments)
        result = await in_thread(threads, step.call, (), arguments)
        return await result if inspect.isawaitable(result) else result

    async def _call_in_turn(self, step: Step, arguments: dict[str, Any], threads: Executor) -> Any:
        """Call what FastAPI limits the calls at once of; what has an end counts until then."""
        turn = step.concurrency.get_semaphore()
        if step.form in (Form.ASYNC, Form.PLAIN):
            async with turn:
                return await self._call(step, arguments, threads)
        await self._enter(turn)
        return await self._call(step, arguments, threads)

    # --- what has an end

    async def _enter(self, manager: contextlib.AbstractAsyncContextManager[Any]) -> Any:
        value = await manager.__aenter__()
        self._add(lambda error: manager.__aexit__(*_parts(error)))
        return value

    async def _enter_in_thread(self, manager: contextlib.AbstractContextManager[Any], threads: Executor) -> Any:
        """Enter in a thread, and end in another. A thread cannot be stopped: what it entered too late is ended too."""
        context = _context_of_thread()
        entering = threads.submit(context.run, manager.__enter__)
        exits = self._exit_threads()

        def end_late(entered: Future[Any]) -> None:
            if not entered.cancelled() and entered.exception() is None:
                late = exits.submit(context.run, manager.__exit__, None, None, None)
                late.add_done_callback(_report_late)

        async def end(error: BaseException | None) -> None:
            exit_ = exits.submit(context.run, manager.__exit__, *_parts(error))
            ended = asyncio.wrap_future(exit_)
            ended.add_done_callback(_retrieve)
            try:
                await asyncio.wait([ended])  # as one that waits for a thread would be dropped with who waits for it
            except asyncio.CancelledError:
                exit_.add_done_callback(_report_late)
                await asyncio.wait([ended], timeout=PATIENCE)
                raise
            ended.result()

        try:
            value = await asyncio.wrap_future(entering)
        except asyncio.CancelledError:
            if not entering.cancelled():
                entering.add_done_callback(end_late)
            raise
        self._add(end)
        return value

    def _add(self, end: End) -> None:
        if self._ends is None:
            self._ends = []
        self._ends.append(end)

    async def end(self) -> None:
        """End what dependencies have entered, the last first. Does nothing if that is done.

        Raises:
            Exception: what the end of one has raised; the others have been ended all the same.
        """
        if self._ends and (failure := await self._end(None)) is not None:
            try:
                raise failure
            finally:
                del failure  # whose traceback refers to this frame

    async def failed(self, error: BaseException) -> BaseException:
        """End what dependencies have entered, the last first, and throw into each what a hook has raised.

        A dependency that swallows it does not hide it. What an end raises takes its place; but not that of a
        cancellation, beside which it is logged.

        Args:
            error: what the hook has raised.

        Returns:
            What is to be dealt with.

        Raises:
            CancelledError: this was cancelled meanwhile.
        """
        if not self._ends:
            return error
        failure = await self._end(error)
        try:
            if isinstance(failure, asyncio.CancelledError) and failure is not error:
                raise failure
            return failure or error
        finally:
            del failure

    async def _end(self, outcome: BaseException | None) -> BaseException | None:
        while self._ends:
            try:
                await self._ends.pop()(outcome)
            except BaseException as failure:
                if failure is not outcome and isinstance(outcome, asyncio.CancelledError):
                    _report(failure)
                else:
                    outcome = failure
        return outcome

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.end()
            return
        failure = await self.failed(error)
        try:
            if failure is not error:
                raise failure
        finally:
            del failure


async def in_thread(
    threads: Executor, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a plain function in a thread, with the caller's context variables, and return what it returns."""
    call = functools.partial(_context_of_thread().run, _without_stop, function, args, kwargs)
    return await asyncio.get_running_loop().run_in_executor(threads, call)


def waiting_task() -> asyncio.Task[Any] | None:
    """The task that waits for the thread in which, or on whose behalf, this is called; ``None`` where none does."""
    task = _waiting.get()
    return None if task is None else task()


def _context_of_thread() -> contextvars.Context:
    """The caller's context variables, and who waits; what the thread has done on the loop sees them, too."""
    context = contextvars.copy_context()
    task = asyncio.current_task()
    context.run(_waiting.set, None if task is None else weakref.ref(task))
    return context


def _without_stop(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:  # which a future cannot carry
        name = getattr(function, "__qualname__", type(function).__qualname__)
        raise RuntimeError(f"StopIteration left {name}") from error


def _parts(error: BaseException | None) -> tuple[Any, Any, Any]:
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


def _retrieve(ended: asyncio.Future[Any]) -> None:
    if not ended.cancelled():
        ended.exception()


def _report_late(exit_: Future[Any]) -> None:
    if not exit_.cancelled() and not isinstance(error := exit_.exception(), asyncio.CancelledError | None):
        _report(error)


def _report(error: BaseException) -> None:
    log.error("a dependency failed to end, after what had depended on it was cancelled", exc_info=error)
