"""Handles: `broker.streams.follow` reads a stream as it is said, on any node, loop and thread, from any place on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support import DEADLINE, eventually, running, settings
from tests.support.durables import META, data
from tests.support.nodes import engine_url
from tests.support.streaming import ROOM, Gate, chat, said
from velocity_ws import (
    BackplaneUnavailable,
    Broker,
    BrokerError,
    InvalidNameError,
    StreamError,
    StreamNotFound,
    StreamReader,
)
from velocity_ws.broker import stream_handles
from velocity_ws.streams import tails
from velocity_ws.streams.items import Summary
from velocity_ws.streams.notes import Meta
from velocity_ws.streams.requests import Post, Said
from velocity_ws.streams.streams import Streams
from velocity_ws.streams.tail import Chunk

CLOSE = Post("text/plain", is_closing=True)


async def all_of(reader: StreamReader) -> list[Any]:
    """What a stream has, part by part, up to its end."""
    async with asyncio.timeout(DEADLINE):
        return [part async for part in reader]


def streams_of(broker: Broker) -> Streams:
    found = broker.node.streams
    assert found is not None
    return found


@asynccontextmanager
async def begun() -> AsyncIterator[tuple[Broker, StreamReader]]:
    """A broker with a stream ``a`` that is written over HTTP, and a reader that has had what it said: ``old``."""
    async with Broker(settings()) as broker:
        await streams_of(broker).wake()
        await streams_of(broker).durable.create("a", None, META, data(b"old"), is_closed=False)
        reader = broker.streams.follow("a")
        assert await anext(reader) == b"old"
        yield broker, reader


async def test_what_was_said_comes_first_and_then_what_is_said() -> None:
    async with Broker(settings()) as broker:
        gate = Gate()
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("Hé")
        reader = broker.streams.follow("a")
        assert (await anext(reader), reader.position, reader.end) == ("Hé", 2, None)
        waiting = asyncio.create_task(anext(reader))
        gate.say("llo")
        assert await waiting == "llo"
        gate.say("!")
        gate.end()
        assert "".join(await all_of(reader)) == "!"
        assert (reader.id, reader.position, reader.end) == ("a", 6, "done")
        with pytest.raises(StopAsyncIteration):
            await anext(reader)
        assert "".join(await all_of(broker.streams.follow("a"))) == "Héllo!"


@pytest.mark.parametrize("start", [0, 1, 3, 4, 9])
async def test_a_reader_begins_where_it_is_told_to(start: int) -> None:
    async with Broker(settings()) as broker:
        text, items = "a€𝄞é", [1, {"a": [2]}, None, "four"]
        for id_, parts in (("text", list(text)), ("items", [items[0], *items[1:]])):
            stream = await broker.streams.start(
                id_, room=ROOM, source=said([each for each in parts if each is not ...])
            )
            await stream.wait()
        assert "".join(await all_of(broker.streams.follow("text", start))) == text[start:]
        assert await all_of(broker.streams.follow("items", start)) == items[start:]


async def test_items_come_one_by_one() -> None:
    async with Broker(settings()) as broker:
        gate = Gate()
        await broker.streams.start("a", room=ROOM, source=gate.source())
        reader = broker.streams.follow("a")
        gate.say({"a": 1}, [], "text", None)
        found = [await anext(reader) for _ in range(4)]
        assert found == [{"a": 1}, [], "text", None]
        assert reader.end is None
        gate.end()
        assert await all_of(reader) == []
        assert reader.end == "done"


@pytest.mark.parametrize("end", ["cancelled", "error"])
async def test_a_reader_knows_how_the_stream_has_ended(end: str) -> None:
    async with Broker(settings()) as broker:
        gate = Gate()
        stream = await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("so far")
        reader = broker.streams.follow("a")
        assert await anext(reader) == "so far"
        if end == "error":
            gate.end(RuntimeError("no"))
        else:
            await stream.cancel()
        assert (await all_of(reader), reader.end) == ([], end)


async def test_bytes_that_a_request_wrote_come_as_they_are() -> None:
    async with Broker(settings()) as broker:
        streams = streams_of(broker)
        await streams.wake()
        await streams.durable.create("a", None, META, data(b"\xff\x00"), is_closed=False)
        reader = broker.streams.follow("a")
        assert await anext(reader) == b"\xff\x00"
        await streams.forks.append("a", CLOSE, lambda *_: data(b"\xe2"))
        assert await all_of(reader) == [b"\xe2"]
        state = await broker.streams.read("a")
        assert (state.content, state.text, state.items, state.end) == (b"\xff\x00\xe2", None, None, "done")
        items = Said("items", 2, b"1,[2]")
        await streams.durable.create("j", None, Meta("application/json", META.tag), items, is_closed=True)
        assert await all_of(broker.streams.follow("j")) == [1, [2]]
        assert (await broker.streams.read("j")).items == [1, [2]]


@pytest.mark.parametrize("kind", ["memory", "valkey"])
async def test_readers_on_another_node_get_all_of_it_in_order(kind: str) -> None:
    async with engine_url(kind) as url:
        one, two = (Broker(settings(backplane_url=url), twin=True) for _ in range(2))
        async with one, two:
            gate = Gate()
            await one.streams.start("a", room=ROOM, source=gate.source())
            readers = [asyncio.create_task(all_of(two.streams.follow("a"))) for _ in range(3)]
            for number in range(300):
                gate.say(f"{number},")
                if number % 50 == 0:
                    await asyncio.sleep(0)
            gate.end()
            expected = "".join(f"{number}," for number in range(300))
            for parts in await asyncio.gather(*readers, all_of(two.streams.follow("a"))):
                assert "".join(parts) == expected


async def test_who_does_not_iterate_holds_nothing_and_misses_nothing() -> None:
    async with Broker(settings()) as broker:
        gate = Gate()
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("x")
        reader = broker.streams.follow("a")
        assert await anext(reader) == "x"
        for _ in range(50):
            gate.say("y" * 10_000)
        gate.end()
        await broker.streams.wait("a")
        assert "".join(await all_of(reader)) == "y" * 500_000


async def test_a_stream_that_is_deleted_while_it_is_read_ends_or_is_not_found() -> None:
    async with begun() as (broker, reader):
        streams = streams_of(broker)
        waiting = asyncio.create_task(all_of(reader))
        await eventually(lambda: streams.tails._tails["a"].users)
        await streams.forks.delete("a")
        assert (await waiting, reader.end) == ([], "cancelled")
        with pytest.raises(StreamError):
            await all_of(broker.streams.follow("a"))


async def test_a_reader_of_a_stream_that_was_begun_anew_gets_nothing_of_the_new_one() -> None:
    async with begun() as (broker, reader):
        streams = streams_of(broker)
        await streams.forks.delete("a")
        await streams.durable.create("a", None, META, data(b"a new one"), is_closed=True)
        assert await all_of(reader) == []
        assert reader.end == "cancelled"
        assert b"".join(await all_of(broker.streams.follow("a"))) == b"a new one"


async def test_a_reader_that_comes_back_late_does_not_go_on_in_another_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "LINGER", 0.0)
    async with begun() as (broker, reader):
        streams = streams_of(broker)
        await streams.forks.delete("a")
        await streams.durable.create("a", None, META, data(b"a new one"), is_closed=False)
        await eventually(lambda: "a" not in streams.tails._tails)
        with pytest.raises(StreamNotFound):
            await anext(reader)


async def test_what_is_not_there_is_not_followed() -> None:
    broker = Broker(settings())
    with pytest.raises(BrokerError, match="not started"):
        await anext(broker.streams.follow("a"))
    async with broker:
        with pytest.raises(StreamNotFound):
            await anext(broker.streams.follow("a"))
        for bad in ("", "x" * 257, 7, "\ud800"):
            with pytest.raises(InvalidNameError):
                broker.streams.follow(bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="from 0 on"):
            broker.streams.follow("a", -1)
        for start in (True, 1.5, "1", None):
            with pytest.raises(TypeError, match="a stream is followed from a number on"):
                broker.streams.follow("a", start)  # type: ignore[arg-type]


async def test_a_stream_is_not_over_by_its_time_while_it_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Broker(settings()) as broker:
        streams = streams_of(broker)
        await streams.wake()
        renewed: list[str] = []
        renew = streams.kept.renew

        async def counted(stream: Summary) -> None:
            await renew(stream)
            renewed.append(stream.id)

        monkeypatch.setattr(streams.kept, "renew", counted)
        await streams.durable.create("a", None, Meta("text/plain", META.tag, ttl=2), data(b"x"), is_closed=False)
        reader = broker.streams.follow("a")
        assert await anext(reader) == b"x"
        waiting = asyncio.create_task(all_of(reader))
        await eventually(lambda: len(renewed) > 5)  # in three seconds
        await streams.forks.append("a", CLOSE, lambda *_: data(b"y"))
        assert (await waiting, reader.end) == ([b"y"], "done")


async def test_who_waits_is_told_when_the_broker_stops() -> None:
    broker = Broker(settings())
    await broker.start()
    await streams_of(broker).wake()
    await streams_of(broker).durable.create("a", None, META, data(b"x"), is_closed=False)
    reader = broker.streams.follow("a")
    assert await anext(reader) == b"x"
    waiting = asyncio.create_task(all_of(reader))
    await eventually(lambda: _users(broker) == 1)
    await broker.stop()
    with pytest.raises(BackplaneUnavailable, match="stopping"):
        await waiting


async def test_an_error_leaves_a_reader_where_it_is() -> None:
    answers: list[Chunk | Exception] = [
        Chunk("text", 0, 2, b"ab", True, "", b"w"),
        BackplaneUnavailable("it is away"),
        Chunk("", 2, 2, b"", True, "", b"w"),
        Chunk("text", 2, 3, b"c", True, "done", b"w"),
    ]
    asked: list[int] = []

    async def read(_: str, position: int, writer: bytes) -> Chunk:
        assert writer == (b"w" if asked else b"")
        asked.append(position)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    reader = stream_handles.StreamReader(run, read, "a", 0)
    assert await anext(reader) == "ab"
    with pytest.raises(BackplaneUnavailable):
        await anext(reader)
    assert await anext(reader) == "c"
    assert asked == [0, 2, 2, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


async def run(function: Any, *arguments: Any) -> Any:
    return await function(*arguments)


async def test_a_reader_has_had_what_it_was_given_and_another_one_goes_on_from_there() -> None:
    async with Broker(settings()) as broker:
        stream = await broker.streams.start("a", room=ROOM, source=said(list(range(300))))
        await stream.wait()
        reader, had = broker.streams.follow("a"), 0
        while had < 300:
            for _ in range(20):
                assert (await anext(reader), reader.position, reader.end) == (had, had + 1, None)
                had += 1
            reader = broker.streams.follow("a", reader.position)
        assert await all_of(reader) == []
        assert (reader.position, reader.end) == (300, "done")


async def test_others_have_their_turns_while_many_items_are_read() -> None:
    many = 40 * stream_handles.PARTS_PER_TURN
    data = b",".join(b"%d" % number for number in range(many))
    answers = [Chunk("items", 0, many, data, True, "done", b"w")]

    async def read(*_: object) -> Chunk:
        return answers.pop()

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    found = await all_of(stream_handles.StreamReader(run, read, "a", 0))
    task.cancel()
    assert found == list(range(many))
    assert turns >= 30


async def test_others_have_their_turns_where_each_item_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_handles, "SECONDS_PER_TURN", -1.0)
    answers = [Chunk("items", 0, 9, b"0,1,2,3,4,5,6,7,8", True, "done", b"w")]

    async def read(*_: object) -> Chunk:
        return answers.pop()

    reader = stream_handles.StreamReader(run, read, "a", 0)
    assert await anext(reader) == 0
    for number in range(1, 9):
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        assert not waiting.done()  # it has let this have its turn
        waiting.cancel()
        await asyncio.wait([waiting])
        assert reader.position == number  # and what it had not given is there
        assert await anext(reader) == number


async def test_a_number_that_is_out_of_range_takes_nothing_from_who_reads() -> None:
    async with Broker(settings()) as broker:
        await streams_of(broker).wake()
        items = Said("items", 8, b'1,2,{"a":3},4,5,1e999,' + b"-" + b"9" * 5000 + b',"six"')
        await streams_of(broker).durable.create("a", None, Meta("application/json", META.tag), items, is_closed=True)
        expected = [1, 2, {"a": 3}, 4, 5, float("inf"), float("-inf"), "six"]
        reader = broker.streams.follow("a")
        assert (await all_of(reader), reader.position, reader.end) == (expected, 8, "done")
        assert (await broker.streams.read("a")).items == expected


async def test_a_stream_is_followed_in_threads_and_in_other_loops() -> None:
    broker = Broker(settings())
    chat(broker)
    async with running(broker, "ours"):
        gate = Gate()
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("one ")
        began = threading.Event()

        def blocking() -> str:
            parts = []
            for part in broker.sync.streams.follow("a"):
                parts.append(part)
                began.set()
            return "".join(parts)

        async def elsewhere() -> str:
            return "".join([part async for part in broker.streams.follow("a", 1)])

        threads = [
            asyncio.create_task(asyncio.to_thread(each)) for each in (blocking, lambda: asyncio.run(elsewhere()))
        ]
        async with asyncio.timeout(DEADLINE):
            await asyncio.to_thread(began.wait, DEADLINE)
            gate.say("two")
            gate.end()
            assert await asyncio.gather(*threads) == ["one two", "ne two"]

        def missing() -> None:
            next(broker.sync.streams.follow("none"))

        with pytest.raises(StreamNotFound):
            await asyncio.to_thread(missing)


async def test_a_thousand_readers_share_what_is_heard() -> None:
    async with Broker(settings()) as broker:
        gate = Gate()
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("x")
        await eventually(lambda: _length(broker) == 1)
        readers = [asyncio.create_task(all_of(broker.streams.follow("a"))) for _ in range(1000)]
        await eventually(lambda: _users(broker) == 1000)
        for _ in range(5):
            gate.say("y")
        gate.end()
        async with asyncio.timeout(DEADLINE):
            assert {"".join(parts) for parts in await asyncio.gather(*readers)} == {"xyyyyy"}
        assert len(streams_of(broker).tails._tails) == 1


def _length(broker: Broker) -> int:
    writers = streams_of(broker)._pulse.writers
    return sum(1 for _ in writers)


def _users(broker: Broker) -> int:
    tail = streams_of(broker).tails._tails.get("a")
    return 0 if tail is None else tail.users


async def endless() -> AsyncIterator[str]:
    """Never says anything."""
    await asyncio.Event().wait()
    yield ""


async def test_who_stops_iterating_leaves_nothing_behind() -> None:
    async with Broker(settings()) as broker:
        stream = await broker.streams.start("a", room=ROOM, source=endless())
        waiting = asyncio.create_task(all_of(broker.streams.follow("a")))
        await eventually(lambda: _users(broker) == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert _users(broker) == 0
        await stream.cancel()
