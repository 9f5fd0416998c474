"""Pulse: what all writers say is stored together, and once, whatever the engine does; leases are renewed."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support import DEADLINE, eventually
from velocity_ws import StreamEnded
from velocity_ws.backplane.base import Lost
from velocity_ws.history.items import Refused
from velocity_ws.streams import pulse as streams_pulse
from velocity_ws.streams.items import WRITER_SIZE, Append, Begin, Ending, Query, Renewal, Times, Written
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.memory import MemoryStreams
from velocity_ws.streams.pieces import HEADER_SIZE, join, unpack
from velocity_ws.streams.pulse import Pulse
from velocity_ws.streams.wire import Heads
from velocity_ws.streams.writer import StreamWriter

NODE = "0" * 11
TIMES = Times(600_000, 60_000, 600_000)
_names = itertools.count()


class Store(MemoryStreams):
    """A store in this process.

    Attributes:
        calls: the ids of each call that appends.
        renewals: the ids of each call that renews.
        problems: what the next calls that append do in place of answering, once they are done.
        renewal_problems: the same of those that renew.
        refused: ids whose pieces are refused.
        now: seconds of its clock.
    """

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        super().__init__(f"memory://pulse-{next(_names)}", clock=lambda: self.now)
        self.calls: list[list[str]] = []
        self.renewals: list[list[str]] = []
        self.problems: list[Exception] = []
        self.renewal_problems: list[Exception] = []
        self.refused: set[str] = set()
        self.lost: Lost = lambda _: None

    async def connect(self, lost: Lost) -> None:
        self.lost = lost
        await super().connect(lost)

    async def append(self, appends: Sequence[Append]) -> list[Written | Refused]:
        self.calls.append([append.id for append in appends])
        staying = [append for append in appends if append.id not in self.refused]
        found = iter(await super().append(staying))
        if self.problems:
            raise self.problems.pop()
        return [Refused("engine", "not now") if append.id in self.refused else next(found) for append in appends]

    async def renew(self, renewals: Sequence[Renewal]) -> list[Written | Refused]:
        self.renewals.append([renewal.id for renewal in renewals])
        found = await super().renew(renewals)
        if self.renewal_problems:
            raise self.renewal_problems.pop()
        return found


class Writing:
    """The writers of a node."""

    def __init__(self, store: Store, interval: float, times: Times) -> None:
        self.store = store
        self.times = times
        self.link = StreamLink(store, timeout=DEADLINE)
        self.pulse = Pulse(self.link, interval, times)
        self.taken: dict[str, list[bytes]] = {}

    async def begin(self, id_: str) -> StreamWriter:
        begin = Begin(id_, "velocity.room.chat", "chat", secrets.token_bytes(WRITER_SIZE), self.times)
        await self.link.begin(begin)
        writer = StreamWriter(begin, NODE, 16 * 1024 * 1024, self.link.max_payload, self.pulse, self._took)
        self.pulse.begin(writer)
        return writer

    def _took(self, room: str, id_: str, payload: bytes) -> None:
        self.taken.setdefault(id_, []).append(payload)

    async def text(self, id_: str) -> str:
        """What the engine has of a stream; the same as this node was told of."""
        part = await self.link.read(Query(id_, "velocity.room.chat", 0, 1 << 30))
        assert part is not None
        assert part.payloads == self.taken[id_]
        pieces = [unpack(payload) for payload in part.payloads]
        assert [piece.number for piece in pieces] == list(range(len(pieces)))
        return join(pieces).data.decode()


@asynccontextmanager
async def writing(interval: float = 0.0, times: Times = TIMES, store: Store | None = None) -> AsyncIterator[Writing]:
    found = Writing(store or Store(), interval, times)
    await found.link.start(DEADLINE)
    found.pulse.start()
    try:
        yield found
    finally:
        await found.pulse.stop()
        await found.link.stop()


def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_pulse, "AGAIN", 0.005)


async def test_what_all_writers_say_is_stored_in_one_call() -> None:
    async with writing() as node:
        writers = [await node.begin(id_) for id_ in "abc"]
        for word in ("one ", "two"):
            for writer in writers:
                await writer.write(word)
        for writer in writers:
            writer.close("done")
        assert [await writer.wait_over() for writer in writers] == ["done"] * 3
        assert node.store.calls == [["a", "b", "c"]]
        assert [await node.text(id_) for id_ in "abc"] == ["one two"] * 3
        assert node.pulse.writers == []


async def test_what_is_said_in_an_interval_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    interval = 2 * DEADLINE  # of which a test lets the end come
    loop = asyncio.get_running_loop()
    call_later, ends = loop.call_later, list[Callable[[], object]]()

    def later(seconds: float, function: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        if interval - DEADLINE < seconds <= interval:
            ends.append(function)
        return call_later(seconds, function, *arguments)

    async with writing(interval=interval) as node:
        monkeypatch.setattr(loop, "call_later", later)
        writer = await node.begin("a")
        await writer.write("first ")
        await eventually(lambda: node.taken.get("a"))
        for word in ("one ", "two ", "three"):
            await writer.write(word)
            await asyncio.sleep(0)
        await eventually(lambda: ends)
        assert len(node.taken["a"]) == 1
        ends[0]()
        await eventually(lambda: len(node.taken["a"]) == 2)
        assert await node.text("a") == "first one two three"


async def test_what_is_urgent_does_not_wait_for_the_interval() -> None:
    async with writing(interval=3600) as node:
        writer = await node.begin("a")
        writer.announce()
        await eventually(lambda: node.taken.get("a"))
        await writer.write("patient ")
        writer.close("done")
        assert await writer.wait_over() == "done"
        other = await node.begin("b")
        await other.write("x" * 300_000)  # which waits until there is room
        assert len(node.taken["b"]) > 1


async def test_many_pieces_are_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_pulse, "BATCH", 3)
    async with writing() as node:
        writers = [await node.begin(f"{number}") for number in range(7)]
        for writer in writers:
            writer.close("done")
        for writer in writers:
            await writer.wait_over()
        assert [len(call) for call in node.store.calls] == [3, 3, 1]


@pytest.mark.parametrize("is_lost", [False, True])
async def test_what_an_engine_did_not_answer_is_stored_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_lost: bool
) -> None:
    often(monkeypatch)
    async with writing() as node:
        writer = await node.begin("a")
        node.store.problems = [ConnectionError("it went"), ConnectionError("it went again")]
        await writer.write("one ")
        await eventually(lambda: not node.store.problems)
        await writer.write("two ")
        if is_lost:
            node.store.lost(ConnectionError("it is gone"))
        await writer.write("three")
        writer.close("done")
        assert await writer.wait_over() == "done"
        assert await node.text("a") == "one two three"
    assert "1 streams wait for the engine" in caplog.text


async def test_what_an_engine_refuses_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    often(monkeypatch)
    async with writing() as node:
        refused, other = await node.begin("refused"), await node.begin("other")
        node.store.refused.add("refused")
        for writer in (refused, other):
            await writer.write("text")
            writer.close("done")
        assert await other.wait_over() == "done"
        assert not refused.is_over
        node.store.refused.clear()
        assert await refused.wait_over() == "done"
        assert await node.text("refused") == "text"


async def test_others_do_not_wait_until_what_was_refused_is_stored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_pulse, "AGAIN", 10 * DEADLINE)
    async with writing() as node:
        refused, other = await node.begin("refused"), await node.begin("other")
        node.store.refused.add("refused")
        await refused.write("text")
        await eventually(lambda: node.store.calls)
        await other.write("text")
        other.close("done")
        await eventually(lambda: other.is_over)
        assert not refused.is_over


async def test_a_stream_that_was_ended_by_another_stops_its_writer() -> None:
    async with writing() as node:
        writer = await node.begin("a")
        await writer.write("one")
        await eventually(lambda: node.taken.get("a"))
        deaths: list[str] = []
        writer.when_dead = deaths.append
        head = Heads(NODE, "chat", "a").of(HEADER_SIZE)
        await node.link.end(Ending("a", "velocity.room.chat", "cancelled", head))
        await writer.write("two")
        assert await writer.wait_over() == "cancelled"
        assert (deaths, node.pulse.writers) == (["cancelled"], [])
        with pytest.raises(StreamEnded):
            await writer.write("three")


async def test_leases_are_renewed_and_a_dead_writer_hears_of_it() -> None:
    times = Times(60, 60_000, 600_000)
    store = Store()
    async with writing(times=times, store=store) as node:
        silent, ended = await node.begin("silent"), await node.begin("ended")
        await eventually(lambda: ["silent", "ended"] in store.renewals)
        store.now += 0.1  # longer than a lease, and still it is renewed, as nobody has ended it
        count = len(store.renewals)
        await eventually(lambda: len(store.renewals) > count + 1)
        stream = await node.link.look("silent")
        assert stream is not None
        assert (stream.left, stream.end) == (60, "")
        head = Heads(NODE, "chat", "ended").of(HEADER_SIZE)
        await node.link.end(Ending("ended", "velocity.room.chat", "lost", head))
        assert await ended.wait_over() == "lost"
        await eventually(lambda: store.renewals[-1] == ["silent"])
        silent.close("done")
        await silent.wait_over()


async def test_an_engine_that_comes_back_has_leases_renewed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    often(monkeypatch)
    store = Store()
    store.renewal_problems = [ConnectionError("it went") for _ in range(3)]
    async with writing(times=Times(100, 60_000, 600_000), store=store) as node:
        await node.begin("a")
        await eventually(lambda: not store.renewal_problems and len(store.renewals) >= 5)


async def test_a_renewal_that_finds_the_writer_s_own_end_takes_nothing_from_its_readers() -> None:
    """Both are on their way at once: the engine has the end, and the answer that says so comes last."""
    store = SlowStore()
    lease = Times(60, 60_000, 600_000)
    async with writing(times=lease, store=store) as node:
        writer = await node.begin("a")
        await writer.write("all of it")
        writer.close("done")
        await eventually(lambda: store.has_end)
        renewed = len(store.renewals)
        await eventually(lambda: len(store.renewals) > renewed + 1)  # the one before was answered
        dead: list[str] = []
        writer.when_dead = dead.append
        store.answer.set()
        async with asyncio.timeout(DEADLINE):
            assert await writer.wait_over() == "done"
        assert dead == []
        assert await node.text("a") == "all of it"


class SlowStore(Store):
    """A store whose answer to an end takes as long as a test wants.

    Attributes:
        has_end: whether it has one.
        answer: lets it say so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_end = False
        self.answer = asyncio.Event()

    async def append(self, appends: Sequence[Append]) -> list[Written | Refused]:
        results = await super().append(appends)
        if any(unpack(append.payload).end for append in appends):
            self.has_end = True
            await self.answer.wait()
        return results
