"""Many who come to a room and go at any moment, while others speak there: as one seed has it, again and again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from websockets.exceptions import ConnectionClosed

from tests.support.returning import Ledger, Page
from tests.support.stages import Stage

__all__ = ["BROKEN", "speak", "wander"]

BROKEN = (ConnectionClosed, ConnectionResetError)
"""What a request raises whose connection has ended."""


async def speak(stage: Stage, ledger: Ledger, room: str, chance: random.Random, count: int, rate: float) -> None:
    """Say so many numbers at about this rate, on any node."""
    for _ in range(count):
        await ledger.insist(chance.choice(stage.speakers), room)
        await asyncio.sleep(chance.expovariate(rate))


async def wander(page: Page, stage: Stage, room: str, chance: random.Random, is_over: Callable[[], bool]) -> None:
    """Come to any node, lose the connection at any moment, and come back; at the end, stay."""
    while not is_over():
        await page.open(chance.choice(stage.places))
        page.cut_after = chance.choice([None, None, 1, 2, chance.randint(3, 20)])
        joining = asyncio.ensure_future(page.join(room))
        if chance.random() < 0.7:
            await asyncio.wait([joining])
        await asyncio.sleep(chance.choice([0, 0.001, chance.uniform(0, 0.04)]))
        page.cut()
        await asyncio.wait([joining])
        if (error := joining.exception()) is not None and not isinstance(error, BROKEN):
            raise error
        await asyncio.sleep(chance.choice([0, chance.uniform(0, 0.03)]))
    await page.comes_back(chance.choice(stage.places), [room])
