"""Streams of careless applications: whatever a source does, its stream ends, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE, eventually, running, settings
from tests.support.clocks import keeps_time_of
from tests.support.jetstream import storing
from tests.support.streaming import ROOM, Gate, chat, join, read, said
from velocity_ws import Broker, StreamEnded, StreamTooLarge
from velocity_ws.streams.memory import MemoryStreams

Source = Callable[[], Any]


def _chats(**values: Any) -> Broker:
    broker = Broker(settings(**{"drain_timeout": 0.2, **values}))
    chat(broker)
    return broker


def _fails() -> AsyncIterator[str]:
    raise RuntimeError("it cannot be begun")


async def _coroutine() -> str:
    return "no iterator"


@pytest.mark.parametrize(("source", "error"), [(_fails, RuntimeError), (_coroutine, TypeError), (list, TypeError)])
async def test_a_source_that_cannot_be_begun_ends_its_stream(source: Source, error: type[Exception]) -> None:
    broker = _chats()
    async with running(broker, "ours") as address, address.connect() as peer:
        await join(peer)
        with pytest.raises(error):
            await broker.streams.start("a", room=ROOM, source=source)
        assert (await read(peer, "a")).end == "error"
        assert await broker.streams.wait("a") == "error"


async def _raises_what_ends_generators() -> AsyncIterator[str]:
    yield "so far"
    raise GeneratorExit


async def _cancels_itself() -> AsyncIterator[str]:
    yield "so far"
    raise asyncio.CancelledError


@pytest.mark.parametrize(("source", "end"), [(_raises_what_ends_generators, "error"), (_cancels_itself, "cancelled")])
async def test_a_source_that_raises_what_none_should_ends_its_stream(source: Source, end: str) -> None:
    broker = _chats()
    async with running(broker, "ours"):
        stream = await broker.streams.start("a", room=ROOM, source=source)
        async with asyncio.timeout(DEADLINE):
            assert await stream.wait() == end
        assert (await stream.read()).text == "so far"


async def test_a_generator_that_is_given_twice_is_not_ended_by_the_second_start() -> None:
    broker, gate = _chats(), Gate()
    source = gate.source()
    async with running(broker, "ours"):
        stream = await broker.streams.start("a", room=ROOM, source=source)
        await eventually(gate.began.is_set)
        assert not (await broker.streams.start("a", room=ROOM, source=source)).is_new
        gate.say("all ", "of it")
        gate.end()
        assert await stream.wait() == "done"
        assert (await stream.read()).text == "all of it"


async def test_a_generator_of_two_streams_is_an_error_of_the_second() -> None:
    broker, gate = _chats(), Gate()
    source = gate.source()
    async with running(broker, "ours"):
        first = await broker.streams.start("a", room=ROOM, source=source)
        await eventually(gate.began.is_set)
        second = await broker.streams.start("b", room=ROOM, source=source)
        assert await second.wait() == "error"
        gate.say("all of it")
        gate.end()
        assert await first.wait() == "done"
        assert (await first.read()).text == "all of it"


async def test_what_has_failed_cannot_be_cancelled_while_its_error_is_reported() -> None:
    broker, gate = _chats(), Gate()
    asked, go, reported = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @broker.on_error
    async def report(error: Exception) -> None:
        asked.set()
        await go.wait()
        reported.set()

    async with running(broker, "ours"):
        stream = await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.end(RuntimeError("out of tokens"))
        await eventually(asked.is_set)
        assert not await stream.cancel()
        go.set()
        await eventually(reported.is_set)
        assert await stream.wait() == "error"


async def test_a_block_that_writes_ends_with_a_broker_whose_engine_takes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = _chats()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with broker.streams.open("a", room=ROOM) as stream:
            await stream.write("said")
            entered.set()
            await leave.wait()

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    async with running(broker, "ours"):
        writing = asyncio.create_task(write())
        await eventually(entered.is_set)
        monkeypatch.setattr(MemoryStreams, "append", never)
        leave.set()
    with pytest.raises(StreamEnded):
        async with asyncio.timeout(DEADLINE):
            await writing


async def _is_refused_an_item(broker: Broker, size: int) -> None:
    """Have a stream say an item of so many bytes, and beside it another stream go on."""
    async with running(broker, "ours") as address, address.connect(max_size=None) as peer:
        await join(peer)
        async with broker.streams.open("a", room=ROOM) as stream:
            await stream.write({"small": 1})
            with pytest.raises(StreamTooLarge, match="in several items"):
                await stream.write("x" * size)
            await stream.write({"small": 2})
        reading = await read(peer, "a")
        assert (reading.items, reading.end) == ([{"small": 1}, {"small": 2}], "done")


async def test_an_item_that_no_engine_takes_is_refused_at_once() -> None:
    await _is_refused_an_item(_chats(), 9 * 1024 * 1024)


async def test_an_item_is_no_larger_than_a_message_of_the_engine(tmp_path: Path) -> None:
    async with storing(tmp_path) as server:
        broker = _chats(backplane_url=server.url, backplane_timeout=5)
        await _is_refused_an_item(broker, 1024 * 1024)


async def test_a_large_item_comes_whole() -> None:
    broker = _chats()
    item = {"text": "é" * 1024 * 1024}
    async with running(broker, "ours") as address, address.connect(max_size=None) as peer:
        await join(peer)
        await broker.streams.start("a", room=ROOM, source=said([item, 7]))
        reading = await read(peer, "a")
        assert (reading.items, reading.end) == ([item, 7], "done")


async def test_what_is_much_too_large_is_refused_and_nothing_of_it_is_taken() -> None:
    broker = _chats(stream_max_size="1MiB")
    huge = "x" * 100 * 1024 * 1024
    async with running(broker, "ours"):
        for id_, what in (("text", huge), ("bytes", huge.encode())):
            stream = await broker.streams.start(id_, room=ROOM, source=said([what[:3], what]))
            assert await stream.wait() == "error"
            assert (await stream.read()).text == "xxx"


async def test_a_source_that_swallows_its_cancellation_says_nothing_more() -> None:
    broker = _chats()
    swallowed, ended = asyncio.Event(), asyncio.Event()

    async def deaf() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    swallowed.set()
        finally:
            ended.set()

    async with running(broker, "ours"):
        stream = await broker.streams.start("a", room=ROOM, source=deaf)
        await _says(broker, "a", "x")
        assert await stream.cancel()
        assert await stream.wait() == "cancelled"
        await eventually(ended.is_set)
        assert swallowed.is_set()
        assert (await stream.read()).text == "x"


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_source_that_hangs_in_its_end_holds_up_nobody(*, is_cancelled: bool) -> None:
    broker = _chats()
    go, hangs = asyncio.Event(), asyncio.Event()

    async def hanging() -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.Event().wait()
        finally:
            hangs.set()
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()
            await go.wait()

    async with asyncio.timeout(DEADLINE):
        async with running(broker, "ours"):
            stream = await broker.streams.start("a", room=ROOM, source=hanging)
            await _says(broker, "a", "x")
            if is_cancelled:
                assert await stream.cancel()
                assert await stream.cancel()
                assert await stream.wait() == "cancelled"
        await eventually(hangs.is_set)
    go.set()
    await _nothing_is_left()


@pytest.mark.usefixtures("unhurried")
async def test_a_source_that_says_nothing_for_long_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    keeps_time_of(asyncio.get_running_loop(), monkeypatch)
    broker, gate = _chats(node_lease=0.3, backplane_url="memory://quiet"), Gate()
    async with running(broker, "ours") as address, address.connect() as peer:
        await join(peer)
        stream = await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("before ")
        await _says(broker, "a", "before ")
        began = asyncio.get_running_loop().time()
        await eventually(lambda: asyncio.get_running_loop().time() > began + 1.2)
        gate.say("after")
        gate.end()
        assert await stream.wait() == "done"
        assert (await read(peer, "a")).text == "before after"


@pytest.mark.parametrize(("half", "says"), [("𝄞".encode()[:2], "bytes"), ("\ud834", "text")])
async def test_half_a_character_before_an_end_that_is_none_is_left_out(half: Any, says: str) -> None:
    broker, gate = _chats(), Gate()
    async with running(broker, "ours"):
        stream = await broker.streams.start(says, room=ROOM, source=gate.source())
        gate.say("so far")
        gate.say(half)
        await _says(broker, says, "so far")
        await stream.cancel()
        assert await stream.wait() == "cancelled"
        assert (await stream.read()).text == "so far"


async def test_a_source_starts_other_streams_and_reads_them() -> None:
    broker = _chats()

    async def outer() -> AsyncIterator[str]:
        inner = await broker.streams.start("inner", room=ROOM, source=said(["from ", "within"]))
        yield await inner.wait()
        yield " "
        yield (await inner.read()).text or ""

    async with running(broker, "ours"):
        stream = await broker.streams.start("outer", room=ROOM, source=outer)
        assert await stream.wait() == "done"
        assert (await stream.read()).text == "done from within"


async def test_a_stream_that_another_loop_opens_and_leaves_before_it_hears_of_that_ends() -> None:
    broker, has_begun = _chats(), threading.Event()

    async def enter() -> None:
        async with broker.streams.open("a", room=ROOM):
            pytest.fail("it was cancelled before")

    async def elsewhere() -> None:
        opening = asyncio.create_task(enter())
        await asyncio.sleep(0)
        has_begun.wait(DEADLINE)  # so that this loop hears of nothing until then
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    async with running(broker, "ours"):
        leaving = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(elsewhere())))
        async with asyncio.timeout(DEADLINE):
            while not await broker.streams.list(ROOM):
                pass
            has_begun.set()
            await leaving
            assert await broker.streams.wait("a") == "cancelled"


async def test_streams_are_started_and_written_on_other_loops() -> None:
    broker = _chats()

    async def elsewhere() -> tuple[str, str | None]:
        stream = await broker.streams.start("a", room=ROOM, source=said(["from ", "elsewhere"]))
        async with broker.streams.open("b", room=ROOM) as writer:
            for number in range(100):
                await writer.write(f"{number} ")
        return await stream.wait(), (await stream.read()).text

    async with running(broker, "ours"):
        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == ("done", "from elsewhere")
        state = await broker.streams.read("b")
        assert (state.text, state.end) == ("".join(f"{number} " for number in range(100)), "done")


async def test_a_start_that_is_cancelled_may_be_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been done, too: then whoever starts it again here writes it."""
    broker = _chats()
    began, go, begin = asyncio.Event(), asyncio.Event(), MemoryStreams.begin

    async def slow(self: MemoryStreams, begins: Any) -> Any:
        found = await begin(self, begins)
        began.set()
        await go.wait()
        return found

    monkeypatch.setattr(MemoryStreams, "begin", slow)
    async with running(broker, "ours"):
        starting = asyncio.create_task(broker.streams.start("a", room=ROOM, source=said(["never"])))
        await eventually(began.is_set)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        go.set()
        stream = await broker.streams.start("a", room=ROOM, source=said(["again"]))
        assert stream.is_new
        assert await stream.wait() == "done"
        assert (await stream.read()).text == "again"


async def test_a_broker_that_stops_leaves_no_task_and_takes_no_stream() -> None:
    broker, gates = _chats(backplane_url="memory://stopping"), [Gate() for _ in range(20)]

    async def late(streams: Callable[..., Awaitable[Any]]) -> None:
        await streams("late", room=ROOM, source=said(["late"]))

    async with running(broker, "ours") as address, address.connect() as peer:
        await join(peer)
        for number, gate in enumerate(gates):
            await broker.streams.start(f"{number}", room=ROOM, source=gate.source())
            gate.say("so far")
        starting = [asyncio.create_task(late(broker.streams.start)) for _ in range(5)]
        await asyncio.gather(*starting)
        peer.ws.transport.abort()
    for gate in gates:
        await gate.cancelled()
    await _nothing_is_left()


async def test_a_writer_that_is_told_of_the_end_stops() -> None:
    broker = _chats()
    async with running(broker, "ours"):
        async with broker.streams.open("a", room=ROOM) as stream:
            await stream.write("x")
            await broker.streams.cancel("a")
            await eventually(lambda: not broker.node.running_streams()._pulse.writers)
            with pytest.raises(StreamEnded) as ended:
                await stream.write("y")
        assert ended.value.end == "cancelled"
        assert (await broker.streams.read("a")).text == "x"


async def test_a_block_whose_stream_was_ended_by_another_says_so_at_its_end() -> None:
    broker = _chats()

    async def write(id_: str, error: Exception | None) -> None:
        async with broker.streams.open(id_, room=ROOM) as stream:
            await stream.write("x")
            await broker.streams.cancel(id_)
            if error is not None:
                raise error

    async with running(broker, "ours"):
        with pytest.raises(StreamEnded, match="cancelled"):
            await write("a", None)
        with pytest.raises(RuntimeError, match="its own"):
            await write("b", RuntimeError("its own"))


async def test_what_a_stop_cuts_off_is_lost_and_no_error() -> None:
    broker = _chats(drain_timeout=0)
    errors: list[Exception] = []

    @broker.on_error
    async def report(error: Exception) -> None:
        errors.append(error)

    async with running(broker, "ours"):
        pulse = broker.node.running_streams()._pulse
        writers: list[Any] = []

        async def source() -> AsyncIterator[str]:
            writers.extend(pulse.writers)
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                await eventually(lambda: not pulse.writers)  # which takes longer than the end of the stream

        await broker.streams.start("a", room=ROOM, source=source)
        await _says(broker, "a", "x")
    assert [writer.end for writer in writers] == ["lost"]
    assert not errors


async def _says(broker: Broker, id_: str, text: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while (await broker.streams.read(id_)).text != text:
            await asyncio.sleep(0.01)  # the pause between two looks, not the wait


async def _nothing_is_left() -> None:
    """Wait until no task of streams runs any more."""
    await eventually(lambda: not [task for task in asyncio.all_tasks() if "stream" in task.get_name()])
