"""What hooks are told of a client's coming and going: in order, whoever moves it, and however long a hook takes."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import Peer, eventually
from tests.support.machine import lateness
from tests.support.nodes import Node, application, nodes, person
from tests.support.workers import an_engine
from velocity_ws import Broker, BrokerError, Client


class Told:
    """What the hooks of some nodes were told, and a gate that they wait at, but for the room ``free``."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.gate = asyncio.Event()

    def prepare(self, broker: Broker) -> None:
        """Register the hooks."""
        application(broker)

        @broker.on_join
        async def joined(client: Client, room: str) -> None:
            self.heard.append(f"joins {room}")
            if room != "free":
                await self.gate.wait()
            self.heard.append(f"joined {room}")

        @broker.on_leave
        def left(client: Client, room: str) -> None:
            self.heard.append(f"left {room}")

        @broker.on_disconnect
        async def gone(client: Client) -> None:
            self.heard.append("gone")


@asynccontextmanager
async def alone(told: Told, **values: Any) -> AsyncIterator[Node]:
    """One node with these hooks."""
    async with nodes("memory://", 1, prepare=told.prepare, **values) as (node,):
        yield node


Move = Callable[[Node, Node, Peer, str], Awaitable[object]]
"""Moves a client of the second node."""
JOINS: dict[str, Move] = {
    "handler": lambda a, b, peer, who: peer.send("join", "x"),
    "route": lambda a, b, peer, who: b.broker.join_room(who, "x"),
    "thread": lambda a, b, peer, who: asyncio.to_thread(b.broker.sync.join_room, who, "x"),
    "other node": lambda a, b, peer, who: a.broker.join_room(who, "x"),
}
LEAVES: dict[str, Move] = {
    "handler": lambda a, b, peer, who: peer.send("leave", "x"),
    "route": lambda a, b, peer, who: b.broker.leave_room(who, "x"),
    "thread": lambda a, b, peer, who: asyncio.to_thread(b.broker.sync.leave_room, who, "x"),
    "other node": lambda a, b, peer, who: a.broker.leave_room(who, "x"),
    "client": lambda a, b, peer, who: peer.ws.close(),
    "disconnect": lambda a, b, peer, who: a.broker.disconnect(who),
}


@pytest.mark.parametrize("kind", ["nats", "valkey", "embedded"])
async def test_leaving_never_overtakes_coming_whoever_moves_the_client(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    async with an_engine(kind, tmp_path, monkeypatch) as url, nodes(url, prepare=told.prepare) as (a, b):
        for join, leave in itertools.product(JOINS, LEAVES):
            if join == leave == "handler":
                continue  # one message after the other
            told.gate.clear()
            async with person(b) as (peer, who):
                joining = asyncio.ensure_future(JOINS[join](a, b, peer, who))
                await eventually(lambda: told.heard == ["joins x"])
                leaving = asyncio.ensure_future(LEAVES[leave](a, b, peer, who))
                await eventually(lambda: b.broker.get_room_clients("x") == [])
                await asyncio.sleep(0)  # a turn, in which it would be told
                assert told.heard == ["joins x"], (join, leave)
                told.gate.set()
                await asyncio.gather(joining, leaving)
            await eventually(lambda: "gone" in told.heard)
            assert told.heard == ["joins x", "joined x", "left x", "gone"], (join, leave)
            told.heard.clear()


async def test_many_moves_while_a_hook_waits_are_told_one_after_the_other() -> None:
    told = Told()
    async with alone(told) as node, person(node) as (_, who):
        broker, moves = node.broker, []
        for _ in range(3):
            moves += [broker.join_room(who, "x"), broker.join_room(who, "y"), broker.leave_room(who, "x")]
            moves += [broker.leave_room(who, "y")]
        running = [asyncio.create_task(move) for move in moves]
        await eventually(lambda: told.heard == ["joins x"])
        told.gate.set()
        await asyncio.gather(*running)
        once = ["joins x", "joined x", "joins y", "joined y", "left x", "left y"]
        assert told.heard == once * 3


async def test_a_hook_that_never_returns_holds_up_its_own_client_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.sessions.ending.HANDLER_GRACE", 0.3)
    told = Told()
    async with alone(told) as node:
        async with person(node) as (peer, who):
            stuck = [asyncio.create_task(node.broker.join_room(who, room)) for room in "xy"]
            await eventually(lambda: told.heard == ["joins x"])
            async with person(node) as (_, other):
                await node.broker.join_room(other, "free")
            await eventually(lambda: told.heard[-1:] == ["gone"])
            assert told.heard == ["joins x", "joins free", "joined free", "left free", "gone"]
            assert (await peer.request("whoami"))["data"] == who
            told.gate.set()
            await asyncio.gather(*stuck)
            told.gate.clear()
            told.heard.clear()
            stuck = [asyncio.create_task(node.broker.join_room(who, room)) for room in "zw"]
            await eventually(lambda: told.heard == ["joins z"])
        await eventually(lambda: told.heard[-1:] == ["gone"])
        assert told.heard == ["joins z", "left x", "left y", "left z", "gone"], "of w nobody heard"
        await asyncio.gather(*stuck)  # they are not left waiting


async def test_a_handler_and_a_hook_that_both_hang_have_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    grace = 1.0
    monkeypatch.setattr("velocity_ws.sessions.ending.HANDLER_GRACE", grace)
    told = Told()
    async with alone(told) as node, lateness() as late:
        async with person(node) as (peer, _):
            await peer.send("join", "x")  # whose handler waits for the hook
            await eventually(lambda: told.heard == ["joins x"])
        began = time.monotonic() - late()
        await eventually(lambda: told.heard[-1:] == ["gone"])
        assert time.monotonic() - late() - began < 1.5 * grace


async def test_a_hook_that_swallows_its_cancellation_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HANDLER_GRACE", "CANCEL_GRACE"):
        monkeypatch.setattr(f"velocity_ws.sessions.ending.{name}", 0.05)
    heard: list[str] = []
    end = asyncio.Event()

    def prepare(broker: Broker) -> None:
        application(broker)

        @broker.on_join
        async def joined(client: Client, room: str) -> None:
            heard.append("joins")
            while not end.is_set():
                try:
                    await end.wait()
                except asyncio.CancelledError:
                    heard.append("swallowed")

        @broker.on_leave
        async def left(client: Client, room: str) -> None:
            heard.append("left")

    async with nodes("memory://", 1, prepare=prepare) as (node,):
        async with person(node) as (_, who):
            joining = asyncio.create_task(node.broker.join_room(who, "x"))
            await eventually(lambda: heard == ["joins"])
        await eventually(lambda: not node.broker.node.lifecycle.sessions)
        assert heard == ["joins", "swallowed", "left"]
        assert len(node.broker.node.lifecycle.stragglers) == 1
        end.set()
        await joining
        await eventually(lambda: not node.broker.node.lifecycle.stragglers)


async def test_moves_that_a_hook_makes_are_told_after_it() -> None:
    heard: list[tuple[str, str, str]] = []

    def prepare(broker: Broker) -> None:
        application(broker)

        @broker.on_join
        async def first(client: Client, room: str) -> None:
            heard.append(("first", "join", room))
            if room == "x":
                await broker.leave_room(client.id, "x")
                await broker.join_room(client.id, "y")
                assert client.rooms == {"y"}

        @broker.on_join
        def second(client: Client, room: str) -> None:
            heard.append(("second", "join", room))
            if room == "x":
                broker.sync.join_room(client.id, "z")

        @broker.on_leave
        async def left(client: Client, room: str) -> None:
            heard.append(("", "leave", room))

    async with nodes("memory://", 1, prepare=prepare) as (node,), person(node, room="x"):
        expected = [(name, "join", "x") for name in ("first", "second")] + [("", "leave", "x")]
        expected += [(name, "join", room) for room in "yz" for name in ("first", "second")]
        await eventually(lambda: len(heard) == len(expected))
        assert heard == expected


async def test_so_are_those_of_a_hook_that_waits_first_whatever_context_it_is_called_in() -> None:
    heard: list[str] = []

    def prepare(broker: Broker) -> None:
        application(broker)

        @broker.on_join
        async def joined(client: Client, room: str) -> None:
            heard.append(f"joins {room}")
            if room == "x":
                await asyncio.sleep(0)
                await broker.join_room(client.id, "y")
            heard.append(f"joined {room}")

    async with nodes("memory://", 1, prepare=prepare) as (node,), person(node) as (_, who):
        join = node.broker.join_room(who, "x")
        async with asyncio.timeout(10):
            await asyncio.create_task(join, context=contextvars.Context())
        await eventually(lambda: len(heard) == 4)
        assert heard == ["joins x", "joined x", "joins y", "joined y"]


async def test_a_caller_that_gives_up_takes_no_move_back() -> None:
    told = Told()
    who_asks = contextvars.ContextVar("who_asks", default="nobody")

    def prepare(broker: Broker) -> None:
        told.prepare(broker)

        @broker.on_join
        async def joined(client: Client, room: str) -> None:
            told.heard.append(f"{room} for {who_asks.get()}")

    options = {"presence": ["x", "y"]}
    async with nodes("memory://cancelled", 1, prepare=prepare, options=options) as (node,), person(node) as (_, who):
        who_asks.set("a")
        one = asyncio.create_task(node.broker.join_room(who, "x"))
        who_asks.set("b")
        other = asyncio.create_task(node.broker.join_room(who, "y"))
        await asyncio.sleep(0)  # they wait for the engine
        one.cancel()
        await eventually(lambda: told.heard == ["joins x"])
        other.cancel()
        await asyncio.wait([one, other])
        told.gate.set()
        await eventually(lambda: len(told.heard) == 6)
        assert told.heard == ["joins x", "joined x", "x for a", "joins y", "joined y", "y for b"]
        presence = node.broker.node.presence
        assert presence is not None
        await eventually(lambda: {room: state.here for room, state in presence._rooms.items()} == {
            "x": {"": 1}, "y": {"": 1}
        })  # fmt: skip


async def test_a_client_whose_hooks_are_far_behind_comes_into_no_other_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.sessions.moves.MAX_WAITING", 3)
    told = Told()
    async with alone(told) as node, person(node) as (_, who):
        moves: list[asyncio.Task[Any]] = [
            asyncio.create_task(node.broker.join_room(who, f"room {number}")) for number in range(4)
        ]
        await eventually(lambda: told.heard and not [move for move in moves if move.done()])
        with pytest.raises(BrokerError, match=f"too far behind the moves of client {who}"):
            await node.broker.join_room(who, "another")
        moves.append(asyncio.create_task(node.broker.leave_room(who, "room 0")))
        await eventually(lambda: node.broker.get_room_clients("room 0") == [])
        assert sorted(node.broker.get_rooms()) == ["room 1", "room 2", "room 3"]
        told.gate.set()
        await asyncio.gather(*moves)
        await node.broker.join_room(who, "another")
