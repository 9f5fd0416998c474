"""A Redis that passes nothing on is no connection: a replica, a primary that is demoted; and what an ACL must allow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.support import DEADLINE, eventually, settings
from tests.support.configured import configured
from tests.support.engines import ENGINES, Engine, engine
from tests.support.nodes import nodes, person
from tests.support.redis_servers import order, replicated, tell, works
from velocity_ws import BackplaneUnavailable, Broker
from velocity_ws.backplane import create_backplane
from velocity_ws.testing import Listener
from velocity_ws.testing.listener import listening, refused

KINDS = [kind for kind in ("valkey", "redis") if kind in ENGINES]
NOTICED = 10.0
"""Seconds within which a node sees that it does not hear the others."""
PATIENT: dict[str, Any] = {"backplane_timeout": 5}
"""Settings, as an engine that is held up for a second has what it was given all the same."""
LEAST = ("+publish", "+subscribe", "+unsubscribe", "&velocity.*")


async def follows(server: Engine, primary: Engine | None) -> None:
    """Make a server a replica, or a primary."""
    where: tuple[str | int, ...] = ("NO", "ONE") if primary is None else ("127.0.0.1", primary.port)
    assert await order(server, "REPLICAOF", *where) in (b"OK", "OK", True)


async def refusal(url: str) -> str:
    """Why there is no connection."""
    backplane = create_backplane(url)
    try:
        return str(await refused(Listener(backplane).connect()))
    finally:
        await backplane.close()


@asynccontextmanager
async def replicating(kind: str) -> AsyncIterator[tuple[Engine, Engine]]:
    """A primary, and a replica of it."""
    async with engine(kind) as primary:
        async with configured(kind, "--replicaof", "127.0.0.1", str(primary.port)) as replica:
            yield primary, replica


@pytest.mark.parametrize("kind", KINDS)
async def test_a_node_on_a_replica_is_not_healthy_until_that_is_promoted(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with replicating(kind) as (primary, replica), nodes(primary.url, 1, **PATIENT) as (node,):
        error = await refusal(replica.url)
        assert "is a replica" in error
        assert "primary" in error
        lost = Broker(settings(backplane_url=replica.url))
        starting = asyncio.create_task(lost.start())
        await eventually(lambda: "the server is a replica" in caplog.text)
        assert (node.broker.healthy, lost.healthy) == (True, False)
        with pytest.raises(BackplaneUnavailable, match="is a replica") as caught:
            await lost.broadcast("n")
        assert caught.value.outcome == "refused"
        await follows(replica, None)
        await follows(primary, replica)  # as after a failover
        await starting
        async with lost:
            await eventually(lambda: lost.healthy)
            await eventually(lambda: not node.broker.healthy, within=NOTICED)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_primary_that_is_demoted_is_noticed_and_one_that_is_promoted_again_heals(kind: str) -> None:
    async with engine(kind) as other, engine(kind) as server, nodes(server.url, 2, **PATIENT) as (a, b):
        async with person(b, room="x") as (peer, _):
            await a.broker.to_room("x").send("n", 1)
            assert await peer.expect("n") == 1
            await follows(server, other)
            await eventually(lambda: not a.broker.healthy and not b.broker.healthy, within=NOTICED)
            with pytest.raises(BackplaneUnavailable, match="is a replica"):
                await a.broker.to_room("x").send("n", 2)
            await follows(server, None)
            await eventually(lambda: a.broker.healthy and b.broker.healthy)
            assert {(await peer.expect("gap"))["room"] for _ in range(2)} == {None, "x"}
            await a.broker.to_room("x").send("n", 3)
            assert await peer.expect("n") == 3


async def test_a_server_is_asked_now_and_then_and_not_with_each_message() -> None:
    async with engine("valkey") as server, listening(create_backplane(server.url)) as listener:
        before = await calls(server, "hello")
        for _ in range(200):
            await listener.backplane.publish([("a", b"1")])
        assert await calls(server, "hello") - before < 100


async def calls(server: Engine, command: str) -> int:
    """How often a server was given a command."""
    async with Redis(port=server.port, protocol=2) as redis:
        found = await redis.info("commandstats")
    return int(found.get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_each_reason_is_logged_once_until_there_is_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with engine("valkey") as server:
        await server.kill()
        broker = Broker(settings(backplane_url=server.url))
        starting = asyncio.create_task(broker.start())
        await eventually(lambda: "Connect call failed" in caplog.text)
        command = server._command
        server._command = lambda port: [*command(port), "--replicaof", "127.0.0.1", str(port)]
        await server.start()  # and it is nothing else for a moment, in which there would be a connection
        await eventually(lambda: "is a replica" in caplog.text)
        await follows(server, None)
        await starting
        await broker.stop()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == len(set(said)) <= 4  # it may be seen while it starts


@pytest.mark.parametrize("kind", KINDS)
async def test_a_sentinel_is_no_connection(kind: str, tmp_path: Path) -> None:
    (tmp_path / "sentinel.conf").touch()

    def command(port: int) -> list[str]:
        return [ENGINES[kind](port)[0], str(tmp_path / "sentinel.conf"), "--sentinel", "--port", str(port)]

    sentinel = Engine(kind, command)
    await sentinel.start()
    try:
        error = await refusal(sentinel.url)
        assert "is a sentinel" in error
    finally:
        await sentinel.kill()


@pytest.mark.soak  # it takes servers many seconds to be a cluster, and a failover some more
async def test_a_cluster_passes_on_what_its_replicas_are_given_and_moves_to_a_new_primary(tmp_path: Path) -> None:
    async with replicated(tmp_path) as (primary, replica), AsyncExitStack() as stack:
        plain = await stack.enter_async_context(listening(create_backplane(replica.url), ["a"]))
        await (await stack.enter_async_context(listening(create_backplane(primary.url)))).backplane.publish(
            [("a", b"1")]
        )
        await plain.backplane.publish([("a", b"2")])
        assert await plain.messages(2) == [("a", b"1"), ("a", b"2")]
        (node,) = await stack.enter_async_context(nodes(f"valkey+cluster://127.0.0.1:{replica.port}", 1))
        channels = "velocity.all"
        assert channels.encode() in await order(primary, "PUBSUB", "SHARDCHANNELS")
        await tell(replica, "FAILOVER")
        async with asyncio.timeout(DEADLINE):
            while channels.encode() not in await order(replica, "PUBSUB", "SHARDCHANNELS"):
                await asyncio.sleep(0.05)
        assert node.broker.healthy


# --- what a user may do


@pytest.mark.parametrize("kind", KINDS)
async def test_publishing_and_subscribing_is_all_that_a_user_has_to_be_allowed(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with configured(kind, "--user", "least", "on", ">secret", "resetchannels", *LEAST) as server:
        url = f"{kind}://least:secret@127.0.0.1:{server.port}"
        async with nodes(url, 2, **PATIENT) as (a, b), person(b, room="x") as (peer, _):
            await a.broker.to_room("x").send("n", 1)
            assert await peer.expect("n") == 1
            assert await a.broker.count("x") == 1
        assert caplog.records == []  # HELLO is nobody's to forbid
        error = await refusal(f"{url}/1")
        assert "select" in error
        async with configured(kind, "--user", "more", "on", ">secret", "resetchannels", *LEAST, "+select") as other:
            async with nodes(f"{kind}://more:secret@127.0.0.1:{other.port}/1", 1) as (node,):
                assert node.broker.healthy


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_does_not_tell_its_role_is_used_and_that_is_said_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    hidden = ("--rename-command", "HELLO", "")
    async with configured(kind, *hidden) as server:
        await works(server.url)
        assert caplog.records == []  # ROLE tells it
        await follows(server, server)
        assert "is a slave" in await refusal(server.url)
    async with configured(kind, *hidden, "--rename-command", "ROLE", "") as server:
        backplane = create_backplane(server.url)
        for _ in range(2):
            async with listening(backplane, ["a"]):
                await backplane.publish([("a", b"1")])
        (record,) = caplog.records
        assert "does not tell whether it is a primary" in record.getMessage()
        assert "ROLE" in record.getMessage()
