"""Users that change: a client logs in, over and out after it has connected, and every node knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tests.support import DEADLINE, Peer, eventually, settings
from tests.support.nodes import Node, Watcher, application, nodes, person
from tests.support.workers import an_engine
from velocity_ws import Broker, Client, ClientNotFound, Emitter, HookError, InvalidNameError


def users(broker: Broker) -> None:
    """What every node serves."""
    application(broker)

    @broker.on("login")
    async def login(client: Client, data: Any) -> str | None:
        await client.set_user(data)
        return client.user_id


@pytest_asyncio.fixture(params=["nats", "valkey", "embedded"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Two nodes whose room ``x`` has presence."""
    async with an_engine(request.param, tmp_path, monkeypatch) as url:
        async with nodes(url, prepare=users, options={"presence": ["x"]}, backplane_timeout=5) as found:
            yield found


def user_topics(node: Node) -> set[str]:
    """The users whose messages a node listens to."""
    cluster = node.broker.node.cluster
    assert cluster is not None
    return {topic.rpartition(".")[2] for topic in cluster.subscriptions.needed if ".user." in topic}


async def logs_in(peer: Peer, user: Any) -> Any:
    """Have a client log in; other events may come before the answer."""
    await peer.send("login", user, id=7)
    async with asyncio.timeout(10):
        while (message := await peer.receive()).get("id") != 7:
            assert message["event"] == "presence"
    return message


async def heard(peer: Peer) -> Any:
    """The next message that is not about presence."""
    async with asyncio.timeout(10):
        while (message := await peer.receive())["event"] == "presence":
            pass
    return message["data"]


async def test_who_logs_in_over_and_out_is_reached_as_that_user_from_every_node(pair: list[Node]) -> None:
    a, b = pair
    async with person(a, "watcher", "x") as (watching, _), person(b, room="x") as (peer, client_id):
        watcher = Watcher(watching)
        await watcher.sees({"watcher": 1}, 1)
        for user, before in (("ann", None), ("bob", "ann"), (None, "bob"), ({"id": 42}, None), ("cat", "42")):
            user_id = "42" if isinstance(user, dict) else user
            assert (await logs_in(peer, user))["data"] == user_id
            for node in pair:
                if user_id is not None:
                    await node.broker.to_user(user_id).send("to", user_id)
                    assert await heard(peer) == user_id
                if before is not None:
                    await node.broker.to_user(before).send("to", f"no longer {before}")
                await node.broker.to_client(client_id).send("to", "end")
                assert await heard(peer) == "end"
                assert {m.client_id: m.user for m in await node.broker.members("x")}[client_id] == user_id
            if before is not None:
                assert await a.broker.disconnect_user(before) == 0
            named = {"watcher": 1} if user_id is None else {"watcher": 1, user_id: 1}
            await watcher.sees(named, 1 if user_id is None else 0)
            assert user_topics(b) == ({user_id} if user_id else set())
        assert await a.broker.disconnect_user("cat", 4000, "out") == 1
        assert await peer.closed() == (4000, "out")
        await watcher.sees({"watcher": 1})
        assert user_topics(b) == set()
        assert b.broker.get_room_clients("x") == []


async def test_of_two_that_are_set_at_once_the_last_one_called_holds(pair: list[Node]) -> None:
    a, b = pair
    async with person(b) as (peer, client_id):
        client = b.broker.get_client(client_id)
        assert client is not None
        names = [f"user{number}" for number in range(20)]
        await asyncio.gather(*[client.set_user(name) for name in names])
        assert client.user_id == client.user == "user19"
        for name in names:
            await a.broker.to_user(name).send("to", name)
        assert await heard(peer) == "user19"
        assert user_topics(b) == {"user19"}
        going = asyncio.create_task(client.set_user("late"))
        await asyncio.sleep(0)  # it waits for the engine
        await client.disconnect()
        await going
        assert user_topics(b) == set()
        with pytest.raises(ClientNotFound, match=client_id):
            await client.set_user("too late")
        await peer.closed()
    assert len(b.broker.node.hub) == 0


async def test_a_user_may_be_set_in_any_hook_and_on_any_loop_and_thread() -> None:
    told: list[Any] = []
    early: list[Client] = []

    def prepare(broker: Broker) -> None:
        application(broker)

        @broker.on_connect
        async def connected(client: Client) -> None:
            await client.set_user({"id": 1})

        @broker.on("elsewhere")
        async def elsewhere(client: Client) -> None:
            await asyncio.to_thread(lambda: asyncio.run(client.set_user("elsewhere")))

        @broker.on("blocking")
        def blocking(client: Client) -> None:
            client.sync.set_user("blocking")

        @broker.on("assign")
        async def assign(client: Client, data: str) -> None:
            with pytest.raises(AttributeError, match=r"await client\.set_user"):
                setattr(client, data, "ann")

        @broker.on_disconnect
        async def gone(client: Client) -> None:
            told.append((client.user_id, client.rooms))
            with pytest.raises(ClientNotFound):
                await client.set_user("late")

        @broker.on_error
        async def error(client: Client, error: Exception) -> None:
            early.append(client)

    async with nodes("memory://", 1, prepare=prepare) as (node,):
        async with person(node, room="x") as (peer, _):
            assert [client.user_id for client in node.broker.get_clients()] == ["1"]
            for event in ("elsewhere", "blocking"):
                assert (await peer.request(event))["event"] == "reply"
                assert await node.broker.to_user(event).send("to", event) == 1
                assert await heard(peer) == event
            for name in ("user", "user_id"):
                assert (await peer.request("assign", name))["event"] == "reply"
        await eventually(lambda: told)
        assert told == [("blocking", frozenset({"x"}))]
        assert node.broker.get_rooms() == []
        assert early == []


@pytest.mark.parametrize("name", ["user", "user_id", "expires_at"])
async def test_a_user_cannot_be_assigned_and_the_error_says_what_to_call(name: str) -> None:
    async with nodes("memory://", 1, prepare=users) as (node,), person(node, "ann"):
        (client,) = node.broker.get_clients()
        with pytest.raises(AttributeError, match=f"client.{name} is read-only; await client.set_user"):
            setattr(client, name, None)
        assert (client.user, client.user_id) == ("ann", "ann")


@pytest.mark.filterwarnings("ignore:coroutine")
async def test_a_user_that_has_no_name_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def name_of(user: Any) -> str | None:
        if user == "bad":
            raise LookupError("no such user")
        return "x" * 257 if user == "long" else str(user)

    early: list[Client] = []

    def prepare(broker: Broker) -> None:
        users(broker)

        @broker.on_error
        async def error(client: Client, error: Exception) -> None:
            early.append(client)

    async with nodes("memory://", 1, prepare=prepare, options={"user_id": name_of}) as (node,):
        async with person(node, "ann") as (_, client_id):
            client = node.broker.get_client(client_id)
            assert client is not None
            with pytest.raises(HookError, match=f"{client_id} is as before: LookupError") as caught:
                await client.set_user("bad")
            assert isinstance(caught.value.__cause__, LookupError)
            with pytest.raises(InvalidNameError, match="at most 256 characters"):
                await client.set_user("long")
            assert (client.user, client.user_id) == ("ann", "ann")
            assert await node.broker.to_user("ann").send("to") == 1
        with pytest.raises(Exception, match="500"):
            async with person(node, "bad"):
                pass
        assert [client.user for client in early] == [None]
        with pytest.raises(ClientNotFound):
            await early[0].set_user("ann")


async def test_a_user_is_listened_to_while_a_handshake_expects_it(pair: list[Node]) -> None:
    node = pair[0].broker.node
    one, other = (SimpleNamespace(id=name, user_id="ann") for name in ("one", "other"))
    await node.users.expect(one)  # type: ignore[arg-type] # what it looks at
    async with person(pair[0], "ann"):
        await node.users.expect(other)  # type: ignore[arg-type]
    await eventually(lambda: not node.lifecycle.sessions)
    assert user_topics(pair[0]) == {"ann"}, "the last client of the user is gone, and others are about to come"
    node.users.expect_no_more(one)  # type: ignore[arg-type]
    node.users.expect_no_more(one)  # type: ignore[arg-type]
    assert user_topics(pair[0]) == {"ann"}
    node.users.expect_no_more(other)  # type: ignore[arg-type]
    assert user_topics(pair[0]) == set()
    assert node.users.expected == {}


async def test_a_user_is_addressed_by_number_from_everywhere(pair: list[Node]) -> None:
    a, b = pair
    emitter = Emitter(b.broker.settings.backplane_url, timeout=DEADLINE)
    try:
        async with person(a, "42") as (one, _), person(b, "42") as (two, _):
            await a.broker.to_user(42).send("to", 1)
            await asyncio.to_thread(lambda: b.broker.sync.to_user(42).send("to", 2))
            await emitter.to_user(42).send("to", 3)
            for peer in (one, two):
                assert [await heard(peer) for _ in range(3)] in ([1, 2, 3], [2, 1, 3])
            for wrong in (True, None, 4.2):
                with pytest.raises(TypeError, match="string or an integer"):
                    await a.broker.disconnect_user(wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidNameError):
                await a.broker.disconnect_user("x" * 257)
            with pytest.raises(InvalidNameError):
                await emitter.disconnect_user("\ud83d")
            for question in (a.broker.members, a.broker.count, emitter.members):
                with pytest.raises(InvalidNameError):
                    await question("\ud83d")
            assert await asyncio.to_thread(b.broker.sync.disconnect_user, 42) == 2
            assert await one.closed() == await two.closed() == (1000, "")
    finally:
        await emitter.stop()


async def test_what_a_user_is_called_may_be_a_number() -> None:
    async with nodes("memory://", 1, prepare=users, options={"user_id": len}) as (node,), person(node, "four"):
        assert [client.user_id for client in node.broker.get_clients()] == ["4"]
        assert await node.broker.to_user(4).send("to") == 1


async def _waits(room: str) -> bool:
    return True


@pytest.mark.parametrize("presence", ["tea", b"tea", 5, True, _waits])
def test_what_no_presence_is(presence: Any) -> None:
    with pytest.raises(HookError, match="presence"):
        Broker(settings(), presence=presence)


@pytest.mark.parametrize("user_id", ["sub", None, _waits])
def test_what_says_no_user_id(user_id: Any) -> None:
    with pytest.raises(HookError, match="user_id"):
        Broker(settings(), user_id=user_id)


def test_rooms_with_presence_have_names_that_can_be() -> None:
    with pytest.raises(InvalidNameError):
        Broker(settings(), presence=["tea", 5])  # type: ignore[list-item]


@pytest.mark.parametrize("kind", ["nats", "valkey", "embedded"])
async def test_a_presence_function_that_fails_leaves_nobody_half_in_a_room(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def presence(room: str) -> bool:
        if room == "good":
            return True
        raise LookupError(room)

    def prepare(broker: Broker) -> None:
        application(broker)

        @broker.on_join
        async def joined(client: Client, room: str) -> None:
            told.append(f"join {room}")

        @broker.on_leave
        async def left(client: Client, room: str) -> None:
            told.append(f"leave {room}")

        @broker.on_error
        async def failed(client: Client, error: Exception) -> None:
            told.append(repr(error))

    async with an_engine(kind, tmp_path, monkeypatch) as url:
        async with nodes(url, prepare=prepare, options={"presence": presence}) as (a, b), person(b) as (peer, who):
            joins: list[Callable[[str], Awaitable[Any]]] = [
                lambda room: peer.request("join", room),
                lambda room: asyncio.to_thread(b.broker.sync.join_room, who, room),
                lambda room: b.broker.join_room(who, room),
                lambda room: a.broker.join_room(who, room),
            ]
            for number, join in enumerate(joins):
                room = f"x{number}"
                await join(room)
                assert sorted(told) == [f"LookupError('{room}')", f"join {room}"]
                told.clear()
                await a.broker.to_room(room).send("to", number)
                assert await heard(peer) == number
                await b.broker.leave_room(who, room)
                assert told == [f"leave {room}"]
                told.clear()
            await b.broker.join_room(who, "good")
            assert (await peer.expect("presence"))["anonymous"] == 1
            assert b.broker.get_stats().errors == 4
    assert caplog.text.count("LookupError: x") == 4
