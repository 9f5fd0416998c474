"""Rights are revoked on all nodes: exact where a node hears it, told where one does not, and made good when it does."""

from __future__ import annotations

import asyncio
import itertools
import operator
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE, Peer, eventually, redis_servers, running, settings
from tests.support.dead_network import network
from tests.support.engines import engine
from tests.support.nodes import KINDS, Node, application, engine_url, nodes
from tests.support.say import Say
from tests.support.workers import an_engine, owner, workers
from tests.support.workers import person as worker_person
from velocity_ws import BackplaneUnavailable, Broker, Client, Emitter
from velocity_ws.broker.revocation import MAX_OWED
from velocity_ws.cluster.envelopes import Heartbeat

ROOM = "chat:7"
ENGINES = ("nats", "valkey")
LEASE = 1.0


class Rights:
    """Who may be in which room, on every node; and who was asked about.

    Attributes:
        allowed: users and rooms.
        asked: users, in order.
        gate: answers wait for it.
    """

    def __init__(self) -> None:
        self.allowed: set[tuple[str | None, str]] = set()
        self.asked: list[str | None] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def prepare(self, broker: Broker) -> None:
        """Have a broker ask for them, in rooms of a kind."""
        application(broker)

        @broker.rooms("chat:{chat_id}").authorize
        async def may_enter(client: Client, room: str) -> bool:
            self.asked.append(client.user_id)
            answer = (client.user_id, room) in self.allowed
            await self.gate.wait()
            return answer

        @broker.on("enter")
        async def enter(client: Client, data: str) -> None:
            session = broker.node.hub.get(client.id)
            assert session is not None
            await broker.node.authorization.admit(session, data)


@asynccontextmanager
async def inside(rights: Rights, node: Node, user: str, *rooms: str) -> AsyncIterator[Peer]:
    """Somebody that may be in some rooms, and is."""
    async with node.address.connect(f"/ws?user={user}") as peer:
        for room in rooms or (ROOM,):
            rights.allowed.add((user, room))
            answer = await peer.request("enter", room)
            assert answer["event"] == "reply", answer
        yield peer


@asynccontextmanager
async def apart(kind: str, rights: Rights) -> AsyncIterator[tuple[list[Node], Any]]:
    """Two nodes that know each other, and the way of the second to the engine."""
    async with engine(kind) as server, network(server.port) as way, AsyncExitStack() as stack:
        found: list[Node] = []
        for port in (server.port, way.port):
            broker = Broker(settings(backplane_url=f"{kind}://127.0.0.1:{port}", backplane_timeout=2), twin=True)
            rights.prepare(broker)
            found.append(Node(broker, await stack.enter_async_context(running(broker, "ours"))))
        async with asyncio.timeout(30):
            for node in found:
                while await node.peers() < 1:
                    await asyncio.sleep(0.01)  # no event tells
        yield found, way


async def test_members_on_all_nodes_are_asked_about_before_it_returns(url: str) -> None:
    rights = Rights()
    async with (
        nodes(url, prepare=rights.prepare) as (a, b),
        inside(rights, a, "ann") as ann,
        inside(rights, b, "bob") as bob,
        inside(rights, b, "cat") as cat,
    ):
        target = a.broker.to_room(ROOM)
        await target.send("n", 0)
        rights.asked.clear()
        rights.allowed.discard(("bob", ROOM))
        rights.gate.clear()
        revoking = asyncio.create_task(a.broker.reauthorize(ROOM))
        await eventually(lambda: len(rights.asked) == 3)
        for number in (1, 2):
            await target.send("n", number)
        assert len(await b.broker.members(ROOM)) == 3
        await asyncio.sleep(0)
        assert not revoking.done()
        rights.gate.set()
        await revoking
        assert sorted([member.user or "" for member in await a.broker.members(ROOM)]) == ["ann", "cat"]
        await target.send("n", 3)
        assert await bob.expect("n") == 0
        assert await bob.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        for peer in (ann, cat):
            assert [await peer.expect("n") for _ in range(4)] == [0, 1, 2, 3]
        await b.broker.broadcast("all")
        await bob.expect("all")


async def test_a_concurrent_handler_ends_where_its_client_is_put_out_by_another_node(
    patient_pair: tuple[Rights, list[Node]],
) -> None:
    rights, (a, b) = patient_pair
    cancelled = asyncio.Event()

    @b.broker.on("stream", concurrent=True)
    async def stream(client: Client) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with inside(rights, b, "bob") as bob:
        await bob.send("stream", id="gone", room=ROOM)
        assert (await bob.request("whoami"))["event"]  # it is behind the one that has begun
        rights.allowed.clear()
        await a.broker.reauthorize(ROOM, "bob")
        assert await bob.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        await asyncio.wait_for(cancelled.wait(), DEADLINE)
        assert (await bob.receive())["data"]["code"] == "CANCELLED"


async def test_it_waits_for_answers_that_take_longer_than_the_engine_may(
    patient_pair: tuple[Rights, list[Node]],
) -> None:
    rights, (a, b) = patient_pair
    async with inside(rights, b, "bob") as bob:
        rights.allowed.clear()
        rights.gate.clear()
        revoking = asyncio.create_task(a.broker.reauthorize(user_id="bob"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(revoking), 1.2 * a.broker.settings.backplane_timeout)
        rights.gate.set()
        await revoking
        assert await bob.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        assert b.broker.node.directory.revocation._tickets == {}


@asynccontextmanager
async def near(timeout: float) -> AsyncIterator[tuple[Rights, list[Node]]]:
    """Two nodes on an engine in memory, which has no network."""
    rights = Rights()
    async with (
        engine_url("memory") as url,
        nodes(url, prepare=rights.prepare, backplane_timeout=timeout, node_lease=2) as found,
    ):
        yield rights, found


@pytest.fixture
async def pair_of() -> AsyncIterator[tuple[Rights, list[Node]]]:
    """Such nodes, for tests in which one waits for an answer that never comes."""
    async with near(0.3) as found:
        yield found


@pytest.fixture
async def patient_pair() -> AsyncIterator[tuple[Rights, list[Node]]]:
    """Such nodes that answer each other in time on a busy machine, too."""
    async with near(1.5) as found:
        yield found


async def test_a_program_without_clients_can_revoke(url: str) -> None:
    rights = Rights()
    async with nodes(url, prepare=rights.prepare) as (a, b), AsyncExitStack() as stack:
        if url.startswith("memory"):
            return
        peers = [await stack.enter_async_context(inside(rights, *each)) for each in ((a, "ann"), (b, "bob"))]
        rights.allowed.clear()
        async with Emitter(url, timeout=DEADLINE) as emitter:
            await emitter.reauthorize(ROOM)
        for peer in peers:
            assert await peer.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        assert a.broker.get_rooms() == b.broker.get_rooms() == []


async def test_a_node_of_an_older_version_is_named(pair_of: tuple[Rights, list[Node]]) -> None:
    rights, (a, b) = pair_of
    assert b.broker.node.cluster is not None
    b.broker.node.cluster._rpc._at_once.clear()
    async with inside(rights, a, "ann") as ann:
        rights.allowed.clear()
        with pytest.raises(BackplaneUnavailable, match=b.broker.node_id) as caught:
            await a.broker.reauthorize()
        assert (caught.value.outcome, caught.value.nodes) == ("unknown", (b.broker.node_id,))
        assert (await ann.expect("left"))["room"] == ROOM  # here it is done


async def test_a_node_that_missed_an_order_asks_when_it_sees_that_something_is_missing(
    pair_of: tuple[Rights, list[Node]],
) -> None:
    rights, (a, b) = pair_of
    cluster = b.broker.node.cluster
    assert cluster is not None
    topic, received = cluster.topics.nodes, cluster._receiver.received
    assert cluster._backplane._connection is not None  # type: ignore[attr-defined]
    lost = 0

    def lossy(of: str, data: bytes) -> None:
        nonlocal lost
        if of == topic and b"reauthorize" in data and not lost:
            lost += 1
        else:
            received(of, data)

    cluster._backplane._connection.receive = lossy  # type: ignore[attr-defined]
    async with inside(rights, b, "bob") as bob:
        rights.allowed.clear()
        with pytest.raises(BackplaneUnavailable, match=b.broker.node_id):
            await a.broker.reauthorize(ROOM)
        assert lost
        assert await bob.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}  # by the next sign of life of a


async def test_a_message_by_several_rooms_comes_once_to_who_is_held_in_one(
    patient_pair: tuple[Rights, list[Node]],
) -> None:
    rights, (a, b) = patient_pair
    both = [ROOM, "chat:8"]
    async with inside(rights, b, "bob", *both) as bob:
        rights.gate.clear()
        revoking = asyncio.create_task(b.broker.reauthorize(ROOM))
        await a.broker.to_rooms(both).send("n", 0)
        await a.broker.to_rooms(reversed(both)).send("n", 1)
        assert [await bob.expect("n") for _ in range(2)] == [0, 1]
        await a.broker.to_room(ROOM).send("n", 2)
        rights.gate.set()
        await revoking
        assert await bob.expect("n") == 2


async def test_a_node_looks_for_missed_orders_from_when_it_has_rooms_to_ask_about() -> None:
    async with engine_url("memory") as url, nodes(url) as (a, b):
        found = [node.broker.node.cluster for node in (a, b)]
        assert [cluster.orders.on_missed for cluster in found if cluster is not None] == [[], []]
        cluster = found[0]
        assert cluster is not None

        @a.broker.rooms("chat:{chat_id}").authorize  # later than usual
        async def may_enter(client: Client) -> bool:
            return client.user_id == "ann"

        async with a.address.connect("/ws?user=ann") as ann:
            await ann.request("join", ROOM)
            await b.broker.reauthorize(ROOM)
            assert len(cluster.orders.on_missed) == 1
            await a.broker.reauthorize(ROOM)
            assert len(cluster.orders.on_missed) == 1


@pytest.mark.parametrize("kind", ENGINES)
async def test_a_node_that_was_cut_off_asks_before_it_delivers_more(kind: str) -> None:
    rights = Rights()
    async with (
        apart(kind, rights) as ((a, b), way),
        inside(rights, b, "ann") as ann,
        inside(rights, b, "bob") as bob,
    ):
        said = 0

        async def say(*, heard: bool) -> None:
            nonlocal said
            await a.broker.to_room(ROOM).send("n", said)
            said += heard

        await say(heard=True)
        for peer in (ann, bob):  # on its way it would be lost
            assert await peer.expect("n") == 0
        way.die()
        rights.allowed.discard(("bob", ROOM))
        with pytest.raises(BackplaneUnavailable, match=b.broker.node_id):
            await a.broker.reauthorize(ROOM)
        way.live()
        await eventually(lambda: not b.broker.healthy)
        async with asyncio.timeout(20):
            while not b.broker.healthy or await a.broker.count(ROOM) != 1:
                await say(heard=False)
                await asyncio.sleep(0.005)  # the pace
        await say(heard=True)
        assert await bob.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        await b.broker.to_user("bob").send("end")
        while (message := await bob.receive())["event"] != "end":
            assert (message["event"], message["data"]["room"]) == ("gap", None), "nothing of the room, nor of its gap"
        while (message := await ann.receive())["event"] != "gap":
            assert message["event"] == "n"


@pytest.mark.parametrize("kind", ENGINES)
async def test_who_was_cut_off_when_it_gave_an_order_gives_it_again(kind: str) -> None:
    rights = Rights()
    async with apart(kind, rights) as ((a, b), way), inside(rights, a, "ann") as ann, inside(rights, b, "bob") as bob:
        way.die()
        rights.allowed.clear()
        with pytest.raises(BackplaneUnavailable) as caught:
            await b.broker.reauthorize(ROOM)
        assert caught.value.outcome == "unknown"
        assert await bob.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        await eventually(lambda: not b.broker.healthy)
        rooms = [f"chat:{number}" for number in range(MAX_OWED + 5)]
        for room in rooms:
            with pytest.raises(BackplaneUnavailable):
                await b.broker.reauthorize(room)
        assert len(b.broker.node.directory.revocation._owed) <= MAX_OWED
        way.live()
        while (message := await ann.receive())["event"] == "gap":
            pass
        assert (message["event"], message["data"]) == ("left", {"room": ROOM, "reason": "FORBIDDEN"})
        await eventually(lambda: b.broker.node.directory.revocation._repeating is None)


async def test_an_order_that_fails_while_the_same_is_given_again_is_given_once_more(
    pair_of: tuple[Rights, list[Node]],
) -> None:
    rights, (a, b) = pair_of
    order, cluster, revocation = (ROOM, None), a.broker.node.cluster, a.broker.node.directory.revocation
    assert cluster is not None
    cluster.membership.received(
        "anotherNode", Heartbeat("alive", 60)
    )  # which answers nothing, so that it is waited for
    async with inside(rights, b, "bob"):
        rights.asked.clear()
        revocation._owe(cluster, order)
        await eventually(lambda: rights.asked == ["bob"])
        revocation._owe(cluster, order)
        await eventually(lambda: rights.asked == ["bob", "bob"])
        await eventually(lambda: revocation._repeating is None)


@pytest.mark.parametrize(
    ("kind", "is_lost"),
    [  # each engine, and each length; `make soak` has each engine with each length
        pytest.param("nats", False, id="nats, within its lease"),
        pytest.param("valkey", False, id="valkey, within its lease"),
        pytest.param("valkey+cluster", True, id="valkey+cluster, for longer than its lease"),
        pytest.param("embedded", True, id="embedded, for longer than its lease"),
        pytest.param("nats", True, id="nats, for longer than its lease", marks=pytest.mark.soak),
        pytest.param("valkey", True, id="valkey, for longer than its lease", marks=pytest.mark.soak),
        pytest.param("valkey+cluster", False, id="valkey+cluster, within its lease", marks=pytest.mark.soak),
        pytest.param("embedded", False, id="embedded, within its lease", marks=pytest.mark.soak),
    ],
)
async def test_a_node_that_was_frozen_asks_before_it_delivers_more(
    kind: str, is_lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = LEASE if is_lost else 30.0
    (tmp_path / "rights").mkdir()
    rights = {user: tmp_path / "rights" / user for user in ("ann", "bob")}
    for path in rights.values():
        path.touch()
    options = {"WS_NODE_LEASE": f"{lease:g}s", "WS_BACKPLANE_TIMEOUT": "2s", "RIGHTS": str(tmp_path / "rights")}
    async with AsyncExitStack() as stack:
        if kind == "valkey+cluster":
            servers = await stack.enter_async_context(redis_servers.cluster(tmp_path, 3))
            url = f"{kind}://127.0.0.1:{servers[0].port}"
        else:
            url = await stack.enter_async_context(an_engine(kind, tmp_path, monkeypatch))
        ports = await asyncio.gather(*[stack.enter_async_context(workers(1, url, **options)) for _ in range(2)])
        here = await stack.enter_async_context(worker_person(ports[0], "here"))
        if kind == "embedded" and owner(tmp_path)[0] != here.pid:
            ports.reverse()  # it is not the engine that is stopped
            here = await stack.enter_async_context(worker_person(ports[0], "here"))
        ann, bob = [await stack.enter_async_context(worker_person(ports[1], ROOM, user)) for user in rights]
        assert await here.request("relay", [ROOM, ["n", 0]]) == "published"
        await eventually(lambda: ann.got == bob.got == {"n": [0]})
        os.kill(bob.pid, signal.SIGSTOP)
        try:
            if is_lost:
                async with asyncio.timeout(20):
                    while await here.request("members", ROOM) != [[], []]:
                        await asyncio.sleep(0.05)
            rights["bob"].unlink()
            assert await here.request("revoke", ROOM) == [bob.node]
            for number in range(1, 100):
                assert await here.request("relay", [ROOM, ["n", number]]) == "published"
        finally:
            os.kill(bob.pid, signal.SIGCONT)
        await eventually(lambda: len(ann.got["n"]) == 100)
        await eventually(lambda: bob.left)
        assert bob.left == [{"room": ROOM, "reason": "FORBIDDEN"}]
        assert await here.request("relay", [ROOM, ["n", 100]]) == "published"
        await eventually(lambda: len(ann.got["n"]) == 101)
        assert ann.got == {"n": list(range(101))}
        assert bob.got == {"n": [0]}
        assert await here.request("revoke", ROOM) == []


# --- all at once


class Storm:
    """On several nodes, clients join again and again while their rights come and go, and all nodes talk.

    Attributes:
        entered: joins that went through.
        put_out: members that lost their room.
    """

    def __init__(self, rights: Rights, found: list[Node], users: int, seed: int) -> None:
        self.entered = self.put_out = 0
        self._rights = rights
        self._nodes = found
        self._users = [f"u{number}" for number in range(users)]
        self._chance = random.Random(seed)
        self._said = [0] * len(found)
        self._forbidden: dict[str, list[tuple[list[int], list[int]]]] = {user: [] for user in self._users}
        """What each node had said when a user was out, and when it was let in again."""
        self._heard: dict[str, list[tuple[int, int]]] = {user: [] for user in self._users}
        self._observers: list[dict[int, int]] = [{} for _ in found]
        self._last: dict[str, dict[int, int]] = {user: {} for user in self._users}
        self._is_over = False

    async def run(self, joins: int) -> None:
        """Let each join so often, and until one is put out, and look at what it has got."""
        self._rights.allowed |= {(user, ROOM) for user in self._users}
        async with AsyncExitStack() as stack:
            peers: dict[str, Peer] = {}
            for number, user in enumerate(self._users):
                address = self._nodes[number % len(self._nodes)].address
                # One that has stopped reading would see no close frame when the test is over, and wait for it.
                connecting = address.connect(f"/ws?user={user}", max_queue=None)
                peers[user] = await stack.enter_async_context(connecting)
            observing = [
                asyncio.create_task(self._observe(*each)) for each in zip(self._nodes, self._observers, strict=True)
            ]
            others = [asyncio.create_task(self._talk(number)) for number in range(len(self._nodes))]
            others.append(asyncio.create_task(self._revoke()))
            async with asyncio.TaskGroup() as group:
                for user, peer in peers.items():
                    group.create_task(self._come_and_go(user, peer, joins // len(peers)))
            self._is_over = True
            await asyncio.gather(*others)
            for task in observing:
                assert not task.done(), task
                task.cancel()
            await asyncio.wait(observing)
        for user, heard in self._heard.items():
            for after, until in self._forbidden[user]:
                wrong = [(node, number) for node, number in heard if after[node] < number <= until[node]]
                assert not wrong, "said when it was out"

    async def _talk(self, node: int) -> None:
        target = self._nodes[node].broker.to_room(ROOM)
        while not self._is_over:
            self._said[node] += 1
            await target.send("n", [node, self._said[node]])

    async def _revoke(self) -> None:
        allowed, chance = self._rights.allowed, self._chance
        while not self._is_over:
            broker = chance.choice(self._nodes).broker
            some = chance.sample(self._users, 1 + len(self._users) // 3)
            allowed.difference_update((user, ROOM) for user in some)
            since: dict[str, list[int]] = {}
            if chance.random() < 0.5:
                await broker.reauthorize(ROOM)
                since = {user: [*self._said] for user in some}
            else:
                for user in some:
                    await broker.reauthorize(user_id=user)
                    since[user] = [*self._said]
            await asyncio.sleep(0.01 * chance.random())
            until = [*self._said]
            await eventually(lambda until=until: all(map(operator.le, until, self._heard_everywhere())))  # type: ignore[misc]
            for user in some:
                self._forbidden[user].append((since[user], until))
            allowed.update((user, ROOM) for user in some)
            await asyncio.sleep(0.02 * chance.random())

    def _heard_everywhere(self) -> list[int]:
        """The last number of each node that was delivered on all of them."""
        return [min(last.get(node, 0) for last in self._observers) for node in range(len(self._nodes))]

    async def _observe(self, node: Node, last: dict[int, int]) -> None:
        """Be a member that nobody puts out, and misses nothing."""
        user = f"observer-{node.broker.node_id}"
        async with inside(self._rights, node, user) as peer:
            while True:
                message = await peer.receive()
                assert message["event"] == "n"
                sender, number = message["data"]
                assert number == last.get(sender, number - 1) + 1
                last[sender] = number

    async def _come_and_go(self, user: str, peer: Peer, joins: int) -> None:
        last = self._last[user]
        for number in itertools.count():
            if number >= joins and self.put_out:
                break
            await peer.send("enter", ROOM, id=number)
            answer = await self._until_answered(user, peer)
            self.entered += answer["event"] == "reply"
            if answer["event"] != "reply":
                assert answer["data"]["code"] == "FORBIDDEN"
                await eventually(lambda: (user, ROOM) in self._rights.allowed)
            if number % 5 == 0:
                await peer.send("leave", ROOM, id=number)
                await self._until_answered(user, peer)
                last.clear()

    async def _until_answered(self, user: str, peer: Peer) -> Any:
        last, heard = self._last[user], self._heard[user]
        while True:
            message = await peer.receive()
            if message["event"] == "n":
                node, number = message["data"]
                assert number == last.get(node, number - 1) + 1, "a member misses nothing, and gets it in order"
                last[node] = number
                heard.append((node, number))
            elif message["event"] == "left":
                self.put_out += 1
                last.clear()
            else:
                return message


async def test_joins_and_revocations_at_once_while_messages_flow(url: str) -> None:
    rights = Rights()
    async with nodes(url, prepare=rights.prepare, rate_limit=0, rate_bytes=0) as found:
        storm = Storm(rights, found, 16, 1)
        await storm.run(320)
    assert storm.entered
    assert storm.put_out


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
async def test_ten_thousand_joins_against_revocations_while_messages_flow(kind: str, say: Say) -> None:
    rights = Rights()
    async with (
        engine_url(kind) as url,
        nodes(url, 3, prepare=rights.prepare, rate_limit=0, rate_bytes=0) as found,
    ):
        storm = Storm(rights, found, 60, 1)
        await storm.run(10_000)
    say(f"{kind}: {storm.entered} joins went through, {storm.put_out} members were put out")
    assert storm.entered > 1000
    assert storm.put_out > 50
