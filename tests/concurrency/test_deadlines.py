"""Deadlines: what is late is acted upon in order, and one that fails costs no other its own."""

from __future__ import annotations

import asyncio

from velocity_ws.concurrency.deadlines import BATCH, Deadlines


async def test_what_is_late_is_acted_upon_in_order_and_what_was_stopped_is_not() -> None:
    acted: list[int] = []
    over = asyncio.Event()

    def act(item: int) -> None:
        acted.append(item)
        if item == 0:
            deadlines.stop(1)
            deadlines.stop(2)
            deadlines.start(2)  # anew, and so behind all others
        elif item == 2:
            over.set()

    deadlines: Deadlines[int] = Deadlines(asyncio.get_running_loop(), 0.05, act)
    for item in range(3 * BATCH):
        deadlines.start(item)
    await asyncio.wait_for(over.wait(), 30)
    assert acted == [0, *range(3, 3 * BATCH), 2]
    assert not len(deadlines)


async def test_one_that_raises_costs_no_other_its_deadline() -> None:
    loop = asyncio.get_running_loop()
    failures: list[object] = []
    over = asyncio.Event()
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def act(item: str) -> None:
        if item == "fails":
            raise ValueError(item)
        over.set()

    deadlines: Deadlines[str] = Deadlines(loop, 0.01, act)
    deadlines.start("fails")
    deadlines.start("follows")
    await asyncio.wait_for(over.wait(), 30)
    assert [str(failure) for failure in failures] == ["fails"]
