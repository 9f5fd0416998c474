"""Brokers have names: on one engine, and in one process, those of different names hear nothing of each other."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support import DEADLINE, eventually, settings
from tests.support.engines import ENGINES, engine
from tests.support.nodes import Node, nodes, person, run_command
from tests.support.workers import an_engine
from velocity_ws import Broker, BrokerError, Emitter, InvalidNameError
from velocity_ws.backplane import create_backplane
from velocity_ws.testing.listener import listening

KINDS = ("memory", "nats", "valkey", "embedded")


@pytest.fixture(params=KINDS)
async def shared(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """An engine of each kind, in a place of the test's own."""
    if request.param == "memory":
        yield f"memory://{tmp_path.name}"
        return
    async with an_engine(request.param, tmp_path, monkeypatch) as url:
        yield url


@asynccontextmanager
async def named(url: str, *names: str) -> AsyncIterator[list[Node]]:
    """A node of each name, and one more that begins after all others and is of the last."""
    found: list[Node] = []
    async with nodes(url, 1, options={"name": names[0]}) as first:
        found += first
        if len(names) > 1:
            async with named(url, *names[1:]) as others:
                yield found + others
            return
        async with nodes(url, 1, options={"name": names[0]}) as more:
            for node in (*found, *more):  # each has heard of the other
                await eventually(node.broker.node.cluster.membership.ids)  # type: ignore[union-attr]
            yield found + more


async def test_brokers_of_different_names_hear_nothing_of_each_other(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        named(shared, "main", "internal") as (public, internal, other),
        person(public, "ann", "x") as (stranger, stranger_id),
        person(other, "ann", "x") as (friend, friend_id),
        Emitter(shared, name="internal", timeout=DEADLINE) as emitter,
    ):
        monkeypatch.setattr("velocity_ws.cluster.membership.DISCOVERY_TIME", DEADLINE)  # an emitter waits for all nodes
        assert (public.broker.name, internal.broker.name) == ("main", "internal")
        for number, sender in enumerate([internal.broker, emitter]):
            await sender.broadcast("secret", number)
            await sender.to_room("x").send("secret", number)
            await sender.to_user("ann").send("secret", number)
            await sender.to_client(stranger_id).send("secret", number)
            await sender.to_client(friend_id).send("secret", number)
            assert [await friend.expect("secret") for _ in range(4)] == [number] * 4
            assert [member.client_id for member in await sender.members("x")] == [friend_id]
            assert set((await sender.cluster_stats()).nodes) == {internal.broker.node_id, other.broker.node_id}
            assert not await sender.disconnect(stranger_id)
            assert await sender.disconnect_user("bob") == 0
        assert await public.peers() == 0
        assert await public.broker.disconnect_user("ann", 4001) == 1
        assert (await stranger.closed())[0] == 4001  # and it had got nothing before
        await internal.broker.broadcast("end")
        await friend.expect("end")


async def test_the_command_takes_a_name() -> None:
    async with engine("nats") as server, named(server.url, "main", "internal") as (public, internal, other):
        async with person(public, room="x") as (stranger, _), person(other, room="x") as (friend, friend_id):
            options = ("--name", "internal", "--url", server.url)
            assert (await run_command("send", "--event", "secret", *options))[0] == 0
            await friend.expect("secret")
            (_, listed, _), (_, figures, _), (status, _, said) = await asyncio.gather(
                run_command("members", "x", *options),
                run_command("stats", *options),
                run_command("stats", "--name", "a b", "--url", server.url),
            )
            assert [line.split("\t")[0] for line in listed.splitlines()] == [friend_id]
            assert internal.broker.node_id in figures
            assert public.broker.node_id not in figures
            assert status == 1
            assert "letters, digits" in said
            await public.broker.broadcast("first")
            await stranger.expect("first")


@pytest.mark.parametrize("kind", ["nats", "valkey"])
async def test_main_and_database_0_keep_their_topics(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine(kind) as server:
        names = ["velocity.all", "velocity.room.tea", "velocity.user.ann", "velocity.room.=E2=98=95=20=2A"]
        url = server.url if kind == "nats" else f"{server.url}/0"
        async with (
            listening(create_backplane(server.url), names) as listener,
            Emitter(url, timeout=DEADLINE) as emitter,
            nodes(url, 1) as (node,),
        ):
            monkeypatch.setattr("velocity_ws.cluster.membership.DISCOVERY_TIME", DEADLINE)  # the emitter waits for it
            await listener.backplane.subscribe(["velocity.nodes", f"velocity.node.{node.broker.node_id}"])
            await emitter.to_room("tea").send("n")
            await emitter.to_user("ann").send("n")
            await emitter.to_room("☕ *").send("n")
            await emitter.broadcast("n")
            assert await emitter.members("tea") == []
            own = f"velocity.node.{node.broker.node_id}"
            await eventually(lambda: own in {topic for topic, _ in listener.received})
            said = [topic for topic, _ in listener.received if "node" not in topic]
            assert said == ["velocity.room.tea", "velocity.user.ann", "velocity.room.=E2=98=95=20=2A", "velocity.all"]


@pytest.mark.parametrize("kind", [kind for kind in ("valkey", "redis") if kind in ENGINES])
async def test_databases_are_apart_as_publishing_is_not(kind: str, tmp_path: Path) -> None:
    async with engine(kind) as server, Emitter(f"{server.url}/1", timeout=DEADLINE) as emitter:
        async with (
            nodes(server.url, 1) as (zero,),
            nodes(f"{server.url}/1", 1) as (one,),
            nodes(f"{server.url}/1?prefix=velocity", 1) as (prefixed,),
            person(zero, room="x") as (stranger, _),
            person(one, room="x") as (friend, _),
            person(prefixed, room="x") as (relative, _),
        ):
            await emitter.broadcast("one")
            await friend.expect("one")
            await eventually(zero.broker.node.cluster.membership.ids)  # type: ignore[union-attr]
            assert (await zero.peers(), await one.peers()) == (1, 0)
            await zero.broker.broadcast("zero")
            await stranger.expect("zero")
            await relative.expect("zero")


@pytest.mark.parametrize("name", ["", " ", "a b", "a.b", "*", ">", "a\n", "ä", "x" * 33, None, 1])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match="name of a broker"):
        Broker(settings(), name=name)
    with pytest.raises(InvalidNameError, match="name of a broker"):
        Emitter("memory://names", name=name)


# --- two in one place


def refusal(url: str, **options: object) -> BrokerError | None:
    """Why a broker does not start, on a loop of its own."""

    async def starts() -> None:
        async with Broker(settings(backplane_url=url), **options):  # type: ignore[arg-type]
            pass

    try:
        asyncio.run(starts())
    except BrokerError as error:
        return error
    return None


@pytest.mark.parametrize("kind", ["nats", "valkey", "embedded"])
async def test_a_second_broker_of_a_name_is_refused_and_told_both_remedies(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with an_engine(kind, tmp_path, monkeypatch) as url:
        first, second = Broker(settings(backplane_url=url)), Broker(settings(backplane_url=url))
        async with first:
            with pytest.raises(BrokerError, match=r"'main'.*name='internal'.*twin=True"):
                await second.start()
            assert not second.is_running
            assert await asyncio.to_thread(refusal, url)  # on another loop and thread as well
            assert await asyncio.to_thread(refusal, url, twin=True)  # both have to say so
            assert not await asyncio.to_thread(refusal, url, name="internal")
            assert not await asyncio.to_thread(refusal, f"{url}?prefix=shop")
            await first.start()  # harmless, as ever
        async with second:  # which the first has made way for
            assert second.healthy
        async with Broker(settings(backplane_url=url), twin=True):
            assert await asyncio.to_thread(refusal, url)
            assert not await asyncio.to_thread(refusal, url, twin=True)


@pytest.mark.parametrize("url", ["memory://", "memory://bus"])
async def test_brokers_in_memory_need_no_names(url: str) -> None:
    async with Broker(settings(backplane_url=url)), Broker(settings(backplane_url=url)):
        pass


ABANDONED = """
import asyncio, gc, os
from velocity_ws import Broker, BrokerError, Settings

def refused():
    async def starts():
        async with Broker(Settings(_env_file=None)):
            pass
    try:
        asyncio.run(starts())
    except BrokerError:
        return True
    return False

lost = Broker(Settings(_env_file=None))
asyncio.run(lost.start())
print("its loop was closed under it", refused(), flush=True)
loop = asyncio.new_event_loop()
forgotten = Broker(Settings(_env_file=None))
loop.run_until_complete(forgotten.start())
print("it runs", refused(), flush=True)
if not (pid := os.fork()):
    print("it runs in the parent", refused(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print("it runs still", refused(), flush=True)
loop.run_until_complete(forgotten.stop())
print("it was stopped", refused(), flush=True)
"""


async def test_a_broker_that_is_abandoned_has_no_place(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ABANDONED),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "WS_BACKPLANE_URL": "embedded://abandoned", "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    assert said.decode().splitlines() == [
        "its loop was closed under it False",
        "it runs True",
        "it runs in the parent False",
        "it runs still True",
        "it was stopped False",
    ]
