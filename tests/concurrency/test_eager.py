"""TaskPool: tasks lent to whoever has something to run; it begins at once, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from tests.support import DEADLINE, eventually
from velocity_ws.concurrency.eager import KEEP, EagerTask, Suspended, TaskPool, first_step

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")


async def test_what_does_not_wait_is_over_at_once_and_its_task_is_lent_again() -> None:
    workers = TaskPool()
    tasks: list[asyncio.Task[object] | None] = []

    async def brief() -> None:
        tasks.append(asyncio.current_task())

    for _ in range(3):
        worker = workers.take()
        assert worker.step(brief()) is None
        workers.give_back(worker)
    assert tasks == [worker.task] * 3
    await workers.stop()
    assert worker.task.done()


async def test_what_waits_goes_on_in_its_task_and_in_its_context() -> None:
    workers = TaskPool()
    go = asyncio.Event()
    seen: list[tuple[str, bool]] = []
    context = contextvars.copy_context()
    context.run(variable.set, "its own")

    async def work(worker: EagerTask) -> None:
        for _ in range(2):
            seen.append((variable.get(), asyncio.current_task() is worker.task))
            await go.wait()
            await asyncio.sleep(0)
        variable.set("changed")

    worker = workers.take()
    rest = worker.step(work(worker), context)
    assert rest is not None
    worker.drive(rest)
    worker.end()
    other = workers.take()
    assert other is not worker, "it is busy"
    workers.give_back(other)
    go.set()
    await eventually(worker.task.done)
    assert seen == [("its own", True), ("its own", True)]
    assert context[variable] == "changed"
    assert variable.get() == ""
    assert workers.take() is other
    other.end()
    await workers.stop()


async def test_a_cancelled_one_is_not_lent_again() -> None:
    workers = TaskPool()

    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    worker = workers.take()
    worker.step(cancels_itself())
    workers.give_back(worker)
    assert workers.take() is not worker
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(asyncio.CancelledError):
            await worker.task


async def test_only_so_many_are_kept() -> None:
    workers = TaskPool()
    lent = [workers.take() for _ in range(KEEP + 5)]
    for worker in lent:
        workers.give_back(worker)
    await eventually(lambda: sum(worker.task.done() for worker in lent) == 5)
    await workers.stop()
    assert all(worker.task.done() for worker in lent)


async def test_a_context_without_any_variable_is_one_too() -> None:
    workers = TaskPool()
    go = asyncio.Event()
    context = contextvars.Context()
    seen: list[str] = []

    async def work() -> None:
        variable.set("within")
        await go.wait()
        seen.append(variable.get())

    worker = workers.take()
    rest = worker.step(work(), context)
    assert rest is not None
    assert context[variable] == "within"
    worker.drive(rest)
    worker.end()
    go.set()
    await eventually(worker.task.done)
    assert seen == ["within"]


@pytest.mark.parametrize("is_lent", [True, False])
async def test_one_that_is_cancelled_before_its_first_turn_tells_what_was_begun_in_it(is_lent: bool) -> None:
    workers = TaskPool()
    heard: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.append("cancelled")
            await asyncio.sleep(0)
            heard.append("cleaned up")
            raise

    worker = workers.take() if is_lent else EagerTask()
    rest = worker.step(work())
    assert rest is not None
    worker.drive(rest)
    worker.end()
    assert worker.task.cancel()
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(asyncio.CancelledError):
            await worker.task
    assert heard == ["cancelled", "cleaned up"]
    assert worker.task.cancelled()


async def test_a_cancellation_before_the_first_turn_may_be_taken_back() -> None:
    worker = EagerTask()
    worker.task.cancel()
    assert worker.task.uncancel() == 0
    worker.end()
    async with asyncio.timeout(DEADLINE):
        await worker.task
    assert not worker.task.cancelled()


async def test_what_does_not_wait_is_over_in_its_first_step() -> None:
    tasks: list[asyncio.Task[object] | None] = []

    async def brief(error: Exception | None) -> None:
        tasks.append(asyncio.current_task())
        if error is not None:
            raise error

    assert first_step(brief(None)) is None
    with pytest.raises(LookupError):
        first_step(brief(LookupError()))
    assert tasks == [asyncio.current_task()] * 2


@pytest.mark.parametrize("waits_for", ["a future", "a turn"])
async def test_the_rest_of_what_waits_is_awaited_in_the_same_task(waits_for: str) -> None:
    tasks: list[asyncio.Task[object] | None] = []

    async def work() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0 if waits_for == "a turn" else 0.001)
        tasks.append(asyncio.current_task())

    rest = first_step(work())
    assert isinstance(rest, Suspended)
    async with asyncio.timeout(DEADLINE):
        await rest
    assert tasks == [asyncio.current_task()] * 2


async def test_a_deadline_that_begins_after_the_first_step_ends_the_rest() -> None:
    seen: list[type[BaseException]] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            seen.append(type(error))
            raise

    rest = first_step(work())
    assert isinstance(rest, Suspended)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):  # which is over already
            await rest
    assert seen == [asyncio.CancelledError]
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]


class Holder:
    """Borrows a task, and notes what became of its work."""

    def __init__(self) -> None:
        self.worker: EagerTask | None = None
        self.seen: list[object] = []

    async def work(self, waits_for: asyncio.Event | None = None, error: BaseException | None = None) -> None:
        assert self.worker is not None
        try:
            self.seen.append(asyncio.current_task() is self.worker.task)
            if waits_for is not None:
                await waits_for.wait()
            self.seen.append((variable.get(), asyncio.current_task() is self.worker.task))
            if error is not None:
                raise error
        finally:
            self.worker = None


async def test_what_is_run_in_a_lent_task_is_over_at_once_or_keeps_the_task() -> None:
    workers, holder, go = TaskPool(), Holder(), asyncio.Event()
    context = contextvars.copy_context()
    context.run(variable.set, "its own")
    here = asyncio.current_task()
    spare = workers.take()
    workers.give_back(spare)
    workers.run(holder, holder.work(), context)
    assert holder.seen == [True, ("its own", True)]
    assert asyncio.current_task() is here
    assert workers.take() is spare
    workers.give_back(spare)
    workers.run(holder, holder.work(go), context)
    assert holder.worker is spare
    assert asyncio.current_task() is here
    assert workers.take() is not spare
    go.set()
    await eventually(spare.task.done)
    assert holder.seen[2:] == [True, ("its own", True)]
    await workers.stop()


async def test_an_exception_of_what_is_run_goes_no_further_and_ends_the_task() -> None:
    workers, holder = TaskPool(), Holder()
    spare = workers.take()
    workers.give_back(spare)
    workers.run(holder, holder.work(error=ValueError("no")), contextvars.copy_context())
    await eventually(spare.task.done)
    assert workers.take() is not spare
    for error in (KeyboardInterrupt(), SystemExit()):
        with pytest.raises(type(error)):
            workers.run(holder, holder.work(error=error), contextvars.copy_context())
    assert asyncio.current_task() is not None
    await workers.stop()


async def test_what_is_run_outside_of_a_task_leaves_none_behind() -> None:
    workers, holder = TaskPool(), Holder()
    loop = asyncio.get_running_loop()
    after: list[object] = []

    def run() -> None:
        workers.run(holder, holder.work(), contextvars.copy_context())
        after.append(asyncio.current_task(loop))

    loop.call_soon(run)
    await eventually(lambda: after == [None])
    assert holder.seen == [True, ("", True)]
    await workers.stop()
