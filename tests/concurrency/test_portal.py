"""The broker's loop, reached from itself, from other loops and from plain threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from tests.support import DEADLINE
from velocity_ws.concurrency.portal import KERNEL_IS_ASKED, Portal
from velocity_ws.errors import BrokerError, WouldDeadlockError


class LoopThread:
    """An event loop of its own, in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def call(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), self.loop).result(DEADLINE)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE)

    def close(self) -> None:
        if not self.loop.is_closed():
            self.stop()
            self.loop.close()


@pytest.fixture
def other() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    if thread.thread.is_alive():
        thread.stop()
    thread.close()


@pytest.fixture
def home(other: LoopThread) -> Portal:
    """A home whose loop runs in a thread."""
    home = Portal()
    home.settle(other.loop)
    return home


async def where(*args: object) -> tuple[asyncio.AbstractEventLoop, tuple[object, ...]]:
    """The loop this runs on, after a turn of it, and the arguments."""
    await asyncio.sleep(0)
    return asyncio.get_running_loop(), args


class Boom(Exception):
    pass


async def fail() -> None:
    await asyncio.sleep(0)
    raise Boom("boom")


class Endless:
    """Runs until it is cancelled, and says when it starts and when it was."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self) -> None:
        self.started.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def in_thread(function: Callable[[], object]) -> Any:
    async with asyncio.timeout(DEADLINE):
        return await asyncio.to_thread(function)


def home_here() -> Portal:
    """A home whose loop is the one this is called on."""
    home = Portal()
    home.settle(asyncio.get_running_loop())
    return home


# --- which loop


def test_no_loop_at_first() -> None:
    assert Portal().loop is None


async def test_settle() -> None:
    home = Portal()
    home.settle(asyncio.get_running_loop())
    assert home.loop is asyncio.get_running_loop()
    home.settle(None)
    assert home.loop is None


def test_a_closed_loop_is_none() -> None:
    loop = asyncio.new_event_loop()
    home = Portal()
    home.settle(loop)
    assert home.loop is loop
    loop.close()
    assert home.loop is None


# --- run


async def test_run_on_its_own_loop_is_a_plain_call() -> None:
    home = home_here()
    task = asyncio.current_task()

    async def current() -> object:
        return asyncio.current_task()

    assert await home.run(current) is task
    assert await home.run(where, 1, "two") == (asyncio.get_running_loop(), (1, "two"))


async def test_run_from_another_loop_runs_at_home(home: Portal, other: LoopThread) -> None:
    async with asyncio.timeout(DEADLINE):
        assert await home.run(where, 1, "two") == (other.loop, (1, "two"))


async def test_run_does_not_block_the_loop_it_is_awaited_on(home: Portal) -> None:
    turns = 0
    release = threading.Event()

    async def wait() -> None:
        await asyncio.to_thread(release.wait, DEADLINE)

    task = asyncio.ensure_future(home.run(wait))
    for _ in range(10):
        await asyncio.sleep(0)
        turns += not task.done()
    release.set()
    await task
    assert turns == 10


async def test_run_without_a_loop_runs_here() -> None:
    assert await Portal().run(where, 1) == (asyncio.get_running_loop(), (1,))


async def test_run_after_the_loop_was_closed_runs_here(home: Portal, other: LoopThread) -> None:
    other.close()
    assert await home.run(where) == (asyncio.get_running_loop(), ())


async def test_run_on_a_stopped_loop_says_so(home: Portal, other: LoopThread) -> None:
    other.stop()
    # Were the coroutine left behind, the warning that it was never awaited would fail this test.
    with pytest.raises(BrokerError, match="not running"):
        await home.run(where)


async def test_run_passes_exceptions_on(home: Portal) -> None:
    with pytest.raises(Boom, match="boom"):
        await home.run(fail)
    here = home_here()
    with pytest.raises(Boom, match="boom"):
        await here.run(fail)


async def test_run_passes_cancellation_on(home: Portal) -> None:
    endless = Endless()
    task = asyncio.ensure_future(home.run(endless))
    await in_thread(lambda: endless.started.wait(DEADLINE))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await in_thread(lambda: endless.cancelled.wait(DEADLINE)), "it does not run on for nobody"


async def test_run_hears_of_a_cancellation_at_home(home: Portal) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await home.run(cancelled)


# --- block


async def test_block_from_a_thread() -> None:
    home = home_here()
    assert await in_thread(lambda: home.block(where, 1, "two")) == (asyncio.get_running_loop(), (1, "two"))


def test_block_from_the_main_thread(home: Portal, other: LoopThread) -> None:
    assert home.block(where, 1) == (other.loop, (1,))


async def test_block_from_many_threads_at_once() -> None:
    home = home_here()
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        calls = [loop.run_in_executor(executor, home.block, where, n) for n in range(100)]
        async with asyncio.timeout(DEADLINE):
            results = await asyncio.gather(*calls)
    assert results == [(loop, (n,)) for n in range(100)]


async def test_block_on_its_own_loop_says_what_to_do() -> None:
    home = home_here()
    with pytest.raises(WouldDeadlockError) as caught:
        home.block(where)
    for part in ("where", "own event loop", "wait for itself", "await", ".sync"):
        assert part in str(caught.value)


async def test_block_on_another_loop_waits_for_home(home: Portal, other: LoopThread) -> None:
    # That loop stands still meanwhile, which is what was asked for; it is no deadlock.
    assert home.block(where, 1) == (other.loop, (1,))


def test_block_without_a_loop_runs_to_the_end() -> None:
    loop, args = Portal().block(where, 1)
    assert args == (1,)
    assert loop.is_closed()


async def test_block_without_a_loop_on_a_loop_runs_to_the_end() -> None:
    loop, args = Portal().block(where, 1)
    assert args == (1,)
    assert loop is not asyncio.get_running_loop()
    assert loop.is_closed()


def test_block_after_the_loop_was_closed_runs_to_the_end(home: Portal, other: LoopThread) -> None:
    other.close()
    loop, _ = home.block(where)
    assert loop is not other.loop


def test_block_on_a_stopped_loop_says_so(home: Portal, other: LoopThread) -> None:
    other.stop()
    with pytest.raises(BrokerError, match="not running") as caught:
        home.block(where)
    assert not isinstance(caught.value, WouldDeadlockError)


def test_block_passes_exceptions_on(home: Portal) -> None:
    with pytest.raises(Boom, match="boom"):
        home.block(fail)
    with pytest.raises(Boom, match="boom"):
        Portal().block(fail)


async def test_block_passes_exceptions_on_from_the_loop_of_its_own_making() -> None:
    with pytest.raises(Boom, match="boom"):
        Portal().block(fail)


def test_block_hears_of_a_cancellation_at_home(home: Portal, other: LoopThread) -> None:
    endless = Endless()
    ended: list[BaseException] = []

    def call() -> None:
        try:
            home.block(endless)
        except (asyncio.CancelledError, concurrent.futures.CancelledError) as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert endless.started.wait(DEADLINE)

    async def cancel_all_others() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    other.call(cancel_all_others)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert len(ended) == 1


def test_a_loop_that_is_stopped_while_another_or_a_thread_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.concurrency.portal.LOOK_AGAIN", 0.02)
    loop = asyncio.new_event_loop()
    home = Portal()
    home.settle(loop)
    begun = threading.Semaphore(0)

    async def never() -> None:
        begun.release()
        await asyncio.Event().wait()

    async def elsewhere() -> None:
        await home.run(never)

    failures: list[BaseException] = []

    def note(call: Callable[[], None]) -> None:
        try:
            call()
        except BrokerError as error:
            failures.append(error)

    runs = threading.Thread(target=loop.run_forever)
    waits = [
        threading.Thread(target=note, args=(lambda: asyncio.run(elsewhere()),)),
        threading.Thread(target=note, args=(lambda: home.block(never),)),
    ]
    for thread in (runs, *waits):
        thread.start()
    for _ in waits:
        assert begun.acquire(timeout=5)
    loop.call_soon_threadsafe(loop.stop)
    for thread in (runs, *waits):
        thread.join(5)
    assert len(failures) == 2
    assert all("stopped" in str(failure) for failure in failures)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.mark.skipif(not KERNEL_IS_ASKED, reason="the loop is asked for each time")
async def test_what_is_run_by_the_loop_is_here_and_what_another_thread_does_meanwhile_is_not(other: LoopThread) -> None:
    home = Portal()
    home.settle(asyncio.get_running_loop())

    async def is_here() -> bool:
        return home.is_here

    async def run() -> asyncio.AbstractEventLoop:
        return (await home.run(where))[0]

    home.thread = threading.get_ident()
    assert await is_here()
    assert await run() is home.loop
    assert not await asyncio.to_thread(other.call, is_here)
    assert await asyncio.to_thread(other.call, run) is home.loop
    home.thread = None
    assert await is_here()
    assert not await asyncio.to_thread(other.call, is_here)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no forks")
def test_a_fork_made_while_the_loop_runs_something_is_not_its_loop() -> None:
    program = """
import os, threading
from velocity_ws.concurrency.portal import Portal

portal = Portal()
portal.thread = threading.get_ident()
if (child := os.fork()) == 0:
    os._exit(portal.thread is not None)
assert portal.thread is not None
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=DEADLINE * 3)
