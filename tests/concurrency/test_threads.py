"""Threads: an executor whose threads are started as needed, used again, and keep no process alive."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError

import pytest

from tests.support import DEADLINE
from velocity_ws.concurrency.threads import Threads


def test_results_and_exceptions_come_back() -> None:
    threads = Threads(2, "test")
    assert threads.submit(divmod, 7, 3).result(DEADLINE) == (2, 1)
    failed = threads.submit(divmod, 7, 0)
    with pytest.raises(ZeroDivisionError):
        failed.result(DEADLINE)
    threads.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(divmod, 7, 3)


def test_an_idle_thread_is_used_again_and_there_are_never_too_many() -> None:
    threads = Threads(3, "test")
    names = set()
    for _ in range(5):
        names.add(threads.submit(threading.current_thread).result(DEADLINE).name)
        deadline = time.monotonic() + DEADLINE
        while not threads._idle and time.monotonic() < deadline:
            time.sleep(0.001)  # the pause between two looks whether it is back
    assert len(names) == 1
    go = threading.Event()
    seen = [threads.submit(lambda: (go.wait(DEADLINE), threading.current_thread().name)[1]) for _ in range(10)]
    go.set()
    assert len({future.result(DEADLINE) for future in seen}) <= 3
    threads.shutdown()


def test_what_waits_is_cancelled_and_what_runs_is_not() -> None:
    threads = Threads(1, "test")
    began, go = threading.Event(), threading.Event()

    def work() -> str:
        began.set()
        go.wait(DEADLINE)
        return "done"

    running, waiting = threads.submit(work), threads.submit(work)
    assert began.wait(DEADLINE)
    threads.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(CancelledError):
        waiting.result(DEADLINE)
    go.set()
    assert running.result(DEADLINE) == "done"


def test_slow_calls_do_not_hold_up_others_and_are_bounded() -> None:
    told = threading.Event()
    threads = Threads(2, "test", spare=2, patience=0.05, on_exhausted=told.set)
    go = threading.Event()
    slow = [threads.submit(go.wait, DEADLINE) for _ in range(3)]
    assert threads.submit(divmod, 7, 3).result(DEADLINE) == (2, 1)
    slow += [threads.submit(go.wait, DEADLINE) for _ in range(2)]
    assert told.wait(DEADLINE)
    last = threads.submit(divmod, 7, 3)
    with pytest.raises(TimeoutError):
        last.result(0.2)
    assert len(threads._threads) == 4
    go.set()
    assert last.result(DEADLINE) == (2, 1)
    assert all(future.result(DEADLINE) for future in slow)
    deadline = time.monotonic() + DEADLINE
    while len(threads._threads) > 2 and time.monotonic() < deadline:
        time.sleep(0.005)  # the pause between two looks
    assert len(threads._threads) == 2
    threads.shutdown()


def test_what_is_cancelled_while_it_waits_is_forgotten() -> None:
    class Work:
        def __call__(self) -> None:
            raise AssertionError("never")

    threads = Threads(1, "test")
    go = threading.Event()
    running = threads.submit(go.wait, DEADLINE)
    work = Work()
    gone = weakref.ref(work)
    waiting = threads.submit(work)
    del work
    assert waiting.cancel()
    assert gone() is None, "though its thread still does something else"
    go.set()
    assert running.result(DEADLINE)
    assert threads.submit(divmod, 7, 3).result(DEADLINE) == (2, 1)
    threads.shutdown()


@pytest.mark.skipif(sys.platform != "linux", reason="what bounds memory elsewhere does not bound threads")
def test_where_the_system_has_no_more_threads_the_others_do_the_work() -> None:
    program = """
import resource, threading
from pathlib import Path
from velocity_ws.concurrency.threads import Threads

stack = 256 * 1024 * 1024
threading.stack_size(stack)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + stack * 3 // 2,) * 2)  # room for one thread, and not for two
threads, go = Threads(4, "test"), threading.Event()
running = threads.submit(go.wait, 10)
waiting = [threads.submit(divmod, 7, 3) for _ in range(3)]
assert len(threads._threads) == 1
go.set()
assert running.result(10)
assert [future.result(10) for future in waiting] == [(2, 1)] * 3
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=DEADLINE * 3, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


async def test_it_serves_an_event_loop() -> None:
    threads = Threads(1, "test")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE):
        assert await loop.run_in_executor(threads, divmod, 7, 3) == (2, 1)
    threads.shutdown()


def test_a_thread_that_never_returns_keeps_no_process() -> None:
    program = (
        "import threading\n"
        "from velocity_ws.concurrency.threads import Threads\n"
        "began = threading.Event()\n"
        "Threads(1, 'test').submit(lambda: (began.set(), threading.Event().wait()))\n"
        "began.wait()\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=DEADLINE * 3, check=False).returncode == 0
