"""`fan_out`: one broadcast to many outboxes, some of which wait, fail, or change while it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import eventually
from velocity_ws.delivery.fanout import fan_out
from velocity_ws.delivery.flusher import Flusher
from velocity_ws.delivery.outbox import Outbox
from velocity_ws.delivery.queue_outbox import QueueOutbox
from velocity_ws.messages.outbound import PreparedMessage, encode, encode_bytes
from velocity_ws.stats import Counters

Message = MutableMapping[str, Any]


class Member:
    """A member of the hub with an outbox over a ``send`` of the test's."""

    def __init__(self, counters: Counters, send: Callable[[Message], Awaitable[None]] | None = None) -> None:
        self.got: list[Any] = []
        self.tasks: set[asyncio.Task[Any] | None] = set()
        self.broken = 0
        self._custom = send
        self.outbox: Outbox | None = QueueOutbox(self._send, self, counters, limit=10_000, drop=False)

    async def _send(self, message: Message) -> None:
        self.tasks.add(asyncio.current_task())
        if self._custom is not None:
            await self._custom(message)
        self.tasks.add(asyncio.current_task())
        self.got.append(message.get("text", message.get("bytes")))

    def offer(self, message: PreparedMessage) -> bool:
        return self.outbox is not None and self.outbox.offer(message)

    def outbox_full(self) -> None:
        raise AssertionError("nothing fills it here")

    def outbox_dropped(self) -> None: ...

    def outbox_lost(self, room: str, before: str, at: str) -> None: ...

    def outbox_broken(self) -> None:
        self.broken += 1

    async def end(self) -> None:
        """Leave nothing running."""
        if self.outbox is not None:
            self.outbox.abort()
            await self.outbox.wait_ended()


async def test_everyone_gets_it_at_once_and_in_order() -> None:
    counters = Counters()
    members = [Member(counters) for _ in range(5)]
    messages = [encode("a"), encode_bytes(b"b"), encode("c", "ü")]
    for message in messages:
        assert fan_out(members, message, counters, Flusher()) == 5
    for member in members:
        assert member.got == [messages[0].text, b"b", messages[2].text]
        assert len(member.tasks) == 1
        await member.end()
    assert counters.messages_sent == 15
    assert counters.bytes_sent == 5 * sum(message.size for message in messages)
    assert counters.dropped == 0


async def test_one_that_waits_is_taken_over_and_holds_nobody_up() -> None:
    counters = Counters()
    gate = asyncio.Event()

    async def wait(message: Message) -> None:
        async with asyncio.timeout(5):  # bound to the task it is entered in
            await gate.wait()

    members = [Member(counters, wait if number % 2 else None) for number in range(6)]
    first, second = encode("first"), encode("second")
    assert fan_out(members, first, counters, Flusher()) == 6
    assert fan_out(members, second, counters, Flusher()) == 6
    assert [len(member.got) for member in members] == [2, 0, 2, 0, 2, 0]
    assert counters.messages_sent == 6
    gate.set()
    await eventually(lambda: counters.messages_sent == 12)
    for member in members:
        assert member.got == [first.text, second.text]
        assert len(member.tasks) == 1
        await member.end()


@pytest.mark.parametrize("first_waits", [False, True])
async def test_one_that_fails_is_out_and_the_others_are_not(first_waits: bool) -> None:
    counters = Counters()

    async def fail(message: Message) -> None:
        if first_waits:
            await asyncio.sleep(0)
        raise OSError("gone")

    members = [Member(counters), Member(counters, fail), Member(counters)]
    assert fan_out(members, encode("x"), counters, Flusher()) == (3 if first_waits else 2)
    await eventually(lambda: members[1].broken == 1)
    assert [len(member.got) for member in members] == [1, 0, 1]
    assert (counters.messages_sent, counters.dropped) == (2, 1)
    assert fan_out(members, encode("y"), counters, Flusher()) == 2
    assert (counters.messages_sent, counters.dropped) == (4, 2)
    for member in members:
        await member.end()


async def test_sends_that_broadcast_and_close() -> None:
    counters = Counters()
    inner = encode("inner")

    async def again(message: Message) -> None:
        if len(seen) < 1:
            seen.append(message)
            fan_out(members, inner, counters, Flusher())
            closing.outbox.close(1000, "")  # type: ignore[union-attr]

    seen: list[Message] = []
    closing = Member(counters)
    members = [Member(counters), Member(counters, again), closing]
    outer = encode("outer")
    assert fan_out(members, outer, counters, Flusher()) == 2
    await eventually(lambda: counters.messages_sent == 5)
    assert members[0].got == [outer.text, inner.text]
    assert members[1].got == [outer.text, inner.text]
    assert closing.got[0] == inner.text
    assert counters.dropped == 1
    for member in members:
        await member.end()


async def test_members_with_another_kind_of_outbox_or_none_are_offered_it() -> None:
    counters = Counters()
    member = Member(counters)
    member.outbox = None
    assert fan_out([member], encode("x"), counters, Flusher()) == 0


async def test_the_caller_is_the_current_task_again() -> None:
    counters = Counters()
    members = [Member(counters), Member(counters)]
    here = asyncio.current_task()
    fan_out(members, encode("x"), counters, Flusher())
    assert asyncio.current_task() is here
    called = asyncio.Event()

    def from_a_callback() -> None:  # where there is no current task
        fan_out(members, encode("y"), counters, Flusher())
        called.set()

    asyncio.get_running_loop().call_soon(from_a_callback)
    await called.wait()
    assert [len(member.got) for member in members] == [2, 2]
    for member in members:
        await member.end()


@given(st.lists(st.lists(st.sampled_from(["now", "later", "fail", "fail later"]), max_size=6), min_size=1, max_size=5))
def test_every_message_is_sent_or_counted(behaviours: list[list[str]]) -> None:
    async def scenario() -> None:
        counters = Counters()

        def behave(script: list[str]) -> Callable[[Message], Awaitable[None]]:
            steps = iter(script)

            async def send(message: Message) -> None:
                what = next(steps, "now")
                if "later" in what:
                    await asyncio.sleep(0)
                if "fail" in what:
                    raise OSError

            return send

        members = [Member(counters, behave(script)) for script in behaviours]
        for number in range(6):
            fan_out(members, encode("n", number), counters, Flusher())
            if number % 2:
                await asyncio.sleep(0)
        for _ in range(30):
            await asyncio.sleep(0)
        for member in members:
            await member.end()
            numbers = [text for text in member.got if text]
            assert numbers == [encode("n", number).text for number in range(len(numbers))]
        assert counters.messages_sent + counters.dropped == 6 * len(members)
        assert counters.messages_sent == sum(len(member.got) for member in members)

    asyncio.run(scenario())
