"""Clocks that are wrong: what is too old is for the engine to say, and nobody's clock decides what comes."""

from __future__ import annotations

import time

import pytest

from tests.support.remembering import kinds
from tests.support.returning import Ledger
from tests.support.stages import Staging

ROOM = "chat:1"


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("kind", [each for each in kinds() if each.values[0] not in ("memory", "alone")])
async def test_the_clock_of_nodes_is_set(
    kind: str, hours: int, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine of its own does not see it; where the nodes are the engine, the next test looks at what it may do."""
    async with staging(kind) as stage:
        await a_clock_is_set(stage, hours, monkeypatch)


@pytest.mark.parametrize("kind", ["memory", "alone"])
async def test_the_clock_of_everything_is_set_back(
    kind: str, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staging(kind) as stage:
        await a_clock_is_set(stage, -1, monkeypatch)


async def a_clock_is_set(stage, hours: int, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    ledger = Ledger()
    stays, goes = [await ledger.page(name).open(stage.places[0]) for name in ("stays", "goes")]
    for page in (stays, goes):
        await page.join(ROOM)
    await ledger.say_all(stage.brokers[0], ROOM, 5)
    await ledger.reaches(ROOM, 4)
    goes.cut()
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + hours * 3600)
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
