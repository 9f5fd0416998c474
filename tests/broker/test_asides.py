"""Asides: several things that run for no client end as one."""

from __future__ import annotations

import asyncio

from velocity_ws.broker.asides import Asides


class Part:
    """What runs for no client; some of its tasks end in time."""

    def __init__(self, *left: asyncio.Task[None]) -> None:
        self.left = set(left)
        self.asked: list[tuple[float, float]] = []
        self.is_cancelled = False

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        return task in self.left

    async def finish(self, seconds: float, grace: float) -> set[asyncio.Task[None]]:
        self.asked.append((seconds, grace))
        return self.left

    def cancel(self) -> None:
        self.is_cancelled = True


async def test_several_end_as_one() -> None:
    left = [asyncio.create_task(_run()) for _ in range(3)]
    parts = [Part(left[0]), Part(left[1])]
    asides = Asides(lambda: parts)
    assert [asides.runs(task) for task in (*left, None)] == [True, True, False, False]
    assert await asides.finish(2.0, 1.0) == {left[0], left[1]}
    assert [part.asked for part in parts] == [[(2.0, 1.0)], [(2.0, 1.0)]]
    asides.cancel()
    assert all(part.is_cancelled for part in parts)
    await asyncio.wait(left)


async def test_nothing_that_runs_has_ended() -> None:
    assert await Asides(list).finish(1.0, 1.0) == set()


async def _run() -> None:
    """Run, and end."""
