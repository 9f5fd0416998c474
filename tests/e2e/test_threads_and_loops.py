"""The broker from other threads and other event loops."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import pytest
from asgiref.sync import async_to_sync
from fastapi import FastAPI

from tests.support import DEADLINE, eventually, running, serve, settings
from velocity_ws import Broker, BrokerError, Client, ClientNotFound, WouldDeadlockError


async def in_thread(function: Callable[[], Any]) -> Any:
    """Run something in a thread without an event loop."""
    async with asyncio.timeout(DEADLINE):
        return await asyncio.to_thread(function)


async def test_a_plain_thread() -> None:
    broker = Broker(settings())

    async with running(broker) as address, address.connect() as peer:
        await eventually(broker.get_clients)
        client = broker.get_clients()[0]

        def work() -> list[Any]:
            broker.sync.join_room(client.id, "r")
            sync = broker.sync
            results: list[Any] = [
                sync.broadcast("a", 1),
                sync.to_all().send("b"),
                sync.to_room("r").send("c"),
                sync.to_rooms(["r"]).except_(client.id).send("never"),
                sync.to_client(client.id).send("d"),
                sync.to_clients([client.id]).send_bytes(b"e"),
                sync.broadcast_bytes(b"f"),
                client.sync.send("g"),
                client.sync.send_bytes(b"h"),
                client.sync.ping(),
            ]
            sync.leave_room(client.id, "r")
            with pytest.raises(ClientNotFound):
                sync.join_room("unknown", "r")
            client.sync.disconnect(4000, "from a thread")
            return results

        assert await in_thread(work) == [1, 1, 1, 0, 1, 1, 1, True, True, None]
        got = [await peer.receive() for _ in range(8)]
        assert [m if isinstance(m, bytes) else m["event"] for m in got] == ["a", "b", "c", "d", b"e", b"f", "g", b"h"]
        assert await peer.closed() == (4000, "from a thread")
        assert broker.get_rooms() == []


async def test_async_to_sync_and_another_loop() -> None:
    broker = Broker(settings())
    async with running(broker) as address, address.connect() as peer:
        await eventually(broker.get_clients)
        client = broker.get_clients()[0]
        assert await in_thread(lambda: async_to_sync(broker.broadcast)("asgiref", 1)) == 1
        assert await peer.expect("asgiref") == 1

        async def elsewhere() -> None:
            await broker.join_room(client.id, "r")
            assert await broker.to_room("r").send("loop", 2) == 1
            assert await client.send("loop", 3)
            with pytest.raises(ClientNotFound):
                await broker.join_room("unknown", "r")
            await client.disconnect(4000)

        await in_thread(lambda: asyncio.run(elsewhere()))
        assert [await peer.expect("loop"), await peer.expect("loop")] == [2, 3]
        assert await peer.closed() == (4000, "")


async def test_the_blocking_form_says_where_it_would_deadlock() -> None:
    broker = Broker(settings())
    caught: list[BaseException] = []

    @broker.on("x")
    async def x(client: Client) -> None:
        for call in (
            lambda: broker.sync.broadcast("x"),
            lambda: client.sync.send("x"),
            broker.sync.stop,
        ):
            with pytest.raises(WouldDeadlockError, match="await"):
                call()
        caught.append(ValueError())

    @broker.on("plain")
    def plain(client: Client) -> int:
        return broker.sync.to_client(client.id).send("from a plain hook")

    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("x"))["event"] == "reply"
        await peer.send("plain", id=2)
        assert await peer.expect("from a plain hook") is None
        assert await peer.expect("reply") == 1
    assert caught


async def test_fastapi_routes() -> None:
    broker = Broker(settings())
    app = FastAPI()
    broker.attach(app)

    @app.post("/async")
    async def by_async(text: str) -> int:
        return await broker.broadcast("async", text)

    @app.post("/plain")
    def by_plain(text: str) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return broker.sync.broadcast("plain", text)

    async with serve(app) as address, address.connect() as peer, httpx.AsyncClient(base_url=address.http) as http:
        await eventually(broker.get_clients)
        for way in ("async", "plain"):
            assert (await http.post(f"/{way}", params={"text": "hi"})).json() == 1
            assert await peer.expect(way) == "hi"
        assert "/ws" not in (await http.get("/openapi.json")).json()["paths"]


async def test_many_threads_at_once() -> None:
    broker = Broker(settings(send_queue_size=64 * 1024 * 1024))
    async with running(broker) as address, address.connect() as peer, address.connect() as other:
        await eventually(lambda: len(broker.get_clients()) == 2)
        ids = [client.id for client in broker.get_clients()]

        def work(worker: int) -> None:
            for number in range(50):
                broker.sync.broadcast("n", [worker, number])
                broker.sync.join_room(ids[number % 2], f"room {worker}")
                assert len(broker.get_clients()) == 2
                broker.get_stats()
                broker.get_room_clients(f"room {worker}")
                broker.sync.leave_room(ids[number % 2], f"room {worker}")

        with ThreadPoolExecutor(8) as pool:
            await asyncio.gather(*[asyncio.get_running_loop().run_in_executor(pool, work, n) for n in range(8)])
        for one in (peer, other):
            seen: dict[int, list[int]] = {n: [] for n in range(8)}
            for _ in range(400):
                worker, number = await one.expect("n")
                seen[worker].append(number)
            assert all(numbers == list(range(50)) for numbers in seen.values())
        assert broker.get_rooms() == []


async def test_where_nobody_is_connected_nothing_is_needed() -> None:
    broker = Broker(settings())
    assert await broker.broadcast("x") == 0
    assert await in_thread(lambda: broker.sync.broadcast("x")) == 0
    assert broker.sync.broadcast("x") == 0  # there is no loop it could wait for
    assert await broker.to_room("r").send("x") == 0
    with pytest.raises(ClientNotFound):
        await broker.join_room("x", "r")
    await broker.stop()
    assert not broker.is_running
    assert broker.get_stats().uptime == 0


def test_a_loop_that_is_gone_or_does_not_run() -> None:
    broker = Broker(settings())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(broker.start())
    with pytest.raises(BrokerError, match="not running"):
        broker.sync.broadcast("x")
    with pytest.raises(BrokerError, match="not running"):
        asyncio.run(broker.broadcast("x"))
    with pytest.raises(BrokerError, match="another event loop"):
        asyncio.run(broker.start())
    loop.close()
    assert not broker.is_running
    assert asyncio.run(broker.broadcast("x")) == 0
    asyncio.run(broker.start())


def test_a_broker_whose_loop_was_closed_under_its_clients_starts_again() -> None:
    """In a process of its own, as the tasks that are left behind complain when they are freed."""
    program = """
import asyncio
from starlette.requests import HTTPConnection
from velocity_ws import Broker, Settings
from velocity_ws.sessions.session import Session

broker = Broker(Settings(_env_file=None, backplane_url="memory://left"), presence=["x"])

@broker.rooms("x").authorize
async def never():
    await asyncio.Event().wait()

async def first():
    await broker.start()
    session = Session(broker.node.context, HTTPConnection({"type": "websocket", "headers": [], "path": "/"}))
    session.client.identify("ann", "ann", None)
    broker.node.lifecycle.sessions[session] = None
    broker.node.hub.add(session)
    await broker.join_room(session.id, "x")
    asyncio.create_task(broker.reauthorize())
    while broker.node.hub.hold_of(session.id, "x") is None:
        await asyncio.sleep(0)
    asyncio.create_task(broker.node.hub.hold_of(session.id, "x").wait_over())
    await asyncio.sleep(0)

async def second():
    await broker.start()
    assert broker.healthy
    assert broker.get_rooms() == broker.get_clients() == []
    await broker.stop()
    print("started again")

loop = asyncio.new_event_loop()
loop.run_until_complete(first())
loop.close()
asyncio.run(second())
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert found.stdout == "started again\n", found.stderr
