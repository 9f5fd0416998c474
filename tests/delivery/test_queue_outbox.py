"""The queue in front of ASGI's `send`: what reaches the server, in which order, and what is said of the rest.

`send` is written by hand here, as no real server suspends and fails where a test wants it to.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from unittest import mock

import anyio
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support import DEADLINE, eventually
from velocity_ws.delivery.queue_outbox import QueueOutbox
from velocity_ws.messages.outbound import PreparedMessage, encode
from velocity_ws.stats import Counters

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Owner:
    """Counts what it is told; does about it what a test says."""

    def __init__(self) -> None:
        self.full = 0
        self.broken = 0
        self.when_full: Callable[[], object] = lambda: None
        self.when_broken: Callable[[], object] = lambda: None

    def outbox_full(self) -> None:
        self.full += 1
        self.when_full()

    def outbox_dropped(self) -> None: ...

    def outbox_lost(self, room: str, before: str, at: str) -> None: ...

    def outbox_broken(self) -> None:
        self.broken += 1
        self.when_broken()


class Wire:
    """An ASGI `send` that notes what it is given, and lets it through or holds it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.begun: list[Message] = []
        self.done: list[Message] = []
        self.tasks: set[asyncio.Task[Any] | None] = set()
        self.cancelled = 0
        self.closes_at: Any = None  # the message from which on it holds everything

    async def __call__(self, message: Message) -> None:
        self.begun.append(message)
        if self.closes_at is not None and brief(message) == self.closes_at:
            self.open.clear()
        self.tasks.add(asyncio.current_task())
        if not self.open.is_set():
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            self.tasks.add(asyncio.current_task())
        self.done.append(message)

    @property
    def seen(self) -> list[Any]:
        return [brief(message) for message in self.done]


def brief(message: Message) -> Any:
    """What a test wants to compare: the data, the bytes, ``gap n`` or ``close code``."""
    if message["type"] == "websocket.close":
        return f"close {message['code']}"
    if "bytes" in message:
        return message["bytes"]
    content = json.loads(message["text"])
    return f"gap {content['data']['dropped']}" if content["event"] == "gap" else content["data"]


class Box:
    """An outbox with everything around it."""

    def __init__(self, send: Send, limit: int, drop: bool) -> None:
        self.owner = Owner()
        self.counters = Counters()
        self.outbox = QueueOutbox(send, self.owner, self.counters, limit=limit, drop=drop)

    def offer(self, *data: Any) -> list[bool]:
        return [self.outbox.offer(encode("e", item)) for item in data]

    def offer_bytes(self, *payloads: bytes) -> list[bool]:
        return [self.outbox.offer(PreparedMessage(payload, is_text=False)) for payload in payloads]

    async def over(self) -> None:
        async with asyncio.timeout(DEADLINE):
            await self.outbox.wait_ended()

    async def end(self) -> None:
        self.outbox.abort()
        await self.over()
        assert self.offer("after the end") == [False]


Make = Callable[..., Box]


@pytest.fixture
async def wire() -> Wire:
    return Wire()


@pytest.fixture
async def make(wire: Wire) -> AsyncIterator[Make]:
    """Makes outboxes, and looks after the test that they left nothing behind."""
    boxes: list[Box] = []
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def new(send: Send, *, limit: int = 10_000, drop: bool = False) -> Box:
        boxes.append(Box(send, limit, drop))
        return boxes[-1]

    yield new
    while boxes:
        await boxes.pop().end()
    wire.tasks.clear()
    # What was never awaited or retrieved complains when it is collected.
    gc.collect()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert complaints == []


async def turns(count: int = 5) -> None:
    """Let the loop turn: enough for whatever is ready to have happened."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- sending


async def test_an_idle_outbox_sends_at_once(make: Make, wire: Wire) -> None:
    box = make(wire)
    await turns()
    assert box.offer("a", "b") == [True, True]
    assert wire.seen == ["a", "b"], "no turn of the loop was needed"


async def test_a_new_outbox_takes_messages_before_its_first_turn(make: Make, wire: Wire) -> None:
    box = make(wire)
    assert box.offer("a", "b") == [True, True]
    await turns()
    assert wire.seen == ["a", "b"]


async def test_text_and_bytes(make: Make, wire: Wire) -> None:
    box = make(wire)
    box.offer("é")
    box.offer_bytes(b"\x00\xff", b"")
    await turns()
    assert wire.done == [
        {"type": "websocket.send", "text": '{"event":"e","data":"é"}'},
        {"type": "websocket.send", "bytes": b"\x00\xff"},
        {"type": "websocket.send", "bytes": b""},
    ]
    assert box.counters.messages_sent == 3
    assert box.counters.bytes_sent == len('{"event":"e","data":"é"}'.encode()) + 2


async def test_each_send_gets_a_message_of_its_own(make: Make) -> None:
    seen = []

    async def meddling(message: Message) -> None:
        seen.append(dict(message))
        message.clear()

    message = encode("e", 1)
    for box in (make(meddling), make(meddling)):
        box.outbox.offer(message)
        box.outbox.offer(message)
    await turns()
    assert seen == [{"type": "websocket.send", "text": message.text}] * 4


async def test_a_send_that_has_to_wait_is_finished(make: Make, wire: Wire) -> None:
    box = make(wire)
    await turns()
    wire.open.clear()
    assert box.offer("a") == [True]
    assert (len(wire.begun), wire.done) == (1, [])
    assert box.counters.messages_sent == 0, "not sent before it is"
    wire.open.set()
    await eventually(lambda: wire.done)
    await turns()
    assert wire.seen == ["a"]
    assert (box.counters.messages_sent, box.counters.dropped) == (1, 0)


async def test_order_is_kept_across_sent_waiting_and_queued(make: Make, wire: Wire) -> None:
    box = make(wire)
    expected: list[Any] = []

    def all_done() -> bool:
        return len(wire.done) == len(expected)

    for n in range(10):
        box.offer((n, "inline"))
        wire.open.clear()
        box.offer((n, "waits"), (n, "queued"), (n, "queued too"))
        await turns(n)
        wire.open.set()
        # Offered between the release and the turn in which it is noticed.
        box.offer((n, "late"))
        expected += [[n, what] for what in ("inline", "waits", "queued", "queued too", "late")]
        await eventually(all_done)
        await turns()
    assert wire.seen == expected
    assert box.counters.messages_sent == len(expected)


async def test_a_plain_awaitable_may_be_the_answer_of_send(make: Make) -> None:
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[None]] = []

    def send(message: Message) -> Awaitable[None]:
        futures.append(loop.create_future())
        return futures[-1]

    box = make(send)
    box.offer("a", "b")
    await turns()
    assert len(futures) == 1
    futures[0].set_result(None)
    await eventually(lambda: len(futures) == 2)
    futures[1].set_result(None)
    await eventually(lambda: box.counters.messages_sent == 2)


async def test_it_can_be_offered_to_outside_of_any_task(make: Make, wire: Wire) -> None:
    box = make(wire)
    await turns()
    asyncio.get_running_loop().call_soon(box.offer, "a")
    await eventually(lambda: wire.done)
    assert wire.seen == ["a"]
    assert None not in wire.tasks


async def test_a_send_may_offer_to_its_own_outbox(make: Make) -> None:
    seen: list[Any] = []

    async def send(message: Message) -> None:
        data = brief(message)
        if data == "a":
            assert box.offer("b", "c") == [True, True]
        seen.append(data)

    box = make(send)
    await turns()
    box.offer("a")
    await eventually(lambda: len(seen) == 3)
    assert seen == ["a", "b", "c"], "one after the other, not one inside the other"
    await turns()
    assert box.counters.messages_sent == 3


async def test_a_send_may_offer_to_another_outbox_and_back(make: Make) -> None:
    seen: list[tuple[str, Any]] = []

    async def send_one(message: Message) -> None:
        task = asyncio.current_task()
        if brief(message) == "first":
            other.offer("second")
        assert asyncio.current_task() is task
        seen.append(("one", brief(message)))

    async def send_other(message: Message) -> None:
        one.offer("third")
        seen.append(("other", brief(message)))

    one, other = make(send_one), make(send_other)
    await turns()
    here = asyncio.current_task()
    one.offer("first")
    assert asyncio.current_task() is here
    await eventually(lambda: len(seen) == 3)
    assert seen == [("other", "second"), ("one", "first"), ("one", "third")]


# --- the task a send runs in


async def test_send_always_runs_in_the_same_task(make: Make, wire: Wire) -> None:
    box = make(wire)
    here = asyncio.current_task()
    box.offer("before the first turn")
    await turns()
    box.offer("inline")
    assert asyncio.current_task() is here
    wire.open.clear()
    box.offer("waits", "queued")
    assert asyncio.current_task() is here
    await turns()
    wire.open.set()
    await asyncio.create_task(offer_later(box, "from another task"))
    box.outbox.close(1000, "")
    await box.over()
    assert len(wire.done) == 6
    assert len(wire.tasks) == 1
    assert not wire.tasks & {here, None}


async def offer_later(box: Box, data: object) -> None:
    await asyncio.sleep(0)
    box.offer(data)


@pytest.mark.parametrize("suspends", [False, True])
async def test_a_timeout_that_is_not_reached_does_nothing(make: Make, wire: Wire, suspends: bool) -> None:
    async def send(message: Message) -> None:
        async with asyncio.timeout(DEADLINE):
            await wire(message)

    box = make(send)
    await turns()
    if suspends:
        wire.open.clear()
    box.offer("a", "b")
    await turns()
    wire.open.set()
    await eventually(lambda: len(wire.done) == 2)
    await turns()
    assert (box.counters.messages_sent, box.owner.broken) == (2, 0)
    assert box.offer("c") == [True], "it lives on"


async def with_asyncio(seconds: float, wire: Wire, message: Message) -> None:
    try:
        async with asyncio.timeout(seconds):
            await wire(message)
    except TimeoutError:
        wire.done.append({"type": "websocket.send", "text": '{"event":"e","data":"timed out"}'})


async def with_anyio(seconds: float, wire: Wire, message: Message) -> None:
    with anyio.move_on_after(seconds) as scope:
        await wire(message)
    if scope.cancelled_caught:
        wire.done.append({"type": "websocket.send", "text": '{"event":"e","data":"timed out"}'})


async def with_wait_for(seconds: float, wire: Wire, message: Message) -> None:
    try:
        await asyncio.wait_for(wire.open.wait(), seconds)
    except TimeoutError:
        wire.done.append({"type": "websocket.send", "text": '{"event":"e","data":"timed out"}'})
    else:
        await wire(message)


# At 0 the timeout is over in the very turn in which the rest of the send changes hands.
@pytest.mark.parametrize("seconds", [0, 0.01])
@pytest.mark.parametrize("limited", [with_asyncio, with_anyio, with_wait_for])
@pytest.mark.parametrize("started", [False, True])
async def test_a_timeout_in_send_ends_what_it_is_around_and_nothing_else(
    make: Make,
    wire: Wire,
    limited: Callable[[float, Wire, Message], Awaitable[None]],
    seconds: float,
    started: bool,
) -> None:
    box = make(lambda message: limited(seconds, wire, message))
    if started:
        await turns()
    wire.open.clear()
    box.offer("a", "b")
    await eventually(lambda: box.counters.messages_sent == 2)
    assert wire.seen == ["timed out", "timed out"]
    assert (box.counters.dropped, box.owner.broken) == (0, 0)
    wire.open.set()
    box.offer("c")
    await eventually(lambda: box.counters.messages_sent == 3)
    assert box.offer("d") == [True], "it lives on"


async def test_a_timeout_that_ends_send_breaks_the_outbox(make: Make, wire: Wire) -> None:
    async def send(message: Message) -> None:
        async with asyncio.timeout(0.01):
            await wire(message)

    box = make(send)
    await turns()
    wire.open.clear()
    box.offer("a")
    await eventually(lambda: box.owner.broken)
    assert (box.counters.messages_sent, box.counters.dropped) == (0, 1)


async def test_context_variables_survive(make: Make, wire: Wire) -> None:
    count = contextvars.ContextVar("count", default=0)
    seen = []

    async def send(message: Message) -> None:
        before = count.get()
        count.set(before + 1)
        await wire(message)
        assert count.get() == before + 1, "the same context before and after waiting"
        seen.append(before)

    box = make(send)
    await turns()
    box.offer("inline")
    wire.open.clear()
    box.offer("waits", "queued")
    await turns()
    wire.open.set()
    await eventually(lambda: len(seen) == 3)
    await turns()
    box.offer("inline")
    assert seen == [0, 1, 2, 3]
    assert count.get() == 0, "and nothing of it is seen by whoever offers"


# --- the bound

TEN = b"x" * 10


async def test_exactly_as_many_bytes_as_allowed_wait(make: Make, wire: Wire) -> None:
    box = make(wire, limit=30)
    wire.open.clear()
    # The one being sent counts: it still takes memory.
    assert box.offer_bytes(TEN, TEN, b"x" * 9) == [True, True, True]
    assert box.offer_bytes(b"xx") == [False]
    assert box.offer_bytes(b"x") == [True], "30 of 30"
    assert box.offer_bytes(b"x") == [False]
    assert box.counters.dropped == 2


async def test_room_comes_back_as_messages_are_sent(make: Make, wire: Wire) -> None:
    box = make(wire, limit=20)
    for _ in range(3):
        wire.open.clear()
        assert box.offer_bytes(TEN, TEN, b"x") == [True, True, False]
        wire.open.set()
        await eventually(lambda: len(wire.done) == box.counters.messages_sent and not box.counters.messages_sent % 2)
        await turns()
    assert (box.counters.messages_sent, box.counters.bytes_sent, box.counters.dropped) == (6, 60, 3)


async def test_one_larger_than_the_limit_goes_where_nothing_waits(make: Make, wire: Wire) -> None:
    box = make(wire, limit=10)
    large = b"x" * 1000
    assert box.offer_bytes(large) == [True]
    await turns()
    assert box.offer_bytes(large) == [True]
    wire.open.clear()
    assert box.offer_bytes(large, b"x", large) == [True, False, False]
    wire.open.set()
    await eventually(lambda: box.counters.messages_sent == 3)
    assert box.offer_bytes(large) == [True]


async def test_one_larger_than_the_limit_does_not_go_behind_another(make: Make, wire: Wire) -> None:
    box = make(wire, limit=10)
    wire.open.clear()
    assert box.offer_bytes(b"x", b"x" * 1000) == [True, False]


async def test_empty_messages_are_bounded_too(make: Make, wire: Wire) -> None:
    box = make(wire, limit=100)
    wire.open.clear()
    accepted = sum(box.offer_bytes(*[b""] * 1000))
    assert 90 <= accepted <= 110
    wire.open.set()
    await eventually(lambda: box.counters.messages_sent == accepted)
    await turns()
    wire.open.clear()
    assert sum(box.offer_bytes(*[b""] * 1000)) == accepted, "the room came back"


# --- disconnect


async def test_a_full_queue_is_told_once(make: Make, wire: Wire) -> None:
    box = make(wire, limit=20)
    wire.open.clear()
    assert box.offer_bytes(TEN, TEN, TEN, TEN, b"x") == [True, True, False, False, False]
    assert (box.owner.full, box.counters.slow_closes, box.counters.dropped) == (1, 1, 3)
    wire.open.set()
    await eventually(lambda: box.counters.messages_sent == 2)
    await turns()
    wire.open.clear()
    assert box.offer_bytes(TEN, TEN, TEN) == [True, True, False]
    assert (box.owner.full, box.counters.slow_closes) == (1, 1)
    wire.open.set()
    await turns()
    assert wire.seen == [TEN] * 4, "and no gap is sent, as the client was to be closed"


async def test_the_owner_closes_at_once_when_it_is_told(make: Make, wire: Wire) -> None:
    box = make(wire, limit=20)
    box.owner.when_full = lambda: box.outbox.close(1013, "too slow", discard=True)
    wire.open.clear()
    assert box.offer_bytes(TEN, TEN, TEN, TEN) == [True, True, False, False]
    wire.open.set()
    await box.over()
    assert wire.seen == [TEN, "close 1013"]
    assert (box.owner.full, box.counters.messages_sent, box.counters.dropped) == (1, 1, 3)


async def test_the_owner_aborts_when_it_is_told(make: Make, wire: Wire) -> None:
    box = make(wire, limit=20)
    box.owner.when_full = box.outbox.abort
    wire.open.clear()
    assert box.offer_bytes(TEN, TEN, TEN) == [True, True, False]
    await box.over()
    assert wire.seen == []
    assert (box.counters.messages_sent, box.counters.dropped) == (0, 3)


# --- drop


async def test_a_gap_is_told_when_the_queue_has_drained(make: Make, wire: Wire) -> None:
    box = make(wire, limit=20, drop=True)
    wire.open.clear()
    assert box.offer_bytes(TEN, b"y" * 10, TEN, TEN, TEN) == [True, True, False, False, False]
    assert (box.owner.full, box.counters.slow_closes, box.counters.dropped) == (0, 0, 3)
    wire.open.set()
    await eventually(lambda: len(wire.done) == 3)
    assert wire.seen == [TEN, b"y" * 10, "gap 3"]
    await turns()
    assert box.offer_bytes(b"z") == [True]
    await turns()
    assert wire.seen[3:] == [b"z"], "it is told once"


async def test_a_gap_comes_before_what_was_taken_after_it(make: Make, wire: Wire) -> None:
    box = make(wire, limit=20, drop=True)
    wire.open.clear()
    assert box.offer_bytes(TEN, TEN, TEN, TEN) == [True, True, False, False]
    wire.open.set()
    await eventually(lambda: len(wire.done) >= 1)
    box.offer_bytes(b"after")
    await eventually(lambda: b"after" in wire.seen)
    assert wire.seen == [TEN, TEN, "gap 2", b"after"]


async def test_a_gap_is_told_again_later(make: Make, wire: Wire) -> None:
    box = make(wire, limit=20, drop=True)
    for missed in (1, 4):
        wire.open.clear()
        assert box.offer_bytes(TEN, TEN, *[TEN] * missed) == [True, True, *[False] * missed]
        await turns()
        wire.open.set()
        await turns(10)
    assert wire.seen == [TEN, TEN, "gap 1", TEN, TEN, "gap 4"]
    assert (box.counters.messages_sent, box.counters.dropped) == (6, 5)


async def test_a_smaller_one_may_fit_where_a_larger_did_not(make: Make, wire: Wire) -> None:
    box = make(wire, limit=20, drop=True)
    wire.open.clear()
    assert box.offer_bytes(TEN, b"x" * 11, b"y", b"x" * 11) == [True, False, True, False]
    wire.open.set()
    await eventually(lambda: len(wire.done) == 4)
    assert wire.seen == [TEN, "gap 1", b"y", "gap 1"]


async def test_what_is_lost_while_a_gap_is_told_is_another_gap(make: Make, wire: Wire) -> None:
    box = make(wire, limit=20, drop=True)
    wire.open.clear()
    box.offer_bytes(TEN, TEN, TEN)
    wire.closes_at = "gap 1"
    wire.open.set()
    await eventually(lambda: len(wire.begun) == 3)
    assert box.offer_bytes(TEN, TEN) == [False, False]
    wire.open.set()
    await eventually(lambda: len(wire.done) == 4)
    assert wire.seen == [TEN, TEN, "gap 1", "gap 2"]


async def test_what_a_send_offers_in_vain_is_told_without_waiting_for_more(make: Make) -> None:
    seen: list[Any] = []

    async def send(message: Message) -> None:
        seen.append(brief(message))
        if len(seen) == 1:
            assert box.offer_bytes(TEN, TEN) == [False, False]

    box = make(send, limit=10, drop=True)
    box.offer_bytes(TEN)
    await turns()
    assert seen == [TEN, "gap 2"]


async def test_one_larger_than_the_limit_goes_when_only_a_gap_is_to_be_told(make: Make) -> None:
    seen: list[Any] = []
    large = b"x" * 1000

    async def send(message: Message) -> None:
        seen.append(brief(message))
        if len(seen) == 1:
            assert box.offer_bytes(TEN) == [False]

    box = make(send, limit=10, drop=True)
    # The first is sent when the second is offered, so nothing waits.
    assert box.offer_bytes(TEN, large) == [True, True]
    await turns()
    assert seen == [TEN, "gap 1", large]


async def test_a_gap_is_told_before_the_close(make: Make, wire: Wire) -> None:
    box = make(wire, limit=20, drop=True)
    wire.open.clear()
    box.offer_bytes(TEN, TEN, TEN)
    box.outbox.close(1000, "")
    wire.open.set()
    await box.over()
    assert wire.seen == [TEN, TEN, "gap 1", "close 1000"]


# --- close


@pytest.mark.parametrize("started", [False, True])
async def test_close_when_idle(make: Make, wire: Wire, started: bool) -> None:
    box = make(wire)
    if started:
        await turns()
    box.outbox.close(4000, "bye")
    await box.over()
    assert wire.done == [{"type": "websocket.close", "code": 4000, "reason": "bye"}]
    assert (box.counters.messages_sent, box.counters.bytes_sent) == (0, 0), "a close is no message"
    assert box.offer("late") == [False]
    assert box.counters.dropped == 1


async def test_close_comes_after_what_is_queued(make: Make, wire: Wire) -> None:
    box = make(wire)
    wire.open.clear()
    box.offer("a", "b", "c")
    box.outbox.close(1000, "")
    assert box.offer("late") == [False]
    await turns()
    assert wire.done == []
    wire.open.set()
    await box.over()
    assert wire.seen == ["a", "b", "c", "close 1000"]
    assert (box.counters.messages_sent, box.counters.dropped) == (3, 1)


async def test_close_comes_after_one_that_has_just_begun_to_wait(make: Make, wire: Wire) -> None:
    box = make(wire)
    await turns()
    wire.open.clear()
    box.offer("a")
    box.outbox.close(1000, "")
    wire.open.set()
    await box.over()
    assert wire.seen == ["a", "close 1000"]


async def test_close_may_discard_what_is_queued(make: Make, wire: Wire) -> None:
    box = make(wire)
    await turns()
    wire.open.clear()
    box.offer("a", "b", "c")
    box.outbox.close(1013, "too slow", discard=True)
    assert box.counters.dropped == 2, "not the one the server has already"
    wire.open.set()
    await box.over()
    assert wire.seen == ["a", "close 1013"]
    assert (box.counters.messages_sent, box.counters.dropped) == (1, 2)


async def test_the_first_close_counts(make: Make, wire: Wire) -> None:
    box = make(wire)
    wire.open.clear()
    box.offer("a", "b")
    box.outbox.close(4001, "first")
    box.outbox.close(4002, "second", discard=True)
    wire.open.set()
    await box.over()
    box.outbox.close(4003, "third")
    await turns()
    assert wire.seen == ["a", "b", "close 4001"]


async def test_a_send_may_close_its_own_outbox(make: Make) -> None:
    seen: list[Any] = []

    async def send(message: Message) -> None:
        seen.append(brief(message))
        box.outbox.close(1000, "")

    box = make(send)
    await turns()
    assert box.offer("a", "b") == [True, False]
    await box.over()
    assert seen == ["a", "close 1000"]
    assert (box.counters.messages_sent, box.counters.dropped) == (1, 1)


# --- abort


async def test_abort_when_idle(make: Make, wire: Wire) -> None:
    box = make(wire)
    await turns()
    box.outbox.abort()
    await box.over()
    assert wire.begun == []
    assert box.counters == Counters()


async def test_abort_before_the_first_turn(make: Make, wire: Wire) -> None:
    box = make(wire)
    wire.open.clear()
    box.offer("a", "b")
    box.outbox.abort()
    await box.over()
    assert wire.done == []
    assert (box.counters.messages_sent, box.counters.dropped) == (0, 2)


@pytest.mark.parametrize("later", [0, 1, 5])
async def test_abort_while_a_send_waits(make: Make, wire: Wire, later: int) -> None:
    box = make(wire)
    await turns()
    wire.open.clear()
    box.offer("a", "b", "c")
    await turns(later)
    box.outbox.abort()
    box.outbox.close(1000, "too late")
    assert box.counters.dropped == 3
    wire.open.set()
    await box.over()
    assert wire.done == []
    assert (box.counters.messages_sent, box.counters.dropped) == (0, 3)
    assert (box.owner.full, box.owner.broken) == (0, 0), "whoever aborts knows"


async def test_abort_after_close(make: Make, wire: Wire) -> None:
    box = make(wire)
    wire.open.clear()
    box.offer("a", "b")
    box.outbox.close(1000, "")
    await turns()
    box.outbox.abort()
    await box.over()
    assert wire.done == []
    assert box.counters.dropped == 2


async def test_abort_while_the_close_waits(make: Make, wire: Wire) -> None:
    box = make(wire)
    wire.open.clear()
    box.outbox.close(1000, "")
    await turns()
    assert len(wire.begun) == 1
    box.outbox.abort()
    await box.over()
    assert (wire.cancelled, box.counters) == (1, Counters())


async def test_abort_twice_is_harmless(make: Make, wire: Wire) -> None:
    box = make(wire)
    wire.open.clear()
    box.offer("a")
    await turns()
    box.outbox.abort()
    box.outbox.abort()
    await box.over()
    box.outbox.abort()
    assert (wire.cancelled, box.counters.dropped) == (1, 1)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_send_may_abort_its_own_outbox(make: Make, waits: bool) -> None:
    ended: list[Any] = []

    async def send(message: Message) -> None:
        box.outbox.abort()
        try:
            if waits:
                await asyncio.Event().wait()
        finally:
            ended.append(brief(message))

    box = make(send)
    await turns()
    box.offer("a", "b")
    await box.over()
    gc.collect()
    assert ended == ["a"]
    # The end had come before the send did, so it is not known to have gone through.
    assert (box.counters.messages_sent, box.counters.dropped) == (0, 2)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("later", [0, 1, 5])
async def test_a_send_that_cleans_up_slowly_is_let(make: Make, started: bool, later: int) -> None:
    steps = []

    async def send(message: Message) -> None:
        try:
            steps.append("begun")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    box = make(send)
    if started:
        await turns()
    box.offer("a")
    await turns(later)
    box.outbox.abort()
    await box.over()
    assert steps == ["begun", "cleaned up"]


async def test_a_send_that_ignores_its_cancellation_keeps_nothing_running(make: Make, wire: Wire) -> None:
    async def stubborn(message: Message) -> None:
        try:
            await wire(message)
        except asyncio.CancelledError:
            # As asyncio.wait_for did before Python 3.12, when what it waited for came in that moment.
            return

    box = make(stubborn)
    wire.open.clear()
    box.offer("a", "b")
    box.outbox.close(1000, "")
    await turns()
    box.outbox.abort()
    await box.over()
    assert [brief(message) for message in wire.begun] == ["a"], "nothing is sent after the abort"
    assert (box.counters.messages_sent, box.counters.dropped) == (0, 2)


async def test_a_cancelled_wait_for_its_end_ends_nothing(make: Make, wire: Wire) -> None:
    box = make(wire)
    joining = asyncio.create_task(box.outbox.wait_ended())
    await turns()
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    assert box.offer("a") == [True]
    await turns()
    assert wire.seen == ["a"]


async def test_several_may_wait_for_its_end(make: Make, wire: Wire) -> None:
    box = make(wire)
    joins = [asyncio.create_task(box.over()) for _ in range(3)]
    await turns()
    assert not any(join.done() for join in joins), "it is not over yet"
    box.outbox.close(1000, "")
    await asyncio.gather(*joins)
    await box.over()


# --- a connection that is gone


class Lost(Exception):
    """Some server's own exception for a lost connection."""


FAILURES = [OSError("gone"), RuntimeError("Unexpected ASGI message"), Lost(), asyncio.CancelledError()]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("started", [False, True])
async def test_a_send_that_fails(make: Make, wire: Wire, error: BaseException, waits: bool, started: bool) -> None:
    async def send(message: Message) -> None:
        await wire(message)
        raise error

    box = make(send)
    if started:
        await turns()
    if waits:
        wire.open.clear()
    accepted = box.offer("a", "b", "c")
    await turns()
    wire.open.set()
    await box.over()
    assert box.owner.broken == 1
    assert len(wire.begun) == 1, "nothing is tried after a failure"
    assert (box.counters.messages_sent, box.counters.bytes_sent, box.counters.dropped) == (0, 0, 3)
    assert accepted == [waits] * 3, "true only where it was not known to be lost"
    assert box.offer("late") == [False]
    box.outbox.close(1000, "")
    box.outbox.abort()
    await turns()
    assert (box.owner.broken, box.counters.dropped, len(wire.begun)) == (1, 4, 1)


async def test_a_send_that_fails_before_there_is_anything_to_await(make: Make) -> None:
    def send(message: Message) -> Awaitable[None]:
        raise Lost

    box = make(send)
    await turns()
    assert box.offer("a") == [False]
    assert (box.owner.broken, box.counters.dropped) == (1, 1)
    await box.over()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_close_that_fails(make: Make, wire: Wire, waits: bool) -> None:
    async def send(message: Message) -> None:
        await wire(message)
        if message["type"] == "websocket.close":
            raise OSError("gone")

    box = make(send)
    if waits:
        wire.open.clear()
    box.offer("a")
    box.outbox.close(1000, "")
    await turns()
    wire.open.set()
    await box.over()
    assert (box.owner.broken, box.counters.messages_sent, box.counters.dropped) == (1, 1, 0)


async def test_the_owner_may_abort_or_offer_when_it_is_told(make: Make, wire: Wire) -> None:
    async def send(message: Message) -> None:
        await wire(message)
        raise OSError("gone")

    box = make(send)
    answers: list[bool] = []

    def react() -> None:
        answers.extend(box.offer("goodbye"))
        box.outbox.close(1011, "")
        box.outbox.abort()

    box.owner.when_broken = react
    assert box.offer("a") == [False]
    await box.over()
    assert (answers, box.owner.broken, box.counters.dropped, len(wire.begun)) == ([False], 1, 2, 1)


# --- everything at once

Behaviour = tuple[int, bool]
"""For how many turns a send waits, and whether it fails then."""

behaviours = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1, 2, 5]), st.sampled_from([False] * 12 + [True])), min_size=1, max_size=12
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from([0, 0, 1, 5, 10, 20, 25])),
        st.tuples(st.just("turn"), st.integers(1, 3)),
        st.tuples(st.just("offer in send"), st.sampled_from([1, 10])),
    ),
    max_size=40,
)
LIMIT = 20


class Run:
    """A script played on an outbox, noting what happens where it happens."""

    def __init__(self, drop: bool, behaviours: list[Behaviour]) -> None:
        self.behaviours = behaviours
        self.box = Box(self.send, LIMIT, drop)
        self.drop = drop
        self.offers: list[tuple[int, bool]] = []  # the number of each message that could have gone, and whether taken
        self.too_late = 0  # offered after the end
        self.costs: dict[int, int] = {}
        self.sizes: dict[int, int] = {}
        self.stream: list[Any] = []  # what was sent: numbers, and gaps as texts
        self.begun = 0
        self.gaps_begun = 0
        self.failed = 0
        self.in_send: list[int] = []  # sizes to be offered from inside the next send
        self.tasks: set[asyncio.Task[Any] | None] = set()
        self.ended = False  # as far as offers go

    def offer(self, size: int) -> None:
        number = len(self.costs)
        # The number is in the payload where there is room for it; empty ones are told apart by their place alone.
        payload = number.to_bytes(2, "big").rjust(size, b"\0") if size >= 2 else b"\0" * size
        self.sizes[number] = size
        self.costs[number] = size or 1
        sent = {item for item in self.stream if isinstance(item, int)}
        waiting = sum(self.costs[n] for n, taken in self.offers if taken and n not in sent)
        failed_before = self.failed
        index = len(self.offers)
        if self.ended or self.failed:
            self.too_late += 1
            assert not self.box.outbox.offer(PreparedMessage(payload, is_text=False))
            return
        # Noted first, as an inline send looks for it.
        self.offers.append((number, True))
        taken = self.box.outbox.offer(PreparedMessage(payload, is_text=False))
        if not taken:
            self.offers[index] = (number, False)
        if self.failed > failed_before:
            return
        if taken:
            assert waiting == 0 or waiting + self.costs[number] <= LIMIT
        elif not self.drop:
            assert waiting
            assert waiting + self.costs[number] > LIMIT, "refused though there was room"

    async def send(self, message: Message) -> None:
        turns_to_wait, fails = self.behaviours[self.begun % len(self.behaviours)]
        self.begun += 1
        self.tasks.add(asyncio.current_task())
        item = brief(message)
        if isinstance(item, str) and item.startswith("gap"):
            self.gaps_begun += 1
        while self.in_send:
            self.offer(self.in_send.pop())
        for _ in range(turns_to_wait):
            await asyncio.sleep(0)
        self.tasks.add(asyncio.current_task())
        if fails:
            self.failed += 1
            raise OSError("gone")
        if isinstance(item, bytes):
            # Sends are one after another and in order, so this is the first taken one that was not sent yet.
            sent = {n for n in self.stream if isinstance(n, int)}
            number = next(n for n, taken in self.offers if taken and n not in sent)
            assert len(item) == self.sizes[number]
            assert len(item) < 2 or item.endswith(number.to_bytes(2, "big"))
            item = number
        self.stream.append(item)

    async def play(self, script: list[tuple[str, int]], end: str) -> None:
        for action, value in script:
            if action == "offer":
                self.offer(value)
            elif action == "offer in send":
                self.in_send.append(value)
            else:
                await turns(value)
        self.in_send.clear()
        self.ended = True
        if end == "abort":
            self.box.outbox.abort()
        else:
            self.box.outbox.close(1000, "", discard=end == "discard")
        self.offer(1)
        await self.box.over()

    def check(self, end: str) -> None:
        counters, owner = self.box.counters, self.box.owner
        sent = [item for item in self.stream if isinstance(item, int)]
        gaps = [int(item[4:]) for item in self.stream if isinstance(item, str) and item.startswith("gap")]
        taken = [number for number, was_taken in self.offers if was_taken]
        everything = end == "close" and not self.failed

        assert sent == taken[: len(sent)], "in order, and nothing left out in between"
        if everything:
            assert sent == taken
            assert self.stream[-1] == "close 1000"
        assert counters.messages_sent == len(sent) + len(gaps)
        assert owner.broken == self.failed <= 1

        refused = [number for number, was_taken in self.offers if not was_taken]
        if self.drop:
            assert (owner.full, counters.slow_closes) == (0, 0)
            if not self.failed:
                self.check_gaps(everything)
        else:
            assert gaps == []
            full = bool(refused) and not self.failed
            assert owner.full == counters.slow_closes <= 1
            assert owner.full or not full

        offered = len(self.offers) + self.too_late
        made = counters.messages_sent + counters.dropped - offered
        # A gap is a message too. One that was queued and never begun is seen by nobody, but there cannot be more of
        # them than there were losses.
        if everything or not self.drop:
            assert made == self.gaps_begun
        else:
            assert self.gaps_begun <= made <= len(refused)
        assert len(self.tasks) <= 1

    def check_gaps(self, everything: bool) -> None:
        """Between two messages that arrived, the gaps told are exactly what was lost between them."""
        told: dict[int | None, int] = {}
        since: int | None = None
        for item in self.stream:
            if isinstance(item, int):
                since = item
            elif item.startswith("gap"):
                told[since] = told.get(since, 0) + int(item[4:])
        lost: dict[int | None, int] = {}
        since = None
        for number, was_taken in self.offers:
            if was_taken:
                since = number
            else:
                lost[since] = lost.get(since, 0) + 1
        arrived = [item for item in self.stream if isinstance(item, int)]
        last = arrived[-1] if arrived else None
        for place in [None, *arrived]:
            if place != last or everything:
                assert told.get(place, 0) == lost.get(place, 0)
            else:
                assert told.get(place, 0) <= lost.get(place, 0)


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.booleans(), behaviours, actions, st.sampled_from(["close", "close", "discard", "abort"]))
def test_every_message_is_sent_or_counted(
    drop: bool, behaviours: list[Behaviour], script: list[tuple[str, int]], end: str
) -> None:
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        run = Run(drop, behaviours)
        await run.play(script, end)
        run.check(end)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    # Of a coroutine that was never awaited Python tells the hook, and only when it is collected. To look at nothing
    # but what is new makes that quick.
    gc.freeze()
    with mock.patch.object(sys, "unraisablehook", lambda unraisable: complaints.append(unraisable.exc_value)):
        asyncio.run(main())
        gc.collect()
    gc.unfreeze()
    assert complaints == []
