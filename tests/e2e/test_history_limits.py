"""Rooms that remember, and clients that are too slow: what is dropped can be had, and much of it comes in pieces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.support import Address, Peer, eventually, running, settings
from tests.support.engines import engine
from tests.support.redis_servers import order
from velocity_ws import Broker, Client, History

ROOM = "chat:7"
QUEUE = 64 * 1024


def chat(**values: Any) -> Broker:
    """A broker with rooms that remember a thousand messages."""
    broker = Broker(settings(send_queue_size=QUEUE, ping_interval=0, **values))

    @broker.rooms("chat:{chat_id}", history=History(size=1000, max_bytes="64MiB")).authorize
    async def anybody(client: Client) -> bool:
        return True

    return broker


@asynccontextmanager
async def slow_peer(address: Address) -> AsyncIterator[Peer]:
    """A client that takes little before it is asked to read."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", address.port))
        async with address.connect(sock=sock, max_queue=1, compression=None) as peer:
            yield peer


async def test_what_was_dropped_can_be_had_and_nothing_else_comes_again() -> None:
    broker = chat(slow_client="drop", socket_send_buffer=4096)
    async with running(broker, "ours") as address, slow_peer(address) as slow:
        await slow.request("join", {"room": ROOM})
        while broker.get_stats().dropped < 3:
            await broker.to_room(ROOM).send("said", ["x" * 16_000])
        numbers = {entry.at: number for number, entry in enumerate(await broker.history(ROOM, limit=1000))}
        got: list[int] = []
        while (message := await slow.receive())["event"] == "said":
            got.append(numbers[message["at"]])
        gap = message["data"]
        assert got == list(range(len(got)))
        assert (message["event"], gap["room"], gap["reason"], gap["missed"]) == ("gap", ROOM, "dropped", 3)
        answer = await slow.request("join", {"room": ROOM, "since": gap["from"]})
        assert (answer["data"]["recovered"], answer["data"]["missed"]) == (True, 3)
        assert [numbers[(await slow.receive())["at"]] - len(got) for _ in range(3)] == [0, 1, 2]
        await broker.to_room(ROOM).send("said", "new")
        assert await slow.expect("said") == "new"
        answer = await slow.request("join", {"room": ROOM, "since": gap["from"]})
        assert answer["data"]["missed"] == 0


async def test_of_what_was_dropped_in_a_room_of_the_newest_alone_that_one_can_be_had() -> None:
    broker = chat(slow_client="drop", socket_send_buffer=4096)

    @broker.rooms("price:{name}", history=History(mode="latest")).authorize
    async def anybody(client: Client) -> bool:
        return True

    async with running(broker, "ours") as address, slow_peer(address) as slow:
        await slow.request("join", {"room": "price:x"})
        while broker.get_stats().dropped < 3:
            await broker.to_room("price:x").send("said", "x" * 16_000)
        (newest,) = await broker.history("price:x")
        while (message := await slow.receive())["event"] == "said":
            assert message["at"] != newest.at
        answer = await slow.request("join", {"room": "price:x", "since": message["data"]["from"]})
        assert (answer["data"]["recovered"], answer["data"]["missed"]) == (True, 1)
        assert (await slow.receive())["at"] == newest.at


async def test_a_slow_client_is_told_that_a_log_began_anew_though_there_was_no_place_for_that() -> None:
    async with engine("valkey") as server:
        broker = chat(slow_client="drop", socket_send_buffer=4096, backplane_url=server.url)
        async with running(broker, "ours") as address, slow_peer(address) as slow:
            at = (await slow.request("join", {"room": ROOM}))["data"]["at"]
            await slow.request("join", {"room": "chat:8"})
            for size in (16_000, 20):  # until not even what is small fits
                dropped = broker.get_stats().dropped
                while broker.get_stats().dropped < dropped + 3:
                    await broker.to_room("chat:8").send("said", "x" * size)
            await order(server, "FLUSHALL")
            await broker.to_room(ROOM).send("said", "anew")
            await eventually(lambda: broker.get_stats().backplane_gaps)
            gaps: list[Any] = []
            while not gaps or gaps[-1]["room"] != ROOM:
                message = await slow.receive()
                if message["event"] == "gap":
                    gaps.append(message["data"])
            assert (gaps[-1]["reason"], gaps[-1]["missed"], gaps[-1]["from"]) == ("epoch", None, at)


async def test_what_a_process_has_no_place_for_is_recovered_all_the_same() -> None:
    broker = chat(history_ring="16KiB")
    rooms = [f"chat:{number}" for number in range(5)]
    async with running(broker, "ours") as address, AsyncExitStack() as stack:
        async with address.connect() as peer:
            places = [(await peer.request("join", {"room": room}))["data"]["at"] for room in rooms]
        for number in range(20):
            for room in rooms:
                await broker.to_room(room).send("said", [number, "x" * 2_000])
        peers = [await stack.enter_async_context(address.connect()) for _ in rooms]
        asked = zip(peers, rooms, places, strict=True)
        answers = await asyncio.gather(*[peer.request("join", {"room": room, "since": at}) for peer, room, at in asked])
        assert [answer["data"].get("missed") for answer in answers] == [20] * 5
        for room in rooms:
            await broker.to_room(room).send("said", [20])
        for peer in peers:
            assert [(await peer.expect("said"))[0] for _ in range(21)] == list(range(21))


async def test_the_newest_message_comes_though_a_process_has_no_place_for_it() -> None:
    broker = chat(history_ring="16KiB")

    @broker.rooms("price:{name}", history=History(mode="latest")).authorize
    async def anybody(client: Client) -> bool:
        return True

    async with running(broker, "ours") as address, address.connect() as here, address.connect() as there:
        await broker.to_room("price:x").send("said", "x" * 20_000)
        at = (await here.request("join", {"room": "price:x"}))["data"]["at"]
        assert len(await here.expect("said")) == 20_000
        answer = await there.request("join", {"room": "price:x", "since": at})
        assert answer["data"]["missed"] == 1
        assert len(await there.expect("said")) == 20_000


async def test_much_that_was_missed_comes_in_pieces_and_with_what_is_new_behind_it() -> None:
    broker = chat()
    async with running(broker, "ours") as address:
        async with address.connect() as peer:
            at = (await peer.request("join", {"room": ROOM}))["data"]["at"]
        for number in range(400):
            await broker.to_room(ROOM).send("said", [number, "x" * 4_000])
        async with address.connect() as peer:
            answer = await peer.request("join", {"room": ROOM, "since": at})
            assert answer["data"]["missed"] == 400
            sending = asyncio.gather(*[broker.to_room(ROOM).send("said", [400 + number]) for number in range(100)])
            assert [(await peer.expect("said"))[0] for _ in range(500)] == list(range(500))
            await sending
        assert broker.get_stats().slow_closes == 0
