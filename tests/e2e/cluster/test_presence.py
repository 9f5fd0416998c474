"""Presence of large rooms, and where news of them is lost: in the end all are told the truth, in bounded pieces."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from tests.support import DEADLINE, SERVER_KINDS, ServerKind, eventually, running, settings
from tests.support.crowd import Extra
from tests.support.local import LocalTransport
from tests.support.nodes import application
from tests.support.workers import an_engine
from velocity_ws import Broker
from velocity_ws.asgi.admission import Admission
from velocity_ws.asgi.app import serve_client
from velocity_ws.backplane import create_backplane
from velocity_ws.broker import presence_exchange, presence_outgoing, presence_reminders
from velocity_ws.broker.presence import Presence
from velocity_ws.broker.presence_exchange import PresenceExchange
from velocity_ws.broker.presence_room import PresenceRoom
from velocity_ws.broker.presence_telling import DELIVERIES
from velocity_ws.close import Close
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.envelopes import Notification, decode_body

ROOM = "x"


@asynccontextmanager
async def brokers(url: str, count: int = 2, **values: Any) -> AsyncIterator[list[Broker]]:
    """So many nodes that know each other, without a server."""
    values = {"backplane_url": url, "max_connections": 0, "presence_max_users": 0, **values}
    found = [Broker(settings(**values), twin=True, presence=[ROOM]) for _ in range(count)]
    for broker in found:
        application(broker)
    try:
        for broker in found:
            await broker.start()
        await eventually(lambda: all(len(cluster_of(broker).membership) == count - 1 for broker in found))
        yield found
    finally:
        for broker in found:
            await broker.stop()


def cluster_of(broker: Broker) -> Cluster:
    """Its cluster."""
    cluster = broker.node.cluster
    assert cluster is not None
    return cluster


def presence_of(broker: Broker) -> Presence:
    """Its presence."""
    presence = broker.node.presence
    assert presence is not None
    return presence


def exchange_of(broker: Broker) -> PresenceExchange:
    """How its presence speaks with other nodes."""
    presence = broker.node.presence
    assert presence is not None
    assert presence.exchange is not None
    return presence.exchange


async def comes(broker: Broker, user: str | None, room: str = ROOM, *, looks: bool = True) -> Extra:
    """Somebody in a room."""
    extra = Extra(broker, user, looks=looks)
    await broker.join_room(extra.id, room)
    return extra


async def crowd(broker: Broker, names: Sequence[str]) -> list[Extra]:
    """A room full of users."""
    return [await comes(broker, name, looks=False) for name in names]


class Lossy:
    """A backplane that does not carry what a test has it lose, and waits where it is told to."""

    def __init__(self, broker: Broker, is_lost: Callable[[Notification], bool] = lambda _: False) -> None:
        publisher = cluster_of(broker)._publisher
        self.is_lost = is_lost
        self.lost = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self._backplane: Any = publisher._backplane
        publisher._backplane = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backplane, name)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish what is not lost."""
        await self.goes_on.wait()
        kept = [(topic, data) for topic, data in messages if not self._loses(data)]
        self.lost += len(messages) - len(kept)
        await self._backplane.publish(kept)

    def _loses(self, data: bytes) -> bool:
        body = decode_body(data)
        return isinstance(body, Notification) and self.is_lost(body)


def once(what: str, number: int = 1) -> Callable[[Notification], bool]:
    """Lose the note of that name that has that number."""
    left = number

    def is_lost(note: Notification) -> bool:
        nonlocal left
        left -= note.what == what
        return note.what == what and left == 0

    return is_lost


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes a tenth of them."""
    monkeypatch.setattr(presence_reminders, "TICK", 0.1)
    monkeypatch.setattr(presence_exchange, "SETTLED", 0.1)
    monkeypatch.setattr(presence_exchange, "FIRST_PATIENCE", 0.1)


# --- large rooms


@pytest.mark.parametrize("kind", ["memory", "nats", "valkey", "embedded"])
async def test_a_newcomer_is_told_all_of_a_room_that_no_message_of_the_engine_could_hold(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:0250}" for number in range(4500)]
    if kind == "memory":
        await _told_whole("memory://whole", names)
        return
    async with an_engine(kind, tmp_path, monkeypatch) as url:
        await _told_whole(url, names)


async def _told_whole(url: str, names: list[str]) -> None:
    async with brokers(url, backplane_timeout=5) as (a, b):
        await crowd(a, names)
        late = await comes(b, "late")
        await eventually(lambda: len(late.users) == len(names) + 1, within=30)
        assert set(late.users) == {*names, "late"}
        assert late.largest < 70_000
        neighbour = await comes(a, "late")
        await eventually(lambda: len(neighbour.users) == len(names) + 1 and neighbour.users["late"] == 2, within=30)
        fulls = [event["data"]["full"] for event in neighbour.events]
        assert fulls[0]
        assert not any(fulls[1:])
        assert neighbour.largest < 70_000
        for broker in (a, b):
            stats = broker.get_stats()
            assert (stats.presence_refused, stats.backplane_missed, stats.dropped) == (0, 0, 0)


async def test_a_state_goes_in_as_many_parts_as_a_small_payload_asks_for(hurry: None) -> None:
    names = [f"{number:0250}" for number in range(300)]
    async with brokers("memory://small-payload") as (a, b):
        for broker in (a, b):
            cluster_of(broker)._backplane.max_payload = 16 * 1024
        await crowd(a, names)
        late = await comes(b, "late")
        await eventually(lambda: set(late.users) == {*names, "late"})
        assert a.get_stats().presence_refused == 0


async def test_a_room_that_is_asked_for_before_it_has_said_anything_is_told_whole(hurry: None) -> None:
    names = [f"{number:0250}" for number in range(1200)]
    async with brokers("memory://asked-early") as (a, b):
        late = await comes(b, "late")
        await eventually(lambda: late.users)
        people = [Extra(a, name) for name in names]
        for person in people:
            a.node.hub.join(person.id, ROOM)
            presence_of(a).joined(person.session, ROOM)
        exchange_of(a)._was_asked(b.node_id, (ROOM,))
        exchange_of(a)._answer()
        await eventually(lambda: set(late.users) == {*names, "late"})
        assert b.get_stats().backplane_invalid == 0


async def test_members_who_do_not_read_are_told_the_rest_when_they_do() -> None:
    names = [f"{number:0250}" for number in range(1200)]
    async with brokers("memory://slow", 1, send_queue_size="128KiB") as (a,):
        people = await crowd(a, names)
        async with not_reading(a) as transport:
            await a.join_room(transport.session.id, ROOM)
            await eventually(lambda: transport.queue)
            for person in people[:100]:  # behind its back
                await a.leave_room(person.id, ROOM)
            late = await comes(a, "late")
            await eventually(lambda: len(late.users) == 1100 + 2)
            await sees(transport, late.users)
        assert a.get_stats().dropped == 0


async def test_who_does_not_read_when_it_comes_is_told_of_those_who_came_later() -> None:
    async with brokers("memory://behind", 1) as (a,), not_reading(a) as transport:
        first = await comes(a, "first")
        await a.to_client(transport.session.id).send("waits")
        await a.join_room(transport.session.id, ROOM)
        await eventually(lambda: set(first.users) == {"first", "slow"})
        await comes(a, "later")
        await eventually(lambda: set(first.users) == {"first", "slow", "later"})
        assert msgspec.json.decode(str(await transport.take()))["event"] == "waits"
        await sees(transport, first.users)


async def test_who_does_not_read_is_told_numbers_alone_when_there_are_too_many_by_then() -> None:
    async with brokers("memory://too-many", 1, presence_max_users=3) as (a,), not_reading(a) as transport:
        first = await comes(a, "first")
        await a.to_client(transport.session.id).send("waits")
        await a.join_room(transport.session.id, ROOM)
        await eventually(lambda: set(first.users) == {"first", "slow"})
        await crowd(a, ["user1", "user2", "user3"])
        await eventually(lambda: first.last.get("user_count") == 5)
        assert msgspec.json.decode(str(await transport.take()))["event"] == "waits"
        last: dict[str, Any] = {}
        while last.get("user_count") != 5:
            last = msgspec.json.decode(str(await transport.take()))["data"]
        await eventually(lambda: not presence_of(a)._due)
        assert not transport.queue


@asynccontextmanager
async def not_reading(broker: Broker) -> AsyncIterator[LocalTransport]:
    """Somebody that takes nothing of what it is sent until it is told to."""
    scope = {"type": "http", "path": "/", "query_string": b"user=slow", "headers": [(b"host", b"x")]}
    transport = LocalTransport()
    task = asyncio.create_task(serve_client(broker.node, Admission(broker.node), HTTPConnection(scope), transport))
    assert await transport.answer is None
    yield transport
    transport.hang_up(Close(1000, "", "client"))
    await task


async def sees(transport: LocalTransport, users: dict[str, int]) -> None:
    """Have it read until what it was told adds up to some users, and nothing more is to come."""
    seen: dict[str, int] = {}
    is_full = False
    async with asyncio.timeout(10):
        while not is_full or seen != users or transport.queue:
            event = msgspec.json.decode(str(await transport.take()))["data"]
            is_full = is_full or event["full"]
            changed = event["users"] if event["full"] else {**seen, **event["users"]}
            seen = {user: count for user, count in changed.items() if count}


@pytest.mark.parametrize("kind", SERVER_KINDS)
async def test_a_large_room_is_told_over_every_server(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size="128KiB", presence_max_users=0, max_connections=0), presence=[ROOM])
    application(broker)
    names = [f"{number:0250}" for number in range(2000)]
    async with running(broker, kind) as address, address.connect("/ws?user=late", max_size=None) as peer:
        await crowd(broker, names)
        await peer.request("join", ROOM)
        users: dict[str, int] = {}
        while len(users) < 2001:
            users |= (await peer.expect("presence"))["users"]
        assert set(users) == {*names, "late"}
        assert broker.get_stats().dropped == 0


# --- counts only


async def test_beyond_so_many_users_members_are_told_numbers_and_names_again_when_there_are_less() -> None:
    async with brokers("memory://numbers", presence_max_users=10) as (a, b):
        people = await crowd(a, [f"user{number}" for number in range(8)])
        ann, bob = await comes(a, "ann"), await comes(b, "bob")
        await eventually(lambda: len(ann.users) == len(bob.users) == 10)
        assert "count" not in ann.last.keys() | bob.last.keys()
        again = await comes(b, "bob")
        nobody = await comes(b, None)
        await eventually(lambda: ann.users.get("bob") == 2 and nobody.last.get("anonymous") == 1)
        cat = await comes(b, "cat")
        numbers = {"room": ROOM, "users": {}, "anonymous": 1, "full": True, "count": 13, "user_count": 11}
        await eventually(lambda: all(extra.last == numbers for extra in (ann, bob, again, nobody, cat)))
        dan = await comes(a, "dan")
        await eventually(lambda: dan.last.get("user_count") == bob.last.get("user_count") == 12)
        seen = len(ann.events)
        for person in (dan, cat, people[0]):
            person.leave()
        await eventually(lambda: ann.last.get("user_count") == bob.last.get("user_count") == 9)
        assert all("count" in event["data"] for event in ann.events[seen:]), "10 and 9 are not named again yet"
        people[1].leave()
        named = (ann, bob, again, nobody)
        await eventually(lambda: all(len(extra.users) == 8 and "count" not in extra.last for extra in named))
        for extra in named:
            assert extra.users == {**{f"user{number}": 1 for number in range(2, 8)}, "ann": 1, "bob": 2}


async def test_members_are_told_the_same_numbers_again_when_they_were_told_names_in_between() -> None:
    async with brokers("memory://numbers-again", 1, presence_max_users=5) as (a,):
        people = await crowd(a, [f"user{number}" for number in range(5)])
        ann = await comes(a, "ann")
        await eventually(lambda: ann.last.get("user_count") == 6)
        for person in people[:2]:
            person.leave()
        await eventually(lambda: len(ann.users) == 4)
        await crowd(a, ["user0", "user1"])
        await eventually(lambda: ann.last.get("user_count") == 6)


async def test_a_room_that_fills_is_told_in_bounded_time_and_bytes() -> None:
    async with brokers("memory://fills", 1, presence_max_users=50) as (a,):
        began = asyncio.get_running_loop().time()
        people: list[Extra] = []
        for number in range(1500):
            people.append(await comes(a, f"user{number}", looks=False))
            if number % 50 == 0:
                await asyncio.sleep(0.03)
        last = await comes(a, "last")
        await eventually(lambda: last.last.get("user_count") == 1501)
        took = asyncio.get_running_loop().time() - began
        messages = sum(person.messages for person in people)
        assert messages < 2 * len(people) + 1.2 * DELIVERIES * (took + 0.5)
        assert sum(person.bytes for person in people) < 200 * messages + 50 * 50 * 2000


@pytest.mark.parametrize("size", [100, 10_000])
def test_a_join_and_a_leave_cost_the_same_however_many_are_in_the_room(size: int) -> None:
    room = PresenceRoom("a")
    for number in range(size):
        room.enter(f"client{number}", f"user{number}")
    list(room.unsaid(10**9))
    room.forget_changes()
    calls = 0

    def called(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        room.enter("another", "ann")
        list(room.unsaid(1000))
        room.changed(1000, len)
        room.leave("another")
        list(room.unsaid(1000))
        room.changed(1000, len)
    finally:
        sys.setprofile(None)
    assert calls < 80


# --- what is lost is mended


@pytest.mark.parametrize(
    "what", ["presence_asked", "presence_change", "presence", "a part", "the last part", "presence_versions"]
)
async def test_whatever_is_lost_is_noticed_and_told_again(hurry: None, what: str) -> None:
    name, number = {"a part": ("presence_change", 2), "the last part": ("presence_change", 3)}.get(what, (what, 1))
    names = [f"{number:0250}" for number in range(1200 if "part" in what else 20)]  # in three parts
    async with brokers(f"memory://lost-{what.replace(' ', '-')}") as (a, b):
        await crowd(a, names)
        await eventually(lambda: not presence_of(a)._due)
        losses = [Lossy(broker, once(name, number)) for broker in (a, b)]
        late = await comes(b, "late")
        await eventually(lambda: set(late.users) == {*names, "late"})
        await comes(a, "one more")
        early = await comes(a, "early")
        await eventually(lambda: set(late.users) == set(early.users) == {*names, "late", "early", "one more"})
        await eventually(lambda: any(loss.lost for loss in losses))


async def test_a_node_whose_last_word_is_lost_leaves_nobody_behind(hurry: None) -> None:
    async with brokers("memory://last-word") as (a, b):
        ann, bob = await comes(a, "ann"), await comes(b, "bob")
        await eventually(lambda: ann.users == bob.users == {"ann": 1, "bob": 1})
        lossy = Lossy(b, once("presence_change"))
        bob.leave()
        await eventually(lambda: ann.users == {"ann": 1})
        assert lossy.lost == 1
        again = await comes(b, "bob")
        await eventually(lambda: ann.users == again.users == {"ann": 1, "bob": 1})


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that a test holds is not given up, however long a busy machine takes for what is done meanwhile."""
    monkeypatch.setattr("velocity_ws.cluster.link.PROBE_TIMEOUT", 60.0)
    monkeypatch.setattr("velocity_ws.cluster.link.PROBE_BEHIND", 60.0)


async def test_what_the_publisher_refuses_is_counted_and_told_when_there_is_room(hurry: None, held: None) -> None:
    names = [f"{number:0250}" for number in range(600)]
    async with brokers("memory://refused", backplane_queue_size="64KiB", backplane_timeout=30) as (a, b):
        ann, bob = await comes(a, "ann"), await comes(b, "bob")
        await eventually(lambda: ann.users == bob.users == {"ann": 1, "bob": 1})
        lossy = Lossy(a)
        lossy.goes_on.clear()
        blocked = [asyncio.create_task(a.to_room("y").send("n", "x" * 20_000)) for _ in range(3)]
        await asyncio.sleep(0)
        await crowd(a, names)
        await eventually(lambda: len(ann.users) == 602)
        await eventually(lambda: a.get_stats().presence_refused)
        assert bob.users == {"ann": 1, "bob": 1}
        lossy.goes_on.set()
        await asyncio.gather(*blocked)
        await eventually(lambda: bob.users == ann.users)
        assert a.get_stats().backplane_refused == 0, "messages of the application have room in the queue"


async def test_a_node_that_was_deaf_says_all_of_it_again_and_nobody_is_told_anything() -> None:
    names = [f"{number:0250}" for number in range(1200)]
    async with brokers("memory://deaf") as (a, b):
        await crowd(a, names)
        ann = await comes(b, "ann")
        await eventually(lambda: set(ann.users) == {*names, "ann"})
        seen = len(ann.events)
        exchange_of(a).begin_anew()
        bob = await comes(a, "bob")
        await eventually(lambda: set(ann.users) == set(bob.users) == {*names, "ann", "bob"})
        assert [event["data"]["users"] for event in ann.events[seen:]] == [{"bob": 1}]


async def test_what_waits_for_the_publisher_is_bounded_and_the_rest_is_asked_for(
    hurry: None, held: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence_outgoing, "MAX_WAITING", 2)
    names = [f"{number:0250}" for number in range(2500)]
    async with brokers("memory://bounded", backplane_queue_size="256KiB", backplane_timeout=30) as (a, b):
        early = await comes(b, "early")
        lossy = Lossy(a)
        lossy.goes_on.clear()
        await crowd(a, names)
        await eventually(lambda: not presence_of(a)._due)
        assert len(exchange_of(a)._notes._waiting) <= 2 + 6, "at most a whole state more"
        lossy.goes_on.set()
        late = await comes(b, "late")
        await eventually(lambda: set(early.users) == set(late.users) == {*names, "early", "late"}, within=30)
        assert a.get_stats().presence_refused > 2


async def test_three_nodes_that_ask_at_once_are_told_once(hurry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_exchange, "FIRST_PATIENCE", DEADLINE)  # none asks again because the machine is busy
    async with brokers("memory://at-once", 4) as (a, *others):
        await crowd(a, [f"{number:0250}" for number in range(1200)])
        await eventually(lambda: not presence_of(a)._due)
        parts: list[Any] = []
        stranger = create_backplane("memory://at-once")
        topics = [cluster_of(a).topics.room(ROOM), *[cluster_of(a).topics.node(other.node_id) for other in others]]
        await stranger.connect(lambda topic, data: parts.append((topic, decode_body(data))), lambda _: None)
        await stranger.subscribe(topics)
        late = await asyncio.gather(*[comes(other, f"late{number}") for number, other in enumerate(others)])
        await eventually(lambda: all(len(extra.users) == 1203 for extra in late))
        changes = [
            topic
            for topic, body in parts
            if isinstance(body, Notification) and body.what == "presence_change" and len(body.args) > 10_000
        ]
        assert len(changes) <= 2 * 3, "not once for each of them"
        await stranger.close()


STEPS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["come", "go", "set"]), st.integers(0, 9), st.sampled_from("abcd")),
    max_size=40,
)


@hypothesis_settings(max_examples=12, deadline=None)
@given(STEPS, st.integers(0, 2**32))
def test_whatever_happens_on_two_nodes_that_lose_much_both_tell_the_truth_in_the_end(steps: Any, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presence_reminders, "TICK", 0.02)
        patch.setattr(presence_exchange, "SETTLED", 0.02)
        patch.setattr(presence_exchange, "FIRST_PATIENCE", 0.02)
        patch.setattr(presence_reminders, "STEPS", (1, 1, 2, 4, 8, 16, 32, 64))
        asyncio.run(_history(steps, random.Random(seed)))


async def _history(steps: Any, rng: random.Random) -> None:
    async with brokers(f"memory://history-{rng.getrandbits(60)}") as pair:
        for broker in pair:
            Lossy(broker, lambda _: rng.random() < 0.3)
        watchers = [await comes(broker, "watcher") for broker in pair]
        people: list[dict[int, Extra]] = [{}, {}]
        for at, what, who, user in steps:
            here = people[at]
            if what == "come" and who not in here:
                here[who] = await comes(pair[at], user, looks=False)
            elif what == "go" and who in here:
                here.pop(who).leave()
            elif what == "set" and who in here:
                await here[who].session.client.set_user(user)
            if rng.random() < 0.2:
                await asyncio.sleep(0.04)
        truth = Counter(person.session.user_id for here in people for person in here.values())
        truth["watcher"] = 2
        await eventually(lambda: all(watcher.users == truth for watcher in watchers))


# --- nodes of yesterday


class Yesterday:
    """What a node without parts and infos makes of what it hears of another."""

    class Change(msgspec.Struct, array_like=True):
        room: str
        before: int
        version: int
        users: dict[str, int]

    class State(msgspec.Struct, array_like=True):
        asked: tuple[str, ...]
        rooms: dict[str, tuple[int, dict[str, int]]]

    def __init__(self) -> None:
        self.version = 0
        self.users: dict[str, int] = {}
        self.questions = 0

    def hears(self, note: Notification) -> None:
        """A note came."""
        if note.what == "presence":
            state = msgspec.msgpack.decode(note.args, type=self.State)
            if ROOM in state.asked:
                self.version, self.users = state.rooms.get(ROOM, (0, {}))
        elif note.what == "presence_change":
            change = msgspec.msgpack.decode(note.args, type=self.Change)
            if change.before and change.before != self.version:
                self.questions += change.version > self.version
                return
            kept = self.users if change.before else {}
            self.users = {user: count for user, count in {**kept, **change.users}.items() if count}
            self.version = change.version


async def test_a_node_of_yesterday_understands_a_state_in_parts_and_what_follows() -> None:
    names = [f"{number:0250}" for number in range(1200)]
    async with brokers("memory://yesterday") as (a, b):
        await crowd(a, names)
        await eventually(lambda: not presence_of(a)._due)
        old = Yesterday()

        def hear(topic: str, data: bytes) -> None:
            body = decode_body(data)
            if data[4:15] == a.node_id.encode() and isinstance(body, Notification):
                old.hears(body)

        listener = create_backplane("memory://yesterday")
        await listener.connect(hear, lambda _: None)
        topics = cluster_of(a).topics
        await listener.subscribe([topics.node(b.node_id), topics.room(ROOM)])
        await comes(b, "late")
        await eventually(lambda: set(old.users) == set(names))
        more = await comes(a, "more")
        await eventually(lambda: set(old.users) == {*names, "more"})
        more.leave()
        await eventually(lambda: set(old.users) == set(names))
        assert old.questions == 0
        await listener.close()


async def test_a_node_of_yesterday_is_understood() -> None:
    async with brokers("memory://old-words") as (a, b):
        ann = await comes(a, "ann")
        await comes(b, "bob")
        await eventually(lambda: ann.users == {"ann": 1, "bob": 1})
        for broker in (a, b):
            exchange_of(broker).stop()
        cluster = cluster_of(b)  # says what an old node in its place would
        topic = cluster.topics.room(ROOM)
        cluster.notes.notify(topic, "presence_change", (ROOM, 0, 3, {"old": 2}))
        cluster.notes.notify(topic, "presence_change", (ROOM, 3, 4, {"older": 1}))
        await eventually(lambda: ann.users == {"ann": 1, "old": 2, "older": 1})
        cluster.notes.notify(topic, "presence", ((ROOM,), {ROOM: (5, {"oldest": 1})}))
        await eventually(lambda: ann.users == {"ann": 1, "oldest": 1})
        cluster.notes.notify(topic, "presence", ((ROOM,), {}))
        await eventually(lambda: ann.users == {"ann": 1})
        exchange_of(b)._tell_version(ROOM)
        await eventually(lambda: ann.users == {"ann": 1, "bob": 1})
