"""Streams of one node: sources that fail, limits, slow readers, and who may read."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support import DEADLINE, ServerKind, eventually, running, settings
from tests.support.streaming import ROOM, Gate, Reading, chat, join, read, said
from velocity_ws import Broker, BrokerError, Client, History, InvalidNameError, StreamTooLarge
from velocity_ws.streams.following import Following


async def test_a_source_that_raises_ends_its_stream_and_is_reported() -> None:
    broker = Broker(settings())
    chat(broker)
    reported: asyncio.Queue[BaseException] = asyncio.Queue()

    @broker.on_error
    async def report(error: Exception) -> None:
        reported.put_nowait(error)

    gate = Gate()
    async with running(broker, "ours") as address, address.connect() as peer:
        await join(peer)
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("so far")
        gate.end(RuntimeError("out of tokens"))
        reading = await read(peer, "a")
        assert (reading.text, reading.end) == ("so far", "error")
        assert str(await reported.get()) == "out of tokens"


async def test_a_stream_that_would_be_too_large_ends_with_what_it_has() -> None:
    broker = Broker(settings(stream_max_size=10))
    chat(broker)
    reported: asyncio.Queue[BaseException] = asyncio.Queue()

    @broker.on_error
    async def report(error: Exception) -> None:
        reported.put_nowait(error)

    async with running(broker, "ours"):
        stream = await broker.streams.start("a", room=ROOM, source=said(["12345", "6789é", "never"]))
        assert await stream.wait() == "error"
        assert (await stream.read()).text == "12345"
        assert isinstance(await reported.get(), StreamTooLarge)
        async with broker.streams.open("b", room=ROOM) as writer:
            await writer.write("1234567890")
            with pytest.raises(StreamTooLarge) as error:
                await writer.write("1")
            assert (error.value.limit, error.value.stream_id) == (10, "b")
        assert (await broker.streams.read("b")).text == "1234567890"


async def test_a_source_waits_for_an_engine_that_is_slow_and_for_nothing_else() -> None:
    broker = Broker(settings())
    chat(broker)
    taken = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "x" * 1024

    async with running(broker, "ours"):
        stream = await broker.streams.start("a", room=ROOM, source=endless())
        await eventually(lambda: taken > 300)
        assert await stream.cancel()
        assert await stream.wait() == "cancelled"


async def test_a_reader_that_does_not_read_costs_nobody_anything_and_gets_everything(kind: ServerKind) -> None:
    """Case 19: what waits for it is where it is."""
    broker = Broker(
        settings(send_queue_size=64 * 1024, write_buffer_size=4096, socket_send_buffer=8192, stream_interval=0)
    )
    chat(broker)
    gate = Gate()
    part = "0123456789abcde\n" * 1024
    async with running(broker, kind) as address:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        narrow.connect(("127.0.0.1", address.port))
        async with address.connect(max_queue=1, sock=narrow, compression=None) as slow, address.connect() as quick:
            for peer in (slow, quick):
                await join(peer)
            await broker.streams.start("a", room=ROOM, source=gate.source())
            reading = Reading("a")
            for number in range(1, 513):
                gate.say(part)
                await reading.follow(quick, number * len(part))
            gate.end()
            await reading.follow(quick)
            assert broker.get_stats().dropped == 0
            late = await read(slow, "a")
    assert late.text == reading.text == 512 * part
    assert late.messages < reading.messages


async def test_ended_streams_come_the_newest_first_up_to_a_mebibyte() -> None:
    broker = Broker(settings())
    chat(broker)
    gate = Gate()
    async with running(broker, "ours") as address, address.connect(max_size=None) as peer:
        await broker.streams.start("runs", room=ROOM, source=gate.source())
        gate.say("now")
        for number in range(6):
            await (await broker.streams.start(f"{number}", room=ROOM, source=said(["x" * 300_000]))).wait()
        await join(peer)
        found: dict[str, int] = {}
        while found != {"5": 300_000, "4": 300_000, "3": 300_000, "runs": 3}:
            data = await peer.expect("stream")
            found[data["id"]] = found.get(data["id"], 0) + len(data["text"])
        gate.end()
        assert await peer.expect("stream") == {"id": "runs", "from": 3, "text": "", "end": "done"}


async def test_the_answer_says_where_the_stream_goes_on_though_more_was_said_than_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, hears, heard = Broker(settings()), True, Following.heard

    def hear(following: Following, *piece: Any) -> None:
        if hears:
            heard(following, *piece)

    monkeypatch.setattr(Following, "heard", hear)
    chat(broker)
    gate = Gate()
    async with running(broker, "ours") as address, address.connect() as peer:
        await join(peer)
        stream = await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("12345")
        assert (await peer.expect("stream"))["text"] == "12345"
        hears = False
        gate.say("6789")
        async with asyncio.timeout(DEADLINE):
            while (await stream.read()).text != "123456789":
                await asyncio.sleep(0.01)  # nothing tells
        await peer.send("stream_read", {"id": "a", "from": 9}, room=ROOM, id=1)
        answer = await peer.receive()
        hears = True
        gate.say("abc")
        gate.end()
        assert (await peer.expect("stream"))["from"] == answer["data"]["from"]


async def test_who_is_not_in_the_room_reads_nothing() -> None:
    broker = Broker(settings())
    chat(broker)
    gate = Gate()
    async with running(broker, "ours") as address:
        async with address.connect("/ws?user=banned") as banned, address.connect("/ws?user=ann") as ann:
            await broker.streams.start("a", room=ROOM, source=gate.source())
            assert (await banned.request("join", {"room": ROOM}))["data"]["code"] == "FORBIDDEN"
            await banned.send("stream_read", {"id": "a"}, id=2, room=ROOM)
            assert (await banned.expect("error"))["code"] == "FORBIDDEN"
            await join(ann)
            gate.say("one ")
            reading = await Reading("a").follow(ann, 4)
            assert await broker.remove_user("ann", ROOM) == 1
            gate.say("two ")
            async with address.connect() as other:
                await join(other)
                await Reading("a").follow(other, 8)
            await join(ann, streams={"a": 4})
            gate.end()
            assert (await reading.follow(ann)).text == "one two "
            assert (await banned.request("nothing"))["data"]["code"] == "UNKNOWN_EVENT"


async def test_what_is_said_while_it_is_asked_whether_a_member_may_stay_is_for_members_alone() -> None:
    broker = Broker(settings())
    rooms = broker.rooms("chat:{chat_id}")
    asked, answer = asyncio.Event(), asyncio.Event()
    may, is_held = {"ann", "bob"}, False

    @broker.authenticate
    async def authenticate(request: Any) -> str | None:
        name: str | None = request.query_params.get("user")
        return name

    @rooms.authorize
    async def authorize(client: Client) -> bool:
        if is_held:
            asked.set()
            await answer.wait()
        return client.user_id in may

    gate = Gate()
    async with running(broker, "ours") as address:
        async with address.connect("/ws?user=ann") as ann, address.connect("/ws?user=bob") as bob:
            for peer in (ann, bob):
                await join(peer)
            await broker.streams.start("a", room=ROOM, source=gate.source())
            gate.say("public ")
            for peer in (ann, bob):
                await Reading("a").follow(peer, 7)
            is_held = True
            may.discard("bob")
            asking = asyncio.create_task(broker.reauthorize(ROOM))
            await asked.wait()
            gate.say("secret")
            gate.end()
            async with asyncio.timeout(DEADLINE):
                while (await broker.streams.read("a")).end is None:
                    await asyncio.sleep(0.01)
            answer.set()
            await asking
            reading = Reading("a", "public ")
            await reading.follow(ann)
            assert (reading.text, reading.end) == ("public secret", "done")
            assert (await bob.receive())["event"] == "left"
            assert (await bob.request("nothing"))["data"]["code"] == "UNKNOWN_EVENT"


async def test_who_is_asked_about_in_one_room_reads_on_in_another() -> None:
    broker, answer, is_held = Broker(settings()), asyncio.Event(), False
    asked, other = broker.rooms("asked:{number}"), broker.rooms("other:{number}")
    other.authorize(lambda: True)

    @asked.authorize
    async def authorize() -> bool:
        if is_held:
            await answer.wait()
        return True

    gate = Gate()
    async with running(broker, "ours") as address, address.connect() as peer:
        await join(peer, "asked:1")
        await broker.streams.start("held", room="asked:1", source=gate.source())
        await (await broker.streams.start("ended", room="other:1", source=said(["all of it"]))).wait()
        is_held = True
        asking = asyncio.create_task(broker.reauthorize("asked:1"))
        await eventually(lambda: broker.node.hub._held)
        gate.say("held")
        streams = broker.node.streams
        assert streams is not None
        await eventually(lambda: streams.readers._readers)  # which waits for the answer
        await join(peer, "other:1")
        assert (await Reading("ended", room="other:1").follow(peer)).text == "all of it"
        answer.set()
        await asking
        gate.end()
        assert (await Reading("held", room="asked:1").follow(peer)).text == "held"


async def test_who_may_stop_the_streams_of_a_room_stops_none_of_another() -> None:
    broker = Broker(settings())
    chat(broker)
    gate = Gate()
    async with running(broker, "ours") as address, address.connect("/ws?user=admin") as admin:
        await broker.streams.start("elsewhere", room="chat:8", source=gate.source())
        gate.say("text")
        await join(admin)
        for event in ("stream_cancel", "stream_read"):
            await admin.send(event, {"id": "elsewhere"}, id=1, room=ROOM)
            assert (await admin.expect("error"))["code"] == "NOT_FOUND"
        gate.end()
        assert await broker.streams.wait("elsewhere") == "done"
        await admin.send("stream_cancel", {"id": "elsewhere"}, id=1, room=ROOM)
        assert (await admin.expect("error"))["code"] == "NOT_FOUND"


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("history", [None, History()])
async def test_who_comes_back_says_first_what_it_has(history: History | None) -> None:
    broker = Broker(settings())
    broker.rooms("chat:{chat_id}", history=history)

    @broker.on_connect
    async def welcome(client: Client) -> None:
        await broker.join_room(client.id, ROOM)

    gate = Gate()
    async with running(broker, "ours") as address:
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("0123456789")
        async with address.connect() as bare:
            assert (await Reading("a").follow(bare, 10)).text == "0123456789"
        async with address.connect("/ws?resume=1") as peer:
            await peer.send("resume", {"rooms": {}, "streams": {"a": 4}})
            reading = Reading("a", "0123")
            while reading.end is None:
                message = await peer.receive()
                if message["event"] == "stream":
                    reading.take(message)
                    gate.end()
            assert reading.text == "0123456789"


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("history", [None, History()])
async def test_what_a_client_has_is_heard_of_though_its_greeting_takes_long(
    history: History | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("streams.announcing", "history.resuming"):
        monkeypatch.setattr(f"velocity_ws.{module}.PATIENCE", 0.02)
    broker = Broker(settings())
    broker.rooms("chat:{chat_id}", history=history)

    @broker.on_connect
    async def welcome(client: Client) -> None:
        await broker.join_room(client.id, ROOM)
        await asyncio.sleep(0.2)  # longer than the patience, which is what is tried here

    gate = Gate()
    async with running(broker, "ours") as address:
        await broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("0123456789")
        async with address.connect("/ws?resume=1") as peer:
            await peer.send("resume", {"rooms": {}, "streams": {"a": 4}})
            gate.end()
            reading = Reading("a", "0123")
            while reading.end is None:
                message = await peer.receive()
                if message["event"] == "stream":
                    reading.take(message)
            assert reading.text == "0123456789"


async def test_the_first_stream_of_all_may_be_waited_for_and_stopped_before_it_begins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker(settings())
    chat(broker)
    async with running(broker, "ours") as address, address.connect("/ws?user=admin") as admin:
        await join(admin)
        await admin.send("stream_read", {"id": "a"}, id=2, room=ROOM)
        assert (await admin.expect("error"))["code"] == "NOT_FOUND"  # for which a page goes on to wait
        assert broker.get_stats().invalid == 0
        await admin.send("stream_cancel", {"id": "b"}, id=3, room=ROOM)
        assert (await admin.receive())["event"] == "reply"
        await broker.streams.start("a", room=ROOM, source=said(["at last"]))
        assert (await read(admin, "a")).text == "at last"
        stream = await broker.streams.start("b", room=ROOM, source=said(["never said"]))
        assert await stream.wait() == "cancelled"
    assert caplog.messages == []


async def test_who_has_something_of_a_stream_that_the_engine_has_lost_is_told_so() -> None:
    broker = Broker(settings())
    chat(broker)
    async with running(broker, "ours") as address, address.connect() as peer:
        async with broker.streams.open("kept", room=ROOM) as stream:
            await stream.write("words")
            await join(peer, streams={"ghost": 7, "not begun": 0, "kept": 5})
            assert await peer.expect("stream") == {"id": "ghost", "from": 7, "text": "", "end": "lost"}
            await stream.write("!")
        assert (await Reading("kept", "words").follow(peer)).text == "words!"


async def test_empty_deltas_of_a_model_are_nothing() -> None:
    broker = Broker(settings())
    chat(broker)
    async with running(broker, "ours"):
        stream = await broker.streams.start("a", room=ROOM, source=said([None, "Hel", None, "lo", None]))
        assert await stream.wait() == "done"
        assert (await stream.read()).text == "Hello"
        stream = await broker.streams.start("b", room=ROOM, source=said([None, {"a": 1}, None]))
        await stream.wait()
        assert (await stream.read()).items == [{"a": 1}, None]


async def test_what_a_handler_is_told_of_an_id_is_told_its_client() -> None:
    broker = Broker(settings())
    chat(broker)

    @broker.on("ask")
    async def ask(data: str) -> None:
        await broker.streams.start(data, room="chat:8", source=said(["x"]))

    @broker.on("show")
    async def show(data: str) -> str | None:
        return (await broker.streams.read(data)).text

    async with running(broker, "ours") as address, address.connect() as peer:
        await broker.streams.start("taken", room=ROOM, source=said(["x"]))
        assert (await peer.request("ask", "taken"))["data"]["code"] == "CONFLICT"
        assert (await peer.request("show", "never"))["data"]["code"] == "NOT_FOUND"
        assert broker.get_stats().errors == 0


async def test_bad_calls_are_refused() -> None:
    broker = Broker(settings())
    with pytest.raises(BrokerError, match="not started"):
        await broker.streams.read("a")
    async with running(broker, "ours") as address, address.connect() as peer:
        for bad in ("", "x" * 257, 7, "\ud800", "\0fa", "a\0"):
            with pytest.raises(InvalidNameError):
                await broker.streams.start(bad, room=ROOM, source=said([]))  # type: ignore[arg-type]
        with pytest.raises(InvalidNameError):
            await broker.streams.start("a", room=None, source=said([]))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="async iterator"):
            await broker.streams.start("a", room=ROOM, source=["not", "async"])  # type: ignore[arg-type]
        await peer.ws.send(json.dumps({"event": "stream_read", "id": 1, "data": {"id": "a"}}))
        assert (await peer.expect("error"))["code"] == "INVALID_DATA"
