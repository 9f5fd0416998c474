"""Calls: one that is overdue, or fails, ends the connection; and none outlives it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.support import eventually
from velocity_ws.history.calls import PATIENCE, SLICES, Calls


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_call_that_is_overdue_fails_the_connection_and_others_do_not() -> None:
    failures: list[Exception] = []
    calls = Calls(0.06)
    calls.begin(failures.append)
    for _ in range(2 * PATIENCE * SLICES):
        await calls.answer(asyncio.sleep(0.005))
    assert failures == []
    started = asyncio.get_running_loop().time()
    calls.start(calls.answer(forever()))
    await eventually(lambda: failures)
    assert asyncio.get_running_loop().time() >= started + PATIENCE * 0.06
    assert [str(error) for error in failures] == ["it did not answer within 0.12 s"]
    await calls.end()


async def test_a_task_that_fails_fails_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(error: Exception) -> None:
        raise error

    failures: list[Exception] = []
    calls = Calls(5)
    calls.begin(failures.append)
    calls.start(fail(ConnectionResetError("it is gone")))
    await eventually(lambda: failures)
    assert (str(failures[0]), caplog.records) == ("it is gone", [])
    calls.start(fail(ValueError("of the store itself")))
    await eventually(lambda: len(failures) == 2)
    assert isinstance(failures[1], OSError)
    assert [(record.levelno, bool(record.exc_info)) for record in caplog.records] == [(logging.ERROR, True)]
    await calls.end()


async def test_the_end_waits_for_a_task_that_swallows_its_cancellation() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await forever()
            except asyncio.CancelledError:
                swallowed += 1

    failures: list[Exception] = []
    calls = Calls(5)
    calls.begin(failures.append)
    task = calls.start(stubborn())
    await asyncio.sleep(0)
    await calls.end()
    assert (task.done(), swallowed, failures) == (True, 2, [])
