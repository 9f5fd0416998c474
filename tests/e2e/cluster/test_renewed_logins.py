"""Logins that end on two nodes: renewed, set over each other, ended, and all that while the engine is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support import DEADLINE, Peer, eventually
from tests.support.engines import engine
from tests.support.nodes import Node, Watcher, application, engine_url, nodes, person
from tests.support.workers import an_engine
from velocity_ws import Accept, Broker, Client


def logins(broker: Broker) -> None:
    """What every node serves: logging in for some seconds, and renewing that."""
    application(broker)

    @broker.on("login")
    async def login(client: Client, data: Any) -> str | None:
        user, seconds = data
        await client.set_user(user, None if seconds is None else time.time() + seconds)
        return client.user_id

    @broker.refresh
    async def refresh(client: Client, data: float) -> Accept:
        user = {"id": client.user_id, "renewed": True}
        return Accept(user, expires_at=time.time() + data)


@pytest_asyncio.fixture(params=["memory", "nats", "valkey", "embedded"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Two nodes whose room ``x`` has presence."""
    kind = request.param
    async with engine_url(kind) if kind == "memory" else an_engine(kind, tmp_path, monkeypatch) as url:
        async with nodes(
            url, prepare=logins, options={"presence": ["x"]}, expiry_grace=0.1, backplane_timeout=5
        ) as found:
            yield found


def user_topics(node: Node) -> set[str]:
    """The users whose messages a node listens to."""
    cluster = node.broker.node.cluster
    assert cluster is not None
    return {topic.rpartition(".")[2] for topic in cluster.subscriptions.needed if ".user." in topic}


async def told(peer: Peer, event: str) -> Any:
    """The data of the next message that is not about presence, and is of that event."""
    async with asyncio.timeout(DEADLINE):
        while (message := await peer.receive())["event"] == "presence":
            pass
    assert message["event"] == event, message
    return message["data"]


async def test_a_user_is_reached_from_every_node_before_and_after_its_login_was_renewed(pair: list[Node]) -> None:
    a, b = pair
    async with person(a, "watcher", "x") as (watching, _), person(b, room="x") as (peer, client_id):
        watcher = Watcher(watching)
        await watcher.sees({"watcher": 1}, 1)
        await peer.send("login", ["ann", 3600], id=1)
        assert 3500 < (await told(peer, "session"))["expires_in"] <= 3600
        assert await told(peer, "reply") == "ann"
        await watcher.sees({"watcher": 1, "ann": 1})
        for number in range(3):
            for node in pair:
                await node.broker.to_user("ann").send("to", number)
                assert await told(peer, "to") == number
            await peer.send("refresh", 1000 + number, id=1)
            expires_in = (await told(peer, "session"))["expires_in"]
            assert 900 < expires_in <= 1000 + number
            assert await told(peer, "reply") == {"expires_in": expires_in}
            client = b.broker.get_client(client_id)
            assert client is not None
            assert (client.user, client.user_id) == ({"id": "ann", "renewed": True}, "ann")
            assert user_topics(b) == {"ann"}
            assert {m.client_id: m.user for m in await a.broker.members("x")}[client_id] == "ann"


async def test_whose_login_ends_is_gone_from_every_node(pair: list[Node]) -> None:
    a, b = pair
    async with person(a, "watcher", "x") as (watching, _), person(b, room="x") as (peer, _):
        watcher = Watcher(watching)
        await watcher.sees({"watcher": 1}, 1)
        for seconds in (3600, 0.5):  # the first reply waits for the engine, so that the other comes before the end
            await peer.send("login", ["ann", seconds], id=1)
            await told(peer, "session")
            assert await told(peer, "reply") == "ann"
        await told(peer, "session_expired")
        assert await peer.closed() == (4401, "session expired")
        await watcher.sees({"watcher": 1})
        assert user_topics(b) == set()
        assert await a.broker.disconnect_user("ann") == 0
        await eventually(lambda: not b.broker.node.lifecycle.sessions)
        assert len(b.broker.node.logins) == 0


async def test_of_logins_that_are_set_at_once_the_last_one_called_holds_with_its_end(pair: list[Node]) -> None:
    a, b = pair
    now = datetime.now(UTC)
    async with person(b) as (peer, client_id):
        client = b.broker.get_client(client_id)
        assert client is not None
        for last in (now + timedelta(hours=5), None):
            ends = [*[now + timedelta(seconds=60 + number) for number in range(20)], last]
            names = [f"user{number}" for number in range(len(ends))]
            calls = [client.set_user(name, end) for name, end in zip(names, ends, strict=True)]
            await asyncio.gather(*calls)
            assert (client.user, client.expires_at) == (names[-1], last)
            assert len(b.broker.node.logins) == (last is not None)
            heard = [await told(peer, "session") for _ in names]
            assert (heard[-1] == {}) == (last is None)
            for name in names:
                await a.broker.to_user(name).send("to", name)
            assert await told(peer, "to") == names[-1]
            assert user_topics(b) == {names[-1]}
        elsewhere = [asyncio.to_thread(client.sync.set_user, "x", now + timedelta(hours=h)) for h in range(1, 5)]
        await asyncio.gather(*elsewhere)
        hours = {(await told(peer, "session"))["expires_in"] for _ in elsewhere}
        assert len(hours) == len(b.broker.node.logins) + 3 == 4
        assert client.expires_at in [now + timedelta(hours=h) for h in range(1, 5)]


@pytest.mark.parametrize("kind", ["nats", "valkey"])
async def test_logins_are_renewed_set_and_ended_while_the_engine_is_away(kind: str) -> None:
    async with engine(kind) as server:
        options: dict[str, Any] = {"expiry_grace": 0.1, "backplane_timeout": 1.5}
        async with nodes(server.url, prepare=logins, **options) as (a, b), person(b, "ann") as (peer, _):
            await peer.send("login", ["ann", 60], id=1)
            await told(peer, "session")
            await told(peer, "reply")
            async with person(b, "bob") as (other, _):
                server.freeze()
                await eventually(lambda: not a.broker.healthy and not b.broker.healthy)
                await peer.send("refresh", 1000, id=1)
                assert (await told(peer, "session"))["expires_in"] > 900
                await told(peer, "reply")
                await peer.send("login", ["cat", 1000], id=1)
                assert (await told(peer, "session"))["expires_in"] > 900
                assert await told(peer, "reply") == "cat"
                await other.send("login", ["dan", 0.1], id=1)
                await told(other, "session")
                await told(other, "reply")
                await told(other, "session_expired")
                assert await other.closed() == (4401, "session expired")
                server.thaw()
            await eventually(lambda: a.broker.healthy and b.broker.healthy)
            cluster = b.broker.node.cluster
            assert cluster is not None
            await cluster.wait_subscribed("user", "cat")
            assert user_topics(b) == {"cat"}
            await a.broker.to_user("cat").send("to", "back")
            while (message := await peer.receive())["event"] == "gap":
                pass
            assert (message["event"], message["data"]) == ("to", "back")
            assert await a.broker.disconnect_user("cat", 4000, "out") == 1
            assert await peer.closed() == (4000, "out")
