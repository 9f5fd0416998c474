"""What every `Outbox` does, whatever is behind it: order, bounds, what is told of a loss, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support import DEADLINE, eventually
from tests.support.outboxes import LIMIT, QueueRig, Rig, TransportRig
from velocity_ws.messages.outbound import PreparedMessage, encode

RIGS = {"queue": QueueRig, "transport": TransportRig}


@pytest.fixture(params=RIGS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def rig(kind: str) -> AsyncIterator[Rig]:
    rig = RIGS[kind](False)
    yield rig
    await over(rig)


@pytest.fixture
async def dropping(kind: str) -> AsyncIterator[Rig]:
    rig = RIGS[kind](True)
    yield rig
    await over(rig)


async def over(rig: Rig) -> None:
    rig.outbox.abort()
    async with asyncio.timeout(DEADLINE):
        await rig.outbox.wait_ended()
    assert rig.outbox.has_ended
    assert rig.offer("after the end") == [False]


async def test_messages_arrive_in_order(rig: Rig) -> None:
    assert rig.offer("a", "b") == [True, True]
    await rig.sees("a", "b")
    rig.offer("c")
    assert rig.outbox.offer(PreparedMessage(b"\x00", is_text=False))
    await rig.sees("a", "b", "c", b"\x00")
    assert rig.counters.messages_sent == 4


async def test_order_is_kept_while_the_client_stops_and_goes_on(rig: Rig) -> None:
    expected: list[Any] = []
    for number in range(10):
        rig.offer([number, 1])
        await rig.hold()
        rig.offer([number, 2], [number, 3])
        await asyncio.sleep(0)
        rig.read()
        rig.offer([number, 4])
        expected += [[number, what] for what in (1, 2, 3, 4)]
        await rig.sees(*expected)


async def test_what_waits_is_bounded_and_the_owner_told_once(rig: Rig) -> None:
    await rig.hold()
    answers = rig.offer(*["x" * 80] * 30)
    accepted = answers.count(True)
    assert 5 <= accepted <= 12
    assert answers == [True] * accepted + [False] * (30 - accepted)
    assert rig.owner.full == 1
    assert rig.counters.slow_closes == 1
    rig.read()
    await eventually(lambda: "close 1013" in rig.seen)
    assert rig.counters.dropped + rig.counters.messages_sent == 30


async def test_a_message_over_the_limit_goes_out_where_nothing_waits(rig: Rig) -> None:
    await rig.hold()
    assert rig.offer("x" * LIMIT * 2) == [True]
    assert rig.offer("y") == [False]
    rig.read()


async def test_empty_messages_are_bounded_too(dropping: Rig) -> None:
    await dropping.hold()
    accepted = sum([dropping.outbox.offer(PreparedMessage(b"", is_text=False)) for _ in range(LIMIT * 3)])
    assert accepted == LIMIT
    dropping.read()


async def test_a_gap_is_told_before_what_comes_after_it(dropping: Rig) -> None:
    await dropping.hold()
    dropping.offer("x" * (LIMIT - 30))
    assert dropping.offer("y" * 50, "z" * 60) == [False, False]
    dropping.read()
    await dropping.sees("x" * (LIMIT - 30), "gap 2")
    dropping.offer("on")
    await dropping.sees("x" * (LIMIT - 30), "gap 2", "on")
    assert dropping.owner.full == 0
    assert dropping.counters.dropped == 2


async def test_the_close_comes_last_and_the_first_counts(rig: Rig) -> None:
    await rig.hold()
    rig.offer("a", "b")
    rig.outbox.close(4000, "")
    rig.outbox.close(4001, "")
    assert rig.offer("c") == [False]
    rig.read()
    await rig.sees("a", "b", "close 4000")
    assert rig.counters.dropped == 1


async def test_a_close_may_discard_what_waits(rig: Rig) -> None:
    await rig.hold()
    rig.offer("a", "b", "c")
    rig.outbox.close(4000, "", discard=True)
    rig.read()
    await eventually(lambda: "close 4000" in rig.seen)
    assert rig.counters.dropped + rig.counters.messages_sent == 3
    assert rig.counters.dropped >= 2


async def test_an_abort_drops_and_counts_what_waits(rig: Rig) -> None:
    await rig.hold()
    rig.offer("a", "b")
    rig.outbox.abort()
    rig.outbox.abort()
    rig.outbox.close(4000, "")
    rig.read()
    async with asyncio.timeout(DEADLINE):
        await rig.outbox.wait_ended()
    assert rig.counters.dropped == 2
    assert rig.seen == []


# --- waiting until nothing else waits


def puts(rig: Rig, *data: Any, seconds: float = DEADLINE) -> list[asyncio.Task[bool]]:
    """Tasks that wait to send, each begun before the next is made."""
    return [asyncio.create_task(rig.outbox.put(encode("e", item), seconds)) for item in data]


async def waiting(rig: Rig, *data: Any, seconds: float = DEADLINE) -> list[asyncio.Task[bool]]:
    """The client reads nothing, one message waits for it, and so do these tasks, to send more."""
    await rig.hold()
    rig.offer("first")
    await asyncio.sleep(0)
    tasks = puts(rig, *data, seconds=seconds)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def test_who_waits_to_send_is_let_in_when_the_client_has_read(rig: Rig) -> None:
    tasks = await waiting(rig, "second", "third", "fourth")
    rig.read()
    await rig.sees("first", "second", "third", "fourth")
    assert await asyncio.gather(*tasks) == [True] * 3
    assert await rig.outbox.put(encode("e", "fifth"), DEADLINE)
    await rig.sees("first", "second", "third", "fourth", "fifth")


async def test_who_waits_takes_nothing_of_the_queue_from_others(rig: Rig) -> None:
    tasks = await waiting(rig, *["x" * LIMIT] * 5)
    assert rig.offer(*["y" * 100] * 7) == [True] * 7
    rig.read()
    await rig.sees("first", *["y" * 100] * 7, *["x" * LIMIT] * 5)
    assert all(await asyncio.gather(*tasks))
    assert rig.owner.full == 0


async def test_who_only_waits_is_told_when_nothing_waits(rig: Rig) -> None:
    assert await rig.outbox.put(None, DEADLINE)
    await rig.hold()
    rig.offer("a", "b")
    drained = asyncio.create_task(rig.outbox.put(None, DEADLINE))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not drained.done()
    rig.read()
    assert await drained
    await rig.sees("a", "b")


async def test_what_was_offered_in_the_same_turn_has_left_when_nothing_waits(rig: Rig) -> None:
    rig.offer("a", "b")
    assert await rig.outbox.put(None, DEADLINE)
    assert rig.counters.messages_sent == 2
    await rig.sees("a", "b")


async def test_who_gives_up_waiting_sends_nothing_and_holds_up_nobody(rig: Rig) -> None:
    tasks = await waiting(rig, "cancelled", "last")
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    rig.read()
    await rig.sees("first", "last")
    assert await tasks[1]
    assert rig.counters.dropped == 1


async def test_a_client_that_reads_too_late_is_too_slow(rig: Rig) -> None:
    (task,) = await waiting(rig, "late", seconds=0.02)
    with pytest.raises(TimeoutError):
        await task
    assert (rig.owner.full, rig.counters.slow_closes) == (1, 1)
    assert rig.counters.dropped >= 1


async def test_to_wait_too_long_for_nothing_to_wait_changes_nothing(rig: Rig) -> None:
    await waiting(rig)
    with pytest.raises(TimeoutError):
        await rig.outbox.put(None, 0.02)
    assert rig.owner.full == rig.counters.dropped == 0
    rig.read()
    await rig.sees("first")


async def test_a_gap_is_told_of_what_was_dropped_too_late(dropping: Rig) -> None:
    (task,) = await waiting(dropping, "late", seconds=0.02)
    with pytest.raises(TimeoutError):
        await task
    (task,) = puts(dropping, "in time")
    await asyncio.sleep(0)
    dropping.read()
    await dropping.sees("first", "gap 1", "in time")


@pytest.mark.parametrize("end", ["close", "discard", "abort"])
async def test_the_end_is_told_to_who_waits(rig: Rig, end: str) -> None:
    tasks = await waiting(rig, "second", "third")
    drained = asyncio.create_task(rig.outbox.put(None, DEADLINE))
    await asyncio.sleep(0)
    if end == "abort":
        rig.outbox.abort()
    else:
        rig.outbox.close(4000, "", discard=end == "discard")
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.gather(*tasks, drained) == [False] * 3
        assert not await rig.outbox.put(encode("e", "after"), DEADLINE)
    rig.read()
    await eventually(lambda: rig.counters.dropped + rig.counters.messages_sent == 4)
    assert rig.counters.dropped >= 3


async def test_one_that_sends_on_and_on_leaves_others_their_turns(rig: Rig) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(others())
    for _ in range(100):
        assert await rig.outbox.put(encode("e", "x" * 100), DEADLINE)
    other.cancel()
    assert turns >= 10  # a burst is half of LIMIT


actions = st.lists(
    st.one_of(st.integers(1, 400), st.integers(-400, -1), st.sampled_from(["hold", "read", "turn"])),
    max_size=40,
)
"""Numbers are the sizes of messages; who sends one below 0 waits for room."""


@pytest.mark.parametrize("name", RIGS)
@hypothesis_settings(max_examples=100, deadline=None)
@given(actions, st.booleans(), st.sampled_from(["close", "discard", "abort"]))
def test_every_message_is_sent_or_counted(name: str, script: list[int | str], drop: bool, end: str) -> None:
    async def scenario() -> None:
        rig = RIGS[name](drop)
        offered: list[tuple[int, bool]] = []
        tasks: list[tuple[int, asyncio.Task[bool]]] = []
        for number, action in enumerate(script):
            if action == "hold":
                await rig.hold()
            elif action == "read":
                rig.read()
            elif action == "turn":
                await asyncio.sleep(0)
            elif isinstance(action, int) and action < 0:
                tasks.append((number, puts(rig, [number, "x" * -action])[0]))
                await asyncio.sleep(0)
            else:
                assert isinstance(action, int)
                offered.append((number, rig.offer([number, "x" * action])[0]))
        if end == "abort":
            rig.outbox.abort()
        else:
            rig.outbox.close(1000, "", discard=end == "discard")
        offered += [(number, await task) for number, task in tasks]
        rig.read()
        for _ in range(20):
            await asyncio.sleep(0)
        await over(rig)
        gaps = [int(item.split()[1]) for item in rig.seen if isinstance(item, str) and item.startswith("gap")]
        numbers = [item[0] for item in rig.seen if isinstance(item, list)]
        waited = {number for number, _ in tasks}
        for order in ([n for n in numbers if n in waited], [n for n in numbers if n not in waited]):
            assert order == sorted(order)
        assert set(numbers) <= {number for number, queued in offered if queued}
        assert rig.counters.messages_sent == len(numbers) + len(gaps)
        # One more was offered after the end; and a gap that is discarded itself is a message that was dropped.
        dropped_gaps = len(numbers) + rig.counters.dropped - 1 - len(offered)
        assert 0 <= dropped_gaps <= sum(not queued for _, queued in offered)

    asyncio.run(scenario())
