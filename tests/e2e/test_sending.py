"""Messages to clients: to whom they go, in which order, and what `send` says."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import pytest
from pydantic import BaseModel

from tests.support import DEADLINE, Address, Peer, ServerKind, eventually, running, settings
from velocity_ws import (
    Broker,
    Client,
    ClientNotFound,
    EncodeError,
    Entry,
    History,
    HistoryError,
    InvalidCloseError,
    InvalidNameError,
    Joined,
    Target,
    VelocityError,
)


class Crowd:
    """Several connected peers with the clients they are to the server."""

    def __init__(self, broker: Broker, address: Address) -> None:
        self._broker = broker
        self._address = address
        self._stack = AsyncExitStack()
        self.peers: list[Peer] = []
        self.ids: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def come(self, count: int) -> Crowd:
        """Let some more connect."""
        for _ in range(count):
            known = len(self._broker.get_clients())
            self.peers.append(await self._stack.enter_async_context(self._address.connect()))
            await eventually(lambda known=known: len(self._broker.get_clients()) > known)  # type: ignore[misc]
            self.ids.append(self._broker.get_clients()[-1].id)
        return self

    async def who_gets(self, target: Target) -> list[int]:
        """The peers a target reaches, by number, each as often as it got the message."""
        number = await target.send("ping", None)
        await self._broker.broadcast("end")
        got: list[int] = []
        for index, peer in enumerate(self.peers):
            while (await peer.receive())["event"] == "ping":
                got.append(index)
        assert number == len(got)
        return got


async def test_addressing(kind: ServerKind) -> None:
    broker = Broker(settings())
    async with running(broker, kind) as address, Crowd(broker, address) as crowd:
        ids = (await crowd.come(5)).ids
        for index, room in ((0, "a"), (1, "a"), (1, "b"), (2, "b"), (3, "")):
            await broker.join_room(ids[index], room)
            await broker.join_room(ids[index], room)
        expected: list[tuple[Target, list[int]]] = [
            (broker.to_all(), [0, 1, 2, 3, 4]),
            (broker.to_all().except_(ids[0], ids[4]), [1, 2, 3]),
            (broker.to_room("a"), [0, 1]),
            (broker.to_room("a").except_(ids[1]), [0]),
            (broker.to_room("a").except_(ids[1]).except_(ids[0]), []),
            (broker.to_room(""), [3]),
            (broker.to_room("nobody is here"), []),
            (broker.to_rooms(["a", "b", "nobody is here"]), [0, 1, 2]),
            (broker.to_rooms(["a", "b"]).except_(ids[1], "unknown"), [0, 2]),
            (broker.to_rooms([]), []),
            (broker.to_client(ids[2]), [2]),
            (broker.to_client("unknown"), []),
            (broker.to_clients([ids[2], ids[3], ids[2], "unknown"]), [2, 3]),
            (broker.to_clients(iter(ids)).except_(ids[3]), [0, 1, 2, 4]),
        ]
        for target, peers in expected:
            assert await crowd.who_gets(target) == peers, target
        assert [client.id for client in broker.get_room_clients("a")] == ids[:2]
        assert sorted(broker.get_rooms()) == ["", "a", "b"]
        one = broker.get_client(ids[1])
        assert one is not None
        assert one.rooms == {"a", "b"}
        assert broker.get_stats().rooms == 3


async def test_rooms_empty_and_vanish(kind: ServerKind) -> None:
    broker = Broker(settings())
    async with running(broker, kind) as address, Crowd(broker, address) as crowd:
        first, second = (await crowd.come(2)).ids
        for room in ("x", "y"):
            await broker.join_room(first, room)
        await broker.join_room(second, "x")
        await broker.leave_room(first, "y")
        await broker.leave_room(first, "y")
        await broker.leave_room("unknown", "y")
        assert broker.get_rooms() == ["x"]
        assert broker.get_room_clients("y") == []
        client = broker.get_client(first)
        assert client is not None
        await client.disconnect()
        assert [member.id for member in broker.get_room_clients("x")] == [second]
        await crowd.peers[1].ws.close()
        await eventually(lambda: not broker.get_rooms())


async def test_any_string_is_a_room_and_nothing_else(kind: ServerKind) -> None:
    broker = Broker(settings())
    async with running(broker, kind) as address, Crowd(broker, address) as crowd:
        (client_id,) = (await crowd.come(1)).ids
        for room in ("*", ">", "a.b c", "\x00", "🚀" * 256):
            await broker.join_room(client_id, room)
            assert await crowd.who_gets(broker.to_room(room)) == [0]
        for wrong in ("x" * 257, 5, None):
            with pytest.raises(InvalidNameError):
                await broker.join_room(client_id, wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidNameError):
                broker.to_room(wrong)  # type: ignore[arg-type]
        with pytest.raises(ClientNotFound) as caught:
            await broker.join_room("unknown", "x")
        assert caught.value.client_id == "unknown"
        assert isinstance(caught.value, VelocityError)


async def test_what_can_be_sent(kind: ServerKind) -> None:
    class Model(BaseModel):
        at: datetime

    @dataclass
    class Point:
        x: int

    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    broker = Broker(settings())
    async with running(broker, kind) as address, Crowd(broker, address) as crowd:
        (peer,), (client_id,) = (await crowd.come(1)).peers, crowd.ids
        client = broker.get_client(client_id)
        assert client is not None
        cases: list[tuple[Any, Any]] = [
            (None, None),
            ("ünï", "ünï"),
            ({"a": [1, 2.5, True]}, {"a": [1, 2.5, True]}),
            (Model(at=moment), {"at": "2026-01-02T03:04:05Z"}),
            ([Point(1)], [{"x": 1}]),
            (moment, "2026-01-02T03:04:05Z"),
        ]
        for data, seen in cases:
            assert await client.send("x", data) is True
            assert await peer.receive() == {"event": "x", "data": seen}
        assert await client.send_bytes(b"\x00\x01") is True
        assert await peer.receive() == b"\x00\x01"
        assert await broker.broadcast_bytes(bytearray(b"ab")) == 1  # type: ignore[arg-type]
        assert await peer.receive() == b"ab"
        assert await broker.to_client(client_id).send_bytes(b"cd") == 1
        assert await peer.receive() == b"cd"
        for bad in (object(), "\ud800", {"a": {1j: 2}}):
            with pytest.raises(EncodeError, match="'x'"):
                await client.send("x", bad)
            with pytest.raises(EncodeError):
                await broker.broadcast("x", bad)
        for name in ("", "x" * 257, 7):
            with pytest.raises(InvalidNameError):
                await client.send(name)  # type: ignore[arg-type]
        for code, reason in ((1005, ""), (99, ""), (2000, ""), (1000, "x" * 124), (1000, "é" * 62)):
            with pytest.raises(InvalidCloseError):
                await client.disconnect(code, reason)
        assert client.is_connected
        round_trip = await client.ping()
        if kind == "ours":
            assert round_trip is not None
            assert 0 < round_trip < DEADLINE
        else:
            assert round_trip is None  # plain ASGI has no ping frames


async def test_sending_to_a_client_that_is_gone(kind: ServerKind) -> None:
    broker = Broker(settings())
    async with running(broker, kind) as address, Crowd(broker, address) as crowd:
        (peer,), (client_id,) = (await crowd.come(1)).peers, crowd.ids
        client = broker.get_client(client_id)
        assert client is not None
        await peer.ws.close()
        await eventually(lambda: not client.is_connected)
        before = broker.get_stats().dropped
        assert await client.send("x") is False
        assert await client.send_bytes(b"x") is False
        assert broker.get_stats().dropped == before + 2
        assert await broker.to_client(client_id).send("x") == 0
        await client.disconnect()


async def test_everything_sent_before_disconnect_is_delivered(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.on("go")
    async def go(client: Client) -> None:
        for number in range(500):
            await client.send("n", [number, "x" * 1000])
        await client.disconnect(4000, "done")

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("go")
        assert [(await peer.expect("n"))[0] for _ in range(500)] == list(range(500))
        assert await peer.closed() == (4000, "done")


async def test_order_is_kept_for_each_sender(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size=32 * 1024 * 1024))

    @broker.on_connect
    async def join(client: Client) -> None:
        await broker.join_room(client.id, "all")

    async with running(broker, kind) as address, Crowd(broker, address) as crowd:
        ids = (await crowd.come(4)).ids
        await eventually(lambda: len(broker.get_room_clients("all")) == 4)
        client = broker.get_client(ids[0])
        assert client is not None

        async def sender(name: str) -> None:
            ways = [broker.to_all(), broker.to_room("all"), broker.to_clients(ids)]
            for number in range(300):
                await ways[number % 3].send(name, [number, "x" * (number % 7) * 1000])
                if number % 10 == 0:
                    await client.send(name, [number + 0.5])
                    await asyncio.sleep(0)

        names = [f"sender {number}" for number in range(4)]
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(sender(name))
        for index, peer in enumerate(crowd.peers):
            seen: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(4 * (300 + (30 if index == 0 else 0))):
                message = await peer.receive()
                seen[message["event"]].append(message["data"][0])
            for numbers in seen.values():
                assert numbers == sorted(numbers)
                assert len(set(numbers)) == len(numbers)


async def test_hooks_may_change_everything_from_inside(kind: ServerKind) -> None:
    """Join, leave, broadcast and disconnect, each other too, from inside every kind of hook."""
    broker = Broker(settings())

    @broker.on_connect
    async def connected(client: Client) -> None:
        await broker.join_room(client.id, "room")
        await broker.broadcast("joined", client.id)

    @broker.on("kick all but me")
    async def kick(client: Client) -> int:
        others = [other for other in broker.get_clients() if other is not client]
        for other in others:
            await other.disconnect(4000, "kicked")
            await broker.to_room("room").send("kicked", other.id)
        await broker.leave_room(client.id, "room")
        return len(others)

    @broker.on_disconnect
    async def disconnected(client: Client) -> None:
        await broker.to_all().send("left", client.id)
        for other in broker.get_clients():
            await broker.join_room(other.id, "survivors")

    async with running(broker, kind) as address, Crowd(broker, address) as crowd:
        ids = (await crowd.come(4)).ids
        me = crowd.peers[0]
        for client_id in ids:
            assert await me.expect("joined") == client_id
        await me.send("kick all but me", id=1)
        seen: dict[str, set[str]] = {"kicked": set(), "left": set()}
        reply: Any = None
        while reply is None or len(seen["left"]) < 3:
            message = await me.receive()
            if message["event"] == "reply":
                reply = message["data"]
            else:
                seen[message["event"]].add(message["data"])
        assert reply == 3
        assert seen == {"kicked": set(ids[1:]), "left": set(ids[1:])}
        for peer in crowd.peers[1:]:
            assert await peer.closed() == (4000, "kicked")
        assert [client.id for client in broker.get_room_clients("survivors")] == [ids[0]]
        assert broker.get_rooms() == ["survivors"]


# --- what clients may not take


async def test_a_large_message_is_warned_of_once_for_each_event_however_it_is_sent(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(settings(warn_message_size=1000))

    @broker.on("ask")
    async def ask(client: Client, data: int) -> str:
        return "x" * data

    async with running(broker, kind) as address, Crowd(broker, address) as crowd:
        await crowd.come(2)
        client = broker.get_clients()[0]
        size = 1000 - len('{"event":"even","data":""}')
        await crowd.peers[1].request("ask", 1)
        await broker.broadcast("even", "x" * size)
        assert large(caplog) == []
        for _ in range(2):
            await broker.broadcast("even", "x" * (size + 1))
            await broker.to_clients(crowd.ids).send('a\n"quoted" é', "x" * 5000)
            await client.send("alone", "x" * 5000)
            await client.send_bytes(b"x" * 1001)
            await client.send("snapshot", "x" * 5000, wait=True)
            await crowd.peers[1].send("ask", 5000, id=1)
        await eventually(lambda: broker.get_stats().messages_sent == 1 + 2 + 2 * (2 + 2 + 1 + 1 + 1 + 1))
    assert large(caplog) == ["even", 'a\n"quoted" é', "alone", "binary", "snapshot", "reply"]
    assert "1001 bytes, more than WS_WARN_MESSAGE_SIZE (1000)" in caplog.text


async def test_how_many_events_are_warned_of_is_bounded_and_none_where_it_is_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    quiet, noisy = Broker(settings(warn_message_size=0)), Broker(settings(warn_message_size=10))
    async with quiet, noisy:
        for number in range(200):
            await quiet.broadcast(f"quiet {number}", "x" * 5000)
            await noisy.broadcast(f"noisy {number}", "x" * 5000)
    assert large(caplog) == [f"noisy {number}" for number in range(100)]


def large(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """The events that the log says were large."""
    records = [record for record in caplog.records if "WS_WARN_MESSAGE_SIZE" in str(record.msg)]
    return [record.args[0] for record in records if isinstance(record.args, tuple)]


# --- rooms that remember nothing


async def test_what_is_asked_of_a_room_that_remembers_nothing_is_refused_with_what_to_write() -> None:
    broker = Broker(settings())
    broker.rooms("chat:{chat_id}")

    @broker.on_connect
    async def put_in(client: Client) -> None:
        assert await broker.join_room(client.id, "chat:7") == Joined("chat:7")

    async with running(broker) as address, address.connect() as peer:
        await eventually(broker.get_rooms)
        (client,) = broker.get_clients()
        for room in ("chat:7", "tea"):
            with pytest.raises(HistoryError, match=r"history=History\(\)") as said:
                await broker.history(room)
            assert said.value.reason is None
            with pytest.raises(HistoryError, match=r"history=History\(\)"):
                await broker.clear_history(room)
            with pytest.raises(HistoryError, match=r"history=History\(\)"):
                await broker.join_room(client.id, room, since="A" * 32)
        for target in (broker.to_room("chat:7"), broker.to_all(), broker.to_rooms(["a", "b"]), broker.to_user("ann")):
            with pytest.raises(HistoryError, match="dedupe is for what is sent to one room with history"):
                await target.send("said", 1, dedupe="form 7")
        sent = await broker.to_room("chat:7").send("said", 2)
        assert (sent, sent.at, sent.duplicate) == (1, None, False)
        assert await peer.expect("said") == 2, "the others went to nobody"


async def test_limits_and_positions_are_what_they_should_be() -> None:
    broker = Broker(settings())
    broker.rooms("chat:{chat_id}", history=History())
    async with running(broker) as address, address.connect():
        await eventually(broker.get_clients)
        (client,) = broker.get_clients()
        limits: tuple[Any, ...] = (0, -1, 1.5, "5", True, None)
        for limit in limits:
            with pytest.raises(HistoryError, match="number of messages, 1 or more"):
                await broker.history("chat:7", limit=limit)
        positions: tuple[Any, ...] = (b"A" * 32, 1.5, True, "A" * 31, Entry("said", 1, "A" * 32, 0.0))
        for since in positions:
            with pytest.raises(HistoryError, match="the text that came as `at`"):
                await broker.history("chat:7", since)
            with pytest.raises(HistoryError, match="the text that came as `at`"):
                await broker.join_room(client.id, "chat:7", since=since)
            assert broker.get_rooms() == []
