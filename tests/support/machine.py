"""What the machine does to a process: what others took of it is not the fault of what is tested."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["beside_others", "lateness", "waited_for_a_processor"]

PAUSE = 0.01
"""Seconds between two looks at how late a loop is."""
WORTH_COUNTING = 0.02
"""Seconds that it has to be late at once."""


def beside_others(seconds: float) -> float:
    """A bound for several processes that do something: three times as long where other tests run at the same time."""
    return seconds * (3 if "PYTEST_XDIST_WORKER" in os.environ else 1)


def waited_for_a_processor(process: int | str = "self") -> float:
    """Seconds in all that the main thread of this or another process was ready to run and had no processor."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9


@asynccontextmanager
async def lateness() -> AsyncIterator[Callable[[], float]]:
    """Until the end of the block, how many seconds in all the loop of this process was held up, whatever by."""
    loop = asyncio.get_running_loop()
    late, due = 0.0, loop.time() + PAUSE

    def so_far() -> float:
        now = loop.time() - due
        return late + (now if now > WORTH_COUNTING else 0.0)

    async def look() -> None:
        nonlocal late, due
        while True:
            await asyncio.sleep(due - loop.time())
            late, due = so_far(), loop.time() + PAUSE

    task = asyncio.create_task(look())
    try:
        yield so_far
    finally:
        task.cancel()
        await asyncio.wait([task])
