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
from velocity_ws.delivery.losses import MAX_ROOMS
from velocity_ws.messages.outbound import PreparedMessage, encode, make_lossy, placed

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


def placed_at(number: int, room: str = "chat", size: int = 10, key: str = "") -> PreparedMessage:
    """The message of a room with history that stands at a number."""
    return placed(encode("e", "x" * size).payload, room, f"{room}-{number}", f"{room}-{number - 1}", key)


def gap(room: str, missed: int, before: int, at: int) -> dict[str, Any]:
    """What tells of messages of a room that were dropped."""
    return {"room": room, "missed": missed, "reason": "dropped", "from": f"{room}-{before}", "at": f"{room}-{at}"}


async def test_what_is_dropped_of_rooms_with_history_is_told_by_their_positions(dropping: Rig) -> None:
    await dropping.hold()
    first = "x" * (LIMIT - 30)
    dropping.offer(first)
    offered = [
        *(placed_at(7), placed_at(8), placed_at(3, "tea"), encode("e", "z" * 60)),
        *(placed_at(9), encode("e", "z" * 60), placed_at(4, "tea")),
    ]
    assert [dropping.outbox.offer(message) for message in offered] == [False] * 7
    dropping.read()
    lost: list[Any] = [gap("chat", 3, 6, 9), gap("tea", 2, 2, 4), "gap 2"]
    await dropping.sees(first, *lost)
    assert dropping.owner.lost == [("chat", "chat-6", "chat-9"), ("tea", "tea-2", "tea-4")]
    assert dropping.counters.dropped == 7
    # What comes later is told by itself.
    await dropping.hold()
    dropping.offer(first)
    assert not dropping.outbox.offer(placed_at(12))
    dropping.read()
    await dropping.sees(first, *lost, first, gap("chat", 1, 11, 12))
    assert dropping.owner.lost[2:] == [("chat", "chat-11", "chat-12")]


async def test_who_loses_something_of_more_rooms_than_can_be_told_is_closed(dropping: Rig) -> None:
    await dropping.hold()
    dropping.offer("x" * (LIMIT - 30))
    for number in range(MAX_ROOMS):
        assert not dropping.outbox.offer(placed_at(1, f"room-{number}"))
    assert dropping.owner.full == 0
    for _ in range(2):
        assert not dropping.outbox.offer(placed_at(1, "one-more"))
    assert (dropping.owner.full, dropping.counters.slow_closes) == (1, 1)


async def test_no_message_of_a_room_comes_between_those_of_one_gap(dropping: Rig) -> None:
    await dropping.hold()
    dropping.offer("x" * (LIMIT - 200))
    assert not dropping.outbox.offer(placed_at(1, size=500))
    assert dropping.outbox.offer(placed_at(2))  # which fits
    assert not dropping.outbox.offer(placed_at(3, size=500))
    dropping.read()
    await dropping.sees("x" * (LIMIT - 200), gap("chat", 1, 0, 1), "x" * 10, gap("chat", 1, 2, 3))


async def test_of_a_room_of_which_the_newest_counts_what_was_replaced_is_not_lost(dropping: Rig) -> None:
    await dropping.hold()
    for number in range(1, 9):
        assert dropping.outbox.offer(placed_at(number, size=number, key="k"))
    dropping.offer("x" * LIMIT)
    dropping.read()
    await eventually(lambda: "gap 1" in dropping.seen)
    assert dropping.seen[-2:] == ["x" * 8, "gap 1"]
    assert dropping.owner.lost == []


async def test_where_a_slow_client_is_closed_nobody_is_told_of_a_position(rig: Rig) -> None:
    await rig.hold()
    rig.offer("x" * (LIMIT - 30))
    assert not rig.outbox.offer(placed_at(7))
    assert rig.owner.full == 1
    rig.read()
    await eventually(lambda: "close 1013" in rig.seen)
    assert rig.owner.lost == []


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


# --- messages that may be lost on purpose


def lossy(data: Any, *, volatile: bool = False, key: str | None = None, event: str = "e") -> PreparedMessage:
    message = encode(event, data)
    make_lossy(message, volatile=volatile, key=key)
    return message


def offer(rig: Rig, data: Any, **how: Any) -> bool:
    return rig.outbox.offer(lossy(data, **how))


async def stopped(rig: Rig) -> None:
    """The client reads nothing, and one message, which nothing can replace any more, is on its way to it."""
    await rig.hold()
    rig.offer("first")
    await asyncio.sleep(0)


async def test_a_volatile_message_is_sent_where_nothing_waits(rig: Rig) -> None:
    assert offer(rig, "a", volatile=True)
    assert offer(rig, "b", volatile=True)
    await rig.sees("a", "b")
    assert rig.counters.left_out == 0


async def test_a_volatile_message_is_left_out_where_something_waits(dropping: Rig) -> None:
    await stopped(dropping)
    dropping.offer("waits")
    assert [offer(dropping, "x" * size, volatile=True) for size in (1, LIMIT * 2)] == [False, False]
    dropping.read()
    await dropping.sees("first", "waits")
    assert offer(dropping, "y", volatile=True)
    await dropping.sees("first", "waits", "y")  # and no gap
    assert (dropping.counters.left_out, dropping.counters.dropped) == (2, 0)


async def test_nobody_is_too_slow_for_what_is_volatile(rig: Rig) -> None:
    await stopped(rig)
    rig.offer("x" * (LIMIT - 100))
    assert not any(offer(rig, "y" * 100, volatile=True) for _ in range(50))
    assert (rig.owner.full, rig.counters.left_out) == (0, 50)
    rig.read()


async def test_a_message_replaces_the_one_of_its_key_that_waits(rig: Rig) -> None:
    await stopped(rig)
    assert all(offer(rig, [key, number], key=key) for number in range(100) for key in ("ann", "bob"))
    rig.read()
    await rig.sees("first", ["ann", 99], ["bob", 99])
    assert offer(rig, ["ann", 100], key="ann")
    await rig.sees("first", ["ann", 99], ["bob", 99], ["ann", 100])
    assert (rig.counters.replaced, rig.counters.dropped, rig.owner.full) == (198, 0, 0)


async def test_nothing_is_replaced_where_nothing_waits(rig: Rig) -> None:
    assert all(offer(rig, number, key="a") for number in range(3))
    await rig.sees(0, 1, 2)
    assert rig.counters.replaced == 0


async def test_a_replacement_comes_after_all_that_was_sent_before_it(rig: Rig) -> None:
    await stopped(rig)
    offer(rig, "old", key="a")
    offer(rig, "another event", key="a", event="f")
    rig.offer("snapshot")
    offer(rig, "new", key="a")
    rig.offer("last")
    rig.read()
    await rig.sees("first", "another event", "snapshot", "new", "last")


async def test_what_waits_before_the_first_key_stays_in_front(rig: Rig) -> None:
    await stopped(rig)
    rig.offer("a", "b")
    offer(rig, "c", key="k")
    rig.offer("d")
    rig.read()
    await rig.sees("first", "a", "b", "c", "d")
    await stopped(rig)
    rig.offer("e")
    rig.read()
    await rig.sees("first", "a", "b", "c", "d", "first", "e")


async def test_a_binary_message_replaces_a_binary_one(rig: Rig) -> None:
    await stopped(rig)
    for content in (b"\x00", b"\x01"):
        message = PreparedMessage(content, is_text=False)
        make_lossy(message, volatile=False, key="frame")
        assert rig.outbox.offer(message)
    rig.read()
    await rig.sees("first", b"\x01")


async def test_the_bound_is_exact_when_a_replacement_is_smaller_or_larger(dropping: Rig) -> None:
    await stopped(dropping)
    room = LIMIT - len(encode("e", "first").payload) - len(encode("e", "").payload)
    assert offer(dropping, "x" * room, key="a")
    assert dropping.offer(1) == [False]
    assert offer(dropping, "y" * 10, key="a")
    assert offer(dropping, "z" * room, key="a") is False, "the gap takes some of it"
    dropping.read()
    await dropping.sees("first", "gap 1", "y" * 10, "gap 1")
    assert (dropping.counters.dropped, dropping.counters.replaced) == (2, 1)


async def test_what_a_replacement_leaves_free_is_for_others(rig: Rig) -> None:
    await stopped(rig)
    for _ in range(10):
        assert offer(rig, "x" * (LIMIT - 100), key="a")
        assert offer(rig, "", key="a")
    assert rig.offer("y" * (LIMIT - 150)) == [True]
    rig.read()
    await rig.sees("first", "", "y" * (LIMIT - 150))


@pytest.mark.parametrize("end", ["discard", "abort"])
async def test_what_waits_with_a_key_is_dropped_and_counted(rig: Rig, end: str) -> None:
    await stopped(rig)
    rig.offer("a")
    for number in range(3):
        offer(rig, number, key="k")
    rig.offer("b")
    offer(rig, 3, key="k")
    if end == "abort":
        rig.outbox.abort()
    else:
        rig.outbox.close(4000, "", discard=True)
    rig.read()
    await eventually(lambda: rig.counters.dropped + rig.counters.messages_sent == 4)
    assert rig.counters.dropped >= 3
    assert rig.counters.replaced == 3


async def test_what_waits_with_a_key_is_sent_before_the_close(rig: Rig) -> None:
    await stopped(rig)
    offer(rig, "a", key="a")
    offer(rig, "b", key="b")
    rig.outbox.close(4000, "")
    rig.read()
    await rig.sees("first", "a", "b", "close 4000")


async def test_who_waits_for_room_comes_after_what_waits_with_a_key(rig: Rig) -> None:
    (task,) = await waiting(rig, "second")
    offer(rig, 1, key="k")
    rig.read()
    assert await task
    await rig.sees("first", 1, "second")


async def test_more_than_one_write_of_what_has_keys(rig: Rig) -> None:
    for pause in range(5):
        await rig.hold()
        for number in range(8):
            assert offer(rig, [pause, number, "x" * 80], key=str(number))
        rig.read()
        await eventually(lambda: rig.counters.messages_sent == 8 * (pause + 1))  # noqa: B023 - awaited here
    assert rig.seen == [[pause, number, "x" * 80] for pause in range(5) for number in range(8)]


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
    if seconds == DEADLINE:  # a shorter time may be over by now
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


lossy_actions = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 300), st.sampled_from(["", "", "volatile", "a", "b", "c"])),
        st.sampled_from(["hold", "read", "turn"]),
    ),
    max_size=60,
)
"""Of each message the size, and whether it is volatile or which key it has."""


@pytest.mark.parametrize("name", RIGS)
@hypothesis_settings(max_examples=150, deadline=None)
@given(lossy_actions, st.booleans(), st.sampled_from(["close", "discard", "abort"]))
def test_what_is_lost_on_purpose_is_counted_and_changes_no_order(
    name: str, script: list[str | tuple[int, str]], drop: bool, end: str
) -> None:
    async def scenario() -> None:
        rig = RIGS[name](drop)
        outbox: Any = rig.outbox
        keys: dict[int, str] = {}
        queued: set[int] = set()
        for number, action in enumerate(script):
            if action == "hold":
                await rig.hold()
            elif action == "read":
                rig.read()
            elif isinstance(action, tuple):
                size, keys[number] = action
                volatile = keys[number] == "volatile"
                key = None if volatile else keys[number] or None
                if offer(rig, [number, "x" * size], volatile=volatile, key=key):
                    queued.add(number)
            else:
                await asyncio.sleep(0)
            held = [] if outbox._backlog is None else outbox._backlog._places.values()
            assert outbox._backlog is None or len(outbox._backlog)
            costs = [message.cost for message in outbox.queue] + [
                place.message.cost for place in held if place.message is not None
            ]
            plain = [] if outbox._backlog is None else outbox._backlog._line
            costs += [message.cost for message in plain if isinstance(message, PreparedMessage)]
            assert outbox.queued_bytes == sum(costs)
            assert outbox.queued_bytes <= LIMIT + 400
        if end == "abort":
            rig.outbox.abort()
        else:
            rig.outbox.close(1000, "", discard=end == "discard")
        rig.read()
        for _ in range(40):
            await asyncio.sleep(0)
        await over(rig)
        gaps = [item for item in rig.seen if isinstance(item, str) and item.startswith("gap")]
        numbers = [item[0] for item in rig.seen if isinstance(item, list)]
        assert set(numbers) <= queued
        for key in ("a", "b", "c"):
            order = [number for number in numbers if keys[number] in ("", "volatile", key)]
            assert order == sorted(set(order))
        if end == "close" and not rig.owner.full:
            for key in ("", "volatile", "a", "b", "c"):  # the newest of each key comes
                newest = max((number for number in queued if keys[number] == key), default=None)
                assert newest is None or newest in numbers
        counters = rig.counters
        assert counters.messages_sent == len(numbers) + len(gaps)
        refused = len(keys) - len(queued) - counters.left_out
        lost = len(keys) + 1 - len(numbers) - counters.left_out - counters.replaced
        assert 0 <= counters.dropped - lost <= refused  # a gap that is discarded is a message too

    asyncio.run(scenario())
