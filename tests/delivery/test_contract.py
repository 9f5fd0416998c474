"""What every `Outbox` does, whatever is behind it: order, bounds, what is told of a loss, how it ends."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support import DEADLINE, eventually
from velocity_ws.delivery.outbox import Outbox, QueueOutbox
from velocity_ws.delivery.transport_outbox import Flusher, TransportOutbox
from velocity_ws.messages.outbound import PreparedMessage, encode
from velocity_ws.stats import Counters

LIMIT = 1000


class Owner:
    """Closes an outbox that is full, as a session does."""

    def __init__(self) -> None:
        self.full = 0
        self.broken = 0
        self.outbox: Outbox | None = None

    def outbox_full(self) -> None:
        self.full += 1
        if self.outbox is not None:
            self.outbox.close(1013, "too slow", discard=True)

    def outbox_dropped(self) -> None: ...

    def outbox_broken(self) -> None:
        self.broken += 1


class Rig(ABC):
    """An outbox, and a client that reads or does not."""

    outbox: Outbox

    def __init__(self) -> None:
        self.counters = Counters()
        self.owner = Owner()
        self.seen: list[Any] = []

    @abstractmethod
    async def hold(self) -> None:
        """The client reads no more, and whatever lies between it and the outbox is full."""

    @abstractmethod
    def read(self) -> None:
        """The client reads again."""

    def offer(self, *data: Any) -> list[bool]:
        return [self.outbox.offer(encode("e", item)) for item in data]

    async def sees(self, *expected: Any) -> None:
        await eventually(lambda: len(self.seen) >= len(expected))
        assert self.seen == list(expected)

    def note(self, content: bytes) -> None:
        message = json.loads(content)
        self.seen.append(f"gap {message['data']['dropped']}" if message["event"] == "gap" else message["data"])


class QueueRig(Rig):
    """`QueueOutbox` over an ASGI ``send`` that waits while the client does not read."""

    def __init__(self, drop: bool) -> None:
        super().__init__()
        self._open = asyncio.Event()
        self._open.set()
        self._held = 0
        queue = QueueOutbox(self._send, self.owner, self.counters, limit=LIMIT, drop=drop)
        self.outbox = self.owner.outbox = queue

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self._open.wait()
        if message["type"] == "websocket.close":
            self.seen.append(f"close {message['code']}")
        elif message.get("bytes") is not None:
            self.seen.append(message["bytes"])
        elif json.loads(message["text"])["data"] != "held":
            self.note(message["text"].encode())

    async def hold(self) -> None:
        self._open.clear()

    def read(self) -> None:
        self._open.set()


class TransportRig(Rig):
    """`TransportOutbox` on a transport that is paused while the client does not read."""

    def __init__(self, drop: bool) -> None:
        super().__init__()
        self.is_paused = False
        self.writes: list[bytes] = []
        self._closing = False
        self.flusher = Flusher()
        outbox = TransportOutbox(
            self, self.owner, self.counters, self.flusher, window_bits=0, burst=LIMIT // 2, limit=LIMIT, drop=drop
        )
        self.direct = self.outbox = self.owner.outbox = outbox

    @property
    def transport(self) -> Any:
        return self

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        while data:
            size, at = data[1], 2
            if size == 126:
                size, at = int.from_bytes(data[2:4], "big"), 4
            payload, is_text = data[at : at + size], data[0] & 0xF == 1
            data = data[at + size :]
            if is_text:
                self.note(payload)
            else:
                self.seen.append(payload)

    def is_closing(self) -> bool:
        return self._closing

    def send_close(self, code: int, reason: str) -> None:
        self.seen.append(f"close {code}")

    def abort(self) -> None:
        self._closing = True

    async def ping(self) -> float | None:
        return 0.5

    async def hold(self) -> None:
        self.is_paused = True
        self.direct.pause()

    def read(self) -> None:
        self.is_paused = False
        self.direct.resume()


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
        await rig.outbox.join()
    assert rig.outbox.is_joined
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
        await rig.outbox.join()
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


# --- the transport's own


async def test_one_write_for_each_turn() -> None:
    rig = TransportRig(False)
    rig.offer(*range(10))
    assert rig.writes == []
    await rig.sees(*range(10))
    assert len(rig.writes) == 1
    rig.offer(10)
    await rig.sees(*range(11))
    assert len(rig.writes) == 2
    assert rig.counters.bytes_sent == sum(len(encode("e", number).payload) for number in range(11))


async def test_a_turns_worth_of_bytes_is_bounded() -> None:
    rig = TransportRig(False)
    assert all(rig.offer(*["x" * 100] * 50))
    assert len(rig.writes) > 5, "before the turn is over"
    await rig.sees(*["x" * 100] * 50)
    assert max(map(len, rig.writes)) < LIMIT
    assert rig.direct.queued_bytes == 0


async def test_nothing_goes_to_a_transport_that_closes() -> None:
    rig = TransportRig(False)
    rig.offer("a", "b")
    rig.abort()
    rig.flusher.flush()
    assert (rig.seen, rig.counters.dropped, rig.counters.messages_sent) == ([], 2, 0)


async def test_one_that_cannot_be_written_to_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, well = TransportRig(False), TransportRig(False)
    flusher = Flusher()
    broken.direct._flusher = well.direct._flusher = flusher

    def fail(data: bytes) -> None:
        raise OSError(data)

    monkeypatch.setattr(broken, "write", fail)
    broken.offer("a")
    well.offer("b")
    await well.sees("b")
    assert broken.is_closing()
    assert "is cut" in caplog.text


async def test_a_ping_is_the_connections() -> None:
    assert await TransportRig(False).outbox.ping() == 0.5
