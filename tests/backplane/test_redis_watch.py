"""Servers are looked at whether or not anything is said: one that stops, or is demoted, is noticed by who is quiet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import eventually
from tests.support.configured import configured
from tests.support.dead_network import network
from tests.support.engines import ENGINES, Engine, engine
from tests.support.redis_servers import order
from velocity_ws.backplane import create_backplane
from velocity_ws.backplane.redis_connection import MAX_SILENCE, RedisConnection
from velocity_ws.backplane.redis_pool import pool_of
from velocity_ws.backplane.redis_roles import Roles
from velocity_ws.backplane.redis_watch import INTERVAL
from velocity_ws.history.redis import RedisHistory
from velocity_ws.testing.history_engine import Keeper
from velocity_ws.testing.listener import listening

KINDS = [kind for kind in ("valkey", "redis") if kind in ENGINES]
NOTICED = 5 + (1 + MAX_SILENCE) * INTERVAL
"""Seconds within which a server is given up that does not answer, on a machine that does other things."""


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_stops_is_noticed_by_who_says_nothing(kind: str) -> None:
    async with engine(kind) as server, listening(create_backplane(server.url), ["a"]) as listener:
        keeper = Keeper(RedisHistory(server.url))
        await keeper.connect()
        server.freeze()
        await eventually(lambda: listener.losses, within=NOTICED)
        assert "does not answer" in str(listener.losses[0])
        assert not keeper.losses, "what is asked of a store has a time of its own, which may be longer"
        server.thaw()
        await keeper.store.close()


async def test_a_subscriber_alone_that_is_cut_off_without_a_word_is_noticed() -> None:
    async with engine("valkey") as server, network(server.port) as way:
        async with listening(create_backplane(f"valkey://127.0.0.1:{way.port}"), ["a"]) as listener:
            way.die_alone(1)
            await listener.backplane.publish([("a", b"is confirmed, as the publisher lives")])
            await eventually(lambda: listener.losses, within=NOTICED)


class Slow(RedisConnection):
    """What it gets comes in small pieces, and it is looked at between them."""

    def _receive(self, data: bytes) -> None:
        for start in range(0, len(data), 1000):
            super()._receive(data[start : start + 1000])
            self.look(gives_up=True)


async def test_a_server_whose_answer_takes_long_to_come_is_there() -> None:
    async with engine("valkey") as server:
        await order(server, "SETRANGE", "long", 1_000_000, "x")
        make: Callable[[], Any] = pool_of(server.url).make_connection
        errors: list[Exception] = []
        connection = Slow(make(), Roles(), errors.append)
        await connection.open()
        (answer,) = await connection.ask([("GET", "long")])
        assert (len(answer), errors) == (1_000_001, [])
        connection.abort()
        await connection.wait_closed()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_primary_that_is_demoted_is_noticed_by_who_says_nothing(kind: str) -> None:
    async with engine(kind) as other, engine(kind) as server, listening(create_backplane(server.url)) as listener:
        keeper = Keeper(RedisHistory(server.url))
        await keeper.connect()
        await order(server, "REPLICAOF", "127.0.0.1", other.port)
        await eventually(lambda: listener.losses and keeper.losses, within=NOTICED)
        assert "is a replica" in str(listener.losses[0])
        await keeper.store.close()


async def test_looks_do_not_come_between_a_command_and_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    look = RedisConnection.look
    monkeypatch.setattr("velocity_ws.backplane.redis_watch.INTERVAL", 0.001)
    # Looks this close together would give a server up that was without a processor for a few milliseconds.
    monkeypatch.setattr(RedisConnection, "look", lambda connection, *, gives_up: look(connection, gives_up=False))
    async with engine("valkey") as server, listening(create_backplane(server.url)) as listener:
        backplane = listener.backplane
        for number in range(200):
            topics = [f"t.{number}.{index}" for index in range(10)]
            await backplane.subscribe(topics)
            await backplane.publish([(topic, b"%d" % number) for topic in topics])
            await backplane.unsubscribe(topics[1:])
            await asyncio.sleep(0)
        assert len(await listener.messages(2000)) == 2000
        assert listener.losses == []
        assert int((await order(server, "INFO", "commandstats"))["cmdstat_ping"]["calls"]) > 10


async def rejected(server: Engine) -> int:
    """How many looks were refused."""
    stats = await order(server, "INFO", "commandstats")
    return int(stats.get("cmdstat_ping", {}).get("rejected_calls", 0))


async def test_who_may_not_ping_is_looked_at_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    least = ("--user", "least", "on", ">secret", "resetchannels", "+publish", "+subscribe", "+unsubscribe", "&a")
    async with configured("valkey", *least) as server:
        url = f"valkey://least:secret@127.0.0.1:{server.port}"
        async with listening(create_backplane(url), ["a"]) as listener:
            # Until looks were refused: nothing is to happen, which no event tells.
            async with asyncio.timeout(10):
                while await rejected(server) < 3:
                    await asyncio.sleep(0.05)
            await listener.backplane.publish([("a", b"1")])
            assert await listener.messages(1) == [("a", b"1")]
            assert listener.losses == []
            server.freeze()
            await eventually(lambda: listener.losses, within=NOTICED)
            server.thaw()
    assert caplog.records == []
