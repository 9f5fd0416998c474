"""Turns: one at a time for one thing, in the order they came, and nothing of it is left."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import DEADLINE, eventually
from velocity_ws.streams.turns import Turns


async def test_one_thing_is_had_one_after_the_other_and_others_at_the_same_time() -> None:
    turns = Turns()
    had: list[str] = []
    go_on = {name: asyncio.Event() for name in ("a1", "a2", "b1")}

    async def want(name: str) -> None:
        async with turns.alone(name[0]):
            had.append(name)
            await go_on[name].wait()

    async with asyncio.TaskGroup() as group:
        for name in go_on:
            group.create_task(want(name))
        await eventually(lambda: len(had) == 2)
        assert had == ["a1", "b1"]
        assert len(turns) == 2
        go_on["a1"].set()
        await eventually(lambda: had == ["a1", "b1", "a2"])
        go_on["a2"].set()
        go_on["b1"].set()
    assert not len(turns)


async def test_one_that_is_cancelled_while_it_waits_or_fails_gives_its_turn_on() -> None:
    turns = Turns()

    async def want() -> None:
        async with turns.alone("a"):
            raise AssertionError("it was cancelled before")

    async def fail() -> None:
        async with turns.alone("a"):
            task = asyncio.create_task(want())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            raise ValueError("it failed")

    with pytest.raises(ValueError, match="it failed"):
        await fail()
    async with asyncio.timeout(DEADLINE), turns.alone("a"):
        assert len(turns) == 1
    assert not len(turns)
