"""When outboxes are flushed: at the end of the turn, and where that takes long, in the turns after it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from tests.support.clocks import HandClock
from velocity_ws.delivery.flusher import AT_ONCE, SECONDS_PER_TURN, Flusher

MANY = 20 * AT_ONCE
clock = HandClock()


@pytest.fixture(autouse=True)
def _by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes in what takes long alone, and not while this process has no processor."""
    monkeypatch.setattr("velocity_ws.delivery.flusher.time", SimpleNamespace(perf_counter=clock))


class Slow:
    """An outbox whose transport takes its time: so much that those between two looks at the clock take a turn."""

    def __init__(self, flushed: list[object], *, fails: bool = False) -> None:
        self._flushed = flushed
        self._fails = fails
        self.is_aborted = False

    def flush(self) -> None:
        clock.advance(1.01 * SECONDS_PER_TURN / AT_ONCE)
        if self._fails:
            raise OSError("gone")
        self._flushed.append(self)

    def abort(self) -> None:
        self.is_aborted = True


async def until_flushed(flushed: list[object], count: int) -> int:
    """The turns of the loop until so many are flushed."""
    turns = 0
    async with asyncio.timeout(10):
        while len(flushed) < count:
            await asyncio.sleep(0)
            turns += 1
    return turns


async def test_what_takes_long_leaves_the_loop_its_turns() -> None:
    flushed: list[object] = []
    flusher = Flusher()
    outboxes = [Slow(flushed) for _ in range(MANY)]
    for outbox in outboxes:
        flusher.add(outbox)
    assert await until_flushed(flushed, MANY) > 5
    assert flushed == outboxes


async def test_who_is_given_a_message_meanwhile_does_not_wait_for_all() -> None:
    flushed: list[object] = []
    flusher = Flusher()
    for _ in range(MANY):
        flusher.add(Slow(flushed))
    await until_flushed(flushed, 1)
    late = Slow(flushed)
    flusher.add(late)
    await until_flushed(flushed, MANY + 1)
    assert flushed.index(late) < MANY / 2


async def test_two_that_take_long_are_both_flushed() -> None:
    flushed: list[object] = []
    flusher = Flusher()
    outboxes = [Slow(flushed) for _ in range(2 * MANY)]
    for outbox in outboxes[:MANY]:
        flusher.add(outbox)
    await until_flushed(flushed, 1)
    for outbox in outboxes[MANY:]:
        flusher.add(outbox)
    await until_flushed(flushed, 2 * MANY)
    assert set(flushed) == set(outboxes)
    assert len(flushed) == 2 * MANY


async def test_one_that_raises_late_is_aborted_and_costs_no_other_its_turn(caplog: pytest.LogCaptureFixture) -> None:
    flushed: list[object] = []
    flusher = Flusher()
    outboxes = [Slow(flushed, fails=number == MANY - 2) for number in range(MANY)]
    for outbox in outboxes:
        flusher.add(outbox)
    await until_flushed(flushed, MANY - 1)
    assert [outbox.is_aborted for outbox in outboxes] == [number == MANY - 2 for number in range(MANY)]
    assert "is cut" in caplog.text


async def test_on_a_busy_loop_the_rest_has_half_of_the_time() -> None:
    flushed: list[object] = []
    flusher = Flusher()
    for _ in range(MANY):
        flusher.add(Slow(flushed))
    turns = 0
    async with asyncio.timeout(10):
        while len(flushed) < MANY:
            clock.advance(5 * SECONDS_PER_TURN)
            await asyncio.sleep(0)
            turns += 1
    assert turns < 10  # 20 slices, of which a turn has 5


async def test_an_exception_that_nobody_expects_costs_the_others_nothing() -> None:
    class Broken(Slow):
        def abort(self) -> None:
            raise OSError("twice")

    flushed: list[object] = []
    flusher = Flusher()
    said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    for number in range(MANY):
        flusher.add(Broken(flushed, fails=number == MANY - 2) if number == MANY - 2 else Slow(flushed))
    await until_flushed(flushed, MANY - AT_ONCE)
    for _ in range(MANY):
        flusher.add(Slow(flushed))
    await until_flushed(flushed, 2 * MANY - AT_ONCE)
    assert said
