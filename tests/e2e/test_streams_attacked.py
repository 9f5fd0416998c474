"""Streams and clients that ask for more than they may, in ways that no page does; and rooms with very much in them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.support import DEADLINE, Address, Peer, eventually, running, settings
from tests.support.clocks import keeps_time_of
from tests.support.streaming import ROOM, Gate, Reading, chat, join, read, said
from velocity_ws import Broker, Client, History, StreamGone
from velocity_ws.streams.streams import Streams
from velocity_ws.streams.watching import SLACK

HUGE = 2**200


def _chats(**values: Any) -> Broker:
    broker = Broker(settings(**{"drain_timeout": 0.2, "rate_limit": 0, **values}))
    chat(broker)
    return broker


@asynccontextmanager
async def _narrow(address: Address) -> AsyncIterator[Peer]:
    """A client whose socket takes little, and that gets nothing but by reading."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.connect(("127.0.0.1", address.port))
    async with address.connect(max_queue=1, sock=sock, compression=None, max_size=None) as peer:
        try:
            yield peer
        finally:
            peer.ws.transport.abort()  # a close would wait for all to be read


NARROW: dict[str, Any] = {"send_queue_size": 64 * 1024, "write_buffer_size": 4096, "socket_send_buffer": 8192}


async def _says(broker: Broker, id_: str, length: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while len((await broker.streams.read(id_)).text or "") < length:
            await asyncio.sleep(0.01)  # the pause between two looks, not the wait


def _streams(broker: Broker) -> Streams:
    assert broker.node.streams is not None
    return broker.node.streams


# --- what is not one's own


async def test_a_room_whose_members_may_stop_streams_is_no_way_to_stop_those_of_others() -> None:
    broker = _chats()
    own = broker.rooms("own:{name}")
    own.authorize(lambda: True)

    @own.on_cancel
    async def may_cancel() -> bool:
        return True

    gate = Gate()
    async with running(broker, "ours") as address, address.connect() as peer:
        await broker.streams.start("theirs", room=ROOM, source=gate.source())
        await join(peer, "own:mallory")
        await peer.send("stream_cancel", {"id": "theirs"}, id=1, room="own:mallory")
        assert (await peer.expect("error"))["code"] == "NOT_FOUND"
        await peer.send("stream_read", {"id": "theirs"}, id=2, room="own:mallory")
        assert (await peer.expect("error"))["code"] == "NOT_FOUND"
        gate.say("on it goes")
        gate.end()
        assert await broker.streams.wait("theirs") == "done"
        await peer.send("stream_cancel", {"id": "not yet"}, id=3, room="own:mallory")
        assert (await peer.receive())["id"] == 3
        before = Gate()
        stream = await broker.streams.start("not yet", room="own:mallory", source=before.source)
        assert await stream.wait() == "cancelled"


# --- what is no position


@pytest.mark.parametrize(
    "have",
    [
        HUGE, [], "a", {"a": -1}, {"a": HUGE}, {"a": 3.5}, {"a": True}, {"a": None}, {"a": {"a": 1}}, {"a": "3"},
        {"x" * 100_000: 1}, {str(number): number for number in range(20_000)}, {"": 1},
    ],
)  # fmt: skip
async def test_positions_that_are_none_do_no_harm(have: Any) -> None:
    broker, gate = _chats(), Gate()
    async with running(broker, "ours") as address, address.connect() as peer:
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("0123456789")
        await _says(broker, "a", 10)
        await peer.send("join", {"room": ROOM, "streams": have}, id=1)
        assert (await peer.receive())["event"] == "reply"
        gate.end()
        reading = Reading("a")
        while reading.end is None:
            message = await peer.receive()
            if have == {"a": HUGE} and message["data"]["from"] == 10:  # as it says
                reading.text = "0123456789"
            reading.take(message)
        assert (reading.text, reading.end) == ("0123456789", "done")


@pytest.mark.parametrize(
    "data",
    [
        *(None, 7, {}, {"id": ""}, {"id": "x" * 257}, {"id": 5}, {"id": "a", "from": -1}, {"id": "a", "from": "x"}, []),
        *({"id": "\0fa"}, {"id": "a\0"}),
    ],
)
async def test_bad_requests_are_answered(data: Any) -> None:
    broker, gate = _chats(), Gate()
    async with running(broker, "ours") as address, address.connect("/ws?user=admin") as peer:
        await join(peer)
        await broker.streams.start("a", room=ROOM, source=gate.source())
        for number, event in enumerate(("stream_read", "stream_cancel")):
            if event == "stream_cancel" and isinstance(data, dict) and data.get("id") == "a":
                continue
            await peer.send(event, data, id=number, room=ROOM)
            message = await peer.receive()
            assert (message["event"], message["id"], message["data"]["code"]) == ("error", number, "INVALID_DATA")
        await peer.send("stream_read", {"id": "a", "from": HUGE}, id=9, room=ROOM)
        message = await peer.receive()
        assert message["id"] == 9
        gate.say("goes on")
        gate.end()
        assert (await read(peer, "a")).text == "goes on"


# --- too much of it


async def test_a_flood_of_reads_costs_others_nothing_and_is_answered() -> None:
    broker, gate = _chats(), Gate()
    text = "0123456789abcdef" * 64 * 1024
    async with running(broker, "ours") as address, address.connect(max_size=None) as peer:
        async with address.connect(max_size=None) as flood:
            for each in (peer, flood):
                await join(each)
            await broker.streams.start("a", room=ROOM, source=gate.source())
            gate.say(text)
            for each in (peer, flood):
                await Reading("a").follow(each, len(text))
            for number in range(500):
                await flood.send("stream_read", {"id": "a", "from": number}, id=number, room=ROOM)
                await flood.send("stream_read", {"id": f"none {number}"}, id=-1 - number, room=ROOM)
            gate.say("on")
            gate.end()
            assert (await Reading("a", text).follow(peer)).end == "done"
            answered, is_over = 0, False
            while answered < 1000 or not is_over:
                message = await flood.receive()
                answered += "id" in message
                if message["event"] == "stream":
                    is_over = "end" in message["data"]
        assert broker.get_stats().connected_clients <= 2


async def test_a_room_of_thousands_of_streams_is_read() -> None:
    broker, gates = _chats(), [Gate() for _ in range(1500)]
    async with running(broker, "ours") as address, address.connect(max_size=None) as peer:
        for number, gate in enumerate(gates):
            await broker.streams.start(f"{number}", room=ROOM, source=gate.source())
            gate.say(f"stream {number}")
        await _says(broker, "1499", 11)
        await join(peer)
        readings = {f"{number}": Reading(f"{number}") for number in range(1500)}
        for gate in gates:
            gate.end()
        while any(reading.end is None for reading in readings.values()):
            message = await peer.receive()
            readings[message["data"]["id"]].take(message)
        assert all(reading.text == f"stream {id_}" for id_, reading in readings.items())
        assert len(await broker.streams.list(ROOM)) == 1000


async def test_a_thousand_readers_of_one_stream_have_it() -> None:
    broker, gate = _chats(max_connections_per_ip=0), Gate()
    text = "".join(f"token {number} " for number in range(200))
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(running(broker, "ours"))
        peers = []
        for _ in range(1000 if os.environ.get("CI") else 200):
            peers.append(await stack.enter_async_context(address.connect(compression=None, ping_interval=None)))
            await join(peers[-1])
            if len(peers) == 100:
                await broker.streams.start("a", room=ROOM, source=gate.source())
        for part in text.split(" "):
            gate.say(part + " ")
        gate.end()
        readings = await asyncio.gather(*[read(peer, "a") for peer in peers])
    assert {(reading.text, reading.end) for reading in readings} == {(text + " ", "done")}


async def test_a_reader_that_never_reads_costs_no_memory() -> None:
    """Case 19: twenty of them cost what one of them costs, and a message each."""
    broker, gate = _chats(**NARROW, stream_interval=0), Gate()
    part = "0123456789abcde\n" * 2048
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(running(broker, "ours"))
        quick = await stack.enter_async_context(address.connect(max_size=None, compression=None))
        slow = [await stack.enter_async_context(_narrow(address)) for _ in range(20)]
        for peer in (quick, *slow):
            await join(peer)
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say(part)
        reading = await Reading("a").follow(quick, len(part))
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(2, 257):
                gate.say(part)
                await reading.follow(quick, number * len(part))
            await eventually(lambda: len(_streams(broker).readers._readers) == 20)
            reading.text = ""
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # The engine is this process, and has the text; what waits for a reader is one message at most.
        assert after - before < 255 * len(part) + 20 * (256 * 1024 + 64 * 1024) + 2 * 1024 * 1024
        assert broker.get_stats().dropped == 0
        gate.end()


# --- who comes and goes


async def test_who_leaves_in_the_middle_and_comes_back_gets_what_it_has_not_and_nothing_before_the_answer() -> None:
    broker, gate = _chats(**NARROW), Gate()
    text = "0123456789abcde\n" * 1024 * 64
    async with running(broker, "ours") as address, _narrow(address) as slow:
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say(text)
        await _says(broker, "a", len(text))
        await slow.send("join", {"room": ROOM}, id=1)
        await eventually(lambda: _streams(broker).readers._readers)
        await slow.send("leave", {"room": ROOM}, id=2)
        await slow.send("join", {"room": ROOM, "streams": {"a": 5}}, id=3)
        gate.end()
        while (await slow.receive()).get("id") != 2:
            pass
        assert (await slow.receive())["id"] == 3
        reading = await Reading("a", text[:5]).follow(slow)
        assert (reading.text, reading.end) == (text, "done")


async def test_each_room_that_somebody_joins_brings_what_has_ended_there() -> None:
    broker = _chats()
    async with running(broker, "ours") as address, address.connect(max_size=None) as peer:
        for number in range(3):
            source = said(["x" * 900_000])
            await (await broker.streams.start(f"{number}", room=f"chat:{number}", source=source)).wait()
        for number in range(3):
            await peer.send("join", {"room": f"chat:{number}"}, id=number)
        found: dict[str, int] = {}
        while found != {"0": 900_000, "1": 900_000, "2": 900_000}:
            data = (await peer.receive())["data"]
            if "text" in data:
                found[data["id"]] = found.get(data["id"], 0) + len(data["text"])


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("url", ["memory://", "memory://kept-no-more"])
async def test_what_is_kept_no_more_holds_up_no_other_stream(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps_time_of(asyncio.get_running_loop(), monkeypatch)
    broker, gate = _chats(stream_ttl=1, backplane_url=url), Gate()
    async with running(broker, "ours") as address, address.connect() as first, address.connect() as second:
        await join(first)
        new = await broker.streams.start("new", room=ROOM, source=gate.source())
        gate.say("so far")
        await Reading("new").follow(first, 6)
        for id_ in ("old", "older"):
            await (await broker.streams.start(id_, room=ROOM, source=said(["abc"]))).wait()
            await read(first, id_)
        async with asyncio.timeout(DEADLINE):
            while not await _is_gone(broker, "older"):
                await asyncio.sleep(0.05)  # the pause between two looks, not the wait
        copies = _streams(broker)._following.copies
        for copy in list(_streams(broker)._following.rooms[ROOM].copies.values()):
            copies.let_go(copy)  # as a node does that has others to keep
        await join(second, streams={"older": 1})
        assert await second.expect("stream") == {"id": "older", "from": 1, "text": "", "end": "lost"}
        gate.end()
        reading = await read(second, "new")
        assert (reading.text, reading.end) == ("so far", "done")
        assert await new.wait() == "done"


async def _is_gone(broker: Broker, id_: str) -> bool:
    try:
        await broker.streams.read(id_)
    except StreamGone:
        return True
    return False


async def test_who_has_gone_before_it_got_anything_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.streams.watching.FORGET", 0.05)
    broker, gate = _chats(), Gate()
    async with running(broker, "ours") as address, address.connect() as stays:
        await join(stays)
        await broker.streams.start("a", room=ROOM, source=gate.source())
        room = _streams(broker)._following.rooms[ROOM]
        async with address.connect() as goes:
            client = next(each for each in broker.node.hub.members() if ROOM not in broker.node.hub.rooms_of(each.id))
            broker.node.hub.join(client.id, ROOM)  # whose join is never answered
            assert client.id in room.waiting
            await goes.ws.close()
        await eventually(lambda: not room.waiting)
        gate.end()


# --- beside what else rooms do


async def test_streams_come_behind_the_answer_and_what_a_room_remembers() -> None:
    broker = Broker(settings())
    kind = broker.rooms("chat:{chat_id}", history=History(size=100))
    kind.authorize(lambda: True)
    gate = Gate()
    async with running(broker, "ours") as address, address.connect() as first:
        at = (await join(first))["at"]
        first.ws.transport.abort()
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("so far ")
        for number in range(50):
            await broker.to_room(ROOM).send("n", number)
        await _says(broker, "a", 7)
        async with address.connect() as peer:
            await peer.send("join", {"room": ROOM, "since": at}, id=1)
            await eventually(lambda: broker.node.hub.count(ROOM) == 1)
            gate.say("and on")
            gate.end()
            assert (await peer.receive())["data"]["recovered"]
            assert [(await peer.receive())["data"] for _ in range(50)] == list(range(50))
            assert (await read(peer, "a")).text == "so far and on"


async def test_who_is_asked_about_in_the_middle_of_much_text_gets_the_rest_where_it_may_stay() -> None:
    broker = Broker(settings(**NARROW))
    kind = broker.rooms("chat:{chat_id}")
    asked, answer = asyncio.Event(), asyncio.Event()
    is_held = False

    @kind.authorize
    async def authorize(client: Client) -> bool:
        if is_held:
            asked.set()
            await answer.wait()
        return True

    gate, text = Gate(), "0123456789abcde\n" * 1024 * 32
    async with running(broker, "ours") as address, _narrow(address) as slow:
        await join(slow)
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say(text[:100_000])
        reading = await Reading("a").follow(slow, 1)
        gate.say(text[100_000:])
        await _says(broker, "a", len(text))
        is_held = True
        asking = asyncio.create_task(broker.reauthorize(ROOM))
        await asked.wait()
        gate.end()
        answer.set()
        await asking
        await reading.follow(slow)
        assert (reading.text, reading.end) == (text, "done")


# --- what is left


async def test_nothing_is_left_of_rooms_that_close_and_streams_that_are_gone(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    monkeypatch.setattr("velocity_ws.streams.watching.FORGET", 0.05)
    broker = _chats(stream_ttl=3600)
    async with running(broker, "ours") as address, address.connect() as stays:
        await join(stays)
        following = _streams(broker)._following
        for hour in range(5):
            for number in range(20):
                await (await broker.streams.start(f"{hour} {number}", room=ROOM, source=said(["x" * 100]))).wait()
                await read(stays, f"{hour} {number}")
            async with address.connect() as comes:
                await join(comes, "chat:other")
                assert len(following.rooms) == 2
            await eventually(lambda: len(following.rooms) == 1)
            clock(3600 + SLACK + 1)
            await eventually(lambda: not following.rooms[ROOM].copies)
        assert (following.copies.size, following.running) == (0, {})
        assert not following.copies._kept
    assert not _streams_left(broker)


def _streams_left(broker: Broker) -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if "stream" in task.get_name()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass for nodes and for what they write into."""
    passed = 0.0
    build = Broker.__init__

    def with_clock(self: Any, *args: Any, **options: Any) -> None:
        build(self, *args, clock=lambda: time.monotonic() + passed, **options)

    def pass_by(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(Broker, "__init__", with_clock)
    return pass_by
