"""Clocks that are wrong: what is too old is for the engine to say, and nobody's clock decides what comes."""

from __future__ import annotations

import time

import pytest

from tests.support.remembering import kinds
from tests.support.returning import Ledger
from tests.support.stages import Stage, Staging

ROOM = "chat:1"


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("kind", kinds())
async def test_the_clock_of_nodes_is_set(
    kind: str, hours: int, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back or forth; an engine that is no part of a node does not see it, and one that is does not go back."""
    if hours > 0 and kind in ("memory", "alone"):
        return  # what is an hour older is too old then
    async with staging(kind) as stage:
        await a_clock_is_set(stage, hours * 3600, monkeypatch)


async def a_clock_is_set(stage: Stage, seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = time.time
    ledger = Ledger()
    stays, goes = [await ledger.page(name).open(stage.places[0]) for name in ("stays", "goes")]
    for page in (stays, goes):
        await page.join(ROOM)
    await ledger.say_all(stage.brokers[0], ROOM, 5)
    await ledger.reaches(ROOM, 4)
    goes.cut()
    monkeypatch.setattr(time, "time", lambda: right() + seconds)
    stage.engine.set_clock(0)  # as the one of the nodes says
    await ledger.say_all(stage.brokers[-1], ROOM, 5)
    await goes.open(stage.places[-1])
    answer = await goes.join(ROOM)
    assert (answer["recovered"], answer["missed"]) == (True, 5)
    await ledger.say_all(stage.brokers[0], ROOM, 5)
    monkeypatch.setattr(time, "time", right)
    goes.cut()
    await ledger.say_all(stage.brokers[-1], ROOM, 5)
    await goes.open(stage.places[0])
    await goes.join(ROOM)
    assert await ledger.settles(stage.brokers[0], ROOM) == (42, 0)
    times = [entry.time for entry in await stage.brokers[0].history(ROOM)]
    assert len(times) == 21
    assert times == sorted(times)
    for page in (stays, goes):
        page.cut()
