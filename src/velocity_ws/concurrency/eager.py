"""EagerTask: runs coroutines in one task, each at once, up to its first wait. Knows nothing of what they do.

Most coroutines here never have to wait: a handler that only computes and sends, a ``send`` whose socket has room. A
task for each would cost two turns of the event loop, 3 to 6 µs of the 16 to 22 µs a delivery takes with uvicorn.
Python 3.12 has eager tasks; this works on 3.11 too, and its task is made once and not for each coroutine. `TaskPool`
lends such tasks, as few clients have a coroutine running at any time. A coroutine that does not wait shares its task
with those that run before and after it: it must not hand the task to code that would cancel it later.

Once Python 3.11 goes, hooks may have a task of their own, and `TaskPool` may go: ``asyncio.Task(eager_start=True)``
takes 0.7 µs for what does not wait (3.12, 3.13), a task that is lent 1.0, an `EagerTask` for each 4.1.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio.tasks import _enter_task, _leave_task  # documented for those who implement tasks
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, Final, Protocol

__all__ = ["Borrower", "EagerTask", "Suspended", "TaskPool", "first_step"]

KEEP = 64
"""Idle tasks that a pool keeps for the next use."""
_RETURNED: Final = object()
"""In place of the exception that says that a coroutine has returned: to raise and to catch it takes 0.1 µs."""


class _Task(asyncio.Task[None]):
    """A task that is not cancelled before its first turn, but in it.

    One that has not begun would end without running, and what an `EagerTask` had begun in it would never go on, nor
    hear that it was cancelled.
    """

    has_begun = False
    is_to_end = False

    def begin(self) -> None:
        """Its first turn has come."""
        self.has_begun = True
        if self.is_to_end:
            self.cancel()

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it, or note that until it has begun."""
        if self.has_begun:
            return super().cancel(msg)
        self.is_to_end = True
        return True

    def uncancel(self) -> int:
        """Take one cancellation back; how many are left."""
        if self.has_begun:
            return super().uncancel()
        self.is_to_end = False
        return 0


class EagerTask:
    """One task that runs coroutines, one at a time. Used on the event loop that it was made on.

    A coroutine sees this task as the current one, and one context, from its first step to its last: it leaves timeouts,
    cancel scopes and context variables in the task in which it entered them.

    Attributes:
        task: the task; it ends after `end` or `cancel`.
        is_busy: whether a coroutine is running, or waiting for something.
    """

    def __init__(self) -> None:
        context = contextvars.copy_context()
        self.is_busy = False
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._work: Awaitable[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._ending = False
        self.task = _Task(self._serve(), loop=self._loop, context=context)

    def run(self, work: Awaitable[None]) -> None:
        """Run a coroutine: up to its first wait now, the rest in the task. Must not be called while `is_busy`."""
        self.is_busy = True
        try:
            rest = self.step(work)
        finally:
            self.is_busy = False
        if rest is not None:
            self.drive(rest)

    def step(self, work: Awaitable[None], context: contextvars.Context | None = None) -> Suspended | None:
        """Run a coroutine up to its first wait. The caller must set `is_busy`, if other calls may come meanwhile.

        Args:
            work: the coroutine.
            context: the context that it runs in; by default the one that this task was made in.

        Returns:
            ``None`` if the coroutine has returned, else its rest, which must be awaited by the work given to `drive`.

        Raises:
            BaseException: any exception that the coroutine raises.
        """
        loop, task = self._loop, self.task
        current = asyncio.current_task(loop)
        if current is not None:
            _leave_task(loop, current)
        _enter_task(loop, task)
        try:
            steps = work.__await__()
            waits_for = (self._context if context is None else context).run(next, steps, _RETURNED)
            return None if waits_for is _RETURNED else Suspended(steps, waits_for, context)
        finally:
            _leave_task(loop, task)
            if current is not None:
                _enter_task(loop, current)

    def drive(self, work: Awaitable[None]) -> None:
        """Run a coroutine in the task, beginning in a later turn of the loop."""
        self.is_busy = True
        self._work = work
        self._wake_up()

    def end(self) -> None:
        """End the task as soon as no coroutine runs in it. Nothing may be run after that."""
        self._ending = True
        self._wake_up()

    def cancel(self) -> None:
        """Cancel the coroutine that is running, and end the task."""
        self._ending = True
        self.task.cancel()

    async def wait_ended(self, timeout: float | None = None) -> bool:
        """Wait until the task has ended, for ``timeout`` seconds at most; return whether it has."""
        await asyncio.wait([self.task], timeout=timeout)
        return self.task.done()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _serve(self) -> None:
        self.task.begin()
        try:
            while True:
                if self._work is not None:
                    work, self._work = self._work, None
                    await work
                    self.is_busy = False
                elif self._ending:
                    return
                else:
                    self._wake = self._loop.create_future()
                    try:
                        await self._wake
                    except asyncio.CancelledError:
                        if self._work is None:
                            raise
                        # It was meant for what was begun in this task before the task got to it (a timeout that
                        # ended at once), so it is raised again, there.
                        self.task.uncancel()
                        self.task.cancel()
                    self._wake = None
        finally:
            if isinstance(self._work, Suspended | Coroutine):
                self._work.close()
            del self  # whose task keeps its cancellation, whose traceback refers to this frame


class Borrower(Protocol):
    """Runs something in a task that is lent to it, its ``worker``."""

    worker: EagerTask | None


class TaskPool:
    """Idle `EagerTask`s, lent to callers with a coroutine to run, and used again. Used on one event loop."""

    def __init__(self) -> None:
        self._idle: list[EagerTask] = []
        self._ending: set[asyncio.Task[None]] = set()

    def take(self) -> EagerTask:
        """Return an idle task. A caller whose coroutine ends at once gives it back; one that has to wait keeps it."""
        while self._idle:
            worker = self._idle.pop()
            task = worker.task
            if not task.done() and not task.cancelling() and not task.is_to_end:
                return worker
        return EagerTask()

    def give_back(self, worker: EagerTask) -> None:
        """Take back a task that has nothing to run any more."""
        if len(self._idle) < KEEP:
            self._idle.append(worker)
        else:
            self.end(worker)

    def run(self, borrower: Borrower, work: Coroutine[Any, Any, None], context: contextvars.Context) -> None:
        """Lend a task for one coroutine, which runs up to its first wait now. The rest runs in the task, its own then.

        The borrower has the task before that begins, which takes it away again at its end. Of its exceptions only those
        go further that end the process.
        """
        # With `EagerTask.step` written out: 0.15 µs for each message.
        worker = borrower.worker = self.take()
        loop, task = worker._loop, worker.task
        current = asyncio.current_task(loop)
        if current is not None:
            _leave_task(loop, current)
        _enter_task(loop, task)
        steps = work.__await__()
        try:
            waits_for = context.run(next, steps, _RETURNED)
        except BaseException as error:
            worker.end()
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
        else:
            if waits_for is _RETURNED:
                self.give_back(worker)
            else:  # the task ends with it: what it left with others, they may cancel or await
                worker.drive(Suspended(steps, waits_for, context))
                worker.end()
        finally:
            _leave_task(loop, task)
            if current is not None:
                _enter_task(loop, current)

    async def stop(self) -> None:
        """End all idle tasks, and wait until they have ended."""
        while self._idle:
            self.end(self._idle.pop())
        if self._ending:
            await asyncio.wait(self._ending)

    def end(self, worker: EagerTask) -> None:
        """Let a task end that has nothing to run any more, and is not to be lent again."""
        worker.end()
        self._ending.add(worker.task)
        worker.task.add_done_callback(self._ending.discard)


class Suspended:
    """A coroutine that was run up to a wait; awaiting this runs the rest."""

    def __init__(self, steps: Iterator[Any], waits_for: Any, context: contextvars.Context | None = None) -> None:
        """
        Args:
            steps: the iterator of the coroutine's steps.
            waits_for: the future that it yielded last.
            context: the context that it was begun in; ``None`` for the context of the task that awaits this.
        """
        self._steps = steps
        self._waits_for = waits_for
        self._context = context

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for, self._waits_for = self._waits_for, None
        try:
            while True:
                try:
                    yield waits_for
                except BaseException as error:
                    waits_for = None  # it may keep the error, whose traceback refers to this frame
                    # Passed on, whatever it is: a cancellation belongs to the coroutine we stand in for.
                    if not isinstance(self._steps, Generator):
                        raise
                    waits_for = self._go_on(self._steps.throw, error)
                else:
                    waits_for = self._go_on(next, self._steps)
        except StopIteration as end:
            return end.value

    def _go_on(self, function: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return function(argument) if self._context is None else self._context.run(function, argument)
        finally:
            del argument  # which may be an error, whose traceback refers to this frame

    def close(self) -> None:
        """Close the coroutine, as its rest will not be run."""
        if isinstance(self._steps, Generator):
            self._steps.close()


def first_step(work: Awaitable[None]) -> Suspended | None:
    """Run a coroutine up to its first wait, in the task that calls this.

    Returns:
        ``None`` if it has returned, else its rest, which the same task must await.

    Raises:
        BaseException: any exception that the coroutine raises.
    """
    steps = work.__await__()
    waits_for = next(steps, _RETURNED)
    return None if waits_for is _RETURNED else Suspended(steps, waits_for)
