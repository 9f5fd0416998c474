"""Streams: every member has the writer's text, whenever it comes, wherever it is, and is told how it ended."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support import DEADLINE, eventually, running, settings
from tests.support.jetstream import storing
from tests.support.nodes import KINDS, Node, engine_url, nodes
from tests.support.streaming import ROOM, Gate, Reading, chat, join, read, said
from velocity_ws import Broker, Emitter, StreamEnded, StreamError, StreamGone, StreamNotFound
from velocity_ws.backplane.urls import split_url
from velocity_ws.cluster.topics import Topics, prefix_of
from velocity_ws.streams.factory import create_streams
from velocity_ws.streams.items import WRITER_SIZE, Append, Begin, Times
from velocity_ws.streams.pieces import HEADER_SIZE, Piece, pack
from velocity_ws.streams.wire import Heads

LEASE = 2.0


@pytest_asyncio.fixture(params=KINDS)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An engine that keeps streams."""
    if request.param == "nats":
        async with storing(tmp_path) as server:
            yield server.url
    else:
        async with engine_url(request.param) as found:
            yield found


@pytest_asyncio.fixture
async def pair(url: str) -> AsyncIterator[list[Node]]:
    """Two nodes on an engine, which wait for it as long as a busy machine may need."""
    async with nodes(url, prepare=chat, backplane_timeout=5) as found:
        yield found


# --- reading


async def test_members_on_every_node_have_the_writers_text_and_its_end(pair: list[Node]) -> None:
    text = "".join(f"token {number} \u2028 \r\n" for number in range(500))
    async with pair[0].address.connect() as here, pair[1].address.connect() as there:
        for peer in (here, there):
            await join(peer)
        stream = await pair[0].broker.streams.start("a", room=ROOM, source=said(text.splitlines(keepends=True)))
        assert stream.is_new
        for peer in (here, there):
            reading = await read(peer, "a")
            assert (reading.text, reading.end) == (text, "done")
    state = await pair[1].broker.streams.read("a")
    assert (state.id, state.room, state.text, state.items, state.end) == ("a", ROOM, text, None, "done")


async def test_items_are_items(pair: list[Node]) -> None:
    items: list[Any] = [{"type": "text", "delta": "€ 𝄞"}, None, [1, {"a": []}], "text", 5.5]
    async with pair[1].address.connect() as peer:
        await join(peer)
        await pair[0].broker.streams.start("a", room=ROOM, source=said([items[0], *items[1:]]))
        reading = await read(peer, "a")
    assert (reading.items, reading.text, reading.end) == (items, "", "done")
    assert (await pair[1].broker.streams.read("a")).items == items


async def test_whoever_comes_in_the_middle_has_the_text_so_far_and_then_the_rest(pair: list[Node]) -> None:
    """Case 16, with a refresh at 200 places."""
    chance = random.Random(16)
    gate, text = Gate(), "".join(f"{number}, 𝄞é; " for number in range(1000))
    await pair[0].broker.streams.start("a", room=ROOM, source=gate.source())
    cuts = sorted(chance.sample(range(1, len(text)), 200))
    async with AsyncExitStack() as stack:
        readers = []
        for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
            gate.say(text[start:stop])
            if chance.random() < 0.2:
                peer = await stack.enter_async_context(pair[chance.randrange(2)].address.connect())
                stored = len((await pair[0].broker.streams.read("a")).text or "")
                have = chance.choice([None, {}, {"a": chance.randrange(stored + 1)}, {"a": -1, "b": 0}])
                await join(peer, streams=have)
                mine = 0 if not have else max(have["a"], 0)
                readers.append((peer, Reading("a", text[:mine])))
        gate.end()
        for peer, reading in readers:
            await reading.follow(peer)
            assert (reading.text, reading.end) == (text, "done")


async def test_whoever_comes_late_has_all_in_one_message(pair: list[Node]) -> None:
    stream = await pair[0].broker.streams.start("a", room=ROOM, source=said(["one ", "two ", "three"]))
    assert await stream.wait() == "done"
    async with pair[1].address.connect() as peer, pair[0].address.connect() as other:
        await join(peer)
        reading = await read(peer, "a")
        assert (reading.text, reading.end, reading.messages) == ("one two three", "done", 1)
        await join(other, streams={"a": 13})
        assert await other.expect("stream") == {"id": "a", "from": 13, "text": "", "end": "done"}


async def test_long_texts_come_in_contiguous_messages(pair: list[Node]) -> None:
    text = "".join(f"{number:07} é\n" for number in range(120_000))
    stream = await pair[0].broker.streams.start("a", room=ROOM, source=said([text]))
    assert await stream.wait() == "done"
    async with pair[1].address.connect(max_size=None) as peer:
        await join(peer)
        # More than a join brings of what has ended: it is read by its id.
        answer = await peer.request("ping")
        assert answer["data"]["code"] == "UNKNOWN_EVENT"
        await peer.send("stream_read", {"id": "a", "from": 0}, id=2, room=ROOM)
        assert (await peer.receive())["data"] == {"id": "a", "room": ROOM, "from": 0, "end": "done"}
        reading = Reading("a")
        while reading.end is None:
            message = await peer.ws.recv()
            assert len(message) <= 256 * 1024
            reading.take(json.loads(message))
    assert reading.text == text


async def test_a_node_that_starts_later_knows_of_streams_that_were_there(url: str) -> None:
    async with nodes(url, 1, prepare=chat, backplane_timeout=5) as [first]:
        gate = Gate()
        await first.broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("before ")
        await eventually_says(first.broker, "a", "before ")
        broker = Broker(settings(backplane_url=url, backplane_timeout=5), twin=True)
        chat(broker)
        async with running(broker, "ours") as address, address.connect() as peer:
            await eventually(lambda: broker.node.streams is not None and broker.node.streams.is_awake)
            await join(peer)
            gate.say("after")
            gate.end()
            assert (await read(peer, "a")).text == "before after"


async def eventually_says(broker: Broker, id_: str, text: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while (await broker.streams.read(id_)).text != text:
            await asyncio.sleep(0.01)


# --- writing


async def test_a_stream_is_written_piece_by_piece(pair: list[Node]) -> None:
    async with pair[1].address.connect() as peer:
        await join(peer)
        async with pair[0].broker.streams.open("log", room=ROOM) as stream:
            assert (stream.id, stream.room) == ("log", ROOM)
            await stream.write("line\n")
            await stream.write("𝄞".encode()[:2])
            with pytest.raises(TypeError, match="text or items"):
                await stream.write({"an": "item"})
            await stream.write("𝄞".encode()[2:])
            await stream.write("\ud834")
            await stream.write("\udd1e \udd1e!")
        reading = await read(peer, "log")
    assert (reading.text, reading.end) == ("line\n𝄞𝄞 \ufffd!", "done")
    with pytest.raises(StreamEnded) as ended:
        async with pair[1].broker.streams.open("log", room=ROOM):
            raise AssertionError("it is over")
    assert ended.value.end == "done"


async def test_the_end_says_what_became_of_the_writer(pair: list[Node]) -> None:
    async def write() -> None:
        async with pair[0].broker.streams.open("a", room=ROOM) as stream:
            await stream.write("1/0 = ")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write()
    state = await pair[1].broker.streams.read("a")
    assert (state.text, state.end) == ("1/0 = ", "error")


async def test_two_starts_of_one_id_are_one_stream(pair: list[Node]) -> None:
    """Case 18."""
    for number in range(20):
        id_ = f"a{number}"
        gates = [Gate(), Gate()]
        streams = await asyncio.gather(
            *[
                node.broker.streams.start(id_, room=ROOM, source=gate.source)
                for node, gate in zip(pair, gates, strict=True)
            ]
        )
        assert sorted(stream.is_new for stream in streams) == [False, True]
        winner = gates[0] if streams[0].is_new else gates[1]
        winner.say("once")
        winner.end()
        assert [await stream.wait() for stream in streams] == ["done", "done"]
        assert [(await node.broker.streams.read(id_)).text for node in pair] == ["once", "once"]
        assert [gate.began.is_set() for gate in gates].count(True) == 1
    with pytest.raises(StreamError, match="one of room"):
        await pair[0].broker.streams.start("a1", room="chat:8", source=said(["elsewhere"]))


async def test_streams_of_a_room_are_listed_the_newest_first(pair: list[Node]) -> None:
    gate = Gate()
    await (await pair[0].broker.streams.start("a", room=ROOM, source=said(["abc"]))).wait()
    await pair[1].broker.streams.start("b", room=ROOM, source=gate.source())
    await pair[0].broker.streams.start("c", room="chat:8", source=said(["elsewhere"]))
    found = await pair[0].broker.streams.list(ROOM)
    assert [(stream.id, stream.length, stream.end) for stream in found] == [("b", 0, None), ("a", 3, "done")]
    gate.end()


async def test_what_ended_long_ago_is_gone_and_never_runs_again(url: str) -> None:
    async with nodes(url, prepare=chat, backplane_timeout=5, stream_ttl=1) as [first, second]:
        await (await first.broker.streams.start("a", room=ROOM, source=said(["abc"]))).wait()
        gate = Gate()
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    await second.broker.streams.read("a")
                except StreamGone:
                    break
                await asyncio.sleep(0.05)
        with pytest.raises(StreamGone):
            await first.broker.streams.start("a", room=ROOM, source=gate.source)
        assert not gate.began.is_set()
        assert list(await second.broker.streams.list(ROOM)) == []
        with pytest.raises(StreamNotFound):
            await second.broker.streams.read("never")
        async with second.address.connect() as peer:
            await join(peer)
            await peer.send("stream_read", {"id": "a"}, id=1, room=ROOM)
            assert (await peer.expect("error"))["code"] == "GONE"
            await peer.send("stream_read", {"id": "never"}, id=1, room=ROOM)
            assert (await peer.expect("error"))["code"] == "NOT_FOUND"


# --- the end


async def test_a_writer_that_died_is_told_on_every_node_within_its_lease(url: str) -> None:
    """Case 17: begun by a writer that never renews its lease, as one that is gone."""
    topics = Topics(prefix_of(split_url(url)[1], "main"))
    store = create_streams(url, prefix_of(split_url(url)[1], "main"))
    async with (
        nodes(url, prepare=chat, node_lease=LEASE) as pair,
        pair[0].address.connect() as here,
        pair[1].address.connect() as there,
    ):
        for peer in (here, there):
            await join(peer)
        await store.connect(lambda _: None)
        try:
            times = Times(round(LEASE * 1000), 60_000, 60_000)
            begin = Begin("a", topics.room(ROOM), ROOM, secrets.token_bytes(WRITER_SIZE), times)
            for node in pair:  # which look after the room from now on
                await node.broker.streams.list(ROOM)
            await store.begin([begin])
            head = Heads("0" * 11, ROOM, "a").of(HEADER_SIZE)
            await store.append([Append("a", begin.topic, begin.writer, pack(Piece(0, 0, 0, "", "", b"")), head)])
        finally:
            await store.close()
            store.release()
        async with pair[0].address.connect() as late:
            await join(late)
            assert (await pair[1].broker.streams.read("a")).end is None
            async with asyncio.timeout(LEASE + 1 + DEADLINE / 2):
                assert (await read(late, "a")).end == "lost"
        assert (await pair[0].broker.streams.read("a")).end == "lost"


async def test_a_stream_is_cancelled_from_another_node(pair: list[Node]) -> None:
    """Case 17: in the middle, twice, after the end, and before the start."""
    gate = Gate()
    one, other = pair[0].broker, pair[1].broker
    async with pair[0].address.connect() as here, pair[1].address.connect() as there:
        for peer in (here, there):
            await join(peer)
        stream = await one.streams.start("a", room=ROOM, source=gate.source())
        gate.say("abc")
        await eventually_says(other, "a", "abc")
        assert await other.streams.cancel("a")
        await gate.cancelled()
        assert await stream.wait() == "cancelled"
        for peer in (here, there):
            reading = await read(peer, "a")
            assert (reading.text, reading.end) == ("abc", "cancelled")
        assert await one.streams.cancel("a")
        assert await other.streams.cancel("a")

        await (await one.streams.start("b", room=ROOM, source=said(["whole"]))).wait()
        for peer in (here, there):
            await read(peer, "b")
        assert not await other.streams.cancel("b")
        assert (await one.streams.read("b")).end == "done"

        before = Gate()
        assert await other.streams.cancel("c")
        stream = await one.streams.start("c", room=ROOM, source=before.source)
        assert await stream.wait() == "cancelled"
        for peer in (here, there):
            reading = await read(peer, "c")
            assert (reading.text, reading.end) == ("", "cancelled")
    assert not before.began.is_set()


async def test_members_stop_a_stream_where_the_room_allows_it(pair: list[Node]) -> None:
    gate, kept = Gate(), Gate()
    await pair[0].broker.streams.start("a", room=ROOM, source=gate.source())
    await pair[0].broker.streams.start("kept", room=ROOM, source=kept.source())
    async with pair[1].address.connect("/ws?user=admin") as admin, pair[1].address.connect("/ws?user=eve") as eve:
        for peer in (admin, eve):
            await join(peer)
        for peer, id_ in ((eve, "a"), (admin, "kept")):
            await peer.send("stream_cancel", {"id": id_}, id=1, room=ROOM)
            assert (await peer.expect("error"))["code"] == "FORBIDDEN"
        await admin.send("stream_cancel", {"id": "a"}, id=2, room=ROOM)
        await gate.cancelled()
        reading = Reading("a")
        answers = [await admin.receive(), await admin.receive()]
        for answer in answers:
            if answer["event"] == "stream":
                reading.take(answer)
        assert reading.end == "cancelled"
        assert [answer["data"] for answer in answers if answer["event"] == "reply"] == [{"id": "a", "room": ROOM}]
        await Reading("a").follow(eve)
        await join(eve, "quiet:7")
        await eve.send("stream_cancel", {"id": "b"}, id=3, room="quiet:7")
        assert (await eve.expect("error"))["code"] == "FORBIDDEN"
    kept.end()


async def test_a_node_that_stops_lets_its_sources_finish_and_then_says_lost(url: str) -> None:
    """Case 20."""
    async with nodes(url, 1, prepare=chat, backplane_timeout=5) as [stays]:
        quick, slow = Gate(), Gate()
        async with AsyncExitStack() as stack:
            leaves = await _node(stack, url)
            async with stays.address.connect() as peer:
                await join(peer)
                await leaves.broker.streams.start("quick", room=ROOM, source=quick.source())
                await leaves.broker.streams.start("slow", room=ROOM, source=slow.source())
                slow.say("abc")
                first = Reading("slow")
                await first.follow(peer, 3)
                stopping = asyncio.create_task(leaves.broker.stop())
                quick.say("whole")
                quick.end()
                second = await read(peer, "quick")
                assert (second.text, second.end) == ("whole", "done")
                await first.follow(peer)
                assert (first.text, first.end) == ("abc", "lost")
                await slow.cancelled()
                await stopping


async def _node(stack: AsyncExitStack, url: str) -> Node:
    broker = Broker(settings(backplane_url=url, backplane_timeout=5, drain_timeout=2), twin=True)
    chat(broker)
    return Node(broker, await stack.enter_async_context(running(broker, "ours")))


# --- from other processes, and threads


async def test_an_emitter_writes_and_reads_streams(pair: list[Node], url: str) -> None:
    gate = Gate()
    async with pair[0].address.connect() as peer, Emitter(url, timeout=5) as emitter:
        await join(peer)
        async with emitter.streams.open("a", room=ROOM) as stream:
            await stream.write("by a worker")
        reading = await read(peer, "a")
        assert (reading.text, reading.end) == ("by a worker", "done")
        started = await emitter.streams.start("b", room=ROOM, source=gate.source())
        gate.say("abc")
        await eventually_says(pair[1].broker, "b", "abc")
        assert [stream.id for stream in await emitter.streams.list(ROOM)] == ["b", "a"]
        assert await pair[1].broker.streams.cancel("b")
        assert await started.wait() == "cancelled"
        await gate.cancelled()


async def test_who_leaves_an_emitter_waits_for_its_sources(pair: list[Node], url: str) -> None:
    gate = Gate()
    emitter = Emitter(url, timeout=5)
    await emitter.streams.start("a", room=ROOM, source=gate.source())
    gate.say("a")
    await eventually_says(pair[1].broker, "a", "a")
    closing = asyncio.create_task(emitter.stop())
    gate.say("b")
    await eventually_says(pair[1].broker, "a", "ab")
    assert not closing.done()
    gate.end()
    await closing
    assert await pair[1].broker.streams.wait("a") == "done"


async def test_a_thread_writes_a_stream(pair: list[Node]) -> None:
    def write() -> str | None:
        streams = pair[0].broker.sync.streams
        with streams.open("a", room=ROOM) as stream:
            for word in ("by ", "a ", "thread"):
                stream.write(word)
        assert [each.id for each in streams.list(ROOM)] == ["a"]
        assert streams.wait("a") == "done"
        return streams.read("a").text

    async with pair[1].address.connect() as peer:
        await join(peer)
        assert await asyncio.to_thread(write) == "by a thread"
        assert (await read(peer, "a")).text == "by a thread"
